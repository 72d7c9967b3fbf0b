"""``poolwatch run``: replay, a live table, metrics and health, until told to stop."""

import argparse
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import msgspec
from rich.console import Console
from rich.live import Live

from collectors.netflow.udp import Receiver
from detector import app
from detector.config import Config
from detector.errors import ConfigError, InputError
from detector.exporters.report import FileReport, ScanIncident, summary, summary_lines, table

REFRESH_S = 0.25
MOST_PACE = 1e6


class Screen:
    """The live table on a terminal; nothing where there is none."""

    def __init__(self, service: app.Service) -> None:
        self._service = service
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._drawn = 0.0

    def __enter__(self) -> "Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self.draw(force=True)
            self._live.stop()

    def draw(self, *, force: bool = False) -> None:
        """Redraw at most four times a second."""
        now = time.monotonic()
        if self._live is None or (not force and now - self._drawn < REFRESH_S):
            return
        self._drawn = now
        runs = self._service.detector.totals.runs
        found = [ScanIncident(run.name, d) for run in runs for d in run.documents()]
        title = f"{runs[-1].name}: {len(found)} incidents" if runs else "waiting"
        self._live.update(table(found, title, most=max(5, self._console.height - 6)), refresh=True)


def serve(
    config: Config,
    options: argparse.Namespace,
    say: Callable[[str], None],
    show: Callable[[list[FileReport], list[ScanIncident]], None],
    on_stop: Callable[[Callable[[], None]], None],
) -> int:
    """Do the work of ``poolwatch run``; the exit status."""
    kind = options.kind or "any"
    pace = pace_of(config, options)
    service, stop = _begin(config, options, say, on_stop)
    with service:
        files, found, status = _replay(service, options.replay or config.run.replay, pace, stop, say, kind)
        if options.once:
            show(files, found)
            return status
        if not stop.is_set():
            where = options.listen or config.http.listen
            say(f"replay is over; metrics on http://{where}/metrics; Ctrl-C ends it")
        while not stop.wait(1.0):
            service.turn()
        for line in summary_lines(summary([f.incident for f in found], files)):
            print(line, file=sys.stderr)  # noqa: T201 - the last words of a service, for whoever stopped it
    return status


def _replay(
    service: app.Service,
    paths: tuple[str, ...],
    pace: float,
    stop: threading.Event,
    say: Callable[[str], None],
    kind: str,
) -> tuple[list[FileReport], list[ScanIncident], int]:
    files: list[FileReport] = []
    found: list[ScanIncident] = []
    status = 0
    with Screen(service) as screen:
        for path in app.captures(paths):
            if stop.is_set():
                break
            replay = app.Replay(service.detector, path, service.sink, kind)

            def moved(_position: int) -> None:
                service.turn()
                screen.draw()

            service.is_ready = True
            try:
                files.append(replay.run(stop.is_set, moved, pace))
                found += replay.found()
            except InputError as error:
                say(str(error))
                status = 1
    service.is_ready = True
    return files, found, status


def collect_flows(
    config: Config,
    options: argparse.Namespace,
    say: Callable[[str], None],
    show: Callable[[list[FileReport], list[ScanIncident]], None],
    on_stop: Callable[[Callable[[], None]], None],
) -> int:
    """Receive exports over UDP until told to stop; with the embedded bus the detector is in this process."""
    ports = ports_of(options.ports) if options.ports else config.collectors.netflow.ports
    service, stop = _begin(config, options, say, on_stop)
    with ExitStack() as stack:
        lost = service.detector.netflow.socket_drops.inc
        receivers = [stack.enter_context(Receiver(options.udp, port, lost=lost)) for port in ports]
        stack.enter_context(service)
        live = app.LiveFlows(service)
        say(f"receiving on {options.udp} UDP {', '.join(str(r.port) for r in receivers)}")
        ends = time.monotonic() + options.seconds if options.seconds else None
        with Screen(service) as screen:
            while not stop.is_set() and (ends is None or time.monotonic() < ends):
                for receiver in receivers:
                    live.feed(receiver.receive(0.1 / len(receivers)))
                service.turn()
                service.is_ready = True
                screen.draw()
        files, found = live.finish()
    show(files, found)
    return 0


def pace_of(config: Config, options: argparse.Namespace) -> float:
    """Seconds of the data a second.  Raises ConfigError where that cannot be."""
    pace = config.run.pace if options.pace is None else options.pace
    if not 0 <= pace <= MOST_PACE:
        raise ConfigError(f"--pace must be from 0 to {MOST_PACE:g}")
    return float(pace)


def ports_of(text: str) -> tuple[int, ...]:
    """Port numbers between commas.  Raises ConfigError on anything else."""
    try:
        ports = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--ports: {text!r} is no list of port numbers") from None
    if not all(0 <= port <= 65535 for port in ports):
        raise ConfigError(f"--ports: {text!r}: a port is 0 to 65535")
    return ports


def _begin(
    config: Config,
    options: argparse.Namespace,
    say: Callable[[str], None],
    on_stop: Callable[[Callable[[], None]], None],
) -> tuple[app.Service, threading.Event]:
    """A service that has opened nothing yet, its kernels ready, and the event that stops it."""
    if options.listen:
        http = msgspec.structs.replace(config.http, listen=options.listen)
        config = msgspec.structs.replace(config, http=http)
    service = app.Service(config)
    service.reloads.listen()
    stop = threading.Event()
    on_stop(stop.set)
    app.warm_kernels(say)
    return service, stop
