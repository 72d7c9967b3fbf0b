"""Checksums of wallet addresses: text in, whether it holds out.  Pure; any text gives an answer."""

from base64 import urlsafe_b64decode
from binascii import crc_hqx
from collections.abc import Callable, Iterable
from hashlib import blake2b, sha256
from typing import Final

from detector.blake256 import blake256

BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE: Final = {c: n for n, c in enumerate(BASE58)}
_BECH32: Final = {c: n for n, c in enumerate("qpzry9x8gf2tvdw0s3jn54khce6mua7l")}
_BECH32_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M: Final = 0x2BC830A3
_CASH_GENERATOR: Final = (0x98F2BC8E61, 0x79B76D99E2, 0xF33E5FB3C4, 0xAE2EABE2A8, 0x1E4F43E470)
_CONFLUX: Final = {c: n for n, c in enumerate("abcdefghjkmnprstuvwxyz0123456789")}
# CryptoNote writes 8 bytes as 11 digits; what is left over, as many as it needs.
_LAST_BYTES: Final = {0: 0, 2: 1, 3: 2, 5: 3, 6: 4, 7: 5, 9: 6, 10: 7}


def _number(text: str) -> int | None:
    number = 0
    for c in text:
        digit = _BASE58_VALUE.get(c)
        if digit is None:
            return None
        number = number * 58 + digit
    return number


def base58(text: str) -> bytes | None:
    """The bytes of a base58 number, leading ones as zero bytes; None for what is none."""
    number = _number(text)
    if number is None:
        return None
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def keccak256(data: bytes) -> bytes:
    """Keccak before it became SHA-3."""
    from Crypto.Hash import keccak  # noqa: PLC0415  # loads libraries, which most runs do without

    return keccak.new(digest_bits=256, data=data).digest()


def sha256d(data: bytes) -> bytes:
    """SHA-256 twice, as Bitcoin hashes all that it hashes."""
    return sha256(sha256(data).digest()).digest()


def _base58check(text: str, hashed: Callable[[bytes], bytes] = sha256d) -> bytes | None:
    raw = base58(text)
    if raw is None or len(raw) < 5 or hashed(raw[:-4])[:4] != raw[-4:]:
        return None
    return raw[:-4]


def _base58blake2b(text: str) -> bytes | None:
    """Ergo: BLAKE2b of 256 bits."""
    return _base58check(text, lambda data: blake2b(data, digest_size=32).digest())


def _base58blake256(text: str) -> bytes | None:
    """Decred: BLAKE-256 twice."""
    return _base58check(text, lambda data: blake256(blake256(data)))


def _aeternity(text: str) -> bytes | None:
    return _base58check(text.partition("_")[2])


def _cryptonote(text: str) -> bytes | None:
    """Base58 in blocks of 8 bytes, the last four of which are of Keccak-256."""
    out = b""
    for at in range(0, len(text), 11):
        block = text[at : at + 11]
        size = 8 if len(block) == 11 else _LAST_BYTES.get(len(block))
        number = _number(block)
        if number is None or size is None or number >> 8 * size:
            return None
        out += number.to_bytes(size, "big")
    return out[:-4] if len(out) > 4 and keccak256(out[:-4])[:4] == out[-4:] else None


def _polymod(values: Iterable[int], generator: tuple[int, ...], shift: int) -> int:
    check = 1
    mask = (1 << shift) - 1
    for value in values:
        top = check >> shift
        check = (check & mask) << 5 ^ value
        for n, term in enumerate(generator):
            if top >> n & 1:
                check ^= term
    return check


def _bech32_sum(text: str, mark: str = "1") -> tuple[int, list[int]]:
    """(the remainder, the values) of BIP 173; (0, []) for what is no such text."""
    if text not in (text.lower(), text.upper()):
        return 0, []
    text = text.lower()
    prefix, _, digits = text.rpartition(mark)
    values = [_BECH32.get(c, -1) for c in digits]
    if not prefix or len(values) < 7 or -1 in values:
        return 0, []
    expanded = [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix)]
    return _polymod([*expanded, *values], _BECH32_GENERATOR, 25), values


def _as_bytes(values: list[int]) -> bytes:
    """Groups of five bits as bytes, padded."""
    number = 0
    for value in values:
        number = number << 5 | value
    return number.to_bytes((5 * len(values) + 7) // 8, "big")


def _bech32(text: str, wanted: tuple[int, ...] = (1,), mark: str = "1") -> bytes | None:
    remainder, values = _bech32_sum(text, mark)
    return _as_bytes(values[:-6]) if values and remainder in wanted else None


def _bech32m(text: str) -> bytes | None:
    """BIP 350."""
    return _bech32(text, (_BECH32M,))


def _bech32_either(text: str) -> bytes | None:
    """Nervos CKB: the short form has the old constant, the full one the new."""
    return _bech32(text, (1, _BECH32M))


def _bech32_colon(text: str) -> bytes | None:
    """Xelis writes a colon where others write a 1."""
    return _bech32(text, mark=":")


def _segwit(text: str) -> bytes | None:
    """BIP 350: witness version 0 has the old constant, all others the new."""
    remainder, values = _bech32_sum(text)
    return _as_bytes(values[:-6]) if values and remainder == (_BECH32M if values[0] else 1) else None


def _cashaddr(text: str) -> bytes | None:
    """The checksum of Bitcoin Cash's addresses, over the prefix too."""
    prefix, _, digits = text.lower().rpartition(":")
    values = [_BECH32.get(c, -1) for c in digits]
    if not prefix or len(values) < 9 or -1 in values:
        return None
    whole = [*(ord(c) & 31 for c in prefix), 0, *values]
    return _as_bytes(values[:-8]) if _polymod(whole, _CASH_GENERATOR, 35) == 1 else None


def _conflux(text: str) -> bytes | None:
    """CIP-37: the same checksum over another alphabet; what stands in the middle is not part of it."""
    parts = text.lower().split(":")
    values = [_CONFLUX.get(c, -1) for c in parts[-1]]
    if len(parts) < 2 or len(values) < 9 or -1 in values:
        return None
    whole = [*(ord(c) & 31 for c in parts[0]), 0, *values]
    return _as_bytes(values[:-8]) if _polymod(whole, _CASH_GENERATOR, 35) == 1 else None


def _hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _sha256_tail(text: str) -> bytes | None:
    """Warthog: 20 bytes and the first four of their SHA-256."""
    raw = _hex(text)
    return raw[:-4] if raw and sha256(raw[:-4]).digest()[:4] == raw[-4:] else None


def _eip55(text: str) -> bytes | None:
    """ERC-55: the case of each letter is a bit of Keccak-256 of the address in lower case."""
    digits = text[2:]
    raw = _hex(digits)
    if raw is None or not digits.isascii():
        return None
    bits = keccak256(digits.lower().encode()).hex()
    good = all(c == (c.upper() if bit >= "8" else c.lower()) for c, bit in zip(digits, bits, strict=False))
    return raw if good else None


def _iban(text: str) -> bytes | None:
    """Nimiq: ISO 13616, letters as two digits, modulo 97."""
    bare = text.replace(" ", "")
    if not (bare.isascii() and bare.isalnum() and bare == bare.upper()):
        return None
    digits = "".join(str(int(c, 36)) for c in bare[4:] + bare[:4])
    return bare[4:].encode() if digits and int(digits) % 97 == 1 else None


def _qubic(text: str) -> bytes | None:
    """56 letters of a public key, four of KangarooTwelve of it, the least first, base 26."""
    values = [ord(c) - 65 for c in text]
    if len(values) != 60 or min(values) < 0 or max(values) > 25:
        return None
    key = b""
    for at in range(0, 56, 14):
        number = 0
        for value in reversed(values[at : at + 14]):
            number = number * 26 + value
        if number >> 64:
            return None
        key += number.to_bytes(8, "little")
    from Crypto.Hash import KangarooTwelve  # noqa: PLC0415  # as above

    told = int.from_bytes(KangarooTwelve.new(data=key).read(3), "little") & 0x3FFFF
    return key if told == sum(v * 26**n for n, v in enumerate(values[56:])) else None


def _ton(text: str) -> bytes | None:
    """36 bytes in base64 for URLs, the last two CRC-16 (XMODEM)."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii"))
    except ValueError:
        return None
    return raw[:-2] if len(raw) == 36 and crc_hqx(raw, 0) == 0 else None


KINDS: Final[dict[str, Callable[[str], bytes | None]]] = {
    "base58check": _base58check,
    "base58-blake2b": _base58blake2b,
    "base58-blake256": _base58blake256,
    "base58-aeternity": _aeternity,
    "cryptonote": _cryptonote,
    "segwit": _segwit,
    "bech32": _bech32,
    "bech32m": _bech32m,
    "bech32-either": _bech32_either,
    "bech32-colon": _bech32_colon,
    "cashaddr": _cashaddr,
    "conflux": _conflux,
    "sha256-tail": _sha256_tail,
    "eip-55": _eip55,
    "iban": _iban,
    "qubic": _qubic,
    "ton": _ton,
}
"""By kind: an address in, what it holds without its checksum out; None where the checksum fails."""


def holds(kind: str, text: str) -> bytes | None:
    """What an address holds, None where its checksum of this ``kind`` fails; any text gives an answer."""
    return KINDS[kind](text)
