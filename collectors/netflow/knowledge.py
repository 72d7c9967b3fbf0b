"""Answers to what stops the walk: new domains, templates, options, and data whose template is not known.

It keeps the templates and the tables that kernels search in step, holds data that came too early, and can
be written down and read again, so that a restart does not wait for templates.
"""

import struct
from typing import Final, NamedTuple

import msgspec
import numpy as np

from collectors.errors import DecodeError, Reason
from collectors.netflow import walking
from collectors.netflow.holding import Held, Holding
from collectors.netflow.index import GONE, template_key
from collectors.netflow.metrics import Metrics
from collectors.netflow.records import cut
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
_SETS: Final = 4096
_SET_BYTES: Final = 2048


class Late(NamedTuple):
    """A held data set, and the template that came for it: another may follow under the same id."""

    held: Held
    template: Template
    slot: int


class _Saved(msgspec.Struct, frozen=True):
    """One template as it is written down."""

    exporter: bytes
    version: int
    domain: int
    options: bool
    raw: bytes
    t_ns: int


class _Told(msgspec.Struct, frozen=True):
    """What the options of a domain said."""

    exporter: bytes
    version: int
    domain: int
    rate: int
    samplers: dict[int, int]
    boot_ms: int


class _State(msgspec.Struct, frozen=True):
    version: int
    templates: list[_Saved]
    domains: list[_Told]


class Knowledge:
    """What is known of all exporters.  ``late`` are data sets whose template has come since."""

    def __init__(self, tables: Tables, bounds: Bounds, holding: Holding, metrics: Metrics) -> None:
        self.tables = tables
        self.holding = holding
        self.late: list[Late] = []
        self._templates = Templates(bounds)
        self._sets: dict[tuple[Domain, int, bytes], list[tuple[Key, Template]]] = {}
        self._metrics = metrics

    def _key(self, c: np.ndarray, template: int) -> Key:
        name = self.tables.names[int(c[walking.C_DOMAIN])]
        return Key(name.exporter, name.version, name.id, template)

    def templates_told(self, body: bytes, c: np.ndarray, t_ns: int) -> None:
        """Take a template set.  What is malformed is counted; what stands before it is kept."""
        version, set_id = int(c[walking.C_VERSION]), int(c[walking.C_SET])
        domain = int(c[walking.C_DOMAIN])
        if self._repeated(domain, set_id, body, t_ns):
            return
        heard: list[tuple[Key, Template]] = []
        try:
            for told in read(version, set_id, body):
                if isinstance(told, Withdrawal):
                    self._withdraw(told, c)
                else:
                    heard.append((self._key(c, told.id), told))
                    self._hear(*heard[-1], domain, t_ns)
            if len(self._sets) >= _SETS:
                self._sets.clear()
            if heard and len(body) <= _SET_BYTES:
                self._sets[self.tables.names[domain], set_id, body] = heard
        except DecodeError as error:
            self._metrics.refused.labels(error.reason).inc()
            self._metrics.template_events.labels("malformed").inc()

    def _repeated(self, domain: int, set_id: int, body: bytes, t_ns: int) -> bool:
        """Whether a set says what it said before, and all of it still holds: exporters repeat themselves.

        To read 33 fields anew takes 300 microseconds, a third of all that an exporter's records took.
        """
        heard = self._sets.get((self.tables.names[domain], set_id, body))
        if heard is None:
            return False
        for key, told in heard:
            here = self.tables.index.find(template_key(domain, key.id)) != GONE
            if not here or not self._templates.refresh(key, told, t_ns):
                return False
        return True

    def _withdraw(self, told: Withdrawal, c: np.ndarray) -> None:
        name = self.tables.names[int(c[walking.C_DOMAIN])]
        gone = self._templates.withdraw(name.exporter, name.id, told)
        self._metrics.template_events.labels("withdrawn").inc(len(gone))
        self._forget(gone)

    def _forget(self, gone: list[Key]) -> None:
        for key in gone:
            domain = self.tables.known(key.exporter, key.version, key.domain)
            if domain != GONE:
                self.tables.forget(domain, key.id)

    def _hear(self, key: Key, told: Template, domain: int, t_ns: int) -> None:
        before = self._templates.find(key)
        changed, gone = self._templates.hear(key, told, t_ns)
        self._metrics.template_events.labels("evicted").inc(len(gone))
        self._forget(gone)
        if changed:
            self._metrics.template_events.labels("changed" if before else "new").inc()
        if changed or self.tables.index.find(template_key(domain, key.id)) == GONE:
            self.tables.learn(domain, told)
            slot = self.tables.index.find(template_key(domain, key.id))
            self.late += [Late(held, told, slot) for held in self.holding.take(key)]

    def unknown(self, body: bytes, c: np.ndarray, t_ns: int) -> None:
        """Hold a data set whose template has not come yet."""
        number = int(c[walking.C_SET])
        whole = struct.pack(">HH", number, len(body) + 4) + body
        if self.holding.hold(self._key(c, number), Held(whole, c.copy(), t_ns)):
            self._metrics.held.inc()
        else:
            self._metrics.dropped.labels("bytes").inc()

    def options_of(self, body: bytes, c: np.ndarray, late: Template | None) -> list[dict[int, int]]:
        """The numbers in each record of an options set, by element; ``late`` is a held one's template."""
        template = late or self._templates.find(self._key(c, int(c[walking.C_SET])))
        return self.numbers(template, body) if template else []

    @staticmethod
    def numbers(template: Template, body: bytes) -> list[dict[int, int]]:
        """IANA elements of up to 8 octets as numbers; v9's scopes are not elements."""
        skipped = template.scopes if template.version == 9 else 0
        return [
            {
                told.number: int.from_bytes(raw, "big")
                for told, raw in list(zip(template.fields, found, strict=True))[skipped:]
                if not told.enterprise and 0 < len(raw) <= 8
            }
            for found in cut(template, body)
        ]

    def age(self, now_ns: int) -> None:
        """Let go what is too old; what data used lately is not."""
        for key, _ in list(self._templates):
            domain = self.tables.known(key.exporter, key.version, key.domain)
            used = self.tables.used_ns(domain, key.id) if domain != GONE else 0
            if used:
                self._templates.touch(key, used)
        gone = self._templates.age(now_ns)
        self._metrics.template_events.labels("aged").inc(len(gone))
        self._forget(gone)
        before = self.holding.drops["age"]
        self.holding.age(now_ns)
        self._metrics.dropped.labels("age").inc(self.holding.drops["age"] - before)

    def gauges(self) -> None:
        """Show how much is known."""
        self._metrics.templates.set(len(self._templates))
        self._metrics.exporters.set(len(self.tables.exporters))
        self._metrics.domains.set(len(self.tables.names))
        self._metrics.held_bytes.set(self.holding.bytes)

    def saved(self) -> bytes:
        """Templates, rates and starts, to be read by ``restore`` after a restart."""
        templates = [
            _Saved(k.exporter, k.version, k.domain, kept.template.options, kept.template.raw, kept.t_ns)
            for k, kept in self._templates
        ]
        domains = []
        for number, name in self.tables.names.items():
            told = self.tables.samplers.get(number)
            boot = int(self.tables.domains[number, walking.D_BOOT])
            if told or boot:
                own, by_id = (told.own, told.by_id) if told else (0, {})
                domains.append(_Told(name.exporter, name.version, name.id, own, by_id, boot))
        return msgspec.json.encode(_State(_VERSION, templates, domains))

    def restore(self, saved: bytes, now_ns: int) -> None:
        """Take over what was saved.  Raises DecodeError on what is no saved state."""
        try:
            state = msgspec.json.decode(saved, type=_State)
        except msgspec.DecodeError as error:
            raise DecodeError(Reason.CORRUPT, f"saved templates: {error}") from None
        if state.version != _VERSION:
            raise DecodeError(Reason.VERSION, f"saved templates of version {state.version}")
        for one in state.templates:
            sets = OPTIONS_SETS if one.options else TEMPLATE_SETS
            if one.version not in sets or len(one.exporter) != 16:
                raise DecodeError(Reason.FORMAT, "saved templates: no template")
            domain = self.tables.domain(one.exporter, one.version, one.domain, now_ns)
            for told in read(one.version, sets[one.version], one.raw):
                if domain != GONE and isinstance(told, Template):
                    key = Key(one.exporter, one.version, one.domain, told.id)
                    self._hear(key, told, domain, one.t_ns)
        for each in state.domains:
            domain = self.tables.domain(each.exporter, each.version, each.domain, now_ns)
            if domain != GONE:
                self.tables.restore(domain, each.rate, each.samplers, each.boot_ms)
