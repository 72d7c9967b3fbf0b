"""Known endpoints: (address, port, protocol) at which somebody serves work, and why we think so.

Entries in; for columns of flows, the rows that touch a known endpoint out, and for one (address, port) what
is known of it.  Bounded, aged, with a history.  A row is matched by two steps: a bitmap of hashes over whole
columns (two bits an entry, all in numpy), then an exact look-up of the few rows that pass.

Two entries of one endpoint and origin are told as one by ``joined``, whose order and grouping do not matter;
what is learned and not later than a refutation's end is kept but not told.  Both make the index the same on
every detector, whoever heard what first, as long as nothing is evicted.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import numpy as np

from detector.entries import (
    BEFORE_NS,
    HOUR_NS,
    LEARNED,
    LISTED,
    REFUTED,
    RESOLVED,
    Entry,
    Limits,
    Origin,
    Period,
    canonical,
    joined,
    newest,
    packed,
)
from detector.sieve import Key, Sieve

__all__ = [
    "BEFORE_NS", "HOUR_NS", "LEARNED", "LISTED", "REFUTED", "RESOLVED", "Endpoints", "Entry", "Hits",
    "Limits", "Origin", "Period", "Stats", "packed",
]  # fmt: skip

# The one that speaks where several are known: a list is reviewed, a session was seen by us alone.
RANK: Final = {LISTED: 0, RESOLVED: 1, LEARNED: 2}
_SIXTEEN: Final = np.uint64(16)


class Stats(msgspec.Struct):
    """What moved, for the shell to read."""

    added: int = 0
    renewed: int = 0
    revived: int = 0
    withdrawn: int = 0
    evicted: int = 0
    expired: int = 0
    joined: int = 0
    rebuilt: int = 0
    no_ports: int = 0


class Hits(msgspec.Struct, frozen=True):
    """Rows that touch a known endpoint: ``row`` (m,) i8 ascending, with a row's two ends apart; ``end`` 0
    where it is the source, 1 the destination; ``entries`` what is known there, best first."""

    row: list[int]
    end: list[int]
    entries: list[tuple[Entry, ...]]


class Endpoints:
    """The index.  ``put``, ``join`` and ``withdraw`` change it, ``match`` and ``at`` ask it."""

    def __init__(self, listed: Iterable[Entry] = (), limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.stats = Stats()
        self._made: dict[tuple[Key, str], Entry] = {}
        self._at: dict[Key, tuple[Entry, ...]] = {}
        self._sieve = Sieve(4096)
        self._unsieved: list[Key] = []
        self._listed: tuple[Entry, ...] = ()
        self.relist(listed)

    def __len__(self) -> int:
        return len(self._made) + len(self._listed)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._listed
        yield from (e for e in self._made.values() if not self._held_off(e))

    # -- changes -----------------------------------------------------------------------------------

    def relist(self, listed: Iterable[Entry]) -> None:
        """Take another list in place of the listed entries; what was found out stays."""
        self._listed = tuple(listed)
        self._at = {}
        for entry in self:
            self._show(entry)
        self._rebuild()

    def get(self, address: bytes, port: int, protocol: int, origin: Origin) -> Entry | None:
        """What one origin says of one endpoint, expired or held off or not."""
        return self._made.get(((address, port, protocol), origin))

    def put(self, entry: Entry) -> Entry:
        """Add or renew an entry by what was seen here; the entry as it is now.

        What is renewed before it expired keeps its first time; what had expired begins a new generation.
        Times of a late answer never shorten what a later one said.
        """
        key = (entry.address, entry.port, entry.protocol)
        if entry.port == 0 and not entry.ports:
            self.stats.no_ports += 1
            return entry
        entry = canonical(entry, self.limits)
        old = self._made.get((key, entry.origin))
        if old is None:
            self.stats.added += 1
        elif old.expires_ns is not None and entry.first_ns > old.expires_ns:
            self.stats.revived += 1
            past = (*old.history, Period(old.name, old.first_ns, old.expires_ns))
            entry = msgspec.structs.replace(
                entry, generation=old.generation + 1, history=newest(past, self.limits.history)
            )
        else:
            self.stats.renewed += 1
            same = msgspec.structs.replace(entry, generation=old.generation)
            entry = joined(old, same, self.limits)
        self._keep(key, entry)
        return entry

    def join(self, entry: Entry) -> bool:
        """Take in what another index says; whether that changed anything.  See ``following``."""
        key = (entry.address, entry.port, entry.protocol)
        entry = canonical(entry, self.limits)
        old = self._made.get((key, entry.origin))
        if old is not None:
            entry = joined(old, entry, self.limits)
        if entry == old:
            return False
        self.stats.joined += 1
        self._keep(key, entry)
        return True

    def withdraw(self, address: bytes, port: int, protocol: int, origin: Origin) -> Entry | None:
        """Forget what one origin says of an endpoint; the entry that was there."""
        return self._drop(((address, port, protocol), origin), counted=True)

    def expire(self, now_ns: int) -> int:
        """Forget entries that expired ``keep_ns`` before the data's time ``now_ns``; how many."""
        before = now_ns - self.limits.keep_ns
        gone = [k for k, e in self._made.items() if e.expires_ns is not None and e.expires_ns < before]
        for key in gone:
            self._drop(key)
        self.stats.expired += len(gone)
        if self._sieve.used > 2 * len(self._at) + 4096:
            self._rebuild()
        return len(gone)

    def _keep(self, key: Key, entry: Entry) -> None:
        """Put an entry in its place.  A refutation moves what is learned of the endpoint with it."""
        old = self._made.pop((key, entry.origin), None)
        beside = self._made.get((key, LEARNED)) if entry.origin == REFUTED else None
        before = self._hide(old) if old is not None else []
        held = self._hide(beside) if beside is not None else []
        self._made[key, entry.origin] = entry
        self._unsieved += [k for k in self._show(entry) if k not in before]
        if beside is not None and held and not self._show(beside):
            self.stats.withdrawn += 1
        if len(self._unsieved) >= 4096:
            self._sift()
        if len(self._made) > self.limits.most:
            self._drop(next(iter(self._made)))
            self.stats.evicted += 1

    def _drop(self, key: tuple[Key, str], *, counted: bool = False) -> Entry | None:
        entry = self._made.get(key)
        if entry is not None:
            if entry.origin == REFUTED:  # what it held off goes with it, and is not told again
                learned = self._made.get((key[0], LEARNED))
                if learned is not None and self._held_off(learned):
                    del self._made[key[0], LEARNED]
            self._hide(entry)
            del self._made[key]
            self.stats.withdrawn += counted
        return entry

    def _held_off(self, entry: Entry) -> bool:
        """Whether a refutation speaks against it: what was seen until that expires teaches nothing."""
        if entry.origin != LEARNED:
            return False
        held = self._made.get(((entry.address, entry.port, entry.protocol), REFUTED))
        return held is not None and (held.expires_ns is None or entry.last_ns <= held.expires_ns)

    # -- the index ---------------------------------------------------------------------------------

    def _keys(self, entry: Entry) -> list[Key]:
        if entry.origin == REFUTED or self._held_off(entry):
            return []
        ports = entry.ports if entry.port == 0 else (entry.port,)
        return [(entry.address, p, entry.protocol) for p in ports]

    def _show(self, entry: Entry) -> list[Key]:
        keys = self._keys(entry)
        for key in keys:
            there = (*self._at.get(key, ()), entry)
            if len(there) > 1:
                there = tuple(sorted(there, key=lambda e: (RANK[e.origin], e.weak, e.port)))
            self._at[key] = there
        return keys

    def _hide(self, entry: Entry) -> list[Key]:
        keys = self._keys(entry)
        for key in keys:
            left = tuple(e for e in self._at.get(key, ()) if e is not entry)
            if left:
                self._at[key] = left
            else:
                self._at.pop(key, None)
        return keys

    def _sift(self) -> None:
        """Let the rows of new keys pass, many at a time: one at a time costs 15 µs each."""
        if self._sieve.used + len(self._unsieved) > self._sieve.room:
            self._rebuild()
        elif self._unsieved:
            self._sieve.add(self._unsieved)
            self._unsieved = []

    def _rebuild(self) -> None:
        self.stats.rebuilt += 1
        self._unsieved = []
        self._sieve = Sieve(max(4096, 2 * len(self._at)))
        if self._at:
            self._sieve.add(list(self._at))

    # -- questions ---------------------------------------------------------------------------------

    def at(self, address: bytes, port: int, protocol: int) -> tuple[Entry, ...]:
        """What is known of one endpoint, best first, expired ones included."""
        return self._at.get((address, port, protocol), ())

    def match(
        self,
        src: np.ndarray,
        dst: np.ndarray,
        src_port: np.ndarray,
        dst_port: np.ndarray,
        protocol: np.ndarray,
    ) -> Hits:
        """Ends of flows that are known: addresses (n, 16) u1, ports (n,) u2, protocols (n,) u1."""
        if self._unsieved:
            self._sift()
        found: list[tuple[int, int, tuple[Entry, ...]]] = []
        kind = protocol.astype(np.uint64)
        kind <<= _SIXTEEN
        for end, (address, port) in enumerate(((src, src_port), (dst, dst_port))):
            words = np.ascontiguousarray(address).view("<u8").reshape(-1, 2)
            for row in self._sieve.rows(words, kind | port).tolist():
                entries = self._at.get((address[row].tobytes(), int(port[row]), int(protocol[row])))
                if entries:
                    found.append((row, end, entries))
        found.sort(key=lambda f: f[:2])
        return Hits([f[0] for f in found], [f[1] for f in found], [f[2] for f in found])

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> list[Entry]:
        """What was found out, oldest renewed first; msgspec encodes it."""
        return list(self._made.values())

    def restore(self, entries: Iterable[Entry]) -> None:
        """Take a state, in place of what was found out."""
        self._made = {((e.address, e.port, e.protocol), e.origin): e for e in entries}
        while len(self._made) > self.limits.most:
            self._drop(next(iter(self._made)))
            self.stats.evicted += 1
        self.relist(self._listed)
