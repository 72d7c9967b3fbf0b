"""Answers to what stops the walk: new domains, templates, options, and data whose template is not known.

It keeps the templates and the tables that kernels search in step, holds data that came too early, and can
be written down and read again, so that a restart does not wait for templates.
"""

import struct
from collections.abc import Iterator
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np

from collectors.errors import DecodeError, Reason
from collectors.netflow import budget, options, walking
from collectors.netflow.domains import D_BOOT, D_EXPORTER
from collectors.netflow.holding import Held, Holding
from collectors.netflow.index import GONE, template_key
from collectors.netflow.metrics import Metrics, text
from collectors.netflow.sampling import MAX_RATE, Samplers, Told, told
from collectors.netflow.tables import Domain, Tables
from collectors.netflow.templates import (
    OPTIONS_SETS,
    TEMPLATE_SETS,
    Bounds,
    Key,
    Template,
    Templates,
    Withdrawal,
    read,
)

_VERSION: Final = 1
# Template sets that are known by their octets.
_SETS_BYTES: Final = 1 << 20
# What options sets said is kept up to so many octets; what one record said takes so many.
_SAID_BYTES: Final = 4 << 20
_TOLD_BYTES: Final = 150


_Version = Annotated[int, msgspec.Meta(ge=1, le=15)]
_U4 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Late(NamedTuple):
    """A held data set, and the template that came for it: another may follow under the same id."""

    held: Held
    template: Template
    slot: int
    domain: int


class _Saved(msgspec.Struct, frozen=True):
    """One template as it is written down."""

    exporter: bytes
    version: _Version
    domain: _U4
    options: bool
    raw: bytes
    t_ns: _Natural


class _Told(msgspec.Struct, frozen=True):
    """What the options of a domain said."""

    exporter: bytes
    version: _Version
    domain: _U4
    rate: _Natural
    samplers: dict[_Natural, _Natural]
    boot_ms: _Natural
    interfaces: dict[_Natural, _Natural] = {}
    wide: bool = False

    def told(self) -> Iterator[Told]:
        """The options records that would say so."""
        start = Told(0, None, None, self.domain, self.wide, self.boot_ms)
        yield start._replace(rate=min(self.rate, MAX_RATE))
        for name, rate in self.samplers.items():
            yield start._replace(rate=min(rate, MAX_RATE), sampler=name & 0xFFFFFFFF)
        for name, rate in self.interfaces.items():
            yield start._replace(rate=min(rate, MAX_RATE), interface=name & 0xFFFFFFFF)


class _State(msgspec.Struct, frozen=True):
    version: int
    templates: list[_Saved]
    domains: list[_Told]


class Knowledge:
    """What is known of all exporters.  ``late`` are data sets whose template has come since."""

    def __init__(
        self, tables: Tables, bounds: Bounds, holding: Holding, metrics: Metrics, most_rate: int = MAX_RATE
    ) -> None:
        self.tables = tables
        self._most_rate = most_rate
        self._age_ns = bounds.age_ns
        self.holding = holding
        self.late: list[Late] = []
        self._templates = Templates(bounds, self._touch)
        self._sets: dict[tuple[Domain, int, bytes], list[tuple[Key, Template]]] = {}
        self._sets_bytes = 0
        # What records of options sets said, by domain, template and octets: exporters repeat them too.
        self._said: dict[tuple[Domain, Template, bytes], tuple[int, tuple[Told, ...]]] = {}
        self._said_bytes = 0
        tables.leaving = self._domain_leaves
        self._metrics = metrics
        # Goes up when there is something new to be saved.
        self.revision = 0

    def _key(self, c: np.ndarray, template: int) -> Key:
        name = self.tables.names[int(c[walking.C_DOMAIN])]
        return Key(name.exporter, name.version, name.id, template)

    def templates_told(self, body: bytes, c: np.ndarray, t_ns: int, *, withdraws: bool) -> None:
        """Take a template set.  What is malformed is counted; what stands before it is kept.

        ``withdraws``: it came over a transport on which templates may be withdrawn.  Over UDP that MUST NOT
        be sent and MUST be ignored (RFC 7011 section 8.4): a forged datagram would blind us.
        """
        version, set_id = int(c[walking.C_VERSION]), int(c[walking.C_SET])
        domain = int(c[walking.C_DOMAIN])
        if self._repeated(domain, set_id, body, t_ns, c):
            return
        heard: list[tuple[Key, Template]] = []
        withdrawn: set[int] = set()
        try:
            for one in read(version, set_id, body):
                if isinstance(one, Template):
                    heard.append((self._key(c, one.id), one))
                    self._hear(*heard[-1], domain, t_ns)
                    withdrawn.clear()
                elif not withdraws:
                    self._metrics.template_events.labels("withdrawal_ignored").inc()
                elif one.id not in withdrawn:
                    withdrawn.add(one.id)
                    self._withdraw(one, c)
            if heard and not withdrawn:
                self._remember(domain, set_id, body, heard)
        except DecodeError as error:
            self._metrics.refused.labels(error.reason).inc()
            self._metrics.template_events.labels("malformed").inc()
        c[walking.C_TEMPLATES] += len(heard)

    def _remember(self, domain: int, set_id: int, body: bytes, heard: list[tuple[Key, Template]]) -> None:
        if self._sets_bytes + len(body) > _SETS_BYTES:
            self._sets.clear()
            self._sets_bytes = 0
        self._sets_bytes += len(body)
        self._sets[self.tables.names[domain], set_id, body] = heard

    def _spend(self, domain: int, words: int) -> None:
        self.tables.purses.spend(int(self.tables.domains[domain, D_EXPORTER]), words)

    def _repeated(self, domain: int, set_id: int, body: bytes, t_ns: int, c: np.ndarray) -> bool:
        """Whether a set says what it said before, and all of it still holds: exporters repeat themselves.

        To read 33 fields anew takes 300 microseconds, a third of all that an exporter's records took.
        """
        heard = self._sets.get((self.tables.names[domain], set_id, body))
        if heard is None:
            return False
        for key, template in heard:
            here = self.tables.index.find(template_key(domain, key.id)) != GONE
            if not here or not self._templates.refresh(key, template, t_ns):
                return False
        c[walking.C_TEMPLATES] += len(heard)
        # Its words were paid, and need not be read again.
        self._spend(domain, len(heard) - len(body) // 4)
        return True

    def _withdraw(self, told: Withdrawal, c: np.ndarray) -> None:
        name = self.tables.names[int(c[walking.C_DOMAIN])]
        gone = self._templates.withdraw(name.exporter, name.id, told)
        self._spend(int(c[walking.C_DOMAIN]), budget.TEMPLATE * (1 + len(gone)))
        self._metrics.template_events.labels("withdrawn").inc(len(gone))
        self._forget(gone)

    def _forget(self, gone: list[Key]) -> None:
        self.revision += bool(gone)
        for key in gone:
            domain = self.tables.known(key.exporter, key.version, key.domain)
            if domain != GONE:
                self.tables.forget(domain, key.id)

    def _domain_leaves(self, number: int, name: Domain) -> None:
        """A domain is forgotten: its templates are too."""
        for template in self.tables.templates_of(number):
            self._templates.forget(Key(name.exporter, name.version, name.id, template))

    def _hear(self, key: Key, told: Template, domain: int, t_ns: int) -> None:
        before = self._templates.find(key)
        changed, gone = self._templates.hear(key, told, t_ns)
        self._metrics.template_events.labels("evicted").inc(len(gone))
        self._forget(gone)
        if changed:
            self.revision += 1
            self._metrics.template_events.labels("changed" if before else "new").inc()
            self._spend(domain, budget.TEMPLATE)
        elif before != told:
            self._metrics.template_events.labels("refused").inc()
            return
        if changed or self.tables.index.find(template_key(domain, key.id)) == GONE:
            self.tables.learn(domain, told)
            slot = self.tables.index.find(template_key(domain, key.id))
            self.late += [Late(held, told, slot, domain) for held in self.holding.take(key)]
            self._room(key.exporter)

    def unknown(self, body: bytes, c: np.ndarray, t_ns: int) -> None:
        """Hold a data set whose template has not come yet."""
        number = int(c[walking.C_SET])
        whole = struct.pack(">HH", number, len(body) + 4) + body
        key = self._key(c, number)
        if self.holding.hold(key, Held(whole, c.copy(), t_ns)):
            self._metrics.held.inc()
        else:
            self._drop(key, "bytes")
        self._room(key.exporter)

    def _room(self, exporter: bytes) -> None:
        """Tell the walk what may still be held: it drops and counts what finds no room by itself."""
        purses, number = self.tables.purses, self.tables.exporters.get(exporter)
        mine, purses.common[budget.A_ROOM] = self.holding.room(exporter)
        if number is not None:
            purses.each[number, budget.P_ROOM] = mine

    def _drop(self, key: Key, why: str) -> None:
        self._metrics.dropped.labels(why).inc()
        self._metrics.dropped_of.inc((text(key.exporter), str(key.domain)))

    def options_of(self, body: bytes, c: np.ndarray, late: Template | None) -> tuple[int, tuple[Told, ...]]:
        """How many records an options set has, and what each of those says that differ."""
        template = late or self._templates.find(self._key(c, int(c[walking.C_SET])))
        if template is None:
            return 0, ()
        domain = self.tables.names[int(c[walking.C_DOMAIN])]
        key = domain, template, body
        known = self._said.get(key)
        if known is None:
            count, records = options.read(template, body)
            last: dict[tuple[object, ...], Told] = {}
            for fields in records:
                # Of those that speak of the same the last holds.
                said = self._told(fields, domain)
                whose = (*said[1:5], said.rate > 0, said.start_ms > 0)
                last.pop(whose, None)
                last[whose] = said
            known = count, tuple(last.values())
            octets = len(body) + _TOLD_BYTES * (1 + len(last))
            if self._said_bytes + octets > _SAID_BYTES:
                self._said.clear()
                self._said_bytes = 0
            if octets <= _SAID_BYTES:
                self._said_bytes += octets
                self._said[key] = known
        return known

    def _told(self, fields: dict[int, int], domain: Domain) -> Told:
        said = told(fields, domain.version, domain.id)
        if said.rate <= self._most_rate:
            return said
        self._metrics.rates_implausible.labels("options").inc()
        return said._replace(rate=0)

    def is_news(self, domain: int, said: Told) -> bool:
        """Whether an options record gives somebody another rate than it had."""
        return self.tables.rates.is_news(domain, said)

    def options_told(self, domain: int, said: Told, now_ns: int) -> None:
        """Take over what an options record says, for the domain that it names."""
        name = self.tables.names[domain]
        if said.domain != name.id:
            domain = self.tables.domain(name.exporter, name.version, said.domain, now_ns)
        if domain != GONE:
            self.revision += self.is_news(domain, said)
            self.tables.rates.told(domain, self.tables.domains, said, now_ns)

    def age(self, now_ns: int) -> None:
        """Let go what is too old; what data used lately is not."""
        self._touch()
        gone = self._templates.age(now_ns)
        self._metrics.template_events.labels("aged").inc(len(gone))
        self._forget(gone)
        self.tables.rates.age(self.tables.domains, self._age_ns)
        for key in self.holding.age(now_ns):
            self._drop(key, "age")
            self._room(key.exporter)

    def _touch(self) -> None:
        """Note which templates data used, and when: kernels write it in their slots."""
        for name, template, used in self.tables.used():
            self._templates.touch(Key(name.exporter, name.version, name.id, template), used)

    def gauges(self, now_ns: int) -> None:
        """Show how much is known."""
        oldest = self.holding.oldest_ns
        self._metrics.held_oldest.set(max(0, now_ns - oldest) / 1e9 if oldest else 0)
        self._metrics.templates.set(len(self._templates))
        self._metrics.exporters.set(len(self.tables.exporters))
        self._metrics.domains.set(len(self.tables.names))
        self._metrics.held_bytes.set(self.holding.bytes)

    def saved(self) -> bytes:
        """Templates, rates and starts, to be read by ``restore`` after a restart."""
        self._touch()
        templates = [
            _Saved(k.exporter, k.version, k.domain, kept.template.options, kept.template.raw, kept.t_ns)
            for k, kept in self._templates
        ]
        domains = []
        for number, name in self.tables.names.items():
            said = self.tables.rates.saved(number)
            boot = int(self.tables.domains[number, D_BOOT])
            if said or boot:
                said = said or Samplers()
                domains.append(
                    _Told(name.exporter, name.version, name.id, said.own, said.by_id, boot,
                          said.by_interface, said.wide)
                )  # fmt: skip
        return msgspec.json.encode(_State(_VERSION, templates, domains))

    def restore(self, saved: bytes) -> None:
        """Take over what was saved, all of it or nothing.  Raises DecodeError on what is no saved state."""
        try:
            state = msgspec.json.decode(saved, type=_State)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DecodeError(Reason.CORRUPT, f"saved templates: {error}") from None
        if state.version != _VERSION:
            raise DecodeError(Reason.VERSION, f"saved templates of version {state.version}")
        found = [(one, template) for one in state.templates for template in _templates_of(one)]
        if any(len(each.exporter) not in (16, 18) for each in state.domains):
            raise DecodeError(Reason.FORMAT, "saved templates: no exporter")
        for one, template in found:
            domain = self.tables.remembered(one.exporter, one.version, one.domain, one.t_ns)
            if domain != GONE:
                self._hear(
                    Key(one.exporter, one.version, one.domain, template.id), template, domain, one.t_ns
                )
        newest = max((one.t_ns for one in state.templates), default=0)
        for each in state.domains:
            domain = self.tables.remembered(each.exporter, each.version, each.domain, newest)
            if domain != GONE:
                for said in each.told():
                    believed = said if said.rate <= self._most_rate else said._replace(rate=0)
                    self.tables.rates.told(domain, self.tables.domains, believed, newest)


def _templates_of(one: _Saved) -> list[Template]:
    sets = OPTIONS_SETS if one.options else TEMPLATE_SETS
    if one.version not in sets or len(one.exporter) not in (16, 18):
        raise DecodeError(Reason.FORMAT, "saved templates: no template")
    return [t for t in read(one.version, sets[one.version], one.raw) if isinstance(t, Template)]
