"""Composition root: configuration in, a role that has opened nothing out.  The only module that knows
every part of the detector."""

import logging
import os
import secrets
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from prometheus_client import CollectorRegistry, disable_created_metrics

from collectors import jit, subscribers
from collectors.app import exports
from collectors.bus import MemoryBus
from collectors.errors import DecodeError
from collectors.netflow.collector import Collector as NetflowCollector
from collectors.netflow.collector import warm as warm_netflow
from collectors.netflow.datagrams import Datagram
from collectors.netflow.metrics import Metrics as NetflowMetrics
from collectors.packet import pcapfile
from collectors.packet.collector import Collector, warm
from collectors.packet.collector import Metrics as PacketMetrics
from collectors.packet.names import NameFilter
from detector import networks, poolfiles
from detector.attribution import Places
from detector.config import Config
from detector.engine import Engine, Knowledge, Told
from detector.errors import ConfigError, InputError
from detector.exporters.http import Http
from detector.exporters.jsonl import JsonLines
from detector.exporters.prometheus import Exporter
from detector.exporters.report import FileReport, ScanIncident
from detector.metrics import Complaints, Deliveries, Pace
from detector.redact import PLAIN, Names, Redactor
from detector.totals import Run, Totals

STEP_S = 0.05
PACKETS, FLOWS = "packets", "flows"
BLANK_BLOCKS = 8
WAIT_S = 0.25
CAPTURE_SUFFIXES = (".pcap", ".pcapng", ".cap", ".pcap.gz", ".pcapng.gz", ".cap.gz")


class Detector:
    """One process's detector: the parts that all its runs share."""

    def __init__(self, config: Config, registry: CollectorRegistry) -> None:
        disable_created_metrics()
        self.config = config
        self.pools = poolfiles.load(config.lists.pools, with_shipped=config.lists.shipped_pools)
        self.home = subscribers.home(
            config.home_networks,
            pool_ports=sorted(self.pools.pool_ports),
            prefix6=config.subscriber_prefix_ipv6,
        )
        self.knowledge = Knowledge(self.pools, networks.shipped(), partial(subscribers.holds, self.home))
        # Looked for in DNS answers and TLS hellos; nothing else leaves a collector.
        self.wanted = NameFilter(self.pools.exact_names, self.pools.suffixes)
        self.totals = Totals()
        self._places = Places(_lines(config.lists.places, "lists.places"))
        self._names = _names(config)
        self._registry = registry
        self.pace = Pace(registry)
        self.deliveries = Deliveries(registry)
        self.packets = PacketMetrics(registry)
        self.netflow = NetflowMetrics(registry)
        self.complaints = Complaints(logging.getLogger("poolwatch"))
        self.guard = Lock()
        registry.register(Exporter(self.totals, version("poolwatch"), self.guard))

    def engine(self) -> Engine:
        """A fresh engine: its own clock, its own state."""
        return Engine(
            self.config.detector,
            place_of=self._places.find,
            names=self._names,
            prefix6=self.config.subscriber_prefix_ipv6,
            knowledge=self.knowledge,
        )


def _lines(path: str, key: str) -> Iterable[str]:
    if not path:
        return ()
    try:
        return Path(path).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from None


def _names(config: Config) -> Names:
    if not config.output.redact:
        return PLAIN
    path = config.output.redact_key_file
    key = "\n".join(_lines(path, "output.redact_key_file")).encode() if path else secrets.token_bytes(32)
    if not key.strip():
        raise ConfigError(f"output.redact_key_file: {path} is empty")
    return Redactor(key)


def captures(paths: Iterable[str]) -> list[str]:
    """Files as named; of a folder the captures in it, in order of name.  ``-`` is standard input."""
    out: list[str] = []
    for given in paths:
        if given == "-" or not Path(given).is_dir():
            out.append(given)
        else:
            found = sorted(
                p for p in Path(given).iterdir() if p.name.endswith(CAPTURE_SUFFIXES) and p.is_file()
            )
            out += [str(p) for p in found]
    return out


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

    def __init__(self, detector: Detector, name: str, sink: JsonLines | None) -> None:
        self._detector = detector
        self._sink = sink
        self._refused = 0
        self.bus = MemoryBus(detector.config.bus.capacity)
        self.engine = detector.engine()
        self.run: Run = detector.totals.start(self.engine, name)

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
        self, detector: Detector, path: str, sink: JsonLines | None = None, kind: str = "any"
    ) -> None:
        self._detector = detector
        self._path = path
        self._line = Line(detector, path, sink)
        self._line.bus.spill = self._drain
        self._collector = Collector(
            detector.config.collectors.packets,
            detector.home,
            detector.config.bus.partitions,
            self._line.bus.publish,
            detector.packets,
            detector.wanted,
        )
        self._exports = NetflowCollector(
            detector.config.collectors.netflow,
            detector.home,
            detector.config.bus.partitions,
            self._line.bus.publish,
            detector.netflow,
        )
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
        self._detector = detector
        self._line = Line(detector, "live flows", service.sink)
        self._collector = NetflowCollector(
            detector.config.collectors.netflow, detector.home, detector.config.bus.partitions,
            self._line.bus.publish, detector.netflow,
        )  # fmt: skip

    def feed(self, datagrams: Sequence[Datagram]) -> None:
        """Take what was received, or nothing: the time goes on."""
        self._collector.feed(datagrams, time.time_ns())
        self._line.drain()

    def finish(self) -> list[ScanIncident]:
        """Publish what waits; the incidents."""
        self._collector.finish()
        self._line.drain()
        with self._detector.guard:
            self._line.finish()
            return [ScanIncident("live", d) for d in self._line.run.documents()]


def warm_kernels(say: Callable[[str], None]) -> None:
    """Compile or load every kernel before the first packet."""
    jit.warm([warm, warm_netflow], say)


class Service:
    """What ``poolwatch run`` holds open while it works."""

    def __init__(self, config: Config) -> None:
        self.registry = CollectorRegistry()
        self.detector = Detector(config, self.registry)
        self.loop_turned = time.monotonic()
        self.is_ready = False
        self.http = Http(config.http.listen, self.registry, self._live, lambda: self.is_ready)
        self.sink = (
            JsonLines(Path(config.output.jsonl), self.detector.deliveries) if config.output.jsonl else None
        )
        self._stack = ExitStack()

    def _live(self) -> bool:
        return time.monotonic() - self.loop_turned < 30

    def __enter__(self) -> "Service":
        if self.sink is not None:
            self._stack.enter_context(self.sink)
        self._stack.enter_context(self.http)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
