"""A stream of IPFIX messages in, cut anywhere; whole messages out (RFC 7011 10.4.1).  Bytes and numbers only.

A message says its own length.  Where one says what cannot be, there is no way to find the next: the stream is
broken, and stays so.
"""

from typing import Final

from collectors.errors import Reason

_VERSION: Final = 10
_HEADER: Final = 16


class Framer:
    """One stream.  What it keeps is less than one message, so under 64 KiB."""

    def __init__(self) -> None:
        self._rest = b""
        self.broken: Reason | None = None

    @property
    def unfinished(self) -> int:
        """Octets of a message that has not yet come whole."""
        return len(self._rest)

    def feed(self, octets: bytes) -> tuple[bytes, list[int]]:
        """Whole messages, one behind the other, and the size of each.  What comes before the break is good;
        from then on ``broken`` says why, and nothing more comes."""
        if self.broken is not None:
            return b"", []
        given = self._rest + octets
        sizes: list[int] = []
        at, end = 0, len(given)
        while end - at >= 4:
            size = given[at + 2] << 8 | given[at + 3]
            if given[at] << 8 | given[at + 1] != _VERSION:
                self.broken = Reason.VERSION
            elif size < _HEADER:
                self.broken = Reason.LENGTH
            if self.broken is not None or end - at < size:
                break
            sizes.append(size)
            at += size
        self._rest = b"" if self.broken is not None else given[at:]
        return given[:at], sizes
