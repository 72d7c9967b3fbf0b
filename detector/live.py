"""``poolwatch run``: replays and live links, a live table, metrics and health, until told to stop."""

import argparse
import sys
import threading
import time
from collections.abc import Callable

import msgspec
from rich.console import Console
from rich.live import Live

from detector import app, links
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
        # A replay while it lasts, else what is live.
        shown = next((run for run in reversed(runs) if run.engine is not None), runs[-1] if runs else None)
        title = f"{shown.name}: {len(found)} incidents" if shown else "waiting"
        self._live.update(
            table(found, title, most=max(5, self._console.height - 6), width=self._console.width),
            refresh=True,
        )


def serve(
    config: Config,
    options: argparse.Namespace,
    say: Callable[[str], None],
    show: Callable[[list[FileReport], list[ScanIncident]], None],
    on_stop: Callable[[Callable[[], None]], None],
) -> int:
    """Do the work of ``poolwatch run``; the exit status."""
    wanted = None if options.once else links.inputs(config, options)
    pace = pace_of(config, options)
    paths = options.replay or config.run.replay
    # What is collected from a folder is one link's, in files that somebody rotates: one run.
    paths = list(paths) if options.command == "collect" else app.captures(paths)
    service, stop = _begin(config, options, say, on_stop)
    held = None
    if wanted:
        service.links = links.Links(wanted, service.registry, service.detector.netflow.socket_drops.inc, say)
        service.links.reloads(service.reloads)
        if remark := wanted.address and links.one_process(wanted.netflow):
            say(remark)
        # Who we are to be may have no access to them.
        held = app.Held(paths)
    with service:
        with Screen(service) as screen:
            turn = _Turn(service, screen, say)
            turn.follow = config.collectors.capture.follow_state if _follows(options) else None
            files, found, status = _replay(turn, paths, pace, stop, options.kind or "any", held)
            if not options.once and not stop.is_set():
                where = options.listen or config.http.listen
                over = "replay is over; " if paths else ""
                say(f"{over}metrics on http://{where}/metrics; Ctrl-C ends it")
            while not options.once and not stop.is_set():
                turn.wait(stop)
            service.notify.stopping()
            more = turn.finish()
        files, found = files + more[0], found + more[1]
    if options.once:
        show(files, found)
        return status
    for line in summary_lines(summary([f.incident for f in found], files)):
        print(line, file=sys.stderr)  # noqa: T201 - the last words of a service, for whoever stopped it
    return status


def _follows(options: argparse.Namespace) -> bool:
    return options.command == "collect" and bool(options.follow)


class _Turn:
    """What the loop does over and over: it hears live links, if any, says that it lives, and draws."""

    def __init__(self, service: app.Service, screen: Screen, say: Callable[[str], None]) -> None:
        self.say = say
        self._service = service
        self._screen = screen
        self._links = service.links
        self.live: app.Live | None = None
        self.follow: str | None = None
        if self._links is not None and (self._links.captures or self._links.receives):
            name = str(self._links)
            self.live = app.Live(service, name, captures=self._links.captures, receives=self._links.receives)
            service.notify.status = f"receiving on {name}"
            say(service.notify.status)

    def take(self, wait_s: float = 0.0) -> None:
        """One turn, which waits for frames and datagrams for up to ``wait_s``."""
        if self.live is not None and self._links is not None:
            self._links.turn(self.live.frames, self.live.datagrams, wait_s)
        self._service.turn()
        self._service.is_ready = True
        self._screen.draw()

    def wait(self, stop: threading.Event) -> None:
        """A turn at leisure."""
        if self.live is None:
            stop.wait(1.0)
        self.take(links.WAIT_S)

    def replay(self, path: str, kind: str, held: app.Held | None) -> app.Replay:
        """A file that is replayed beside them."""
        beside = self.live.refused if self.live is not None else None
        return app.Replay(self._service.detector, path, self._service.sink, kind, held, beside, self.follow)

    def finish(self) -> tuple[list[FileReport], list[ScanIncident]]:
        """What came of the live links."""
        return self.live.finish() if self.live is not None else ([], [])


def _replay(
    turn: _Turn,
    paths: list[str],
    pace: float,
    stop: threading.Event,
    kind: str,
    held: app.Held | None,
) -> tuple[list[FileReport], list[ScanIncident], int]:
    files: list[FileReport] = []
    found: list[ScanIncident] = []
    status = 0
    for path in paths:
        if stop.is_set():
            break
        turn.take()
        replay = turn.replay(path, kind, held)
        try:
            files.append(replay.run(stop.is_set, lambda _position: turn.take(), pace))
            found += replay.found()
            for error in replay.errors:
                turn.say(app.printable(error))
                status = 1
        except InputError as error:
            turn.say(app.printable(str(error)))
            status = 1
    if held is not None:
        held.close()
    turn.take()
    return files, found, status


def collect_live(
    config: Config,
    options: argparse.Namespace,
    say: Callable[[str], None],
    show: Callable[..., None],
    on_stop: Callable[[Callable[[], None]], None],
) -> int:
    """Capture, or receive exports, until told to stop; the detector is in this process."""
    wanted = links.inputs(config, options)
    if remark := wanted.address and links.one_process(wanted.netflow):
        say(remark)
    service, stop = _begin(config, options, say, on_stop)
    service.links = links.Links(wanted, service.registry, service.detector.netflow.socket_drops.inc, say)
    service.links.reloads(service.reloads)
    with service:
        with Screen(service) as screen:
            turn = _Turn(service, screen, say)
            ends = time.monotonic() + options.seconds if options.seconds else None
            while not stop.is_set() and (ends is None or time.monotonic() < ends):
                turn.take(links.WAIT_S)
            service.notify.stopping()
        files, found = turn.finish()
    show(files, found, live=True)
    return 0


def pace_of(config: Config, options: argparse.Namespace) -> float:
    """Seconds of the data a second.  Raises ConfigError where that cannot be."""
    pace = config.run.pace if options.pace is None else options.pace
    if not 0 <= pace <= MOST_PACE:
        raise ConfigError(f"--pace must be from 0 to {MOST_PACE:g}")
    return float(pace)


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
    if topic := config.collectors.netflow.goflow2.topic:
        say(f"nothing is sent to {topic} (collectors.netflow.goflow2): only collect over Kafka does that")
    service.reloads.listen()
    stop = threading.Event()
    on_stop(stop.set)
    app.warm_kernels(say)
    return service, stop
