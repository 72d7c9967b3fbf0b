"""``poolwatch collect`` by several processes: the work shared among workers, one face to the outside.

This process opens the sockets or rings, starts the workers and looks after them; it serves the metrics of all
(each sample with the label ``worker``), their health, systemd and signals.  It decodes nothing.  Workers are
fresh processes, not forks: nothing is shared but what was opened and compiled kernels on disk, and no lock
stands between them.  What the kernel gives to which of them is told in ``shares``.

A worker that dies is started again, on the same sockets or rings: what came meanwhile waits there, and the
others notice nothing.  One that dies before it was ever ready, that cannot be started, or that dies more than
``MOST_DEATHS`` times in ``DEATHS_S``, ends the whole with its status: then it is no accident, and systemd
says the rest.
"""

import argparse
import logging
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from detector import app, shares
from detector.channel import MOST_BYTES, RELOAD, STOP, Family, News, Orders, unpacked
from detector.config import Config
from detector.errors import InputError
from detector.exporters.http import Http
from detector.links import Inputs, Links
from detector.notify import Notifier
from detector.reload import Reloads
from detector.site import Site

LIVE_S: Final = 30.0
MOST_DEATHS: Final = 5
DEATHS_S: Final = 120.0
AGAIN_S: Final = 0.5
# systemd waits for 45 s (TimeoutStopSec); a sender takes up to 20.
STOP_S: Final = 40.0
RELOAD_S: Final = 30.0
WAIT_S: Final = 0.2


def count(config: Config, kind: str) -> int:
    """How many workers are wanted: of ``packets`` or of ``flows``."""
    collectors = config.collectors
    wanted = collectors.capture.workers if kind == "packets" else collectors.netflow.workers
    return wanted or len(os.sched_getaffinity(0))


class Metrics:
    """Everything that moves in this file."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.running = Gauge("poolwatch_collector_workers", "Workers that run.", registry=registry)
        self.restarts = Counter(
            "poolwatch_collector_worker_restarts", "Workers that died and were started again.", ["worker"],
            registry=registry,
        )  # fmt: skip


class Merged(Collector):
    """The metrics of all workers, as they last told them."""

    def __init__(self) -> None:
        self.told: dict[int, list[Family]] = {}

    def collect(self) -> Iterator[Metric]:
        """Each family once, each sample with its worker."""
        found: dict[str, Metric] = {}
        for worker, families in sorted(self.told.items()):
            for family in families:
                metric = found.setdefault(family.name, Metric(family.name, family.told, family.kind))
                for name, labels, value in family.samples:
                    metric.add_sample(name, labels | {"worker": str(worker)}, value)
        yield from found.values()


class Worker:
    """One of them, from outside."""

    def __init__(self, number: int, orders: Orders) -> None:
        self.number = number
        self._orders = orders
        self._process: subprocess.Popen[bytes] | None = None
        self.channel: socket.socket | None = None
        self.news: News | None = None
        self.heard_s = time.monotonic()
        self.was_ready = False
        self.deaths: deque[float] = deque(maxlen=MOST_DEATHS + 1)
        self.start_at_s = 0.0

    @property
    def pid(self) -> int:
        """0 where it does not run."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Begin.  It has its own session: a signal to our group is ours to pass on.  Raises OSError where it
        cannot be started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_BYTES)
        with theirs:
            command = [sys.executable, "-P", "-m", "detector.worker", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(), *self._orders.descriptors), stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        ours.send(msgspec.msgpack.encode(self._orders))
        self.channel, self.news, self.heard_s = ours, None, time.monotonic()

    def say(self, wish: bytes) -> None:
        """Tell it; one that is dead does not hear."""
        try:
            if self.channel is not None:
                self.channel.send(wish, socket.MSG_DONTWAIT)
        except OSError:
            return

    def hear(self) -> bool:
        """Take its news; False where there will be no more."""
        packet = self.channel.recv(MOST_BYTES) if self.channel is not None else b""
        if packet:
            self.news, self.heard_s = unpacked(packet), time.monotonic()
            self.was_ready |= self.news.ready
        return bool(packet)

    def ended(self, timeout_s: float = 0.0) -> int | None:
        """Its status if it has ended by then (a signal is negative); None while it runs."""
        if self._process is None:
            return 0
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._process = None
        if self.channel is not None:
            self.channel.setblocking(False)
            try:
                while self.hear():
                    pass
            except OSError:
                # Nothing more, or not closed at the other end.
                pass
            self.channel.close()
            self.channel = None
        return status

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self.ended(5.0)


class Crew:
    """All workers, and the face they have.  Making it opens nothing."""

    def __init__(
        self,
        config: Config,
        options: argparse.Namespace,
        wanted: Inputs,
        say: Callable[[str], None],
        on_stop: Callable[[Callable[[], None]], None],
    ) -> None:
        """Raises ConfigError on all that the workers would."""
        Links(wanted, CollectorRegistry(), lambda _: None, say)
        self._log = logging.getLogger("poolwatch")
        self._config, self._wanted, self._say = config, wanted, say
        self._stop = threading.Event()
        self._registry = CollectorRegistry()
        # Read for its mistakes only.
        Site(config, CollectorRegistry())
        self._merged = Merged()
        self._registry.register(self._merged)
        self._metrics = Metrics(self._registry)
        self._http = Http(options.listen or config.http.listen, self._registry, self._is_live, self._is_ready)
        self._notify = Notifier(self._is_live, self._is_ready)
        own = CollectorRegistry()
        self._reloads = Reloads(own, around=self._reloading)
        self._reloads.listen()
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._turned = time.monotonic()
        on_stop(self._stop.set)

    def _is_live(self) -> bool:
        """The loop turns, and so do those of all workers that are past their start."""
        oldest = min((w.heard_s for w in self._workers if w.was_ready), default=self._turned)
        return time.monotonic() - min(oldest, self._turned) < LIVE_S

    def _is_ready(self) -> bool:
        """All run, and have said so: one that died is not, until it is back."""
        return bool(self._workers) and all(
            w.pid and w.news is not None and w.news.ready for w in self._workers
        )

    def run(self, workers: int, seconds: float | None) -> int:
        """Until told to stop; the exit status."""
        app.warm_kernels(self._say)
        with ExitStack() as stack:
            given = stack.enter_context(shares.made(self._config, self._wanted, workers, self._say))
            self._workers = [Worker(n, given.orders(n)) for n in range(given.workers)]
            stack.callback(self._end)
            for worker in self._workers:
                self._metrics.restarts.labels(str(worker.number))
                self._start(worker)
            given.confine()
            stack.enter_context(self._http)
            stack.enter_context(self._notify)
            status = self._loop(seconds, str(given))
            self._notify.stopping()
            stopped = self._finish()
        self._say(self._told())
        return status or stopped

    def _start(self, worker: Worker) -> None:
        try:
            worker.start()
        except OSError as error:
            raise InputError(f"worker {worker.number} cannot be started: {error}") from None
        if worker.channel is not None:
            self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        self._metrics.running.set(sum(bool(w.pid) for w in self._workers))

    def _loop(self, seconds: float | None, where: str) -> int:
        ends = None
        while not self._stop.is_set() and (ends is None or time.monotonic() < ends):
            self._hear(WAIT_S)
            for worker in self._workers:
                status = self._look_after(worker)
                if status is not None:
                    return status
            if not self._notify.status and self._is_ready():
                self._notify.status = f"receiving on {where}"
                self._say(f"{self._notify.status}, {len(self._workers)} workers")
                ends = time.monotonic() + seconds if seconds else None
            self._reloads.turn()
            self._turned = time.monotonic()
        return 0

    def _hear(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            worker: Worker = key.data
            try:
                goes_on = worker.hear()
            except OSError:
                goes_on = False
            if not goes_on:
                self._selector.unregister(key.fileobj)
            elif worker.news is not None:
                self._merged.told = self._merged.told | {worker.number: worker.news.families}

    def _look_after(self, worker: Worker) -> int | None:
        """Start one again that died; the status to end with where that will not do."""
        now = time.monotonic()
        if not worker.pid:
            if now >= worker.start_at_s:
                try:
                    self._start(worker)
                except InputError as error:
                    self._log.error("all ends: %s", error)
                    return 1
            return None
        channel = worker.channel
        status = worker.ended()
        if status is None:
            return None
        if channel is not None and channel in {k.fileobj for k in self._selector.get_map().values()}:
            self._selector.unregister(channel)
        worker.deaths.append(now)
        self._metrics.running.set(sum(bool(w.pid) for w in self._workers))
        often = len(worker.deaths) > MOST_DEATHS and now - worker.deaths[0] < DEATHS_S
        if often or not worker.was_ready:
            self._log.error("worker died, all ends worker=%d status=%d", worker.number, status)
            return status if status > 0 else 1
        self._log.error("worker died, it is started again worker=%d status=%d", worker.number, status)
        self._metrics.restarts.labels(str(worker.number)).inc()
        worker.start_at_s = now + AGAIN_S
        return None

    @contextmanager
    def _reloading(self) -> Iterator[None]:
        """Have every worker read its lists again, and wait until all have."""
        with self._notify.reloading():
            before = {w.number: w.news.reloads if w.news else 0 for w in self._workers}
            for worker in self._workers:
                worker.say(RELOAD)
            ends = time.monotonic() + RELOAD_S
            while time.monotonic() < ends and not self._stop.is_set():
                self._hear(WAIT_S)
                self._turned = time.monotonic()
                if all(w.news and w.news.reloads > before[w.number] for w in self._workers if w.pid):
                    break
            yield

    def _finish(self) -> int:
        """Let every worker send what it holds; 1 where one did not end well."""
        for worker in self._workers:
            worker.say(STOP)
        ends = time.monotonic() + STOP_S
        status = 0
        left = {w for w in self._workers if w.pid}
        while left and time.monotonic() < ends:
            self._hear(WAIT_S / 4)
            for worker in list(left):
                ended = worker.ended()
                if ended is not None:
                    left.discard(worker)
                    status = status or int(ended != 0)
        return 1 if left else status

    def _end(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._selector.close()

    def _told(self) -> str:
        """One line for people, of all workers."""
        sent = [w.news.sent for w in self._workers if w.news is not None]
        messages, rows, octets, refused, failed = map(sum, zip(*sent, strict=True)) if sent else (0,) * 5
        out = f"sent {messages} messages, {rows} rows, {octets} bytes"
        return out + (f"; refused {refused}, failed {failed}" if refused or failed else "")


def serve(
    config: Config,
    options: argparse.Namespace,
    wanted: Inputs,
    say: Callable[[str], None],
    on_stop: Callable[[Callable[[], None]], None],
) -> int:
    """Do the work of ``poolwatch collect`` by several workers; the exit status."""
    return Crew(config, options, wanted, say, on_stop).run(count(config, options.kind), options.seconds)
