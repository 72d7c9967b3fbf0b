"""What is known of exporters, in the form that kernels search: numbers for exporters, domains and templates.

Bounded: a newcomer that finds no room is refused, unless somebody has been silent for long enough to give
way; so a spray of forged addresses cannot push out those that were there.  Within one address (its ports) and
one exporter (its domains) the longest silent gives way at once, but nobody who sent data lately.
"""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from collectors.netflow import options, v1, v5, v7, walking
from collectors.netflow.budget import Budget, Purses
from collectors.netflow.decoding import CLOCK, X_HEARD, X_NEWEST
from collectors.netflow.domains import (
    D_DATA,
    D_EXPORTER,
    D_FIXED,
    D_ID,
    D_NEXT,
    D_NEXT_OTHER,
    D_SEEN,
    D_UPTIME,
    D_VERSION,
    DOMAIN,
)
from collectors.netflow.index import GONE, Index, domain_key, template_key
from collectors.netflow.overrides import Overrides
from collectors.netflow.program import MAX_GAPS, MAX_OPS, OP_FIELDS, Program, compile_template
from collectors.netflow.rates import Rates
from collectors.netflow.templates import KEEP_NS, Template
from collectors.netflow.walking import SLOT

_IDLE_NS: Final = 3600 * 1_000_000_000
_RECLAIM_NS: Final = 60 * 1_000_000_000
# Who was heard so lately does not give way: neither to what is being read nor faster than this to a flood.
_LATELY_NS: Final = 10 * 1_000_000_000
# By slot, from 0: what is laid out without a template.
_FIXED: Final = (v5.LAYOUT, v1.LAYOUT, v7.LAYOUT)
_FIXED_SLOT: Final = {layout.version: slot for slot, layout in enumerate(_FIXED)}


def _larger(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array)])


@dataclass(frozen=True, slots=True)
class Domain:
    """One observation domain of one exporter."""

    exporter: bytes
    version: int
    id: int


class Limits(NamedTuple):
    """How many may be known."""

    exporters: int
    domains: int
    domains_of_exporter: int
    ports_of_address: int = 64


class Tables:
    """Numbers and arrays.  ``index`` answers domain, template, sampler keys; ``walking`` has the columns."""

    def __init__(
        self,
        limits: Limits,
        seed: int = 0,
        overrides: Overrides | None = None,
        kept: frozenset[bytes] = frozenset(),
        purses: Purses | None = None,
    ) -> None:
        """Exporters at the addresses ``kept`` never give way."""
        self._limits = limits
        self._kept = kept
        self.purses = purses or Purses(Budget())
        self.index = Index(seed)
        self.exporters: dict[bytes, int] = {}
        self.identities: dict[int, bytes] = {}
        # When each was last let in: nobody gives way whose datagrams are being read.
        self._spoke: dict[int, int] = {}
        # Numbers by address, where ports tell exporters of one address apart.
        self._ports: dict[bytes, set[int]] = {}
        # Told of domains before they are forgotten.
        self.leaving: Callable[[int, Domain], None] = lambda number, domain: None
        self.addresses = np.zeros((16, 16), np.uint8)
        self.clocks = np.zeros((16, CLOCK), np.int64)
        self.names: dict[int, Domain] = {}
        self.rates = Rates(self.index, overrides)
        self.domains = np.zeros((16, DOMAIN), np.int64)
        self.slots = np.zeros((16, SLOT), np.int64)
        self.ops = np.zeros((16, MAX_OPS, OP_FIELDS), np.int32)
        self.gaps = np.zeros((16, MAX_GAPS), np.int32)
        self._free_exporters: list[int] = []
        self._free_domains: list[int] = []
        self._free_slots: list[int] = []
        self._used_slots = 0
        self._left: list[int] = []
        self._programs: dict[bytes, int] = {}
        self._program_keys: dict[int, bytes] = {}
        self._users: Counter[int] = Counter()
        self._free_programs: list[int] = []
        self._domains_made = 0
        self._exporters_made = 0
        self._reclaimed_ns = 0
        self._templates: dict[int, set[int]] = {}
        # By slot: of which domain, and when it had been used when that was last asked.
        self._holders: dict[int, int] = {}
        self._used_before = np.zeros(0, np.int64)
        self._domains_of: Counter[bytes] = Counter()
        for layout in _FIXED:
            self._enter(self._slot(), layout)

    # Exporters and domains.

    def exporter(self, address: bytes, now_ns: int) -> int:
        """The exporter's number; GONE where there is no room for another."""
        known = self.exporters.get(address)
        if known is not None:
            self._spoke[known] = now_ns
            return known
        ports = self._ports.get(address[:16], ())
        if len(ports) >= self._limits.ports_of_address and not self._port_goes(ports, now_ns):
            return GONE
        if len(self.exporters) >= self._limits.exporters:
            self._reclaim(now_ns)
            if len(self.exporters) >= self._limits.exporters:
                return GONE
        if self._free_exporters:
            number = self._free_exporters.pop()
        else:
            number = self._exporters_made
            self._exporters_made += 1
            if number == len(self.addresses):
                self.addresses, self.clocks = _larger(self.addresses), _larger(self.clocks)
        self.exporters[address] = number
        self.identities[number] = address
        self.addresses[number] = np.frombuffer(address[:16], np.uint8)
        self.clocks[number] = 0
        self.clocks[number, X_HEARD] = now_ns
        self._spoke[number] = now_ns
        self.purses.enter(number)
        if len(address) > 16:
            self._ports.setdefault(address[:16], set()).add(number)
        return number

    def _port_goes(self, ports: Collection[int], now_ns: int) -> bool:
        """Forget the longest silent port of an address, but none with data of late; whether there is one."""
        heard, newest = self.clocks[:, X_HEARD], self.clocks[:, X_NEWEST]
        silent = [
            n
            for n in ports
            if now_ns - self._spoke[n] > _LATELY_NS and not (newest[n] and now_ns - heard[n] <= KEEP_NS)
        ]
        if not silent:
            return False
        number = min(silent, key=self._spoke.__getitem__)
        for domain in list(self.rates.members(number)):
            self._forget_domain(domain, self.names[domain])
        self._forget_exporter(self.identities[number])
        return True

    def _forget_exporter(self, address: bytes) -> None:
        number = self.exporters.pop(address)
        del self.identities[number], self._spoke[number]
        self.clocks[number] = 0
        self._free_exporters.append(number)
        if len(address) > 16:
            ports = self._ports[address[:16]]
            ports.discard(number)
            if not ports:
                del self._ports[address[:16]]

    def known(self, exporter: bytes, version: int, number: int) -> int:
        """The number of a domain that was seen; GONE for any other."""
        exporter_number = self.exporters.get(exporter)
        if exporter_number is None:
            return GONE
        return self.index.find(domain_key(exporter_number, version, number))

    def domain(self, exporter: bytes, version: int, number: int, now_ns: int) -> int:
        """The domain's number; GONE where there is no room for another."""
        exporter_number = self.exporter(exporter, now_ns)
        if exporter_number == GONE:
            return GONE
        key = domain_key(exporter_number, version, number)
        known = self.index.find(key)
        if known != GONE:
            return known
        if self._full(exporter):
            self._reclaim(now_ns)
            if self._full(exporter) and not self._domain_goes(exporter_number, now_ns):
                return GONE
        if self._free_domains:
            made = self._free_domains.pop()
        else:
            made = self._domains_made
            self._domains_made += 1
            if made == len(self.domains):
                self.domains = _larger(self.domains)
        row = self.domains[made]
        row[:] = 0
        row[[D_EXPORTER, D_VERSION, D_ID, D_SEEN]] = exporter_number, version, number, now_ns
        row[[D_NEXT, D_NEXT_OTHER, D_UPTIME]] = -1
        row[D_FIXED] = _FIXED_SLOT.get(version, 0)
        self.names[made] = Domain(exporter, version, number)
        self._domains_of[exporter] += 1
        self.index.put(key, made)
        self.rates.enter(made, row, exporter, number)
        return made

    def remembered(self, exporter: bytes, version: int, number: int, heard_ns: int) -> int:
        """As ``domain``, for one that was last heard then, before we were started."""
        made = self.domain(exporter, version, number, heard_ns)
        if made != GONE:
            clock = self.clocks[self.exporters[exporter]]
            # It had told of flows, or its templates would not have been kept: see ``_reclaim``.
            clock[X_NEWEST] = max(clock[X_NEWEST], 1)
            clock[X_HEARD] = max(clock[X_HEARD], heard_ns)
            self.domains[made, D_DATA] = max(self.domains[made, D_DATA], heard_ns)
        return made

    def _full(self, exporter: bytes) -> bool:
        limits = self._limits
        return len(self.names) >= limits.domains or self._domains_of[exporter] >= limits.domains_of_exporter

    def _domain_goes(self, exporter: int, now_ns: int) -> bool:
        """Forget the longest silent of an exporter's domains, but none with data of late; whether there is
        one."""
        mine = np.fromiter(self.rates.members(exporter), np.int64)
        seen, data = self.domains[mine, D_SEEN], self.domains[mine, D_DATA]
        silent = mine[(now_ns - seen > _LATELY_NS) & (now_ns - data > KEEP_NS)]
        if not silent.size:
            return False
        number = int(silent[np.argmin(self.domains[silent, D_SEEN])])
        self._forget_domain(number, self.names[number])
        return True

    def _reclaim(self, now_ns: int) -> None:
        """Let go what has been silent for an hour, and exporters that never told of a flow after a minute;
        looked for once a minute at most."""
        if now_ns - self._reclaimed_ns < _RECLAIM_NS:
            return
        self._reclaimed_ns = now_ns
        heard, newest = self.clocks[:, X_HEARD], self.clocks[:, X_NEWEST]
        seen = np.maximum(heard, newest.clip(0, 1) * (heard + _IDLE_NS - _RECLAIM_NS))
        silent = {
            address
            for address, n in self.exporters.items()
            if now_ns - seen[n] > _RECLAIM_NS < now_ns - self._spoke[n] and address[:16] not in self._kept
        }
        for number, name in list(self.names.items()):
            idle = now_ns - self.domains[number, D_SEEN] > _IDLE_NS
            if name.exporter[:16] in self._kept:
                idle = idle and not self.templates_of(number)
            if name.exporter in silent or idle:
                self._forget_domain(number, name)
        for address in silent:
            self._forget_exporter(address)

    def _forget_domain(self, number: int, name: Domain) -> None:
        self.leaving(number, name)
        self.index.put(domain_key(self.exporters[name.exporter], name.version, name.id), GONE)
        self.rates.leave(number, self.domains[number])
        for template in self.templates_of(number):
            self.forget(number, template)
        del self.names[number]
        self._domains_of[name.exporter] -= 1
        if not self._domains_of[name.exporter]:
            del self._domains_of[name.exporter]
        self._free_domains.append(number)

    # Templates.

    def templates_of(self, domain: int) -> list[int]:
        """Ids of the templates that a domain has."""
        return list(self._templates.get(domain, ()))

    def learn(self, domain: int, template: Template) -> None:
        """Enter a template, new or changed.  What the old one decodes until ``release`` still does."""
        self.forget(domain, template.id)
        slot = self._slot()
        self._enter(slot, template)
        self._templates.setdefault(domain, set()).add(template.id)
        self._holders[slot] = domain
        self.index.put(template_key(domain, template.id), slot)

    def forget(self, domain: int, template: int) -> None:
        """Remove a template; its slot is free from the next ``release`` on."""
        key = template_key(domain, template)
        slot = self.index.find(key)
        if slot != GONE:
            self.index.put(key, GONE)
            mine = self._templates[domain]
            mine.discard(template)
            if not mine:
                del self._templates[domain]
            del self._holders[slot]
            self._left.append(slot)

    def used(self) -> Iterator[tuple[Domain, int, int]]:
        """Templates that data used since this was last asked: of which domain, id, when (ns)."""
        now = self.slots[:, walking.T_USED].copy()
        before = self._used_before
        changed = np.ones(now.size, bool)
        changed[: before.size] = now[: before.size] != before
        self._used_before = now
        for slot in np.flatnonzero(changed & (now > 0)).tolist():
            domain = self._holders.get(slot)
            if domain is not None:
                yield self.names[domain], int(self.slots[slot, walking.T_ID]), int(now[slot])

    @property
    def left(self) -> int:
        """How many slots wait for their release."""
        return len(self._left)

    def release(self, keep: Container[int] = ()) -> None:
        """No span waits any more: slots that were left, but those to ``keep``, may be used again."""
        left, self._left = self._left, []
        for slot in left:
            if slot in keep:
                self._left.append(slot)
                continue
            program = int(self.slots[slot, walking.T_PROGRAM])
            self._users[program] -= 1
            if not self._users[program]:
                del self._programs[self._program_keys.pop(program)]
                self._free_programs.append(program)
            self._free_slots.append(slot)

    def _slot(self) -> int:
        if self._free_slots:
            return self._free_slots.pop()
        number = self._used_slots
        self._used_slots += 1
        if number == len(self.slots):
            self.slots, self.gaps = _larger(self.slots), _larger(self.gaps)
        return number

    def _enter(self, number: int, template: Template) -> None:
        program = compile_template(template)
        slot = self.slots[number]
        slot[:] = 0
        slot[walking.T_LENGTH] = program.length
        slot[walking.T_GAPS] = len(program.gaps)
        slot[walking.T_TAIL] = program.tail
        slot[walking.T_KEYS] = program.keys
        slot[walking.T_OPS] = len(program.ops)
        slot[walking.T_PRESENT] = program.present
        slot[walking.T_ID] = template.id
        slot[walking.T_VERSION] = template.version
        slot[walking.T_PROGRAM] = self._program(program)
        if template.options:
            slot[walking.T_KIND] = walking.TELLING if options.tells(template) else walking.IGNORED
        else:
            slot[walking.T_KIND] = walking.FLOW if program.flow else walking.OTHER
        self.gaps[number, : min(len(program.gaps), MAX_GAPS)] = program.gaps[:MAX_GAPS]

    def _program(self, program: Program) -> int:
        """The number of a program; routers of one kind share theirs, so their records are read together."""
        key = program.ops.tobytes()
        known = self._programs.get(key)
        if known is None:
            known = self._free_programs.pop() if self._free_programs else len(self._programs)
            if known == len(self.ops):
                self.ops = _larger(self.ops)
            self.ops[known, : len(program.ops)] = program.ops
            self._programs[key] = known
            self._program_keys[known] = key
        self._users[known] += 1
        return known
