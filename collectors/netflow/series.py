"""Metrics by exporter and domain: bounded, for every label is a series, and labels come off the wire."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge

OTHER = "other"

Labels = tuple[str, ...]


class NamedCounter:
    """A counter of which the first ``most`` label values have a series; the rest are summed under "other"."""

    def __init__(
        self, registry: CollectorRegistry, name: str, told: str, labels: Labels, most: int = 512
    ) -> None:
        self._counter = Counter(name, told, labels, registry=registry)
        self._other = self._counter.labels(*[OTHER] * len(labels))
        self._most = most
        self._named: set[Labels] = set()

    def name(self, labels: Labels) -> bool:
        """Give them a series, at zero, if there is room; whether they have one."""
        if labels in self._named:
            return True
        if len(self._named) >= self._most:
            return False
        self._named.add(labels)
        self._counter.labels(*labels)
        return True

    def inc(self, labels: Labels, by: int = 1) -> None:
        """Count."""
        (self._counter.labels(*labels) if self.name(labels) else self._other).inc(by)

    def forget(self, labels: Labels) -> None:
        """They are no more: another may have their room.  What they counted goes with them."""
        if labels in self._named:
            self._named.remove(labels)
            self._counter.remove(*labels)


class RateGauge:
    """Sampling rates in force, by exporter, domain and sampler; those that find no room are counted."""

    def __init__(self, registry: CollectorRegistry, prefix: str, most: int = 1024) -> None:
        self._gauge = Gauge(
            f"{prefix}_sampling_rate",
            "One packet in so many is looked at: the rate in force; sampler is a number, an interface, or"
            " empty for all of the domain. At most 1,024 series.",
            ["exporter", "domain", "sampler"],
            registry=registry,
        )
        self._hidden = Counter(
            f"{prefix}_sampling_rates_hidden",
            "Sampling rates that got no series of their own, for want of room.",
            registry=registry,
        )
        self._most = most
        self._shown: dict[tuple[str, str], dict[str, int]] = {}
        self._count = 0

    def show(self, exporter: str, domain: str, rates: dict[str, int]) -> None:
        """All rates in force in a domain, by sampler; of those shown before the others are removed."""
        before = self._shown.get((exporter, domain), {})
        shown: dict[str, int] = {}
        for sampler in before.keys() - rates.keys():
            self._gauge.remove(exporter, domain, sampler)
            self._count -= 1
        for sampler, rate in rates.items():
            if sampler not in before:
                if self._count >= self._most:
                    self._hidden.inc()
                    continue
                self._count += 1
            self._gauge.labels(exporter, domain, sampler).set(rate)
            shown[sampler] = rate
        if shown:
            self._shown[exporter, domain] = shown
        else:
            self._shown.pop((exporter, domain), None)

    def forget(self, exporter: str, domain: str) -> None:
        """A domain is no more."""
        if (exporter, domain) in self._shown:
            self.show(exporter, domain, {})

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._shown))
