"""The counters of sFlow, under the names of the flow collector's and some of its own."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from collectors.errors import Reason
from collectors.netflow import sequences
from collectors.netflow.sflow import walking

PROTOCOL: Final = "sflow"
# What a sample may be.
KINDS: Final = {
    "flow": walking.N_SAMPLES,
    "counter": walking.N_COUNTERS,
    "discarded": walking.N_DISCARDED,
    "other": walking.N_UNKNOWN,
}
# Those of every protocol, by their attribute in ``metrics.Metrics``.
SHARED: Final = {
    "datagrams": sequences.N_DATAGRAMS,
    "bytes": sequences.N_OCTETS,
    "lost": sequences.N_LOST,
    "gaps": sequences.N_GAPS,
    "late": sequences.N_LATE,
    "repeated": sequences.N_REPEATED,
    "restarts": sequences.N_RESTARTS,
}
# Why a sampled packet's octets are those of its frame.
CORRECTED: Final = {"none": walking.N_WITHOUT_LENGTH, "too_long": walking.N_TOO_LONG}
RECORDS: Final = {"flow": sequences.N_FLOW, "other": sequences.N_OTHER}
REFUSED: Final = {
    Reason.SHORT: walking.N_SHORT,
    Reason.FORMAT: walking.N_FORMAT,
    Reason.LENGTH: walking.N_BROKEN,
}


class SampleMetrics:
    """What moves in sFlow.  ``shared`` are the counters of every protocol, by name."""

    def __init__(self, registry: CollectorRegistry, shared: Mapping[str, Counter]) -> None:
        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"poolwatch_collector_netflow_sflow_{name}", told, labels, registry=registry)

        samples = counter("samples", "sFlow samples read, by kind.", "kind")
        corrected = counter(
            "lengths_corrected", "Sampled packets that count as their frames, by what their IP header says.",
            "length",
        )  # fmt: skip
        self._moves: list[tuple[Counter, int]] = [
            (
                counter("samples_lost", "Flow samples that their source's sequence lacks."),
                walking.N_SAMPLES_LOST,
            ),
            (counter("pool", "Packets that could have been sampled, as sources tell."), walking.N_POOL),
            (counter("drops", "Samples that agents dropped for want of resources."), walking.N_DROPS),
            (
                counter("sources_forgotten", "Sources of samples forgotten: the table was full."),
                walking.N_SOURCES_FORGOTTEN,
            ),
            *((corrected.labels(told), place) for told, place in CORRECTED.items()),
            *((samples.labels(kind), place) for kind, place in KINDS.items()),
            *((shared[name].labels(PROTOCOL), place) for name, place in SHARED.items()),
            *((shared["records"].labels(PROTOCOL, kind), place) for kind, place in RECORDS.items()),
            *((shared["refused"].labels(reason), place) for reason, place in REFUSED.items()),
        ]
        self._untracked = counter("agents_untracked", "Datagrams of agents whose sequence found no room.")

    def walked(self, moved: np.ndarray, untracked: int) -> None:
        """Count what a reader's counters moved by."""
        for one, place in self._moves:
            if moved[place]:
                one.inc(int(moved[place]))
        if untracked:
            self._untracked.inc(untracked)
