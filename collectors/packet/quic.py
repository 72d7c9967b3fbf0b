"""A QUIC client's first datagrams in; the octets of its TLS client hello out.

RFC 9000 and RFC 9001 (version 1), RFC 9369 (version 2).  Initial packets are encrypted by keys that everybody
can make from the connection id in them: their secret is public, so this hides nothing and proves nothing.
"""

import hmac
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from collectors.errors import DecodeError, Reason
from collectors.packet.hellos import MAX_HELLO

# RFC 9000 section 14.1: a client fills its first datagrams.
MIN_DATAGRAM: Final = 1200
MAX_PACKETS: Final = 8
MAX_FRAMES: Final = 512


class Version(NamedTuple):
    """What differs between versions: salt, labels, and the type of an Initial packet."""

    salt: bytes
    label: str
    initial: int


VERSIONS: Final = {
    1: Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic ", 0),
    0x6B3343CF: Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2 ", 1),
}


class Keys(NamedTuple):
    """Of one side's Initial packets."""

    key: bytes
    iv: bytes
    protection: bytes


class Piece(NamedTuple):
    """Octets of the CRYPTO stream."""

    offset: int
    data: bytes


def _expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1) with an empty context; of at most 32 octets."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0\1"
    return hmac.digest(secret, info, sha256)[:size]


@lru_cache(maxsize=256)
def client_keys(version: int, connection_id: bytes) -> Keys:
    """RFC 9001 section 5.2: from the id that the client made up for the server."""
    of = VERSIONS[version]
    secret = _expand(hmac.digest(of.salt, connection_id, sha256), "client in", 32)
    return Keys(
        _expand(secret, of.label + "key", 16),
        _expand(secret, of.label + "iv", 12),
        _expand(secret, of.label + "hp", 16),
    )


def crypto(datagram: bytes, connection_id: bytes | None = None) -> tuple[bytes, list[Piece]]:
    """The connection id that opened a datagram's Initial packets, and what CRYPTO frames are in them.

    ``connection_id`` is that of an earlier datagram, whose keys hold on after the server has chosen another.
    Raises DecodeError.
    """
    pieces: list[Piece] = []
    used, at = b"", 0
    for _ in range(MAX_PACKETS):
        head = _header(datagram, at)
        if head is None:
            break
        tried = [head.destination] if connection_id is None else [connection_id, head.destination]
        plain = None
        for used in dict.fromkeys(tried):
            plain = _open(datagram, at, head, client_keys(head.version, used))
            if plain is not None:
                break
        if plain is None:
            raise DecodeError(Reason.CORRUPT, "an Initial packet that its keys do not open")
        pieces += _frames(plain)
        at = head.end
    if not used:
        raise DecodeError(Reason.FORMAT, "no Initial packet")
    return used, pieces


class _Head(NamedTuple):
    version: int
    destination: bytes
    number_at: int
    end: int


def _variable(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer (RFC 9000 section 16) and the index after it."""
    if at >= len(data):
        raise DecodeError(Reason.SHORT, "the datagram ends in a number")
    width = 1 << (data[at] >> 6)
    if at + width > len(data):
        raise DecodeError(Reason.SHORT, "the datagram ends in a number")
    value = int.from_bytes(data[at : at + width], "big") & ((1 << (8 * width - 2)) - 1)
    return value, at + width


def _header(data: bytes, at: int) -> _Head | None:
    """The Initial packet at ``at``; None where there is another, or none."""
    if at + 7 > len(data) or data[at] & 0xC0 != 0xC0:
        return None
    version = int.from_bytes(data[at + 1 : at + 5], "big")
    if version not in VERSIONS or (data[at] >> 4) & 3 != VERSIONS[version].initial:
        return None
    size, at = data[at + 5], at + 6
    destination = data[at : at + size]
    at += size
    if size > 20 or at >= len(data):
        raise DecodeError(Reason.LENGTH, f"a connection id of {size} octets")
    if data[at] > 20:
        raise DecodeError(Reason.LENGTH, f"a connection id of {data[at]} octets")
    token, at = _variable(data, at + 1 + data[at])
    length, at = _variable(data, at + token)
    # The number, at least the sample of the protection and the tag.
    if length < 20 or at + length > len(data):
        raise DecodeError(Reason.LENGTH, f"a packet of {length} octets at {at} of {len(data)}")
    return _Head(version, destination, at, at + length)


def _open(data: bytes, at: int, head: _Head, keys: Keys) -> bytes | None:
    """The packet's frames; None where the keys are not its own (RFC 9001 sections 5.3 and 5.4)."""
    sample = data[head.number_at + 4 : head.number_at + 20]
    mask = Cipher(algorithms.AES(keys.protection), modes.ECB()).encryptor().update(sample)
    first = data[at] ^ (mask[0] & 0x0F)
    width = (first & 3) + 1
    number = bytes(
        a ^ b for a, b in zip(data[head.number_at : head.number_at + width], mask[1:], strict=False)
    )
    nonce = (int.from_bytes(keys.iv, "big") ^ int.from_bytes(number, "big")).to_bytes(12, "big")
    said = bytes([first]) + data[at + 1 : head.number_at] + number
    try:
        return AESGCM(keys.key).decrypt(nonce, data[head.number_at + width : head.end], said)
    except InvalidTag:
        return None


def _frames(plain: bytes) -> Iterator[Piece]:
    """The CRYPTO frames of an Initial packet (RFC 9000 section 17.2.2 says what else may be in one)."""
    at = 0
    for _ in range(MAX_FRAMES):
        at = len(plain) - len(plain[at:].lstrip(b"\0"))  # PADDING
        if at >= len(plain):
            return
        kind, at = plain[at], at + 1
        if kind == 6:
            offset, at = _variable(plain, at)
            size, at = _variable(plain, at)
            if at + size > len(plain) or offset + size > MAX_HELLO:
                raise DecodeError(Reason.SIZE, f"{size} octets at {offset} of the handshake")
            yield Piece(offset, plain[at : at + size])
            at += size
        elif kind in (2, 3):
            at = _acknowledgement(plain, at, kind)
        elif kind == 0x1C:  # CONNECTION_CLOSE
            return
        elif kind != 1:  # PING
            raise DecodeError(Reason.FORMAT, f"a frame of type {kind}")
    raise DecodeError(Reason.SIZE, f"more than {MAX_FRAMES} frames in a packet")


def _acknowledgement(plain: bytes, at: int, kind: int) -> int:
    for _ in range(2):
        _, at = _variable(plain, at)
    ranges, at = _variable(plain, at)
    if ranges > MAX_FRAMES:
        raise DecodeError(Reason.SIZE, f"{ranges} ranges acknowledged")
    for _ in range(1 + 2 * ranges + (3 if kind == 3 else 0)):
        _, at = _variable(plain, at)
    return at
