"""Chunks of one connection in, lines out: sequence numbers, gaps, acknowledgements, port reuse.

A track is plain values, so that a state record can carry it.  Direction 0 is low to high.
"""

from typing import Annotated

import msgspec

from collectors.streams import END, GAP, START
from detector import ledger
from detector.dialects.lines import MAX_LINE_BYTES, Assembler, Refusal
from detector.evidence import Address
from detector.kinship import MAX_KIN, Key, asks
from detector.ledger import FAR_BYTES, HALF, WRAP, Kin, Pending, Session, Side
from detector.transports import unwrapping
from detector.transports.unwrapping import Wrapping

TCP = 6
Ends = tuple[tuple[Address, int], tuple[Address, int], int, int]
"""Low end, high end, protocol, copy."""
NEVER = -(1 << 62)
PLAIN = frozenset({0, START})
"""Flags of a chunk of which nothing else is to be noted."""


class Chunk(msgspec.Struct, gc=False):
    """One row of PAYLOADS, without its ends."""

    t_ns: int
    offset: int
    seq: int
    ack: int
    flags: int
    data: bytes


class Direction(msgspec.Struct, array_like=True, gc=False):
    """One direction.  ``base`` is the sequence number of its first byte, where known; ``first`` that of the
    first byte seen, ``reached`` the next expected, ``ack`` the newest acknowledgement of the other direction;
    ``acked`` is set once the other direction acknowledged a byte that was seen; ``plain`` tells whether it
    began with a line, None where its start was not seen; ``wrap`` is what is around its lines."""

    lines: Assembler = msgspec.field(default_factory=Assembler)
    base: int | None = None
    first: int | None = None
    reached: int | None = None
    ack: int | None = None
    acked: bool = False
    ended: bool = False
    plain: bool | None = None
    wrap: Wrapping = msgspec.field(default_factory=Wrapping)


class Waiting(msgspec.Struct, array_like=True, gc=False):
    """A sight that needs both directions acknowledged, kept until they are; bounded by its key."""

    kind: Annotated[str, msgspec.Meta(pattern="^(mining_session|share_accepted|share_verified)$")]
    rule: str
    details: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    first_ns: int
    last_ns: int
    count: int


class Track(msgspec.Struct, array_like=True, gc=False):
    """One connection of one subscriber.  ``both_acked``: each direction acknowledged payload bytes of the
    other.  ``turned``: the client said more, knowing what the server said, which the body of a form does
    not.  ``touched`` is the number of the subscriber's row that came last, to find the longest silent."""

    opened: int
    first_ns: int
    last_ns: int
    session: Session = msgspec.field(default_factory=Session)
    sides: Annotated[list[Direction], msgspec.Meta(min_length=2, max_length=2)] = msgspec.field(
        default_factory=lambda: [Direction(), Direction()]
    )
    vetoed: Side | None = None
    gaps: bool = False
    waiting: list[Waiting] = []
    both_acked: bool = False
    turned: bool = False
    touched: int = 0


class Purses(msgspec.Struct, array_like=True, gc=False):
    """Of ``admission``, one subscriber's or all's: when each will be full again, and the newest time that was
    heard of.  A row that comes late, from a collector whose clock is behind, is taken as of then: it must not
    find both purses empty for as long as the clocks differ."""

    full_ns: Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)] = msgspec.field(
        default_factory=lambda: [NEVER, NEVER]
    )
    newest_ns: int = NEVER

    def spent(self) -> "Purses | None":
        """What a state record carries: nothing where both are full.  It shares its values."""
        return self if max(self.full_ns) > self.newest_ns else None


class State(msgspec.Struct, array_like=True, gc=False):
    """All that is known of one subscriber's connections, in plain values."""

    tracks: list[tuple[Ends, Track]] = []
    opened: list[tuple[Ends, tuple[int, int]]] = []
    purses: Purses | None = None
    kin: list[tuple[Key, Kin]] = []


class Book:
    """One subscriber's tracks; of each pair of ends the next opening number and when the last was given;
    the number of its rows; the purses that ``admission`` keeps for it; and what its connections over HTTP
    know of each other."""

    __slots__ = ("kin", "opened", "purses", "rows", "tracks")

    def __init__(self) -> None:
        self.rows = 0
        self.purses: Purses | None = None
        self.tracks: dict[Ends, Track] = {}
        self.opened: dict[Ends, tuple[int, int]] = {}
        self.kin: dict[Key, Kin] = {}

    def state(self) -> State:
        """What a state record carries.  It shares its values with the book."""
        tracks = [(ends, _named(track)) for ends, track in self.tracks.items()]
        return State(tracks, [*self.opened.items()], self.purses and self.purses.spent(), [*self.kin.items()])

    def restore(self, state: State, tracks: int, opened: int) -> None:
        """Take a state, at most so many of its tracks and opening numbers: the newest."""
        newest = sorted(state.tracks, key=lambda t: t[1].touched)[-tracks:] if tracks else []
        kept = {id(track) for _, track in newest}
        self.tracks.update((ends, _joined(track)) for ends, track in state.tracks if id(track) in kept)
        self.opened.update(state.opened[-opened:])
        self.purses = state.purses
        self.kin.update(state.kin[-MAX_KIN:])
        self.rows = max((track.touched for track in self.tracks.values()), default=0)


def _is_tabled(session: Session, request: Pending) -> bool:
    return request.known is not None and request.known is session.jobs.get(request.job)


def _named(track: Track) -> Track:
    """The track with requests that name jobs of the table rather than hold them: what happens to a job of
    the table must go on happening to theirs, and a job is long."""
    session, replace = track.session, msgspec.structs.replace
    if session.kin is not None:
        session = replace(session, kin=None)
        track = replace(track, session=session)
    if not any(_is_tabled(session, p) for p in session.pending):
        return track
    pending = [replace(p, known=None, tabled=True) if _is_tabled(session, p) else p for p in session.pending]
    return replace(track, session=replace(session, pending=pending))


def _joined(track: Track) -> Track:
    """The track that was named so, as it was."""
    for request in track.session.pending:
        if request.tabled:
            request.known, request.tabled = track.session.jobs.get(request.job), False
    return track


def is_new(track: Track, way: int, chunk: Chunk) -> bool:
    """Whether the chunk is of another connection than the track's, on the same ends: it begins anew, or
    jumps far."""
    side = track.sides[way]
    if chunk.seq == side.reached:
        return False  # even behind an end: then that was forged
    if not chunk.data:
        return False  # the numbers of a lone acknowledgement or RST need not fit the stream
    if chunk.flags & START and side.base is not None:
        return (chunk.seq - chunk.offset - side.base) & WRAP != 0
    if side.reached is None or side.first is None:
        return False
    if chunk.flags & START:  # of one that was joined in the middle: by another tap, or by one that restarted
        return (side.first - chunk.seq + chunk.offset) & WRAP > FAR_BYTES
    ahead = (chunk.seq - side.reached) & WRAP
    if side.ended:
        return ahead < WRAP + 1 - FAR_BYTES  # new bytes behind FIN or RST
    return FAR_BYTES < ahead < WRAP + 1 - FAR_BYTES


def is_web(track: Track, way: int) -> bool:
    """Whether the direction is one of HTTP, and not the answer to CONNECT."""
    return track.sides[way].lines.web and not track.sides[1 - way].lines.tunnel


def is_line(side: Direction, data: bytes) -> bool:
    """Whether ``data`` is one whole line, in a direction of plain lines with nothing begun: the usual, for
    which ``lines_of`` would say the same."""
    wrap, lines = side.wrap, side.lines
    if wrap.mode != unwrapping.PLAIN or wrap.held or lines.tail or lines.skipping:
        return False
    if not data.startswith(b"{") or data.find(b"\n") != len(data) - 1 or len(data) > MAX_LINE_BYTES:
        return False
    return _stays_plain(side)


def is_usual(side: Direction) -> bool:
    """Whether all that comes in a direction are its own plain lines, none begun: ``is_line`` holds for each
    that is one by itself, and none is quoted or around a body."""
    wrap, lines = side.wrap, side.lines
    if side.first is None or side.ended or wrap.mode != unwrapping.PLAIN or wrap.http is not None:
        return False
    if wrap.held or lines.tail or lines.skipping or lines.web or lines.quotes:
        return False
    return _stays_plain(side)


def is_framed(track: Track, way: int) -> bool:
    """Whether all that comes in a direction are frames of a WebSocket, none begun: one that is a message by
    itself, not compressed, is one line, none is quoted, and what was said when the WebSocket was asked for
    is noted, or will not be before somebody mines."""
    side = track.sides[way]
    wrap, lines = side.wrap, side.lines
    if wrap.mode != unwrapping.FRAMES or wrap.frames is None or wrap.held or side.first is None or side.ended:
        return False
    if lines.tail or lines.skipping or lines.web or lines.quotes or not wrap.frames.rests():
        return False
    user, agent = asks(wrap.http)
    return not user and (not agent or not track.session.shaped or agent in track.session.agents)


def is_packed(side: Direction) -> bool:
    """Whether all that comes in a direction is gzip, none begun: a member that is a line by itself is one,
    and none is quoted or around a body."""
    wrap, lines = side.wrap, side.lines
    if wrap.mode != unwrapping.GZIP or wrap.gunzip is None or wrap.held or wrap.http is not None:
        return False
    if side.first is None or side.ended or lines.tail or lines.skipping or lines.web or lines.quotes:
        return False
    return lines.begun and not lines.heads and not lines.last and wrap.gunzip.rests()


def is_posted(track: Track) -> bool:
    """Whether all that comes are messages of HTTP, none begun, on a connection of which its kin know."""
    for side in track.sides:
        wrap = side.wrap
        if wrap.mode != unwrapping.HTTP or wrap.http is None or wrap.held or side.first is None or side.ended:
            return False
        if not wrap.http.rests():
            return False
    return track.session.kin is not None and track.session.shaped


def _stays_plain(side: Direction) -> bool:
    """Where something came before the lines, it may still be HTTP or frames from here on."""
    lines = side.lines
    return (side.plain is not None and not lines.late) or (lines.read > 0 and side.wrap.frames is None)


def lines_of(
    track: Track, way: int, chunk: Chunk, data: bytes, refused: dict[str, int]
) -> list[unwrapping.Told]:
    """The lines of ``data``, the new bytes of a chunk: each with the offset behind it in ``data``."""
    side = track.sides[way]
    joined = side.plain is None or side.lines.late
    ends = bool(chunk.flags & END)
    return unwrapping.feed(
        side.wrap, track.sides[1 - way].wrap, side.lines, data, refused, joined=joined, ends=ends
    )


def is_sure(track: Track) -> bool:
    """Whether what the connection says may confirm: both acknowledged payload bytes of the other, and where
    something came unseen before (the header of a form), the client took its turn after the server's."""
    late = track.sides[0].lines.late or track.sides[1].lines.late
    return track.both_acked and (track.turned or not late)


def place(track: Track, way: int, chunk: Chunk, protocol: int, refused: dict[str, int]) -> bytes:
    """Take the chunk's numbers; gives the bytes of it that are new, "" for none."""
    side, data = track.sides[way], chunk.data
    in_order = track.both_acked and chunk.seq == side.reached and not side.ended
    if in_order and chunk.flags in PLAIN and protocol == TCP:
        side.reached = (chunk.seq + len(data)) & WRAP
        return data
    if chunk.flags & GAP and not (protocol == TCP and _told(side, chunk)):
        _lost(track, way, chunk, refused)
    if protocol == TCP:
        if data:
            data = _in_sequence(track, way, chunk, refused)
        _acknowledge(track, way, chunk)
    if chunk.flags & END:
        side.ended = True
    return data


def _told(side: Direction, chunk: Chunk) -> bool:
    """Whether what is missing before the chunk has come all the same, by another tap."""
    return side.reached is not None and (side.reached - chunk.seq) & WRAP < HALF


def _lost(track: Track, way: int, chunk: Chunk, refused: dict[str, int]) -> None:
    side = track.sides[way]
    track.gaps = True
    track.session.from_start = False
    ahead = said = 0
    if side.reached is not None and side.first is not None:
        ahead, said = (chunk.seq - side.reached) & WRAP, (side.reached - side.first) & WRAP
    ahead = ahead if ahead <= FAR_BYTES else 0
    ledger.lost(track.session, way, ahead, said)
    unwrapping.lost(side.wrap, ahead)
    if side.lines.gap():
        refused[Refusal.GAP] = refused.get(Refusal.GAP, 0) + 1


def _in_sequence(track: Track, way: int, chunk: Chunk, refused: dict[str, int]) -> bytes:
    """Cut what was there before (two taps, a replayed batch); note a hole that no flag told."""
    side, data = track.sides[way], chunk.data
    if chunk.flags & START:
        side.base = (chunk.seq - chunk.offset) & WRAP
    if side.first is None:
        # A side that was joined in the middle has lost what came before.
        track.gaps = track.gaps or not chunk.flags & START
        track.session.from_start = not track.gaps
        side.first = chunk.seq
        side.lines.late = bool(chunk.flags & START and chunk.offset)
    elif side.reached is not None:
        ahead = (chunk.seq - side.reached) & WRAP
        if ahead >= HALF:
            data = data[WRAP + 1 - ahead :]
        elif ahead and not chunk.flags & GAP:
            _lost(track, way, chunk, refused)
    if data:
        side.reached = (chunk.seq + len(chunk.data)) & WRAP
        side.ended = False
    return data


def _acknowledge(track: Track, way: int, chunk: Chunk) -> None:
    side, other = track.sides[way], track.sides[1 - way]
    # One that covers nothing gives way to any: else a forged one far ahead would hide all true ones.
    newer = side.ack is None or (chunk.ack - side.ack) & WRAP < HALF
    if newer or (other.first is not None and not covers(side.ack, other)):
        side.ack = chunk.ack
    if not other.acked:
        other.acked = covers(side.ack, other)
    if not side.acked:
        side.acked = covers(other.ack, side)
    track.both_acked = side.acked and other.acked


def covers(ack: int | None, side: Direction) -> bool:
    """Whether ``ack`` covers a byte of ``side`` that was seen, and nothing far beyond what was."""
    if ack is None or side.first is None or side.reached is None:
        return False
    if (ack - side.reached) & WRAP <= FAR_BYTES:
        return True
    return 0 < (ack - side.first) & WRAP <= (side.reached - side.first) & WRAP
