"""Names seen beside addresses: what the compiled pass let through in, sightings of wanted names out.

DNS answers and TLS client hellos are read by ``answers`` and ``hellos``; a hello in several segments is
gathered here, within bounds.  Only names that the filter wants leave.  Time is the data's; sightings are a
function of the sequence of events alone.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from collectors.errors import ConfigError, DecodeError, Reason
from collectors.packet import answers, hellos
from collectors.packet.naming import AHEAD_OF, BEGINS, DNS
from collectors.streams import NAME_KINDS

# The ways a message can be unusable here.
REFUSALS: Final = (
    Reason.SHORT, Reason.TRUNCATED, Reason.FORMAT, Reason.LENGTH, Reason.CORRUPT, Reason.SIZE,
)  # fmt: skip
# With the most that one may hold, 34 MB.
MAX_GATHERED: Final = 2048
PATIENCE_NS: Final = 2_000_000_000
_DNS: Final = NAME_KINDS.index("dns")
_TLS: Final = NAME_KINDS.index("tls_server_name")
_TCP: Final = 6


class NameFilter:
    """Which names are wanted: whole ones, and all at or below a suffix; the empty suffix wants every name.

    Names are compared without case and without a final dot.  Raises ConfigError on a name that is not ASCII.
    """

    def __init__(self, exact: Iterable[str] = (), suffixes: Iterable[str] = ()) -> None:
        self.exact = frozenset(_plain(name) for name in exact) - {""}
        self.suffixes = frozenset(_plain(name) for name in suffixes)

    def __bool__(self) -> bool:
        return bool(self.exact or self.suffixes)

    def match(self, name: str) -> bool:
        """Whether the name is wanted.  Suffixes hold at label boundaries only."""
        name = _plain(name)
        if name in self.exact or "" in self.suffixes:
            return True
        while name:
            if name in self.suffixes:
                return True
            name = name.partition(".")[2]
        return False


def _plain(name: str) -> str:
    if not name.isascii():
        raise ConfigError(f"name {name!r}: write it in ASCII (xn--…)")
    return name.lower().removesuffix(".")


class Sighting(NamedTuple):
    """One row of ``names`` without its owner, who is at ``src`` or ``dst``: for DNS both are the asker."""

    src: bytes
    dst: bytes
    src_port: int
    dst_port: int
    t: int
    kind: int
    name: str
    address: bytes
    alias: str | None = None
    port: int | None = None
    protocol: int | None = None
    ttl: int | None = None
    resolver: bytes | None = None
    alpn: str | None = None
    ja4: str | None = None


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


class _Gathered:
    """Segments of one direction that may be one hello; ``first`` is the one that begins it, once seen."""

    __slots__ = ("deadline", "first", "pieces", "size")

    def __init__(self) -> None:
        self.deadline = 0
        self.first: Event | None = None
        self.pieces: list[Event] = []
        self.size = 0

    def add(self, event: Event) -> None:
        self.pieces.append(event)
        self.size += len(event.data)
        self.deadline = event.clock + PATIENCE_NS
        if event.kind == BEGINS:
            self.first = event

    def joined(self) -> bytes:
        """The bytes from the first on, as far as there is no hole."""
        if self.first is None:
            return b""
        base, out = self.first.seq, bytearray()
        for offset, data in sorted(((p.seq - base) & 0xFFFFFFFF, p.data) for p in self.pieces):
            if offset > len(out):
                break
            out += data[len(out) - offset :]
        return bytes(out)


class Names:
    """``run`` events in their order, ``advance`` the time, then ``finish``: each answers sightings."""

    def __init__(self, wanted: NameFilter) -> None:
        self.wanted = wanted
        self.refused = dict.fromkeys(REFUSALS, 0)
        self.evicted = 0
        self._gathered: OrderedDict[tuple[int, int], _Gathered] = OrderedDict()
        self._out: list[Sighting] = []

    def __len__(self) -> int:
        return len(self._gathered)

    def run(self, events: list[tuple[int, ...]], data: np.ndarray) -> list[Sighting]:
        """Each event is an Event with (at, size) in ``data`` (u1) for its bytes."""
        for event in events:
            at, size = event[-2:]
            self._take(Event._make((*event[:-2], data[at : at + size].tobytes())))
        return self._drain()

    def advance(self, clock: int) -> list[Sighting]:
        """Let time pass: what is still missing of a hello will not come."""
        self._tick(clock)
        return self._drain()

    def finish(self) -> list[Sighting]:
        """The input is over."""
        while self._gathered:
            self._give_up(self._gathered.popitem(last=False)[1])
        return self._drain()

    def _drain(self) -> list[Sighting]:
        out, self._out = self._out, []
        return out

    def _tick(self, clock: int) -> None:
        while self._gathered:
            key, oldest = next(iter(self._gathered.items()))
            if oldest.deadline > clock:
                break
            del self._gathered[key]
            self._give_up(oldest)

    def _take(self, event: Event) -> None:
        self._tick(event.clock)
        try:
            if event.kind == DNS:
                self._answer(event)
            else:
                self._segment(event)
        except DecodeError as error:
            self.refused[error.reason] += 1

    def _answer(self, event: Event) -> None:
        answer = answers.read(event.data)
        if answer is None:
            return
        asker, resolver = event.dst, event.src
        matches = [i for i, name in enumerate(answer.chain) if self.wanted.match(name)]
        for address, ttl, depth in answer.addresses:
            if matches and matches[0] <= depth:
                name = answer.chain[matches[0]]
                self._out.append(
                    Sighting(
                        asker,
                        asker,
                        0,
                        0,
                        event.t,
                        _DNS,
                        name,
                        address,
                        ttl=ttl,
                        resolver=resolver,
                        alias=answer.chain[0] if matches[0] else None,
                    )
                )

    def _segment(self, event: Event) -> None:
        key = event.conn, event.direction
        held = self._gathered.pop(key, None)
        if held is None and event.kind not in (BEGINS, AHEAD_OF):
            return
        if held is None or (event.kind == BEGINS and held.first and held.first.seq != event.seq):
            held = _Gathered()
        held.add(event)
        if held.first is not None:
            hello = hellos.read(held.joined(), rest_is_lost=not event.whole)
            if hello is not None:
                self._tell(held.first, hello)
                return
        if held.size > hellos.MAX_OCTETS:
            raise DecodeError(Reason.SIZE, f"{held.size} octets and no end of the hello")
        self._hold(key, held)

    def _hold(self, key: tuple[int, int], held: _Gathered) -> None:
        if len(self._gathered) >= MAX_GATHERED:
            self.evicted += 1
            self._give_up(self._gathered.popitem(last=False)[1])
        # The newest last: deadlines are in order.
        self._gathered[key] = held

    def _give_up(self, held: _Gathered) -> None:
        if held.first is None:
            return
        try:
            hello = hellos.read(held.joined(), rest_is_lost=True)
        except DecodeError as error:
            self.refused[error.reason] += 1
            return
        if hello is None or hello.server_name is None:
            self.refused[Reason.SHORT] += 1
        else:
            self._tell(held.first, hello)

    def _tell(self, first: Event, hello: hellos.Hello) -> None:
        if hello.server_name is None or not self.wanted.match(hello.server_name):
            return
        self._out.append(
            Sighting(
                first.src,
                first.dst,
                first.src_port,
                first.dst_port,
                first.t,
                _TLS,
                hello.server_name,
                first.dst,
                port=first.dst_port,
                protocol=_TCP,
                alpn=hello.alpn,
                ja4=hello.ja4,
            )
        )
