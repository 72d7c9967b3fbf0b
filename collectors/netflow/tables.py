"""What is known of exporters, in the form that kernels search: numbers for exporters, domains and templates.

Bounded: a newcomer that finds no room is refused, unless somebody has been silent for long enough to give
way; so a spray of forged addresses cannot push out those that were there.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np

from collectors.netflow import walking
from collectors.netflow.decoding import CLOCK, X_HEARD
from collectors.netflow.index import GONE, Index, domain_key, sampler_key, template_key
from collectors.netflow.program import MAX_GAPS, MAX_OPS, OP_FIELDS, Program, compile_template
from collectors.netflow.sampling import INTERVAL, SAMPLER, SYSTEM_INIT, TELLING, Samplers, rate, sampler
from collectors.netflow.templates import Template
from collectors.netflow.v5 import LAYOUT
from collectors.netflow.walking import DOMAIN, SLOT

_IDLE_NS: Final = 3600 * 1_000_000_000
_RECLAIM_NS: Final = 60 * 1_000_000_000
# The last millisecond that i8 nanoseconds can say.
_MAX_MS: Final = 9_223_372_036_854


def _larger(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array)])


@dataclass(frozen=True, slots=True)
class Domain:
    """One observation domain of one exporter."""

    exporter: bytes
    version: int
    id: int


class Tables:
    """Numbers and arrays.  ``index`` answers domain, template, sampler keys; ``walking`` has the columns."""

    def __init__(self, most_exporters: int, most_domains: int, seed: int = 0) -> None:
        self._most_exporters = most_exporters
        self._most_domains = most_domains
        self.index = Index(seed)
        self.exporters: dict[bytes, int] = {}
        self.addresses = np.zeros((16, 16), np.uint8)
        self.clocks = np.zeros((16, CLOCK), np.int64)
        self.names: dict[int, Domain] = {}
        self.samplers: dict[int, Samplers] = {}
        self.domains = np.zeros((16, DOMAIN), np.int64)
        self.slots = np.zeros((16, SLOT), np.int64)
        self.ops = np.zeros((16, MAX_OPS, OP_FIELDS), np.int32)
        self.gaps = np.zeros((16, MAX_GAPS), np.int32)
        self._free_exporters: list[int] = []
        self._free_domains: list[int] = []
        self._free_slots: list[int] = []
        self._used_slots = 0
        self._leaving: list[int] = []
        self._programs: dict[bytes, int] = {}
        self._program_keys: dict[int, bytes] = {}
        self._users: Counter[int] = Counter()
        self._free_programs: list[int] = []
        self._domains_made = 0
        self._exporters_made = 0
        self._reclaimed_ns = 0
        self._enter(self._slot(), LAYOUT)

    # Exporters and domains.

    def exporter(self, address: bytes, now_ns: int) -> int:
        """The exporter's number; GONE where there is no room for another."""
        known = self.exporters.get(address)
        if known is not None:
            return known
        if len(self.exporters) >= self._most_exporters:
            self._reclaim(now_ns)
            if len(self.exporters) >= self._most_exporters:
                return GONE
        if self._free_exporters:
            number = self._free_exporters.pop()
        else:
            number = self._exporters_made
            self._exporters_made += 1
            if number == len(self.addresses):
                self.addresses, self.clocks = _larger(self.addresses), _larger(self.clocks)
        self.exporters[address] = number
        self.addresses[number] = np.frombuffer(address, np.uint8)
        self.clocks[number] = 0
        self.clocks[number, X_HEARD] = now_ns
        return number

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
        if len(self.names) >= self._most_domains:
            self._reclaim(now_ns)
            if len(self.names) >= self._most_domains:
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
        row[walking.D_EXPORTER] = exporter_number
        row[walking.D_VERSION] = version
        row[walking.D_ID] = number
        row[[walking.D_NEXT, walking.D_UPTIME]] = -1
        row[walking.D_SEEN] = now_ns
        self.names[made] = Domain(exporter, version, number)
        self.index.put(key, made)
        return made

    def _reclaim(self, now_ns: int) -> None:
        """Let exporters go that have been silent for an hour; looked for once a minute at most."""
        if now_ns - self._reclaimed_ns < _RECLAIM_NS:
            return
        self._reclaimed_ns = now_ns
        silent = {
            address for address, n in self.exporters.items() if now_ns - self.clocks[n, X_HEARD] > _IDLE_NS
        }
        for number, name in list(self.names.items()):
            if name.exporter in silent:
                self._forget_domain(number, name)
        for address in silent:
            self._free_exporters.append(self.exporters.pop(address))

    def _forget_domain(self, number: int, name: Domain) -> None:
        self.index.put(domain_key(self.exporters[name.exporter], name.version, name.id), GONE)
        for named in self.samplers.pop(number, Samplers()).by_id:
            self.index.put(sampler_key(number, named), GONE)
        for template in self.templates_of(number):
            self.forget(number, template)
        del self.names[number]
        self._free_domains.append(number)

    # Templates.

    def templates_of(self, domain: int) -> list[int]:
        """Ids of the templates that a domain has."""
        used = self.slots[: self._used_slots]
        own = used[used[:, walking.T_DOMAIN] == domain + 1]
        return [int(t) for t in own[:, walking.T_ID]]

    def learn(self, domain: int, template: Template) -> None:
        """Enter a template, new or changed.  What the old one decodes until ``release`` still does."""
        self.forget(domain, template.id)
        slot = self._slot()
        self._enter(slot, template)
        self.slots[slot, walking.T_DOMAIN] = domain + 1
        self.index.put(template_key(domain, template.id), slot)

    def forget(self, domain: int, template: int) -> None:
        """Remove a template; its slot is free from the next ``release`` on."""
        key = template_key(domain, template)
        slot = self.index.find(key)
        if slot != GONE:
            self.index.put(key, GONE)
            self.slots[slot, walking.T_DOMAIN] = 0
            self._leaving.append(slot)

    def used_ns(self, domain: int, template: int) -> int:
        """When data last used a template; 0 for never."""
        slot = self.index.find(template_key(domain, template))
        return int(self.slots[slot, walking.T_USED]) if slot != GONE else 0

    def release(self) -> None:
        """No span waits any more: slots that were left may be used again."""
        for slot in self._leaving:
            program = int(self.slots[slot, walking.T_PROGRAM])
            self._users[program] -= 1
            if not self._users[program]:
                del self._programs[self._program_keys.pop(program)]
                self._free_programs.append(program)
        self._free_slots += self._leaving
        self._leaving = []

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
            telling = any(f.number in TELLING and not f.enterprise for f in template.fields)
            slot[walking.T_KIND] = walking.TELLING if telling else walking.IGNORED
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

    # Rates and starts.

    def is_news(self, domain: int, fields: dict[int, int]) -> bool:
        """Whether an options record gives a sampler another rate than it had."""
        name = sampler(fields)
        told = rate(fields)
        known = self.samplers.get(domain)
        return bool(told) and name is not None and (known is None or known.by_id.get(name) != told)

    def told(self, domain: int, fields: dict[int, int]) -> None:
        """Take over what an options record says."""
        known = self.samplers.setdefault(domain, Samplers())
        changed = known.learn(fields)
        name = sampler(fields)
        if changed:
            self.domains[domain, walking.D_RATE] = known.default
            if name is not None:
                self.index.put(sampler_key(domain, name), known.by_id[name])
        start = fields.get(SYSTEM_INIT, 0)
        if 0 < start < _MAX_MS:
            self.domains[domain, walking.D_BOOT] = start

    def restore(self, domain: int, own: int, samplers: dict[int, int], boot_ms: int) -> None:
        """Take over what options said before a restart."""
        if own:
            self.told(domain, {INTERVAL: own})
        for name, one in samplers.items():
            self.told(domain, {INTERVAL: one, SAMPLER: name})
        self.told(domain, {SYSTEM_INIT: boot_ms})
