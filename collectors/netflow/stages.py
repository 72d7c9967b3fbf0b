"""All passes over a block of records: their keys, whose they are, a place in a partition's run, the rest.

A block is some thousand records, so that what one pass leaves the next finds near by; memory is read once,
where the datagrams are, and written once, where the batch is.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.netflow.decoding import rates, run, settle
from collectors.netflow.domains import D_ID
from collectors.netflow.program import REST_NAMES
from collectors.netflow.staging import BLOCK
from collectors.netflow.walking import (
    S_COUNT,
    S_DOMAIN,
    S_EXPORTER,
    S_RECEIVED,
    S_ROW,
    S_SLOT,
    T_ID,
    T_PRESENT,
    T_VERSION,
)
from collectors.subscribers import give

# Where ``stage``'s state counts what is doubted, and how many counts these are.
FIRST_DOUBT: Final = 5
DOUBTS: Final = 4
_FEW, _MANY, _BEYOND, _RATES = range(FIRST_DOUBT, FIRST_DOUBT + DOUBTS)
# An IPv4 header, and the longest packet (RFC 791).
_LEAST_PACKET: Final = np.uint64(20)
_LONGEST_PACKET: Final = np.uint64(65535)
_MINUTE_NS: Final = 60 * 1_000_000_000
_BYTES: Final = REST_NAMES.index("bytes")
_PACKETS: Final = REST_NAMES.index("packets")


@kernel
def _own(spans, n, slots, domains, addresses, row, place, keys, owned, out):
    """Write what every row has.  ``keys``, ``owned`` and ``out`` are tuples in the order of the tables."""
    src, dst, t_first, t_last, src_port, dst_port = keys
    subscriber, copy = owned
    (o_subscriber, o_src, o_dst, o_exporter, o_first, o_last, o_received, o_domain, o_src_port, o_dst_port,
     o_template, o_copy, o_source) = out  # fmt: skip
    e = 0
    for s in range(n):
        span = spans[s]
        last = span[S_ROW] + span[S_COUNT]
        slot = slots[span[S_SLOT]]
        received = span[S_RECEIVED]
        template = np.uint16(slot[T_ID])
        source = np.uint8(slot[T_VERSION])
        domain = np.uint32(domains[span[S_DOMAIN], D_ID])
        high = addresses[span[S_EXPORTER], 0]
        low = addresses[span[S_EXPORTER], 1]
        while e < row.size and row[e] < last:
            r = row[e]
            p = place[e]
            o_subscriber[p, 0] = subscriber[e, 0]
            o_subscriber[p, 1] = subscriber[e, 1]
            o_src[p, 0] = src[r, 0]
            o_src[p, 1] = src[r, 1]
            o_dst[p, 0] = dst[r, 0]
            o_dst[p, 1] = dst[r, 1]
            o_exporter[p, 0] = high
            o_exporter[p, 1] = low
            o_first[p] = t_first[r]
            o_last[p] = t_last[r]
            o_received[p] = received
            o_domain[p] = domain
            o_src_port[p] = src_port[r]
            o_dst_port[p] = dst_port[r]
            o_template[p] = template
            o_copy[p] = copy[e]
            o_source[p] = source
            e += 1


@kernel
def _present(spans, n, slots, row, place, bit, out):
    """1 for rows whose template fills column number ``bit``."""
    e = 0
    for s in range(n):
        last = spans[s, S_ROW] + spans[s, S_COUNT]
        has = np.uint8((slots[spans[s, S_SLOT], T_PRESENT] >> bit) & 1)
        while e < row.size and row[e] < last:
            out[place[e]] = has
            e += 1


@kernel
def used(spans, n, slots):
    """What all of the spans' templates fill, and what any of them does."""
    always = np.int64(-1)
    ever = np.int64(0)
    for s in range(n):
        present = slots[spans[s, S_SLOT], T_PRESENT]
        always &= present
        ever |= present
    return always, ever


@kernel
def _places(m, row, part, t_first, t_last, rows, filled, current, counts, owner, lows, highs, used, place):
    """Where each row goes; how many slots are then in use, or -1 where there are not enough."""
    for j in range(m):
        counts[part[j]] += 1
    needed = used
    for p in range(counts.size):
        if counts[p]:
            over = counts[p] + (filled[current[p]] - rows if current[p] >= 0 else 0)
            needed += (max(over, 0) + rows - 1) // rows
            counts[p] = 0
    if needed > filled.size:
        return -1
    for j in range(m):
        p = part[j]
        slot = current[p]
        if slot < 0 or filled[slot] == rows:
            slot = used
            used += 1
            current[p] = slot
            owner[slot] = p
            filled[slot] = 0
            lows[slot] = t_first[row[j]]
            highs[slot] = t_last[row[j]]
        place[j] = slot * rows + filled[slot]
        filled[slot] += 1
        lows[slot] = min(lows[slot], t_first[row[j]])
        highs[slot] = max(highs[slot], t_last[row[j]])
    return used


@kernel
def _block(spans, s, n):
    """Where the block that begins at span ``s`` ends, and its records: their rows count from 0 in it."""
    t = s
    count = np.int64(0)
    while t < n and (t == s or count + spans[t, S_COUNT] <= BLOCK):
        spans[t, S_ROW] = count
        count += spans[t, S_COUNT]
        t += 1
    return t, count


@kernel
def _doubt(row, place, copy, t_first, t_last, r_start, r8, measures, gigabits_per_s, longest_ns, state):
    """Cut what records count to what a line carries in their time, and count those whose octets do not go
    with their packets; a row's copy is not counted.

    Octets are of layer 3, some exporters' of layer 2: neither bound is near.  What is 0 was not told.
    """
    for j in range(row.size):
        p = place[j]
        length = min(max(t_last[row[j]] - t_first[row[j]], _MINUTE_NS), max(longest_ns, _MINUTE_NS))
        most = np.uint64(length // 1_000_000) * np.uint64(gigabits_per_s * 125_000)
        beyond = False
        for c in measures:
            if r8[r_start[c] + p] > most:
                r8[r_start[c] + p] = most
                beyond = True
        octets = r8[r_start[_BYTES] + p]
        packets = r8[r_start[_PACKETS] + p]
        if beyond:
            state[_BEYOND] += copy[j] == 0
        elif octets and packets:
            state[_FEW] += copy[j] == 0 and octets < packets * _LEAST_PACKET
            state[_MANY] += copy[j] == 0 and octets // _LONGEST_PACKET > packets


@kernel
def _cleared(near, start, cell, u1, u8):
    """Zero a column at the places in ``near``."""
    if cell == 8:
        for p in near:
            u8[start + p] = np.uint64(0)
    else:
        for p in near:
            u1[start + p] = np.uint8(0)


@kernel
def stage(held, s, tables, scratch, keys, key_cells, home, room, cells, own, rate, absent, partly,
           valid, ahead_ns, believed, measures, state):  # fmt: skip
    """Take spans from ``s`` on through all passes, until they are over or the room is: the next span.

    ``state`` (9,) i8: slots in use, records without a home end, rows with a rate and without one, records
    that would end in the future, then what is doubted (see ``_doubt``; rates).  A room for one partition more
    takes what is nobody's there.  ``absent`` and ``partly`` number the columns that are zero, or marked in
    ``valid``, where a template has them not; ``measures`` those of octets and packets that some have.
    ``believed`` as ``rows.Believed``.
    """
    bound_ns, most_rate, gigabits_per_s, longest_ns = believed
    data, spans, marks = held
    slots, ops, domains, addresses, clocks, index_keys, index_values, seed = tables
    near, base, entry, row, part, place, sub, copy = scratch
    k_src, k_dst, k_first, k_last, k_duration, k_boot, k_sport, k_dport = keys
    k_start, k_cell, k1, k2, k4, k8 = key_cells
    h_first, h_last, h_four, h_port, h_mask, partitions = home
    rows, filled, current, counts, owner, lows, highs = room
    r_start, r_cell, r1, r2, r4, r8 = cells
    n = spans.shape[0]
    while s < n:
        t, count = _block(spans, s, n)
        some = spans[s:t]
        for i in range(count):
            k_src[i, 0] = k_src[i, 1] = k_dst[i, 0] = k_dst[i, 1] = np.uint64(0)
            k_first[i] = k_last[i] = k_duration[i] = k_boot[i] = 0
            k_sport[i] = k_dport[i] = 0
        run(data, some, t - s, slots, ops, 0, marks, near[:count], near[:count], base, entry, k_start, k_cell,
            k1, k2, k4, k8, index_keys, index_values, seed, most_rate)  # fmt: skip
        future = settle(some, t - s, k_first, k_last, k_duration, k_boot, ahead_ns, bound_ns, clocks)
        m, owned = give(
            k1[16 * k_start[0] :], k1[16 * k_start[1] :], k_sport[:count], k_dport[:count], h_first, h_last,
            h_four, h_port, h_mask, partitions, counts.size > partitions, row, sub, copy, part,
        )  # fmt: skip
        taken = _places(m, row, part, k_first, k_last, rows, filled, current, counts, owner, lows, highs,
                       state[0], place)  # fmt: skip
        if taken < 0:
            break
        state[0] = taken
        state[1] += count - owned
        state[4] += future
        mine, at = row[:m], place[:m]
        ends = (k_src, k_dst, k_first, k_last, k_sport, k_dport)
        _own(some, t - s, slots, domains, addresses, mine, at, ends, (sub, copy), own)
        rates(some, t - s, mine, at, rate)
        for c in absent:
            _cleared(at, r_start[c], r_cell[c], r1, r8)
        refused = run(data, some, t - s, slots, ops, 1, marks, mine, at, base, entry, r_start, r_cell, r1, r2,
                      r4, r8, index_keys, index_values, seed, most_rate)  # fmt: skip
        state[_RATES] += refused
        _doubt(mine, at, copy, k_first, k_last, r_start, r8, measures, gigabits_per_s, longest_ns, state)
        for c in range(partly.size):
            _present(some, t - s, slots, mine, at, partly[c], valid[c])
        for p in at:
            state[2 + (rate[p] == 0)] += 1
        s = t
    return s
