"""Totals by exporter and template: blocks of datagrams in; records, packets, octets and times out.

Flow records take the compiled road of the collector.  What makes no rows, options and records without
addresses, is counted set by set from its templates; so are sets whose template never came.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from collectors import wire
from collectors.errors import DecodeError
from collectors.netflow import passing, records
from collectors.netflow.datagrams import STREAM, Block
from collectors.netflow.program import compile_template
from collectors.netflow.readers import cut
from collectors.netflow.sflow import layout as sflow
from collectors.netflow.sflow.rows import SOURCE as SFLOW
from collectors.netflow.templates import (
    MIN_DATA_ID,
    OPTIONS_SETS,
    TEMPLATE_SETS,
    VARIABLE,
    Key,
    Template,
    Templates,
    Withdrawal,
    read,
)

KINDS: Final = ("flow", "other", "options", "unknown", "counter")
# Octets of sets that wait for their template; what finds no room is unknown at once.
_MOST_HELD: Final = 8 << 20
_WORDS: Final = ("source", "domain", "template")


@dataclass(slots=True)
class Total:
    """What was counted under one key.

    Times are Unix ns of the records, else of the datagrams; ``packets`` and ``octets`` as exported.
    """

    records: int = 0
    packets: int = 0
    octets: int = 0
    t_first: int = (1 << 63) - 1
    t_last: int = -(1 << 63)

    def add(self, count: int, packets: int, octets: int, first: int, last: int) -> None:
        """Count so many records more."""
        self.records += count
        self.packets += packets
        self.octets += octets
        self.t_first = min(self.t_first, first)
        self.t_last = max(self.t_last, last)


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """Exporter (16 octets), protocol as the column ``source`` says, domain, template, and one of KINDS."""

    exporter: bytes
    source: int
    domain: int
    template: int
    kind: str


@dataclass
class Totals:
    """``rows`` takes what a collector publishes, ``sets`` the datagrams that it is given; in that order."""

    groups: dict[Group, Total] = field(default_factory=dict)
    templates: Templates = field(default_factory=Templates)
    # Sets whose template has not come, and when they did.
    held: dict[Key, list[tuple[bytes, int]]] = field(default_factory=dict)
    _held_bytes: int = 0
    _flows: dict[int, tuple[Template, bool]] = field(default_factory=dict)
    _known: passing.Known = field(default_factory=passing.Known)

    def _group(self, *key: Any) -> Total:
        return self.groups.setdefault(Group(*key), Total())

    def rows(self, batch: wire.Batch) -> None:
        """Add a batch of ``flows``: the first copy of each row."""
        if not batch.num_rows:
            return
        exporter = wire.values(batch, "exporter").view(np.uint64).reshape(-1, 2)
        words = np.column_stack([exporter, *(wire.values(batch, name).astype(np.uint64) for name in _WORDS)])
        words[~wire.valid(batch, "template"), -1] = 0
        words[~wire.valid(batch, "domain"), -2] = 0
        changes = np.flatnonzero((words[1:] != words[:-1]).any(axis=1)) + 1
        begins = np.concatenate([[0], changes])
        # Exporters take turns, a datagram each: many runs of few keys.
        numbers: dict[bytes, int] = {}
        heads = words[begins].view(f"V{words.itemsize * words.shape[1]}").ravel().tolist()
        place = np.array([numbers.setdefault(head, len(numbers)) for head in heads], np.int64)
        order = np.argsort(place, kind="stable")
        of_key = np.searchsorted(place[order], np.arange(len(numbers)))

        def summed(values: np.ndarray, how: np.ufunc) -> list[int]:
            return how.reduceat(how.reduceat(values, begins)[order], of_key).tolist()

        sums = (
            summed(np.ones(len(words), np.int64), np.add),
            summed(wire.values(batch, "packets"), np.add),
            summed(wire.values(batch, "bytes"), np.add),
            summed(wire.values(batch, "t_first"), np.minimum),
            summed(wire.values(batch, "t_last"), np.maximum),
        )
        for head, told in zip(numbers, zip(*sums, strict=True), strict=True):
            source, domain, template = np.frombuffer(head, np.uint64)[2:].tolist()
            self._group(head[:16], source, domain, template, "flow").add(*told)

    def sets(self, given: Block) -> None:
        """Count what makes no rows in a block of datagrams."""
        words = np.frombuffer(bytearray().join(given.addresses), np.uint64).reshape(-1, 2)
        i = -1
        while True:
            # Most hold flow records only, of templates that are known.
            i = passing.following(
                given.data, given.at, given.size, given.exporter, words, i + 1, self._known.keys
            )
            if i == len(given):
                return
            at, exporter, t_ns = int(given.at[i]), int(given.exporter[i]), int(given.t_ns[i])
            datagram = given.data[at : at + int(given.size[i])].tobytes()
            exporters = given.addresses
            stream = given.port is not None and int(given.port[i]) & STREAM
            try:
                if sflow.is_sflow(datagram):
                    self._samples(datagram, exporters[exporter], t_ns)
                elif datagram[:1] == b"\0" and datagram[1:2] in (b"\x09", b"\x0a"):
                    self._sets(datagram, exporters[exporter], t_ns, withdraws=bool(stream))
            except DecodeError:
                continue

    def finish(self) -> None:
        """The input is over: sets whose template never came are unknown, and templates are forgotten."""
        for key, bodies in self.held.items():
            for _, t_ns in bodies:
                self._group(*key, "unknown").add(1, 0, 0, t_ns, t_ns)
        self.held.clear()
        self._held_bytes = 0
        self.templates = Templates()
        self._known.forget()

    def _samples(self, datagram: bytes, exporter: bytes, t_ns: int) -> None:
        told = sflow.decode(datagram)
        others = sum(s.format not in (sflow.FLOW_SAMPLE, sflow.EXPANDED_FLOW_SAMPLE) for s in told.samples)
        if others:
            self._group(exporter, SFLOW, told.sub_agent, 0, "counter").add(others, 0, 0, t_ns, t_ns)

    def _sets(self, datagram: bytes, exporter: bytes, t_ns: int, *, withdraws: bool) -> None:
        message = records.decode(datagram)
        told = TEMPLATE_SETS[message.version], OPTIONS_SETS[message.version]
        for one in message.sets:
            key = Key(exporter, message.version, message.domain, one.id)
            if one.id in told:
                self._learn(message.version, one.id, one.body, key, t_ns, withdraws=withdraws)
            elif one.id >= MIN_DATA_ID:
                template = self.templates.find(key)
                if template is None:
                    self._hold(key, one.body, t_ns)
                else:
                    self._count(key, template, one.body, t_ns)

    def _hold(self, key: Key, body: bytes, t_ns: int) -> None:
        if self._held_bytes + len(body) > _MOST_HELD:
            self._group(*key, "unknown").add(1, 0, 0, t_ns, t_ns)
            return
        self._held_bytes += len(body)
        self.held.setdefault(key, []).append((body, t_ns))

    def _learn(self, version: int, set_id: int, body: bytes, key: Key, t_ns: int, *, withdraws: bool) -> None:
        for told in read(version, set_id, body):
            if isinstance(told, Withdrawal):
                if withdraws:
                    self.templates.withdraw(key.exporter, key.domain, told)
                    self._known.forget()
                continue
            own = key._replace(id=told.id)
            if self.templates.find(own) != told:
                # It may take another's place.
                self._known.forget()
            self.templates.hear(own, told, t_ns)
            for held, at_ns in self.held.pop(own, ()):
                self._held_bytes -= len(held)
                self._count(own, told, held, at_ns)

    def _count(self, key: Key, template: Template, body: bytes, t_ns: int) -> None:
        known = self._flows.get(id(template))
        if known is None or known[0] is not template:
            if len(self._flows) > 4096:
                self._flows.clear()
            known = template, not template.options and compile_template(template).flow
            self._flows[id(template)] = known
        if known[1]:
            self._known.add(key)
            return
        varies = any(f.width == VARIABLE for f in template.fields)
        least = template.least
        count = sum(1 for _ in cut(template, body)) if varies else len(body) // least if least else 0
        kind = "options" if template.options else "other"
        if count:
            self._group(*key, kind).add(count, 0, 0, t_ns, t_ns)
