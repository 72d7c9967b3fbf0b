"""Whether UDP payloads are exports, by their first octets: for a capture of which nobody says what it holds.

A datagram on a known port goes to the collector as it is, to be refused there by reason.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.netflow.walking import u2, u4

_YEAR_1990: Final = 631_152_000
_SECOND_NS: Final = 1_000_000_000


@kernel
def _is_sflow(data, at, size):
    """Version 5, an agent address of a known kind, and a first sample that fits where any are promised."""
    kind = u4(data, at + 4)
    if u4(data, at) != 5 or kind > 2:
        return False
    head = 24 if kind == 2 else 8 + 4 * kind
    if size < head + 16:
        return False
    if u4(data, at + head + 12) == 0:
        return True
    return size >= head + 24 and u4(data, at + head + 20) <= size - head - 24


@kernel
def _is_set(data, at, room, least):
    """A set that fits: a data set's id, or one of the two below ``least`` + 2."""
    first = u2(data, at)
    return (first in (least, least + 1) or first >= 256) and 4 <= u2(data, at + 2) <= room


@kernel
def _is_export(data, at, size):
    """NetFlow v1, v5, v7, v9, IPFIX or sFlow 5, as far as one header can tell."""
    if size < 20:
        return False
    version = u2(data, at)
    count = u2(data, at + 2)
    if version == 0:
        return _is_sflow(data, at, size)
    if version in (1, 7):
        octets = 16 + 48 * count if version == 1 else 24 + 52 * count
        plausible = size == octets and u4(data, at + 12) < _SECOND_NS
        return 1 <= count <= 30 and plausible and u4(data, at + 8) >= _YEAR_1990
    if version == 5:
        return 1 <= count <= 30 and size >= 24 + 48 * count and u4(data, at + 12) < _SECOND_NS
    if version == 9:
        return size >= 24 and count >= 1 and _is_set(data, at + 20, size - 20, 0)
    if version == 10:
        return count <= size and _is_set(data, at + 16, count - 16, 2)
    return False


@kernel
def recognise(data, at, size, out):
    """``out`` (n,) bool: which of the payloads ``data[at[i] : at[i] + size[i]]`` are exports.

    ``data`` u1; ``at``, ``size`` (n,) i8, octets; nothing past a payload is looked at.
    """
    for i in range(at.size):
        out[i] = _is_export(data, at[i], size[i])


def exports(data: np.ndarray, at: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The same as an array of its own, (n,) bool."""
    out = np.empty(at.size, bool)
    recognise(data, at, size, out)
    return out
