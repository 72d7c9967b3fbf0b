"""The file that keeps templates and sampling rates across restarts.  A shell: it reads and writes that file.

Exporters repeat templates every few minutes, some every half hour; without the file a restart is blind for as
long.  A file that is no such file, or broken, is refused, counted and logged, and the start goes on without.
"""

import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from glob import escape
from pathlib import Path
from typing import Final

from collectors.errors import DecodeError
from collectors.netflow.collector import Collector
from collectors.netflow.metrics import Metrics

MOST_BYTES: Final = 128 << 20
_WORKER: Final = re.compile(r"-\d{1,3}$")
# What did not change is written so often, for the times in it: a template that is not heard of ages.
_ANEW_S: Final = 3600.0


class TemplatesFile(AbstractContextManager["TemplatesFile"]):
    """Entering restores what the file holds, ``turn`` writes what changed, leaving writes it a last time.

    An empty ``path`` keeps nothing.  Of several workers each has a path of its own, which ends in a hyphen
    and its number; all read them all, for exporters may be dealt out anew.
    """

    def __init__(
        self,
        path: str,
        collector: Collector,
        metrics: Metrics,
        every_s: float = 60.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(path) if path else None
        self._collector = collector
        self._events = metrics.file_events
        self._every_s = every_s
        self._now = now
        self._written = collector.revision
        self._written_at = now()
        self._log = logging.getLogger("poolwatch")

    def __enter__(self) -> "TemplatesFile":
        for each in self._files():
            try:
                self._collector.restore(_read(each))
                self._events.labels("read").inc()
            except (OSError, DecodeError) as error:
                self._events.labels("refused").inc()
                self._log.warning("templates file refused path=%s: %s", each, error)
        self._written = self._collector.revision
        self._written_at = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        self._write(last=True)

    def turn(self) -> None:
        """Write the file, if it is time."""
        since = self._now() - self._written_at
        changed = self._collector.revision != self._written
        if since >= (self._every_s if changed else _ANEW_S):
            self._write(last=False)

    def _files(self) -> Iterator[Path]:
        """Those that are there; our own last, for it knows best."""
        if self._path is None:
            return
        base = _WORKER.sub("", self._path.name)
        for each in sorted(self._path.parent.glob(f"{escape(base)}*")):
            if _WORKER.sub("", each.name) == base and each != self._path:
                yield each
        if self._path.exists():
            yield self._path

    def _write(self, *, last: bool) -> None:
        """Whole or not at all: another file takes the name of the old one."""
        if self._path is None:
            return
        self._written, self._written_at = self._collector.revision, self._now()
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(self._collector.saved())
                if last:
                    # While datagrams come nobody waits for a disk: a broken file is refused, no more.
                    file.flush()
                    os.fsync(file.fileno())
            new.replace(self._path)
            self._events.labels("written").inc()
        except OSError as error:
            self._events.labels("failed").inc()
            self._log.warning("templates file not written path=%s: %s", self._path, error)


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no plain file")
        found = file.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise OSError(f"it has more than {MOST_BYTES} octets")
    return found
