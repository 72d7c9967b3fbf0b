"""Campaigns as metrics, as a sink that hears of incidents, and as words in alerts.

Labels are closed sets: no wallet, no account, no subscriber.  Several threads are here at once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from detector.campaigns import Campaign, Campaigns, Config, totals
from detector.document import Incident, Transition
from detector.hashrate import Power

MOST_SECTORS: Final = 64
"""Of the place list; the others are told as one."""
OTHER: Final = "other"
UNKNOWN: Final = "unknown"


class Linking(Collector):
    """A sink of incidents; registered, it tells what campaigns there are among them."""

    def __init__(self, config: Config, registry: CollectorRegistry) -> None:
        self._campaigns = Campaigns(config)
        self._lock = Lock()
        registry.register(self)

    def alert(self, made: Transition) -> None:
        """Nothing: the document that comes with a transition says it all."""

    def incident(self, document: Incident) -> None:
        """Take the latest document of an incident."""
        with self._lock:
            self._campaigns.take(document)

    def unreadable(self) -> None:
        """A document could not be read."""
        with self._lock:
            self._campaigns.dropped.unreadable += 1

    def words(self, document: Incident) -> str:
        """What the incident is part of, "" where it is alone."""
        with self._lock:
            return self._campaigns.words(document)

    def found(self) -> list[Campaign]:
        """The campaigns, the largest first."""
        with self._lock:
            return self._campaigns.found()

    def collect(self) -> Iterator[Metric]:
        """All families."""
        with self._lock:
            found = self._campaigns.found()
            links, dropped = len(self._campaigns), self._campaigns.dropped
            reasons = {field: getattr(dropped, field) for field in dropped.__struct_fields__}
        many = GaugeMetricFamily("poolwatch_campaigns", "Names that many mine for.", labels=["kind"])
        members = GaugeMetricFamily(
            "poolwatch_campaign_subscribers", "Subscribers of campaigns.", labels=["kind"]
        )
        largest = GaugeMetricFamily(
            "poolwatch_campaign_largest", "Subscribers of the largest campaign.", labels=["kind"]
        )
        for kind, count, subscribers, most in totals(found):
            many.add_metric((kind,), count)
            members.add_metric((kind,), subscribers)
            largest.add_metric((kind,), most)
        yield from (many, members, largest, *_sums(found))
        held = GaugeMetricFamily("poolwatch_campaign_links", "Subscribers' names that are kept.")
        held.add_metric((), links)
        yield held
        lost = CounterMetricFamily(
            "poolwatch_campaign_links_dropped", "Links that were lost, by reason.", labels=["reason"]
        )
        for reason, n in reasons.items():
            lost.add_metric((reason,), n)
        yield lost


def _sums(found: list[Campaign]) -> Iterator[Metric]:
    """What campaigns do: the labels are rows of our own tables."""
    rates: defaultdict[str, float] = defaultdict(float)
    watts: defaultdict[str, float] = defaultdict(float)
    for one in found:
        for rate in one.hashrate:
            rates[rate.algorithm] += rate.value or 0.0
        for device in Power.__struct_fields__ if one.power_watts is not None else ():
            watts[device] += getattr(one.power_watts, device)
    hashing = GaugeMetricFamily(
        "poolwatch_campaign_hashrate", "Measured hashes per second of campaigns.", labels=["algorithm"]
    )
    for algorithm, value in sorted(rates.items()):
        hashing.add_metric((algorithm,), value)
    power = GaugeMetricFamily(
        "poolwatch_campaign_power_watts", "Power of campaigns by the energy table.", labels=["device"]
    )
    for device, value in sorted(watts.items()):
        power.add_metric((device,), value)
    sectors = GaugeMetricFamily(
        "poolwatch_campaign_subscribers_by_sector", "Subscribers of campaigns, by sector.", labels=["sector"]
    )
    for sector, count in sorted(_sectors(found).items()):
        sectors.add_metric((sector,), count)
    yield from (hashing, power, sectors)


def _sectors(found: list[Campaign]) -> Counter[str]:
    """Subscribers by sector of the place list, the largest ``MOST_SECTORS`` of them by name."""
    whole: Counter[str] = Counter()
    for one in found:
        named: Counter[str] = Counter()
        for place in one.places:
            named[place.sector or UNKNOWN] += place.subscribers
        # Places beyond those that a campaign tells.
        named[OTHER] += one.subscribers - named.total()
        whole.update(named)
    kept = Counter(dict(whole.most_common(MOST_SECTORS)))
    kept[OTHER] += whole.total() - kept.total()
    return +kept
