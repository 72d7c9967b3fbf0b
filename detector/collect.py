"""Composition root of ``poolwatch collect``: traffic in, the streams on Kafka out.

With the embedded bus there is nobody else to judge what is collected: ``live`` does both in this process.
"""

import argparse
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from prometheus_client import CollectorRegistry

from collectors.importing.collector import Config as ImportConfig
from collectors.importing.metrics import Metrics as ImportMetrics
from collectors.kafka.sender import Sender, new_life
from detector import app, importing, live, workers
from detector.config import Config
from detector.errors import ConfigError, InputError
from detector.exporters.http import Http
from detector.exporters.report import FileReport, ScanIncident
from detector.goflow2 import Output
from detector.links import WAIT_S, Given, Inputs, Links, inputs
from detector.notify import Notifier
from detector.reading import Reading, printable
from detector.reload import Reloads
from detector.site import Site

LIVE_S = 30
MOST_NAME = 180

Say = Callable[[str], None]
Show = Callable[[list[FileReport], list[ScanIncident]], None]
OnStop = Callable[[Callable[[], None]], None]


def collect(config: Config, options: argparse.Namespace, say: Say, show: Show, on_stop: OnStop) -> int:
    """Do the work of ``poolwatch collect``; the exit status."""
    pace = live.pace_of(config, options)
    if options.seconds is not None and not options.seconds > 0:
        raise ConfigError("--seconds must be more than 0")
    follow = _following(config, options)
    _live_only(options)
    imports = importing.wanted(config.collectors.imports, options) if options.kind == "flows" else None
    if imports is not None:
        if config.bus != "kafka":
            raise ConfigError('--topic reads Kafka and sends to it: set bus = "kafka"')
        return Station(config, options, say, on_stop).imports(imports, options.seconds)
    if config.bus == "embedded":
        if options.kind == "flows" and config.collectors.netflow.goflow2.topic:
            raise ConfigError('collectors.netflow.goflow2.topic: it is sent to over Kafka: set bus = "kafka"')
        if options.replay:
            return live.serve(config, options, say, show, on_stop)
        if options.kind == "packets" and workers.count(config, options.kind) > 1:
            say('one process captures and judges: workers are for bus = "kafka"')
        return live.collect_live(config, options, say, show, on_stop)
    wanted = None if options.replay else inputs(config, options)
    if wanted is not None and workers.count(config, options.kind) > 1:
        return workers.serve(config, options, wanted, say, on_stop)
    station = Station(config, options, say, on_stop)
    if wanted is None:
        return station.files(options.replay, options.kind, pace, follow)
    return station.live(wanted, options.seconds)


def _following(config: Config, options: argparse.Namespace) -> str | None:
    """The file that remembers how far a folder was followed, or "", where one is to be: it stands for the
    FILE then.  Raises ConfigError where it is not alone."""
    named = options.replay or options.interface if options.kind == "packets" else True
    if options.follow and named:
        raise ConfigError("--follow reads one folder: no FILE and no --interface beside it")
    options.follow = options.follow or ("" if named else config.collectors.capture.follow)
    if not options.follow:
        return None
    options.replay = [options.follow]
    return config.collectors.capture.follow_state


def _live_only(options: argparse.Namespace) -> None:
    """Raises ConfigError on what is said of a live link beside files, which would not heed it."""
    names = "interface", "filter", "source", "ports", "seconds"
    said = [f"--{name}" for name in names if getattr(options, name, None)]
    if options.replay and said:
        raise ConfigError(f"{', '.join(said)}: of what is live, not beside a FILE or a followed folder")


class Station:
    """One process of collectors before Kafka.  Making it opens nothing."""

    def __init__(self, config: Config, options: argparse.Namespace, say: Say, on_stop: OnStop) -> None:
        self._say = say
        self._stop = threading.Event()
        self._ready = False
        self._turned = time.monotonic()
        self.registry = registry = CollectorRegistry()
        self._config = config
        self._site = Site(config, registry)
        self._sender = Sender(config.kafka, registry, stopped=self._stop.is_set)
        self._output = Output(
            config.collectors.netflow.goflow2, config.kafka, self._sender.metrics, self._stop.is_set
        )
        listen = options.listen or config.http.listen
        self._http = Http(listen, registry, self._is_live, lambda: self._ready)
        self._notify = Notifier(self._is_live, lambda: self._ready)
        self._serve_files = bool(options.listen)
        self.reloads = Reloads(registry, around=self._notify.reloading)
        self._site.reloads(self.reloads)
        self.reloads.listen()
        on_stop(self._stop.set)

    def _is_live(self) -> bool:
        return time.monotonic() - self._turned < LIVE_S

    @property
    def is_ready(self) -> bool:
        """Whether all is open."""
        return self._ready

    @property
    def status(self) -> str:
        """What it does, a line for people."""
        return self._notify.status

    @property
    def sent(self) -> tuple[int, int, int, int, int]:
        """Messages, rows and octets that arrived; messages refused and failed."""
        sender = self._sender
        return sender.delivered, sender.rows, sender.octets, sender.refused, sender.failed

    def files(self, paths: list[str], kind: str, pace: float, follow: str | None = None) -> int:
        """Send files, each a run of its own, as is a folder of rotated ones, as fast as the brokers take
        them; with ``follow`` see ``Reading``.  Metrics of files are served with --listen only: several that
        read files on one host would want the same port."""
        status = 0
        with ExitStack() as stack:
            stack.enter_context(self._sender)
            if kind == "flows":
                stack.enter_context(self._output)
            if self._serve_files or follow is not None:
                stack.enter_context(self._http)
            app.warm_kernels(self._say)
            self._ready = True
            if follow is not None:
                stack.enter_context(self._notify)
                self._notify.status = f"following {paths[0]}"
                self._say(self._notify.status)
            for path in paths:
                if self._stop.is_set():
                    break
                try:
                    errors = self._file(path, kind, pace, follow)
                except InputError as error:
                    errors = [str(error)]
                for told in errors:
                    self._say(printable(told))
                    status = 1
        self._say(self._sender.told())
        self._say_beside(kind)
        return 1 if self._sender.lost or self._output.lost else status

    def _say_beside(self, kind: str) -> None:
        if kind == "flows" and (told := self._output.told()):
            self._say(told)

    def _file(self, path: str, kind: str, pace: float, follow: str | None) -> list[str]:
        sender, site = self._sender, self._site
        life = new_life()
        name = "stdin" if path == "-" else printable(Path(path).name)[:MOST_NAME]
        feed = sender.feed(f"{name}@{life}", life, blocking=True)
        packets = site.packet_collector(sender.partitions, feed.publish)
        beside = self._output.beside(feed.publish, blocking=True) if kind == "flows" else (feed.publish, None)
        reading = Reading(
            path,
            kind,
            packets,
            lambda: site.flow_collector(sender.partitions, *beside),
            follow=follow,
        )
        before = sender.lost

        def stopped() -> bool:
            self._turned = time.monotonic()
            self.reloads.turn()
            return self._stop.is_set() or sender.lost > before

        try:
            reading.run(stopped, lambda _position: None, pace, sender.alive)
        finally:
            feed.end()
        return reading.errors

    def imports(self, wanted: ImportConfig, seconds: float | None) -> int:
        """Read another collector's topic until told to stop, and send its records, as fast as both sides'
        brokers give and take them."""
        sender, metrics = self._sender, ImportMetrics(self.registry)
        with ExitStack() as stack:
            stack.enter_context(sender)
            feed = sender.feed(blocking=True)
            collector = self._site.import_collector(wanted, sender.partitions, feed.publish, metrics)
            imported = importing.Import(collector, metrics, sender)
            imported.open(wanted, self._config.kafka, stack)
            app.warm_kernels(self._say)
            self._ready = True
            stack.enter_context(self._http)
            stack.enter_context(self._notify)
            self._notify.status = f"importing {wanted.form} records from {wanted.topic}"
            self._say(self._notify.status)

            def turned() -> None:
                sender.alive()
                self._turned = time.monotonic()
                self.reloads.turn()

            importing.work(imported, self._stop, seconds, turned)
            self._notify.stopping()
        self._say(sender.told())
        return 1 if sender.lost else 0

    def live(
        self,
        wanted: Inputs,
        seconds: float | None,
        given: Given | None = None,
        turned: Callable[[], None] = lambda: None,
    ) -> int:
        """Capture, or receive exports, until told to stop, and send what that gives; what finds no room is
        given up.  A worker is ``given`` its share of sockets and rings, and has no face of its own:
        ``turned`` is called at every turn."""
        links = Links(wanted, self.registry, self._site.netflow.socket_drops.inc, self._say, given)
        links.reloads(self.reloads)
        with ExitStack() as stack:
            stack.enter_context(self._sender)
            if not links.captures:
                stack.enter_context(self._output)
            app.warm_kernels(self._say)
            stack.enter_context(links)
            links.confine()
            self._ready = True
            if given is None:
                stack.enter_context(self._http)
                stack.enter_context(self._notify)
            feed = self._sender.feed()
            partitions = self._sender.partitions
            # Of the two one is listened to.
            packets = self._site.packet_collector(partitions, feed.publish)
            beside = (feed.publish, None) if links.captures else self._output.beside(feed.publish)
            flows = self._site.flow_collector(partitions, *beside)
            kept = None if links.captures else self._site.templates_file(flows)
            if kept is not None:
                stack.enter_context(kept)
            self._notify.status = f"receiving on {links}"
            self._say(self._notify.status)
            ends = time.monotonic() + seconds if seconds else None
            while not self._stop.is_set() and (ends is None or time.monotonic() < ends):
                links.turn(
                    lambda block: packets.feed(block, time.time_ns()),
                    lambda found: flows.feed(found, time.time_ns()),
                    WAIT_S,
                )
                if kept is not None:
                    kept.turn()
                self._sender.alive()
                self._turned = time.monotonic()
                self.reloads.turn()
                turned()
            self._notify.stopping()
            (packets if links.captures else flows).finish()
        self._say(self._sender.told())
        self._say_beside("packets" if links.captures else "flows")
        return 0
