"""The compiled pass: frames of a block in; flow records, candidate segments and names out; the table aged.

``meter`` decodes each frame (``frames``), counts it into its connection's row (``table``), picks candidates
(``picking``) and wanted names (``naming``), and ages a few rows (``ageing``).  All of it is a function of
the sequence of frames: where blocks are cut changes nothing.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.jit import within
from collectors.packet.ageing import (
    ACTIVE,
    AHEAD,
    BACK,
    END,
    EXPORTS_A_FRAME,
    FORCED,
    FRAMES,
    IDLE,
    METERED,
    OCTETS,
    OPENED,
    REFUSED,
    TCP,
    Names,
    Picks,
    advance,
    due_of,
    evict,
    export,
    leaving_of,
    rewind,
    sweep,
)
from collectors.packet.anchors import prefetch
from collectors.packet.following import answered, control, mark, refuse_payload, sequence
from collectors.packet.fragments import ARENA_FULL, HELD, METER, REFUSE, inherit, take, whole
from collectors.packet.frames import ACK, FRAGMENT, RST, SYN, decode
from collectors.packet.lasting import AFTER_NS, note, release
from collectors.packet.naming import may_name, name
from collectors.packet.picking import pick
from collectors.packet.table import (
    AGAIN,
    CLOCK,
    CONN,
    ENDED,
    FREE,
    FREED,
    HAND,
    HAS_PAYLOAD,
    HAS_SEQ,
    HAS_START,
    HIGH,
    LIVE,
    NO,
    WARY,
    find_row,
    forget_row,
    home_slot,
    index_row,
    orient,
    ports_of,
)
from collectors.packet.vias import via_of

# Places that one frame may need in the outputs: its own, and of two packets that it makes whole.
_A_FRAME: Final = 4
_RAW_IP: Final = 101
# Cache lines of a row that most packets touch.
_BUSY_LINES: Final = 3


@kernel
def _open(r, t, d, via, state, out):
    """A new connection in row ``r``, whose key is set."""
    release(r, out.lasting)
    state[CONN] += 1
    out.counters[OPENED] += 1
    r.phase = np.uint8(LIVE)
    r.sender = np.uint8(d)
    r.initiator = np.uint8(0)
    r.t_last = t
    r.t_first = t
    r.t_open = t
    r.conn = np.uint64(state[CONN])
    r.candidate = np.uint8(NO)
    r.via = via
    r.attempts = np.uint16(0)
    r.passed_on = np.uint32(0)
    r.life_packets = np.uint32(0)
    r.marks = np.uint16(0)
    for k in range(2):
        r.ttl[k] = np.uint8(0)
        r.octets[k] = np.uint64(0)
        r.packets[k] = np.uint32(0)
        r.payload_octets[k] = np.uint64(0)
        r.payload_packets[k] = np.uint32(0)
        r.tcp_flags[k] = np.uint16(0)
        r.seen[k] = np.uint8(0)
        r.sized[k] = np.uint8(0)
        r.tail_size[k] = np.uint8(0)
        r.blanks[k] = np.uint16(0)
        r.carried[k] = np.uint16(0)
        for j in range(8):
            r.sizes[k, j] = np.uint16(0)


@kernel
def _renew(r, f, t, d, limits, state, seed, vias, out):
    """A row met after a silence, by another clock, on its active timeout, or by a SYN.

    A SYN that repeats is the same connection's.  One with another number opens a connection anew where nobody
    answered the first for a while; else anybody may have forged it (RFC 9293 section 3.10.7.4, RFC 5961
    section 4: the peer keeps the connection and asks), so that takes an answer.
    """
    quiet = t - r.t_last
    opens = f.tcp == 1 and (f.tcp_flags & (SYN | ACK | RST)) == SYN
    other = opens and ((r.seen[d] & HAS_START) == 0 or r.start[d] != np.uint32(f.seq + np.uint32(1)))
    spoken = (r.seen[0] | r.seen[1]) & HAS_PAYLOAD != 0 or r.seen[0] & r.seen[1] & HAS_SEQ != 0
    if opens and other:
        r.marks = np.uint16((r.marks & ~np.uint16(AGAIN)) | mark(f.seq + np.uint32(1)))
    anew = opens and not spoken and (r.phase == ENDED or (other and quiet >= limits.ended_linger))
    if anew or answered(r, f, d):
        answers = not anew and not f.tcp_flags & SYN
        export(r, END if r.phase == ENDED else FORCED, state[CLOCK], out)
        _open(r, t, d, via_of(f, vias, seed), state, out)
        if not anew:
            opener = d if answers else 1 - d
            r.start[opener] = f.seq if answers else f.ack
            r.expect[opener] = r.start[opener]
            r.seen[opener] = np.uint8(HAS_START | HAS_SEQ)
            r.initiator = np.uint8(opener + 1)
    elif quiet >= limits.idle and (r.protocol != TCP or quiet >= limits.linger or (opens and not spoken)):
        export(r, IDLE, state[CLOCK], out)
        _open(r, t, d, via_of(f, vias, seed), state, out)
    elif quiet >= limits.idle:
        export(r, IDLE, state[CLOCK], out)
    elif t - r.t_first >= limits.active:
        export(r, ACTIVE, state[CLOCK], out)
    elif quiet < -BACK:
        rewind(r, t, state[CLOCK], out)


@kernel
def _enter(f, t, d, table, vias, out):
    """A row for a connection that has none; somebody else's if need be."""
    rows, entries, freed, state, seed, _ = table
    if state[FREED] == 0 and state[HIGH] == rows.size:
        evict(table, out)
    if state[FREED] > 0:
        state[FREED] -= 1
        n = np.int64(freed[state[FREED]])
    else:
        n = state[HIGH]
        state[HIGH] += 1
        state[WARY] += 1 if state[WARY] > 0 else 0  # a round is one row longer
    r = rows[n]
    if d:
        r.a_high, r.a_low, r.b_high, r.b_low = f.dst_high, f.dst_low, f.src_high, f.src_low
        r.a_port, r.b_port = f.dst_port, f.src_port
    else:
        r.a_high, r.a_low, r.b_high, r.b_low = f.src_high, f.src_low, f.dst_high, f.dst_low
        r.a_port, r.b_port = f.src_port, f.dst_port
    r.protocol = f.protocol
    _open(r, t, d, via_of(f, vias, seed), state, out)
    index_row(entries, f.hash, n)
    return n


@within
def _row_of(f, t, d, table, limits, vias, out):
    """The row of a frame's connection, made, renewed or reopened as need be."""
    rows, entries, _, state, seed, _ = table
    if d:
        ports = ports_of(f.dst_port, f.src_port, f.protocol)
        n = find_row(entries, rows, f.hash, f.dst_high, f.dst_low, f.src_high, f.src_low, ports)
    else:
        ports = ports_of(f.src_port, f.dst_port, f.protocol)
        n = find_row(entries, rows, f.hash, f.src_high, f.src_low, f.dst_high, f.dst_low, ports)
    if n < 0:
        return _enter(f, t, d, table, vias, out)
    r = rows[n]
    quiet = t - r.t_last
    opens = f.tcp == 1 and (f.tcp_flags & (SYN | ACK | RST)) == SYN
    if opens or quiet >= limits.idle or quiet < -BACK or t - r.t_first >= limits.active or r.marks & AGAIN:
        _renew(r, f, t, d, limits, state, seed, vias, out)
    return n


@within
def _count(r, d, t, f, source):
    """Count a frame into its row; payload only where it is new (RFC 9293 section 3.4).  Returns (whether the
    row falls due sooner than ``ageing`` knows, new payload octets)."""
    phase = r.phase
    sooner = r.packets[0] == 0 and r.packets[1] == 0
    if sooner:
        r.t_first = t
    sooner |= t < r.t_first
    r.t_last = max(r.t_last, t)
    r.t_first = min(r.t_first, t)
    r.packets[d] += f.packets
    r.octets[d] += np.uint64(f.octets)
    r.tcp_flags[d] |= f.tcp_flags
    if r.life_packets < np.uint32(0xFFFFFFFF):
        r.life_packets += np.uint32(1)
    fresh = f.payload_wire
    if f.protocol == TCP:
        fresh = np.int64(0)
        if f.tcp == 1:
            turns = f.tcp_flags & (SYN | RST)
            fresh = control(r, d, f, source) if turns else sequence(r, d, f, f.seq)
    if fresh > 0:
        r.payload_packets[d] += np.uint32(1)
        r.payload_octets[d] += np.uint64(fresh)
        if r.sized[d] < 8:
            r.sizes[d, r.sized[d]] = np.uint16(min(f.payload_wire, np.int64(0xFFFF)))
            r.sized[d] += np.uint8(1)
    return sooner or r.phase != phase, fresh


@kernel
def _fragment(data, f, t, p, seed, counters):
    """Take a fragment.  Returns which packets are to be counted: 1 the fragment itself, 2 and 4 those that it
    makes whole, in ``p.whole``; these are in the arena."""
    answer = take(data, f, t, p, seed)
    ready = np.int64(1 if answer == METER else 0)
    if answer == REFUSE:
        counters[REFUSED + FRAGMENT] += 1
    for depth in range(2):  # a packet in fragments that holds a fragment
        made = p.filled[1] - 1
        if made < 0:
            break
        w = p.whole[depth]
        at, size = whole(p)
        w.refused = decode(p.arena, at, size, size, np.int64(_RAW_IP), w)
        inherit(w, f, p, made)
        if w.fragment != 0 and take(p.arena, w, t, p, seed) == HELD:
            continue
        if w.refused == 0:
            ready |= np.int64(2) << depth
        else:
            counters[REFUSED + w.refused] += np.int64(w.packets)
    return ready


@kernel
def _look_ahead(block, first, count, rows, entries, seed, frames):
    """Decode some frames and ask for the memory that counting them will touch.

    With 150,000 connections at random a packet otherwise waits for some five misses, one after the other.
    """
    data, offset, captured, length, _, link = block
    for k in range(count):
        i = first + k
        if i + AHEAD < offset.size:
            prefetch(data, offset[i + AHEAD], 0)
            prefetch(data, offset[i + AHEAD], 1)
        f = frames[k]
        f.refused = decode(data, offset[i], np.int64(captured[i]), np.int64(length[i]), np.int64(link[i]), f)
        if f.refused == 0:
            orient(f, seed)
            prefetch(entries, home_slot(f.hash, entries), 0)
    for k in range(count):
        f = frames[k]
        if f.refused == 0:
            entry = entries[home_slot(f.hash, entries)]
            if entry != np.uint64(0):
                n = np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
                for line in range(_BUSY_LINES):
                    prefetch(rows, n, line)


@kernel
def meter(block, at, stop, table, limits, tokens, wanted, out):
    """Take frames from number ``at`` to before ``stop``.  ``block`` is Block.columns.

    Returns the number of the first frame not taken: ``stop``, or less when an output is full.  Events and
    names of a packet that was put together say its place in the arena, behind the block's data.
    """
    data, _, captured, _, t_ns, _ = block
    rows, entries, _, state, seed, due = table
    leaving = leaving_of(out)
    picks = Picks(out.events, out.counters, out.joined, out.filled)
    names = Names(out.named, out.name, out.filled)
    counters, filled, p = out.counters, out.filled, out.pieces
    while at < stop:
        count = min(np.int64(AHEAD), stop - at)
        _look_ahead(block, at, count, rows, entries, seed, out.frame)
        for k in range(count):
            t = t_ns[at]
            if filled[1] + _A_FRAME > out.events.size or filled[2] + _A_FRAME > out.named.size:
                return at
            if p.filled[0] > ARENA_FULL:
                return at
            steps = advance(t, state)
            if filled[0] + steps + EXPORTS_A_FRAME > out.exports.size:
                return at
            if steps > 0:
                sweep(steps, table, limits, leaving)
            f = out.frame[k]
            counters[FRAMES] += 1
            counters[OCTETS] += np.int64(captured[at])
            at += 1
            ready, source = np.int64(1), data
            if f.fragment != 0:
                ready = _fragment(data, f, t, p, seed, counters)
            elif f.refused != 0:
                counters[REFUSED + f.refused] += 1
                continue
            depth = 0
            while ready != 0:
                if ready & 1:
                    events, named = filled[1], filled[2]
                    if f.fragment != 0 or depth > 0:
                        orient(f, seed)
                    counters[METERED] += np.int64(f.packets)
                    d = np.int64(f.swapped)
                    n = _row_of(f, t, d, table, limits, out.vias, leaving)
                    r = rows[n]
                    if f.payload_wire > 0 and f.tcp == 1 and (f.tcp_flags & (SYN | RST | ACK)) != ACK:
                        refuse_payload(r, d, f, counters)
                    sooner, fresh = _count(r, d, t, f, source)
                    if sooner:
                        due[n] = due_of(r, limits)
                    if fresh > 0 and t - r.t_open >= AFTER_NS:
                        note(source, f, r, n, d, t, rows, out.lasting)
                    if f.tcp == 1:
                        pick(source, f, r, d, t, state, limits, tokens, picks)
                    if wanted.on and may_name(source, f, r, d):
                        name(source, f, r, d, t, state, wanted, names)
                    if f.tcp == 1 and f.payload_wire > 0:
                        r.seen[d] |= np.uint8(HAS_PAYLOAD)
                    if depth > 0:
                        for j in range(events, filled[1]):
                            out.events[j].at += data.size
                        for j in range(named, filled[2]):
                            out.named[j].at += data.size
                ready >>= 1
                if ready != 0:
                    f, source = p.whole[depth], p.arena
                    depth += 1
    return at


@kernel
def flush(table, out):
    """Export what is left, in the order of rows, and forget it.  False: ``exports`` is full, call again."""
    rows, entries, freed, state, seed, _ = table
    leaving = leaving_of(out)
    while state[HAND] < state[HIGH]:
        if out.filled[0] >= out.exports.size:
            return False
        if rows[state[HAND]].phase != FREE:
            r = rows[state[HAND]]
            export(r, END if r.phase == ENDED else FORCED, state[CLOCK], leaving)
            release(r, out.lasting)
            forget_row(entries, rows, freed, state, seed, state[HAND])
        state[HAND] += 1
    return True
