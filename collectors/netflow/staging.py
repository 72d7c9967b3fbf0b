"""Room that rows are written into, by partition; and how it is used again when nobody reads it any more.

Memory that is fresh from the system costs as much as decoding a record into it: its pages are cleared one by
one.  So blocks are kept, and one is free again when no batch refers to it.
"""

import sys
from dataclasses import dataclass
from typing import Final

import numpy as np

from collectors import wire

# Records that go through all passes together, so that what one pass leaves the next finds near by.
BLOCK: Final = 2048
# No set has more records: 65,535 octets, and a flow has two addresses.
LARGEST: Final = 8192
# Blocks that are kept for use again; each is at most some 60 MB for 32 partitions.
_KEPT: Final = 6
# What sys.getrefcount says of an array that only the pool's list and the loop over it know.
_FREE: Final = 3


@dataclass(frozen=True, slots=True)
class Arena:
    """Columns of one memory block, so that a kernel can be told by number which to write.

    ``start`` (k,) i8: where each column begins, in its own cells; ``cell`` (k,) i8: octets of a cell.  The
    four views are of the whole block.
    """

    start: np.ndarray
    cell: np.ndarray
    u1: np.ndarray
    u2: np.ndarray
    u4: np.ndarray
    u8: np.ndarray
    rows: int

    def column(self, number: int) -> np.ndarray:
        """(rows,) unsigned integers, or (rows, 16) u1."""
        size = int(self.cell[number])
        first = int(self.start[number]) * size
        octets = self.u1[first : first + size * self.rows]
        return octets.reshape(-1, 16) if size == 16 else octets.view(f"u{size}")


@dataclass(frozen=True, slots=True)
class Room:
    """``slots`` runs of ``rows`` rows each: column c of slot s, row r is cell ``start[c] + s * rows + r``."""

    arena: Arena
    slots: int
    rows: int

    @property
    def whole(self) -> int:
        """Rows of all slots."""
        return self.slots * self.rows


def arena(columns: tuple[tuple[str, int], ...], rows: int) -> Arena:
    """Room for ``rows`` rows in memory of its own."""
    return laid(columns, rows, np.zeros(sum(size for _, size in columns) * rows // 8 + 1, np.uint64))


def laid(columns: tuple[tuple[str, int], ...], rows: int, u8: np.ndarray) -> Arena:
    """An arena over memory that is there: (name, octets a cell), widest first."""
    cell = np.array([size for _, size in columns], np.int64)
    ends = np.cumsum(cell * rows)
    start = (ends - cell * rows) // cell
    return Arena(start, cell, u8.view(np.uint8), u8.view(np.uint16), u8.view(np.uint32), u8, rows)


class Pool:
    """Rooms for the columns that it is made with.  ``take`` is its verb."""

    def __init__(self, columns: tuple[tuple[str, int], ...], partitions: int) -> None:
        self._columns = columns
        self._row = sum(size for _, size in columns)
        self._partitions = partitions
        self._kept: list[np.ndarray] = []

    def take(self, records: int) -> Room:
        """Room for about so many records, spread over all partitions; what it holds is anything."""
        share = 2 * records // self._partitions
        rows = min(wire.MAX_ROWS, max(64, 1 << share.bit_length()))
        slots = self._partitions + self._partitions // 4 + 2 * min(records, LARGEST) // rows + 2
        words = self._row * rows * slots // 8 + 1
        memory = self._free(words)
        return Room(laid(self._columns, rows * slots, memory), slots, rows)

    def _free(self, words: int) -> np.ndarray:
        for i in range(len(self._kept)):
            one = self._kept[i]
            if one.size == words and sys.getrefcount(one) == _FREE:
                # The newest use last: what is first was of no use for longest.
                self._kept.append(self._kept.pop(i))
                return one
        made = np.empty(words, np.uint64)
        self._kept.append(made)
        if len(self._kept) > _KEPT:
            del self._kept[0]
        return made
