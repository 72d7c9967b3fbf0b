"""Targets and difficulties in, expected hashes per share out (reference section 2).

All give None for what cannot be meant: not positive, not finite, or beyond any network's difficulty.
"""

from typing import Final

MOST: Final = 1e30
"""No pool difficulty comes near; it keeps every sum of shares finite."""


def number(value: object) -> float | None:
    """A difficulty as sent by set_difficulty: a positive finite number below MOST."""
    if type(value) is not int and type(value) is not float:
        return None
    if not 0 < value < MOST:  # type: ignore[operator]  # false for NaN too
        return None
    got = float(value)  # type: ignore[arg-type]
    return got if got >= 1 / MOST else None


def boundary(text: object) -> float | None:
    """2^256 / b of a big-endian boundary in hex, leading zeros stripped or not, with or without 0x."""
    if type(text) is not str:
        return None
    digits = text.removeprefix("0x")
    if not 0 < len(digits) <= 64:
        return None
    try:
        value = int(digits, 16)
    except ValueError:
        return None
    return number(2**256 / value) if value > 0 else None


def cryptonote(text: object, *, big_endian: bool = False) -> float | None:
    """Difficulty of a CryptoNote target: 8 hex digits floor((2^32 - 1) / t), 16 digits 2^64 / t.

    Little-endian bytes; rx/yada alone writes a big-endian 64-bit number (xmrig Job.cpp).
    """
    if type(text) is not str or len(text) not in {8, 16}:
        return None
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return None
    value = int.from_bytes(raw, "big" if big_endian else "little")
    if len(raw) * 2 != len(text) or value == 0:
        return None
    if len(raw) == 8 or big_endian:
        return number(2**64 / value)
    return number((2**32 - 1) // value)
