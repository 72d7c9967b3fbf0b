"""Which rate holds: what options said of samplers, interfaces, domains and whole exporters, and what is
configured, brought into a domain's row and the index, where kernels find it.

From weak to strong: configured for when the exporter is silent; told for the exporter as a whole; told for
the domain; for the interface; for the record's sampler; by the record itself; configured for always.
Bounded: what finds no room is counted, and not taken.
"""

from collections import Counter
from collections.abc import Iterator, Set
from typing import Final

import numpy as np

from collectors.netflow.domains import (
    BY_INTERFACE,
    D_BOOT,
    D_EXPORTER,
    D_FILL,
    D_RATE,
    D_RATING,
    D_VERSION,
    FORCED,
    FORCED_BY_INTERFACE,
)
from collectors.netflow.index import EXPORTER_TAG, FORCED_TAG, GONE, INTERFACE_TAG, Index, sampler_key
from collectors.netflow.overrides import Configured, Overrides
from collectors.netflow.sampling import Samplers, Told

MOST: Final = 65536
MOST_OF_EXPORTER: Final = 4096
# The last millisecond that i8 nanoseconds can say.
_MAX_MS: Final = 9_223_372_036_854


class Rates:
    """By number of domain and exporter.  ``refused`` counts rates that found no room."""

    def __init__(self, index: Index, overrides: Overrides | None = None) -> None:
        self._index = index
        self._overrides = overrides or Overrides()
        self._configured: dict[int, Configured] = {}
        self._own: dict[int, Samplers] = {}
        # What an exporter said of itself as a whole, by the domain that said it.
        self._wide: dict[int, dict[int, Samplers]] = {}
        self._members: dict[int, set[int]] = {}
        self._count = 0
        self._counts: Counter[int] = Counter()
        self._moves: Counter[int] = Counter()
        self.refused = 0

    def enter(self, domain: int, row: np.ndarray, address: bytes, number: int) -> None:
        """A domain is new: give it what is configured, and what its exporter said of itself."""
        exporter = int(row[D_EXPORTER])
        self._members.setdefault(exporter, set()).add(domain)
        configured = self._overrides.of(address, number)
        if configured.own or configured.by_interface:
            self._configured[domain] = configured
        for interface, one in configured.by_interface.items():
            always = "always" in (one.when, configured.own and configured.own.when)
            row[D_RATING] |= FORCED_BY_INTERFACE if always else BY_INTERFACE
            tag = FORCED_TAG if always else INTERFACE_TAG
            self._index.put(sampler_key(domain | tag, interface), one.rate)
        if configured.own:
            row[D_FILL] = row[D_RATE] = configured.own.rate
            if configured.own.when == "always":
                row[D_RATING] |= FORCED
        self._settle(domain, row)

    def leave(self, domain: int, row: np.ndarray) -> None:
        """A domain is forgotten."""
        exporter = int(row[D_EXPORTER])
        mine = self._members.get(exporter, set())
        mine.discard(domain)
        for interface in self._configured.pop(domain, Configured(None, {})).by_interface:
            for tag in (FORCED_TAG, INTERFACE_TAG):
                self._index.put(sampler_key(domain | tag, interface), GONE)
        for key in self._keys(domain):
            self._index.put(key, GONE)
        wide = self._wide.get(exporter, {}).pop(domain, None)
        for sampler in wide.by_id if wide else ():
            self._index.put(sampler_key(exporter | EXPORTER_TAG, sampler), GONE)
        for told in (self._own.pop(domain, None), wide):
            self._moved(exporter, -told.size if told else 0)
        self._moves.pop(domain, None)
        if not mine:
            self._members.pop(exporter, None)
            self._wide.pop(exporter, None)

    def members(self, exporter: int) -> Set[int]:
        """The domains of an exporter."""
        return self._members.get(exporter, frozenset())

    def _keys(self, domain: int) -> Iterator[int]:
        told = self._own.get(domain)
        if told:
            yield from (sampler_key(domain, n) for n in told.by_id)
            yield from (sampler_key(domain | INTERFACE_TAG, n) for n in told.by_interface)

    def _moved(self, exporter: int, by: int) -> None:
        self._count += by
        self._counts[exporter] += by
        if not self._counts[exporter]:
            del self._counts[exporter]

    def is_news(self, domain: int, said: Told) -> bool:
        """Whether an options record gives somebody another rate than it had."""
        known = self._own.get(domain)
        return bool(said.rate) and (known is None or known.find(said) != said.rate)

    def told(self, domain: int, domains: np.ndarray, said: Told, now_ns: int = 0) -> None:
        """Take over what an options record says of ``domain``; ``domains`` are all rows."""
        row = domains[domain]
        if 0 < said.start_ms < _MAX_MS:
            row[D_BOOT] = said.start_ms
        exporter = int(row[D_EXPORTER])
        if said.rate and self._learn(self._own, domain, exporter, said, now_ns):
            self._moves[domain] += 1
            self._publish(domain, row, said)
            self._settle(domain, row)
        wide = self._wide.setdefault(exporter, {}) if said.rate and said.wide else None
        if wide is not None and self._learn(wide, domain, exporter, said, now_ns):
            if said.sampler is not None:
                self._index.put(sampler_key(exporter | EXPORTER_TAG, said.sampler), said.rate)
            for other in self._members.get(exporter, ()):
                self._settle(other, domains[other])

    def _learn(self, where: dict[int, Samplers], domain: int, exporter: int, said: Told, now_ns: int) -> bool:
        """Whether it is news, and has room."""
        known = where.setdefault(domain, Samplers())
        if known.find(said) == said.rate:
            known.hear(said, now_ns)
            return False
        before = known.size
        newcomer = known.find(said) is None and (said.sampler, said.interface) != (None, None)
        if newcomer and (self._count >= MOST or self._counts[exporter] >= MOST_OF_EXPORTER):
            self.refused += 1
            return False
        known.learn(said)
        known.hear(said, now_ns)
        self._moved(exporter, known.size - before)
        return True

    def age(self, domains: np.ndarray, age_ns: int) -> None:
        """Forget rates that were not told for so long while their domain told others: an exporter that
        repeats its options leaves out what holds no more; one that tells them once is believed for ever."""
        for domain, known in list(self._own.items()):
            exporter = int(domains[domain, D_EXPORTER])
            old = known.old(age_ns)
            for said in old:
                known.forget(said)
                tag, number = (
                    (0, said.sampler) if said.sampler is not None else (INTERFACE_TAG, said.interface)
                )
                if number is not None:
                    self._index.put(sampler_key(domain | tag, number), GONE)
                    self._moved(exporter, -1)
            if old:
                self._moves[domain] += 1
                self._settle(domain, domains[domain])
        for exporter, wide in self._wide.items():
            for told in wide.values():
                old = told.old(age_ns)
                for said in old:
                    told.forget(said)
                    if said.sampler is not None:
                        self._index.put(sampler_key(exporter | EXPORTER_TAG, said.sampler), GONE)
                    self._moved(exporter, -int((said.sampler, said.interface) != (None, None)))
                if old:
                    for other in self._members.get(exporter, ()):
                        self._settle(other, domains[other])

    def _publish(self, domain: int, row: np.ndarray, said: Told) -> None:
        if said.sampler is not None:
            self._index.put(sampler_key(domain, said.sampler), said.rate)
        elif said.interface is not None:
            row[D_RATING] |= BY_INTERFACE
            self._index.put(sampler_key(domain | INTERFACE_TAG, said.interface), said.rate)

    def _settle(self, domain: int, row: np.ndarray) -> None:
        """What holds for records of the domain that say nothing themselves."""
        if row[D_RATING] & FORCED or row[D_VERSION] not in (9, 10):
            return
        own = self._own.get(domain)
        row[D_RATE] = (own.default if own else 0) or self._exporter(int(row[D_EXPORTER])) or row[D_FILL]

    def _exporter(self, exporter: int) -> int:
        """The rate of an exporter as a whole, where all that it said agrees."""
        rates = {told.default for told in self._wide.get(exporter, {}).values()}
        return rates.pop() if len(rates) == 1 else 0

    def in_force(self, domain: int, row: np.ndarray) -> dict[str, int]:
        """Rates by whom they are for: "" the domain, a sampler's number, or "interface" and its number."""
        found = {"": int(row[D_RATE])}
        told, configured = self._own.get(domain), self._configured.get(domain)
        if told and not row[D_RATING] & FORCED:
            found |= {str(n): one for n, one in told.by_id.items()}
            found |= {f"interface {n}": one for n, one in told.by_interface.items()}
        for n, one in configured.by_interface.items() if configured else ():
            if one.when == "always" or f"interface {n}" not in found:
                found[f"interface {n}"] = one.rate
        return {name: rate for name, rate in found.items() if rate}

    def moves(self, domain: int) -> int:
        """How often its rates changed."""
        return self._moves.get(domain, 0)

    def saved(self, domain: int) -> Samplers | None:
        """What options said of the domain."""
        return self._own.get(domain)
