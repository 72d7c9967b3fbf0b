"""Metrics of exporters' clocks: when each was last heard, how far its clock is off, what was corrected."""

from collections.abc import Mapping
from itertools import islice
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors.netflow.decoding import X_HEARD, X_SKEW

# A label is a series: of more exporters than this only the first are shown by name.
MOST_NAMED: Final = 512


class ClockMetrics:
    """Gauges by exporter and counters over all."""

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        self.heard = Gauge(
            f"{prefix}_exporter_heard_timestamp_seconds",
            "When an exporter was last heard, Unix time; of the first 512 exporters.",
            ["exporter"],
            registry=registry,
        )
        self.skew = Gauge(
            f"{prefix}_exporter_clock_skew_seconds",
            "How far an exporter's clock is ahead of receive time, by its last datagram with records; of the"
            " first 512 exporters.",
            ["exporter"],
            registry=registry,
        )
        self.corrected = Counter(
            f"{prefix}_clock_corrected",
            "Records whose times were corrected, because the exporter's clock (datagram) or the record's own"
            " times (record) are off by more than clock_skew_s.",
            ["by"],
            registry=registry,
        )
        for by in ("datagram", "record"):
            self.corrected.labels(by)
        self._named: set[str] = set()

    def count(self, corrected: int, future: int) -> None:
        """Records under a wrong time of export, and ones that said to end well after it."""
        self.corrected.labels("datagram").inc(corrected)
        self.corrected.labels("record").inc(future)

    def show(self, exporters: Mapping[str, int], clocks: np.ndarray) -> None:
        """Show exporters by name and number; ``clocks`` (n, decoding.CLOCK).  One that is forgotten goes."""
        known = dict(islice(exporters.items(), MOST_NAMED))
        for name in self._named - known.keys():
            self.heard.remove(name)
            self.skew.remove(name)
        self._named = set(known)
        for name, n in known.items():
            self.heard.labels(name).set(clocks[n, X_HEARD] / 1e9)
            self.skew.labels(name).set(clocks[n, X_SKEW] / 1e9)
