"""Belief: from evidence to the probability that a subscriber mines.

Evidence in, kept per (kind, rule, connection); log-odds out.  Laws (tests/detector/test_fusion.py): the
same observation twice adds nothing; a later one only restores what faded; evidence for mining never lowers
belief; silence never raises it; order does not matter; a veto holds for its connection only.
"""

from collections.abc import Iterable
from math import exp, fsum, log
from typing import Final

import msgspec

from detector.evidence import Connection, Evidence, Group
from detector.tables import rows


class Weight(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row of ``tables/weights.toml``."""

    id: str
    group: Group
    log_odds: float
    confirms: bool
    reason: str
    tested: str
    negatives: int


WEIGHTS: Final = {w.id: w for w in rows("weights", "weight", Weight)}

# One subscriber in ten thousand: the order of what provinces have reported (4,502 addresses in one).
PRIOR: Final = log(1e-4 / (1 - 1e-4))


class Trace(msgspec.Struct, array_like=True, gc=False):
    """All that was seen of one kind and rule on one connection: ``count`` times from first to last."""

    first_ns: int
    last_ns: int
    count: int
    why: str
    role: str


Key = tuple[str, str, Connection | None]


class Traces(msgspec.Struct):
    """The evidence kept about one subscriber: at most ``most`` keys; the oldest are folded together.

    A folded trace keeps its kind, rule, times and count, and loses its connection (and so can no longer be
    vetoed).  ``vetoed`` connections are remembered, bounded alike.
    """

    seen: dict[Key, Trace] = msgspec.field(default_factory=dict)
    vetoed: dict[Connection, int] = msgspec.field(default_factory=dict)

    def add(self, e: Evidence, most: int) -> bool:
        """Take in one observation; False where its connection was vetoed or its kind has no weight."""
        if e.connection in self.vetoed or e.kind not in WEIGHTS:
            return False
        self._fold((e.kind, e.rule, e.connection), Trace(e.first_ns, e.last_ns, e.count, e.why, e.role))
        if len(self.seen) > most:
            self._shrink()
        return True

    def _fold(self, key: Key, new: Trace) -> None:
        old = self.seen.get(key)
        if old is None:
            self.seen[key] = new
            return
        if new.first_ns < old.first_ns:
            old.first_ns, old.why = new.first_ns, new.why
        old.last_ns = max(old.last_ns, new.last_ns)
        old.count += new.count

    def _shrink(self) -> None:
        oldest = min((k for k in self.seen if k[2] is not None), key=lambda k: (self.seen[k].last_ns, k[:2]))
        self._fold((oldest[0], oldest[1], None), self.seen.pop(oldest))

    def veto(self, connection: Connection, at_ns: int, most: int) -> bool:
        """Forget what a connection seemed to say, now and later.  True where that was anything."""
        self.vetoed[connection] = at_ns
        while len(self.vetoed) > most:
            del self.vetoed[next(iter(self.vetoed))]
        gone = [k for k in self.seen if k[2] == connection]
        for key in gone:
            del self.seen[key]
        return bool(gone)


def log_odds(
    seen: Iterable[tuple[str, int]], *, now_ns: int, half_life_ns: int, prior: float = PRIOR
) -> float:
    """Log-odds that the subscriber mines, given (kind, last seen) pairs.

    Groups are taken as independent and sum; within a group only the strongest speaks.  Evidence from the
    future is as old as now, never younger.
    """
    best: dict[Group, float] = {}
    for kind, at_ns in seen:
        weight = WEIGHTS[kind]
        faded = weight.log_odds * 0.5 ** (max(0, now_ns - at_ns) / half_life_ns)
        best[weight.group] = max(best.get(weight.group, 0.0), faded)
    return prior + fsum(best.values())


def probability(odds: float) -> float:
    """The probability that log-odds stand for, without overflow at either end."""
    return 1 / (1 + exp(-odds)) if odds > -700 else 0.0


def confirms(kinds: Iterable[str]) -> bool:
    """Whether evidence of these kinds may confirm: protocol that says so, or identity and behaviour."""
    weights = [WEIGHTS[k] for k in kinds]
    groups = {w.group for w in weights}
    return any(w.confirms for w in weights) or {Group.IDENTITY, Group.BEHAVIOUR} <= groups
