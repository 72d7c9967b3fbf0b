"""Reassembly of candidate connections: segments in, chunks of each direction in order out, on pages.

In order, once, within bounds: a segment that repeats is dropped, of overlapping copies the first wins unless
it is doubted (``doubts``), a hole is waited for and then given up, and what follows it says GAP.  Sequence
numbers wrap (RFC 9293 section 3.4).  Time is the data's.  Chunks are a function of the sequence of segments
alone.

Nearly all segments are the next of their direction: ``ordered.assemble`` takes those.  ``take`` can take any,
and is what is meant.
"""

import heapq
from typing import Final

import numpy as np

from collectors.packet import doubts, ordered
from collectors.packet.frames import ACK, FIN, RST
from collectors.packet.ordered import AGED as SECOND_AGED
from collectors.packet.ordered import (
    BEFORES,
    COUNT,
    DUE,
    EVICTIONS,
    FIRST,
    HOLDS,
    KEPT,
    NEVER,
    NOW,
    REFUSED_ENDS,
    REPEATS,
)
from collectors.packet.placing import Placing, size_of
from collectors.packet.segments import (
    AGED,
    BEFORE,
    ENDS,
    EVICTED,
    GIVEN_UP,
    REPEATED,
    Bounds,
    Connection,
    Segment,
    Way,
)
from collectors.streams import ACK_ONLY

_MS: Final = 1_000_000
_SECOND: Final = 1000 * _MS
# What the arrays count too.
_COUNTED: Final = ((EVICTED, EVICTIONS), (ENDS, REFUSED_ENDS), (REPEATED, REPEATS), (BEFORE, BEFORES))


def _overlap(a: Segment, b: Segment) -> bool:
    """Have two segments of one direction octets in common?"""
    ahead = (b.seq - a.seq + 0x80000000 & 0xFFFFFFFF) - 0x80000000
    return -len(b.data) < ahead < len(a.data)


class Reassembly(Placing):
    """All candidate connections.  ``run``, ``advance`` and ``finish`` fill ``pages``."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds)
        self._kept: dict[int, Connection] = {}  # by ``conn``: of these the arrays do not say all

    def __len__(self) -> int:
        return int(self._state[COUNT])

    @property
    def drops(self) -> dict[str, int]:
        """What was dropped so far, by reason."""
        told = dict(self._drops)
        for why, place in _COUNTED:
            told[why] += int(self._state[place])
        return told

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
        reasons = doubts.doubted_one(events, i, self._tables, c.place)
        if reasons and (s.data or s.tcp_flags & (FIN | RST)):
            self._doubt(c, way, s._replace(doubt=reasons))
            self._settle(c)
            return
        if s.tcp_flags & ACK:
            other.last_ack = s.ack
            if other.doubted and not reasons:
                self._believe(c, 1 - s.direction, s.ack)
        before = self.pages.waiting
        self._take(c, way, s)
        if not reasons:
            doubts.learn_one(events, i, self._tables, c.place)
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
                        self._stop_doubting(c, d)
                    for d in range(2):
                        self._give_up(c, d, GIVEN_UP, everything=True)
                        self._give_up_rivals(c.ways[d])
                n = int(self._tables.order[n, 1])
        self._due.clear()
        self._tables = ordered.tables(self._bounds.max_connections)
        kept = [NOW, SECOND_AGED, *(place for _, place in _COUNTED)]
        self._tables.state[kept] = self._state[kept]
        self._state = self._tables.state

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
            c.row["kept"] = KEPT | (HOLDS if any(way.waits for way in c.ways) else 0)

    def _forget(self, place: int, why: str) -> None:
        self._drops[why] += 1
        c = self._kept.pop(int(self._tables.places[place]["conn"]), None)
        for way in c.ways if c else ():
            self._give_up_rivals(way)
            self._drop_doubted(way, way.doubted)
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
            elif c is not None and c.ways[d].doubt == hole:
                self._stop_doubting(c, d)
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
        if way.denied:
            self._wait(c, d, self._bounds.hole_ms)
        else:
            self._give_up(c, d, GIVEN_UP)

    # -- the other side's word

    def _acknowledge(self, c: Connection, other: Way, s: Segment) -> None:
        """The receiver has what we miss: it will not come again, unless it is on its way already."""
        if not other.held or other.acked_hole or other.base < 0:
            return
        ahead = (s.ack - other.base - other.held[0].offset) & 0xFFFFFFFF
        if ahead >= 0x80000000:
            other.asked = True
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

    def _reset(self, c: Connection, way: Way, s: Segment) -> None:
        if not way.ends_at((s.seq + len(s.data)) & 0xFFFFFFFF):
            self._state[REFUSED_ENDS] += 1
            return
        self._give_up(c, s.direction, GIVEN_UP, everything=True)
        self._end(c, s.direction, s.t, way.next, s.seq, s.ack)

    # -- what is doubted

    def _doubt(self, c: Connection, way: Way, s: Segment) -> None:
        """Put a segment aside; its ``doubt`` says why."""
        if s.tcp_flags & (FIN | RST):
            self._state[REFUSED_ENDS] += 1
        if not s.data:
            return
        way.doubted.append(s)
        self._rivals += len(s.data)
        if way.base >= 0 and way.place_of(s.seq) + len(s.data) <= way.next:
            self._drop_doubted(way, [s])
        elif len(way.doubted) > doubts.MAX_DOUBTED or size_of(way.doubted) > self._bounds.max_bytes:
            self._drop_doubted(way, way.doubted[:1])
        elif self._rivals > self._bounds.max_bytes_in_all:
            self._drop_doubted(way, way.doubted)
        if way.doubted and not way.doubt:
            self._holes += 1
            way.doubt = self._holes
            self._wait(c, s.direction, self._bounds.hole_ms, way.doubt)

    def _believe(self, c: Connection, d: int, ack: int) -> None:
        """The receiver has what was doubted, and nobody sent anything else in its place: take it."""
        self._accept(c, c.ways[d], doubts.covered(c.ways[d].doubted, ack))

    def _accept(self, c: Connection, way: Way, taken: list[Segment]) -> None:
        for s in taken:
            way.doubted.remove(s)
            self._rivals -= len(s.data)
        for s in taken:
            if s.tcp_flags & ACK and c.ways[1 - s.direction].doubted:
                self._believe(c, 1 - s.direction, s.ack)  # what it answers comes before it
        if taken and way.base < 0:
            s = doubts.earliest(taken)
            ordered.begin_one(self._tables, c.place, s.direction, s.seq, s.start, s.known)
        for s in doubts.ranked(taken):
            if s.tcp_flags & ACK:
                c.ways[1 - s.direction].last_ack = s.ack
            before = way.next + way.held_bytes
            self._take(c, way, s)
            if way.next + way.held_bytes != before:
                way.loose |= s.doubt & doubts.LOOSE
                way.ttl = s.ttl if s.doubt & doubts.LOW_TTL else way.ttl
                way.stamp = s.stamp if s.doubt & doubts.OLD else way.stamp

    def _stop_doubting(self, c: Connection, d: int) -> None:
        """The wait is over.  A receiver that is not heard may well have taken it.  One that is did not,
        unless its words are doubted too: where a route changed, or addresses were altered, all are."""
        way = c.ways[d]
        way.doubt = 0
        taken = [s for side in range(2) for s in self._said_to_be_there(c, side)]
        if way.last_ack < 0:
            taken = [*way.doubted, *(s for s in taken if s.direction != d)]
        chosen = set(taken)
        for s in sorted(taken, key=lambda s: s.t):
            said = c.ways[s.direction]
            if s in said.doubted:
                self._accept(c, said, [x for x in said.doubted if _overlap(x, s) and x in chosen])
        self._drop_doubted(way, way.doubted)

    def _said_to_be_there(self, c: Connection, d: int) -> list[Segment]:
        """Of what is doubted that which its receiver acknowledges, be it in words that are doubted."""
        way, said = c.ways[d], c.ways[1 - d].doubted
        acks = {s.ack for s in said if s.tcp_flags & ACK and not s.doubt & doubts.FAR_ACK}
        acks |= {way.last_ack} - {-1}
        there = (doubts.covered(way.doubted, ack) for ack in sorted(acks))
        return [*dict.fromkeys(s for found in there for s in found)]
