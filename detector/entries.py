"""What is known of one endpoint from one origin, and how two such entries are told as one.

Entries in, one entry out: a rule whose order and grouping do not matter, so that detectors that heard the
same things, in whatever order, know the same.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final, Literal

import msgspec

from detector.poolnames import WEB_PORTS

Origin = Literal["listed", "resolved", "learned", "refuted"]
LISTED: Final = "listed"
RESOLVED: Final = "resolved"
LEARNED: Final = "learned"
REFUTED: Final = "refuted"

HOUR_NS: Final = 3600 * 10**9
# A flow may have begun a little before the answer that names its address was seen.
BEFORE_NS: Final = HOUR_NS
# A row of the pool table names nine at most.
MOST_COINS: Final = 16


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
    own_subscribers: int = 16  # of one neighbourhood, until a second one has seen the endpoint
    keep_ns: int = 30 * 24 * HOUR_NS  # how long an entry is kept after it expired, for its history


def packed(text: str) -> bytes:
    """An address as 16 bytes, IPv4 mapped.  Raises ValueError."""
    made = ip_address(text)
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


def neighbourhood(subscriber: bytes) -> bytes:
    """The /24 of an IPv4 subscriber, the /48 of an IPv6 one."""
    return subscriber[:15] if subscriber[:12] == bytes(10) + b"\xff\xff" else subscriber[:6]


def only_of(a: tuple[bytes, ...], b: tuple[bytes, ...], most: int) -> tuple[bytes, ...]:
    """For whom it counts that counts for ``a`` and ``b``: everybody, (), from the second neighbourhood on.

    Of more than ``most`` the smallest addresses are kept: whoever speaks first, the same ones.
    """
    if not a or not b:
        return ()
    both = sorted({*a, *b})
    return () if len({neighbourhood(s) for s in both}) > 1 else tuple(both[:most])


def newest(periods: Iterable[Period], most: int) -> tuple[Period, ...]:
    """The newest periods, each once, newest last."""
    told = sorted(set(periods), key=lambda p: (p.last_ns, p.first_ns, p.name is not None, p.name or ""))
    return tuple(told[max(0, len(told) - most) :])


def canonical(entry: Entry, limits: Limits) -> Entry:
    """An entry within the bounds, its sets in one order."""
    if len(entry.coins) < 2 and len(entry.only) < 2 and not entry.history:
        return entry
    coins = tuple(sorted(set(entry.coins))[:MOST_COINS])
    only = only_of(entry.only, entry.only, limits.own_subscribers)
    history = newest(entry.history, limits.history) if entry.history else ()
    if (coins, only, history) == (entry.coins, entry.only, entry.history):
        return entry
    return msgspec.structs.replace(entry, coins=coins, only=only, history=history)


def _said(entry: Entry) -> tuple[object, ...]:
    """Which of two says how it is called: the one renewed last; of two at once, any, but always the same."""
    return (
        entry.last_ns, entry.name is not None, entry.name or "", entry.operator is not None,
        entry.operator or "", entry.tls, entry.kind, entry.ports, entry.why,
    )  # fmt: skip


def joined(a: Entry, b: Entry, limits: Limits) -> Entry:
    """Two canonical entries of one endpoint and origin as one: idempotent, commutative, associative.

    Times only grow; how it is called is what was said last; of two generations the newer one tells since when
    it is known, for which coins and for whom.
    """
    # Names of one pool share addresses and ports: what is said of such an endpoint is said together.
    if a.generation == b.generation:
        first, weak = min(a.first_ns, b.first_ns), a.weak and b.weak
        coins = tuple(sorted({*a.coins, *b.coins})[:MOST_COINS])
        only = only_of(a.only, b.only, limits.own_subscribers)
        history = newest((*a.history, *b.history), limits.history)
    else:
        new = a if a.generation > b.generation else b
        first, weak, coins, only, history = new.first_ns, new.weak, new.coins, new.only, new.history
    forever = a.expires_ns is None or b.expires_ns is None
    return msgspec.structs.replace(
        max(a, b, key=_said),
        coins=coins,
        weak=weak,
        only=only,
        first_ns=first,
        last_ns=max(a.last_ns, b.last_ns),
        expires_ns=None if forever else max(a.expires_ns or 0, b.expires_ns or 0),
        generation=max(a.generation, b.generation),
        history=history,
    )
