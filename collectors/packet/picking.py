"""Which TCP segments leave for reassembly: candidates, picked inside the compiled pass.

A connection is *picked* once any segment of it holds a token, also one that straddles two segments (the
bytes of an unfinished token are kept in its row).  It is *tentative* while a direction that was seen from
its start has sent nothing but blanks and an opening brace comes first: lines split over many segments are
thus whole when the token shows.  A tentative connection passes on so many octets and no more.  What carries
lines without showing them is looked at apart (``carriers``); so many connections a second are tentative for
it, and who is put off is asked again at its next segment.

Text that is full of near misses costs its connection's budget of steps; what it has beyond that is searched
where it is short, or by chance: mining lines are short, and come again.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.jit import within
from collectors.packet.carriers import carries, judge
from collectors.packet.checksums import doubt_of, stamp_of
from collectors.packet.frames import SYN
from collectors.packet.heads import AMPLE, WANTED
from collectors.packet.table import (
    BRACE,
    CLOCK,
    DECIDED,
    HAS_PAYLOAD,
    HAS_SEQ,
    HAS_START,
    NO,
    PICKED,
    RATIONS,
    SUMMED,
    TENTATIVE,
)
from collectors.packet.tokens import TAIL, find, tail_of

# One segment of a candidate connection, as the reassembly wants it.
EVENT: Final = np.dtype(
    [
        ("conn", "u8"), ("a_high", "u8"), ("a_low", "u8"), ("b_high", "u8"), ("b_low", "u8"),
        ("a_port", "u2"), ("b_port", "u2"), ("direction", "u1"), ("picked", "u1"),
        ("known", "u1"),     # 1: ``start`` is known; 2: this is the direction's first payload
        ("tcp_flags", "u2"),
        ("seq", "u4"), ("ack", "u4"), ("start", "u4"),
        ("stamp", "u4"),     # its time stamp (RFC 7323), or 0
        ("ttl", "u1"), ("usual_ttl", "u1"),  # of the packet, and of its direction's first; 0 not known
        ("doubt", "u1"),     # bits of ``checksums``
        ("t", "i8"), ("clock", "i8"),
        ("at", "i8"), ("size", "i8"),  # the payload in the block's data
    ]
)  # fmt: skip

_TENTATIVES: Final = 6
_PICKS: Final = 7
_WITHHELD: Final = 8
_SCANNED: Final = 9
_SKIPPED: Final = 10
_STEPS: Final = 11
_PUT_OFF: Final = 12
# Ordinary HTML and JSON have a place to look at in some 20 octets, and JSON-RPC a near miss in a hundred too:
# one step in so many octets is free.
_FREE: Final = 8
# Of a connection that used up its steps a segment of at most so many octets is searched, for so many steps;
# and of the others one in so many, a power of two, whole.
_SHORT: Final = 256
_SHORT_STEPS: Final = 48
_ONE_IN: Final = 8
_ALL: Final = 1 << 40
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
# Out of order before the first byte is known: so far ahead it may still be the same burst.
_WINDOW: Final = 65536
# PROXY protocol, version 2, begins with so many blanks and NUL.
_SIGNATURE: Final = 4
# So much of a segment is joined to the tail of the one before.
_JOIN: Final = 64
# What a packet without payload takes of its connection's budget.
_LEAST: Final = 8
# What carries lines for as long as it lasts has so many budgets of a tentative connection in a record's time:
# frames and chunks of one octet are seven.
_AMPLE: Final = 8
# A connection that a carrier makes tentative takes so many ns of its ration, of which so many are to be had
# at once: one in a hundredth of a second of those of which one direction was seen, ten of the others.
_ONE_WAY: Final = 10_000_000
_BOTH_WAYS: Final = 1_000_000
_RATION: Final = 20_000_000_000


@kernel
def _first_bytes(data, f, r, d, first):
    """Judge the beginning of a direction that was seen from its start: True while it may be JSON."""
    place = np.int64(np.int32(np.uint32(r.start[d] + np.uint32(r.blanks[d]) - first)))
    if place < 0 and place >= -_WINDOW:
        return True  # out of order: the first byte is still to come
    if place >= f.payload_wire:
        return True  # again what was blank before
    if place >= 0:
        while place < f.payload and r.blanks[d] < 60000:
            byte = data[f.payload_at + place]
            if byte == ord("{"):
                r.seen[d] |= np.uint8(DECIDED | BRACE)
                return True
            if byte not in (32, 9, 10, 13):
                if byte == 0 and r.blanks[d] == _SIGNATURE:
                    r.carried[d] |= np.uint16(WANTED | AMPLE)
                break
            r.blanks[d] += np.uint16(1)
            place += 1
        if place >= f.payload_wire:
            return True
    r.seen[d] |= np.uint8(DECIDED)
    return False


@within
def _half(seq):
    """What ROW.tail_next keeps of a number: a tail joined to what is 65,536 octets off costs one search."""
    return np.uint16(np.uint32(seq) & np.uint32(0xFFFF))


@kernel
def _keep_tail(data, end, begins, r, d, after):
    size = end - begins
    r.tail_size[d] = np.uint8(size)
    r.tail_next[d] = _half(after)
    for k in range(size):
        r.tail[d, k] = data[begins + k]


@kernel
def _search_short(data, f, r, d, first, tokens, out):
    """``_search`` of a segment that is shorter than a token and does not follow what is kept: it may come
    before that, in a line whose segments come in reverse order, so both are kept whole."""
    size, kept = f.payload, np.int64(0)
    for k in range(size):
        out.joined[k] = data[f.payload_at + k]
    if _half(first + np.uint32(size) + np.uint32(r.tail_size[d])) == r.tail_next[d]:
        kept = np.int64(r.tail_size[d])
        for k in range(kept):
            out.joined[size + k] = r.tail[d, k]
    hit, steps = find(out.joined, 0, size + kept, tokens, np.int64(_ALL))
    if not hit:
        held = min(size + kept, np.int64(TAIL))
        _keep_tail(out.joined, held, 0, r, d, np.uint32(first + np.uint32(held)))
    return hit, steps


@kernel
def _search(data, f, r, d, first, room, tokens, out):
    """Does the segment, or the end of the one before and its beginning, hold a token?  Returns (found, steps)
    as ``find`` does."""
    end = f.payload_at + f.payload
    after = np.uint32(first + np.uint32(f.payload))
    whole = f.payload == f.payload_wire
    size = np.int64(r.tail_size[d])
    before = np.int64(0)
    if size > 0 and r.tail_next[d] == _half(first):
        more = min(f.payload, np.int64(_JOIN))
        for k in range(size):
            out.joined[k] = r.tail[d, k]
        for k in range(more):
            out.joined[size + k] = data[f.payload_at + k]
        hit, before = find(out.joined, 0, size + more, tokens, np.int64(_ALL))
        if hit:
            return True, before
        if more == f.payload and whole:
            begins = tail_of(out.joined, 0, size + more, tokens)
            _keep_tail(out.joined, size + more, begins, r, d, after)
            return False, before
    elif f.payload < TAIL and whole:
        return _search_short(data, f, r, d, first, tokens, out)
    hit, steps = find(data, f.payload_at, end, tokens, room)
    if not hit:
        _keep_tail(data, end, tail_of(data, f.payload_at, end, tokens) if whole else end, r, d, after)
    return hit, steps + before


@kernel
def _drawn(r):
    """One segment in _ONE_IN, and who sends them cannot know which: he does not know the connection's
    number."""
    x = (r.conn * _SPREAD) ^ np.uint64(r.life_packets)
    x = (x ^ (x >> np.uint64(32))) * _SPREAD
    return (x >> np.uint64(40)) & np.uint64(_ONE_IN - 1) == np.uint64(0)


@kernel
def _judge(data, f, r, d, first, limits, tokens, out):
    """Move the row's ``candidate`` on by one segment with payload."""
    if (r.seen[d] & HAS_START) and not (r.seen[d] & DECIDED):
        if _first_bytes(data, f, r, d, first):
            if r.candidate == NO:
                r.candidate = np.uint8(TENTATIVE)
                out.counters[_TENTATIVES] += 1
        elif r.candidate == TENTATIVE and not (r.seen[1 - d] & BRACE) and not carries(r) & WANTED:
            r.candidate = np.uint8(NO)
    spent = np.int64(r.attempts)
    free = f.payload // _FREE
    room = free + limits.attempts - spent
    if spent >= limits.attempts:
        room = np.int64(_ALL)
        if not _drawn(r):
            room = np.int64(_SHORT_STEPS)
            if f.payload > _SHORT:
                out.counters[_SKIPPED] += 1
                r.tail_size[d] = np.uint8(0)
                return
    out.counters[_SCANNED] += f.payload
    hit, steps = _search(data, f, r, d, first, room, tokens, out)
    out.counters[_STEPS] += steps
    if hit:
        r.candidate = np.uint8(PICKED)
        out.counters[_PICKS] += 1
        return
    if steps > room:
        out.counters[_SKIPPED] += 1
    r.attempts = np.uint16(min(spent + max(np.int64(0), steps - free), np.int64(0xFFFF)))


@kernel
def _ration(r, state):
    """Is there room for another connection that a carrier makes tentative?  Who sends single packets takes
    it from nobody of whom both directions are seen."""
    both = r.seen[0] & r.seen[1] & HAS_SEQ != 0
    place = RATIONS + (1 if both else 0)
    now = state[CLOCK]
    until = state[place]
    if until < now or until > now + 2 * _RATION:  # or the clock went back
        until = now
    if until > now + _RATION:
        return False
    state[place] = until + (_BOTH_WAYS if both else _ONE_WAY)
    return True


@kernel
def _carried(data, f, r, d, follows, state, limits, tokens, out):
    """Move ``candidate`` on by what may carry lines without showing them."""
    got = judge(data, f, r, d, follows, limits, tokens, out.joined)
    if got > r.candidate:
        if got == TENTATIVE and not _ration(r, state):
            out.counters[_PUT_OFF] += 1
            return
        out.counters[_PICKS if got == PICKED else _TENTATIVES] += 1
    r.candidate = got


@kernel
def pick(data, f, r, d, t, state, limits, tokens, out):
    """Judge one TCP segment and, if its connection is a candidate, write its EVENT."""
    first = f.seq
    if f.tcp_flags & SYN:
        first = np.uint32(f.seq + np.uint32(1))
    if f.payload > 0 and r.candidate != PICKED:
        follows = r.tail_next[d] == _half(first)
        _judge(data, f, r, d, first, limits, tokens, out)
        if r.candidate != PICKED:
            _carried(data, f, r, d, follows, state, limits, tokens, out)
    if r.candidate == NO:
        return
    budget = limits.candidate_octets
    if r.candidate != PICKED:
        budget = limits.tentative_octets * (_AMPLE if carries(r) & AMPLE else 1)
    if np.int64(r.passed_on) + f.payload > budget:
        out.counters[_WITHHELD] += 1
        return
    # A packet without payload counts too, or a flood of them would be free.
    r.passed_on += np.uint32(max(f.payload, np.int64(_LEAST)))
    e = out.events[out.filled[1]]
    out.filled[1] += 1
    e.conn = r.conn
    e.a_high = r.a_high
    e.a_low = r.a_low
    e.b_high = r.b_high
    e.b_low = r.b_low
    e.a_port = r.a_port
    e.b_port = r.b_port
    e.direction = np.uint8(d)
    e.picked = np.uint8(r.candidate == PICKED)
    e.known = np.uint8((r.seen[d] & HAS_START) // HAS_START | (0 if r.seen[d] & HAS_PAYLOAD else 2))
    e.tcp_flags = f.tcp_flags
    e.seq = first
    e.ack = f.ack
    e.start = r.start[d]
    e.stamp = stamp_of(data, f) if f.head > 20 else np.uint32(0)
    e.ttl = f.ttl
    e.usual_ttl = r.ttl[d]
    e.doubt = doubt_of(data, f, f.tcp_flags & SYN != 0, r.marks & (SUMMED << d) != 0)
    e.t = t
    e.clock = state[CLOCK]
    e.at = f.payload_at
    e.size = f.payload
