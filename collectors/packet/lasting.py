"""What mining behind encryption is known by: when the server pushes, and how long TLS records are.

Kept for connections older than a minute, in a table of its own of fixed capacity.  A *push* is payload from
the server after SILENCE_NS without payload either way: nobody asked for it.  What follows within less is the
same push, or an answer, so no two are nearer than that, which is more than the 350 ms within which pushes
are to be merged.  The server is the end that did not open the connection; where that is not known, the end
with the lower port.  Records are followed from header to header (RFC 8446 section 5.1) through segments with
new payload; behind a hole the next segment that begins with a header is where it goes on.

Times are kept as steps from the push before, rounded down to 1/64 at the worst, so a push is told early by
less than that part of its own step; the first one is exact.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.frames import SYN
from collectors.packet.links import be16

AFTER_NS: Final = 60_000_000_000
SILENCE_NS: Final = 500_000_000
MINUTE_NS: Final = 60_000_000_000
# A row that heard no payload for so long may be given to another connection.
IDLE_NS: Final = 120_000_000_000
MAX_PUSHES: Final = 64
PUSHES_A_MINUTE: Final = 8
# Longest TLSCiphertext.length of each class of records but the last.
BOUNDS: Final = (64, 96, 128, 320, 640, 2048)
CLASSES: Final = len(BOUNDS) + 1
# More than any version allows (RFC 5246 section 6.2.3 has 2048 octets beyond the plaintext's 2**14).
MAX_RECORD: Final = 16384 + 2048

LASTING: Final = np.dtype(
    [
        ("t_push", "i8"),            # newest push as it is told; NONE before the first
        ("t_payload", "i8"),         # newest payload either way
        ("steps", "u8", (10,)),      # of ten bits each, the newest lowest: _step_of
        ("next", "u4", (2,)),        # sequence number of the header octet that is to come
        ("records", "u2", (2, CLASSES)),
        ("head", "u1", (2,)),        # octets of that header read, or 4 plus the upper octet of its length
        ("pushes", "u1"), ("spare", "u1"),
    ]
)  # fmt: skip
NONE: Final = np.iinfo(np.int64).min
# ROW.lasting of a connection that found no room, until its next record.
REFUSED: Final = 0xFFFFFFFF
LOST: Final = 255

# Places in ``state``; the upper ones are counted as OUTCOMES.
FREED: Final = 0
HIGH: Final = 1
HAND: Final = 2
OPENED: Final = 3
EVICTED: Final = 4
NO_ROOM: Final = 5
OVER: Final = 6
STRAYED: Final = 7
OUTCOMES: Final = ("opened", "evicted", "no_room", "pushes_over", "records_lost")

_UNIT_NS: Final = SILENCE_NS >> 6
_MANTISSA: Final = 6
_MAX_STEP: Final = 1023
_LOOKED_AT: Final = 16
_BACK_NS: Final = 10_000_000_000
_APPLICATION: Final = 23
_COUNT_MAX: Final = 0xFFFF


class Lasting(NamedTuple):
    """``rows`` (n,) LASTING, ``owner`` (n,) u4 the row of the flow table that each is of, ``freed`` (n,) u4 a
    stack, ``state`` (8,) i8."""

    rows: np.ndarray
    owner: np.ndarray
    freed: np.ndarray
    state: np.ndarray


def lasting(slots: int) -> Lasting:
    """An empty table for so many connections."""
    return Lasting(
        np.zeros(slots, LASTING),
        np.zeros(slots, np.uint32),
        np.zeros(slots, np.uint32),
        np.zeros(8, np.int64),
    )


@kernel
def release(r, table):
    """Give back what belongs to row ``r`` (table.ROW) of the flow table, if anything."""
    if r.lasting not in (0, REFUSED):
        table.freed[table.state[FREED]] = r.lasting - np.uint32(1)
        table.state[FREED] += 1
    r.lasting = np.uint32(0)


@kernel
def _begin(e, t):
    e.t_push = NONE
    e.t_payload = t
    e.pushes = np.uint8(0)
    for k in range(10):
        e.steps[k] = np.uint64(0)
    for d in range(2):
        e.head[d] = np.uint8(LOST)
        e.next[d] = np.uint32(0)
        for k in range(CLASSES):
            e.records[d, k] = np.uint16(0)


@kernel
def _join(r, n, rows, t, table):
    """Find room for row ``n`` of the flow table: a free place, or that of somebody who fell silent."""
    state = table.state
    if state[FREED] > 0:
        state[FREED] -= 1
        k = np.int64(table.freed[state[FREED]])
    elif state[HIGH] < table.rows.size:
        k = state[HIGH]
        state[HIGH] += 1
    else:
        k = np.int64(-1)
        for _ in range(min(_LOOKED_AT, table.rows.size)):
            hand = state[HAND]
            state[HAND] = hand + 1 if hand + 1 < table.rows.size else 0
            quiet = t - table.rows[hand].t_payload
            if quiet >= IDLE_NS and (k < 0 or quiet > t - table.rows[k].t_payload):
                k = hand
        if k < 0:
            state[NO_ROOM] += 1
            r.lasting = np.uint32(REFUSED)
            return
        state[EVICTED] += 1
        rows[np.int64(table.owner[k])].lasting = np.uint32(REFUSED)
    state[OPENED] += 1
    table.owner[k] = np.uint32(n)
    r.lasting = np.uint32(k + 1)
    _begin(table.rows[k], t)


@kernel
def step_of(gap):
    """A gap of SILENCE_NS or more in ten bits: four of exponent, six of mantissa, rounded down."""
    units = gap // _UNIT_NS
    exponent = np.int64(0)
    while units >= 128:
        units >>= 1
        exponent += 1
    if exponent > 15:
        return np.int64(_MAX_STEP)
    return (exponent << _MANTISSA) | max(np.int64(0), units - 64)


@kernel
def gap_of(step):
    """The gap that a step stands for, in ns."""
    return (np.int64(64) + (step & 63)) * _UNIT_NS << (step >> _MANTISSA)


@kernel
def _newest(e, k):
    """Step number ``k`` from the newest, of the first twelve."""
    word, bit = (k * 10) >> 6, (k * 10) & 63
    value = e.steps[word] >> np.uint64(bit)
    if bit > 54:
        value |= e.steps[word + 1] << np.uint64(64 - bit)
    return np.int64(value & np.uint64(1023))


@kernel
def _push(e, t, table):
    if e.t_push == NONE:
        e.t_push = t
        e.pushes = np.uint8(1)
        return
    gap = t - e.t_push
    if e.pushes >= PUSHES_A_MINUTE:
        since = gap
        for k in range(PUSHES_A_MINUTE - 1):
            since += gap_of(_newest(e, k))
        if since < MINUTE_NS:
            table.state[OVER] += 1
            return
    step = step_of(gap)
    for k in range(9, 0, -1):
        e.steps[k] = (e.steps[k] << np.uint64(10)) | (e.steps[k - 1] >> np.uint64(54))
    e.steps[0] = (e.steps[0] << np.uint64(10)) | np.uint64(step)
    e.t_push += gap_of(step)
    if e.pushes < MAX_PUSHES:
        e.pushes += np.uint8(1)


@kernel
def _class_of(length):
    if length <= 128:
        return np.int64(0) if length <= 64 else np.int64(1) if length <= 96 else np.int64(2)
    if length <= 640:
        return np.int64(3) if length <= 320 else np.int64(4)
    return np.int64(5) if length <= 2048 else np.int64(6)


@kernel
def _like_record(data, at):
    """Do five octets that are there begin a record of application data?"""
    if data[at] != _APPLICATION or data[at + 1] != 3 or data[at + 2] == 0 or data[at + 2] > 4:
        return False
    return 0 < be16(data, at + 3) <= MAX_RECORD


@kernel
def _header(data, f, e, d, at):
    """Read on in a header from octet ``at`` of the payload: the octet after it, or after the payload that
    was captured.  ``head`` is LOST where this is no header of application data."""
    while at < f.payload:
        byte = np.int64(data[f.payload_at + at])
        k = np.int64(e.head[d])
        at += 1
        if k >= 4:
            length = ((k - 4) << 8) | byte
            e.head[d] = np.uint8(0)
            if length == 0 or length > MAX_RECORD:
                break
            kind = _class_of(length)
            if e.records[d, kind] < _COUNT_MAX:
                e.records[d, kind] += np.uint16(1)
            return at + length
        if k == 3:
            if byte > MAX_RECORD >> 8:
                break
            e.head[d] = np.uint8(4 + byte)
        elif (k == 0 and byte == _APPLICATION) or (k == 1 and byte == 3) or (k == 2 and 1 <= byte <= 4):
            e.head[d] = np.uint8(k + 1)
        else:
            break
    else:
        return at
    e.head[d] = np.uint8(LOST)
    return at


@kernel
def _walk(data, f, e, d, table):
    """Count the records of application data whose headers end in this segment."""
    first = f.seq
    if f.tcp_flags & SYN:
        first = np.uint32(f.seq + np.uint32(1))
    at = np.int64(np.int32(np.uint32(e.next[d] - first)))
    if e.head[d] != LOST and (at < 0 or at > MAX_RECORD):
        e.head[d] = np.uint8(LOST)  # a hole, and the header in it
        table.state[STRAYED] += 1
    if e.head[d] == LOST:
        if f.payload < 5 or not _like_record(data, f.payload_at):
            return
        e.head[d] = np.uint8(0)
        at = np.int64(0)
    while at < f.payload:
        at = _header(data, f, e, d, at)
        if e.head[d] == LOST:
            table.state[STRAYED] += 1
            return
    e.next[d] = np.uint32(first + np.uint32(at))


@kernel
def _server(r):
    """The direction of what the server sends."""
    if r.initiator != 0:
        return np.int64(2) - np.int64(r.initiator)
    if r.a_port != r.b_port:
        return np.int64(0) if r.a_port < r.b_port else np.int64(1)
    return np.int64(1) - np.int64(r.sender)


@kernel
def note(data, f, r, n, d, t, rows, table):
    """Take a packet with new payload of row ``n`` of the flow table, ``rows``, a minute or more after its
    connection began."""
    if r.lasting == REFUSED:
        return
    if r.lasting == 0:
        _join(r, n, rows, t, table)
        if r.lasting == REFUSED:
            return
        e = table.rows[np.int64(r.lasting) - 1]
    else:
        e = table.rows[np.int64(r.lasting) - 1]
        quiet = t - e.t_payload
        if quiet >= SILENCE_NS and d == _server(r):
            _push(e, t, table)
        elif quiet < -_BACK_NS:  # another clock: what was noted by the old one has no place in it
            e.t_payload = t
            e.t_push = NONE
            e.pushes = np.uint8(0)
        e.t_payload = max(e.t_payload, t)
    if f.tcp == 1:
        _walk(data, f, e, d, table)


def pushes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(offsets (n + 1,) i4, times i8 in ns, oldest first) of the pushes of (n,) LASTING."""
    count = rows["pushes"].astype(np.int64)
    offsets = np.zeros(rows.size + 1, np.int32)
    np.cumsum(count, out=offsets[1:])
    some = np.flatnonzero(count)
    steps = np.zeros((some.size, MAX_PUSHES), np.int64)  # newest first; the first is the newest's own
    words = rows["steps"][some]
    for k in range(int(count.max(initial=1)) - 1):
        word, bit = divmod(10 * k, 64)
        value = words[:, word] >> np.uint64(bit)
        if bit > 54:
            value = value | words[:, word + 1] << np.uint64(64 - bit)
        step = (value & np.uint64(1023)).astype(np.int64)
        steps[:, k + 1] = (64 + (step & 63)) * _UNIT_NS << (step >> _MANTISSA)
    times = rows["t_push"][some, None] - np.cumsum(steps, axis=1)
    there = np.arange(MAX_PUSHES) < count[some, None]
    return offsets, times[:, ::-1][there[:, ::-1]]


def records(rows: np.ndarray, d: np.ndarray, have: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(offsets, counts u4): CLASSES numbers of direction ``d`` (n,) where ``have``, else none."""
    offsets = np.zeros(rows.size + 1, np.int32)
    np.cumsum(np.where(have, CLASSES, 0), out=offsets[1:])
    some = np.flatnonzero(have)
    return offsets, rows["records"][some, d[some]].astype(np.uint32).reshape(-1)
