"""The beginning of an HTTP/1 request in; whom it is meant for out.

RFC 9112 section 3: the authority of CONNECT, that of a target in absolute form, which overrides the Host
field, or the Host field.
"""

import re
from typing import Final, NamedTuple

from collectors.errors import DecodeError, Reason
from collectors.packet.answers import MAX_NAME, escaped

METHODS: Final = ("GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH")
# A head of more octets is nobody's that has a name to tell.
MAX_HEAD: Final = 8192

_WORDS: Final = tuple(f"{method} ".encode() for method in METHODS)
_LINE: Final = re.compile(rb"([A-Z]{3,7}) ([^ \r\n]*)")
_ABSOLUTE: Final = re.compile(rb"http://([^\0- /?#]*)", re.I)
_FIELD: Final = re.compile(rb"\nhost:[\t ]*+([^\0- :/?#]*+).", re.I | re.S)
_PORT: Final = re.compile(rb":([0-9]{1,5})")


class Request(NamedTuple):
    """``port`` is that of the target, where it names one; ``by_proxy``: the server that is spoken to is not
    the one that is meant."""

    host: str
    port: int | None
    by_proxy: bool


def read(data: bytes, *, rest_is_lost: bool = False) -> Request | None:
    """Read a request; None while its head tells nothing and is not over, or where it names nobody.

    Raises DecodeError; whether more may follow is ``unfinished``'s to say.
    """
    line = _LINE.match(data)
    if line is None and not rest_is_lost and any(word.startswith(data) for word in _WORDS):
        return None
    if line is None or line[1].decode() not in METHODS:
        raise DecodeError(Reason.FORMAT, "no request line")
    head = _head(data)
    target, connects = line[2], line[1] == b"CONNECT"
    if line.end() == len(data):
        return None
    absolute = _ABSOLUTE.match(target)
    if connects or absolute:
        authority = target if connects else (absolute[1] if absolute else b"")
        host, port = _authority(authority)
        return Request(host, port or (None if connects else 80), True) if host else None
    field = _FIELD.search(head)
    if field is None:
        if len(data) >= MAX_HEAD:
            raise DecodeError(Reason.SIZE, f"a head of more than {MAX_HEAD} octets")
        if rest_is_lost and head is data:
            raise DecodeError(Reason.SHORT, "the head is cut before it names a host")
        return None
    host = _named(field[1])
    return Request(host, None, False) if host else None


def unfinished(data: bytes) -> bool:
    """Whether the head goes on after these bytes."""
    return len(data) < MAX_HEAD and _head(data) is data


def _head(data: bytes) -> bytes:
    """The bytes up to the blank line, or ``data`` itself where there is none."""
    ends = [at for at in (data.find(b"\n\r\n"), data.find(b"\n\n")) if at >= 0]
    return data[: min(ends) + 1] if ends else data


def _authority(authority: bytes) -> tuple[str, int | None]:
    host, colon, rest = authority.rpartition(b"@")[2].partition(b":")
    port = _PORT.fullmatch(colon + rest)
    number = int(port[1]) if port else 0
    return _named(host), number if 0 < number < 65536 else None


def _named(host: bytes) -> str:
    """A host as text, "" where it is none: an address in brackets, or too long."""
    if not host or len(host) > MAX_NAME or host.startswith(b"["):
        return ""
    return ".".join(escaped(label) for label in host.removesuffix(b".").split(b"."))
