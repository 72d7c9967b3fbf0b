"""One run of data, wired: a file that is replayed, or exports as they are received."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, TYPE_CHECKING

import numpy as np

from collectors.app import exports
from collectors.bus import MemoryBus
from collectors.errors import DecodeError
from collectors.netflow.collector import Collector as NetflowCollector
from collectors.netflow.datagrams import Datagram
from collectors.packet import pcapfile
from collectors.packet.collector import Collector
from collectors.packet.collector import Metrics as PacketMetrics
from detector import resolver
from detector.engine import Told
from detector.errors import InputError
from detector.exporters.jsonl import JsonLines
from detector.exporters.report import FileReport, ScanIncident
from detector.totals import Run

if TYPE_CHECKING:
    from detector.app import Detector, Service

STEP_S = 0.05
PACKETS, FLOWS = "packets", "flows"
BLANK_BLOCKS = 8
WAIT_S = 0.25


def printable(path: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are shown as the replacement character."""
    return os.fsencode(path).decode("utf-8", "replace")


def _open(path: str) -> IO[bytes]:
    try:
        if path == "-":
            return os.fdopen(os.dup(sys.__stdin__.fileno()), "rb")  # type: ignore[union-attr]
        return Path(path).open("rb")
    except (OSError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


class Tally:
    """What the frames of one file add up to."""

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0
        self.first_ns: int | None = None
        self.last_ns = 0

    def add(self, block: pcapfile.Block) -> None:
        """Count one block."""
        if not block.t_ns.size:
            return
        self.frames += block.t_ns.size
        self.bytes += int(block.length.sum())
        first, last = int(block.t_ns.min()), int(block.t_ns.max())
        self.last_ns = last if self.first_ns is None else max(self.last_ns, last)
        self.first_ns = first if self.first_ns is None else min(first, self.first_ns)


def _refusals(metrics: PacketMetrics) -> dict[str, int]:
    """Refusals so far, by reason."""
    (family,) = metrics.refused.collect()
    return {s.labels["reason"]: int(s.value) for s in family.samples if s.name.endswith("_total")}


class Line:
    """Bus, engine and sink of one run: what comes over the bus is judged, and told."""

    def __init__(self, detector: "Detector", name: str, sink: JsonLines | None) -> None:
        self._detector = detector
        self._sink = sink
        self._refused = 0
        self.bus = MemoryBus(detector.config.embedded.capacity)
        self.engine = detector.engine()
        self.run: Run = detector.totals.start(self.engine, name)

    def flow_collector(self) -> NetflowCollector:
        """A flow collector that publishes on this line's bus."""
        detector = self._detector
        return NetflowCollector(
            detector.config.collectors.netflow, detector.home, detector.config.embedded.partitions,
            self.bus.publish, detector.netflow,
        )  # fmt: skip

    def drain(self) -> int:
        """Take in all messages that wait; how many flow rows that were."""
        pace, flows = self._detector.pace, 0
        for message in self.bus.poll():
            started = time.perf_counter()
            with self._detector.guard:
                self._tell(self.engine.step(message))
            pace.batch_seconds.observe(time.perf_counter() - started)
            pace.messages.labels(message.stream).inc()
            pace.rows.labels(message.stream).inc(message.rows.num_rows)
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
    """One file through collectors, bus and engine: a run of its own.

    ``kind`` says what is read of it: packets, flows (exports on any port), or whatever it holds: packets, and
    exports on the known ports, which are no longer looked for once ``BLANK_BLOCKS`` blocks had none.
    """

    def __init__(
        self, detector: "Detector", path: str, sink: JsonLines | None = None, kind: str = "any"
    ) -> None:
        self._detector = detector
        self._path = path
        self._line = Line(detector, path, sink)
        self._line.bus.spill = self._drain
        self._collector = Collector(
            detector.config.collectors.packets,
            detector.home,
            detector.config.embedded.partitions,
            self._line.bus.publish,
            detector.packets,
            detector.wanted,
        )
        # Made when the first export is found: most captures have none.
        self._exports: NetflowCollector | None = None
        self._kind = kind
        self._blank_blocks = 0
        self._tally = Tally()
        self._flows = 0
        self._refused = _refusals(detector.packets)

    def run(
        self, stopped: Callable[[], bool], progress: Callable[[int], None], pace: float = 0
    ) -> FileReport:
        """Read the file to its end, or until ``stopped``; ``progress`` is told the bytes read so far.

        Raises InputError where nothing of it could be read.
        """
        with _open(self._path) as file:
            try:

                def waiting() -> bool:
                    progress(_position(file))
                    return stopped()

                for block in _paced(pcapfile.blocks(_Interruptible(file, stopped)), pace, waiting):
                    self._tally.add(block)
                    self._feed(block)
                    self._drain()
                    self._detector.complaints.say(self._path, _refusals(self._detector.packets))
                    progress(_position(file))
                    if stopped():
                        break
            except (DecodeError, OSError) as error:
                raise InputError(f"{self._path}: {error}") from None
        if self._kind != FLOWS:
            self._collector.finish()
        if self._exports is not None:
            self._exports.finish()
        self._drain()
        with self._detector.guard:
            self._line.finish()
            report = self._report()
            self._line.run.end()
        return report

    def _feed(self, block: pcapfile.Block) -> None:
        """Frames to the packet collector, and what exports they carry to the flow collector."""
        if self._kind != FLOWS:
            self._collector.feed(block)
        if self._kind == PACKETS or self._blank_blocks >= BLANK_BLOCKS:
            return
        found = exports(block, any_port=self._kind == FLOWS)
        self._blank_blocks = 0 if len(found) else self._blank_blocks + (self._kind != FLOWS)
        if len(found):
            if self._exports is None:
                self._exports = self._line.flow_collector()
            self._exports.feed(found)

    def _drain(self) -> None:
        self._flows += self._line.drain()

    def _report(self) -> FileReport:
        first_ns = self._tally.first_ns or 0
        seconds = (self._tally.last_ns - first_ns) / 1e9
        mining = sum(d.bytes.up + d.bytes.down for d in self._line.run.documents() if d.role != "pool")
        refused = _refusals(self._detector.packets)
        return FileReport(
            path=printable(self._path),
            packets=self._tally.frames,
            flows=self._flows,
            bytes=self._tally.bytes,
            refused={r: n - self._refused[r] for r, n in refused.items() if n > self._refused[r]},
            first_ns=first_ns,
            last_ns=self._tally.last_ns,
            mining_mbps=mining * 8 / 1e6 / seconds if seconds else 0.0,
        )

    def found(self) -> list[ScanIncident]:
        """The incidents of this file."""
        return [ScanIncident(printable(self._path), d) for d in self._line.run.documents()]


class _Interruptible:
    """A file that is read as far as it comes, and is at its end once ``stopped`` says so: a live pipe may be
    silent for long."""

    def __init__(self, file: IO[bytes], stopped: Callable[[], bool]) -> None:
        self._file = file
        self._stopped = stopped
        self._waits = not file.seekable()

    def read(self, n: int) -> bytes:
        """Up to ``n`` octets, as soon as there are any; none at the end."""
        while self._waits and not self._stopped():
            if select.select([self._file], [], [], WAIT_S)[0]:
                return self._file.read1(n)  # type: ignore[attr-defined]
        return b"" if self._stopped() else self._file.read(n)


def _position(file: IO[bytes]) -> int:
    try:
        return file.tell()
    except OSError:
        return 0


def _paced(
    blocks: Iterable[pcapfile.Block], pace: float, stopped: Callable[[], bool]
) -> Iterator[pcapfile.Block]:
    """Blocks no faster than ``pace`` seconds of the data in a second, cut into steps of ``STEP_S``."""
    began = time.monotonic()
    first: int | None = None
    for block in blocks:
        if not pace or not block.t_ns.size:
            yield block
            continue
        first = int(block.t_ns[0]) if first is None else first
        step = (block.t_ns - first) // max(1, int(STEP_S * 1e9 * pace))
        edges = [0, *(np.flatnonzero(np.diff(step)) + 1).tolist(), block.t_ns.size]
        for a, b in pairwise(edges):
            due = began + (int(block.t_ns[a]) - first) / 1e9 / pace
            while (left := due - time.monotonic()) > 0 and not stopped():
                time.sleep(min(left, STEP_S))
            yield block.part(a, b)


class LiveFlows:
    """Exports as they come from the wire, judged in this process."""

    def __init__(self, service: "Service") -> None:
        detector = service.detector
        config = detector.config
        self._detector = detector
        self._line = Line(detector, "live flows", service.sink)
        self._collector = self._line.flow_collector()
        self._lookups = Lookups(config.resolver, [row.domain for row in detector.pools.resolvable()])
        self._began_ns = time.time_ns()
        self._flows = 0

    def feed(self, datagrams: Sequence[Datagram]) -> None:
        """Take what was received, or nothing: the time goes on."""
        found = self._lookups.found()
        if found:
            with self._detector.guard:
                list(resolver.teach(found, self._line.engine.resolutions))
        self._collector.feed(datagrams, time.time_ns())
        self._flows += self._line.drain()

    def finish(self) -> tuple[list[FileReport], list[ScanIncident]]:
        """Publish what waits; what was received, and the incidents."""
        self._collector.finish()
        self._flows += self._line.drain()
        report = FileReport(
            path="live", packets=0, flows=self._flows, bytes=0, refused={}, first_ns=self._began_ns,
            last_ns=time.time_ns(),
        )  # fmt: skip
        with self._detector.guard:
            self._line.finish()
            return [report], [ScanIncident("live", d) for d in self._line.run.documents()]


class Lookups:
    """Addresses of pools, looked up over and over on a thread of its own; only where servers are given."""

    def __init__(self, config: resolver.Config, names: Sequence[str]) -> None:
        """Raises ConfigError on a server that is no address."""
        self._config = config
        self._names = names
        self._queue: SimpleQueue[resolver.Resolved] = SimpleQueue()
        for server in config.servers:
            resolver.server(server)
        if config.servers:
            Thread(target=self._run, name="resolver", daemon=True).start()

    def _run(self) -> None:
        config = self._config
        while True:
            for one in resolver.resolve(
                self._names, config.servers, config.rate_per_s, timeout_s=config.timeout_s
            ):
                self._queue.put(one)
            time.sleep(config.every_s)

    def found(self) -> list[resolver.Resolved]:
        """What was found since the last call."""
        return [self._queue.get() for _ in range(self._queue.qsize())]
