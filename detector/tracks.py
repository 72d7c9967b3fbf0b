"""Chunks of one connection in, lines out: sequence numbers, gaps, acknowledgements, port reuse.

A track is plain values, so that a state record can carry it.  Direction 0 is low to high.
"""

import msgspec

from collectors.streams import END, GAP, START
from detector.dialects.lines import Assembler, Refusal
from detector.ledger import HALF, WRAP, Session

TCP = 6
FAR_BYTES = 1 << 24
"""A jump beyond this within one direction is another connection on the same ends: miners say little."""


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


class Direction(msgspec.Struct):
    """One direction.  ``base`` is the sequence number of offset 0; ``first`` that of the first byte seen,
    ``reached`` the next expected, ``ack`` the newest acknowledgement of the other direction; ``acked`` is
    set once the other direction acknowledged a byte that was seen; ``plain`` tells whether it began with a
    line, None where its start was not seen."""

    lines: Assembler = msgspec.field(default_factory=Assembler)
    base: int | None = None
    first: int | None = None
    reached: int | None = None
    ack: int | None = None
    acked: bool = False
    ended: bool = False
    plain: bool | None = None


class Waiting(msgspec.Struct):
    """A sight that needs both directions acknowledged, kept until they are; bounded by its key."""

    kind: str
    rule: str
    details: tuple[str, ...]
    first_ns: int
    last_ns: int
    count: int


class Track(msgspec.Struct):
    """One connection of one subscriber.  ``both_acked``: each direction acknowledged payload bytes of the
    other.  ``touched`` is the number of the subscriber's row that came last, to find the longest silent."""

    opened: int
    first_ns: int
    last_ns: int
    session: Session = msgspec.field(default_factory=Session)
    sides: list[Direction] = msgspec.field(default_factory=lambda: [Direction(), Direction()])
    vetoed: int | None = None
    gaps: bool = False
    waiting: list[Waiting] = []
    both_acked: bool = False
    touched: int = 0


def is_new(track: Track, way: int, chunk: Chunk) -> bool:
    """Whether the chunk is of another connection than the track's, on the same ends."""
    side = track.sides[way]
    if chunk.seq == side.reached and not side.ended:
        return False
    if not chunk.data:
        return False  # the numbers of a lone acknowledgement or RST need not fit the stream
    if chunk.flags & START and side.base is not None:
        return (chunk.seq - chunk.offset - side.base) & WRAP != 0
    if side.reached is None:
        return False
    ahead = (chunk.seq - side.reached) & WRAP
    if side.ended:
        return ahead < HALF  # new bytes behind FIN or RST
    return FAR_BYTES < ahead < WRAP + 1 - FAR_BYTES


def place(track: Track, way: int, chunk: Chunk, protocol: int, refused: dict[str, int]) -> bytes:
    """Take the chunk's numbers; gives the bytes of it that are new, "" for none."""
    side, data = track.sides[way], chunk.data
    if track.both_acked and chunk.seq == side.reached and chunk.flags in PLAIN and protocol == TCP:
        side.reached = (chunk.seq + len(data)) & WRAP
        return data
    if chunk.flags & GAP:
        _lost(track, side, refused)
    if protocol == TCP:
        if data:
            data = _in_sequence(track, side, chunk, refused)
        _acknowledge(track, way, chunk)
    if chunk.flags & END:
        side.ended = True
    return data


def _lost(track: Track, side: Direction, refused: dict[str, int]) -> None:
    track.gaps = True
    track.session.from_start = False
    if side.lines.gap():
        refused[Refusal.GAP] = refused.get(Refusal.GAP, 0) + 1


def _in_sequence(track: Track, side: Direction, chunk: Chunk, refused: dict[str, int]) -> bytes:
    """Cut what was there before (two taps, a replayed batch); note a hole that no flag told."""
    data = chunk.data
    if side.base is None or chunk.flags & START:
        side.base = (chunk.seq - chunk.offset) & WRAP
    if chunk.flags & START and not track.gaps:
        track.session.from_start = True
    if side.first is None:
        side.first = chunk.seq
    elif side.reached is not None:
        ahead = (chunk.seq - side.reached) & WRAP
        if ahead >= HALF:
            data = data[WRAP + 1 - ahead :]
        elif ahead and not chunk.flags & GAP:
            _lost(track, side, refused)
    if data:
        side.reached = (chunk.seq + len(chunk.data)) & WRAP
    return data


def _acknowledge(track: Track, way: int, chunk: Chunk) -> None:
    side, other = track.sides[way], track.sides[1 - way]
    if side.ack is None or (chunk.ack - side.ack) & WRAP < HALF:
        side.ack = chunk.ack
    if not other.acked:
        other.acked = _covers(side.ack, other.first)
    if not side.acked:
        side.acked = _covers(other.ack, side.first)
    track.both_acked = side.acked and other.acked


def _covers(ack: int | None, first: int | None) -> bool:
    """Whether ``ack`` covers the byte at ``first``."""
    return ack is not None and first is not None and 0 < (ack - first) & WRAP < HALF
