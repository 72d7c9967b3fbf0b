"""Names seen beside addresses: what the compiled pass let through in, sightings of wanted names out.

What the bytes mean is said by ``answers`` (DNS), ``hellos`` and ``flights`` (TLS), ``requests`` (HTTP) and
``quic``; what comes in several segments is put together by ``gathering``.  Only names that the filter wants
leave.  Time is the data's; sightings are a function of the sequence of events alone.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from collectors.errors import ConfigError, DecodeError, Reason
from collectors.packet import answers, flights, hellos, quic, requests
from collectors.packet.gathering import Event, Gathered, Gathering
from collectors.packet.naming import BEGINS, DNS, DNS_AHEAD, DNS_STREAM, MORE, QUIC
from collectors.streams import NAME_KINDS

# The ways a message can be unusable here.
REFUSALS: Final = (
    Reason.SHORT, Reason.TRUNCATED, Reason.FORMAT, Reason.LENGTH, Reason.CORRUPT, Reason.SIZE,
)  # fmt: skip
# Of one DNS message over TCP; of a direction's, while one is not whole.
MAX_MESSAGE: Final = 1 << 14
# Of one certificate: there are some with hundreds of names.
MAX_TOLD: Final = 8
# A client that asks the same host again and again is told of once in so long, on each connection.
REPEAT_NS: Final = 60_000_000_000
_MAX_REPEATS: Final = 4096
_KIND: Final = {kind: number for number, kind in enumerate(NAME_KINDS)}
_TCP: Final = 6
_UDP: Final = 17


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
    address: bytes | None
    alias: str | None = None
    port: int | None = None
    protocol: int | None = None
    ttl: int | None = None
    resolver: bytes | None = None
    alpn: str | None = None
    ja4: str | None = None


class Names:
    """``run`` events in their order, ``advance`` the time, then ``finish``: each answers sightings."""

    def __init__(self, wanted: NameFilter) -> None:
        self.wanted = wanted
        self.refused = dict.fromkeys(REFUSALS, 0)
        self._segments = Gathering()
        self._datagrams = Gathering()
        self._repeats: OrderedDict[tuple[int, str], int] = OrderedDict()
        self._out: list[Sighting] = []

    def __len__(self) -> int:
        return len(self._segments) + len(self._datagrams)

    @property
    def evicted(self) -> int:
        """Unfinished messages that newer ones pushed out."""
        return self._segments.evicted + self._datagrams.evicted

    def run(self, events: list[tuple[int, ...]], data: np.ndarray) -> list[Sighting]:
        """Each event is an Event with (at, size) in ``data`` (u1) for its bytes."""
        for event in events:
            at, size = event[-2:]
            self._take(Event._make((*event[:-2], data[at : at + size].tobytes())))
        return self._drain()

    def advance(self, clock: int) -> list[Sighting]:
        """Let time pass: what is still missing of a message will not come."""
        self._tick(clock)
        return self._drain()

    def finish(self) -> list[Sighting]:
        """The input is over."""
        self._tick(None)
        return self._drain()

    def _drain(self) -> list[Sighting]:
        out, self._out = self._out, []
        return out

    def _tick(self, clock: int | None) -> None:
        for gathering in (self._segments, self._datagrams):
            while late := gathering.late(clock):
                self._give_up(late)

    def _take(self, event: Event) -> None:
        self._tick(event.clock)
        try:
            if event.kind == DNS:
                self._answer(event, event.data)
            elif event.kind in (DNS_STREAM, DNS_AHEAD):
                self._stream(event)
            elif event.kind == QUIC:
                self._initial(event)
            else:
                self._segment(event)
        except DecodeError as error:
            self.refused[error.reason] += 1

    def _answer(self, event: Event, message: bytes) -> None:
        answer = answers.read(message)
        if answer is None:
            return
        asker, resolver = event.dst, event.src
        matches = [i for i, name in enumerate(answer.chain) if self.wanted.match(name)]
        for found in answer.addresses:
            if matches and matches[0] <= found.depth:
                name, alias = answer.chain[matches[0]], answer.chain[0] if matches[0] else None
            elif found.target and self.wanted.match(found.target):
                name, alias = found.target, answer.chain[0]
            else:
                continue
            self._out.append(
                Sighting(
                    asker, asker, 0, 0, event.t, _KIND["dns"], name, found.address, alias=alias,
                    port=found.port, ttl=found.ttl, resolver=resolver, alpn=found.alpn,
                )
            )  # fmt: skip

    def _stream(self, event: Event) -> None:
        """DNS over TCP: each message behind its length (RFC 1035 section 4.2.2)."""
        data = event.data
        if len(data) > 4 and int.from_bytes(data[:2], "big") == len(data) - 2 and data[4] & 0x80:
            self._answer(event, data[2:])
            return
        held = self._segments.take(event.key) or Gathered()
        held.add(event, begins=held.first is None and event.kind == DNS_STREAM)
        data, at = held.joined(), 0
        while len(data) >= at + 2:
            size = int.from_bytes(data[at : at + 2], "big")
            if not 12 <= size <= MAX_MESSAGE:
                raise DecodeError(Reason.LENGTH, f"a message of {size} octets")
            if len(data) < at + 2 + size:
                break
            try:
                self._answer(event, data[at + 2 : at + 2 + size])
            except DecodeError as error:
                self.refused[error.reason] += 1
            at += 2 + size
        held.skip(at)
        if held.size > 2 * MAX_MESSAGE:
            raise DecodeError(Reason.SIZE, f"{held.size} octets and no end of the message")
        if held.pieces:
            self._hold(self._segments, event, held)

    def _initial(self, event: Event) -> None:
        held = self._datagrams.take(event.key) or Gathered()
        try:
            held.connection_id, pieces = quic.crypto(event.data, held.connection_id)
            if not held.told:
                held.first = held.first or event
                held.pieces += [(p.offset, p.data) for p in pieces if p.data]
                hello = hellos.read_message(held.joined())
                if hello is not None:
                    held.told, held.pieces = True, []
                    self._tell(held.first, hello, "quic_server_name", _UDP)
                if len(held.pieces) > quic.MAX_FRAMES:
                    raise DecodeError(Reason.SIZE, f"{len(held.pieces)} pieces of a hello")
        except DecodeError:
            if held.told:
                self._hold(self._datagrams, event, held)
            raise
        self._hold(self._datagrams, event, held)

    def _segment(self, event: Event) -> None:
        begins = event.kind == BEGINS
        held = self._segments.take(event.key)
        if held is None and event.kind == MORE:
            return
        if held is None or (begins and held.first and held.first.seq != event.seq):
            held = Gathered()
        held.add(event, begins=begins)
        if held.first is not None and self._read(held, rest_is_lost=not event.whole):
            return
        if held.size > hellos.MAX_OCTETS:
            raise DecodeError(Reason.SIZE, f"{held.size} octets and no end of the message")
        self._hold(self._segments, event, held)

    def _hold(self, gathering: Gathering, event: Event, held: Gathered) -> None:
        gone = gathering.hold(event.key, held, event.clock)
        if gone is not None:
            self._give_up(gone)

    def _give_up(self, held: Gathered) -> None:
        """Nothing more will come."""
        if held.told or (held.first is None and not held.pieces):
            return
        try:
            if held.first is None or held.first.kind in (DNS_STREAM, DNS_AHEAD, QUIC):
                told = held.first is None
            else:
                told = self._read(held, rest_is_lost=True)
        except DecodeError as error:
            self.refused[error.reason] += 1
            return
        if not told:
            self.refused[Reason.SHORT] += 1

    def _read(self, held: Gathered, *, rest_is_lost: bool) -> bool:
        """Read what begins with ``held.first``; False while more is needed, or while it tells nothing."""
        data, first = held.joined(), held.first
        if first is None:
            return False
        if data[0] != 22:
            return self._request(data, first, rest_is_lost=rest_is_lost)
        if len(data) < 6:
            return False
        if data[5] == 2:
            return self._flight(data, first, rest_is_lost=rest_is_lost)
        hello = hellos.read(data, rest_is_lost=rest_is_lost)
        if hello is None or (hello.ja4 is None and hello.server_name is None):
            return False
        self._tell(first, hello, "tls_server_name", _TCP)
        return True

    def _tell(self, first: Event, hello: hellos.Hello, kind: str, protocol: int) -> None:
        if hello.server_name is not None and self.wanted.match(hello.server_name):
            self._say(first, kind, hello.server_name, protocol, alpn=hello.alpn, ja4=hello.ja4)

    def _flight(self, data: bytes, first: Event, *, rest_is_lost: bool) -> bool:
        flight = flights.read(data, rest_is_lost=rest_is_lost)
        if flight is None:
            return False
        wanted = [name for name in flight.names if self.wanted.match(name)]
        for name in wanted[:MAX_TOLD]:
            self._out.append(
                Sighting(
                    first.dst, first.src, first.dst_port, first.src_port, first.t, _KIND["certificate"], name,
                    first.src, port=first.src_port, protocol=_TCP, alpn=flight.alpn,
                )
            )  # fmt: skip
        return True

    def _request(self, data: bytes, first: Event, *, rest_is_lost: bool) -> bool:
        request = requests.read(data, rest_is_lost=rest_is_lost)
        if request is None:
            return not requests.unfinished(data)
        if self.wanted.match(request.host) and not self._repeated(first, request.host):
            self._say(first, "http_host", request.host, _TCP, request)
        return True

    def _repeated(self, event: Event, name: str) -> bool:
        key = event.conn, name
        before = self._repeats.get(key)
        if before is not None and event.clock - before < REPEAT_NS:
            return True
        self._repeats.pop(key, None)
        self._repeats[key] = event.clock
        if len(self._repeats) > _MAX_REPEATS:
            self._repeats.popitem(last=False)
        return False

    def _say(
        self,
        first: Event,
        kind: str,
        name: str,
        protocol: int,
        request: requests.Request | None = None,
        *,
        alpn: str | None = None,
        ja4: str | None = None,
    ) -> None:
        """What a client said.  Through a proxy the address is not the named one's."""
        by_proxy = request is not None and request.by_proxy
        self._out.append(
            Sighting(
                first.src, first.dst, first.src_port, first.dst_port, first.t, _KIND[kind], name,
                None if by_proxy else first.dst,
                port=request.port if request and by_proxy else first.dst_port,
                protocol=protocol, alpn=alpn, ja4=ja4,
            )
        )  # fmt: skip
