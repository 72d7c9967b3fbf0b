"""The beginning of a TLS server's stream in; version, protocol and the names of its certificate out.

RFC 5246 section 7.4: server hello and certificate up to TLS 1.2 are in the open.  TLS 1.3 hides the
certificate (RFC 8446 section 4.4.2), and a session that is resumed has none.
"""

from typing import Final, NamedTuple

from collectors.errors import DecodeError, Reason
from collectors.packet import certificates
from collectors.packet.answers import escaped_protocol
from collectors.packet.hellos import ALPN, MAX_RECORD, SUPPORTED_VERSIONS, Octets

# Of the stream: a chain is longer than its first certificate, but that one is all that is read.
MAX_FLIGHT: Final = 1 << 14

_HANDSHAKE: Final = 22
_SERVER_HELLO: Final = 2
_CERTIFICATE: Final = 11
_TLS13: Final = 0x0304


class Flight(NamedTuple):
    """``version`` as on the wire, ``alpn`` the protocol that the server chose, ``names`` of its certificate:
    none where it shows none."""

    version: int
    cipher: int
    alpn: str | None
    names: tuple[str, ...]


def read(data: bytes, *, rest_is_lost: bool = False) -> Flight | None:
    """Read a server's first flight as far as its own certificate; None while that is not whole.

    Raises DecodeError.  ``rest_is_lost``: nothing will follow, so what is there is told.
    """
    handshake, open_ended = _handshake(data)
    messages = Octets(handshake)
    if messages.left < 4:
        return None
    hello = _message(messages, _SERVER_HELLO)
    if hello is None:
        return None
    version, cipher, alpn = _server_hello(hello)
    told = Flight(version, cipher, alpn, ())
    if version >= _TLS13:
        return told
    if messages.left < 1:
        return told if rest_is_lost or not open_ended else None
    if messages.data[messages.at] != _CERTIFICATE:
        return told
    leaf = _leaf(messages)
    if leaf is None:
        return told if rest_is_lost else None
    return told._replace(names=certificates.names(leaf) if leaf else ())


def _handshake(data: bytes) -> tuple[bytes, bool]:
    """Handshake octets over the records, as far as they are there, and whether more may follow."""
    records, body = Octets(data), bytearray()
    while records.left >= 5:
        kind, version, size = records.number(1), records.number(2), records.number(2)
        if kind != _HANDSHAKE and body:
            return bytes(body), False
        if kind != _HANDSHAKE or version >> 8 != 3:
            raise DecodeError(Reason.FORMAT, f"record type {kind}, version {version:#06x}")
        if not 0 < size <= MAX_RECORD:
            raise DecodeError(Reason.LENGTH, f"a record of {size} octets")
        body += records.take(min(size, records.left))
    return bytes(body), True


def _message(messages: Octets, kind: int) -> Octets | None:
    """The next message, if it is whole."""
    given, size = messages.number(1), messages.number(3)
    if given != kind:
        raise DecodeError(Reason.FORMAT, f"handshake type {given}")
    if size > MAX_FLIGHT:
        raise DecodeError(Reason.SIZE, f"a message of {size} octets")
    return Octets(messages.take(size)) if messages.left >= size else None


def _leaf(messages: Octets) -> bytes | None:
    """The first certificate of the message that comes next: empty where there is none, None where it is not
    whole."""
    if messages.left < 7:
        return None
    messages.number(1)
    size, chain = messages.number(3), messages.number(3)
    if chain + 3 != size:
        raise DecodeError(Reason.LENGTH, f"certificates of {chain} octets in a message of {size}")
    if chain == 0:
        return b""
    if messages.left < 3:
        return None
    leaf = messages.number(3)
    if leaf + 3 > chain:
        raise DecodeError(Reason.LENGTH, f"a certificate of {leaf} octets in a chain of {chain}")
    if leaf > MAX_FLIGHT:
        raise DecodeError(Reason.SIZE, f"a certificate of {leaf} octets")
    return messages.take(leaf) if messages.left >= leaf else None


def _server_hello(body: Octets) -> tuple[int, int, str | None]:
    version, alpn = body.number(2), None
    body.take(32)
    body.vector(1)  # session
    cipher = body.number(2)
    body.number(1)  # compression
    extensions = body.vector(2) if body else body
    while extensions:
        kind, value = extensions.number(2), extensions.vector(2)
        if kind == SUPPORTED_VERSIONS and value.left == 2:
            version = value.number(2)
        elif kind == ALPN and value:
            alpn = escaped_protocol(value.vector(2).vector(1).data)
    return version, cipher, alpn
