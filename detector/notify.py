"""What systemd is told of a service: ready, alive, reloading, stopping, and a line of status.

In: the same two answers as ``/livez`` and ``/readyz``.  Out: datagrams on ``$NOTIFY_SOCKET``, as sd_notify(3)
has them; nothing at all where there is no such socket.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import Final

TICK_S: Final = 0.5
# While the loop turns, starting may take this much longer: a large state takes its time to be read.
EXTEND_S: Final = 60


class Notifier:
    """Tells systemd from a thread of its own; ``status`` is one line that the owner may set at any time.

    READY=1 is told once, when ``ready`` first says so: a detector that loses its partitions later is a
    stand-by, not a failure.  WATCHDOG=1 is told only while ``live`` says so, twice in each interval.  Start
    it, like every thread, after privileges were dropped.
    """

    def __init__(
        self,
        live: Callable[[], bool],
        ready: Callable[[], bool],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.status = ""
        self._live, self._ready = live, ready
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero octet of an abstract address, unix(7).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every_s = _watchdog_s(environment) / 2
        self._is_ready = self._is_stopping = False
        self._told_status = ""
        self._over = Event()
        self._socket: socket.socket | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> "Notifier":
        if self._address.startswith(("/", "\0")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # Nobody that reads is no reason to wait.
            self._socket.settimeout(1)
            self._thread = Thread(target=self._run, name="notify", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping()
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()

    def stopping(self) -> None:
        """The work is over, what is held is being written."""
        if not self._is_stopping:
            self._is_stopping = True
            self._tell("STOPPING=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Around a reload of the lists.  The time is what Type=notify-reload (systemd 253) asks for; an older
        one passes over it."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={usec}")
        try:
            yield
        finally:
            # It takes the unit for reloading until it hears this, whether or not the new lists were good.
            self._tell("READY=1")

    def _run(self) -> None:
        watched_s = extended_s = -1e9
        while not self._over.is_set():
            now_s = time.monotonic()
            is_live = self._live()
            if not self._is_ready and self._ready():
                self._is_ready = True
                self._tell("READY=1")
            if not self._is_ready and is_live and now_s - extended_s >= EXTEND_S / 4:
                extended_s = now_s
                self._tell(f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}")
            if self._every_s and is_live and now_s - watched_s >= self._every_s - TICK_S:
                watched_s = now_s
                self._tell("WATCHDOG=1")
            if self.status != self._told_status:
                self._told_status = self.status
                self._tell("STATUS=" + " ".join(self.status.split()))
            self._over.wait(min(TICK_S, self._every_s or TICK_S))

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            # A manager that cannot be reached does not stop the work; its watchdog says the rest.
            return


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Seconds between signs of life that are asked of this process, 0 where none are."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdecimal() else 0.0
