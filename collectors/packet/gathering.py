"""Events of the compiled pass in; what one direction of a connection has sent, joined in its order, out.

Bounded in connections, octets and time.  Time is the data's.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

# With the most that one may hold, 34 MB.
MAX_GATHERED: Final = 2048
PATIENCE_NS: Final = 2_000_000_000

Key = tuple[int, int]


class Event(NamedTuple):
    """One ``naming.NAMED``, with its bytes."""

    kind: int
    direction: int
    conn: int
    src_high: int
    src_low: int
    dst_high: int
    dst_low: int
    src_port: int
    dst_port: int
    seq: int
    whole: int
    t: int
    clock: int
    data: bytes

    @property
    def src(self) -> bytes:
        """16 bytes."""
        return (self.src_high << 64 | self.src_low).to_bytes(16, "big")

    @property
    def dst(self) -> bytes:
        """16 bytes."""
        return (self.dst_high << 64 | self.dst_low).to_bytes(16, "big")

    @property
    def key(self) -> Key:
        """Connection and direction."""
        return self.conn, self.direction


class Gathered:
    """Segments of one direction; ``first`` is the one that a message begins with, once seen.

    Of QUIC they are pieces of the CRYPTO stream, from 0 on; ``connection_id`` makes its keys, and once
    ``told`` nothing is waited for.
    """

    __slots__ = ("connection_id", "deadline", "first", "pieces", "size", "told")

    def __init__(self) -> None:
        self.deadline = 0
        self.first: Event | None = None
        self.pieces: list[tuple[int, bytes]] = []
        self.size = 0
        self.connection_id: bytes | None = None
        self.told = False

    def add(self, event: Event, *, begins: bool = False) -> None:
        """One more, in any order."""
        self.pieces.append((event.seq, event.data))
        self.size += len(event.data)
        if begins:
            self.first = event

    def joined(self) -> bytes:
        """The bytes from the first on, as far as there is no hole."""
        if self.first is None:
            return b""
        base, out = self.first.seq, bytearray()
        for offset, data in sorted(((seq - base) & 0xFFFFFFFF, data) for seq, data in self.pieces):
            if offset > len(out):
                break
            out += data[len(out) - offset :]
        return bytes(out)

    def skip(self, octets: int) -> None:
        """So many octets from the first on are read: what was before their end is dropped."""
        if self.first is None:
            return
        base = (self.first.seq + octets) & 0xFFFFFFFF
        kept = []
        for seq, data in self.pieces:
            behind = (base - seq) & 0xFFFFFFFF
            if behind >= 1 << 31:
                kept.append((seq, data))
            elif behind < len(data):
                kept.append((base, data[behind:]))
        self.pieces, self.size = kept, sum(len(data) for _, data in kept)
        self.first = self.first._replace(seq=base)


class Gathering:
    """What is being gathered.  The oldest goes where there is no room, and whoever waited too long."""

    def __init__(self) -> None:
        self.evicted = 0
        self._held: OrderedDict[Key, Gathered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, key: Key) -> Gathered | None:
        """What there is, no longer held."""
        return self._held.pop(key, None)

    def hold(self, key: Key, held: Gathered, clock: int) -> Gathered | None:
        """Keep it.  Returns who had to go for it."""
        gone = None
        if len(self._held) >= MAX_GATHERED:
            self.evicted += 1
            gone = self._held.popitem(last=False)[1]
        # The newest last: deadlines are in order.
        held.deadline = clock + PATIENCE_NS
        self._held[key] = held
        return gone

    def late(self, clock: int | None) -> Gathered | None:
        """One that waited too long, or without a clock any, no longer held; None where there is none."""
        if not self._held:
            return None
        key, oldest = next(iter(self._held.items()))
        if clock is not None and oldest.deadline > clock:
            return None
        del self._held[key]
        return oldest
