"""The head of one message of HTTP/1 in, what it says out (RFC 9112)."""

import base64
import binascii
import re
from functools import lru_cache
from typing import Final, NamedTuple

MAX_KNOWN: Final = 512
"""Octets of a head that is remembered, with what it says."""
MAX_TEXT: Final = 128

_REQUEST: Final = re.compile(rb"([A-Z]{3,7}) (\S+) HTTP/1\.[01]\r?")
_RESPONSE: Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)((?: .*)?)\r?", re.S)

_BROWSER: Final = re.compile(rb"(?:mozilla|opera)/", re.IGNORECASE)
_PAGES: Final = frozenset({b"origin", b"referer", b"cookie", b"sec-fetch-mode", b"sec-fetch-site"})


class Head(NamedTuple):
    """What a head says: of a request method and target, of a response its status, else 0; ``mines``: a field
    that only miners or their nodes send."""

    method: bytes
    target: bytes
    status: int
    connects: bool
    mines: bool
    user: str
    agent: str
    host: bytes
    is_json: bool
    is_program: bool
    has_type: bool
    upgrades: bool
    coding: str
    transfer: bytes | None
    size: bytes | None


def read(head: bytes) -> Head:
    """A head, without the blank line behind it.  Raises ValueError on what is none."""
    first, *fields = head.split(b"\n")
    told: dict[bytes, bytes] = {}
    for field in fields:
        name, colon, value = field.partition(b":")
        if field[:1] in {b" ", b"\t"} or not colon:
            continue  # the rest of the field before (section 5.2), or nothing
        name, value = name.rstrip().lower(), value.strip()
        if name == b"content-length" and value != told.get(name, value):
            value = _shorter(value, told[name])
        elif name in told:
            continue
        told[name] = value
    request, response = _REQUEST.fullmatch(first), _RESPONSE.fullmatch(first)
    if request is None and response is None:
        raise ValueError("no start line")
    mines = b"x-long-polling" in told or b"x-stratum" in told
    if request is not None:
        mines = any(name.startswith(b"x-mining-") for name in told)
    return Head(
        method=b"" if request is None else request[1],
        target=b"" if request is None else request[2],
        status=0 if response is None else int(response[1]),
        connects=response is not None and b"onnection" in response[2],
        mines=mines,
        user=_user(told.get(b"authorization", b"")),
        agent=text(told.get(b"user-agent", b"")),
        host=told.get(b"host", b""),
        is_json=_is_json(told),
        is_program=_is_program(told),
        has_type=b"content-type" in told,
        upgrades=_upgrades(told),
        coding=told.get(b"content-encoding", b"identity").lower().decode("latin-1"),
        transfer=told[b"transfer-encoding"].lower() if b"transfer-encoding" in told else None,
        size=told.get(b"content-length", b"").partition(b",")[0].rstrip() or None,
    )


_known: Final = lru_cache(maxsize=1024)(read)
"""Programs send the same heads again and again."""


def known(head: bytes) -> Head:
    """As ``read``, which is asked once for what is said often.  No password is kept."""
    short = len(head) <= MAX_KNOWN and b"authorization" not in head.lower()
    return _known(head) if short else read(head)


def _shorter(a: bytes, b: bytes) -> bytes:
    """Of two lengths (section 6.3, item 5: an error) that behind which the next head is still found."""
    return a if a.isdigit() and b.isdigit() and int(a[:15]) < int(b[:15]) else b


def _is_program(told: dict[bytes, bytes]) -> bool:
    """Whether what asks is no browser: those say who they are, and whose page makes them ask."""
    agent = told.get(b"user-agent", b"")
    return bool(agent) and not _BROWSER.match(agent) and _PAGES.isdisjoint(told)


def _is_json(told: dict[bytes, bytes]) -> bool:
    kind = told.get(b"content-type", b"").lower().partition(b";")[0].strip()
    return kind.startswith(b"application/") and b"json" in kind


def _upgrades(told: dict[bytes, bytes]) -> bool:
    return b"websocket" in map(bytes.strip, told.get(b"upgrade", b"").lower().split(b","))


def text(value: bytes) -> str:
    """As it is kept: cut."""
    return value[:MAX_TEXT].decode("latin-1")


def _user(authorization: bytes) -> str:
    """Who asks, of the Basic scheme (RFC 7617); the password is not kept."""
    scheme, _, told = authorization.partition(b" ")
    if scheme.lower() != b"basic" or len(told) > 4 * MAX_TEXT:
        return ""
    try:
        return base64.b64decode(told.strip(), validate=True).partition(b":")[0].decode()[:MAX_TEXT]
    except (binascii.Error, UnicodeDecodeError):
        return ""
