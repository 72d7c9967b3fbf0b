"""The beginning of a TLS client's stream in; server name, first ALPN protocol, versions and JA4 out.

RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 7301; JA4 as FoxIO's technical details describe it
(github.com/FoxIO-LLC/ja4, TLS client fingerprint, BSD licence).
"""

from hashlib import sha256
from typing import Final, NamedTuple

from collectors.errors import DecodeError, Reason
from collectors.packet.answers import escaped, escaped_protocol

# A record holds 2**14 octets and an overhead; a hello of more than that is nobody's.
MAX_RECORD: Final = (1 << 14) + 256
MAX_HELLO: Final = 1 << 14
# With the heads of its records.
MAX_OCTETS: Final = MAX_HELLO + 512

_SERVER_NAME: Final = 0
_SIGNATURE_ALGORITHMS: Final = 13
ALPN: Final = 16
SUPPORTED_VERSIONS: Final = 43
_ENCRYPTED: Final = 0xFE0D
_VERSIONS: Final = {
    0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2",
}  # fmt: skip
_NO_HASH: Final = "0" * 12


class Hello(NamedTuple):
    """What a client hello tells; ``ja4`` is None where only a part of it was seen.

    ``versions`` offered, newest first; ``ciphers`` in their order; both without the values of RFC 8701.
    ``encrypted``: it may hold another hello, whose name nobody here can read (RFC 9849); ``server_name`` is
    then that of the outer one.
    """

    server_name: str | None
    alpn: str | None
    ja4: str | None
    versions: tuple[int, ...] = ()
    ciphers: tuple[int, ...] = ()
    encrypted: bool = False


class _Found:
    """Filled in the order of the bytes, so that what was read before they ended is not lost."""

    def __init__(self) -> None:
        self.version = 0
        self.ciphers: list[int] = []
        self.extensions: list[int] = []
        self.versions: list[int] = []
        self.signatures: list[int] = []
        self.named = False
        self.name: bytes | None = None
        self.alpn: bytes | None = None


class Octets:
    """A reader that never goes beyond its end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    @property
    def left(self) -> int:
        """Octets not yet taken."""
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        """The next octets.  Raises DecodeError where there are fewer."""
        if self.at + size > len(self.data):
            raise DecodeError(Reason.SHORT, f"{size} octets at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, width: int) -> int:
        """A number of so many octets."""
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> "Octets":
        """What stands behind its length (RFC 8446 section 3.4)."""
        return Octets(self.take(self.number(width)))

    def numbers(self) -> list[int]:
        """All that is left, as numbers of two octets."""
        if len(self.data) % 2:
            raise DecodeError(Reason.LENGTH, "an odd list of pairs of octets")
        return [self.number(2) for _ in range(len(self.data) // 2)]


def _grease(value: int) -> bool:
    """RFC 8701: values that mean nothing, so that servers learn to ignore what they do not know."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def _plain(values: list[int]) -> list[int]:
    return [v for v in values if not _grease(v)]


def _message(data: bytes) -> tuple[bytes, bool]:
    """The handshake message that begins in ``data``, over its records, and whether it is all there."""
    records, body, need = Octets(data), bytearray(), 4
    while records.left > 5:
        kind, version, size = records.number(1), records.number(2), records.number(2)
        if kind != 22 or version >> 8 != 3:
            raise DecodeError(Reason.FORMAT, f"record type {kind}, version {version:#06x}")
        if not 0 < size <= MAX_RECORD:
            raise DecodeError(Reason.LENGTH, f"a record of {size} octets")
        body += records.take(min(size, records.left))
        if body[0] != 1:
            raise DecodeError(Reason.FORMAT, f"handshake type {body[0]}")
        if len(body) >= 4:
            need = 4 + int.from_bytes(body[1:4], "big")
        if need > MAX_HELLO:
            raise DecodeError(Reason.SIZE, f"a hello of {need} octets")
        if len(body) >= need > 4:
            return bytes(body[4:need]), True
    return bytes(body[4:]), False


def read(data: bytes, *, rest_is_lost: bool = False) -> Hello | None:
    """Read a client hello; None while it is not whole.  Raises DecodeError.

    ``rest_is_lost``: nothing will follow, so what is there is told, without JA4.
    """
    body, whole = _message(data)
    if not whole and not rest_is_lost:
        return None
    return _told(body, whole, "t")


def read_message(data: bytes, *, rest_is_lost: bool = False, transport: str = "q") -> Hello | None:
    """The same of a handshake message without records, as QUIC carries it; ``transport`` as JA4 has it."""
    if len(data) < 4:
        return None
    if data[0] != 1:
        raise DecodeError(Reason.FORMAT, f"handshake type {data[0]}")
    need = 4 + int.from_bytes(data[1:4], "big")
    if need > MAX_HELLO:
        raise DecodeError(Reason.SIZE, f"a hello of {need} octets")
    if len(data) < need and not rest_is_lost:
        return None
    return _told(data[4:need], len(data) >= need, transport)


def _told(body: bytes, whole: bool, transport: str) -> Hello:
    found = _Found()
    try:
        _hello(Octets(body), found)
    except DecodeError as error:
        if whole or error.reason is not Reason.SHORT:
            raise
    name = None
    if found.name:
        name = ".".join(escaped(label) for label in found.name.removesuffix(b".").split(b"."))
    return Hello(
        name,
        None if found.alpn is None else escaped_protocol(found.alpn),
        transport + _ja4(found) if whole else None,
        tuple(sorted(_plain(found.versions), reverse=True)) or (found.version,),
        tuple(_plain(found.ciphers)),
        _ENCRYPTED in found.extensions,
    )


def _hello(body: Octets, found: _Found) -> None:
    found.version = body.number(2)
    body.take(32)
    body.vector(1)  # session
    found.ciphers = body.vector(2).numbers()
    body.vector(1)  # compression
    if not body:
        return
    size = body.number(2)
    while body and size > 0:
        kind, length = body.number(2), body.number(2)
        found.extensions.append(kind)
        found.named = found.named or kind == _SERVER_NAME
        _extension(kind, Octets(body.take(length)), found)
        size -= 4 + length
    if size or body:
        raise DecodeError(Reason.SHORT if size > 0 else Reason.LENGTH, "extensions that do not fit")


def _extension(kind: int, data: Octets, found: _Found) -> None:
    if not data:
        return
    try:
        if kind == _SERVER_NAME and found.name is None:
            names = data.vector(2)
            while names and found.name is None:
                host = names.number(1) == 0
                name = names.vector(2).data
                found.name = name if host else None
        elif kind == ALPN and found.alpn is None:
            found.alpn = _protocol(data.vector(2))
        elif kind == SUPPORTED_VERSIONS:
            found.versions = data.vector(1).numbers()
        elif kind == _SIGNATURE_ALGORITHMS:
            found.signatures = data.vector(2).numbers()
    except DecodeError as error:
        # The extension is all there, so it is not the stream's end that cut it.
        raise DecodeError(Reason.LENGTH, f"extension {kind}: {error}") from None


def _protocol(protocols: Octets) -> bytes | None:
    """The first of a list that is not one of RFC 8701."""
    while True:
        protocol = protocols.vector(1).data
        if len(protocol) != 2 or not _grease(int.from_bytes(protocol, "big")):
            return protocol
        if not protocols:
            return None


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else _NO_HASH


def _list(values: list[int]) -> str:
    return ",".join(f"{v:04x}" for v in values)


def _ends(alpn: bytes | None) -> str:
    """First and last character of the protocol; of its hexadecimal form where they are not alphanumeric."""
    if not alpn:
        return "00"
    ends = bytes((alpn[0], alpn[-1]))
    text = ends.decode("latin-1")
    return text if text.isascii() and text.isalnum() else ends.hex()[0] + ends.hex()[-1]


def _ja4(found: _Found) -> str:
    versions = _plain(found.versions) or [found.version]
    ciphers, extensions = _plain(found.ciphers), _plain(found.extensions)
    signatures = _plain(found.signatures)
    hashed = _list(sorted(e for e in extensions if e not in (_SERVER_NAME, ALPN)))
    if signatures:
        hashed += "_" + _list(signatures)
    return (
        f"{_VERSIONS.get(max(versions), '00')}{'d' if found.named else 'i'}"
        f"{min(len(ciphers), 99):02d}{min(len(extensions), 99):02d}{_ends(found.alpn)}"
        f"_{_hash(_list(sorted(ciphers)))}_{_hash(hashed) if extensions else _NO_HASH}"
    )
