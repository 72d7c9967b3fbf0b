"""Prometheus: totals and incidents rendered as metric families at scrape time.

Nothing here is on the hot path: a scrape reads the numbers that the core keeps anyway.  Labels come from
closed or bounded sets; never a subscriber, a worker or any text from the wire.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from detector import coins as coin_table
from detector.dialects.lines import Refusal
from detector.document import Incident, latest
from detector.engine import Config, Engine
from detector.fusion import WEIGHTS
from detector.hashrate import KWH_PER_DAY_OF_A_WATT, power
from detector.incidents import OPEN, State
from detector.minutes import UNKNOWN
from detector.totals import CountKey, Totals, counts_of

MOST_SERIES: Final = 1000
OTHER: Final = "other"
SEVERITY: Final = {State.CONFIRMED: "page", State.SUSPECTED: "ticket"}
DEVICES: Final = ("low", "typical", "high")
MEGABIT: Final = 1e6
MINUTE_S: Final = 60.0

Values = Mapping[Any, float]


@cache
def _zero() -> Mapping[CountKey, int]:
    """A series exists, at zero, before its first event."""
    return dict.fromkeys(counts_of(Engine(Config())), 0)


class Capped:
    """Label sets admitted first come, first served; beyond the cap they are ``other``, each counted once."""

    def __init__(self, most: int = MOST_SERIES) -> None:
        self._most = most
        self._known: dict[str, set[tuple[str, ...]]] = {}
        self._over: dict[str, set[tuple[str, ...]]] = {}
        self.overflowed = 0

    def __call__(self, family: str, counts: Values) -> Values:
        """The same counts, with label sets beyond the cap added up under ``other``."""
        known = self._known.setdefault(family, set())
        over = self._over.setdefault(family, set())
        out: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for labels, value in sorted(counts.items()):
            if labels not in known and len(known) >= self._most:
                if len(over) < self._most and labels not in over:
                    over.add(labels)
                    self.overflowed += 1
                out[labels[:1] * (len(labels) > 1) + (OTHER,) * max(1, len(labels) - 1)] += value
            else:
                known.add(labels)
                out[labels] += value
        return out


class Exporter(Collector):
    """Renders one ``Totals``; register it on the registry that is served.

    ``guard`` keeps the detector from moving the totals while they are read on the listener's thread.
    """

    def __init__(self, totals: Totals, version: str, guard: AbstractContextManager[object]) -> None:
        self._totals = totals
        self._version = version
        self._guard = guard
        self._capped = Capped()

    def collect(self) -> list[Metric]:
        """All families.  Documents are made run by run, and the detector goes on in between: thousands of
        them take a second."""
        found: list[Incident] = []
        for run in list(self._totals.runs):
            with self._guard:
                found += run.documents()
        with self._guard:
            return list(self._families(latest(found)))

    def _families(self, documents: list[Incident]) -> Iterator[Metric]:
        live = [d for d in documents if d.state in OPEN and d.role != "pool"]
        yield _gauge("build_info", "Version that runs.", ("version",), {(self._version,): 1})
        yield from self._traffic()
        yield from self._miners(documents, live)
        yield from _hashing(live)
        yield from self._events()
        yield from self._counts()
        overflow = CounterMetricFamily(
            "poolwatch_label_overflow", "Label sets beyond the cap, shown as other."
        )
        overflow.add_metric((), self._capped.overflowed)
        yield overflow

    def _counter(self, name: str, text: str, labels: tuple[str, ...], counts: Values) -> Metric:
        family = CounterMetricFamily(f"poolwatch_{name}", text, labels=labels)
        for values, value in self._capped(name, counts).items():
            family.add_metric(values, value)
        return family

    def _traffic(self) -> Iterator[Metric]:
        labels = ("direction", "coin", "operator", "basis")
        yield self._counter("mining_bytes", "IP octets of mining connections.", labels, self._totals.bytes)
        yield self._counter(
            "mining_bytes_by_place",
            "IP octets of mining connections, by place of the subscriber.",
            ("direction", "sector", "city", "basis"),
            self._totals.bytes_by_place,
        )
        minute, ended_s = self._totals.minute()
        mbps = {key: octets * 8 / MEGABIT / MINUTE_S for key, octets in minute.items()}
        yield _gauge(
            "mining_mbps", "Mining traffic in the last closed minute, Mbit/s.", labels,
            self._capped("mining_mbps", mbps),
        )  # fmt: skip
        watermark_ns = self._totals.watermark_ns()
        told = {} if watermark_ns is None or watermark_ns <= 0 else {(): watermark_ns / 1e9}
        text = "How far the data's time has surely come, Unix time; its lag is time() minus this."
        yield _gauge("detector_watermark_timestamp_seconds", text, (), told)
        text = "When the last closed minute ended, Unix time of the data."
        yield _gauge("mining_mbps_timestamp_seconds", text, (), {} if ended_s is None else {(): ended_s})

    def _miners(self, documents: list[Incident], live: list[Incident]) -> Iterator[Metric]:
        states: Counter[tuple[str]] = Counter(
            {(s.value,): 0 for s in (State.SUSPECTED, State.CONFIRMED, State.RESOLVED)}
        )
        states.update((d.state.value,) for d in documents if d.role != "pool")
        yield _gauge("miners", "Subscribers with an incident, by state.", ("state",), states)
        confirmed = [d for d in live if d.state is State.CONFIRMED]
        coins = Counter((c,) for d in confirmed for c in (d.coins or (UNKNOWN,)))
        yield _gauge(
            "miners_by_coin", "Confirmed miners, by coin.", ("coin",), self._capped("miners_by_coin", coins)
        )
        places = Counter(_place(d) for d in confirmed)
        yield _gauge(
            "miners_by_place", "Confirmed miners, by place.", ("sector", "city"),
            self._capped("miners_by_place", places),
        )  # fmt: skip
        firing = Counter(
            (SEVERITY[d.state], coin, _place(d)[0]) for d in live for coin in (d.coins or (UNKNOWN,))
        )
        yield _gauge(
            "alerts_firing", "Open incidents, by severity.", ("severity", "coin", "sector"),
            self._capped("alerts_firing", firing),
        )  # fmt: skip

    def _events(self) -> Iterator[Metric]:
        transitions: Counter[tuple[str]] = Counter({(s.value,): 0 for s in State})
        transitions.update({(to,): n for to, n in self._totals.transitions.items()})
        yield self._counter(
            "incident_transitions", "Incident transitions, by new state.", ("to",), transitions
        )
        known = {key: n for key, n in self._totals.evidence().items() if key[0] in WEIGHTS}
        yield self._counter("evidence", "Observations, by kind and rule.", ("kind", "rule"), known)

    def _counts(self) -> Iterator[Metric]:
        sums: Counter[CountKey] = Counter({("payload_refused", str(r)): 0 for r in Refusal})
        sums.update(_zero())
        sums.update(self._totals.counts())
        for name in sorted({name for name, _ in sums}):
            reasons = {reason: n for (of, reason), n in sums.items() if of == name}
            text = f"Detector core: {name.replace('_', ' ')}."
            labels = () if set(reasons) == {""} else ("reason",)
            family = CounterMetricFamily(f"poolwatch_detector_{name}", text, labels=labels)
            for reason, n in sorted(reasons.items()):
                family.add_metric((reason,) if labels else (), n)
            yield family


def _place(document: Incident) -> tuple[str, str]:
    place = document.place
    return ((place.sector if place else "") or UNKNOWN, (place.city if place else "") or UNKNOWN)


def _gauge(name: str, text: str, labels: Iterable[str], values: Values) -> Metric:
    family = GaugeMetricFamily(f"poolwatch_{name}", text, labels=tuple(labels))
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _hashing(live: list[Incident]) -> Iterator[Metric]:
    """A proxy's upstream shares are its clients' own: they are not added to them."""
    value: defaultdict[tuple[str], float] = defaultdict(float)
    by_coin: defaultdict[tuple[str, str], float] = defaultdict(float)
    variance: defaultdict[tuple[str], float] = defaultdict(float)
    watts: defaultdict[tuple[str, str], float] = defaultdict(float)
    for document in live:
        for rate in document.hashrate:
            if rate.value is None or document.role == "proxy":
                continue
            value[(rate.algorithm,)] += rate.value
            variance[(rate.algorithm,)] += rate.value**2 / rate.shares
            used = power([rate])
            coin = _coin(document, rate.algorithm)
            for device in DEVICES if used is not None else ():
                watts[rate.algorithm, device] += getattr(used, device)
                by_coin[coin, device] += getattr(used, device) * KWH_PER_DAY_OF_A_WATT
    yield _gauge("hashrate", "Measured hashes per second.", ("algorithm",), value)
    yield _gauge("hashrate_variance", "Its Poisson variance, (H/s) squared.", ("algorithm",), variance)
    yield _gauge("power_watts", "Power by the energy table.", ("algorithm", "device"), watts)
    daily = {key: value * KWH_PER_DAY_OF_A_WATT for key, value in watts.items()}
    text = "Energy of a day at that power, kWh."
    yield _gauge("energy_kwh_per_day", text, ("algorithm", "device"), daily)
    yield _gauge("energy_kwh_per_day_by_coin", "The same, by coin.", ("coin", "device"), by_coin)


def _coin(document: Incident, algorithm: str) -> str:
    """The one coin of the document that the algorithm mines."""
    fit = [coin for coin in document.coins if coin_table.can_mine(algorithm, coin) is not False]
    return fit[0] if len(fit) == 1 else UNKNOWN
