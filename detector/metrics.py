"""Counters of the detector's shell that more than one of its parts moves."""

import logging
import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

LOG_EVERY_S: Final = 1.0
# What can become of what a sink is handed; Alertmanager's may be tried again, or find no room.
OUTCOMES: Final = {
    "jsonl": ("delivered", "failed"),
    "alertmanager": ("delivered", "retried", "failed", "dropped"),
}


class Deliveries:
    """What became of alerts and documents that were handed to a sink."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counter = Counter(
            "poolwatch_alert_deliveries",
            "Alerts and documents handed to a sink, by what became of them.",
            ["sink", "outcome"],
            registry=registry,
        )
        for sink, outcomes in OUTCOMES.items():
            for outcome in outcomes:
                self._counter.labels(sink, outcome)

    def count(self, sink: str, outcome: str) -> None:
        """One delivery came to ``outcome``."""
        self._counter.labels(sink, outcome).inc()


class Complaints:
    """Log lines about bad input: at most one a second and reason, with the count since the last."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: dict[str, tuple[float, int]] = {}

    def say(self, source: str, totals: dict[str, int]) -> None:
        """Compare running totals by reason with what was told, and tell what is new."""
        now = time.monotonic()
        for reason, total in totals.items():
            at, told = self._told.get(reason, (-LOG_EVERY_S, 0))
            if total > told and now - at >= LOG_EVERY_S:
                self._told[reason] = (now, total)
                self._log.warning("input refused source=%s reason=%s count=%d", source, reason, total - told)


class Pace:
    """How the detector keeps up: batches, refused messages, and the time a batch takes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter(
            "poolwatch_detector_messages", "Messages taken in, by stream.", ["stream"], registry=registry
        )
        for stream in ("flows", "payloads", "names"):
            self.messages.labels(stream)
        self.rows = Counter(
            "poolwatch_detector_rows", "Rows taken in, by stream.", ["stream"], registry=registry
        )
        for stream in ("flows", "payloads", "names"):
            self.rows.labels(stream)
        self.bus_refused = Counter(
            "poolwatch_detector_bus_refused",
            "Messages that found no room on the embedded bus.",
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "poolwatch_detector_batch_seconds",
            "Wall time to take in one message.",
            buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
            registry=registry,
        )

    def took(self, stream: str, rows: int, seconds: float) -> None:
        """One message was taken in."""
        self.batch_seconds.observe(seconds)
        self.messages.labels(stream).inc()
        self.rows.labels(stream).inc(rows)
