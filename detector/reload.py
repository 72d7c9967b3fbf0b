"""Lists that are read again on SIGHUP: each is taken whole, or the old one stays and that is said.

Who builds a process adds its lists, with how one is read and what takes it over; ``turn`` does the work, in
the loop that also judges, so that nothing is changed under anybody.  The configuration itself is not read
again.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Gauge

from detector.errors import ConfigError

Read = TypeVar("Read")


class Metrics:
    """How the last reading of each list went."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"poolwatch_list_{name}", text, ["list"], registry=registry)

        self.success = gauge(
            "last_reload_success", "1 if the list was read the last time, 0 if the old one stays."
        )
        self.timestamp = gauge("last_reload_timestamp_seconds", "When the list in force was read, Unix time.")
        self.entries = gauge("entries", "Rows of the list in force.")


class _List(NamedTuple):
    name: str
    read: Callable[[], Any]
    take: Callable[[Any], None]


class Reloads:
    """The lists of a process.  ``around`` is entered for the time of a reload; ``guard`` while a list is
    taken over."""

    def __init__(
        self,
        registry: CollectorRegistry,
        guard: AbstractContextManager[Any] | None = None,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = Metrics(registry)
        self._guard = guard or threading.Lock()
        self._around = around
        self._now_s = now_s
        self._log = logging.getLogger("poolwatch")
        self._lists: list[_List] = []
        # No Event: setting one takes a lock, which the interrupted thread may hold itself.
        self._asked = False

    def add(
        self, name: str, present: Iterable[Any], read: Callable[[], Read], take: Callable[[Read], None]
    ) -> None:
        """A list, of which the rows ``present`` are in force.  ``read`` raises ConfigError where it is
        broken, and gives something that has a length."""
        self._lists.append(_List(name, read, take))
        self._good(name, sum(1 for _ in present))

    def listen(self) -> None:
        """Take SIGHUP as the wish to reload, and say on standard error what came of it.  Signals are the main
        thread's: elsewhere this does nothing."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, lambda *_: self.ask())
            # What is only of note, not wrong, would not be shown.
            self._log.setLevel(logging.INFO)
            if logging.lastResort is not None:
                logging.lastResort.setLevel(logging.INFO)

    def ask(self) -> None:
        """Have the next ``turn`` reload."""
        self._asked = True

    def turn(self) -> None:
        """Reload if somebody asked."""
        if self._asked:
            self._asked = False
            with self._around():
                told = [said for one in self._lists if (said := self._reload(one))]
            if told or not self._lists:
                self._log.info("lists reloaded %s", " ".join(told) or "none: the configuration names none")

    def _reload(self, one: _List) -> str:
        """Its name and how many entries it has now; "" where the old one stays."""
        try:
            found = one.read()
            with self._guard:
                one.take(found)
        except ConfigError as error:
            self._metrics.success.labels(one.name).set(0)
            self._log.error("list is broken, the old one stays list=%s: %s", one.name, error)
            return ""
        self._good(one.name, len(found))
        return f"{one.name}={len(found)}"

    def _good(self, name: str, entries: int) -> None:
        self._metrics.success.labels(name).set(1)
        self._metrics.timestamp.labels(name).set(self._now_s())
        self._metrics.entries.labels(name).set(entries)


def text_of(path: str, key: str) -> str:
    """The content of a file that the configuration names in ``key``.  Raises ConfigError."""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {path}: {getattr(error, 'strerror', None) or error}") from None


def prefixes(path: str, key: str) -> tuple[str, ...]:
    """Prefixes, one a line; ``#`` begins a remark.  Raises ConfigError; what is no prefix is found later."""
    lines = (line.partition("#")[0].strip() for line in text_of(path, key).splitlines())
    return tuple(line for line in lines if line)
