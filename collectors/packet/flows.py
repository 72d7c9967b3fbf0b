"""The compiled pass: frames of a block in; flow records and candidate segments out; the table aged.

``meter`` decodes each frame (``frames``), counts it into its connection's row (``table``), picks candidates
(``picking``), and ages a few rows, by the data's own time.  All of it is a function of the sequence of
frames: where blocks are cut changes nothing.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare
from collectors.packet.frames import ACK, FIN, FRAME, RST, SYN, decode
from collectors.packet.picking import EVENT, pick
from collectors.packet.table import (
    CLOCK,
    CONN,
    DEBT,
    ENDED,
    EVICT_HAND,
    FREE,
    FREED,
    HAND,
    HAS_FIN,
    HAS_PAYLOAD,
    HAS_SEQ,
    HAS_START,
    HIGH,
    LIVE,
    NO,
    PICKED,
    ROW,
    find_row,
    forget_row,
    hash_of,
    index_row,
    ports_of,
)

IDLE: Final = 1
ACTIVE: Final = 2
END: Final = 3
FORCED: Final = 4
RESOURCES: Final = 5

# Places in the counter array; after them one place for each of frames.REFUSALS.
FRAMES: Final = 0
OCTETS: Final = 1  # captured, link layer and all
METERED: Final = 2
EVICTED: Final = 3
EVICTED_PICKED: Final = 4
OPENED: Final = 5
TENTATIVES: Final = 6
PICKS: Final = 7
WITHHELD: Final = 8  # candidate segments over their connection's budget
SCANNED: Final = 9  # payload octets that were searched for tokens
SKIPPED: Final = 10  # segments not searched: too many near misses on their connection
REFUSED: Final = 16
COUNTERS: Final = 32

# Rows that one frame ages at most: nobody waits for a sweep.
_STEPS: Final = 512
_LOOKED_AT: Final = 16
_TCP: Final = 6
_SECOND: Final = 1_000_000_000
# Data time that goes back further than this is another clock, not reordering.
_BACK: Final = 10 * _SECOND
# Free places that one frame may need in the two outputs, beyond what ageing writes.
_EXPORTS_A_FRAME: Final = 2


class Limits(NamedTuple):
    """Times in ns, budgets in octets and attempts; all i8."""

    active: int
    idle: int
    linger: int
    ended_linger: int
    tentative_octets: int
    candidate_octets: int
    attempts: int


class Outputs(NamedTuple):
    """``exports`` (n,) ROW, ``events`` (m,) EVENT, ``counters`` (COUNTERS,) i8, ``frame`` (1,) FRAME and
    ``joined`` (64,) u1 are scratch; ``filled`` (2,) i8 counts what is in the first two."""

    exports: np.ndarray
    events: np.ndarray
    counters: np.ndarray
    frame: np.ndarray
    joined: np.ndarray
    filled: np.ndarray


def outputs(exports: int, events: int) -> Outputs:
    """Empty outputs of the given sizes."""
    return Outputs(
        np.zeros(exports, ROW),
        np.zeros(events, EVENT),
        np.zeros(COUNTERS, np.int64),
        np.zeros(1, FRAME),
        np.zeros(128, np.uint8),
        np.zeros(2, np.int64),
    )


@bare
def _export(r, reason, clock, out):
    """Write a record of what was counted since the last, if anything, and start counting anew."""
    if r.packets[0] == 0 and r.packets[1] == 0:
        return
    r.end_reason = np.uint8(reason)
    r.t_export = clock
    out.exports[out.filled[0]] = r
    out.filled[0] += 1
    for d in range(2):
        r.octets[d] = np.uint64(0)
        r.packets[d] = np.uint32(0)
        r.payload_octets[d] = np.uint64(0)
        r.payload_packets[d] = np.uint32(0)
        r.tcp_flags[d] = np.uint16(0)
    # A candidate's budget is one of a record's time, not of its life.
    if r.candidate == PICKED:
        r.passed_on = np.uint32(0)
    r.attempts = np.uint16(0)


@bare
def _age(rows, index, freed, state, seed, n, limits, out):
    r = rows[n]
    if r.phase == FREE:
        return
    clock = state[CLOCK]
    quiet = clock - r.t_last
    if r.phase == ENDED and quiet >= limits.ended_linger:
        _export(r, END, clock, out)
        forget_row(index, rows, freed, state, seed, n)
    elif quiet >= limits.idle:
        _export(r, IDLE, clock, out)
        if r.protocol != _TCP or quiet >= limits.linger:
            forget_row(index, rows, freed, state, seed, n)
    elif clock - r.t_first >= limits.active:
        _export(r, ACTIVE, clock, out)


@bare
def _tick(t, rows, index, freed, state, seed, limits, out):
    """Move the clock to ``t`` and age the rows that fell due: the whole table once a second of data time,
    at most _STEPS rows a frame.  False: ``exports`` is full, call again with the same ``t``."""
    if t > state[CLOCK]:
        state[DEBT] += min(t - state[CLOCK], _SECOND) * min(state[HIGH], 1 << 30)
        state[DEBT] = min(state[DEBT], state[HIGH] * _SECOND)
        state[CLOCK] = t
    elif t < state[CLOCK] - _BACK:
        state[CLOCK] = t
    steps = min(state[DEBT] // _SECOND, np.int64(_STEPS))
    if out.filled[0] + steps + _EXPORTS_A_FRAME > out.exports.size:
        return False
    state[DEBT] -= steps * _SECOND
    for _ in range(steps):
        if state[HAND] >= state[HIGH]:
            state[HAND] = 0
        _age(rows, index, freed, state, seed, state[HAND], limits, out)
        state[HAND] += 1
    return True


@bare
def _worth(r, clock):
    """What a row is worth keeping: candidates most, then those that lasted; then who spoke last."""
    if r.phase == ENDED:
        return np.int64(0)
    quiet = min(max(np.int64(0), (clock - r.t_last) >> 20), np.int64(1) << 30)
    rank = np.int64(1)
    if r.candidate == PICKED:
        rank = np.int64(4)
    elif r.life_packets > 1:
        rank = np.int64(2) if clock - r.t_open < 10 * _SECOND else np.int64(3)
    return (rank << 32) - quiet


@bare
def _evict(rows, index, freed, state, seed, out):
    """Make room: of some rows in turn, the one that is worth least."""
    worst = np.int64(-1)
    least = np.int64(0)
    for _ in range(min(_LOOKED_AT, rows.size)):
        n = state[EVICT_HAND]
        state[EVICT_HAND] = (n + 1) & (rows.size - 1)
        worth = _worth(rows[n], state[CLOCK])
        if worst < 0 or worth < least:
            worst = n
            least = worth
    r = rows[worst]
    out.counters[EVICTED] += 1
    if r.candidate == PICKED:
        out.counters[EVICTED_PICKED] += 1
    _export(r, RESOURCES, state[CLOCK], out)
    forget_row(index, rows, freed, state, seed, worst)


@bare
def _open(r, t, d, vlan, state, out):
    """A new connection in row ``r``, whose key is set."""
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
    r.vlan = vlan
    r.attempts = np.uint16(0)
    r.passed_on = np.uint32(0)
    r.life_packets = np.uint32(0)
    for k in range(2):
        r.octets[k] = np.uint64(0)
        r.packets[k] = np.uint32(0)
        r.payload_octets[k] = np.uint64(0)
        r.payload_packets[k] = np.uint32(0)
        r.tcp_flags[k] = np.uint16(0)
        r.seen[k] = np.uint8(0)
        r.sized[k] = np.uint8(0)
        r.tail_size[k] = np.uint8(0)
        r.blanks[k] = np.uint16(0)
        for j in range(8):
            r.sizes[k, j] = np.uint16(0)


@bare
def _row_of(f, t, rows, index, freed, state, seed, limits, out):
    """The row of a frame's connection, made, renewed or reopened as need be.  Returns (row, direction)."""
    swap = f.src_high > f.dst_high
    if f.src_high == f.dst_high:
        swap = f.src_low > f.dst_low or (f.src_low == f.dst_low and f.src_port > f.dst_port)
    if swap:
        d = np.int64(1)
        a_high, a_low, b_high, b_low = f.dst_high, f.dst_low, f.src_high, f.src_low
        a_port, b_port = f.dst_port, f.src_port
    else:
        d = np.int64(0)
        a_high, a_low, b_high, b_low = f.src_high, f.src_low, f.dst_high, f.dst_low
        a_port, b_port = f.src_port, f.dst_port
    ports = ports_of(a_port, b_port, f.protocol)
    h = hash_of(a_high, a_low, b_high, b_low, ports, seed)
    n = find_row(index, rows, h, a_high, a_low, b_high, b_low, ports)
    if n >= 0:
        r = rows[n]
        quiet = t - r.t_last
        opens = f.tcp == 1 and (f.tcp_flags & (SYN | ACK | RST)) == SYN
        # A SYN that repeats is the same connection's; one with another number, after a silence, is not.
        other = opens and ((r.seen[d] & HAS_START) == 0 or r.start[d] != np.uint32(f.seq + np.uint32(1)))
        if (opens and r.phase == ENDED) or (other and quiet >= limits.ended_linger):
            _export(r, END if r.phase == ENDED else FORCED, state[CLOCK], out)
            _open(r, t, d, f.vlan, state, out)
        elif quiet >= limits.idle and (r.protocol != _TCP or quiet >= limits.linger or opens):
            _export(r, IDLE, state[CLOCK], out)
            _open(r, t, d, f.vlan, state, out)
        elif quiet >= limits.idle:
            _export(r, IDLE, state[CLOCK], out)
        elif t - r.t_first >= limits.active:
            _export(r, ACTIVE, state[CLOCK], out)
        return n, d
    if state[FREED] == 0 and state[HIGH] == rows.size:
        _evict(rows, index, freed, state, seed, out)
    if state[FREED] > 0:
        state[FREED] -= 1
        n = np.int64(freed[state[FREED]])
    else:
        n = state[HIGH]
        state[HIGH] += 1
    r = rows[n]
    r.a_high = a_high
    r.a_low = a_low
    r.b_high = b_high
    r.b_low = b_low
    r.a_port = a_port
    r.b_port = b_port
    r.protocol = f.protocol
    _open(r, t, d, f.vlan, state, out)
    index_row(index, h, n)
    return n, d


@bare
def _count(r, d, t, f):
    """Count a frame into its row; payload only where it is new (RFC 9293 section 3.4)."""
    if r.packets[0] == 0 and r.packets[1] == 0:
        r.t_first = t
        r.t_last = max(r.t_last, t) if t > r.t_last - _BACK else t
    r.t_last = max(r.t_last, t)
    r.t_first = min(r.t_first, t)
    r.packets[d] += np.uint32(1)
    r.octets[d] += np.uint64(f.octets)
    r.tcp_flags[d] |= f.tcp_flags
    if r.life_packets < np.uint32(0xFFFFFFFF):
        r.life_packets += np.uint32(1)
    fresh = f.payload_wire
    if f.protocol == _TCP:
        fresh = np.int64(0)
        if f.tcp == 1:
            fresh = _sequence(r, d, f)
    if fresh > 0:
        r.payload_packets[d] += np.uint32(1)
        r.payload_octets[d] += np.uint64(fresh)
        if r.sized[d] < 8:
            r.sizes[d, r.sized[d]] = np.uint16(min(f.payload_wire, np.int64(0xFFFF)))
            r.sized[d] += np.uint8(1)


@bare
def _sequence(r, d, f):
    """Follow TCP's sequence numbers and its opening and closing.  Returns the new payload octets."""
    flags = f.tcp_flags
    first = f.seq
    if flags & SYN:
        first = np.uint32(f.seq + np.uint32(1))
        if (r.seen[d] & HAS_START) == 0:
            r.start[d] = first
            r.seen[d] |= np.uint8(HAS_START)
        if r.initiator == 0 and not flags & RST:
            opener = (1 - d) if flags & ACK else d
            r.initiator = np.uint8(opener + 1)
    after = np.uint32(first + np.uint32(f.payload_wire))
    fresh = f.payload_wire
    if r.seen[d] & HAS_SEQ:
        ahead = np.int64(np.int32(np.uint32(after - r.expect[d])))
        fresh = min(max(ahead, np.int64(0)), f.payload_wire)
    if (r.seen[d] & HAS_SEQ) == 0 or fresh > 0 or np.int32(np.uint32(after - r.expect[d])) > 0:
        r.expect[d] = after
        r.seen[d] |= np.uint8(HAS_SEQ)
    if flags & FIN:
        r.seen[d] |= np.uint8(HAS_FIN)
    if flags & RST or (r.seen[0] & r.seen[1] & HAS_FIN):
        r.phase = np.uint8(ENDED)
    elif fresh > 0 and r.phase == ENDED:
        r.phase = np.uint8(LIVE)  # whoever forged the RST did not end it
    return fresh


@bare
def meter(block, at, stop, rows, index, freed, state, seed, limits, tokens, out):
    """Take frames from number ``at`` to before ``stop``.  ``block`` is Block.columns.

    Returns the number of the first frame not taken: ``stop``, or less when an output is full.
    """
    data, offset, captured, length, t_ns, link = block
    f = out.frame[0]
    for i in range(at, stop):
        if out.filled[1] >= out.events.size:
            return i
        if not _tick(t_ns[i], rows, index, freed, state, seed, limits, out):
            return i
        out.counters[FRAMES] += 1
        out.counters[OCTETS] += np.int64(captured[i])
        refused = decode(data, offset[i], np.int64(captured[i]), np.int64(length[i]), np.int64(link[i]), f)
        if refused != 0:
            out.counters[REFUSED + refused] += 1
            continue
        out.counters[METERED] += 1
        n, d = _row_of(f, t_ns[i], rows, index, freed, state, seed, limits, out)
        r = rows[n]
        _count(r, d, t_ns[i], f)
        if f.tcp == 1:
            pick(data, f, r, d, t_ns[i], state[CLOCK], limits, tokens, out)
            if f.payload_wire > 0:
                r.seen[d] |= np.uint8(HAS_PAYLOAD)
    return stop


@bare
def flush(rows, index, freed, state, seed, out):
    """Export what is left, in the order of rows, and forget it.  False: ``exports`` is full, call again."""
    while state[HAND] < state[HIGH]:
        if out.filled[0] >= out.exports.size:
            return False
        if rows[state[HAND]].phase != FREE:
            r = rows[state[HAND]]
            _export(r, END if r.phase == ENDED else FORCED, state[CLOCK], out)
            forget_row(index, rows, freed, state, seed, state[HAND])
        state[HAND] += 1
    return True
