"""The metrics of the flow collector, and the counters of the compiled walk under their names."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors.errors import Reason
from collectors.netflow import holding, walking

PROTOCOLS: Final = ("netflow5", "netflow9", "ipfix")
KINDS: Final = {
    "flow": walking.N_FLOW,
    "other": walking.N_OTHER,
    "options": walking.N_OPTIONS,
}
TEMPLATE_EVENTS: Final = ("new", "changed", "withdrawn", "evicted", "aged", "malformed")
# A label is a series: of more exporters than this only the first are shown by name.
MOST_NAMED: Final = 512
NEWCOMERS: Final = ("not_listed", "no_room")


class Metrics:
    """Everything that moves in the flow collector."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"poolwatch_collector_netflow_{name}", told, labels, registry=registry)

        def gauge(name: str, told: str) -> Gauge:
            return Gauge(f"poolwatch_collector_netflow_{name}", told, registry=registry)

        self.datagrams = counter("datagrams", "Export datagrams read.", "protocol")
        self.bytes = counter("bytes", "Octets of export datagrams read.", "protocol")
        self.refused = counter("refused", "Datagrams or parts of them refused, by reason.", "reason")
        self.strangers = counter("strangers", "Datagrams of exporters that were not let in.", "reason")
        self.records = counter("records", "Records read.", "protocol", "kind")
        self.lost = counter(
            "lost", "Lost by sequence: flows in NetFlow v5, datagrams in v9, records in IPFIX.", "protocol"
        )
        self.gaps = counter("gaps", "Gaps in sequence.", "protocol")
        self.late = counter("late", "Datagrams that were overtaken.", "protocol")
        self.restarts = counter("restarts", "Sequences that began anew.", "protocol")
        self.template_events = counter("template_events", "What became of templates.", "event")
        self.templates = gauge("templates", "Templates known.")
        self.exporters = gauge("exporters", "Exporters known.")
        self.domains = gauge("domains", "Observation domains known.")
        self.held = counter("held", "Data sets held for want of a template.")
        self.decoded_late = counter("decoded_late", "Held data sets decoded when their template came.")
        self.dropped = counter("dropped", "Data sets without a template dropped.", "reason")
        self.held_bytes = gauge("held_bytes", "Octets of data sets that wait for a template.")
        self.rows = counter("rows", "Rows published.")
        self.batches = counter("batches", "Batches published.")
        self.not_home = counter("not_home", "Records dropped: no home end.")
        self.socket_drops = counter("socket_drops", "Datagrams that found the socket's buffer full.")
        self.heard = Gauge(
            "poolwatch_collector_netflow_exporter_heard_timestamp_seconds",
            "When an exporter was last heard, Unix time; of the first 512 exporters.",
            ["exporter"],
            registry=registry,
        )
        self._named: set[str] = set()
        for reason in Reason:  # a series exists, at zero, before its first event
            self.refused.labels(reason)
        for why in NEWCOMERS:
            self.strangers.labels(why)
        for event in TEMPLATE_EVENTS:
            self.template_events.labels(event)
        for why in holding.DROPS:
            self.dropped.labels(why)
        for protocol in PROTOCOLS:
            for one in (self.datagrams, self.bytes, self.lost, self.gaps, self.late, self.restarts):
                one.labels(protocol)
            for kind in KINDS:
                self.records.labels(protocol, kind)

    def exporters_heard(self, heard: Iterable[tuple[str, int]]) -> None:
        """Show when exporters were last heard (Unix ns); one that is forgotten is no longer shown."""
        known = dict(islice(heard, MOST_NAMED))
        for name in self._named - known.keys():
            self.heard.remove(name)
        self._named = set(known)
        for name, at_ns in known.items():
            self.heard.labels(name).set(at_ns / 1e9)

    def walked(self, moved: np.ndarray) -> None:
        """Count what the walk's counters moved by."""
        for counter, by in self._walked(moved):
            if by:
                counter.inc(by)

    def _walked(self, moved: np.ndarray) -> Iterator[tuple[Counter, int]]:
        for i, protocol in enumerate(PROTOCOLS):
            part = moved[i * walking.PER_PROTOCOL : (i + 1) * walking.PER_PROTOCOL].tolist()
            if not any(part):
                continue
            for place, counter in (
                (walking.N_DATAGRAMS, self.datagrams),
                (walking.N_OCTETS, self.bytes),
                (walking.N_LOST, self.lost),
                (walking.N_GAPS, self.gaps),
                (walking.N_LATE, self.late),
                (walking.N_RESTARTS, self.restarts),
            ):
                yield counter.labels(protocol), part[place]
            for kind, place in KINDS.items():
                yield self.records.labels(protocol, kind), part[place]
        for i, reason in enumerate(walking.REFUSALS):
            yield self.refused.labels(reason), int(moved[walking.REFUSED + i])
