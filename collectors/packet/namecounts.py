"""What moves where names are looked for: the pass's counts and the readers' in, Prometheus metrics out."""

from prometheus_client import CollectorRegistry, Counter

from collectors.packet.names import REFUSALS, Names
from collectors.packet.namesets import (
    FLIGHTS,
    FORGOTTEN,
    SEALED,
    SEEN_CERTIFICATES,
    SEEN_DNS,
    SEEN_HTTP,
    SEEN_QUIC,
    SEEN_TLS,
    SHARES,
    STRANGERS,
    SURE,
    UNSURE,
    WITHHELD,
    Wanted,
)

_SEEN = {
    "dns": SEEN_DNS, "tls_server_name": SEEN_TLS, "certificate": SEEN_CERTIFICATES,
    "http_host": SEEN_HTTP, "quic_server_name": SEEN_QUIC,
}  # fmt: skip
_WITHHELD = {
    "wanted": WITHHELD + SURE, "unclear": WITHHELD + UNSURE, "certificate": WITHHELD + FLIGHTS,
    "quic": WITHHELD + SEALED, "share": SHARES,
}  # fmt: skip


class NameMetrics:
    """``count`` brings them up to date."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, told: str, label: str) -> Counter:
            labels = (label,) if label else ()
            return Counter(f"poolwatch_collector_packet_{name}", told, labels, registry=registry)

        self.seen = counter("names_seen", "Messages looked at for wanted names, by what may tell.", "kind")
        self.refused = counter("names_refused", "Messages that may hold a name refused, by reason.", "reason")
        self.withheld = counter(
            "names_withheld",
            "Datagrams and segments over a second's budget for names or one client's share, by budget.",
            "budget",
        )
        self.forgotten = counter(
            "names_clients_forgotten", "Clients whose share of a second was forgotten for want of room.", ""
        )
        self.evicted = counter("names_evicted", "Unfinished messages pushed out by newer ones.", "")
        self.strangers = counter(
            "dns_strangers", "DNS answers from who is not a configured resolver, not read.", ""
        )
        self._all(None, None)  # a series exists, at zero, before its first event

    def _all(self, wanted: Wanted | None, names: Names | None) -> list[tuple[Counter, int]]:
        def at(place: int) -> int:
            return 0 if wanted is None else int(wanted.counts[place])

        return [
            *((self.seen.labels(kind), at(place)) for kind, place in _SEEN.items()),
            *((self.withheld.labels(name), at(place)) for name, place in _WITHHELD.items()),
            *((self.refused.labels(r), 0 if names is None else names.refused[r]) for r in REFUSALS),
            (self.evicted, 0 if names is None else names.evicted),
            (self.strangers, at(STRANGERS)),
            (self.forgotten, at(FORGOTTEN)),
        ]

    def count(self, wanted: Wanted, names: Names, told: dict[Counter, int]) -> None:
        """Add what moved since the last call with the same ``told``.  Each collector keeps its own, empty at
        first: several runs move the same metrics."""
        for counter, total in self._all(wanted, names):
            if moved := total - told.get(counter, 0):
                counter.inc(moved)
                told[counter] = total
