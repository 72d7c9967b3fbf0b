"""What one worker receives: its sockets, each in its turn with the same quota; blocks of datagrams out.

Sockets that have datagrams are read round robin, at most so many from each before the next, so that the
exporters of one socket cannot starve those of another however much they send.  A thread of its own does so
(``draining``) where that is wanted: then nothing is lost while records are read.
"""

import selectors
import socket
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors.netflow import batches, sessions, udp
from collectors.netflow.certificates import Certificates
from collectors.netflow.datagrams import Block
from collectors.netflow.draining import Drain
from collectors.netflow.listening import Tcp
from collectors.netflow.ports import Share

MOST: Final = 1024
QUOTA: Final = 128
# Rounds over all sockets before others have their turn.
ROUNDS: Final = 16
SWEEP_S: Final = 1.0
# Datagrams are let gather for so long before they are read, where their socket's buffer has room for many: a
# turn costs the same for one as for a thousand, and a batch waits for 200 ms anyway.
GATHER_S: Final = 0.01
ROOM_BYTES: Final = 4 << 20
MOST_WAITING_BYTES: Final = 32 << 20
# What a thread of its own has received is taken over so often.
HOLD_S: Final = 0.05


class Metrics:
    """Everything that moves in this file.  ``drops`` is moved elsewhere too, and given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "poolwatch_collector_netflow"
        self.truncated = Counter(
            f"{name}_truncated", "Datagrams longer than can be, refused.", registry=registry
        )
        self.sockets = Gauge(f"{name}_sockets", "UDP sockets that are read.", registry=registry)
        self.buffer_bytes = Gauge(
            f"{name}_socket_buffer_bytes",
            "Receive buffer that the kernel gave each of them.",
            registry=registry,
        )
        self.waiting = Gauge(
            f"{name}_waiting_bytes", "Octets that were received and wait to be read.", registry=registry
        )
        self.waiting_full = Counter(
            f"{name}_waiting_full",
            "Times that so much waited that the rest was left in the sockets.",
            registry=registry,
        )
        self.sessions = sessions.Metrics(registry)


class Receiving(AbstractContextManager["Receiving"]):
    """``turn`` is the verb, on one thread.  ``lost`` is told of datagrams that a socket had no room for.

    With ``apart`` UDP is received by another thread, from the first turn on; of what it has received
    ``most_waiting_bytes`` may wait.
    """

    def __init__(
        self,
        share: Share,
        config: Tcp,
        certificates: Certificates,
        allowed: Collection[bytes],
        metrics: Metrics,
        lost: Callable[[int], None],
        *,
        apart: bool = False,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
    ) -> None:
        self._share = share
        self._metrics = metrics
        self._lost = lost
        self._batch = batches.Batch(MOST) if batches.available() else udp.OneByOne(MOST)
        self._selector = selectors.DefaultSelector()
        self._sessions = sessions.Sessions(config, certificates, allowed, self._selector, metrics.sessions)
        self._drops = {one: udp.Drops() for one in share.udp}
        self._sweep_at = 0.0
        self._truncated = 0
        self._gather_s = 0.0
        self._busy = False
        self._apart = apart and bool(share.udp)
        self._drain: Drain | None = None
        self._most_waiting_bytes = most_waiting_bytes
        self._told_lost = 0
        self._told_full = 0

    def __enter__(self) -> "Receiving":
        if not self._apart:
            for one in self._share.udp:
                self._selector.register(one, selectors.EVENT_READ)
        for listener in self._share.tcp:
            self._sessions.listen(listener, "tcp")
        for listener in self._share.tls:
            self._sessions.listen(listener, "tls")
        self._metrics.sockets.set(len(self._share.udp))
        granted = min((udp.granted(s) for s in self._share.udp), default=0)
        self._metrics.buffer_bytes.set(granted)
        self._gather_s = GATHER_S * min(1.0, granted / ROOM_BYTES)
        if self._apart:
            self._drain = Drain(self._share.udp, self._batch, self._gather_s, self._most_waiting_bytes)
        return self

    def __exit__(self, *error: object) -> None:
        if self._drain is not None:
            self._drain.__exit__(*error)
        self._sessions.close()
        self._selector.close()

    def turn(self, wait_s: float) -> Iterator[Block]:
        """Blocks of what is there, waiting up to ``wait_s`` for the first; at most ``ROUNDS`` rounds."""
        if self._drain is not None:
            yield from self._turn_apart(self._drain, min(wait_s, HOLD_S))
            return
        gather, taken = wait_s > 0 and not self._busy, 0
        for _ in range(ROUNDS):
            events = self._selector.select(0.0 if self._sessions.waiting else wait_s)
            if gather and events and not self._sessions.waiting:
                time.sleep(self._gather_s)
                # Others may have come to those that have some.
                events = self._selector.select(0.0)
            gather, wait_s = False, 0.0
            if not events and not self._sessions.waiting:
                break
            full: list[socket.socket] = []
            for key, _ in events:
                if key.data is None:
                    taken += yield from self._take(key.fileobj, full)  # type: ignore[arg-type]
                else:
                    yield from key.data()
            if self._sessions.waiting:
                yield from self._sessions.more()
            # One that gave less than its quota is empty: more is worth a round at once.
            if not full and not self._sessions.waiting:
                break
        if self._batch.count:
            yield self._block()
        self._busy = taken >= MOST
        self._sweep()

    def _turn_apart(self, drain: Drain, wait_s: float) -> Iterator[Block]:
        """What the other thread has received, and what sessions have."""
        if not drain.started:
            drain.start()
        for key, _ in self._selector.select(0.0 if self._sessions.waiting else wait_s):
            yield from key.data()
        if self._sessions.waiting:
            yield from self._sessions.more()
        found = drain.taken()
        while found:
            # What was read is not held on to: its memory is used again.
            yield found.pop(0)
        self._cut()
        if more := drain.lost() - self._told_lost:
            self._told_lost += more
            self._lost(more)
        self._metrics.waiting.set(drain.waiting)
        if more := drain.full - self._told_full:
            self._told_full += more
            self._metrics.waiting_full.inc(more)
        self._sweep()

    def _take(self, one: socket.socket, full: list[socket.socket]) -> Generator[Block, None, int]:
        """The quota of one socket, and how many that were; a block when there is no room for another's."""
        got, dropped = self._batch.take(one, QUOTA)
        self._told(one, dropped)
        if got == QUOTA:
            full.append(one)
        if self._batch.room < QUOTA:
            yield self._block()
        return got

    def _block(self) -> Block:
        made = self._batch.block()
        self._cut()
        return made

    def _cut(self) -> None:
        if cut := self._batch.truncated - self._truncated:
            self._metrics.truncated.inc(cut)
            self._truncated += cut

    def _told(self, one: socket.socket, dropped: int | None) -> None:
        if more := self._drops[one].grew(dropped):
            self._lost(more)

    def _sweep(self) -> None:
        """Once a second: what sockets dropped since their last datagram, and sessions that take too long."""
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        if self._drain is None:
            for one in self._share.udp:
                self._told(one, udp.drops(one))
        self._sessions.sweep()
