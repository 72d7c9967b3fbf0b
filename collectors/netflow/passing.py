"""Datagrams that hold nothing but flow records under known templates are passed over, in one compiled pass.

For ``totals``, which counts such records from their rows, and need look at all others only.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.netflow.templates import Key
from collectors.netflow.walking import u2, u4

# Keys of templates of flows that are known at once.
_ROOM: Final = 1 << 14
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _place(keys, high, low, word):
    """Where a key is, or would be; ``keys`` (n, 3) u8, a power of two of them, is never full."""
    mask = keys.shape[0] - 1
    x = ((high * _MIX ^ low) * _MIX ^ word) * _MIX
    at = np.int64((x >> np.uint64(32)) & np.uint64(mask))
    while keys[at, 2] != np.uint64(0):
        if keys[at, 2] == word and keys[at, 1] == low and keys[at, 0] == high:
            break
        at = (at + 1) & mask
    return at


@kernel
def _add(keys, high, low, word):
    """Enter a key; 1 where it is new."""
    at = _place(keys, high, low, word)
    if keys[at, 2] == word:
        return 0
    keys[at, 0] = high
    keys[at, 1] = low
    keys[at, 2] = word
    return 1


@kernel
def _of_note_in_sflow(data, at, end):
    """Whether there is a sample that is none of a flow, up to what does not fit."""
    kind = u4(data, at + 4) if end - at >= 8 else np.int64(3)
    start = at + 8 + (16 if kind == 2 else 4 * kind)
    if kind > 2 or end - start < 16:
        return False
    left = u4(data, start + 12)
    at = start + 16
    while left and end - at >= 8:
        # Flow samples, and expanded ones.
        if u4(data, at) not in (1, 3):
            return True
        size = u4(data, at + 4)
        if size > end - at - 8:
            return False
        at += 8 + ((size + 3) & ~3)
        left -= 1
    return False


@kernel
def _of_note(data, at, size, high, low, keys):
    """Whether one datagram holds more than flow records of ``keys``."""
    if size < 4 or data[at] != 0:
        return False
    if u4(data, at) == 5:
        return _of_note_in_sflow(data, at, at + size)
    version = u2(data, at)
    if version not in (9, 10):
        return False
    end = at + size
    if version == 10:
        end = at + min(size, u2(data, at + 2))
    here = at + (20 if version == 9 else 16)
    if here > end:
        return True
    domain = u4(data, here - 4)
    while end - here >= 4:
        number = u2(data, here)
        length = u2(data, here + 2)
        if number < 256 or length < 4 or length > end - here:
            return True
        word = np.uint64((version << 48) | (domain << 16) | number)
        if keys[_place(keys, high, low, word), 2] != word:
            return True
        here += length
    return False


@kernel
def following(data, at, size, exporter, words, first, keys):
    """The first datagram from ``first`` on that holds more than flow records of ``keys``; n: there is none.

    ``words`` (m, 2) u8 are the exporters' addresses; ``keys`` as Known has them.
    """
    for i in range(first, at.size):
        if _of_note(data, at[i], size[i], words[exporter[i], 0], words[exporter[i], 1], keys):
            return i
    return at.size


class Known:
    """Templates of flows, as ``following`` takes them: a few thousand; when there are more it begins anew."""

    def __init__(self) -> None:
        self.keys = np.zeros((2 * _ROOM, 3), np.uint64)
        self._count = 0

    def add(self, key: Key) -> None:
        """Records under it are flows."""
        if self._count >= _ROOM:
            self.forget()
        high, low = np.frombuffer(key.exporter, np.uint64)
        word = np.uint64(key.version << 48 | key.domain << 16 | key.id)
        self._count += _add(self.keys, high, low, word)

    def forget(self) -> None:
        """Nothing is known any more: a template has changed or has gone."""
        if self._count:
            self.keys[:] = 0
            self._count = 0
