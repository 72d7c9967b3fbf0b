"""Compiled walkers: from the bytes of a capture file to columns of frames, until something is not plain.

Both return (index of the first byte not taken, frames found, why they stopped).  ``out`` is five arrays:
offset i8, captured u4, length u4, t_ns i8, link u2.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel

# Why a walker stopped: the bytes end (0), or
FULL: Final = 1  # no room for another frame
OTHER: Final = 2  # a block that Python reads: a section, an interface, one too long for the window
BAD: Final = 3  # a length that cannot be: there is no telling where the next record is

# Longer frames do not exist: libpcap's own bound.
MAX_FRAME: Final = 262144
# Seconds whose nanoseconds still fit into i8 (the year 2262).
_MAX_SECONDS: Final = 9_223_372_000
_BILLION: Final = 1_000_000_000


class PcapForm(NamedTuple):
    """How a pcap file is written: byte order, unit of stamps, octets of a record header, link type."""

    big: bool
    nanoseconds: bool
    header: int
    link: int


@kernel
def _u4(data, i, big):
    a, b, c, d = np.int64(data[i]), np.int64(data[i + 1]), np.int64(data[i + 2]), np.int64(data[i + 3])
    if big:
        return (a << 24) | (b << 16) | (c << 8) | d
    return (d << 24) | (c << 16) | (b << 8) | a


@kernel
def _u2(data, i, big):
    a, b = np.int64(data[i]), np.int64(data[i + 1])
    return (a << 8) | b if big else (b << 8) | a


@kernel
def walk_pcap(data, at, end, form, out):
    """Records of a pcap file from data[at:end]."""
    offset, captured, length, t_ns, link = out
    n = 0
    while end - at >= form.header:
        if n >= offset.size:
            return at, n, FULL
        size = _u4(data, at + 8, form.big)
        if size > MAX_FRAME:
            return at, n, BAD
        if end - at - form.header < size:
            break
        fraction = _u4(data, at + 4, form.big)
        offset[n] = at + form.header
        captured[n] = size
        length[n] = _u4(data, at + 12, form.big)
        t_ns[n] = _u4(data, at, form.big) * _BILLION + (fraction if form.nanoseconds else fraction * 1000)
        link[n] = form.link
        n += 1
        at += form.header + size
    return at, n, 0


@kernel
def _stamp(high, low, digits, offset):
    """Nanoseconds of a pcapng stamp, or -1.  ``digits`` as in the interface table: units are 10**-digits
    seconds, or 2**(digits + 1) where it is negative."""
    value = (np.uint64(high) << np.uint64(32)) | np.uint64(low)
    if digits < 0:
        bits = -(digits + 1)
        if bits > 63:
            return np.int64(-1)
        seconds = value >> np.uint64(bits)
        rest = value & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
        if bits > 34:  # keep 34 bits: rest times a billion must fit
            rest = rest >> np.uint64(bits - 34)
            bits = 34
        rest = (rest * np.uint64(_BILLION)) >> np.uint64(bits)
    else:
        unit = np.uint64(1)
        for _ in range(min(digits, 19)):
            unit = unit * np.uint64(10)
        if digits > 19:
            return np.int64(-1)
        seconds = value // unit
        rest = value % unit
        for _ in range(digits, 9):
            rest = rest * np.uint64(10)
        for _ in range(9, digits):
            rest = rest // np.uint64(10)
    if seconds > np.uint64(_MAX_SECONDS):
        return np.int64(-1)
    whole = np.int64(seconds) + offset
    if whole < 0 or whole > _MAX_SECONDS:
        return np.int64(-1)
    return whole * _BILLION + np.int64(rest)


@kernel
def walk_ng(data, at, end, big, interfaces, count, last_ns, refused, out):
    """Packet blocks of a pcapng section from data[at:end]; unknown blocks are stepped over.

    ``interfaces`` (n, 4) i8: link type, snap length, digits of the stamp's unit, offset in s; ``count`` of
    them are known.  ``last_ns`` (1,) i8 is the newest stamp, which a simple packet, that has none, takes.
    ``refused`` (3,) i8 counts: lengths that disagree, interfaces not described, stamps out of range.
    """
    offset, captured, length, t_ns, link = out
    n = 0
    while end - at >= 12:
        kind = _u4(data, at, big)
        total = _u4(data, at + 4, big)
        if kind in (0x0A0D0D0A, 1):
            return at, n, OTHER
        if total < 12 or total % 4 != 0:
            return at, n, BAD
        if end - at < total:
            # Python steps over what no window holds; a packet that long is refused there.
            if total > MAX_FRAME + 4096:
                refused[0] += 1 if kind in (2, 3, 6) else 0
                return at, n, OTHER
            break
        if kind not in (2, 3, 6):
            at += total
            continue
        if n >= offset.size:
            return at, n, FULL
        start = at
        at += total
        if total < (16 if kind == 3 else 32):
            refused[0] += 1
            continue
        which = np.int64(0)
        head = np.int64(28)
        if kind == 6:
            which = _u4(data, start + 8, big)
        elif kind == 2:
            which = _u2(data, start + 8, big)
        if which >= count:
            refused[1] += 1
            continue
        stamp = last_ns[0]
        if kind == 3:
            head = np.int64(12)
            wire = _u4(data, start + 8, big)
            size = min(wire, total - 16)
            if interfaces[which, 1] > 0:
                size = min(size, interfaces[which, 1])
        else:
            size = _u4(data, start + 20, big)
            wire = _u4(data, start + 24, big)
            stamp = _stamp(
                _u4(data, start + 12, big), _u4(data, start + 16, big),
                interfaces[which, 2], interfaces[which, 3],
            )  # fmt: skip
        if size > total - head - 4 or size > MAX_FRAME:
            refused[0] += 1
            continue
        if stamp < 0:
            refused[2] += 1
            continue
        last_ns[0] = max(last_ns[0], stamp)
        offset[n] = start + head
        captured[n] = size
        length[n] = wire
        t_ns[n] = stamp
        link[n] = interfaces[which, 0]
        n += 1
    return at, n, 0
