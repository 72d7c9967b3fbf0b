"""Totals by exporter and template: blocks of datagrams in; records, packets, octets and times out.

Flow records take the compiled road of the collector.  What makes no rows, options and records without
addresses, is counted set by set from its templates; so are sets whose template never came.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from collectors import wire
from collectors.errors import DecodeError
from collectors.netflow import records
from collectors.netflow.datagrams import Block
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
        counts = np.diff(np.append(begins, len(words)))
        packets = np.add.reduceat(wire.values(batch, "packets"), begins)
        octets = np.add.reduceat(wire.values(batch, "bytes"), begins)
        first = np.minimum.reduceat(wire.values(batch, "t_first"), begins)
        last = np.maximum.reduceat(wire.values(batch, "t_last"), begins)
        for i, at in enumerate(begins.tolist()):
            source, domain, template = words[at, 2:].tolist()
            one = self._group(words[at, :2].tobytes(), source, domain, template, "flow")
            one.add(int(counts[i]), int(packets[i]), int(octets[i]), int(first[i]), int(last[i]))

    def sets(self, given: Block) -> None:
        """Count what makes no rows in a block of datagrams."""
        data, exporters = given.data.tobytes(), given.addresses
        for at, size, exporter, t_ns in zip(
            given.at.tolist(), given.size.tolist(), given.exporter.tolist(), given.t_ns.tolist(), strict=True
        ):
            datagram = data[at : at + size]
            try:
                if sflow.is_sflow(datagram):
                    self._samples(datagram, exporters[exporter], t_ns)
                elif datagram[:1] == b"\0" and datagram[1:2] in (b"\x09", b"\x0a"):
                    self._sets(datagram, exporters[exporter], t_ns)
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

    def _samples(self, datagram: bytes, exporter: bytes, t_ns: int) -> None:
        told = sflow.decode(datagram)
        others = sum(s.format not in (sflow.FLOW_SAMPLE, sflow.EXPANDED_FLOW_SAMPLE) for s in told.samples)
        if others:
            self._group(exporter, SFLOW, told.sub_agent, 0, "counter").add(others, 0, 0, t_ns, t_ns)

    def _sets(self, datagram: bytes, exporter: bytes, t_ns: int) -> None:
        message = records.decode(datagram)
        told = TEMPLATE_SETS[message.version], OPTIONS_SETS[message.version]
        for one in message.sets:
            key = Key(exporter, message.version, message.domain, one.id)
            if one.id in told:
                self._learn(message.version, one.id, one.body, key, t_ns)
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

    def _learn(self, version: int, set_id: int, body: bytes, key: Key, t_ns: int) -> None:
        for told in read(version, set_id, body):
            if isinstance(told, Withdrawal):
                self.templates.withdraw(key.exporter, key.domain, told)
                continue
            own = key._replace(id=told.id)
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
            return
        varies = any(f.width == VARIABLE for f in template.fields)
        least = template.least
        count = sum(1 for _ in cut(template, body)) if varies else len(body) // least if least else 0
        kind = "options" if template.options else "other"
        if count:
            self._group(*key, kind).add(count, 0, 0, t_ns, t_ns)
