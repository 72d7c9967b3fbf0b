"""Pages of chunks: columns and their bytes, filled by reassembly and emptied when rows are published.

A page holds no more than one message may carry, both copies of a row whose ends are both home included.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from collectors import wire

# One row of the ``payloads`` stream, without its owner.  ``src`` is the sender of the bytes.
CHUNK: Final = np.dtype(
    [
        ("src_high", "u8"), ("src_low", "u8"), ("dst_high", "u8"), ("dst_low", "u8"),
        ("t", "i8"), ("offset", "i8"), ("at", "i8"), ("size", "i8"),  # the bytes, in the page's data
        ("seq", "u4"), ("ack", "u4"), ("src_port", "u2"), ("dst_port", "u2"), ("flags", "u1"),
    ]
)  # fmt: skip
# Twice so much, and twice so many rows, are below wire.MAX_MESSAGE_BYTES.
PAGE_BYTES: Final = 3 << 20
# Chunks that one segment makes at most: its bytes, a first acknowledgement, a reset's end.
CHUNKS_A_SEGMENT: Final = 3


class Page(NamedTuple):
    """``chunks`` (n,) CHUNK and ``data`` u1; ``filled`` (2,) i8 says how much of the two is used."""

    chunks: np.ndarray
    data: np.ndarray
    filled: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """(n,) CHUNK: those that are there."""
        return self.chunks[: self.filled[0]]


def page(octets: int = PAGE_BYTES) -> Page:
    """An empty page for that many payload octets."""
    return Page(np.zeros(wire.MAX_ROWS, CHUNK), np.zeros(octets, np.uint8), np.zeros(2, np.int64))


class Pages:
    """The page that is being written, and full ones that wait."""

    def __init__(self) -> None:
        self.open = page()
        self._full: list[Page] = []

    @property
    def waiting(self) -> int:
        """Chunks on all pages."""
        return int(self.open.filled[0]) + sum(int(p.filled[0]) for p in self._full)

    def drain(self) -> Iterator[Page]:
        """Hand the chunks over; a page is good until the next is asked for."""
        full, self._full = self._full, []
        yield from full
        if self.open.filled[0]:
            yield self.open
            self.open.filled[:] = 0

    def turn(self, octets: int) -> bool:
        """Open another page unless this one has room for a segment of so many octets.  True: it was."""
        rows, used = self.open.filled.tolist()
        if rows + CHUNKS_A_SEGMENT <= self.open.chunks.size and used + octets <= self.open.data.size:
            return False
        if rows:
            self._full.append(self.open)
        self.open = page(max(PAGE_BYTES, octets))
        return True

    def write(self, chunk: tuple[int, ...], data: bytes) -> None:
        """Put a chunk on the page: what CHUNK holds, without ``at`` and ``size``."""
        self.turn(len(data))
        rows, at = self.open.filled.tolist()
        self.open.chunks[rows] = (*chunk[:6], at, len(data), *chunk[6:])
        self.open.data[at : at + len(data)] = np.frombuffer(data, np.uint8)
        self.open.filled[:] = rows + 1, at + len(data)
