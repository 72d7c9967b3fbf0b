"""Where segments of a candidate connection belong: pieces that wait, holes, chunks in order."""

import heapq
from bisect import bisect
from operator import ne
from typing import Final

from collectors.packet import ordered
from collectors.packet.frames import FIN
from collectors.packet.ordered import DUE, NOW
from collectors.packet.pages import Pages
from collectors.packet.segments import (
    BEFORE,
    BOUNDS,
    DIFFERED,
    DOUBTED,
    DROPS,
    GIVEN_UP,
    REPEATED,
    STRANGE,
    Bounds,
    Connection,
    Piece,
    Segment,
    Way,
)
from collectors.streams import END, GAP, START

_MS: Final = 1_000_000


def size_of(segments: list[Segment]) -> int:
    """Their octets."""
    return sum(len(s.data) for s in segments)


def _enter(held: list[Piece], piece: Piece) -> None:
    """Put a piece that overlaps no other among those that wait, one with its neighbours."""
    k = bisect(held, (piece.offset, piece.fin), key=lambda p: (p.offset, p.fin))
    held.insert(k, piece)
    for first in (k, k - 1):
        if 0 <= first < len(held) - 1:
            a, b = held[first], held[first + 1]
            if not a.fin and not b.fin and a.offset + len(a.data) == b.offset:
                t, ack = max((a.t, a.ack), (b.t, b.ack), key=lambda told: told[0])
                held[first : first + 2] = [Piece(a.offset, a.data + b.data, t, ack, False)]


class Placing:
    """Segments in, one at a time, and their octets on ``pages``, in order.  What else they say is told to
    ``payloads.Reassembly``."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._drops = dict.fromkeys(DROPS, 0)
        self._tables = ordered.tables(bounds.max_connections)
        self._state = self._tables.state
        self._held = 0
        self._rivals = 0  # octets that may be the stream, or strange
        self._holes = 0
        self._due: list[tuple[int, int, int, int]] = []  # deadline, hole, connection, direction
        self.pages = Pages()

    def _write(self, c: Connection, d: int, chunk: tuple[int, ...], data: bytes) -> None:
        """Put a chunk, (t, offset, seq, ack, flags), on the page."""
        r, src, dst = c.row, "ab"[d], "ba"[d]
        *told, flags = chunk
        ports = r[f"{src}_port"], r[f"{dst}_port"]
        ends = r[f"{src}_high"], r[f"{src}_low"], r[f"{dst}_high"], r[f"{dst}_low"]
        flags |= START if c.ways[d].known else 0
        self.pages.write((*ends, *told, *ports, flags), data)

    def _end(self, c: Connection, d: int, t: int, offset: int, seq: int, ack: int) -> None:
        way = c.ways[d]
        if not way.ended:
            way.ended = 1
            self._write(c, d, (t, offset, seq, ack, END), b"")

    def _wait(self, c: Connection, d: int, milliseconds: int, number: int = 0) -> None:
        deadline = int(self._state[NOW]) + milliseconds * _MS
        heapq.heappush(self._due, (deadline, number or c.ways[d].hole, c.conn, d))
        self._state[DUE] = self._due[0][0]

    def _take(self, c: Connection, way: Way, s: Segment) -> None:
        """Put a segment where it belongs."""
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
        self._drop_doubted(way, [r for r in way.doubted if way.place_of(r.seq) + len(r.data) <= way.next])

    def _stray(self, c: Connection, way: Way, s: Segment) -> None:
        """A segment at another place than the stream's; enough of them, and the stream is there.  Until then
        it is not counted as strange: a count never goes down."""
        before = size_of(way.rivals)
        enough = bool(s.data) and way.rival(s)
        kept = size_of(way.rivals)
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
        size = size_of(way.rivals)
        self._rivals -= size
        self._drops[STRANGE] += size
        way.rivals = []

    def _compare(self, taken: bytes, left: bytes) -> None:
        """Count the octets that two copies have in common as dropped, where they differ apart."""
        size = min(len(taken), len(left))
        differ = 0 if taken[:size] == left[:size] else sum(map(ne, taken, left))
        self._drops[DIFFERED] += differ
        self._drops[REPEATED] += size - differ

    def _yield(self, way: Way, at: int, data: bytes) -> None:
        """Drop of what waits the octets that come in order: a receiver takes these, whatever came early (most
        stacks do; RFC 9293 section 3.10.7.4 leaves it open)."""
        end, held = at + len(data), way.held
        while held and held[0].offset < end and not held[0].fin:
            piece = held.pop(0)
            self._compare(data[piece.offset - at :], piece.data)
            common = min(len(piece.data), end - piece.offset)
            way.held_bytes -= common
            self._held -= common
            if common < len(piece.data):
                held.insert(0, piece._replace(offset=end, data=piece.data[common:]))
                break

    def _insert(self, way: Way, offset: int, s: Segment) -> None:
        """Hold what of the segment is new: not yet published, and in no piece that came before."""
        at, end = max(offset, way.next), offset + len(s.data)
        if at > offset:
            lost = min(at, end) - offset
            self._drops[REPEATED if way.published >= 0 and offset >= way.published else BEFORE] += lost
        pieces = []
        if offset <= way.next:
            self._yield(way, at, s.data[at - offset :])
        for piece in way.held:
            if at >= end:
                break
            if piece.offset > at:
                stop = min(piece.offset, end)
                pieces.append(Piece(at, s.data[at - offset : stop - offset], s.t, s.ack, False))
                at = stop
            beyond = piece.offset + len(piece.data)
            if beyond > at:
                self._compare(piece.data[at - piece.offset :], s.data[at - offset :])
                at = beyond
        if at < end:
            pieces.append(Piece(at, s.data[at - offset :], s.t, s.ack, False))
        for piece in pieces:
            way.held_bytes += len(piece.data)
            self._held += len(piece.data)
            _enter(way.held, piece)

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
            way.asked = False
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
            if way.held[0].fin and not way.acked_hole:
                # Nobody says that something is missing before it: forged, or there is nothing to go on with.
                fin = way.held.pop(0)
                way.hole = 0
                self._end(c, d, fin.t, way.next, (way.base + way.next) & 0xFFFFFFFF, fin.ack)
                continue
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
            if not way.denied:
                self._give_up(c, d, BOUNDS)
                continue
            piece = way.held.pop()  # the farthest: what comes next is what the receiver asks for
            self._drops[BOUNDS] += 1
            way.held_bytes -= len(piece.data)
            self._held -= len(piece.data)
            way.hole = way.hole if way.held else 0

    def _drop_doubted(self, way: Way, segments: list[Segment]) -> None:
        for s in [*segments]:
            way.doubted.remove(s)
            self._rivals -= len(s.data)
            self._drops[DOUBTED] += len(s.data)
