"""A gzip file in, what it holds out: any number of members, each as far as it is whole."""

import zlib
from typing import Final, Protocol

GZIP: Final = b"\x1f\x8b"
# Octets that are inflated at a time, at the beginning of a member and after.
_FIRST_STEP: Final = 512
_STEP: Final = 1 << 14


class Reader(Protocol):
    """An open binary file, a pipe, or anything else that gives bytes in order."""

    def read(self, n: int, /) -> bytes:
        """At most ``n`` octets; nothing at the end."""


class Gunzip:
    """A gzip stream of any number of members, read as far as it is whole."""

    def __init__(self, file: Reader, head: bytes) -> None:
        self._file = file
        self._raw = head
        self._at = 0
        self._step = _FIRST_STEP
        self._inflate = zlib.decompressobj(wbits=31)
        self.broken = False

    def read(self, n: int) -> bytes:
        """At most ``n`` octets; nothing at the end, or where it is ``broken``."""
        while not self.broken:
            if self._at == len(self._raw):
                self._raw, self._at = self._file.read(1 << 18), 0
            if self._inflate.eof:
                if self._raw[self._at : self._at + 1] != GZIP[:1]:
                    return b""  # the end, or padding after the last member
                self._inflate = zlib.decompressobj(wbits=31)
                # A short one first: of what is behind a member's end, zlib makes a copy.
                self._step = _FIRST_STEP
            out = self._inflate_some(n)
            if out:
                return out
        return b""

    def _inflate_some(self, n: int) -> bytes:
        piece = self._raw[self._at : self._at + self._step]
        before = self._inflate.copy()
        try:
            out = self._inflate.decompress(piece, n)
        except zlib.error:
            self.broken = True
            return _whole_of(before, piece, n)
        left = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        self._at += len(piece) - len(left)
        self._step = _STEP
        # At the end of the file zlib may still hold something: only without that it is over.
        self.broken = not piece and not out
        return out


def _whole_of(inflate: "zlib._Decompress", piece: bytes, n: int) -> bytes:
    """What comes out before the error, at most ``n`` octets: zlib itself throws away the whole call's."""
    out = left = b""
    try:
        for k in range(len(piece)):
            out += inflate.decompress(left + piece[k : k + 1], n - len(out))
            left = inflate.unconsumed_tail
            if len(out) >= n:
                break
    except zlib.error:
        pass
    return out
