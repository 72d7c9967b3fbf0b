"""A hash index for kernels: a 63-bit key in, a number out.  Open addressing, at most half full.

Domains, templates and samplers share one, told apart by the top bits of the key.  What is removed keeps its
place with the value GONE until the index is next made larger.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel

GONE: Final = -1
# What tells interfaces from samplers in a sampler's key: a domain's number is below.
INTERFACE_TAG: Final = 1 << 29
FORCED_TAG: Final = 1 << 28
# The exporter as a whole: its number stands for a domain's.
EXPORTER_TAG: Final = 1 << 27
_DOMAIN: Final = 1 << 62
_TEMPLATE: Final = 2 << 62
_SAMPLER: Final = 3 << 62


def domain_key(exporter: int, version: int, domain: int) -> int:
    """``exporter`` is its number here, below 2**24."""
    return _DOMAIN | exporter << 36 | version << 32 | domain


def template_key(domain: int, template: int) -> int:
    """``domain`` is its number here."""
    return _TEMPLATE | domain << 16 | template


def sampler_key(domain: int, sampler: int) -> int:
    """``domain`` is its number here, below 2**27; with a tag, ``sampler`` is an interface."""
    return _SAMPLER | domain << 32 | sampler


@kernel
def _place(keys, seed, key):
    x = key ^ seed
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mask = np.int64(keys.size - 1)
    at = np.int64((x ^ (x >> np.uint64(31))) & np.uint64(mask))
    while keys[at] != key and keys[at] != np.uint64(0):
        at = (at + 1) & mask
    return at


@kernel
def find(keys, values, seed, key):
    """The number of ``key`` (u8), or GONE."""
    at = _place(keys, seed, key)
    return values[at] if keys[at] == key else np.int64(GONE)


@kernel
def _put(keys, values, seed, key, value):
    at = _place(keys, seed, key)
    fresh = keys[at] != key
    keys[at] = key
    values[at] = value
    return fresh


@kernel
def _copy(old_keys, old_values, keys, values, seed):
    used = 0
    for i in range(old_keys.size):
        if old_keys[i] != np.uint64(0) and old_values[i] != GONE:
            _put(keys, values, seed, old_keys[i], old_values[i])
            used += 1
    return used


class Index:
    """The arrays ``keys`` u8 and ``values`` i8 that kernels search, and how they grow."""

    def __init__(self, seed: int = 0, slots: int = 1024) -> None:
        self.seed = np.uint64(seed)
        self.keys = np.zeros(slots, np.uint64)
        self.values = np.full(slots, GONE, np.int64)
        self._used = 0

    def put(self, key: int, value: int) -> None:
        """Enter ``key`` or give it another number; GONE removes it."""
        if _put(self.keys, self.values, self.seed, np.uint64(key), value):
            self._used += 1
        if 2 * self._used > self.keys.size:
            self._grow()

    def find(self, key: int) -> int:
        """The number of ``key``, or GONE."""
        return int(find(self.keys, self.values, self.seed, np.uint64(key)))

    def _grow(self) -> None:
        old_keys, old_values = self.keys, self.values
        alive = int(np.count_nonzero(old_values != GONE))
        size = old_keys.size
        while 4 * alive >= size:
            size *= 2
        self.keys = np.zeros(size, np.uint64)
        self.values = np.full(size, GONE, np.int64)
        self._used = int(_copy(old_keys, old_values, self.keys, self.values, self.seed))
