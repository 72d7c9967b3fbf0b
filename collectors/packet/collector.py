"""The packet collector: blocks of frames in; batches of ``flows``, ``payloads`` and ``names`` out.

It runs the compiled pass, reassembles candidates, reads wanted names, gives each row to its home ends and
publishes per partition.  It opens nothing and reads no clock: time is the newest stamp of the frames; on a
live link it goes on with the time of receipt while no frame comes.
"""

import io
import secrets
import struct
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors import subscribers, wire
from collectors.bus import Publisher
from collectors.errors import Reason
from collectors.outlet import Outlet
from collectors.packet import (
    ageing,
    flows,
    fragments,
    names,
    namesets,
    payloads,
    records,
    segments,
    tokens,
    vias,
)
from collectors.packet.frames import FRAME, REFUSALS, decode_all
from collectors.packet.namecounts import NameMetrics
from collectors.packet.partcounts import PartMetrics
from collectors.packet.pcapfile import Block, blocks
from collectors.packet.sources import nothing
from collectors.packet.table import CLOCK, DEBT, FREED, HAND, HIGH, table

Seconds = Annotated[int, msgspec.Meta(ge=1, le=86400)]
Octets = Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)]

_SECOND: Final = 1_000_000_000
_DELAY_NS: Final = 5 * _SECOND
_TICK_NS: Final = _SECOND
_EXPORTS: Final = 4096
_EVENTS: Final = 8192
_NAMED: Final = 1024
_STREAMS: Final = ("flows", "payloads", "names")
_NOTHING: Final = wire.empty("flows")
_NO_OCTETS: Final = np.zeros(0, np.uint8)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The packet role."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "packet"
    flow_slots: Annotated[int, msgspec.Meta(ge=16, le=1 << 28)] = 1 << 18
    # Connections older than a minute whose pushes and TLS records are kept, 144 octets each.
    lasting_slots: Annotated[int, msgspec.Meta(ge=1, le=1 << 28)] = 1 << 16
    active_timeout_s: Seconds = 60
    idle_timeout_s: Seconds = 60
    # A silent TCP connection keeps its row, and a candidate its place, for so long if there is room.
    linger_s: Seconds = 900
    # After FIN or RST: for the last acknowledgements.
    ended_linger_s: Seconds = 2
    tentative_bytes: Octets = 8192
    # A mining connection does 1.2 kbit/s at most; this is 140 kbit/s, for what a proxy carries.
    candidate_bytes_a_record: Octets = 1 << 20
    near_misses_a_record: Annotated[int, msgspec.Meta(ge=16, le=65535)] = 1024
    batch_linger_ms: Annotated[int, msgspec.Meta(ge=0, le=10000)] = 200
    # 0 is a new one at every start: who knows the seed can make every lookup slow.
    hash_seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0
    # Whose DNS answers count: anybody can send one that says 1.1.1.1 is a pool.  Empty: nobody's.
    dns_resolvers: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    # Packets whose fragments are held, 16 KiB each at most.
    fragmented_packets: Annotated[int, msgspec.Meta(ge=8, le=65536)] = 1024
    # Datagrams and segments read for names in a second of the data's time; a quarter of it for unclear ones.
    names_a_second: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 1024
    reassembly: payloads.Bounds = payloads.Bounds()


def _counter(registry: CollectorRegistry, name: str, told: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(f"poolwatch_collector_packet_{name}", told, labels, registry=registry)


class Metrics:
    """Everything that moves in this file, declared where it moves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.frames = _counter(registry, "frames", "Frames read.")
        self.bytes = _counter(registry, "bytes", "Octets captured, link layer included.")
        self.metered = _counter(registry, "metered", "Frames counted into a flow.")
        self.refused = _counter(registry, "refused", "Input refused, by reason.", ("reason",))
        self.connections = _counter(registry, "connections", "Connections entered in the flow table.")
        self.evictions = _counter(
            registry, "evictions", "Connections pushed out of the flow table.", ("candidate",)
        )
        self.table_rows = Gauge(
            "poolwatch_collector_packet_table_rows", "Connections in the flow table.", registry=registry
        )
        self.tentative = _counter(registry, "tentative", "Connections passed on for their first bytes.")
        self.candidates = _counter(registry, "candidates", "Connections picked by a token.")
        self.put_off = _counter(registry, "put_off", "Segments that ask for a tentative connection too many.")
        self.withheld = _counter(registry, "withheld", "Segments over their connection's budget.")
        self.scanned = _counter(registry, "scanned_bytes", "Payload octets searched for tokens.")
        self.unscanned = _counter(
            registry, "unscanned", "Segments not searched to their end: their connection is all near misses."
        )
        self.steps = _counter(registry, "search_steps", "Places in payload that were looked at one by one.")
        self.reassembly_drops = _counter(registry, "reassembly_drops", "Dropped by reassembly.", ("reason",))
        self.reassembly_connections = Gauge(
            "poolwatch_collector_packet_reassembly_connections",
            "Connections in reassembly.",
            registry=registry,
        )
        self.rows = _counter(registry, "rows", "Rows published.", ("stream",))
        self.batches = _counter(registry, "batches", "Batches published.", ("stream",))
        self.payload_bytes = _counter(registry, "payload_bytes", "Candidate octets published.")
        self.names = NameMetrics(registry)
        self.parts = PartMetrics(registry)
        self.not_home = _counter(registry, "not_home", "Rows dropped: no home end.", ("stream",))
        for reason in Reason:  # a series exists, at zero, before its first event
            self.refused.labels(reason)
        for why in segments.DROPS:
            self.reassembly_drops.labels(why)
        for stream in _STREAMS:
            self.rows.labels(stream)
            self.batches.labels(stream)
            self.not_home.labels(stream)
        for candidate in ("no", "yes"):
            self.evictions.labels(candidate)


class Collector:
    """``feed`` blocks in the order of their frames, then ``finish``."""

    def __init__(
        self,
        config: Config,
        home: subscribers.Home,
        partitions: int,
        publish: Publisher,
        metrics: Metrics,
        wanted: names.NameFilter | None = None,
    ) -> None:
        self._config = config
        self._home = home
        self._partitions = partitions
        self._outlet = Outlet(config.id, home.digest, publish)
        self._metrics = metrics
        seed = config.hash_seed or secrets.randbits(62)
        self._table = table(1 << (config.flow_slots - 1).bit_length(), seed)
        packets = 1 << (config.fragmented_packets - 1).bit_length()
        self._out = ageing.outputs(_EXPORTS, _EVENTS, _NAMED, packets, config.lasting_slots)
        self._limits = ageing.Limits(
            config.active_timeout_s * _SECOND, config.idle_timeout_s * _SECOND,
            max(config.linger_s, config.idle_timeout_s) * _SECOND, config.ended_linger_s * _SECOND,
            config.tentative_bytes, config.candidate_bytes_a_record, config.near_misses_a_record,
        )  # fmt: skip
        self._tokens = tokens.compile_tokens(tokens.rows())
        self._reassembly = payloads.Reassembly(config.reassembly)
        self._names = names.Names(wanted or names.NameFilter())
        self._wanted: namesets.Wanted | None = None
        self.want(self._names.wanted)
        self._counted = self._out.counters.copy()
        self._dropped = dict(self._reassembly.drops)
        # Rows and batches that the counters do not have yet: a label looked up for each costs as much again.
        self._published = {stream: [0, 0] for stream in _STREAMS}
        self._names_told: dict[Counter, int] = {}
        self._sightings: list[names.Sighting] = []
        self._flows: list[records.Left] = []
        self._at = 0
        self._newest_ns = 0
        self._told_ns = 0
        self._sent_ns = 0
        self._received_ns: int | None = None
        # The table's time when frames came last, and when that was: what passed since has passed for it too.
        self._heard: tuple[int, int] | None = None

    def want(self, wanted: names.NameFilter) -> None:
        """Look for other names from now on.  Raises ConfigError on a resolver that is no address."""
        self._wanted = namesets.compile_wanted(
            wanted.exact,
            wanted.suffixes,
            self._config.dns_resolvers,
            self._config.names_a_second,
            self._wanted,
        )
        self._names.wanted = wanted

    def rehome(self, home: subscribers.Home) -> None:
        """Give rows to the ends that are home by these networks from now on."""
        self._home = home
        self._outlet.rehome(home.digest)

    def feed(self, block: Block, received_ns: int | None = None) -> None:
        """Take one block.  ``received_ns`` is when it came; without it, as in a replay, the data's time.

        On a live link a block without frames says that the time goes on.
        """
        self._received_ns = received_ns
        for reason, count in block.refused.items():
            self._metrics.refused.labels(reason).inc(count)
        for stop in self._seconds(block.t_ns):
            self._meter(block, stop)
            self._send_due()
        self._at = 0
        if received_ns is not None:
            self._go_on(received_ns, heard=bool(block.t_ns.size))

    def finish(self) -> None:
        """The input is over: publish what the table and the reassembly hold, and the time."""
        state, done = self._table, False
        state.state[HAND] = 0
        while not done:
            done = flows.flush(state, self._out)
            self._collect(_NO_OCTETS)
        fragments.flush(self._out.pieces)
        self._reassembly.finish()
        self._sightings += self._names.finish()
        self._send(everywhere=True)

    @staticmethod
    def _seconds(t_ns: np.ndarray) -> list[int]:
        """Where the data's time enters another second: a replay tells its time as a live link does."""
        if not t_ns.size or int(t_ns.max()) // _SECOND == int(t_ns[0]) // _SECOND:
            return [t_ns.size]
        seconds = np.maximum.accumulate(t_ns) // _SECOND
        return [*(np.flatnonzero(np.diff(seconds)) + 1).tolist(), t_ns.size]

    def _meter(self, block: Block, stop: int) -> None:
        state = self._table
        while self._at < stop:
            self._at = flows.meter(
                block.columns, self._at, stop, state, self._limits, self._tokens, self._wanted, self._out
            )
            self._collect(block.data)

    def _go_on(self, received_ns: int, *, heard: bool) -> None:
        """Let a live link's time go on from the last stamp that it had, by as much as went by since: a clock
        here that is ahead of the one that stamps, or behind it, does no harm.  Before any frame there is no
        time."""
        state, clock = self._table, int(self._table.state[CLOCK])
        if heard:
            self._heard = clock, received_ns
        if heard or self._heard is None:
            return
        now = self._heard[0] + received_ns - self._heard[1]
        while clock < now:
            if ageing.tick(now, state, self._limits, self._out) and state.state[DEBT] < _SECOND:
                clock = now
            self._collect(_NO_OCTETS)
        self._send_due()

    def _collect(self, data: np.ndarray) -> None:
        """Take over what the compiled pass has written, and empty its outputs."""
        out, clock = self._out, int(self._table.state[CLOCK])
        if wholes := int(out.pieces.filled[0]):
            data = np.concatenate([data, out.pieces.arena[:wholes]])
        self._newest_ns = max(self._newest_ns, clock)
        exports, events, named = (int(n) for n in out.filled)
        if exports:
            self._flows.append(records.taken(out.exports, out.exported, out.lasted, exports))
        self._reassembly.run(out.events[:events], data)
        self._reassembly.advance(clock)
        if named:
            self._sightings += self._names.run(out.named[:named].tolist(), data)
        self._sightings += self._names.advance(clock)
        out.filled[:] = 0
        out.pieces.filled[:] = 0

    def _send_due(self) -> None:
        live = self._received_ns is not None
        waiting = self._reassembly.pages.waiting + len(self._sightings) + sum(f.t.size for f in self._flows)
        now = self._sending_ns()
        # A wall clock may be set back; then what waits shall not wait until it is there again.
        tell = abs(now - self._told_ns) >= _TICK_NS and not (live and self._newest_ns == 0)
        # Nobody waits for a replay: there it lingers until the time is told.
        linger_ns = self._config.batch_linger_ms * 1_000_000 if live else _TICK_NS
        if tell or (waiting and now - self._sent_ns >= linger_ns) or waiting >= wire.MAX_ROWS:
            self._send(everywhere=tell)

    def _sending_ns(self) -> int:
        """What sending goes by: when we are, on a live link; else the data's time."""
        return self._newest_ns if self._received_ns is None else self._received_ns

    def _send(self, *, everywhere: bool) -> None:
        """Publish what waits; ``everywhere``: each partition is told the time, if only by an empty batch."""
        told: set[int] = set()
        self._sent_ns = self._sending_ns()
        # Records of what has ended come before the time that says so: a clock may jump over a silence.
        held, self._flows = self._flows, []
        if held:
            columns = records.flow_columns(records.together(held), self._out.vias)
            owned = self._assign(columns)
            self._metrics.not_home.labels("flows").inc(owned.dropped)
            for part, batch, span in records.flow_batches(columns, owned, self._config.id, self._received_ns):
                told.add(part)
                self._hand_over("flows", part, batch, span)
        for page in self._reassembly.pages.drain():
            run = records.chunk_run(page)
            owned = self._assign(run)
            self._metrics.not_home.labels("payloads").inc(owned.dropped)
            for part, batch, span, size in records.payload_batches(run, owned, self._config.id):
                self._metrics.payload_bytes.inc(size)
                self._hand_over("payloads", part, batch, span)
        sightings, self._sightings = self._sightings, []
        for seen in records.name_runs(sightings):
            owned = self._assign(seen)
            self._metrics.not_home.labels("names").inc(owned.dropped)
            for part, batch, span in records.name_batches(seen, owned, self._config.id):
                self._hand_over("names", part, batch, span)
        table = self._table
        vias.sweep(self._out.vias, table.rows, int(table.state[HIGH]), table.seed)
        if everywhere:
            self._told_ns = self._sending_ns()
            for part in set(range(self._partitions)) - told:
                now = self._newest_ns
                self._hand_over("flows", part, _NOTHING, (now, now))
        self._count()

    def _assign(self, rows: records.FlowColumns | records.ChunkRun | records.NameRun) -> subscribers.Owned:
        return subscribers.assign(*rows.ends, self._home, self._partitions)

    def _hand_over(self, stream: str, partition: int, rows: wire.Batch, span: tuple[int, int]) -> None:
        newest = self._newest_ns
        received_ns = newest if self._received_ns is None else self._received_ns
        published = self._published[stream]
        published[0] += rows.num_rows
        published[1] += 1
        clocks = (wire.Clock(self._config.id, newest, _DELAY_NS),)
        self._outlet.send(stream, partition, rows, span, received_ns, clocks)

    def _moved(self) -> Iterator[tuple[Counter, int]]:
        m = self._metrics
        moved = self._out.counters - self._counted
        self._counted = self._out.counters.copy()
        for place, counter in (
            (ageing.FRAMES, m.frames),
            (ageing.OCTETS, m.bytes),
            (ageing.METERED, m.metered),
            (ageing.OPENED, m.connections),
            (ageing.EVICTED_PICKED, m.evictions.labels("yes")),
            (ageing.TENTATIVES, m.tentative),
            (ageing.PICKS, m.candidates),
            (ageing.WITHHELD, m.withheld),
            (ageing.SCANNED, m.scanned),
            (ageing.SKIPPED, m.unscanned),
            (ageing.STEPS, m.steps),
            (ageing.PUT_OFF, m.put_off),
        ):
            yield counter, int(moved[place])
        yield m.evictions.labels("no"), int(moved[ageing.EVICTED] - moved[ageing.EVICTED_PICKED])
        for code, reason in enumerate(REFUSALS):
            if reason is not None:
                yield m.refused.labels(reason), int(moved[ageing.REFUSED + code])
        for why, count in self._reassembly.drops.items():
            yield m.reassembly_drops.labels(why), count - self._dropped[why]
        self._dropped = dict(self._reassembly.drops)
        for stream, published in self._published.items():
            yield m.rows.labels(stream), published[0]
            yield m.batches.labels(stream), published[1]
            published[:] = 0, 0

    def _count(self) -> None:
        for counter, by in self._moved():
            if by:
                counter.inc(by)
        self._metrics.parts.count(self._out, self._metrics.refused)
        if self._wanted is not None:
            self._metrics.names.count(self._wanted, self._names, self._names_told)
        state = self._table.state
        self._metrics.table_rows.set(int(state[HIGH] - state[FREED]))
        self._metrics.reassembly_connections.set(len(self._reassembly))


def warm() -> None:
    """Call every kernel once with next to nothing, so that all are compiled."""
    metrics = Metrics(CollectorRegistry())
    collector = Collector(Config(flow_slots=16), subscribers.home(), 1, lambda *_: None, metrics)
    # A SYN, and a mining word behind a hole; raw IPv4, as pcap and as pcapng (section, interface, packets).
    ends = bytes.fromhex("000000004006 0000 7f000001 7f000002 1f90 1f91")
    pcap = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    ng = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    ng += struct.pack("<IIHHII", 1, 20, 101, 0, 65535, 20)
    for seq, flags, data in ((0, 0x5002, b""), (9, 0x5010, b'"mining."   ')):
        size = 40 + len(data)
        frame = struct.pack(">HH", 0x4500, size) + ends + struct.pack(">IIHHI", seq, 0, flags, 0, 0) + data
        pcap += struct.pack("<IIII", 0, 0, size, size) + frame
        ng += struct.pack("<IIIIIII", 6, 32 + size, 0, 0, 0, size, size)
        ng += frame + struct.pack("<I", 32 + size)
    for block in (block for capture in (pcap, ng) for block in blocks(io.BytesIO(capture))):
        collector.feed(block, 1)
        collector.feed(nothing(), 1 + _SECOND)
        out = np.zeros(block.offset.size, FRAME)
        decode_all(*block.columns[:4], block.link, out, np.zeros(block.offset.size, np.int64))
    collector.finish()
