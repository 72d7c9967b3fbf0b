"""Known endpoints: (address, port, protocol) at which somebody serves work, and why we think so.

Entries in; for columns of flows, the rows that touch a known endpoint out, and for one (address, port) what
is known of it.  Bounded, aged, with a history.  A row is matched by two steps: a bitmap of hashes over whole
columns (two bits an entry, all in numpy), then an exact look-up of the few rows that pass.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Final, Literal

import msgspec
import numpy as np

from detector.poolnames import WEB_PORTS

Origin = Literal["listed", "resolved", "learned", "refuted"]
LISTED: Final = "listed"
RESOLVED: Final = "resolved"
LEARNED: Final = "learned"
REFUTED: Final = "refuted"
# The one that speaks where several are known: a list is reviewed, a session was seen by us alone.
RANK: Final = {LISTED: 0, RESOLVED: 1, LEARNED: 2}

HOUR_NS: Final = 3600 * 10**9
# A flow may have begun a little before the answer that names its address was seen.
BEFORE_NS: Final = HOUR_NS

# splitmix64's constants: odd, well mixed.
_C1: Final = np.uint64(0x9E3779B97F4A7C15)
_C2: Final = np.uint64(0xBF58476D1CE4E5B9)
_C3: Final = np.uint64(0x94D049BB133111EB)
_C4: Final = np.uint64(0xD6E8FEB86659FD93)
_SIXTEEN: Final = np.uint64(16)
_SHIFT: Final = np.uint64(29)

Key = tuple[bytes, int, int]
"""Address (16 bytes), port, protocol."""


class Period(msgspec.Struct, frozen=True):
    """A time in which an endpoint was known under a name, and is no more."""

    name: str | None
    first_ns: int
    last_ns: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one endpoint from one origin.

    ``weak`` is set where the address alone says little (a web site's name, a CDN, a name out of use).
    ``only`` holds the subscribers for whom it counts; empty is everybody.  ``generation`` counts how often
    it was forgotten and found again; ``history`` are those times, newest last.  Port 0 is any of ``ports``.
    """

    address: bytes
    port: int
    protocol: int
    origin: Origin
    name: str | None = None
    operator: str | None = None
    coins: tuple[str, ...] = ()
    tls: str = "unknown"
    kind: str = "pool"
    weak: bool = False
    ports: tuple[int, ...] = ()
    only: tuple[bytes, ...] = ()
    first_ns: int
    last_ns: int
    expires_ns: int | None
    why: str
    generation: int = 1
    history: tuple[Period, ...] = ()

    def weak_at(self, port: int) -> bool:
        """Whether it says little of ``port``: where an answer names a web port, there may be a web site."""
        return self.weak or (self.origin == RESOLVED and port in WEB_PORTS)

    def holds(self, first_ns: int, last_ns: int, subscriber: bytes) -> bool:
        """Whether it speaks of a flow of ``subscriber`` in this time."""
        if self.only and subscriber not in self.only:
            return False
        return last_ns >= self.first_ns - BEFORE_NS and (
            self.expires_ns is None or first_ns <= self.expires_ns
        )


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of what is known."""

    most: int = 200_000  # entries that were resolved, learned or refuted; the oldest renewed goes first
    history: int = 8  # periods kept of one entry
    keep_ns: int = 30 * 24 * HOUR_NS  # how long an entry is kept after it expired, for its history


class Stats(msgspec.Struct):
    """What moved, for the shell to read."""

    added: int = 0
    renewed: int = 0
    revived: int = 0
    withdrawn: int = 0
    evicted: int = 0
    expired: int = 0
    rebuilt: int = 0
    no_ports: int = 0


class Hits(msgspec.Struct, frozen=True):
    """Rows that touch a known endpoint: ``row`` (m,) i8 ascending, with a row's two ends apart; ``end`` 0
    where it is the source, 1 the destination; ``entries`` what is known there, best first."""

    row: list[int]
    end: list[int]
    entries: list[tuple[Entry, ...]]


def packed(text: str) -> bytes:
    """An address as 16 bytes, IPv4 mapped.  Raises ValueError."""
    made = ip_address(text)
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


def _mix(words: np.ndarray, key: np.ndarray) -> np.ndarray:
    """A 64-bit hash, good in its top bits, of (n, 2) u8 addresses and (n,) u8 protocol and port."""
    h = words[:, 0] * _C1
    h ^= words[:, 1]
    h ^= key * _C3
    h *= _C2
    return h


def _again(h: np.ndarray) -> np.ndarray:
    h = h ^ (h >> _SHIFT)
    h *= _C4
    return h


class _Filter:
    """Two bits an entry over 2**k places: says no for certain, yes perhaps (1 in 250 at its fullest)."""

    __slots__ = ("_shift", "bits", "room", "used")

    def __init__(self, room: int) -> None:
        power = max(16, int(room * 16 - 1).bit_length())
        self.room, self.used = (1 << power) // 16, 0
        self.bits = np.zeros((1 << power) // 8, np.uint8)
        self._shift = np.uint64(64 - power)

    def add(self, words: np.ndarray, key: np.ndarray) -> None:
        h = _mix(words, key)
        for part in (h, _again(h)):
            place = (part >> self._shift).astype(np.int64)
            np.bitwise_or.at(self.bits, place >> 3, np.uint8(1) << (place & 7).astype(np.uint8))
        self.used += len(key)

    def _set(self, h: np.ndarray) -> np.ndarray:
        place = (h >> self._shift).view(np.int64)
        cell = self.bits.take(place >> 3)
        cell >>= (place & 7).astype(np.uint8)
        cell &= np.uint8(1)
        return np.flatnonzero(cell)

    def rows(self, words: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Rows that may be known.  The second bit is asked of those alone that pass the first."""
        h = _mix(words, key)
        first = self._set(h)
        return first[self._set(_again(h[first]))] if first.size else first


class Endpoints:
    """The index.  ``put`` and ``withdraw`` change it, ``match`` and ``at`` ask it."""

    def __init__(self, listed: Iterable[Entry] = (), limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.stats = Stats()
        self._made: dict[tuple[Key, str], Entry] = {}
        self._at: dict[Key, tuple[Entry, ...]] = {}
        self._filter = _Filter(4096)
        self._listed: tuple[Entry, ...] = ()
        self.relist(listed)

    def __len__(self) -> int:
        return len(self._made) + len(self._listed)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._listed
        yield from self._made.values()

    # -- changes -----------------------------------------------------------------------------------

    def relist(self, listed: Iterable[Entry]) -> None:
        """Take another list in place of the listed entries; what was found out stays."""
        self._listed = tuple(listed)
        self._at = {}
        for entry in self:
            self._show(entry)
        self._rebuild()

    def get(self, address: bytes, port: int, protocol: int, origin: Origin) -> Entry | None:
        """What one origin says of one endpoint, expired or not."""
        return self._made.get(((address, port, protocol), origin))

    def put(self, entry: Entry) -> Entry:
        """Add or renew an entry; the entry as it is now.

        What is renewed before it expired keeps its first time; what had expired begins a new generation.
        Times of a late answer never shorten what a later one said.
        """
        key = (entry.address, entry.port, entry.protocol)
        if entry.port == 0 and not entry.ports:
            self.stats.no_ports += 1
            return entry
        old = self._made.pop((key, entry.origin), None)
        if old is not None:
            self._hide(old)
            entry = self._joined(old, entry)
        else:
            self.stats.added += 1
        self._made[key, entry.origin] = entry
        self._show(entry)
        if old is None or old.ports != entry.ports:
            self._note(entry)
        if len(self._made) > self.limits.most:
            self._drop(next(iter(self._made)))
            self.stats.evicted += 1
        return entry

    def _joined(self, old: Entry, new: Entry) -> Entry:
        if old.expires_ns is not None and new.first_ns > old.expires_ns:
            self.stats.revived += 1
            past = (*old.history, Period(old.name, old.first_ns, old.expires_ns))[-self.limits.history :]
            return msgspec.structs.replace(new, generation=old.generation + 1, history=past)
        self.stats.renewed += 1
        late = old.last_ns > new.last_ns
        keep = old if late else new
        expires = None if old.expires_ns is None or new.expires_ns is None else max(
            old.expires_ns, new.expires_ns
        )  # fmt: skip
        # Names of one pool share addresses and ports: what is said of such an endpoint is said together.
        coins = tuple(dict.fromkeys((*keep.coins, *old.coins, *new.coins)))[:16]
        return msgspec.structs.replace(
            keep,
            coins=coins if old.operator == new.operator else keep.coins,
            weak=old.weak and new.weak,
            first_ns=min(old.first_ns, new.first_ns),
            last_ns=max(old.last_ns, new.last_ns),
            expires_ns=expires,
            only=new.only,
            generation=old.generation,
            history=old.history,
        )

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
        if self._filter.used > 2 * len(self._at) + 4096:
            self._rebuild()
        return len(gone)

    def _drop(self, key: tuple[Key, str], *, counted: bool = False) -> Entry | None:
        entry = self._made.pop(key, None)
        if entry is not None:
            self._hide(entry)
            self.stats.withdrawn += counted
        return entry

    # -- the index ---------------------------------------------------------------------------------

    def _keys(self, entry: Entry) -> list[Key]:
        if entry.origin == REFUTED:
            return []
        return [
            (entry.address, p, entry.protocol) for p in (entry.ports if entry.port == 0 else (entry.port,))
        ]

    def _show(self, entry: Entry) -> None:
        for key in self._keys(entry):
            there = (*self._at.get(key, ()), entry)
            self._at[key] = tuple(sorted(there, key=lambda e: (RANK[e.origin], e.weak)))

    def _hide(self, entry: Entry) -> None:
        for key in self._keys(entry):
            left = tuple(e for e in self._at.get(key, ()) if e is not entry)
            if left:
                self._at[key] = left
            else:
                self._at.pop(key, None)

    def _note(self, entry: Entry) -> None:
        keys = self._keys(entry)
        if self._filter.used + len(keys) > self._filter.room:
            self._rebuild()
        elif keys:
            self._filter.add(*_columns(keys))

    def _rebuild(self) -> None:
        self.stats.rebuilt += 1
        self._filter = _Filter(max(4096, 2 * len(self._at)))
        if self._at:
            self._filter.add(*_columns(list(self._at)))

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
        found: list[tuple[int, int, tuple[Entry, ...]]] = []
        kind = protocol.astype(np.uint64)
        kind <<= _SIXTEEN
        for end, (address, port) in enumerate(((src, src_port), (dst, dst_port))):
            words = np.ascontiguousarray(address).view("<u8").reshape(-1, 2)
            for row in self._filter.rows(words, kind | port).tolist():
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
        for key in list(self._made)[: max(0, len(self._made) - self.limits.most)]:
            del self._made[key]
            self.stats.evicted += 1
        self.relist(self._listed)


def _columns(keys: list[Key]) -> tuple[np.ndarray, np.ndarray]:
    words = np.frombuffer(b"".join(k[0] for k in keys), "<u8").reshape(-1, 2)
    return words, np.array([k[2] << 16 | k[1] for k in keys], np.uint64)
