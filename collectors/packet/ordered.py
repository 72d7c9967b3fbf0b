"""Reassembly of what needs none: segments that are next in their order, compiled.

The state of every connection is in arrays, one CONNECTION each.  ``assemble`` takes events as long as each
is the next of its direction, empty, or says again what was said, and nothing of its connection waits for a
hole; at the first that is not it stops, and ``payloads.Reassembly`` takes that one, on the same arrays.
What it keeps beside them (pieces that wait, rivals, places given up) is of no concern to segments in order.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.anchors import copy_octets, prefetch
from collectors.packet.doubts import ahead_of, doubted, doubted_first, learn
from collectors.packet.frames import ACK, FIN, RST
from collectors.packet.pages import CHUNKS_A_SEGMENT
from collectors.packet.segments import WINDOW
from collectors.streams import ACK_ONLY, END, GAP, START

CONNECTION: Final = np.dtype(
    [
        ("conn", "u8"), ("seen", "i8"),
        ("a_high", "u8"), ("a_low", "u8"), ("b_high", "u8"), ("b_low", "u8"),
        ("base", "i8", (2,)),       # sequence number of offset 0; -1 until it is known
        ("next", "i8", (2,)),       # offset that is to come
        ("published", "i8", (2,)),  # offset of the first byte published, or -1
        ("last_ack", "i8", (2,)),   # what the other direction acknowledged last, or -1
        ("left_out", "i8", (2, 2)), # offsets from and to, of what went before we joined
        ("a_port", "u2"), ("b_port", "u2"),
        ("known", "u1", (2,)),      # the stream was seen from its start
        ("begun", "u1", (2,)), ("gap", "u1", (2,)), ("ended", "u1", (2,)),
        ("acked", "u1", (2,)),      # this direction acknowledged published bytes of the other
        # What is usual here, or turned out to be: see ``doubts``.
        ("ttl", "u1", (2,)), ("loose", "u1", (2,)), ("stamp", "u4", (2,)),
        ("picked", "u1"),
        ("kept", "u1"),             # 1: Reassembly keeps something beside; 2: pieces wait, all events are its
    ]
)  # fmt: skip
KEPT: Final = 1
HOLDS: Final = 2

# Places in the state array.
NOW: Final = 0  # newest data time
AGED: Final = 1  # whole second that was aged last
DUE: Final = 2  # when the first hole falls due
COUNT: Final = 3  # connections
HIGH: Final = 4  # places ever used
FREED: Final = 5  # places on the free list
FIRST: Final = 6  # (2,) least recently used: tentative, picked
LAST: Final = 8  # (2,) most recently used
EVICTIONS: Final = 10
REFUSED_ENDS: Final = 11
REPEATS: Final = 12  # octets that were there before
BEFORES: Final = 13  # octets from before the place where we joined
STATES: Final = 14
NEVER: Final = np.iinfo(np.int64).max

_SECOND: Final = 1_000_000_000
# Events whose memory is asked for before they are taken.
_AHEAD: Final = 4
_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)


class Tables(NamedTuple):
    """``places`` (n,) CONNECTION, ``slots`` (power of two,) i4 of places plus one, ``freed`` (n,) i4 a stack,
    ``state`` (STATES,) i8; ``order`` (n, 2) i4, neighbours of a place in the order of last use, -1 none."""

    places: np.ndarray
    slots: np.ndarray
    freed: np.ndarray
    state: np.ndarray
    order: np.ndarray


def tables(connections: int) -> Tables:
    """Empty tables for so many connections."""
    made = Tables(
        np.zeros(connections, CONNECTION),
        np.zeros(1 << (2 * connections - 1).bit_length(), np.int32),
        np.zeros(connections, np.int32),
        np.zeros(STATES, np.int64),
        np.zeros((connections, 2), np.int32),
    )
    made.state[[FIRST, FIRST + 1, LAST, LAST + 1]] = -1
    made.state[DUE] = NEVER
    return made


@kernel
def _home(conn, slots):
    return np.int64((np.uint64(conn) * _PRIME) >> np.uint64(32)) & (slots.size - 1)


@kernel
def find(conn, t):
    """The place of a connection, or -1."""
    i = _home(conn, t.slots)
    while t.slots[i] != 0:
        n = np.int64(t.slots[i]) - 1
        if t.places[n].conn == conn:
            return n
        i = (i + 1) & (t.slots.size - 1)
    return np.int64(-1)


@kernel
def _link(n, t):
    which = np.int64(t.places[n].picked)
    last = t.state[LAST + which]
    t.order[n, 0] = np.int32(last)
    t.order[n, 1] = np.int32(-1)
    if last < 0:
        t.state[FIRST + which] = n
    else:
        t.order[last, 1] = np.int32(n)
    t.state[LAST + which] = n


@kernel
def _unlink(n, t):
    which = np.int64(t.places[n].picked)
    before, after = np.int64(t.order[n, 0]), np.int64(t.order[n, 1])
    if before < 0:
        t.state[FIRST + which] = after
    else:
        t.order[before, 1] = np.int32(after)
    if after < 0:
        t.state[LAST + which] = before
    else:
        t.order[after, 0] = np.int32(before)


@kernel
def forget(n, t):
    """Give a connection's place back (backward shift: no tombstones)."""
    _unlink(n, t)
    mask = t.slots.size - 1
    i = _home(t.places[n].conn, t.slots)
    while np.int64(t.slots[i]) != n + 1:
        i = (i + 1) & mask
    j = i
    while True:
        j = (j + 1) & mask
        if t.slots[j] == 0:
            break
        if ((j - _home(t.places[np.int64(t.slots[j]) - 1].conn, t.slots)) & mask) >= ((j - i) & mask):
            t.slots[i] = t.slots[j]
            i = j
    t.slots[i] = 0
    t.freed[t.state[FREED]] = np.int32(n)
    t.state[FREED] += 1
    t.state[COUNT] -= 1


@kernel
def _make(e, t):
    if t.state[FREED] > 0:
        t.state[FREED] -= 1
        n = np.int64(t.freed[t.state[FREED]])
    else:
        n = t.state[HIGH]
        t.state[HIGH] += 1
    t.state[COUNT] += 1
    r = t.places[n]
    r.conn = e.conn
    r.a_high, r.a_low, r.b_high, r.b_low = e.a_high, e.a_low, e.b_high, e.b_low
    r.a_port, r.b_port = e.a_port, e.b_port
    r.picked = e.picked
    r.kept = np.uint8(0)
    for d in range(2):
        r.base[d] = -1
        r.next[d] = 0
        r.published[d] = -1
        r.last_ack[d] = -1
        r.left_out[d, 0] = r.left_out[d, 1] = 0
        r.known[d] = r.begun[d] = r.gap[d] = r.ended[d] = r.acked[d] = np.uint8(0)
        r.ttl[d] = r.loose[d] = np.uint8(0)
        r.stamp[d] = np.uint32(0)
    mask = t.slots.size - 1
    i = _home(r.conn, t.slots)
    while t.slots[i] != 0:
        i = (i + 1) & mask
    t.slots[i] = np.int32(n + 1)
    _link(n, t)
    return n


@kernel
def oldest(t):
    """The place that is given up first: a tentative connection's, so that a flood of them pushes no picked
    one out."""
    return t.state[FIRST] if t.state[FIRST] >= 0 else t.state[FIRST + 1]


@kernel
def join(e, t):
    """The place of an event's connection, made if need be, and now the most recently used.

    -1: there is no room, and what would be given up is kept beside: Reassembly forgets ``oldest`` first.
    """
    n = find(e.conn, t)
    if n < 0:
        if t.state[COUNT] >= t.places.size:
            least = oldest(t)
            if t.places[least].kept != 0:
                return n
            forget(least, t)
            t.state[EVICTIONS] += 1
        n = _make(e, t)
    else:
        r = t.places[n]
        _unlink(n, t)
        r.picked = np.uint8(r.picked | e.picked)
        _link(n, t)
    t.places[n].seen = t.state[NOW]
    return n


@kernel
def join_one(events, i, t):
    """``join`` of one event, for Reassembly."""
    return join(events[i], t)


@kernel
def begin(r, d, seq, start, known):
    """The first bytes of a direction: where do its offsets count from?"""
    r.begun[d] = np.uint8(1)
    r.known[d] = np.uint8(known & 1)
    r.base[d] = np.int64(start) if known & 1 else np.int64(seq)
    if known == 1:
        # Bytes went by before anybody took this connection for a candidate.
        r.next[d] = np.int64(np.uint32(seq - start))
        r.gap[d] = np.uint8(r.next[d] > 0)
    # Joined in the middle: if it was by a forged segment, the stream is elsewhere.
    r.left_out[d, 0] = 0 if known & 1 else -WINDOW
    r.left_out[d, 1] = r.next[d]


@kernel
def begin_one(t, n, d, seq, start, known):
    """``begin`` of one direction, for Reassembly."""
    begin(t.places[n], d, np.uint32(seq), np.uint32(start), known)


@kernel
def _repeats(e, r, d):
    """Is all that this says behind us, and nothing else to be done about it?"""
    if r.base[d] < 0 or r.kept or e.size == 0 or e.tcp_flags & (FIN | RST):
        return False
    ahead = ahead_of(e, r)
    left_out = r.begun[d] and r.left_out[d, 0] <= r.next[d] + ahead < r.left_out[d, 1]
    return -WINDOW <= ahead < 0 and ahead + e.size <= 0 and not left_out


@kernel
def _usual(e, r):
    """Is this the next segment of its direction, or one that takes no place in it?"""
    d = np.int64(e.direction)
    if r.kept & HOLDS:
        return False
    if (e.size > 0 or e.tcp_flags & (FIN | RST)) and doubted(e, r):
        return False
    if e.size == 0 and not (e.tcp_flags & FIN and (r.base[d] >= 0 or e.known & 1)):
        return True
    if r.base[d] < 0:
        return e.known != 3 or e.seq == e.start
    return np.int64(e.seq) == (r.base[d] + r.next[d]) & 0xFFFFFFFF or _repeats(e, r, d)


@kernel
def _write(r, d, t, offset, seq, ack, flags, page):
    c = page.chunks[page.filled[0]]
    page.filled[0] += 1
    if d == 0:
        c.src_high, c.src_low, c.src_port = r.a_high, r.a_low, r.a_port
        c.dst_high, c.dst_low, c.dst_port = r.b_high, r.b_low, r.b_port
    else:
        c.src_high, c.src_low, c.src_port = r.b_high, r.b_low, r.b_port
        c.dst_high, c.dst_low, c.dst_port = r.a_high, r.a_low, r.a_port
    c.t = t
    c.offset = offset
    c.seq = np.uint32(seq & 0xFFFFFFFF)
    c.ack = ack
    c.flags = np.uint8(flags | (START if r.known[d] else 0))
    c.at = page.filled[1]
    c.size = 0
    return c


@kernel
def _take(e, r, d, data, page):
    """Publish a segment that is next; True if it made a chunk."""
    fin = e.tcp_flags & FIN != 0
    if e.size == 0 and not (fin and (r.base[d] >= 0 or e.known & 1)):
        if not fin or r.ended[d]:
            return False
        r.ended[d] = np.uint8(1)
        _write(r, d, e.t, r.next[d], np.int64(e.seq), e.ack, END, page)
        return True
    if r.base[d] < 0:
        begin(r, d, e.seq, e.start, np.int64(e.known))
    ends = fin and not r.ended[d]
    if e.size == 0 and not ends:
        return False
    offset = r.next[d]
    flags = END if ends else 0
    if e.size > 0:
        r.next[d] += e.size
        if r.published[d] < 0:
            r.published[d] = offset
        if r.gap[d]:
            flags |= GAP
            r.gap[d] = np.uint8(0)
    r.ended[d] = np.uint8(ends)
    c = _write(r, d, e.t, offset, r.base[d] + offset, e.ack, flags, page)
    c.size = e.size
    copy_octets(page.data, page.filled[1], data, e.at, e.size)
    page.filled[1] += e.size
    return True


@kernel
def _pass(clock, t, idle):
    """Let time pass.  False: a hole falls due, or a connection was silent for too long."""
    if t.state[DUE] <= clock:
        return False
    second = clock // _SECOND
    if second != t.state[AGED]:
        for k in range(2):
            first = t.state[FIRST + k]
            if first >= 0 and t.places[first].seen <= (second - idle) * _SECOND:
                return False
        t.state[AGED] = second
    t.state[NOW] = clock
    return True


@kernel
def assemble(events, i, data, t, page, idle):
    """Take events from number ``i`` on; ``idle`` in s.  Returns the number of the first not taken."""
    while i < events.size:
        if i + 2 * _AHEAD < events.size:
            prefetch(t.slots, _home(events[i + 2 * _AHEAD].conn, t.slots), 0)
            prefetch(data, events[i + _AHEAD].at, 0)
            near = find(events[i + _AHEAD].conn, t)
            if near >= 0:
                for line in range(3):
                    prefetch(t.places, near, line)
        e = events[i]
        if page.filled[0] + CHUNKS_A_SEGMENT > page.chunks.size or page.filled[1] + e.size > page.data.size:
            return i
        if e.clock > t.state[NOW] and not _pass(e.clock, t, idle):
            return i
        n = find(e.conn, t)
        if n >= 0:
            if not _usual(e, t.places[n]):
                return i
        elif (e.size > 0 or e.tcp_flags & (FIN | RST)) and (
            (e.known == 3 and e.seq != e.start and (e.size > 0 or e.tcp_flags & FIN)) or doubted_first(e)
        ):
            return i
        n = join(e, t)
        if n < 0:
            return i
        r = t.places[n]
        d = np.int64(e.direction)
        o = 1 - d
        if e.tcp_flags & ACK:
            r.last_ack[o] = np.int64(e.ack)
        taken = e.size > 0 or not doubted(e, r)
        told = False
        if _repeats(e, r, d):
            again = r.published[d] >= 0 and r.next[d] + ahead_of(e, r) >= r.published[d]
            t.state[REPEATS if again else BEFORES] += e.size
        else:
            told = _take(e, r, d, data, page)
        if taken:
            learn(e, r)
        if r.base[d] < 0 and e.known == 3:
            r.known[d] = np.uint8(1)  # no payload yet, but where it will begin
            r.base[d] = np.int64(e.start)
        if e.tcp_flags & ACK and not r.acked[d] and r.published[o] >= 0:
            ahead = (np.int64(e.ack) - r.base[o] - r.published[o]) & 0xFFFFFFFF
            if 0 < ahead < 0x80000000:
                r.acked[d] = np.uint8(1)
                if not told:
                    _write(r, d, e.t, r.next[d], np.int64(e.seq), e.ack, ACK_ONLY, page)
        if e.tcp_flags & RST:
            behind = (np.int64(e.seq) + e.size) & 0xFFFFFFFF
            if r.base[d] >= 0 and behind not in ((r.base[d] + r.next[d]) & 0xFFFFFFFF, r.last_ack[d]):
                t.state[REFUSED_ENDS] += 1
            elif not r.ended[d]:
                r.ended[d] = np.uint8(1)
                _write(r, d, e.t, r.next[d], np.int64(e.seq), e.ack, END, page)
        i += 1
    return i
