"""Octets of one direction that turned to gzip in mid-stream, its text out (RFC 1952, RFC 1951).

EIP-1571 and Alephium's ``connection.set_gzip`` do not say how messages lie in it: a member each, or one that
goes on, flushed behind each message, are both read.
"""

import zlib
from typing import Annotated, Final

import msgspec

from detector.transports.inflating import FLUSHED, MAX_INFLATED, WINDOW

MAGIC: Final = b"\x1f\x8b\x08"
MAX_UNFLUSHED: Final = 16 << 10
"""What is held of a message that is not whole."""
HEADER: Final = 10
TRAILER: Final = 8
"""Octets of a member before its text and behind it."""
_BLANKS: Final = b"\r\n\0"


class Gunzip(msgspec.Struct, array_like=True, gc=False):
    """Where one direction stands: inside of a member or not, and what the rest of it may look back at."""

    open: bool = False
    window: Annotated[bytes, msgspec.Meta(max_length=WINDOW)] = b""

    def rests(self) -> bool:
        """Whether what comes next is a member."""
        return not self.open and not self.window

    def step(self, data: bytes, at: int) -> tuple[int, bytes]:
        """Read on at ``at``: where it stopped, ``at`` itself where more is needed, and the text of what was
        flushed.  Raises ValueError on what is no gzip, or holds more than is read."""
        if not self.open:
            return self._begin(data, at)
        inflate = zlib.decompressobj(-15, zdict=self.window)
        try:
            out = inflate.decompress(data[at:], MAX_INFLATED + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(out) > MAX_INFLATED:
            raise ValueError("more than is read")
        if inflate.eof:
            if len(inflate.unused_data) < TRAILER:
                return at, b""
            self.open, self.window = False, b""
            return len(data) - len(inflate.unused_data) + TRAILER, out
        if data.endswith(FLUSHED):
            self.window = (self.window + out)[-WINDOW:]
            return len(data), out
        if len(data) - at > MAX_UNFLUSHED:
            raise ValueError("not flushed")
        return at, b""

    def _begin(self, data: bytes, at: int) -> tuple[int, bytes]:
        while data[at : at + 1] and data[at] in _BLANKS:
            at += 1
        head = data[at : at + HEADER]
        if not MAGIC.startswith(head[: len(MAGIC)]):
            raise ValueError("no member")
        if len(head) < HEADER:
            return at, b""
        if head[3]:
            raise ValueError("a member with a name or a comment")
        self.open = True
        return at + HEADER, b""
