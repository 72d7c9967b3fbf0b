"""Sockets are emptied by a thread of their own, whatever the records of before are waiting for.

Reading the records of 200 ms takes a thread tens of milliseconds, and longer where cores are short; a socket
of the size that a kernel grants by default is full after two.  The drain takes next to no time, so that it is
let run as soon as it wakes, and most of its work is done without Python's lock.
"""

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from collectors.netflow import batches, udp
from collectors.netflow.datagrams import Block, joined

QUOTA: Final = 128
IDLE_S: Final = 0.1
SWEEP_S: Final = 1.0


class Drain(AbstractContextManager["Drain"]):
    """``start`` it, then ``taken`` gives what came; both on one thread.

    It sleeps ``gather_s`` before it reads, for a turn costs the same for one datagram as for a thousand.
    While more than ``most_bytes`` wait to be taken the rest is left in the sockets; ``full`` counts how often
    that came to be.  ``waiting`` are octets that wait, as of the last look.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        batch: "batches.Batch | udp.OneByOne",
        gather_s: float,
        most_bytes: int,
    ) -> None:
        self._sockets = sockets
        self._batch = batch
        self._gather_s = gather_s
        self._most_bytes = most_bytes
        self.waiting = 0
        self.full = 0
        self._drops = {one: udp.Drops() for one in sockets}
        self._ready: deque[Block] = deque()
        self._error: OSError | None = None
        self._sweep_at = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def started(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None

    def start(self) -> None:
        """Begin; after privileges were given up, for a thread has its own."""
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)
        self._thread.start()

    def taken(self) -> list[Block]:
        """All that came since, in order, those of the same memory as one.  Raises OSError where a socket is
        broken."""
        near: list[list[Block]] = []
        while self._ready:
            one = self._ready.popleft()
            if near and near[-1][0].data is one.data:
                near[-1].append(one)
            else:
                near.append([one])
        if not near and self._error is not None:
            raise self._error
        return [joined(each) for each in near]

    def lost(self) -> int:
        """What the kernel had to drop until now; at most a second late."""
        return sum(drops.count for drops in self._drops.values())

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for one in self._sockets:
                selector.register(one, selectors.EVENT_READ)
            was_full = False
            try:
                while not self._stop.is_set():
                    self._sweep()
                    self.waiting = self._waiting()
                    is_full = self.waiting > self._most_bytes
                    self.full += is_full and not was_full
                    was_full = is_full
                    if is_full:
                        time.sleep(self._gather_s or 0.001)
                    elif selector.select(IDLE_S):
                        time.sleep(self._gather_s)
                        self._round([key.fileobj for key, _ in selector.select(0)])  # type: ignore[misc]
            except OSError as error:
                self._error = error

    def _sweep(self) -> None:
        """Once a second: what sockets dropped since their last datagram."""
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            for one, drops in self._drops.items():
                drops.grew(udp.drops(one))

    def _waiting(self) -> int:
        """Octets that are ready and were not taken."""
        try:
            return sum(int(one.size.sum()) for one in self._ready)
        except RuntimeError:
            # It was taken meanwhile.
            return 0

    def _round(self, sockets: list[socket.socket]) -> None:
        """The quota of each in its turn, until all gave less or much is ready."""
        for _ in range(16):
            full = []
            for one in sockets:
                got, dropped = self._batch.take(one, QUOTA)
                self._drops[one].grew(dropped)
                if got == QUOTA:
                    full.append(one)
                if self._batch.room < QUOTA:
                    self._hand_over()
            if not full:
                break
            sockets = full
        if self._batch.count:
            self._hand_over()

    def _hand_over(self) -> None:
        self._ready.append(self._batch.block())
