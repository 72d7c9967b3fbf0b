"""The first compiled pass: datagrams in, spans of records out; no field is read yet.

It reads headers, keeps account of sequence numbers, finds the template of every data set and notes where
its records are.  What needs thought stops it (an exporter not seen before, a template, options that say a
sampling rate, data without a template): Python answers, moves the cursor on, and calls again.
"""

from typing import Final

import numpy as np

from collectors.errors import Reason
from collectors.jit import bare as kernel
from collectors.netflow.budget import (
    A_DOMAINS,
    A_DROPPED,
    A_OPTIONS,
    A_ROOM,
    A_TEMPLATES,
    A_UNKNOWN,
    EACH,
    HELD,
    HELD_BYTES,
    P_ROOM,
    RECORD,
    paid,
)
from collectors.netflow.budget import DOMAIN as NEW
from collectors.netflow.domains import (
    D_BOOT,
    D_DATA,
    D_DROPPED,
    D_EXPORTER,
    D_FILL,
    D_FIXED,
    D_RATE,
    D_RATING,
    D_SEEN,
    FORCED,
)
from collectors.netflow.index import find
from collectors.netflow.program import MAX_GAPS
from collectors.netflow.sequences import (
    FAR_DATAGRAMS,
    FAR_RECORDS,
    N_DATAGRAMS,
    N_FLOW,
    N_OCTETS,
    N_OPTIONS,
    N_OTHER,
    PER_PROTOCOL,
    PROTOCOLS,
    sequence,
)

# Why the walk stopped.
DONE: Final = 0
FULL: Final = 1
NEW_DOMAIN: Final = 2
TEMPLATES: Final = 3
UNKNOWN: Final = 4
OPTIONS: Final = 5

# The cursor (i8): datagram, place in it (0: before its header), its end; what its header said; how full the
# outputs are; the set that stopped us; for one that was held, which the sequence has passed, its template's
# slot and 1; how many templates it told.  The version is what the stream's column ``source`` says: v1 is 3.
(
    C_DATAGRAM, C_AT, C_END, C_DOMAIN, C_EXPORT, C_UPTIME, C_RECORDS, C_KNOWN, C_VERSION, C_ID,
    C_SPANS, C_ROWS, C_MARKS, C_SET, C_BODY, C_BODY_END, C_SEQUENCE, C_LATE, C_TEMPLATES,
) = range(19)  # fmt: skip
CURSOR: Final = 19
FILLED: Final = slice(C_SPANS, C_MARKS + 1)

# A span (i8): records in a row of one template, and all that their rows need to know.  The shift is what is
# added to the times that a wrong clock told: see ``decoding.straighten``.
(
    S_AT, S_COUNT, S_LENGTH, S_SLOT, S_ROW, S_MARK, S_DOMAIN, S_EXPORTER, S_EXPORT, S_UPTIME, S_RECEIVED,
    S_RATE, S_BOOT, S_RATING, S_SHIFT,
) = range(15)  # fmt: skip
SPAN: Final = 15

# A template's slot (i8).
T_LENGTH, T_GAPS, T_TAIL, T_KIND, T_KEYS, T_OPS, T_PRESENT, T_ID, T_USED, T_VERSION, T_PROGRAM = range(11)
SLOT: Final = 11
FLOW: Final = 0
OTHER: Final = 1  # data that are no flows: no addresses, or more fields of variable length than we follow
IGNORED: Final = 2  # options that say nothing to us
TELLING: Final = 3

# Counters (i8): of each of PROTOCOLS (``sequences``), then refusals.
REFUSED: Final = len(PROTOCOLS) * PER_PROTOCOL
REFUSALS: Final = (Reason.SHORT, Reason.VERSION, Reason.LENGTH)
COUNTERS: Final = REFUSED + len(REFUSALS)
_SHORT: Final = REFUSED
_VERSION: Final = REFUSED + 1
_LENGTH: Final = REFUSED + 2


@kernel
def u2(data, at):
    """Two octets, most significant first."""
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@kernel
def u4(data, at):
    """Four octets, most significant first."""
    return (u2(data, at) << 16) | u2(data, at + 2)


@kernel
def _padding(data, at, end):
    while at < end and data[at] == 0:
        at += 1
    return at == end


@kernel
def _rest(data, at, end, count):
    """What ``mark`` answers where data[at:end] is no record: zeros are padding."""
    return count if _padding(data, at, end) else -1 - count


@kernel
def mark(data, at, end, slot, gaps, marks, m):
    """Note where each segment of each record in data[at:end] begins, from marks[m] on; how many records, as
    -1 - count where another is cut short.

    For templates with fields of variable length (RFC 7011 section 7).
    """
    count = 0
    least = slot[T_LENGTH]
    n = slot[T_GAPS]
    while end - at >= least:
        here = at
        for g in range(n):
            marks[m] = here
            m += 1
            here += gaps[g]
            if here >= end:
                return _rest(data, at, end, count)
            width = np.int64(data[here])
            here += 1
            if width == 255:
                if here + 2 > end:
                    return _rest(data, at, end, count)
                width = u2(data, here)
                here += 2
            here += width
            if here > end:
                return _rest(data, at, end, count)
        marks[m] = here
        m += 1
        here += slot[T_TAIL]
        if here > end:
            return _rest(data, at, end, count)
        at = here
        count += 1
    return count


@kernel
def _span(c, spans, slot, number, domain, at, count, received):
    s = spans[c[C_SPANS]]
    s[S_AT] = at
    s[S_COUNT] = count
    s[S_LENGTH] = slot[T_LENGTH]
    s[S_SLOT] = number
    s[S_ROW] = c[C_ROWS]
    s[S_MARK] = c[C_MARKS] if slot[T_GAPS] else -1
    s[S_DOMAIN] = c[C_DOMAIN]
    s[S_EXPORTER] = domain[D_EXPORTER]
    s[S_EXPORT] = c[C_EXPORT]
    s[S_SHIFT] = 0
    s[S_UPTIME] = c[C_UPTIME]
    s[S_RECEIVED] = received
    s[S_RATE] = domain[D_RATE]
    s[S_BOOT] = domain[D_BOOT]
    s[S_RATING] = domain[D_RATING]
    c[C_SPANS] += 1
    c[C_ROWS] += count
    if slot[T_GAPS]:
        c[C_MARKS] += count * (slot[T_GAPS] + 1)


@kernel
def _form(version):
    """(place in PROTOCOLS, octets of a header, octets of a record of a fixed layout) by the version told."""
    if version == 9:
        return 1, 20, 0
    if version == 10:
        return 2, 16, 0
    if version == 5:
        return 0, 24, 48
    if version == 1:
        return 3, 16, 48
    if version == 7:
        return 4, 24, 52
    return -1, 2, 0


@kernel
def _header(data, at, end, c, counters):
    """Read a header into the cursor.  Its protocol's place in PROTOCOLS; negative: refused and counted."""
    size = end - at
    version = u2(data, at) if size >= 2 else 0
    protocol, head, record = _form(version)
    if size < head or protocol < 0:
        counters[_SHORT if size < head else _VERSION] += 1
        return -1
    c[C_VERSION] = 3 if version == 1 else version
    c[C_RECORDS] = 0
    c[C_TEMPLATES] = 0
    c[C_KNOWN] = 1
    c[C_ID] = 0
    c[C_SEQUENCE] = 0
    if version == 10:
        length = u2(data, at + 2)
        if length < head or length > size:
            counters[_LENGTH] += 1
            return -1
        end = at + length
        c[C_UPTIME] = -1
        c[C_EXPORT] = u4(data, at + 4) * 1_000_000_000
        c[C_SEQUENCE] = u4(data, at + 8)
        c[C_ID] = u4(data, at + 12)
    else:
        c[C_UPTIME] = u4(data, at + 4)
        c[C_EXPORT] = u4(data, at + 8) * 1_000_000_000
        if version == 9:
            c[C_SEQUENCE] = u4(data, at + 12)
            c[C_ID] = u4(data, at + 16)
        else:
            c[C_RECORDS] = u2(data, at + 2)
            if head + record * c[C_RECORDS] > size:
                counters[_LENGTH] += 1
                return -1
            end = at + head + record * c[C_RECORDS]
            c[C_EXPORT] += min(u4(data, at + 12), 999_999_999)
            if version != 1:
                c[C_SEQUENCE] = u4(data, at + 16)
            if version == 5:
                c[C_ID] = u2(data, at + 20)
    c[C_END] = end
    return protocol


@kernel
def _fixed(data, start, c, spans, slots, domain, received, count):
    """A datagram of a fixed layout, whole: its records are one span."""
    version = c[C_VERSION]
    if version == 5 and not domain[D_RATING] & FORCED:
        # The two bits above are the mode; exporters were seen that leave it at zero and tell an interval.
        told = u2(data, start + 22) & 0x3FFF
        domain[D_RATE] = told if told else domain[D_FILL]
    # v1 counts nothing: its uptime still tells of a restart.
    domain[D_DATA] = max(domain[D_DATA], received if c[C_RECORDS] else np.int64(0))
    units = np.int64(-1) if version == 3 else c[C_RECORDS]
    sequence(domain, c[C_SEQUENCE], units, np.int64(1), np.int64(0), c[C_UPTIME], c[C_EXPORT], received,
             FAR_RECORDS, count)  # fmt: skip
    if c[C_RECORDS]:
        number = domain[D_FIXED]
        first = start + (16 if version == 3 else 24)
        _span(c, spans, slots[number], number, domain, first, c[C_RECORDS], received)
    count[N_FLOW] += c[C_RECORDS]


@kernel
def walk(data, at, size, exporter, received, c, keys, values, seed, domains, slots, gaps, spans, marks,
         most_rows, counters, purses, common):  # fmt: skip
    """Go on from the cursor until the datagrams are at their end, or something stops us: the codes above.

    ``data`` u1, padded; ``at``, ``size``, ``received``, ``exporter`` (a number) (n,) i8.  A domain has
    the number of its slot where its layout is fixed.  Nothing stops us that its exporter's purse does not pay
    (``budget``): it is passed over and counted.
    """
    while c[C_DATAGRAM] < at.size:
        i = c[C_DATAGRAM]
        start = at[i]
        if c[C_AT] == 0:
            protocol = _header(data, start, start + size[i], c, counters)
            if protocol < 0:
                c[C_DATAGRAM] += 1
                continue
            key = np.uint64(1 << 62) | np.uint64((exporter[i] << 36) | (c[C_VERSION] << 32) | c[C_ID])
            c[C_DOMAIN] = find(keys, values, seed, key)
            if c[C_DOMAIN] < 0:
                if paid(purses, common, exporter[i], NEW, A_DOMAINS):
                    return NEW_DOMAIN
                c[C_DATAGRAM] += 1
                continue
            domain = domains[c[C_DOMAIN]]
            count = counters[protocol * PER_PROTOCOL : (protocol + 1) * PER_PROTOCOL]
            if protocol == 0 or protocol > 2:
                if c[C_SPANS] == spans.shape[0] or c[C_ROWS] + c[C_RECORDS] > most_rows:
                    return FULL
                _fixed(data, start, c, spans, slots, domain, received[i], count)
            count[N_DATAGRAMS] += 1
            count[N_OCTETS] += size[i]
            domain[D_SEEN] = max(domain[D_SEEN], received[i])
            if protocol == 0 or protocol > 2:
                c[C_DATAGRAM] += 1
                continue
            c[C_AT] = start + (20 if protocol == 1 else 16)
        protocol = c[C_VERSION] - 8
        domain = domains[c[C_DOMAIN]]
        count = counters[protocol * PER_PROTOCOL : (protocol + 1) * PER_PROTOCOL]
        end = c[C_END]
        while end - c[C_AT] >= 4:
            head = c[C_AT]
            number = u2(data, head)
            length = u2(data, head + 2)
            # The last set may end after the length that the header tells: see ``messages.sets``.
            if length < 4 or head + length > start + size[i]:
                if not _padding(data, head, end):
                    counters[_LENGTH] += 1
                    c[C_KNOWN] = 0
                break
            c[C_SET] = number
            c[C_BODY] = head + 4
            c[C_BODY_END] = head + length
            if number < 256:
                telling = number == 2 * protocol - 2 or number == 2 * protocol - 1
                if telling and paid(purses, common, domain[D_EXPORTER], EACH + length // 4, A_TEMPLATES):
                    return TEMPLATES
                c[C_AT] = head + length
                continue
            key = np.uint64(2 << 62) | np.uint64((c[C_DOMAIN] << 16) | number)
            place = c[C_LATE] - 1 if c[C_LATE] else find(keys, values, seed, key)
            if place < 0:
                # One of no octets has no records, whatever its template.
                if length > 4:
                    c[C_KNOWN] = 0
                    purse = purses[domain[D_EXPORTER]]
                    if length + HELD_BYTES > min(purse[P_ROOM], common[A_ROOM]):
                        common[A_DROPPED] += 1
                        domain[D_DROPPED] += 1
                    elif paid(purses, common, domain[D_EXPORTER], HELD, A_UNKNOWN):
                        return UNKNOWN
                    else:
                        domain[D_DROPPED] += 1
                c[C_AT] = head + length
                continue
            slot = slots[place]
            slot[T_USED] = received[i]
            if slot[T_KIND] == TELLING:
                domain[D_DATA] = max(domain[D_DATA], received[i])
                # Short records cost more than their octets.
                words = max(length // 4, RECORD * (length // max(np.int64(1), slot[T_LENGTH])))
                if paid(purses, common, domain[D_EXPORTER], EACH + words, A_OPTIONS):
                    return OPTIONS
            here = head + 4
            least = max(np.int64(1), slot[T_LENGTH])
            cut = False
            if slot[T_GAPS] == 0:
                found = (length - 4) // least if slot[T_LENGTH] else 0
                cut = slot[T_LENGTH] == 0 and not _padding(data, here, head + length)
            elif slot[T_GAPS] > MAX_GAPS:
                found = 0
                c[C_KNOWN] = 0
            else:
                if c[C_MARKS] + (length // least + 1) * (slot[T_GAPS] + 1) > marks.size:
                    return FULL
                found = mark(data, here, head + length, slot, gaps[place], marks, c[C_MARKS])
                if found < 0:
                    found, cut = -1 - found, True
            if slot[T_KIND] == FLOW:
                if c[C_SPANS] == spans.shape[0] or c[C_ROWS] + found > most_rows:
                    return FULL
                if found:
                    _span(c, spans, slot, place, domain, here, found, received[i])
                count[N_FLOW] += found
            else:
                count[N_OTHER if slot[T_KIND] == OTHER else N_OPTIONS] += found
            if cut:
                # Octets that no record of the template can be: how many were meant, sequence numbers tell.
                counters[_LENGTH] += 1
            if found:
                domain[D_DATA] = max(domain[D_DATA], received[i])
            c[C_RECORDS] += found
            c[C_AT] = head + length
        if not c[C_LATE]:
            units = c[C_RECORDS] if c[C_KNOWN] else np.int64(-1)
            if protocol == 2:
                sequence(domain, c[C_SEQUENCE], units, np.int64(1), c[C_TEMPLATES], np.int64(-1),
                         c[C_EXPORT], received[i], FAR_RECORDS, count)  # fmt: skip
            else:
                sequence(domain, c[C_SEQUENCE], np.int64(1), units, np.int64(0), c[C_UPTIME],
                         c[C_EXPORT], received[i], FAR_DATAGRAMS, count)  # fmt: skip
        c[C_AT] = 0
        c[C_DATAGRAM] += 1
    return DONE
