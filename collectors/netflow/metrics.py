"""The metrics of the flow collector, and the counters of the compiled walk under their names."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors.errors import Reason
from collectors.netflow import budget, holding, sequences, walking
from collectors.netflow.clocks import ClockMetrics
from collectors.netflow.series import NamedCounter, RateGauge
from collectors.netflow.sflow.metrics import SampleMetrics

# In the order of ``sequences.PROTOCOLS``.
PROTOCOLS: Final = ("netflow5", "netflow9", "ipfix", "netflow1", "netflow7")
PROTOCOL_OF: Final = dict(zip(sequences.PROTOCOLS, PROTOCOLS, strict=True))
# In the order of ``domains.D_COUNTING``.
COUNTINGS: Final = ("standard", "other", "none")
KINDS: Final = {
    "flow": sequences.N_FLOW,
    "other": sequences.N_OTHER,
    "options": sequences.N_OPTIONS,
}
TEMPLATE_EVENTS: Final = (
    "new", "changed", "withdrawn", "withdrawal_ignored", "evicted", "refused", "aged", "malformed",
)  # fmt: skip
# Why a record is not plausible: fewer octets than its packets have headers, more than they can have, or more
# than any interface carries in its time.
IMPLAUSIBLE: Final = ("few_octets", "many_octets", "line_rate")
RATES_FROM: Final = ("options", "record", "sflow")
FILE_EVENTS: Final = ("read", "refused", "written", "failed")
NEWCOMERS: Final = ("not_listed", "no_room")
_PREFIX: Final = "poolwatch_collector_netflow"


@lru_cache(maxsize=65536)
def text(exporter: bytes) -> str:
    """An exporter as people write it: its address, and the port where that is part of who it is."""
    six = IPv6Address(exporter[:16])
    address = str(six.ipv4_mapped or six)
    port = int.from_bytes(exporter[16:], "big")
    return f"{address} port {port}" if len(exporter) > 16 else address


class Metrics:
    """Everything that moves in the flow collector."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", told, labels, registry=registry)

        def gauge(name: str, told: str) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", told, registry=registry)

        self.datagrams = counter("datagrams", "Export datagrams read.", "protocol")
        self.bytes = counter("bytes", "Octets of export datagrams read.", "protocol")
        self.refused = counter("refused", "Datagrams or parts of them refused, by reason.", "reason")
        self.strangers = counter("strangers", "Datagrams of exporters that were not let in.", "reason")
        self.records = counter("records", "Records read.", "protocol", "kind")
        self.lost = counter(
            "lost",
            "Lost by sequence: flows in NetFlow v5 and v7, datagrams in v9 and sFlow, records in IPFIX.",
            "protocol",
        )
        self.gaps = counter("gaps", "Gaps in sequence.", "protocol")
        self.late = counter("late", "Datagrams that were overtaken.", "protocol")
        self.repeated = counter(
            "repeated",
            "Datagrams whose place in the sequence was taken: repeats, or far too late.",
            "protocol",
        )
        self.restarts = counter("restarts", "Sequences that began anew.", "protocol")
        self._templates(registry, counter, gauge)
        self.rows = counter("rows", "Rows published.")
        self.batches = counter("batches", "Batches published.")
        self.not_home = counter("not_home", "Records dropped: no home end.")
        self.implausible = counter(
            "implausible",
            "Records kept whose octets do not go with their packets, or were cut to what a line carries.",
            "reason",
        )
        self.socket_drops = counter("socket_drops", "Datagrams that found the socket's buffer full.")
        self.clocks = ClockMetrics(registry, _PREFIX)
        self.samples = SampleMetrics(
            registry,
            {
                "datagrams": self.datagrams, "bytes": self.bytes, "lost": self.lost, "gaps": self.gaps,
                "late": self.late, "repeated": self.repeated, "restarts": self.restarts,
                "records": self.records, "refused": self.refused,
            },
        )  # fmt: skip
        self._begin()

    def _templates(
        self, registry: CollectorRegistry, counter: Callable[..., Counter], gauge: Callable[..., Gauge]
    ) -> None:
        """What is known of exporters, and what was lost of each."""
        self.template_events = counter("template_events", "What became of templates.", "event")
        self.templates = gauge("templates", "Templates known.")
        self.exporters = gauge("exporters", "Exporters known.")
        self.domains = gauge("domains", "Observation domains known.")
        self.held = counter("held", "Data sets held for want of a template.")
        self.decoded_late = counter("decoded_late", "Held data sets decoded when their template came.")
        self.dropped = counter("dropped", "Data sets without a template dropped.", "reason")
        self.held_bytes = gauge("held_bytes", "Octets of data sets that wait for a template.")
        self.held_oldest = gauge("held_oldest_seconds", "Age of the oldest data set that waits.")
        self.file_events = counter("templates_file", "What became of the file that keeps templates.", "event")
        self.rates_refused = counter("sampling_rates_refused", "Sampling rates told that found no room.")
        self.rates_implausible = counter(
            "sampling_rates_implausible", "Sampling rates beyond most_sampling_rate, not taken.", "by"
        )
        self.over_budget = counter(
            "over_budget",
            "Sets (or datagrams of new domains) passed over because collectors.netflow.budget was spent.",
            "kind",
        )
        self.over_budget_of = NamedCounter(
            registry,
            f"{_PREFIX}_exporter_over_budget",
            "The same by exporter; 512 by name, the others summed.",
            ("exporter",),
        )
        self.lost_of = NamedCounter(
            registry,
            f"{_PREFIX}_domain_lost",
            "Lost by sequence, as in lost_total, by exporter and domain; 512 by name, the others summed.",
            ("exporter", "domain", "protocol"),
        )
        self.dropped_of = NamedCounter(
            registry,
            f"{_PREFIX}_domain_dropped",
            "Data sets without a template dropped, by exporter and domain; 512 by name, the others summed.",
            ("exporter", "domain"),
        )
        self.rates = RateGauge(registry, _PREFIX)
        self.counting = Gauge(
            f"{_PREFIX}_sequence_domains",
            "Observation domains by what their sequence numbers count: as the standard says, another unit, or"
            " nothing that makes sense, so that no loss is told.",
            ["counting"],
            registry=registry,
        )  # fmt: skip

    def _begin(self) -> None:
        """Every series exists, at zero, before its first event."""
        for reason in Reason:
            self.refused.labels(reason)
        for why in NEWCOMERS:
            self.strangers.labels(why)
        for event in TEMPLATE_EVENTS:
            self.template_events.labels(event)
        for why in holding.DROPS:
            self.dropped.labels(why)
        for event in FILE_EVENTS:
            self.file_events.labels(event)
        for kind in budget.REFUSED:
            self.over_budget.labels(kind)
        for doubt in IMPLAUSIBLE:
            self.implausible.labels(doubt)
        for source in RATES_FROM:
            self.rates_implausible.labels(source)
        for how in COUNTINGS:
            self.counting.labels(how)
        for protocol in PROTOCOLS:
            for one in (
                self.datagrams, self.bytes, self.lost, self.gaps, self.late, self.repeated, self.restarts,
            ):  # fmt: skip
                one.labels(protocol)
            for kind in KINDS:
                self.records.labels(protocol, kind)

    def read(self, dropped: int, corrected: int, future: int) -> None:
        """Count records without a home end, and those whose times were corrected."""
        self.not_home.inc(dropped)
        self.clocks.count(corrected, future)

    def passed_over(self, told: Mapping[str, int]) -> None:
        """Count what ``budget.Purses.refused`` tells."""
        for kind in budget.REFUSED:
            self.over_budget.labels(kind).inc(told[kind])
        self.dropped.labels("bytes").inc(told["dropped"])
        self.dropped.labels("budget").inc(told["unknown"])
        # Datagrams of domains that were not let in.
        self.strangers.labels("no_room").inc(told["domains"])

    def doubted(self, few: int, many: int, beyond: int, rates: int) -> None:
        """Count records that are not plausible, and rates that records told."""
        for reason, count in zip(IMPLAUSIBLE, (few, many, beyond), strict=True):
            self.implausible.labels(reason).inc(count)
        self.rates_implausible.labels("record").inc(rates)

    def walked(self, moved: np.ndarray) -> None:
        """Count what the walk's counters moved by."""
        for counter, by in self._walked(moved):
            if by:
                counter.inc(by)

    def _walked(self, moved: np.ndarray) -> Iterator[tuple[Counter, int]]:
        for i, protocol in enumerate(PROTOCOLS):
            part = moved[i * sequences.PER_PROTOCOL : (i + 1) * sequences.PER_PROTOCOL].tolist()
            if not any(part):
                continue
            for place, counter in (
                (sequences.N_DATAGRAMS, self.datagrams),
                (sequences.N_OCTETS, self.bytes),
                (sequences.N_LOST, self.lost),
                (sequences.N_GAPS, self.gaps),
                (sequences.N_LATE, self.late),
                (sequences.N_REPEATED, self.repeated),
                (sequences.N_RESTARTS, self.restarts),
            ):
                yield counter.labels(protocol), part[place]
            for kind, place in KINDS.items():
                yield self.records.labels(protocol, kind), part[place]
        for i, reason in enumerate(walking.REFUSALS):
            yield self.refused.labels(reason), int(moved[walking.REFUSED + i])
