"""Reassembly of candidate connections: segments in, chunks of each direction in order out, on pages.

In order, once, within bounds: a segment that repeats is dropped, of overlapping copies the first wins, a
hole is waited for and then given up, and what follows it says GAP.  Sequence numbers wrap (RFC 9293
section 3.4).  Time is the data's.  Chunks are a function of the sequence of segments alone.

Nearly all segments are the next of their direction: ``ordered.assemble`` takes those.  ``take`` can take any,
and is what is meant.
"""

import heapq
from typing import Final

import numpy as np

from collectors.packet import ordered
from collectors.packet.frames import ACK, FIN, RST
from collectors.packet.ordered import AGED as SECOND_AGED
from collectors.packet.ordered import COUNT, DUE, EVICTIONS, FIRST, HOLDS, KEPT, NEVER, NOW
from collectors.packet.pages import Pages
from collectors.packet.segments import Bounds, Connection, Piece, Segment, Way
from collectors.streams import ACK_ONLY, END, GAP, START

_MS: Final = 1_000_000
_SECOND: Final = 1000 * _MS
# A hole that the receiver asks for is waited for so many times more.
_DENIALS: Final = 8

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
    """All candidate connections.  ``run``, ``advance`` and ``finish`` fill ``pages``."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._drops = dict.fromkeys(DROPS, 0)
        self._tables = ordered.tables(bounds.max_connections)
        self._state = self._tables.state
        self._kept: dict[int, Connection] = {}  # by ``conn``: of these the arrays do not say all
        self._held = 0
        self._rivals = 0  # octets that may be the stream, or strange
        self._holes = 0
        self._due: list[tuple[int, int, int, int]] = []  # deadline, hole, connection, direction
        self.pages = Pages()

    def __len__(self) -> int:
        return int(self._state[COUNT])

    @property
    def drops(self) -> dict[str, int]:
        """What was dropped so far, by reason."""
        evicted = self._drops[EVICTED] + int(self._state[EVICTIONS])
        return {**self._drops, EVICTED: evicted}

    @property
    def held_bytes(self) -> int:
        """Octets that wait: behind holes, or for it to show whether they are the stream."""
        return self._held + self._rivals

    def run(self, events: np.ndarray, data: np.ndarray) -> None:
        """Take EVENT records in the order of packets; ``data`` (u1) holds their bytes."""
        i = 0
        while True:
            i = ordered.assemble(events, i, data, self._tables, self.pages.open, self._bounds.idle_s)
            if i >= events.size:
                return
            if not self.pages.turn(int(events[i]["size"])):
                self.take(events, i, data)
                i += 1

    def take(self, events: np.ndarray, i: int, data: np.ndarray) -> None:
        """Take one event, whatever it is."""
        *told, at, size = events[i].item()
        s = Segment._make((*told, data[at : at + size].tobytes()))
        if s.clock > self._state[NOW]:
            self._tick(s.clock)
        c = self._connection(events, i, s.conn)
        way, other = c.ways[s.direction], c.ways[1 - s.direction]
        if s.tcp_flags & ACK:
            other.last_ack = s.ack
        before = self.pages.waiting
        self._take(c, way, s)
        if way.base < 0 and s.known == 3:
            way.known, way.base = 1, s.start  # no payload yet, but where it will begin
        if s.tcp_flags & ACK:
            self._acknowledge(c, other, s)
            self._first_ack(c, way, other, s, self.pages.waiting > before)
        if s.tcp_flags & RST:
            self._reset(c, way, s)
        self._settle(c)

    def advance(self, clock: int) -> None:
        """Let time pass: give up the holes that fell due."""
        if clock > self._state[NOW]:
            self._tick(clock)

    def finish(self) -> None:
        """The input is over: nothing will fill a hole any more."""
        for first in (FIRST, FIRST + 1):
            n = int(self._state[first])
            while n >= 0:
                row = self._tables.places[n]
                c = self._kept.pop(int(row["conn"]), None)
                if c is not None:
                    for d in range(2):
                        self._give_up(c, d, GIVEN_UP, everything=True)
                        self._give_up_rivals(c.ways[d])
                n = int(self._tables.order[n, 1])
        self._due.clear()
        self._tables = ordered.tables(self._bounds.max_connections)
        self._tables.state[[NOW, SECOND_AGED, EVICTIONS]] = self._state[[NOW, SECOND_AGED, EVICTIONS]]
        self._state = self._tables.state

    def _write(self, c: Connection, d: int, chunk: tuple[int, ...], data: bytes) -> None:
        """Put a chunk, (t, offset, seq, ack, flags), on the page."""
        r, src, dst = c.row, "ab"[d], "ba"[d]
        *told, flags = chunk
        ports = r[f"{src}_port"], r[f"{dst}_port"]
        ends = r[f"{src}_high"], r[f"{src}_low"], r[f"{dst}_high"], r[f"{dst}_low"]
        flags |= START if c.ways[d].known else 0
        self.pages.write((*ends, *told, *ports, flags), data)

    # -- connections

    def _connection(self, events: np.ndarray, i: int, conn: int) -> Connection:
        place = ordered.join_one(events, i, self._tables)
        while place < 0:
            self._forget(ordered.oldest(self._tables), EVICTED)
            place = ordered.join_one(events, i, self._tables)
        return self._kept.get(conn) or Connection(self._tables.places[place], place)

    def _settle(self, c: Connection) -> None:
        """Keep of a connection what the arrays do not have, and say so there."""
        if all(way.plain for way in c.ways):
            self._kept.pop(c.conn, None)
            c.row["kept"] = 0
        else:
            self._kept[c.conn] = c
            c.row["kept"] = KEPT | (HOLDS if any(way.held for way in c.ways) else 0)

    def _forget(self, place: int, why: str) -> None:
        self._drops[why] += 1
        c = self._kept.pop(int(self._tables.places[place]["conn"]), None)
        for way in c.ways if c else ():
            self._give_up_rivals(way)
            self._held -= way.held_bytes
        ordered.forget(place, self._tables)

    # -- time

    def _tick(self, now: int) -> None:
        self._state[NOW] = now
        while self._due and self._due[0][0] <= now:
            _, hole, conn, d = heapq.heappop(self._due)
            c = self._kept.get(conn)
            if c is not None and c.ways[d].hole == hole:
                self._fall_due(c, d)
                self._settle(c)
        self._state[DUE] = self._due[0][0] if self._due else NEVER
        # By whole seconds, so that it does not matter at which packet of a second this is asked.
        if now // _SECOND == self._state[SECOND_AGED]:
            return
        self._state[SECOND_AGED] = now // _SECOND
        limit = (now // _SECOND - self._bounds.idle_s) * _SECOND
        for first in (FIRST, FIRST + 1):
            while self._state[first] >= 0 and self._tables.places[self._state[first]]["seen"] <= limit:
                self._forget(int(self._state[first]), AGED)

    def _fall_due(self, c: Connection, d: int) -> None:
        """A hole was waited for.  If the receiver asks for it, it is to come, or what follows is forged."""
        way = c.ways[d]
        if not way.acked_hole and 0 < way.denials <= _DENIALS:
            way.denials += 1
            self._wait(c, d, self._bounds.hole_ms)
        else:
            self._give_up(c, d, GIVEN_UP)

    def _wait(self, c: Connection, d: int, milliseconds: int) -> None:
        deadline = int(self._state[NOW]) + milliseconds * _MS
        heapq.heappush(self._due, (deadline, c.ways[d].hole, c.conn, d))
        self._state[DUE] = self._due[0][0]

    # -- bytes

    def _take(self, c: Connection, way: Way, s: Segment) -> None:
        fin = bool(s.tcp_flags & FIN)
        if not s.data and not (fin and (way.base >= 0 or s.known & 1)):
            if fin:
                self._end(c, s.direction, s.t, way.next, s.seq, s.ack)
            return
        if way.base < 0:
            ordered.begin_one(self._tables, c.place, s.direction, s.seq, s.start, s.known)
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
        self._drops[STRANGE] += before + len(s.data) - kept
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
            way.gap = 1
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
        self._drops[STRANGE] += size
        way.rivals = []

    def _insert(self, way: Way, offset: int, s: Segment) -> None:
        """Hold what of the segment is new: not yet published, and in no piece that came before."""
        at, end = max(offset, way.next), offset + len(s.data)
        if at > offset:
            lost = min(at, end) - offset
            self._drops[REPEATED if way.published >= 0 and offset >= way.published else BEFORE] += lost
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
                self._drops[REPEATED] += min(beyond, end) - at
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
                way.ended = 0
                if way.published < 0:
                    way.published = start
            data = b"".join(p.data for p in ready)
            if size or (fin and not way.ended):
                self._emit(c, d, last.t, start, last.ack, END if fin else 0, data)
                way.ended = int(way.ended or fin)
        if way.held and not way.hole:
            self._holes += 1
            way.hole = self._holes
            way.acked_hole = False
            way.denials = 0
            self._wait(c, d, self._bounds.hole_ms)

    def _emit(self, c: Connection, d: int, t: int, offset: int, ack: int, flags: int, data: bytes) -> None:
        way = c.ways[d]
        if way.gap and data:
            flags |= GAP
            way.gap = 0
        seq = (way.base + offset) & 0xFFFFFFFF if way.base >= 0 else 0
        self._write(c, d, (t, offset, seq, ack, flags), data)

    def _give_up(self, c: Connection, d: int, why: str, *, everything: bool = False) -> None:
        """Go on behind the hole; behind every hole if ``everything``."""
        way = c.ways[d]
        while way.held:
            self._drops[why] += 1
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
        way.acked = 1
        if not told:
            self._write(c, s.direction, (s.t, way.next, s.seq, s.ack, ACK_ONLY), b"")

    def _end(self, c: Connection, d: int, t: int, offset: int, seq: int, ack: int) -> None:
        way = c.ways[d]
        if not way.ended:
            way.ended = 1
            self._write(c, d, (t, offset, seq, ack, END), b"")

    def _reset(self, c: Connection, way: Way, s: Segment) -> None:
        self._give_up(c, s.direction, GIVEN_UP, everything=True)
        self._end(c, s.direction, s.t, way.next, s.seq, s.ack)
