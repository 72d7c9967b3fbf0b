"""What the tables know, told as metrics by exporter and domain: what was lost, which rates are in force."""

import numpy as np

from collectors.netflow.domains import D_COUNTING, D_DROPPED, D_LOST, D_RATE
from collectors.netflow.metrics import COUNTINGS, PROTOCOL_OF, Metrics, text
from collectors.netflow.tables import Domain, Tables


def _labels(name: Domain) -> tuple[str, str, str]:
    return text(name.exporter), str(name.id), PROTOCOL_OF[name.version]


class Teller:
    """``tell`` once a second."""

    def __init__(self, tables: Tables, metrics: Metrics) -> None:
        self._tables = tables
        self._metrics = metrics
        self._names: dict[int, Domain] = {}
        self._rates: dict[int, tuple[int, int]] = {}
        self._refused = 0

    def tell(self) -> None:
        """Bring the metrics up to date."""
        tables, metrics = self._tables, self._metrics
        for number, name in list(self._names.items()):
            if tables.names.get(number) is not name:
                self._forget(number, name)
        for number in tables.names.keys() - self._names.keys():
            self._names[number] = tables.names[number]
            metrics.lost_of.name(_labels(tables.names[number]))
        for number in np.flatnonzero(tables.domains[:, D_LOST]).tolist():
            if number in self._names:
                metrics.lost_of.inc(_labels(self._names[number]), int(tables.domains[number, D_LOST]))
        tables.domains[:, D_LOST] = 0
        for number in np.flatnonzero(tables.domains[:, D_DROPPED]).tolist():
            if number in self._names:
                exporter, domain, _ = _labels(self._names[number])
                metrics.dropped_of.inc((exporter, domain), int(tables.domains[number, D_DROPPED]))
        tables.domains[:, D_DROPPED] = 0
        for number, count in tables.purses.refused_of().items():
            if number in tables.identities:
                metrics.over_budget_of.inc((text(tables.identities[number]),), count)
        metrics.rates_refused.inc(tables.rates.refused - self._refused)
        self._refused = tables.rates.refused
        known = list(self._names)
        counting = np.bincount(tables.domains[known, D_COUNTING], minlength=len(COUNTINGS)).tolist()
        for how, count in zip(COUNTINGS, counting, strict=True):
            metrics.counting.labels(how).set(count)
        for number, rate in zip(known, tables.domains[known, D_RATE].tolist(), strict=True):
            state = rate, tables.rates.moves(number)
            if self._rates.get(number, (0, 0)) != state:
                self._rates[number] = state
                name = self._names[number]
                found = tables.rates.in_force(number, tables.domains[number])
                metrics.rates.show(text(name.exporter), str(name.id), found)

    def _forget(self, number: int, name: Domain) -> None:
        exporter, domain, protocol = _labels(name)
        del self._names[number]
        self._rates.pop(number, None)
        self._metrics.lost_of.forget((exporter, domain, protocol))
        self._metrics.dropped_of.forget((exporter, domain))
        self._metrics.rates.forget(exporter, domain)
