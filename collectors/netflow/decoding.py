"""The second compiled pass: spans of records in, columns out, each by its template's program.

An operation runs over all records of a span before the next does, so what it is costs once a span; every
integer is read by one load of eight octets and a shift, whatever its width.  ``row`` says which records
are wanted and ``place`` where each goes, so nothing is read that nobody owns, and nothing is moved twice.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.netflow.domains import BY_INTERFACE, FORCED, FORCED_BY_INTERFACE
from collectors.netflow.index import EXPORTER_TAG, FORCED_TAG, GONE, INTERFACE_TAG, find
from collectors.netflow.program import (
    BEFORE_EXPORT_US,
    DURATION_MS,
    DURATION_US,
    INTEGER,
    IPV4,
    IPV6,
    IPV6_UNLESS_ZERO,
    KEY_NAMES,
    MILLISECONDS,
    NTP_MICROSECONDS,
    NTP_NANOSECONDS,
    OP_AT,
    OP_AT2,
    OP_COLUMN,
    OP_KIND,
    OP_SEGMENT,
    OP_SHIFT,
    OP_SHIFT2,
    RATE,
    RATE_FORCED,
    RATE_OF_INTERFACE,
    RATE_OF_SAMPLER,
    RATE_OF_SPACE,
    SECONDS,
    UPTIME,
)
from collectors.netflow.walking import (
    S_AT,
    S_BOOT,
    S_COUNT,
    S_DOMAIN,
    S_EXPORT,
    S_EXPORTER,
    S_LENGTH,
    S_MARK,
    S_RATE,
    S_RATING,
    S_RECEIVED,
    S_ROW,
    S_SHIFT,
    S_SLOT,
    S_UPTIME,
    T_GAPS,
    T_KEYS,
    T_OPS,
    T_PROGRAM,
)
from collectors.reading import big, little

_MAPPED: Final = np.uint64(0xFFFF0000)
_NTP_UNIX: Final = 2_208_988_800
# Beyond these a time is no time: the year 2262 in the unit of each kind, for i8 nanoseconds end there.
_MAX_S: Final = 9_223_372_036
_MAX_MS: Final = 9_223_372_036_854
_MAX_US: Final = 9_223_372_036_854_775
_MAX_RATE: Final = np.uint64(0xFFFFFFFF)
# A duration that is longer is not believed: the uptime's wrap in ns.
_MAX_DURATION: Final = (1 << 32) * 1_000_000
_FIRST: Final = KEY_NAMES.index("t_first")
_LAST: Final = KEY_NAMES.index("t_last")
# So many records go through an operation before the next: their octets stay in the nearest cache.
_TOGETHER: Final = 256
# Clocks of exporters (i8): newest stamp, longest record of late and of the period before, when last heard,
# whether moved since it was told, and how far it is ahead of ours.
X_NEWEST, X_LONGEST, X_HEARD, X_MOVED, X_SKEW, X_LONGEST_BEFORE = range(6)
CLOCK: Final = 6


@kernel
def _bases(span, gaps, marks, segment, row, f, e, base):
    """Where the segment of each wanted record of a span begins."""
    at, length, first, m = span[S_AT], span[S_LENGTH], span[S_ROW], span[S_MARK]
    if m < 0:
        for k in range(f, e):
            base[k] = at + (row[k] - first) * length
    else:
        for k in range(f, e):
            base[k] = marks[m + (row[k] - first) * (gaps + 1) + segment]


@kernel
def _integers(data, base, f, e, at, shift, place, start, cell, a1, a2, a4, a8):
    if cell == 8:
        for k in range(f, e):
            a8[np.uint64(start + place[k])] = big(data, base[k] + at) >> shift
    elif cell == 4:
        for k in range(f, e):
            a4[np.uint64(start + place[k])] = np.uint32(big(data, base[k] + at) >> shift)
    elif cell == 2:
        for k in range(f, e):
            a2[np.uint64(start + place[k])] = np.uint16(big(data, base[k] + at) >> shift)
    else:
        for k in range(f, e):
            a1[np.uint64(start + place[k])] = np.uint8(big(data, base[k] + at) >> shift)


@kernel
def _addresses(kind, data, base, f, e, at, place, start, a8):
    if kind == IPV4:
        for k in range(f, e):
            p = np.uint64(2 * (start + place[k]))
            a8[p] = np.uint64(0)
            a8[p + np.uint64(1)] = (little(data, base[k] + at) << np.uint64(32)) | _MAPPED
        return
    for k in range(f, e):
        p = np.uint64(2 * (start + place[k]))
        high = little(data, base[k] + at)
        low = little(data, base[k] + at + 8)
        if kind == IPV6 or high | low:
            a8[p] = high
            a8[p + np.uint64(1)] = low


@kernel
def _ntp(raw, unit):
    seconds = np.int64(raw >> np.uint64(32)) - _NTP_UNIX
    if seconds < 0:
        value = np.int64(raw)
        return value * unit if value < _MAX_US else np.int64(0)
    part = (raw & np.uint64(0xFFFFFFFF)) * np.uint64(1_000_000_000)
    return seconds * 1_000_000_000 + np.int64(part >> np.uint64(32))


@kernel
def _times(kind, data, base, f, e, at, shift, place, start, a8, export, uptime):
    """Unix nanoseconds, 0 where there is none; a 32-bit uptime v that nothing places yet is -1 - v."""
    for k in range(f, e):
        raw = big(data, base[k] + at) >> shift
        v = np.int64(raw & np.uint64(0x7FFFFFFFFFFFFFFF))
        t = np.int64(0)
        if kind == UPTIME:
            v &= 0xFFFFFFFF
            # 32-bit milliseconds, differenced modulo 2**32: survives the 49-day wrap.
            age = np.int64(np.int32((uptime - v) & 0xFFFFFFFF)) * 1_000_000
            t = -1 - v if uptime < 0 else max(export - age, np.int64(0))
        elif kind == MILLISECONDS:
            t = v * 1_000_000 if v < _MAX_MS else np.int64(0)
        elif kind == SECONDS:
            t = v * 1_000_000_000 if v < _MAX_S else np.int64(0)
        elif kind == NTP_MICROSECONDS:
            t = _ntp(raw, 1000)
        elif kind == NTP_NANOSECONDS:
            t = _ntp(raw, 1)
        elif kind == BEFORE_EXPORT_US:
            t = max(export - v * 1000, np.int64(0)) if v < _MAX_US else np.int64(0)
        elif kind == DURATION_MS:
            t = v * 1_000_000 if v < _MAX_MS else np.int64(0)
        elif kind == DURATION_US:
            t = v * 1000 if v < _MAX_US else np.int64(0)
        a8[np.uint64(start + place[k])] = np.uint64(t)


@kernel
def _rates(op, data, base, f, e, place, start, a4, span, keys, values, seed, most):
    """Rates that the records tell themselves, where they do; else what is there stays.

    How many were beyond ``most``, and not taken: what is configured is believed whatever it is.
    """
    refused = np.int64(0)
    kind = op[OP_KIND]
    domain, rating = span[S_DOMAIN], span[S_RATING]
    tag = np.int64(0)
    if kind == RATE_OF_INTERFACE:
        if rating & FORCED or not rating & BY_INTERFACE:
            return refused
        tag = np.int64(INTERFACE_TAG)
    elif kind == RATE_FORCED:
        if not rating & FORCED_BY_INTERFACE:
            return refused
        tag = np.int64(FORCED_TAG)
    elif rating & FORCED:
        return refused
    for k in range(f, e):
        v = big(data, base[k] + op[OP_AT]) >> np.uint64(op[OP_SHIFT])
        told = np.uint64(0)
        if kind == RATE:
            told = v
        elif kind in (RATE_OF_SAMPLER, RATE_OF_INTERFACE, RATE_FORCED):
            key = np.uint64(3 << 62) | np.uint64((domain | tag) << 32) | (v & _MAX_RATE)
            known = find(keys, values, seed, key)
            if known == GONE and kind == RATE_OF_SAMPLER:
                key = np.uint64(3 << 62) | np.uint64((span[S_EXPORTER] | np.int64(EXPORTER_TAG)) << 32)
                known = find(keys, values, seed, key | (v & _MAX_RATE))
            told = np.uint64(known) if known != GONE else np.uint64(0)
        elif v:
            other = big(data, base[k] + op[OP_AT2]) >> np.uint64(op[OP_SHIFT2])
            told = (v + other) // v if kind == RATE_OF_SPACE else other // v
        if told > most and kind not in (RATE_OF_INTERFACE, RATE_FORCED):
            refused += 1
        elif told:
            a4[start + place[k]] = np.uint32(min(told, _MAX_RATE))
    return refused


@kernel
def run(data, spans, n, slots, ops, rest, marks, row, place, base, entry, start, cell, a1, a2, a4, a8,
        keys, values, seed, most_rate):  # fmt: skip
    """Run the first (``rest`` 0) or second pass of each span's program over the records in ``row``.

    ``row`` (m,) i8, ascending, counts records over all spans; ``place`` (m,) i8 is where each is written;
    ``base`` (m,) i8 and ``entry`` (n + 1,) i8 are scratch.  ``data`` is readable for PADDING octets past any
    record.  Spans of one program are taken together, for a span alone is 13 to 30 records.  How many rates of
    records were beyond ``most_rate``, and not taken.
    """
    refused = np.int64(0)
    most = np.uint64(most_rate)
    e = 0
    for s in range(n):
        entry[s] = e
        last = spans[s, S_ROW] + spans[s, S_COUNT]
        while e < row.size and row[e] < last:
            e += 1
    entry[n] = e
    s = 0
    while s < n:
        slot = slots[spans[s, S_SLOT]]
        program = slot[T_PROGRAM]
        f = entry[s]
        t = s + 1
        while t < n and slots[spans[t, S_SLOT], T_PROGRAM] == program and entry[t] - f < _TOGETHER:
            t += 1
        e = entry[t]
        segment = -1
        for o in range(slot[T_KEYS] if rest else 0, slot[T_OPS] if rest else slot[T_KEYS]):
            op = ops[program, o]
            if op[OP_SEGMENT] != segment:
                segment = op[OP_SEGMENT]
                for g in range(s, t):
                    _bases(spans[g], slot[T_GAPS], marks, segment, row, entry[g], entry[g + 1], base)
            kind = op[OP_KIND]
            first = start[op[OP_COLUMN]]
            at = np.int64(op[OP_AT])
            shift = np.uint64(op[OP_SHIFT])
            if kind == INTEGER:
                width = cell[op[OP_COLUMN]]
                _integers(data, base, f, e, at, shift, place, first, width, a1, a2, a4, a8)
            elif kind in (IPV4, IPV6, IPV6_UNLESS_ZERO):
                _addresses(kind, data, base, f, e, at, place, first, a8)
            elif kind >= RATE:
                for g in range(s, t):
                    refused += _rates(op, data, base, entry[g], entry[g + 1], place, first, a4, spans[g],
                                      keys, values, seed, most)  # fmt: skip
            else:
                for g in range(s, t):
                    _times(kind, data, base, entry[g], entry[g + 1], at, shift, place, first, a8,
                           spans[g, S_EXPORT], spans[g, S_UPTIME])  # fmt: skip
        s = t
    return refused


@kernel
def _placed(told, boot_ms, export):
    """A time that was stored as -1 - uptime, by the exporter's start; others as they are."""
    if told >= 0 or boot_ms <= 0:
        return told
    uptime = (export // 1_000_000 - boot_ms) & 0xFFFFFFFF
    return export - np.int64(np.int32((uptime + told + 1) & 0xFFFFFFFF)) * 1_000_000


@kernel
def _absolute(slot, ops, uptime):
    """Whether the times of a template's records are its exporter's clock, not so long before the export."""
    for o in range(slot[T_KEYS]):
        op = ops[slot[T_PROGRAM], o]
        if op[OP_COLUMN] == _FIRST or op[OP_COLUMN] == _LAST:
            kind = op[OP_KIND]
            if kind != BEFORE_EXPORT_US and (kind != UPTIME or uptime < 0):
                return True
    return False


@kernel
def straighten(spans, n, slots, ops, bound_ns, clocks):
    """Take the receive time for export times that are off by more than ``bound_ns``; of how many records.

    Times relative to the export thus come right of themselves; for those by the exporter's clock the span's
    shift says by how much it is wrong.  An export time of zero is no clock at all, and shifts nothing.
    """
    records = np.int64(0)
    for s in range(n):
        span = spans[s]
        export, received = span[S_EXPORT], span[S_RECEIVED]
        if received <= 0:
            continue
        skew = export - received
        clocks[span[S_EXPORTER], X_SKEW] = skew if export else np.int64(0)
        if bound_ns and abs(skew) > bound_ns:
            span[S_EXPORT] = received
            if export and _absolute(slots[span[S_SLOT]], ops, span[S_UPTIME]):
                span[S_SHIFT] = -skew
            records += span[S_COUNT]
    return records


@kernel
def settle(spans, n, first, last, duration, boot, ahead_ns, bound_ns, clocks):
    """Make first and last times of every record, from what it says; and move its exporter's clock.

    No first: the last less the duration, and the other way round; neither: the time of export.  The times of
    a wrong clock are shifted where that brings them nearer to the receive time, both alike.  A record that
    ends more than ``bound_ns`` after its export is moved to end there, one that is longer than any can be has
    no first: how many.  The clock's newest is no
    more than ``ahead_ns`` past the receive time.
    """
    future = np.int64(0)
    for s in range(n):
        span = spans[s]
        export, received, shift = span[S_EXPORT], span[S_RECEIVED], span[S_SHIFT]
        newest = np.int64(0)
        longest = np.int64(0)
        for r in range(span[S_ROW], span[S_ROW] + span[S_COUNT]):
            known = boot[r] if boot[r] > 0 else span[S_BOOT]
            a = _placed(first[r], known, export - shift)
            b = _placed(last[r], known, export - shift)
            if shift:
                told = b if b > 0 else a
                if told > 0 and abs(told + shift - received) < abs(told - received):
                    a = max(a + shift, 1) if a > 0 else a
                    b = max(b + shift, 1) if b > 0 else b
            d = duration[r]
            if a < 0 and b < 0:
                # Uptimes of an exporter whose start is not known still say how long it was.
                d = np.int64(np.int32((a - b) & 0xFFFFFFFF)) * 1_000_000
            if d < 0 or d > _MAX_DURATION:
                d = 0
            a = max(a, 0)
            b = max(b, 0)
            if b == 0:
                b = a + d if a else export
            if a == 0:
                a = max(b - d, 0)
            a = min(a, b)
            if bound_ns and b - a > _MAX_DURATION:
                a = b
                future += 1
            if bound_ns and export and b - export > bound_ns:
                a = max(a - (b - export), 0)
                b = export
                future += 1
            first[r] = a
            last[r] = b
            newest = max(newest, b)
            longest = max(longest, b - a)
        clock = clocks[span[S_EXPORTER]]
        clock[X_NEWEST] = max(clock[X_NEWEST], min(newest, received + ahead_ns))
        clock[X_LONGEST] = max(clock[X_LONGEST], longest)
        clock[X_HEARD] = max(clock[X_HEARD], received)
        clock[X_MOVED] = 1
    return future


@kernel
def rates(spans, n, row, place, rate):
    """Give every wanted record the rate in force when it came."""
    e = 0
    for s in range(n):
        last = spans[s, S_ROW] + spans[s, S_COUNT]
        told = np.uint32(spans[s, S_RATE])
        while e < row.size and row[e] < last:
            rate[place[e]] = told
            e += 1
