"""Reassembly of candidate connections: segments in, chunks of each direction in order out.

In order, once, within bounds: a segment that repeats is dropped, of overlapping copies the first wins, a
hole is waited for and then given up, and what follows it says GAP.  Sequence numbers wrap (RFC 9293
section 3.4).  Time is the data's.  Chunks are a function of the sequence of segments alone.
"""

import heapq
from collections import OrderedDict
from typing import Final

import numpy as np

from collectors.packet.frames import ACK, FIN, RST, SYN
from collectors.packet.segments import WINDOW, Bounds, Chunk, Connection, Piece, Segment, Way
from collectors.streams import ACK_ONLY, END, GAP, START

_MS: Final = 1_000_000
_SECOND: Final = 1000 * _MS
# A hole that the receiver asks for is waited for so many times more.
_DENIALS: Final = 8
_UNUSUAL: Final = FIN | SYN | RST

# Why reassembly dropped something; also the value of the ``reason`` label.
REPEATED: Final = "repeated"  # octets that were there before
BEFORE: Final = "before"  # octets from before the place where we joined
GIVEN_UP: Final = "given_up"  # holes: nobody sent it again, or we missed it
STRANGE: Final = "strange"  # octets no receiver would take, or that were given up before they came
BOUNDS: Final = "bounds"  # holes given up early, for want of room
AGED: Final = "aged"  # connections that fell silent
EVICTED: Final = "evicted"  # connections dropped for want of room
DROPS: Final = (REPEATED, BEFORE, GIVEN_UP, STRANGE, BOUNDS, AGED, EVICTED)


def _size(segments: list[Segment]) -> int:
    return sum(len(s.data) for s in segments)


class Reassembly:
    """All candidate connections.  ``feed`` and ``advance`` answer the chunks that are complete."""

    def __init__(self, bounds: Bounds) -> None:
        self.drops = dict.fromkeys(DROPS, 0)
        self._bounds = bounds
        # Tentative ones apart, so that a flood of them pushes no picked one out.
        self._tentative: OrderedDict[int, Connection] = OrderedDict()
        self._picked: OrderedDict[int, Connection] = OrderedDict()
        self._held = 0
        self._rivals = 0  # octets that may be the stream, or strange
        self._now = 0
        self._holes = 0
        self._aged = 0
        self._due: list[tuple[int, int, int, int]] = []  # deadline, hole, connection, direction
        self._out: list[Chunk] = []

    def __len__(self) -> int:
        return len(self._tentative) + len(self._picked)

    @property
    def held_bytes(self) -> int:
        """Octets that wait: behind holes, or for it to show whether they are the stream."""
        return self._held + self._rivals

    def feed(self, s: Segment) -> list[Chunk]:
        """Take one segment, in the order of packets.  Returns the chunks that it, or its time, completed."""
        self._one(s)
        return self._drain()

    def run(self, events: list[tuple[int, ...]], data: np.ndarray) -> list[Chunk]:
        """``feed`` for many: each a Segment with (at, size) in ``data`` (u1) for its bytes.

        Most segments of a long session are the next in order, or empty.  Those are dealt with here, at a
        third of the cost; the answer is the same.
        """
        picked, out = self._picked, self._out
        for event in events:
            at, size = event[-2:]
            # Time first: it may be this very connection that was silent for too long.
            if event[15] > self._now:
                self._tick(event[15])
            c = picked.get(event[0])
            if c is None or event[10] & _UNUSUAL or event[15] < self._now:
                self._one(Segment._make((*event[:-2], data[at : at + size].tobytes())))
                continue
            d, seq = event[7], event[11]
            way, offset = c.ways[d], c.ways[d].next
            if (
                way.held
                or c.ways[1 - d].held
                or not way.acked
                or way.gap
                or (size and (way.published < 0 or seq != (way.base + offset) & 0xFFFFFFFF))
            ):
                self._one(Segment._make((*event[:-2], data[at : at + size].tobytes())))
                continue
            picked.move_to_end(event[0])
            c.seen = self._now
            if event[10] & ACK:
                c.ways[1 - d].last_ack = event[12]
            if size:
                way.next = offset + size
                way.ended = False
                flags = START if way.known else 0
                body = data[at : at + size].tobytes()
                out.append(Chunk(*c.ends[d], event[14], offset, seq, event[12], flags, body))
        return self._drain()

    def _one(self, s: Segment) -> None:
        if s.clock > self._now:
            self._tick(s.clock)
        c = self._connection(s)
        way, other = c.ways[s.direction], c.ways[1 - s.direction]
        if s.tcp_flags & ACK:
            other.last_ack = s.ack
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
                self._give_up_rivals(c.ways[d])
        self._tentative.clear()
        self._picked.clear()
        self._due.clear()
        return self._drain()

    def _drain(self) -> list[Chunk]:
        out = self._out[:]
        self._out.clear()
        return out

    # -- connections

    def _connection(self, s: Segment) -> Connection:
        c = self._picked.get(s.conn)
        if c is not None:
            self._picked.move_to_end(s.conn)
        else:
            c = self._tentative.pop(s.conn, None) or self._new(s)
            c.picked = c.picked or bool(s.picked)
            (self._picked if c.picked else self._tentative)[s.conn] = c
        c.seen = self._now
        return c

    def _new(self, s: Segment) -> Connection:
        if len(self) >= self._bounds.max_connections:
            _, oldest = (self._tentative or self._picked).popitem(last=False)
            self._forget(oldest, EVICTED)
        return Connection(s.conn, s)

    def _forget(self, c: Connection, why: str) -> None:
        self.drops[why] += 1
        for way in c.ways:
            self._give_up_rivals(way)
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
                self._fall_due(c, d)
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

    def _fall_due(self, c: Connection, d: int) -> None:
        """A hole was waited for.  If the receiver asks for it, it is to come, or what follows is forged."""
        way = c.ways[d]
        if not way.acked_hole and 0 < way.denials <= _DENIALS:
            way.denials += 1
            self._wait(c, d, self._bounds.hole_ms)
        else:
            self._give_up(c, d, GIVEN_UP)

    def _wait(self, c: Connection, d: int, milliseconds: int) -> None:
        way = c.ways[d]
        heapq.heappush(self._due, (self._now + milliseconds * _MS, way.hole, c.key, d))

    # -- bytes

    def _take(self, c: Connection, way: Way, s: Segment) -> None:
        fin = bool(s.tcp_flags & FIN)
        if not s.data and not (fin and (way.base >= 0 or s.known & 1)):
            if fin:
                self._end(c, s.direction, s.t, way.next, s.seq, s.ack)
            return
        if way.base < 0:
            self._begin(way, s)
        offset = way.place_of(s.seq)
        if way.strange(offset):
            self._stray(c, way, s)
            return
        self._insert(way, offset, s)
        if fin and offset + len(s.data) >= way.next and not way.ended:
            way.held.append(Piece(offset + len(s.data), b"", s.t, s.ack, True))
            way.held.sort(key=lambda p: (p.offset, p.fin))
        self._release(c, s.direction)
        self._bound(c, s.direction)

    def _stray(self, c: Connection, way: Way, s: Segment) -> None:
        """A segment at another place than the stream's; enough of them, and the stream is there.  Until then
        it is not counted as strange: a count never goes down."""
        before = _size(way.rivals)
        enough = bool(s.data) and way.rival(s)
        kept = _size(way.rivals)
        self._rivals += kept - before
        self.drops[STRANGE] += before + len(s.data) - kept
        if not enough:
            if kept > self._bounds.max_bytes or self._rivals > self._bounds.max_bytes_in_all:
                self._give_up_rivals(way)
            return
        self._give_up(c, s.direction, GIVEN_UP, everything=True)
        first, offset = way.rivals[0], way.place_of(way.rivals[0].seq)
        if offset > way.next:
            way.skip(offset)
        else:
            # Offsets only grow: what went before was not of this stream.
            way.base = (first.seq - way.next) & 0xFFFFFFFF
            way.published = -1 if way.published < 0 else way.next
            way.skipped = []
            way.gap = True
        rivals, way.rivals = way.rivals, []
        self._rivals -= kept
        for rival in rivals:
            self._insert(way, way.place_of(rival.seq), rival)
        self._release(c, s.direction)
        self._bound(c, s.direction)

    def _give_up_rivals(self, way: Way) -> None:
        """What was strange stays so."""
        size = _size(way.rivals)
        self._rivals -= size
        self.drops[STRANGE] += size
        way.rivals = []

    def _begin(self, way: Way, s: Segment) -> None:
        way.known = bool(s.known & 1)
        way.base = s.start if way.known else s.seq
        if way.known and not s.known & 2:
            # Bytes went by before anybody took this connection for a candidate.
            way.next = (s.seq - way.base) & 0xFFFFFFFF
            way.gap = way.next > 0
        # Joined in the middle: if it was by a forged segment, the stream is elsewhere.
        way.skipped = [(0 if way.known else -WINDOW, way.next)]

    def _insert(self, way: Way, offset: int, s: Segment) -> None:
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
                pieces.append(Piece(at, s.data[at - offset : stop - offset], s.t, s.ack, False))
                at = stop
            beyond = piece.offset + len(piece.data)
            if beyond > at:
                self.drops[REPEATED] += min(beyond, end) - at
                at = beyond
        if at < end:
            pieces.append(Piece(at, s.data[at - offset :], s.t, s.ack, False))
        if pieces:
            size = sum(len(p.data) for p in pieces)
            way.held_bytes += size
            self._held += size
            way.held += pieces
            way.held.sort(key=lambda p: (p.offset, p.fin))

    def _release(self, c: Connection, d: int) -> None:
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
            way.denials = 0
            self._wait(c, d, self._bounds.hole_ms)

    def _emit(self, c: Connection, d: int, t: int, offset: int, ack: int, flags: int, data: bytes) -> None:
        way = c.ways[d]
        flags |= START if way.known else 0
        if way.gap and data:
            flags |= GAP
            way.gap = False
        seq = (way.base + offset) & 0xFFFFFFFF if way.base >= 0 else 0
        self._out.append(Chunk(*c.ends[d], t, offset, seq, ack, flags, data))

    def _give_up(self, c: Connection, d: int, why: str, *, everything: bool = False) -> None:
        """Go on behind the hole; behind every hole if ``everything``."""
        way = c.ways[d]
        while way.held:
            self.drops[why] += 1
            way.skip(way.held[0].offset)
            self._release(c, d)
            if not everything:
                break

    def _bound(self, c: Connection, d: int) -> None:
        way, bounds = c.ways[d], self._bounds
        while way.held and (
            len(way.held) > bounds.max_segments
            or way.held_bytes > bounds.max_bytes
            or self._held > bounds.max_bytes_in_all
        ):
            self._give_up(c, d, BOUNDS)

    # -- the other side's word

    def _acknowledge(self, c: Connection, other: Way, s: Segment) -> None:
        """The receiver has what we miss: it will not come again, unless it is on its way already."""
        if not other.held or other.acked_hole or other.base < 0:
            return
        ahead = (s.ack - other.base - other.held[0].offset) & 0xFFFFFFFF
        if ahead >= 0x80000000:
            other.denials = other.denials or 1
        else:
            other.acked_hole = True
            self._wait(c, 1 - s.direction, self._bounds.acknowledged_hole_ms)

    def _first_ack(self, c: Connection, way: Way, other: Way, s: Segment, told: bool) -> None:
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

    def _end(self, c: Connection, d: int, t: int, offset: int, seq: int, ack: int) -> None:
        way = c.ways[d]
        if not way.ended:
            way.ended = True
            flags = END | (START if way.known else 0)
            self._out.append(Chunk(*c.ends[d], t, offset, seq, ack, flags, b""))

    def _reset(self, c: Connection, way: Way, s: Segment) -> None:
        self._give_up(c, s.direction, GIVEN_UP, everything=True)
        self._end(c, s.direction, s.t, way.next, s.seq, s.ack)
