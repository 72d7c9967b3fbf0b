"""Composition root of the output to goflow2's topic: batches of ``flows`` in, its messages on Kafka out.

A thread of its own writes them.  Our own stream comes first: a batch is offered after it was published there,
and offering one never waits on a live link; what this thread or the brokers cannot keep up with is refused,
which is counted (``poolwatch_collector_bus_refused_total``, stream ``goflow2``).
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

from msgspec.structs import replace

from collectors.bus import Publisher
from collectors.exporting.flowmessage import MOST
from collectors.exporting.laying import Laying
from collectors.exporting.settings import Goflow2
from collectors.kafka.config import Config as KafkaConfig
from collectors.kafka.elsewhere import Elsewhere
from collectors.kafka.sender import Metrics
from collectors.wire import Batch, Header
from detector.errors import ConfigError

STREAM: Final = "goflow2"
# Rows that may wait for the thread: a few seconds of a fast link, about 100 MB.
MOST_ROWS: Final = 1 << 19
# How long messages are gathered, so that a partition's go together; goflow2 gathers for 5 s.
LINGER_S: Final = 0.25
# What the end may take of the time that systemd gives, of which our own stream needs most.
GRACE_S: Final = 5.0
SLICE_S: Final = 0.1


class Output:
    """Open it, then have it offered what is published.  Where no topic is configured it does nothing."""

    def __init__(
        self,
        config: Goflow2,
        kafka: KafkaConfig,
        metrics: Metrics,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._stopped = stopped
        there = replace(kafka, bootstrap_servers=config.brokers) if config.brokers else kafka
        self._sender: Elsewhere | None = None
        if config.topic:
            self._sender = Elsewhere(
                there, config.topic, STREAM, metrics, in_flight_bytes=config.in_flight_bytes, stopped=stopped
            )
        self._room = threading.Condition()
        self._waiting: deque[Batch] = deque()
        self._rows = 0
        self._blocking = False
        self._is_over = False
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="poolwatch-goflow2", daemon=True)

    @property
    def lost(self) -> int:
        """Messages that will not arrive."""
        return self._sender.lost if self._sender is not None else 0

    def told(self) -> str:
        """One line for people; none where nothing was to be sent."""
        return f"goflow2: {self._sender.told()}" if self._sender is not None else ""

    def __enter__(self) -> "Output":
        """Look the topic up, connect and begin.  Raises what ``Elsewhere`` raises."""
        if self._sender is not None:
            self._sender.__enter__()
            wanted, most = self._config.messages_a_value, self._sender.most_bytes
            if wanted > 1 and wanted * MOST > most:
                self._sender.close(0)
                raise ConfigError(
                    f"collectors.netflow.goflow2.messages_a_value is {wanted}: "
                    f"the topic takes {most} bytes at once"
                )
            self._laying = Laying(
                self._sender.partitions, self._config.messages_a_value, keyed=self._config.key == "exporter",
                most_bytes=self._sender.most_bytes, seed=secrets.randbits(62),
            )  # fmt: skip
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sender is None:
            return
        with self._room:
            self._is_over = True
            self._room.notify_all()
        # Files wait for all of theirs.
        self._thread.join(None if self._blocking and error is None else GRACE_S)
        left = self._sender.close(GRACE_S if not self._blocking else 4 * GRACE_S)
        if self._thread.is_alive() or left:
            logging.getLogger("poolwatch").warning("not all was sent to goflow2's topic left=%d", left)

    def beside(
        self, publish: Publisher, *, blocking: bool = False
    ) -> tuple[Publisher, Callable[[Batch], None] | None]:
        """What a collector of flows is to publish with, and whom it gives records of nobody's.

        With ``blocking`` a batch waits for room.
        """
        if self._sender is None:
            return publish, None
        self._blocking = blocking

        def published(stream: str, partition: int, rows: Batch, header: Header) -> None:
            publish(stream, partition, rows, header)
            if rows.num_rows:
                self.offer(rows)

        return published, self.offer

    def offer(self, rows: Batch) -> None:
        """Take a batch, or refuse it.  Raises what the thread has died of."""
        n = rows.num_rows
        with self._room:
            while self._blocking and self._full(n) and self._failed is None and not self._stopped():
                self._room.wait(SLICE_S)
            if self._failed is not None:
                raise self._failed
            if not self._full(n):
                self._waiting.append(rows)
                self._rows += n
                self._room.notify_all()
                return
        if self._sender is not None:
            self._sender.refuse(STREAM, -(-n // self._config.messages_a_value))

    def _full(self, rows: int) -> bool:
        return bool(self._rows) and self._rows + rows > MOST_ROWS

    def _work(self) -> None:
        """The thread."""
        try:
            since = time.monotonic()
            while not (self._is_over and not self._waiting):
                rows = self._next()
                if rows is not None:
                    if not self._laying.messages:
                        since = time.monotonic()
                    self._laying.add(rows)
                if self._laying.is_full or time.monotonic() - since >= LINGER_S:
                    self._send()
            self._send()
        except BaseException as error:  # noqa: BLE001 - raised again, where it ends the process
            with self._room:
                self._failed = error
                self._room.notify_all()

    def _next(self) -> Batch | None:
        """The batch that has waited longest; None where none comes in a while."""
        with self._room:
            if not self._waiting and not self._is_over:
                self._room.wait(LINGER_S)
            if not self._waiting:
                return None
            rows = self._waiting.popleft()
            self._rows -= rows.num_rows
            self._room.notify_all()
            return rows

    def _send(self) -> None:
        sender = self._sender
        assert sender is not None
        for partition, octets, records, messages in self._laying.take():
            sender.send_laid(partition, octets, records, messages, blocking=self._blocking)
