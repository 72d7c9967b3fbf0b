"""A bitmap of hashes over (address, port, protocol): says no for certain, yes perhaps.

Keys in, a bitmap kept; columns of flows in, the rows that may touch one of the keys out, all in numpy.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

# splitmix64's constants: odd, well mixed.
_C1: Final = np.uint64(0x9E3779B97F4A7C15)
_C2: Final = np.uint64(0xBF58476D1CE4E5B9)
_C3: Final = np.uint64(0x94D049BB133111EB)
_C4: Final = np.uint64(0xD6E8FEB86659FD93)
_SHIFT: Final = np.uint64(29)

Key = tuple[bytes, int, int]
"""Address (16 bytes), port, protocol."""


def _mix(words: np.ndarray, key: np.ndarray) -> np.ndarray:
    """A 64-bit hash, good in its top bits, of (n, 2) u8 addresses and (n,) u8 protocol and port."""
    h = words[:, 0] * _C1
    h ^= words[:, 1]
    h ^= key * _C3
    h *= _C2
    return h


def _again(h: np.ndarray) -> np.ndarray:
    h = h ^ (h >> _SHIFT)
    h *= _C4
    return h


class Sieve:
    """Two bits an entry over 2**k places: says no for certain, yes perhaps (1 in 250 at its fullest)."""

    __slots__ = ("_shift", "bits", "room", "used")

    def __init__(self, room: int) -> None:
        power = max(16, int(room * 16 - 1).bit_length())
        self.room, self.used = (1 << power) // 16, 0
        self.bits = np.zeros((1 << power) // 8, np.uint8)
        self._shift = np.uint64(64 - power)

    def add(self, keys: Sequence[Key]) -> None:
        """Let these pass from now on."""
        words, key = _columns(keys)
        h = _mix(words, key)
        for part in (h, _again(h)):
            place = (part >> self._shift).astype(np.int64)
            np.bitwise_or.at(self.bits, place >> 3, np.uint8(1) << (place & 7).astype(np.uint8))
        self.used += len(key)

    def _set(self, h: np.ndarray) -> np.ndarray:
        place = (h >> self._shift).view(np.int64)
        cell = self.bits.take(place >> 3)
        cell >>= (place & 7).astype(np.uint8)
        cell &= np.uint8(1)
        return np.flatnonzero(cell)

    def rows(self, words: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Rows that may be known, of (n, 2) u8 addresses and (n,) u8 protocol and port.

        The second bit is asked of those alone that pass the first.
        """
        h = _mix(words, key)
        first = self._set(h)
        return first[self._set(_again(h[first]))] if first.size else first


def _columns(keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray]:
    words = np.frombuffer(b"".join(k[0] for k in keys), "<u8").reshape(-1, 2)
    return words, np.array([k[2] << 16 | k[1] for k in keys], np.uint64)
