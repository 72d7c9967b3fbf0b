"""BLAKE-256 (the finalist of SHA-3, 14 rounds, no salt): bytes in, 32 bytes out.  Pure.

Decred's addresses have their checksum by it; no library that we depend on has it, and ``hashlib.blake2s`` is
another function.  A fifth of a millisecond a block: for addresses, not for shares.
"""

from struct import pack, unpack
from typing import Final

_ROUNDS: Final = 14
_WORD: Final = 0xFFFFFFFF
_IV: Final = unpack(">8I", bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19"))
# The first digits of pi behind the point.
_PI: Final = unpack(">16I", bytes.fromhex(
    "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89"
    "452821e638d01377be5466cf34e90c6cc0ac29b7c97c50dd3f84d5b5b5470917"
))  # fmt: skip
# Which words of block and constants a round takes, a digit each; the eleventh round is as the first.
_ORDER: Final = [[int(digit, 16) for digit in row] for row in (
    "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
    "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
)]  # fmt: skip
# The four words of the state that a step mixes, a digit each: its columns, then its diagonals.
_STEPS: Final = [[int(digit, 16) for digit in row] for row in (
    "048c", "159d", "26ae", "37bf", "05af", "16bc", "278d", "349e",
)]  # fmt: skip


def _turned(word: int, bits: int) -> int:
    return word >> bits | word << 32 - bits & _WORD


def _compressed(chain: list[int], block: bytes, counted: int) -> list[int]:
    """The chaining value after a block; ``counted`` bits of the message until its end."""
    m = unpack(">16I", block)
    low, high = counted & _WORD, counted >> 32
    v = [*chain, *_PI[:4], low ^ _PI[4], low ^ _PI[5], high ^ _PI[6], high ^ _PI[7]]
    for turn in range(_ROUNDS):
        order = _ORDER[turn % len(_ORDER)]
        for step, (a, b, c, d) in enumerate(_STEPS):
            j, k = order[2 * step : 2 * step + 2]
            v[a] = v[a] + v[b] + (m[j] ^ _PI[k]) & _WORD
            v[d] = _turned(v[d] ^ v[a], 16)
            v[c] = v[c] + v[d] & _WORD
            v[b] = _turned(v[b] ^ v[c], 12)
            v[a] = v[a] + v[b] + (m[k] ^ _PI[j]) & _WORD
            v[d] = _turned(v[d] ^ v[a], 8)
            v[c] = v[c] + v[d] & _WORD
            v[b] = _turned(v[b] ^ v[c], 7)
    return [was ^ one ^ other for was, one, other in zip(chain, v[:8], v[8:], strict=True)]


def blake256(data: bytes) -> bytes:
    """The hash of a message."""
    padded = bytearray(data + b"\x80")
    padded += bytes((56 - len(padded)) % 64)
    padded[-1] |= 1
    padded += pack(">Q", 8 * len(data))
    chain = list(_IV)
    for at in range(0, len(padded), 64):
        # A block that holds nothing of the message counts nothing.
        counted = 8 * min(at + 64, len(data)) if at < len(data) else 0
        chain = _compressed(chain, bytes(padded[at : at + 64]), counted)
    return pack(">8I", *chain)
