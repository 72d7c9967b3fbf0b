"""Compressed octets in, what they hold out, within a bound."""

import zlib
from typing import Final

MAX_INFLATED: Final = 64 << 10
"""As long as the longest line that is read: a bomb costs no more."""
WINDOW: Final = 32 << 10
"""What DEFLATE may look back at (RFC 1951 section 2)."""
FLUSHED: Final = b"\0\0\xff\xff"
"""What a sender leaves off the end of a message (RFC 7692 section 7.2.1)."""

CODINGS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content codings by what zlib calls them."""


SMALL: Final = 4096
MOST_SWELLED: Final = 32
"""What is inflated is at most so many times as long as it was, and SMALL: texts of miners and nodes swell by
two to ten."""
MAX_MEMBERS: Final = 64
"""Of gzip, one behind another (RFC 1952 section 2.2)."""


class InflateError(ValueError):
    """A peer sent what cannot be inflated, or what holds more than MAX_INFLATED."""


def message(data: bytes, window: bytes) -> bytes:
    """A message of permessage-deflate; ``window`` is what was inflated before it, at most WINDOW octets.

    A window that is kept where the sender begins anew does no harm: nothing looks back at it.  One that is
    not whole is told by the first look beyond it.  Raises InflateError.
    """
    return _inflated(zlib.decompressobj(-15, zdict=window), data + FLUSHED)


def body(data: bytes, coding: str) -> bytes:
    """The body of an HTTP message in a coding of CODINGS, of all its members.  Raises InflateError.

    Some send "deflate" without the zlib wrapper (RFC 9110 section 8.4.1.2).
    """
    try:
        inflate = zlib.decompressobj(CODINGS[coding])
        out = _inflated(inflate, data, whole=True)
        for _ in range(MAX_MEMBERS):
            if coding == "deflate" or not inflate.unused_data.startswith(b"\x1f\x8b"):
                return out
            more = inflate.unused_data
            inflate = zlib.decompressobj(CODINGS[coding])
            out += _inflated(inflate, more, room=MAX_INFLATED - len(out), whole=True)
        raise InflateError("more members than are read")
    except InflateError:
        if coding != "deflate":
            raise
    return _inflated(zlib.decompressobj(-15), data, whole=True)


def _inflated(
    inflate: "zlib._Decompress", data: bytes, *, room: int = MAX_INFLATED, whole: bool = False
) -> bytes:
    room = min(room, SMALL + MOST_SWELLED * len(data))
    try:
        out = inflate.decompress(data, room + 1)
    except zlib.error as error:
        raise InflateError(str(error)) from None
    if len(out) > room or (whole and not inflate.eof):
        raise InflateError("more than is read" if len(out) > room else "cut short")
    return out
