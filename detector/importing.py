"""Composition root of ``poolwatch collect flows --topic``: another collector's topic in, ``flows`` out.

What has been read is told to the group when all that it became has arrived: a crash repeats what was read
since, about a second, and loses nothing.
"""

import argparse
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from msgspec.structs import replace

from collectors.importing.collector import Collector, Config
from collectors.importing.metrics import Metrics
from collectors.kafka import clients
from collectors.kafka.config import Config as KafkaConfig
from collectors.kafka.reader import Fetched, GroupReader
from collectors.kafka.sender import Sender
from detector.errors import ConfigError, InputError

STREAM: Final = "import"
WAIT_S: Final = 0.1
MOST: Final = 20_000
COMMIT_S: Final = 1.0
# How long what was sent may take to arrive, before the work goes on without the group being told.
ARRIVE_S: Final = 10.0
# Likewise before partitions are given up: meanwhile the group hears nothing from us, and it puts members out
# after a session's time.
LEAVE_SESSIONS: Final = 1 / 3
FETCH_BYTES: Final = 4 << 20
FETCH_ALL_BYTES: Final = 32 << 20
# While our brokers are away nothing is read; the group waits for us so long.
CYCLE_MS: Final = 600_000


def wanted(config: Config, options: argparse.Namespace) -> Config | None:
    """What is to be imported, by configuration and command line; None where nothing is.

    Raises ConfigError on options that contradict each other.
    """
    topic = getattr(options, "topic", None)
    if topic is None:
        if getattr(options, "form", None):
            raise ConfigError("--as says what a topic holds: name it by --topic")
        return None
    if options.replay:
        raise ConfigError("--topic reads Kafka: name no files")
    changes = {"topic": topic or config.topic, "form": options.form or config.form}
    made = replace(config, **changes)
    if not made.topic:
        raise ConfigError("--topic: name one, or set collectors.imports.topic")
    return made


class Import:
    """A reader of one topic, its collector and what it sends with.  ``turn`` is its verb."""

    def __init__(self, collector: Collector, metrics: Metrics, sender: Sender) -> None:
        self._collector = collector
        self._metrics = metrics
        self._sender = sender
        self._read: dict[tuple[str, int], int] = {}
        self._commit_at = 0.0
        self._reader: GroupReader | None = None
        self._corrupt = 0
        self._leave_s = 0.0

    def open(self, config: Config, kafka: KafkaConfig, stack: ExitStack) -> None:
        """Join the group.  Raises InputError or ConfigError where brokers cannot be reached or refuse us."""
        there = replace(kafka, bootstrap_servers=config.brokers) if config.brokers else kafka
        self._leave_s = kafka.session_timeout_ms / 1000 * LEAVE_SESSIONS
        consumer = clients.consumer(
            there, "poolwatch-import", group_id=config.group, auto_offset_reset=config.start,
            max_poll_interval_ms=CYCLE_MS, max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_bytes=FETCH_ALL_BYTES,
        )  # fmt: skip
        reader = self._reader = GroupReader(consumer, {STREAM: config.topic}, self._leave, self._read.clear)
        stack.callback(reader.abandon)
        if not reader.is_there():
            raise ConfigError(f"there is no topic {config.topic} at {', '.join(there.bootstrap_servers)}")

    def turn(self) -> None:
        """Read what is there, or wait a little for it, and send what it becomes."""
        reader = self._reader
        assert reader is not None
        found = reader.poll(WAIT_S, MOST)
        if reader.assigned() is not None:
            self._read.clear()
            # Told before anything is read: a group that is new and begins with what comes would otherwise
            # pass over what comes while nobody of it is there.
            self._read.update(reader.positions())
        self.take(found)
        self._metrics.corrupt.inc(reader.corrupt - self._corrupt)
        self._corrupt = reader.corrupt
        now = time.monotonic()
        if now >= self._commit_at:
            self._commit_at = now + COMMIT_S
            ends = reader.ends()
            self._metrics.lag.set(sum(end - self._read.get(place, end) for place, end in ends.items()))
            self.deliver()

    def take(self, found: list[Fetched]) -> None:
        """Hand records over to the collector."""
        self._collector.feed([r.value for r in found], [r.t_ms * 1_000_000 for r in found], time.time_ns())
        for record in found:
            self._read[STREAM, record.partition] = record.offset + 1

    def deliver(self, wait_s: float = ARRIVE_S) -> bool:
        """See all arrive that was read, and tell the group; whether it did, in time.

        Raises InputError where something was lost: a new start reads it again.
        """
        self._collector.flush()
        if self._sender.flush(wait_s):
            return False
        if self._sender.lost:
            raise InputError(f"what was read could not all be delivered: {self._sender.told()}")
        if self._reader is not None and self._read:
            self._reader.commit(self._read)
        return True

    def _leave(self) -> None:
        """Partitions are given up: whoever takes them begins where the group was last told."""
        if self.deliver(self._leave_s) and self._reader is not None:
            self._reader.commit_last(self._read)
        self._read.clear()

    def stop(self) -> None:
        """Deliver all that was read, and leave the group."""
        self._collector.finish()
        self.deliver()
        if self._reader is not None:
            self._reader.close()


def work(imported: Import, stop: threading.Event, seconds: float | None, turned: Callable[[], None]) -> None:
    """Import until told to stop, or for so long."""
    ends = time.monotonic() + seconds if seconds else None
    while not stop.is_set() and (ends is None or time.monotonic() < ends):
        imported.turn()
        turned()
    imported.stop()
