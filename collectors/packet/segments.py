"""What reassembly is made of: segments in, chunks out, and what is held between them."""

from typing import Annotated, NamedTuple

import msgspec

Bound = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
Wait = Annotated[int, msgspec.Meta(ge=1, le=86_400_000)]


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What reassembly may hold, and for how long it waits."""

    max_connections: Bound = 16384
    max_segments: Bound = 64
    max_bytes: Bound = 65536
    max_bytes_in_all: Bound = 64 << 20
    hole_ms: Wait = 2000
    acknowledged_hole_ms: Wait = 200
    idle_s: Wait = 900


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


class Piece(NamedTuple):
    """Bytes that wait for those before them; an end (FIN) waits as a piece without bytes."""

    offset: int
    data: bytes
    t: int
    ack: int
    fin: bool


class Way:
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
        self.held: list[Piece] = []  # sorted, disjoint
        self.held_bytes = 0
        self.hole = 0  # number of the hole being waited for; 0 none
        self.acked_hole = False
        self.gap = False
        self.acked = False  # this direction acknowledged published bytes of the other
        self.ended = False


class Connection:
    """Two directions, and the 5-tuple as each direction's chunks carry it."""

    __slots__ = ("ends", "key", "picked", "seen", "ways")

    def __init__(self, key: int, s: Segment) -> None:
        self.key = key
        self.picked = bool(s.picked)
        self.seen = s.clock
        self.ways = (Way(), Way())
        a = ((s.a_high << 64) | s.a_low).to_bytes(16, "big"), s.a_port
        b = ((s.b_high << 64) | s.b_low).to_bytes(16, "big"), s.b_port
        self.ends = ((a[0], b[0], a[1], b[1]), (b[0], a[0], b[1], a[1]))
