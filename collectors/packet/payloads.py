"""Reassembly of candidate connections: segments in, chunks of each direction in order out.

In order, once, within bounds: a segment that repeats is dropped, of overlapping copies the first wins, a
hole is waited for and then given up, and what follows it says GAP.  Sequence numbers wrap (RFC 9293
section 3.4).  Time is the data's.  Chunks are a function of the sequence of segments alone.
"""

import heapq
from collections import OrderedDict
from typing import Final, NamedTuple

import msgspec

from collectors.packet.frames import ACK, FIN, RST, SYN
from collectors.streams import ACK_ONLY, END, GAP, START

_MS: Final = 1_000_000
_SECOND: Final = 1000 * _MS
_UNUSUAL: Final = FIN | SYN | RST

# Why reassembly dropped something; also the value of the ``reason`` label.
REPEATED: Final = "repeated"  # octets that were there before
BEFORE: Final = "before"  # octets from before the place where we joined
GIVEN_UP: Final = "given_up"  # holes: nobody sent it again, or we missed it
BOUNDS: Final = "bounds"  # holes given up early, for want of room
AGED: Final = "aged"  # connections that fell silent
EVICTED: Final = "evicted"  # connections dropped for want of room
DROPS: Final = (REPEATED, BEFORE, GIVEN_UP, BOUNDS, AGED, EVICTED)


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What reassembly may hold, and for how long it waits."""

    max_connections: int = 16384
    max_segments: int = 64
    max_bytes: int = 65536
    max_bytes_in_all: int = 64 << 20
    hole_ms: int = 2000
    acknowledged_hole_ms: int = 200
    idle_s: int = 900


class Segment(NamedTuple):
    """One TCP segment of a candidate connection, from picking.EVENT.  Side A is the lower (address, port).

    ``known``: 1 when ``start``, the sequence number of the direction's first byte, is known; plus 2 when no
    payload of the direction came before.  ``clock`` is the newest stamp of any frame so far.
    """

    conn: int
    a_high: int
    a_low: int
    b_high: int
    b_low: int
    a_port: int
    b_port: int
    direction: int
    picked: int
    known: int
    tcp_flags: int
    seq: int
    ack: int
    start: int
    t: int
    clock: int
    data: bytes


class Chunk(NamedTuple):
    """One row of the ``payloads`` stream, without its owner.  ``src`` is the sender of the bytes."""

    src: bytes
    dst: bytes
    src_port: int
    dst_port: int
    t: int
    offset: int
    seq: int
    ack: int
    flags: int
    data: bytes


class _Piece(NamedTuple):
    """Bytes that wait for those before them; an end (FIN) waits as a piece without bytes."""

    offset: int
    data: bytes
    t: int
    ack: int
    fin: bool


class _Way:
    """One direction of a connection.  Offsets count from ``base``, the sequence number of offset 0."""

    __slots__ = (
        "acked", "acked_hole", "base", "ended", "gap", "held", "held_bytes", "hole", "known", "next",
        "published",
    )  # fmt: skip

    def __init__(self) -> None:
        self.base = -1  # until the first payload, or the handshake, tells
        self.known = False
        self.next = 0
        self.published = -1  # offset of the first byte published
        self.held: list[_Piece] = []  # sorted, disjoint
        self.held_bytes = 0
        self.hole = 0  # number of the hole being waited for; 0 none
        self.acked_hole = False
        self.gap = False
        self.acked = False  # this direction acknowledged published bytes of the other
        self.ended = False


class _Connection:
    __slots__ = ("ends", "key", "picked", "seen", "ways")

    def __init__(self, key: int, s: Segment) -> None:
        self.key = key
        self.picked = bool(s.picked)
        self.seen = s.clock
        self.ways = (_Way(), _Way())
        a = ((s.a_high << 64) | s.a_low).to_bytes(16, "big"), s.a_port
        b = ((s.b_high << 64) | s.b_low).to_bytes(16, "big"), s.b_port
        self.ends = ((a[0], b[0], a[1], b[1]), (b[0], a[0], b[1], a[1]))


class Reassembly:
    """All candidate connections.  ``feed`` and ``advance`` answer the chunks that are complete."""

    def __init__(self, bounds: Bounds) -> None:
        self.drops = dict.fromkeys(DROPS, 0)
        self._bounds = bounds
        # Tentative ones apart, so that a flood of them pushes no picked one out.
        self._tentative: OrderedDict[int, _Connection] = OrderedDict()
        self._picked: OrderedDict[int, _Connection] = OrderedDict()
        self._held = 0
        self._now = 0
        self._holes = 0
        self._aged = 0
        self._due: list[tuple[int, int, int, int]] = []  # deadline, hole, connection, direction
        self._out: list[Chunk] = []

    def __len__(self) -> int:
        return len(self._tentative) + len(self._picked)

    @property
    def held_bytes(self) -> int:
        """Octets that wait behind holes."""
        return self._held

    def feed(self, s: Segment) -> list[Chunk]:
        """Take one segment, in the order of packets.  Returns the chunks that it, or its time, completed."""
        if s.clock > self._now:
            self._tick(s.clock)
        c = self._connection(s)
        way, other = c.ways[s.direction], c.ways[1 - s.direction]
        if not self._plain(c, way, other, s):
            self._full(c, way, other, s)
        return self._drain()

    def _plain(self, c: _Connection, way: _Way, other: _Way, s: Segment) -> bool:
        """The common case, at a third of the cost: nothing waits, and the segment is next or is empty."""
        if s.tcp_flags & _UNUSUAL or way.held or other.held or way.base < 0 or not way.acked:
            return False
        if s.data:
            offset = way.next
            if s.seq != (way.base + offset) & 0xFFFFFFFF or way.gap or way.published < 0:
                return False
            way.next = offset + len(s.data)
            way.ended = False
            flags = START if way.known else 0
            self._out.append(Chunk(*c.ends[s.direction], s.t, offset, s.seq, s.ack, flags, s.data))
        return True

    def _full(self, c: _Connection, way: _Way, other: _Way, s: Segment) -> None:
        before = len(self._out)
        self._take(c, way, s)
        if way.base < 0 and s.known == 3:
            way.known, way.base = True, s.start  # no payload yet, but where it will begin
        if s.tcp_flags & ACK:
            self._acknowledge(c, other, s)
            self._first_ack(c, way, other, s, len(self._out) > before)
        if s.tcp_flags & RST:
            self._reset(c, way, s)

    def advance(self, clock: int) -> list[Chunk]:
        """Let time pass: give up the holes that fell due."""
        if clock > self._now:
            self._tick(clock)
        return self._drain()

    def finish(self) -> list[Chunk]:
        """The input is over: nothing will fill a hole any more."""
        for c in (*self._tentative.values(), *self._picked.values()):
            for d in range(2):
                self._give_up(c, d, GIVEN_UP, everything=True)
        self._tentative.clear()
        self._picked.clear()
        self._due.clear()
        return self._drain()

    def _drain(self) -> list[Chunk]:
        out, self._out = self._out, []
        return out

    # -- connections

    def _connection(self, s: Segment) -> _Connection:
        c = self._picked.get(s.conn)
        if c is not None:
            self._picked.move_to_end(s.conn)
        else:
            c = self._tentative.pop(s.conn, None) or self._new(s)
            c.picked = c.picked or bool(s.picked)
            (self._picked if c.picked else self._tentative)[s.conn] = c
        c.seen = self._now
        return c

    def _new(self, s: Segment) -> _Connection:
        if len(self) >= self._bounds.max_connections:
            _, oldest = (self._tentative or self._picked).popitem(last=False)
            self._forget(oldest, EVICTED)
        return _Connection(s.conn, s)

    def _forget(self, c: _Connection, why: str) -> None:
        self.drops[why] += 1
        for way in c.ways:
            self._held -= way.held_bytes
            way.held_bytes = 0
            way.held = []
            way.hole = 0

    # -- time

    def _tick(self, now: int) -> None:
        self._now = now
        while self._due and self._due[0][0] <= now:
            _, hole, key, d = heapq.heappop(self._due)
            c = self._picked.get(key) or self._tentative.get(key)
            if c is not None and c.ways[d].hole == hole:
                self._give_up(c, d, GIVEN_UP)
        # By whole seconds, so that it does not matter at which packet of a second this is asked.
        if now // _SECOND == self._aged:
            return
        self._aged = now // _SECOND
        limit = (self._aged - self._bounds.idle_s) * _SECOND
        for table in (self._tentative, self._picked):
            while table:
                c = next(iter(table.values()))
                if c.seen > limit:
                    break
                del table[c.key]
                self._forget(c, AGED)

    def _wait(self, c: _Connection, d: int, milliseconds: int) -> None:
        way = c.ways[d]
        heapq.heappush(self._due, (self._now + milliseconds * _MS, way.hole, c.key, d))

    # -- bytes

    def _take(self, c: _Connection, way: _Way, s: Segment) -> None:
        fin = bool(s.tcp_flags & FIN)
        if not s.data and not (fin and (way.base >= 0 or s.known & 1)):
            if fin:
                self._end(c, s.direction, s.t, way.next, s.seq, s.ack)
            return
        if way.base < 0:
            self._begin(way, s)
        # Signed distance modulo 2**32 from where we are.
        offset = way.next + ((s.seq - way.base - way.next + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        self._insert(way, offset, s)
        if fin and offset + len(s.data) >= way.next and not way.ended:
            way.held.append(_Piece(offset + len(s.data), b"", s.t, s.ack, True))
            way.held.sort(key=lambda p: (p.offset, p.fin))
        self._release(c, s.direction)
        self._bound(c, s.direction)

    def _begin(self, way: _Way, s: Segment) -> None:
        way.known = bool(s.known & 1)
        way.base = s.start if way.known else s.seq
        if way.known and not s.known & 2:
            # Bytes went by before anybody took this connection for a candidate.
            way.next = (s.seq - way.base) & 0xFFFFFFFF
            way.gap = way.next > 0

    def _insert(self, way: _Way, offset: int, s: Segment) -> None:
        """Hold what of the segment is new: not yet published, and in no piece that came before."""
        at, end = max(offset, way.next), offset + len(s.data)
        if at > offset:
            lost = min(at, end) - offset
            self.drops[REPEATED if way.published >= 0 and offset >= way.published else BEFORE] += lost
        pieces = []
        for piece in way.held:
            if at >= end:
                break
            if piece.offset > at:
                stop = min(piece.offset, end)
                pieces.append(_Piece(at, s.data[at - offset : stop - offset], s.t, s.ack, False))
                at = stop
            beyond = piece.offset + len(piece.data)
            if beyond > at:
                self.drops[REPEATED] += min(beyond, end) - at
                at = beyond
        if at < end:
            pieces.append(_Piece(at, s.data[at - offset :], s.t, s.ack, False))
        if pieces:
            size = sum(len(p.data) for p in pieces)
            way.held_bytes += size
            self._held += size
            way.held += pieces
            way.held.sort(key=lambda p: (p.offset, p.fin))

    def _release(self, c: _Connection, d: int) -> None:
        """Publish what is whole from ``next`` on; what then still waits, waits for a hole."""
        way = c.ways[d]
        n, fin = 0, False
        start = way.next
        while n < len(way.held) and way.held[n].offset <= way.next:
            piece = way.held[n]
            way.next = piece.offset + len(piece.data)
            fin = fin or piece.fin
            n += 1
        ready, way.held = way.held[:n], way.held[n:]
        if ready:
            size = way.next - start
            way.held_bytes -= size
            self._held -= size
            way.hole = 0
            last = max(ready, key=lambda p: p.t)
            if size:
                way.ended = False
                if way.published < 0:
                    way.published = start
            data = b"".join(p.data for p in ready)
            if size or (fin and not way.ended):
                self._emit(c, d, last.t, start, last.ack, END if fin else 0, data)
                way.ended = way.ended or fin
        if way.held and not way.hole:
            self._holes += 1
            way.hole = self._holes
            way.acked_hole = False
            self._wait(c, d, self._bounds.hole_ms)

    def _emit(self, c: _Connection, d: int, t: int, offset: int, ack: int, flags: int, data: bytes) -> None:
        way = c.ways[d]
        flags |= START if way.known else 0
        if way.gap and data:
            flags |= GAP
            way.gap = False
        seq = (way.base + offset) & 0xFFFFFFFF if way.base >= 0 else 0
        self._out.append(Chunk(*c.ends[d], t, offset, seq, ack, flags, data))

    def _give_up(self, c: _Connection, d: int, why: str, *, everything: bool = False) -> None:
        """Go on behind the hole; behind every hole if ``everything``."""
        way = c.ways[d]
        while way.held:
            self.drops[why] += 1
            way.next = way.held[0].offset
            way.gap = True
            self._release(c, d)
            if not everything:
                break

    def _bound(self, c: _Connection, d: int) -> None:
        way, bounds = c.ways[d], self._bounds
        while way.held and (
            len(way.held) > bounds.max_segments
            or way.held_bytes > bounds.max_bytes
            or self._held > bounds.max_bytes_in_all
        ):
            self._give_up(c, d, BOUNDS)

    # -- the other side's word

    def _acknowledge(self, c: _Connection, other: _Way, s: Segment) -> None:
        """The receiver has what we miss: it will not come again, unless it is on its way already."""
        if not other.held or other.acked_hole or other.base < 0:
            return
        ahead = (s.ack - other.base - other.held[0].offset) & 0xFFFFFFFF
        if ahead < 0x80000000:
            other.acked_hole = True
            self._wait(c, 1 - s.direction, self._bounds.acknowledged_hole_ms)

    def _first_ack(self, c: _Connection, way: _Way, other: _Way, s: Segment, told: bool) -> None:
        """Say once that this direction acknowledged bytes of the other that were published."""
        if way.acked or other.published < 0:
            return
        ahead = (s.ack - other.base - other.published) & 0xFFFFFFFF
        if not 0 < ahead < 0x80000000:
            return
        way.acked = True
        if not told:
            chunk = Chunk(*c.ends[s.direction], s.t, way.next, s.seq, s.ack, ACK_ONLY, b"")
            self._out.append(chunk._replace(flags=ACK_ONLY | (START if way.known else 0)))

    def _end(self, c: _Connection, d: int, t: int, offset: int, seq: int, ack: int) -> None:
        way = c.ways[d]
        if not way.ended:
            way.ended = True
            flags = END | (START if way.known else 0)
            self._out.append(Chunk(*c.ends[d], t, offset, seq, ack, flags, b""))

    def _reset(self, c: _Connection, way: _Way, s: Segment) -> None:
        self._give_up(c, s.direction, GIVEN_UP, everything=True)
        self._end(c, s.direction, s.t, way.next, s.seq, s.ack)
