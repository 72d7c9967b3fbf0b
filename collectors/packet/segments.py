"""What reassembly is made of: bounds, segments, and the directions of a connection that are out of order."""

from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np

Bound = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 22)]
Wait = Annotated[int, msgspec.Meta(ge=1, le=86_400_000)]

# Connections that mine have a few KB on their way; a hole of more than this is not waited for.
WINDOW: Final = 1 << 20
# Segments in order that show where a stream is: acknowledged ones, and ones that nobody acknowledges.
_RIVALS: Final = 3
_UNHEARD: Final = 16
_SKIPS: Final = 8

# Why reassembly dropped something; also the value of the ``reason`` label.
REPEATED: Final = "repeated"  # octets that were there before
BEFORE: Final = "before"  # octets from before the place where we joined
GIVEN_UP: Final = "given_up"  # holes: nobody sent it again, or we missed it
STRANGE: Final = "strange"  # octets no receiver would take, or that were given up before they came
BOUNDS: Final = "bounds"  # holes given up early, for want of room
AGED: Final = "aged"  # connections that fell silent
EVICTED: Final = "evicted"  # connections dropped for want of room
DOUBTED: Final = "doubted"  # octets aside that their receiver did not take, or for which others came
DIFFERED: Final = "differed"  # octets that say something else than those which were taken in their place
ENDS: Final = "end"  # RST and FIN at a number that their receiver does not take
DROPS: Final = (REPEATED, BEFORE, GIVEN_UP, STRANGE, BOUNDS, AGED, EVICTED, DOUBTED, DIFFERED, ENDS)


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What reassembly may hold, and for how long it waits."""

    max_connections: Count = 16384
    max_segments: Bound = 256
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
    stamp: int
    ttl: int
    usual_ttl: int
    doubt: int
    t: int
    clock: int
    data: bytes


class Piece(NamedTuple):
    """Bytes that wait for those before them; an end (FIN) waits as a piece without bytes."""

    offset: int
    data: bytes
    t: int
    ack: int
    fin: bool


def _number(field: str) -> property:
    """A field of the direction, in the arrays that ``ordered`` works on too."""

    def get(way: "Way") -> int:
        return int(way.row[field][way.d])

    def put(way: "Way", value: int) -> None:
        way.row[field][way.d] = value

    return property(get, put)


class Way:
    """One direction of a connection: ``row`` is its CONNECTION, and what is kept beside it is here.  Offsets
    count from ``base``, the sequence number of offset 0."""

    __slots__ = (
        "_skipped", "acked_hole", "asked", "d", "doubt", "doubted", "held", "held_bytes", "hole", "rivals",
        "row",
    )  # fmt: skip

    base = _number("base")
    next = _number("next")
    published = _number("published")
    last_ack = _number("last_ack")
    known = _number("known")
    gap = _number("gap")
    ended = _number("ended")
    acked = _number("acked")
    loose = _number("loose")
    stamp = _number("stamp")
    ttl = _number("ttl")

    def __init__(self, row: np.void, d: int) -> None:
        self.row = row
        self.d = d
        self.held: list[Piece] = []  # sorted, disjoint
        self.held_bytes = 0
        self.hole = 0  # number of the hole being waited for; 0 none
        self.acked_hole = False
        self.asked = False  # the receiver told that it has nothing of the hole either
        self._skipped: list[tuple[int, int]] | None = None
        self.rivals: list[Segment] = []  # in order, at another place than ``next``
        self.doubted: list[Segment] = []  # ``doubts``
        self.doubt = 0  # number of the wait for what is doubted; 0 none

    @property
    def skipped(self) -> list[tuple[int, int]]:
        """Offsets (from, to) that were given up, the newest last; at first, what went before we joined."""
        if self._skipped is None:
            first, last = self.row["left_out"][self.d].tolist()
            return [(first, last)] if self.row["begun"][self.d] else []
        return self._skipped

    @skipped.setter
    def skipped(self, places: list[tuple[int, int]]) -> None:
        self._skipped = places

    @property
    def plain(self) -> bool:
        """Nothing is kept that the arrays do not have."""
        return not self.held and not self.rivals and not self.doubted and self._skipped is None

    @property
    def denied(self) -> bool:
        """The receiver waits for the hole as we do: it is to come, or what is behind it is forged."""
        return self.asked and not self.acked_hole

    @property
    def waits(self) -> bool:
        """Something waits for what others say: each event of the connection is of concern."""
        return bool(self.held or self.doubted)

    def place_of(self, seq: int) -> int:
        """The offset of a sequence number: the one that is nearest to where we are (modulo 2**32)."""
        return self.next + ((seq - self.base - self.next + 0x80000000) & 0xFFFFFFFF) - 0x80000000

    def ends_at(self, seq: int) -> bool:
        """A RST of this number is one that the receiver takes (RFC 5961 section 3): what it expects is what
        comes next, unless it told that it has more."""
        return self.base < 0 or seq == self.last_ack or self.place_of(seq) == self.next

    def strange(self, offset: int) -> bool:
        """No receiver would take this: beyond any window, or where bytes were given up."""
        return abs(offset - self.next) > WINDOW or any(a <= offset < b for a, b in self.skipped)

    def skip(self, offset: int) -> None:
        """Go on at ``offset``, and remember what was left out."""
        if offset > self.next:
            skipped = self.skipped
            first = skipped.pop()[0] if len(skipped) >= _SKIPS else self.next
            self.skipped = [*skipped, (first, offset)]
        self.next = offset
        self.gap = 1

    def rival(self, s: Segment) -> bool:
        """Note a strange segment.  True: the stream is rather where this and those before it are.

        That takes a few in order that the receiver acknowledges; or, if it is not heard, in order alone.
        One that does not go on replaces the others, unless these are nearer to what is acknowledged.
        """
        if self.rivals:
            follows = (self.rivals[-1].seq + len(self.rivals[-1].data)) & 0xFFFFFFFF
            if s.seq != follows:
                if s.seq == self.rivals[-1].seq or self._nearer(self.rivals[0].seq, s.seq):
                    return False
                self.rivals = []
        self.rivals.append(s)
        enough = _RIVALS if self.last_ack < 0 or self._acknowledged() else _UNHEARD
        return len(self.rivals) >= enough

    def _nearer(self, a: int, b: int) -> bool:
        far_a, far_b = ((seq - self.last_ack) & 0xFFFFFFFF for seq in (a, b))
        return self.last_ack >= 0 and min(far_a, -far_a & 0xFFFFFFFF) < min(far_b, -far_b & 0xFFFFFFFF)

    def _acknowledged(self) -> bool:
        ahead = (self.last_ack - self.rivals[0].seq) & 0xFFFFFFFF
        return self.last_ack >= 0 and 0 < ahead <= WINDOW


class Connection:
    """Two directions; ``place`` is its row's number."""

    __slots__ = ("conn", "place", "row", "ways")

    def __init__(self, row: np.void, place: int) -> None:
        self.row = row
        self.place = place
        self.conn = int(row["conn"])
        self.ways = (Way(row, 0), Way(row, 1))
