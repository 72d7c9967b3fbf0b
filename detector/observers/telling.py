"""What a step of the payload observer saw of each connection: evidence in the making, facts."""

from typing import Any, Final

import msgspec

from detector import algorithms
from detector.clock import MINUTE_NS
from detector.evidence import Connection, Evidence, SessionFacts, Veto
from detector.ledger import hashes, others, since_ns
from detector.observers import words
from detector.sessions import Sight
from detector.tracks import TCP, Book, Ends, Track, Waiting, is_sure

CONFIRMING: Final = frozenset({"mining_session", "share_accepted", "share_verified"})
"""Kinds that count only where each direction acknowledged payload bytes of the other."""
MAX_WAITING: Final = 32


class Tale(msgspec.Struct):
    """What a step saw under one name of a connection; ``fresh`` is by kind, rule and minute."""

    connection: Connection
    fresh: "dict[tuple[str, str, int], Fresh]" = {}
    vetoes: list[Veto] = []


class Fresh(msgspec.Struct):
    """Evidence in the making; ``why`` is of the first occurrence."""

    first_ns: int
    last_ns: int
    count: int
    why: str

    def again(self, t_ns: int) -> None:
        """It was seen once more."""
        self.count += 1
        if t_ns > self.last_ns:
            self.last_ns = t_ns
        elif t_ns < self.first_ns:
            self.first_ns = t_ns


class Step:
    """What one step has seen so far of one track.  A lifted veto begins a new tale.  ``plans`` is the
    observer's to note what its lines may repeat, None where that is to be found out, and
    ``missed`` how many lines in a row did not."""

    __slots__ = ("book", "ends", "missed", "now", "plans", "subscriber", "tales", "track")

    def __init__(self, subscriber: bytes, ends: Ends, track: Track, book: Book) -> None:
        self.subscriber, self.ends, self.track, self.book = subscriber, ends, track, book
        self.tales: list[Tale] = []
        self.plans: Any = None
        self.missed = 0
        self.begin()

    def begin(self) -> None:
        """Begin a tale under the track's present opening number."""
        low, high, protocol, _ = self.ends
        self.now = Tale(Connection(low, high, protocol, self.track.opened))
        self.tales.append(self.now)


def see(step: Step, sight: Sight) -> None:
    """Note a sight as evidence, or keep it until the connection is sure."""
    kind, rule, t_ns, details = sight
    if kind in CONFIRMING:
        if step.ends[2] != TCP:
            return
        if not is_sure(step.track):
            _wait(step.track, sight)
            return
    seen = step.now.fresh.get((kind, rule, t_ns // MINUTE_NS))
    if seen is None or kind == "share_verified":
        _add(step, Waiting(kind, rule, details, t_ns, t_ns, count(sight)))
    else:
        seen.again(t_ns)


def confirmed(step: Step) -> None:
    """The connection is sure: what waited for that is evidence."""
    if step.track.vetoed is None:
        for held in step.track.waiting:
            _add(step, held)
    step.track.waiting.clear()


def _add(step: Step, told: Waiting) -> None:
    key = (told.kind, told.rule, told.last_ns // MINUTE_NS)
    seen = step.now.fresh.get(key)
    if seen is not None:
        seen.first_ns, seen.last_ns = min(seen.first_ns, told.first_ns), max(seen.last_ns, told.last_ns)
        seen.count += told.count
        return
    session = step.track.session
    client = 0 if session.client is None else session.client
    beyond = "".join(step.track.sides[client].wrap.targets[-1:])
    why = words.why(told.kind, told.rule, session.dialect, step.ends, client, told.details, beyond)
    step.now.fresh[key] = Fresh(told.first_ns, told.last_ns, told.count, why)


def _wait(track: Track, sight: Sight) -> None:
    kind, rule, t_ns, details = sight
    for held in track.waiting:
        if held.kind == kind and held.rule == rule and held.last_ns // MINUTE_NS == t_ns // MINUTE_NS:
            held.first_ns, held.last_ns = min(held.first_ns, t_ns), max(held.last_ns, t_ns)
            held.count += count(sight)
            return
    if len(track.waiting) < MAX_WAITING:
        track.waiting.append(Waiting(kind, rule, details, t_ns, t_ns, count(sight)))


def evidence(subscriber: bytes, tale: Tale, role: str) -> list[Evidence]:
    """What is told of a tale, whose subscriber is in that role."""
    return [
        Evidence(
            subscriber=subscriber, kind=kind, rule=rule, connection=tale.connection,
            first_ns=seen.first_ns, last_ns=seen.last_ns, count=seen.count, role=role, why=seen.why,
        )
        for (kind, rule, _), seen in tale.fresh.items()
    ]  # fmt: skip


def facts(step: Step, client: int, role: str) -> SessionFacts:
    """What is told of the step's session; ``client`` is the direction from its miner."""
    track, s = step.track, step.track.session
    total, counted, most = hashes(s)
    low, high, _, copy = step.ends
    return SessionFacts(
        subscriber=step.subscriber, connection=step.now.connection, copy=bool(copy),
        client=(low, high)[client], server=(high, low)[client], role=role, dialect=s.dialect,
        algorithm=s.algorithm, coin=None if s.algorithm is None else algorithms.coin(s.algorithm),
        workers=tuple(s.workers), wallets=tuple(s.wallets), agents=tuple(s.agents),
        shares=msgspec.structs.replace(s.shares),
        hashes=total, hashes_shares=counted, most_hashes_per_share=most, claimed=s.claimed,
        proxied=_proxied(track.sides[client].plain, track.sides[1 - client].plain),
        first_job_ns=since_ns(s, track.last_ns), first_ns=track.first_ns, last_ns=track.last_ns,
        others=others(s),
    )  # fmt: skip


def _proxied(client: bool | None, server: bool | None) -> bool | None:
    """Whether something came before the first line of either side, as far as the client's start was seen."""
    if client is False or server is False:
        return True
    return None if client is None else False


def count(sight: Sight) -> int:
    """How often it was: a sight of verified shares tells."""
    kind, _, _, details = sight
    return int(details[3]) if kind == "share_verified" else 1
