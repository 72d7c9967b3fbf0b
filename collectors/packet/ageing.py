"""How rows leave the table: records on the active and the idle timeout, at the end, or for want of room.

A hand goes round the rows as the data's time goes on, once a second and a few rows a frame, so that there is
no stop to sweep.  What is written, and when, is a function of the sequence of frames.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel
from collectors.jit import within
from collectors.packet import lasting
from collectors.packet.fragments import Pieces, pieces
from collectors.packet.frames import FRAME
from collectors.packet.heads import AMPLE
from collectors.packet.lasting import LASTING, Lasting, release
from collectors.packet.lasting import REFUSED as NO_PLACE
from collectors.packet.naming import NAMED
from collectors.packet.picking import EVENT
from collectors.packet.table import (
    CLOCK,
    DEBT,
    ENDED,
    EVICT_HAND,
    FREE,
    HAND,
    HIGH,
    PICKED,
    ROW,
    WARY,
    forget_row,
)
from collectors.packet.vias import Vias, vias

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
SKIPPED: Final = 10  # segments not searched to their end: too many near misses on their connection
STEPS: Final = 11  # places in payload that were looked at one by one
PUT_OFF: Final = 12  # segments of connections that carriers make tentative, while there is no room for more
NOT_TAKEN: Final = 13  # segments whose payload no end point takes; a place for each of UNTAKEN
REFUSED: Final = 16
COUNTERS: Final = 32

# Why: without ACK; of a RST; of a SYN inside a connection.
UNTAKEN: Final = ("no_ack", "reset", "syn")
# Rows that one frame ages at most: nobody waits for a sweep.
_STEPS: Final = 512
_LOOKED_AT: Final = 16
TCP: Final = 6
SECOND: Final = 1_000_000_000
# Data time that goes back further than this is another clock, not reordering.
BACK: Final = 10 * SECOND
NEVER: Final = np.iinfo(np.int64).max
# Free places that one frame may need in the two outputs, beyond what ageing writes.
EXPORTS_A_FRAME: Final = 6  # two, and as many of each packet that a fragment makes whole


# Frames that are decoded before the first of them is counted, while memory comes.
AHEAD: Final = 16


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
    """``exports`` (n,) ROW, ``exported`` (n,) i8 when each was written, ``lasted`` (n,) LASTING what was kept
    of those that lasted; ``events`` (m,) EVENT, ``named`` (k,) NAMED; ``counters`` (COUNTERS,) i8, ``filled``
    (3,) i8 counts exports, events and named; ``frame`` (AHEAD,) FRAME, ``joined`` and ``name`` u1 are
    scratch.  ``pieces`` are fragments, ``vias`` how connections came, ``lasting`` is kept of those older than
    a minute."""

    exports: np.ndarray
    exported: np.ndarray
    lasted: np.ndarray
    events: np.ndarray
    named: np.ndarray
    counters: np.ndarray
    frame: np.ndarray
    joined: np.ndarray
    name: np.ndarray
    filled: np.ndarray
    pieces: Pieces
    vias: Vias
    lasting: Lasting


class Leaving(NamedTuple):
    """What of Outputs a kernel needs that exports.  Every array that is handed over costs seven numbers."""

    exports: np.ndarray
    exported: np.ndarray
    lasted: np.ndarray
    counters: np.ndarray
    filled: np.ndarray
    lasting: Lasting


class Picks(NamedTuple):
    """What ``picking.pick`` needs of Outputs."""

    events: np.ndarray
    counters: np.ndarray
    joined: np.ndarray
    filled: np.ndarray


class Names(NamedTuple):
    """What ``naming.name`` needs of Outputs."""

    named: np.ndarray
    name: np.ndarray
    filled: np.ndarray


def outputs(
    exports: int, events: int, named: int, packets: int = 1024, lasting_slots: int = 1 << 12
) -> Outputs:
    """Empty outputs of the given sizes; room for fragments of so many packets, and for so many connections
    that last."""
    return Outputs(
        np.zeros(exports, ROW),
        np.zeros(exports, np.int64),
        np.zeros(exports, LASTING),
        np.zeros(events, EVENT),
        np.zeros(named, NAMED),
        np.zeros(COUNTERS, np.int64),
        np.zeros(AHEAD, FRAME),
        np.zeros(1024, np.uint8),  # carriers.UNMASKED, and what one look reads beyond
        np.zeros(256, np.uint8),
        np.zeros(3, np.int64),
        pieces(packets),
        vias(),
        lasting.lasting(lasting_slots),
    )


@within
def leaving_of(out):
    """The part of Outputs that a kernel needs that exports."""
    return Leaving(out.exports, out.exported, out.lasted, out.counters, out.filled, out.lasting)


@kernel
def export(r, reason, clock, out):
    """Write a record of what was counted since the last, if anything, and start counting anew."""
    if r.packets[0] == 0 and r.packets[1] == 0:
        return
    r.end_reason = np.uint8(reason)
    k = out.filled[0]
    out.exported[k] = max(clock, r.t_last)
    out.exports[k] = r
    if r.lasting == NO_PLACE:
        out.exports[k].lasting = np.uint32(0)
        r.lasting = np.uint32(0)  # there may be room by now
    elif r.lasting != 0:
        out.lasted[k] = out.lasting.rows[np.int64(r.lasting) - 1]
    out.filled[0] += 1
    for d in range(2):
        r.octets[d] = np.uint64(0)
        r.packets[d] = np.uint32(0)
        r.payload_octets[d] = np.uint64(0)
        r.payload_packets[d] = np.uint32(0)
        r.tcp_flags[d] = np.uint16(0)
    # A candidate's budget is one of a record's time, not of its life.
    if r.candidate == PICKED or (r.carried[0] | r.carried[1]) & AMPLE:
        r.passed_on = np.uint32(0)
    r.attempts = np.uint16(0)


@kernel
def rewind(r, t, clock, out):
    """The stamps went back by more than reordering explains: the connection goes on in another record.

    One wrong stamp would otherwise make a record of hours, or of a row that never falls silent.
    """
    export(r, FORCED, clock, out)
    release(r, out.lasting)
    r.t_last = t
    r.t_open = min(r.t_open, t)


@kernel
def due_of(r, limits):
    """When a row needs to be looked at again, unless a packet comes."""
    counted = r.packets[0] > 0 or r.packets[1] > 0
    due = r.t_last + (limits.idle if counted or r.protocol != TCP else limits.linger)
    if counted:
        due = min(due, r.t_first + limits.active)
    if r.phase == ENDED and (counted or r.candidate != PICKED):
        due = min(due, r.t_last + limits.ended_linger)
    return due


@kernel
def _age(table, n, limits, out):
    rows, entries, freed, state, seed, due = table
    r = rows[n]
    if r.phase == FREE:
        due[n] = NEVER
        return
    clock = state[CLOCK]
    quiet = clock - r.t_last
    if r.phase == ENDED and quiet >= limits.ended_linger:
        export(r, END, clock, out)
        # Whoever forged the end of a candidate shall not have what follows read as somebody else's.
        if r.candidate != PICKED or quiet >= limits.linger:
            release(r, out.lasting)
            forget_row(entries, rows, freed, state, seed, n)
    elif quiet >= limits.idle:
        export(r, IDLE, clock, out)
        if r.protocol != TCP or quiet >= limits.linger:
            release(r, out.lasting)
            forget_row(entries, rows, freed, state, seed, n)
    elif quiet < -BACK:
        rewind(r, clock, clock, out)
    elif clock - r.t_first >= limits.active:
        export(r, ACTIVE, clock, out)
    due[n] = NEVER if r.phase == FREE else due_of(r, limits)


@within
def advance(t, state):
    """Move the clock to ``t``.  Returns how many rows are to be aged: the whole table once a second of data
    time, at most _STEPS rows a frame."""
    if t > state[CLOCK]:
        state[DEBT] += min(t - state[CLOCK], SECOND) * min(state[HIGH], 1 << 30)
        state[DEBT] = min(state[DEBT], state[HIGH] * SECOND)
        state[CLOCK] = t
    elif t < state[CLOCK] - BACK:
        # If it is one wrong stamp, no row shall be judged by it.
        state[DEBT] = 0
        state[WARY] = max(state[WARY], state[HIGH])
        state[CLOCK] = t
    if state[DEBT] < SECOND:
        return np.int64(0)
    return min(state[DEBT] // SECOND, np.int64(_STEPS))


@within
def sweep(steps, table, limits, out):
    """Age so many rows, those that fell due; ``out`` (Leaving) has room for as many.

    Of most rows nothing is read but when they are due: packets put that off, and seldom bring it nearer.
    """
    state, due = table.state, table.due
    state[DEBT] -= steps * SECOND
    hand = state[HAND]
    for _ in range(steps):
        if hand >= state[HIGH]:
            hand = np.int64(0)
        if state[WARY] > 0:
            state[WARY] -= 1
            _age(table, hand, limits, out)
        elif due[hand] <= state[CLOCK]:
            _age(table, hand, limits, out)
        hand += 1
    state[HAND] = hand


@kernel
def tick(t, table, limits, out):
    """Let time pass where no frame comes.  False: ``exports`` is full, call again with the same ``t``."""
    steps = advance(t, table.state)
    if out.filled[0] + steps + EXPORTS_A_FRAME > out.exports.size:
        return False
    if steps > 0:
        sweep(steps, table, limits, leaving_of(out))
    return True


@kernel
def _worth(r, clock):
    """What a row is worth keeping: candidates most, then those that lasted; then who spoke last."""
    if r.phase == ENDED and r.candidate != PICKED:
        return np.int64(0)
    quiet = min(max(np.int64(0), (clock - r.t_last) >> 20), np.int64(1) << 30)
    rank = np.int64(1)
    if r.candidate == PICKED:
        rank = np.int64(4 if r.phase != ENDED else 1)
    elif r.life_packets > 1:
        rank = np.int64(2) if clock - r.t_open < 10 * SECOND else np.int64(3)
    return (rank << 32) - quiet


@kernel
def evict(table, out):
    """Make room: of some rows in turn, the one that is worth least."""
    rows, entries, freed, state, seed, _ = table
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
    export(r, RESOURCES, state[CLOCK], out)
    release(r, out.lasting)
    forget_row(entries, rows, freed, state, seed, worst)
