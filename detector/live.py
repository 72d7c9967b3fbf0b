"""``poolwatch run``: replay, a live table, metrics and health, until told to stop."""

import argparse
import sys
import threading
import time
from collections.abc import Callable

import msgspec
from rich.console import Console
from rich.live import Live

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
    if options.listen:
        config = msgspec.structs.replace(
            config, http=msgspec.structs.replace(config.http, listen=options.listen)
        )
    pace = config.run.pace if options.pace is None else options.pace
    if not 0 <= pace <= MOST_PACE:
        raise ConfigError(f"--pace must be from 0 to {MOST_PACE:g}")
    service = app.Service(config)
    stop = threading.Event()
    on_stop(stop.set)
    app.warm_kernels(say)
    with service:
        files, found, status = _replay(service, options.replay or config.run.replay, pace, stop, say)
        if options.once:
            show(files, found)
            return status
        if not stop.is_set():
            say(f"replay is over; metrics on http://{config.http.listen}/metrics; Ctrl-C ends it")
        while not stop.wait(1.0):
            service.loop_turned = time.monotonic()
        for line in summary_lines(summary([f.incident for f in found], files)):
            print(line, file=sys.stderr)  # noqa: T201 - the last words of a service, for whoever stopped it
    return status


def _replay(
    service: app.Service,
    paths: tuple[str, ...],
    pace: float,
    stop: threading.Event,
    say: Callable[[str], None],
) -> tuple[list[FileReport], list[ScanIncident], int]:
    files: list[FileReport] = []
    found: list[ScanIncident] = []
    status = 0
    with Screen(service) as screen:
        for path in app.captures(paths):
            if stop.is_set():
                break
            replay = app.Replay(service.detector, path, service.sink)

            def moved(_position: int) -> None:
                service.loop_turned = time.monotonic()
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
