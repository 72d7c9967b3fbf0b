"""What sends: batches of a collector, and documents of a detector, to their topics.

One producer a process, at most so many octets and messages that no broker has acknowledged.  Over that bound
a file waits, and a live link gives up its newest message, which is counted: memory never grows while the
brokers are away.  What became of each message comes back on the producer's own thread.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from collectors import wire
from collectors.errors import InputError
from collectors.kafka import clients, packing, topics
from collectors.kafka.clients import Future, errors
from collectors.kafka.config import Config
from collectors.streams import STREAMS

COLLECTED: Final = ("flows", "payloads", "names")
# What a stopped process may still take to hand over what it has: systemd waits for 90 s.
GRACE_S: Final = 20.0
SLICE_S: Final = 0.1
LOG_EVERY_S: Final = 1.0
# What the client keeps of a message beside its octets.
OVERHEAD_BYTES: Final = 1024

Headers = Sequence[tuple[str, bytes]]


class Failure(StrEnum):
    """Why a message that was accepted did not arrive.  Also the value of the ``reason`` metric label."""

    SIZE = "size"
    EXPIRED = "expired"
    DENIED = "denied"
    CLOSED = "closed"
    BROKER = "broker"


class RefusedError(Exception):
    """There was no room for a message."""


def failure(error: BaseException) -> Failure:
    """The one word for what the client library raised."""
    if isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        return Failure.SIZE
    if isinstance(error, errors.KafkaTimeoutError):
        return Failure.EXPIRED
    if isinstance(error, errors.AuthorizationError | errors.SaslAuthenticationFailedError):
        return Failure.DENIED
    if isinstance(error, errors.IllegalStateError):
        return Failure.CLOSED
    return Failure.BROKER


class Metrics:
    """Everything that moves in this file, declared where it moves.  ``role`` is who sends."""

    def __init__(self, registry: CollectorRegistry, streams: Iterable[str], role: str = "collector") -> None:
        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"poolwatch_{role}_bus_{name}", told, labels, registry=registry)

        def gauge(name: str, told: str) -> Gauge:
            return Gauge(f"poolwatch_{role}_bus_{name}", told, registry=registry)

        self.messages = counter("messages", "Messages that Kafka has acknowledged.", "stream")
        self.rows = counter("rows", "Rows in them.", "stream")
        self.bytes = counter("bytes", "Octets in them, headers included, before compression.", "stream")
        self.refused = counter("refused", "Messages that found no room to wait in.", "stream")
        self.failed = counter("failed", "Messages that were not delivered, by reason.", "stream", "reason")
        self.in_flight_bytes = gauge("in_flight_bytes", "Octets not yet acknowledged.")
        self.in_flight_messages = gauge("in_flight_messages", "Messages not yet acknowledged.")
        self.waited = counter("waited_seconds", "Time that a sender waited for room.")
        self.seconds = Histogram(
            f"poolwatch_{role}_bus_send_seconds",
            "From the sending of a message to its acknowledgement.",
            buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
            registry=registry,
        )
        for stream in streams:
            self.declare(stream)

    def declare(self, stream: str) -> None:
        """A series exists, at zero, before its first event."""
        for one in (self.messages, self.rows, self.bytes, self.refused):
            one.labels(stream)
        for reason in Failure:
            self.failed.labels(stream, reason)


class Sender:
    """Open it, and ask for feeds.  ``send`` may be called from any thread, a feed from one.

    ``partitions`` is how many partitions the topics have.  ``stopped`` says that the process was told to end:
    from then on nothing waits for room longer than ``GRACE_S`` in all.  ``lost`` counts refused and failed.
    Several senders of a process may share ``metrics``.
    """

    def __init__(
        self,
        config: Config,
        registry: CollectorRegistry,
        *,
        streams: Sequence[str] = COLLECTED,
        role: str = "collector",
        stopped: Callable[[], bool] = lambda: False,
        producer: Callable[[Config, str], Any] = clients.producer,
        metrics: Metrics | None = None,
    ) -> None:
        self._config = config
        self._streams = tuple(streams)
        self._role = role
        self._stopped = stopped
        self._make = producer
        self._topics = {name: topics.topic(config, name) for name in STREAMS}
        self._producer: Any = None
        self._room = threading.Condition()
        self._bytes = 0
        self._messages = 0
        self._stopped_at: float | None = None
        self._logged_at = -LOG_EVERY_S
        self._unlogged = 0
        self.metrics = metrics or Metrics(registry, self._streams, role)
        self.partitions = config.partitions
        self.delivered = 0
        self.rows = 0
        self.octets = 0
        self.refused = 0
        self.failed = 0

    @property
    def lost(self) -> int:
        """Messages that will not arrive."""
        return self.refused + self.failed

    def __enter__(self) -> "Sender":
        """Check the topics and connect.  Raises InputError where no broker answers within
        ``connect_timeout_s``, ConfigError on topics that are missing or have another partition count."""
        with clients.admin(self._config, f"poolwatch-{self._role}") as admin:
            self.partitions = topics.check(admin, self._config, self._streams)
        self._connect(f"poolwatch-{self._role}", [self._topics[stream] for stream in self._streams])
        return self

    def _connect(self, name: str, names: list[str]) -> None:
        """Make the producer, and let it learn the leaders of topics.  Left to itself it asks when it first
        sends there, brokers may be away by then, and it gives up after ``BLOCK_MS``."""
        end = time.monotonic() + self._config.connect_timeout_s
        self._producer = self._make(self._config, name)
        try:
            with clients.reaching(self._config):
                for topic in names:
                    while True:
                        try:
                            self._producer.partitions_for(topic)
                            break
                        except errors.KafkaTimeoutError:
                            if time.monotonic() >= end or self._stopped():
                                raise
        except BaseException:
            clients.abandon(self._producer)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def feed(self, run: str = "", life: str | None = None, *, blocking: bool = False) -> "Feed":
        """A publisher for collectors.  Each feed is a life of its own; ``run`` is "" on a live link."""
        return Feed(self, run, life or new_life(), blocking=blocking)

    def send_json(self, stream: str, partition: int, key: bytes, value: Any, headers: Headers = ()) -> Future:
        """Send one document: bytes are taken as they are, None is a tombstone, anything else becomes JSON.

        Waits for room.  The future tells what became of it and never raises here.
        """
        if value is not None and not isinstance(value, bytes):
            value = msgspec.json.encode(value)
        return self.send(stream, partition, key, value, headers, rows=1, blocking=True)

    def send(
        self,
        stream: str,
        partition: int,
        key: bytes | None,
        value: bytes | memoryview | None,
        headers: Headers,
        *,
        rows: int,
        blocking: bool,
    ) -> Future:
        """Send one message, whose octets are the caller's again afterwards; a future that has failed already
        with RefusedError where there was no room.  ``headers`` may be packing.Laid."""
        messages = packing.records(headers)
        size = len(value or b"") + len(key or b"") + sum(len(k) + len(v) for k, v in headers)
        if not self._reserve(size + OVERHEAD_BYTES, blocking):
            self.refuse(stream, messages)
            return Future().failure(RefusedError(stream))
        began = time.monotonic()
        given = headers if isinstance(headers, list) else list(headers)
        try:
            future = self._producer.send(
                self._topics[stream], value=value, key=key, headers=given, partition=partition
            )
        # ValueError: the client lost sight of the topic or of its partition.
        except (errors.KafkaError, ValueError) as error:
            future = Future().failure(error)

        def arrived(_record: object) -> None:
            self.metrics.seconds.observe(time.monotonic() - began)
            self.metrics.messages.labels(stream).inc(messages)
            self.metrics.rows.labels(stream).inc(rows)
            self.metrics.bytes.labels(stream).inc(size)
            with self._room:
                self.delivered += messages
                self.rows += rows
                self.octets += size
                self._release(size + OVERHEAD_BYTES)

        def lost(error: BaseException) -> None:
            self._count_failure(stream, error, messages)
            with self._room:
                self._release(size + OVERHEAD_BYTES)

        future.add_callback(arrived)
        future.add_errback(lost)
        return future

    def refuse(self, stream: str, messages: int) -> None:
        """Count messages that found no room."""
        self.metrics.refused.labels(stream).inc(messages)
        with self._room:
            self.refused += messages

    def wait(self, futures: Sequence[Future], timeout_s: float) -> list[tuple[int, str]]:
        """Wait for all; those that did not arrive, as (place, why).  ``waiting`` is one that may still."""
        end = time.monotonic() + timeout_s
        with self._room:
            for future in futures:
                while not future.is_done and (left := end - time.monotonic()) > 0:
                    self._room.wait(min(left, SLICE_S))
        return [
            (i, f"{failure(f.exception)}: {f.exception}" if f.is_done else "waiting")
            for i, f in enumerate(futures)
            if not f.succeeded()
        ]

    def flush(self, timeout_s: float) -> int:
        """Wait until nothing waits; how many messages still do."""
        with self._room:
            self._room.wait_for(lambda: not self._messages, timeout_s)
            return self._messages

    def close(self, timeout_s: float = GRACE_S) -> int:
        """Deliver what waits, at most for so long, and end; how many messages could not be delivered.

        What is given up fails with the reason ``closed``, and is counted.
        """
        if self._producer is None:
            return 0
        left = self.flush(timeout_s)
        if left:
            logging.getLogger("poolwatch").warning(
                "not delivered messages=%d bytes=%d after=%.0fs", left, self._bytes, timeout_s
            )
            clients.abandon(self._producer)
        else:
            self._producer.close(timeout=2)
        self._producer = None
        return left

    def told(self) -> str:
        """One line for people: what was sent, and what was not."""
        out = f"sent {self.delivered} messages, {self.rows} rows, {self.octets} bytes"
        return out + (f"; refused {self.refused}, failed {self.failed}" if self.lost else "")

    def alive(self) -> None:
        """Raises InputError where brokers have refused us for good: only a new start helps."""
        manager = getattr(self._producer, "_transaction_manager", None)
        if manager is not None and manager.has_fatal_error():
            raise InputError(f"kafka refuses us for good: {manager.last_error}")

    def _reserve(self, size: int, blocking: bool) -> bool:
        with self._room:
            if not self._fits(size):
                if not blocking:
                    return False
                began = time.monotonic()
                while not self._fits(size) and not self._ended():
                    self._room.wait(SLICE_S)
                self.metrics.waited.inc(time.monotonic() - began)
                if not self._fits(size):
                    return False
            self._move(size, 1)
            return True

    def _fits(self, size: int) -> bool:
        """A message that is larger than the bound goes when nothing else waits."""
        config = self._config
        if self._messages == 0:
            return True
        return self._bytes + size <= config.in_flight_bytes and self._messages < config.in_flight_messages

    def _ended(self) -> bool:
        """Whether the time is over that a stopped process has."""
        if not self._stopped():
            return False
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        return time.monotonic() - self._stopped_at > GRACE_S

    def _release(self, size: int) -> None:
        self._move(-size, -1)
        self._room.notify_all()

    def _move(self, size: int, messages: int) -> None:
        self._bytes += size
        self._messages += messages
        self.metrics.in_flight_bytes.inc(size)
        self.metrics.in_flight_messages.inc(messages)

    def _count_failure(self, stream: str, error: BaseException, messages: int) -> None:
        reason = failure(error)
        self.metrics.failed.labels(stream, reason).inc(messages)
        now = time.monotonic()
        with self._room:
            self.failed += messages
            self._unlogged += messages
            if now - self._logged_at < LOG_EVERY_S:
                return
            self._logged_at, count, self._unlogged = now, self._unlogged, 0
        logging.getLogger("poolwatch").warning(
            "message failed stream=%s reason=%s count=%d: %s", stream, reason, count, str(error)[:200]
        )


def new_life() -> str:
    """A name for one start of a collector: when, and what tells two of the same moment apart."""
    return f"{time.time_ns()}-{secrets.token_hex(3)}"


class Feed:
    """What one start of a collector publishes with.  ``publish`` is a ``collectors.bus.Publisher``.

    It writes the road's part of each header: the life, the run, and the turn, which counts the messages that
    were accepted for a partition, over all streams.  One that was refused uses up its number, not its turn.
    """

    def __init__(self, sender: Sender, run: str, life: str, *, blocking: bool) -> None:
        self._sender = sender
        self._run = run
        self._blocking = blocking
        self._turns = [0] * sender.partitions
        self._last: wire.Header | None = None
        self._encoder = wire.Encoder()
        self.life = life

    def publish(self, stream: str, partition: int, rows: wire.Batch, header: wire.Header) -> None:
        """Send one batch; of one without rows the header says it all."""
        self._last = header
        self._send(stream, partition, self._encoder.encode(rows) if rows.num_rows else b"", header)

    def end(self) -> None:
        """Tell every partition that the run is over.  A feed that published nothing began no run."""
        last = self._last
        if last is None:
            return
        over = wire.Header(
            version=STREAMS["flows"].version,
            collector="",
            number=0,
            rows=0,
            t_first_ns=last.t_last_ns,
            t_last_ns=last.t_last_ns,
            received_ns=last.received_ns,
            home=last.home,
            ends=True,
        )
        for partition in range(len(self._turns)):
            self._send("flows", partition, b"", over)

    def _send(self, stream: str, partition: int, value: bytes | memoryview, header: wire.Header) -> None:
        turn = self._turns[partition]
        sent = msgspec.structs.replace(header, life=self.life, run=self._run, turn=turn)
        future = self._sender.send(
            stream, partition, None, value, wire.to_headers(sent), rows=header.rows, blocking=self._blocking
        )
        if not future.failed():
            self._turns[partition] = turn + 1
