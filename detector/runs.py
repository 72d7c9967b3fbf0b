"""One run of data, wired: a file that is replayed, or what live links bring."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from collectors.bus import MemoryBus
from collectors.netflow.collector import Collector as NetflowCollector
from collectors.netflow.datagrams import Block as Datagrams
from collectors.netflow.datagrams import Datagram
from collectors.packet.collector import Collector
from collectors.packet.collector import Metrics as PacketMetrics
from collectors.packet.pcapfile import Block
from detector import resolver
from detector.engine import Told
from detector.exporters.report import FileReport, ScanIncident
from detector.paging import Sink
from detector.pools import Pools
from detector.reading import Held, Reading, Tally, printable
from detector.totals import Run

if TYPE_CHECKING:
    from detector.app import Detector, Service


def _refusals(metrics: PacketMetrics) -> dict[str, int]:
    """Refusals so far, by reason."""
    (family,) = metrics.refused.collect()
    return {s.labels["reason"]: int(s.value) for s in family.samples if s.name.endswith("_total")}


class Line:
    """Bus, engine and sink of one run: what comes over the bus is judged, and told."""

    def __init__(self, detector: "Detector", name: str, sink: Sink | None, *, live: bool = False) -> None:
        self._detector = detector
        self._sink = sink
        self._refused = 0
        self.bus = MemoryBus(detector.config.embedded.capacity)
        self.engine = detector.engine()
        self.run: Run = detector.totals.start(self.engine, name, live=live)

    def packet_collector(self) -> Collector:
        """A packet collector that publishes on this line's bus."""
        detector = self._detector
        return detector.site.packet_collector(detector.config.embedded.partitions, self.bus.publish)

    def flow_collector(self) -> NetflowCollector:
        """A flow collector that publishes on this line's bus."""
        detector = self._detector
        return detector.site.flow_collector(detector.config.embedded.partitions, self.bus.publish)

    def drain(self) -> int:
        """Take in all messages that wait; how many flow rows that were."""
        pace, flows = self._detector.pace, 0
        for message in self.bus.poll():
            started = time.perf_counter()
            with self._detector.guard:
                self._tell(self.engine.step(message))
            pace.took(message.stream, message.rows.num_rows, time.perf_counter() - started)
            flows += message.rows.num_rows if message.stream == "flows" else 0
        if self.bus.refused > self._refused:
            pace.bus_refused.inc(self.bus.refused - self._refused)
            self._refused = self.bus.refused
        return flows

    def finish(self) -> None:
        """The data has ended."""
        self._tell(self.engine.finish(), over=True)

    def _tell(self, told: Told, *, over: bool = False) -> None:
        self._detector.totals.take(self.run, told)
        if self._sink is None:
            return
        for made in told.transitions:
            self._sink.alert(made)
        # A busy miner changes with every share: its document is written once a minute of the data.
        for document in self.engine.judge.changed(everything=bool(told.minutes) or over):
            self._sink.incident(document)


class Replay:
    """One file through collectors, bus and engine: a run of its own.  ``reading.Reading`` says what ``kind``
    and what ``held`` and ``follow`` are; ``beside`` counts what live links beside it refuse, by reason."""

    def __init__(
        self,
        detector: "Detector",
        path: str,
        sink: Sink | None = None,
        kind: str = "any",
        held: Held | None = None,
        beside: Mapping[str, int] | None = None,
        follow: str | None = None,
    ) -> None:
        self._detector = detector
        self._beside = {} if beside is None else beside
        self._path = path
        self._line = Line(detector, path, sink)
        self._line.bus.spill = self._drain
        packets = self._line.packet_collector()
        self._reading = Reading(path, kind, packets, self._line.flow_collector, held, follow)
        self._flows = 0
        self._refused = self._refusals()

    def run(
        self, stopped: Callable[[], bool], progress: Callable[[int], None], pace: float = 0
    ) -> FileReport:
        """Read the file to its end, or until ``stopped``; ``progress`` is told the bytes read so far.

        Raises InputError where nothing of it could be read.
        """
        self._reading.run(stopped, progress, pace, self._fed)
        self._drain()
        with self._detector.guard:
            self._line.finish()
            report = self._report()
            self._line.run.end()
        return report

    def _fed(self) -> None:
        self._drain()
        self._detector.complaints.say(self._path, self._refusals())

    def _refusals(self) -> dict[str, int]:
        return {r: n - self._beside.get(r, 0) for r, n in _refusals(self._detector.packets).items()}

    def _drain(self) -> None:
        self._flows += self._line.drain()

    def _report(self) -> FileReport:
        tally = self._reading.tally
        first_ns = tally.first_ns or 0
        seconds = (tally.last_ns - first_ns) / 1e9
        mining = sum(d.bytes.up + d.bytes.down for d in self._line.run.documents() if d.role != "pool")
        refused = self._refusals()
        return FileReport(
            path=printable(self._path),
            packets=tally.frames,
            flows=self._flows,
            bytes=tally.bytes,
            cut=tally.cut,
            refused={r: n - self._refused[r] for r, n in refused.items() if n > self._refused[r]},
            first_ns=first_ns,
            last_ns=tally.last_ns,
            mining_mbps=mining * 8 / 1e6 / seconds if seconds else 0.0,
        )

    @property
    def errors(self) -> list[str]:
        """What of a folder could not be read."""
        return self._reading.errors

    def found(self) -> list[ScanIncident]:
        """The incidents of this file."""
        return [ScanIncident(printable(self._path), d) for d in self._line.run.documents()]


class Live:
    """What interfaces and routers bring, judged together in this process: bytes that both saw count once."""

    def __init__(self, service: "Service", name: str, *, captures: bool, receives: bool) -> None:
        detector = service.detector
        self._detector = detector
        self._line = Line(detector, f"live {name}", service.live_sink, live=True)
        self._line.bus.spill = self._drain
        self._packets = self._line.packet_collector() if captures else None
        self._exports = self._line.flow_collector() if receives else None
        self._kept = detector.site.templates_file(self._exports) if self._exports else None
        if self._kept is not None:
            self._kept.__enter__()
        self._lookups = Lookups(detector.config.resolver, detector.pools)
        self._began_ns = time.time_ns()
        self._tally = Tally()
        self._flows = 0
        self.refused: Counter[str] = Counter()

    def frames(self, block: Block) -> None:
        """Take a block as it came, or one without frames: the time goes on."""
        if self._packets is None:
            return
        before = _refusals(self._detector.packets)
        self._packets.feed(block, time.time_ns())
        self.refused.update(
            {r: n - before[r] for r, n in _refusals(self._detector.packets).items() if n > before[r]}
        )
        self._tally.add(block)
        self._drain()

    def datagrams(self, received: Sequence[Datagram] | Datagrams) -> None:
        """Take what was received, or nothing: the time goes on."""
        if self._exports is not None:
            self._exports.feed(received, time.time_ns())
            self._drain()
        if self._kept is not None:
            self._kept.turn()

    def _drain(self) -> None:
        found = self._lookups.found()
        if found:
            with self._detector.guard:
                list(resolver.teach(found, self._line.engine.resolutions))
        self._flows += self._line.drain()

    def finish(self) -> tuple[list[FileReport], list[ScanIncident]]:
        """Publish what waits; what was received, and the incidents."""
        for collector in (self._packets, self._exports):
            if collector is not None:
                collector.finish()
        if self._kept is not None:
            self._kept.__exit__(None, None, None)
        self._drain()
        report = FileReport(
            path="live", packets=self._tally.frames, flows=self._flows, bytes=self._tally.bytes,
            cut=self._tally.cut,
            refused=dict(self.refused), first_ns=self._began_ns, last_ns=time.time_ns(),
        )  # fmt: skip
        with self._detector.guard:
            self._line.finish()
            return [report], [ScanIncident("live", d) for d in self._line.run.documents()]


class Lookups:
    """Addresses of pools, looked up over and over on a thread of its own; only where servers are given."""

    def __init__(self, config: resolver.Config, pools: Pools) -> None:
        """Raises ConfigError on a server that is no address."""
        self._config = config
        self._pools = pools
        self._queue: SimpleQueue[resolver.Resolved] = SimpleQueue()
        for server in config.servers:
            resolver.server(server)
        if config.servers:
            Thread(target=self._run, name="resolver", daemon=True).start()

    def _run(self) -> None:
        config = self._config
        while True:
            names = [row.domain for row in self._pools.resolvable()]
            for one in resolver.resolve(names, config.servers, config.rate_per_s, timeout_s=config.timeout_s):
                self._queue.put(one)
            time.sleep(config.every_s)

    def found(self) -> list[resolver.Resolved]:
        """What was found since the last call."""
        return [self._queue.get() for _ in range(self._queue.qsize())]
