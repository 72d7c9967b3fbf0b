"""What the detector keeps: one record per subscriber with evidence, and the closed incidents.

Everything here is plain values, bounded and aged; what was dropped is counted.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import msgspec

from detector.evidence import Connection, Contact, SessionFacts, Shares, Worked
from detector.fusion import WEIGHTS, Key, Trace, Traces
from detector.incidents import State
from detector.measures import Both, Ends, ends_of

FOLDED_KINDS: Final = 16
NEVER_FIRST: Final = 1 << 62
NEVER_LAST: Final = -(1 << 62)


class Record(msgspec.Struct, kw_only=True):
    """One subscriber: evidence, sessions and where its incident stands.

    ``folded`` sums up sessions that no longer have a place of their own, by dialect, algorithm and role;
    ``folded_bytes`` are theirs, up and down.
    ``contacts`` are its connections with known endpoints.
    ``told`` and ``told_bytes`` are what earlier openings have told of connections that still go on.
    ``opening`` is the number of the latest incident.  ``first_ns`` and ``last_ns`` are of its evidence,
    ``touched_ns`` of any.
    """

    subscriber: bytes
    traces: Traces = msgspec.field(default_factory=Traces)
    sessions: dict[Connection, SessionFacts] = msgspec.field(default_factory=dict)
    folded: dict[str, SessionFacts] = msgspec.field(default_factory=dict)
    folded_bytes: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    contacts: dict[Ends, Contact] = msgspec.field(default_factory=dict)
    told: dict[Connection, SessionFacts] = msgspec.field(default_factory=dict)
    told_bytes: dict[Ends, tuple[int, int]] = msgspec.field(default_factory=dict)
    state: State = State.QUIET
    opening: int = 0
    first_ns: int = NEVER_FIRST
    last_ns: int = NEVER_LAST
    touched_ns: int = NEVER_LAST

    def all_sessions(self) -> list[SessionFacts]:
        """Every session of this opening, folded ones included."""
        return [*self.folded.values(), *self.sessions.values()]


class Kept(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    """A record as a state record carries it: what is named by its own fields stands without a name."""

    traces: list[tuple[Key, Trace]]
    vetoed: list[tuple[Connection, int]]
    sessions: list[SessionFacts]
    folded: list[tuple[str, SessionFacts]]
    folded_bytes: Both
    contacts: list[Contact]
    told: list[SessionFacts]
    told_bytes: list[tuple[Ends, tuple[int, int]]]
    state: State
    opening: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
    first_ns: int
    last_ns: int
    touched_ns: int

    @classmethod
    def of(cls, record: Record) -> "Kept":
        """It shares its values with the record."""
        return cls(
            traces=[*record.traces.seen.items()], vetoed=[*record.traces.vetoed.items()],
            sessions=[*record.sessions.values()], folded=[*record.folded.items()],
            folded_bytes=record.folded_bytes, contacts=[*record.contacts.values()],
            told=[*record.told.values()], told_bytes=[*record.told_bytes.items()],
            state=record.state, opening=record.opening, first_ns=record.first_ns, last_ns=record.last_ns,
            touched_ns=record.touched_ns,
        )  # fmt: skip

    def record(self, subscriber: bytes, limits: "Limits") -> Record:
        """The record that it is of, within the bounds, without evidence that has no weight any more."""
        most = limits.sessions_per_subscriber
        traces = [(key, trace) for key, trace in self.traces if key[0] in WEIGHTS]
        return Record(
            subscriber=subscriber,
            traces=Traces(
                dict(traces[-limits.traces_per_subscriber :]),
                dict(self.vetoed[-limits.traces_per_subscriber :]),
            ),
            sessions={s.connection: s for s in self.sessions[-most:]},
            folded=dict(self.folded[:FOLDED_KINDS]), folded_bytes=self.folded_bytes,
            contacts={_ends(c): c for c in self.contacts[-limits.contacts_per_subscriber :]},
            told={s.connection: s for s in self.told[-most:]}, told_bytes=dict(self.told_bytes[-most:]),
            state=self.state, opening=self.opening, first_ns=self.first_ns, last_ns=self.last_ns,
            touched_ns=self.touched_ns,
        )  # fmt: skip


def _ends(contact: Contact) -> Ends:
    return ends_of(contact.client, contact.server, contact.connection.protocol)


Bound = Annotated[int, msgspec.Meta(ge=1, le=10**8)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the detector's tables."""

    subscribers: Bound = 200_000
    traces_per_subscriber: Bound = 256
    sessions_per_subscriber: Bound = 2048
    contacts_per_subscriber: Bound = 1024
    resolved_incidents: Bound = 10_000


class Dropped(msgspec.Struct):
    """What the bounds cost."""

    subscribers: int = 0
    sessions: int = 0
    contacts: int = 0
    resolved: int = 0


def _shares(a: Shares, b: Shares, sign: int) -> Shares:
    return Shares(**{f: getattr(a, f) + sign * getattr(b, f) for f in Shares.__struct_fields__})


Done = tuple[float, int, int]
NOTHING: Final[Done] = (0.0, 0, 0)


def _done(facts: SessionFacts) -> dict[str | None, Done]:
    """Hashes, shares and nanoseconds by algorithm."""
    lasted = 0 if facts.first_job_ns is None else max(0, facts.last_ns - facts.first_job_ns)
    out: dict[str | None, Done] = {o.algorithm: (o.hashes, o.shares, o.lasted_ns) for o in facts.others}
    out[facts.algorithm] = facts.hashes or 0.0, facts.hashes_shares, lasted
    return out


def _less(worked: Worked, done: Done) -> Worked:
    hashes, shares, lasted = done
    return Worked(
        worked.algorithm, worked.hashes - hashes, worked.shares - shares,
        max(0, worked.lasted_ns - lasted), worked.last_ns,
    )  # fmt: skip


def _added(some: Iterable[Worked]) -> tuple[Worked, ...]:
    """One for each algorithm."""
    out: dict[str, Worked] = {}
    for one in some:
        old = out.get(one.algorithm, Worked(one.algorithm, 0.0, 0, 0, one.last_ns))
        out[one.algorithm] = Worked(
            one.algorithm, old.hashes + one.hashes, old.shares + one.shares,
            old.lasted_ns + one.lasted_ns, max(old.last_ns, one.last_ns),
        )  # fmt: skip
    return tuple(out.values())


def since(facts: SessionFacts, told: SessionFacts) -> SessionFacts:
    """What a session has done since ``told``, an earlier state of it."""
    done = _done(told)
    hashes, shares, _ = done.get(facts.algorithm, NOTHING)
    return msgspec.structs.replace(
        facts,
        shares=_shares(facts.shares, told.shares, -1),
        hashes=None if facts.hashes is None else facts.hashes - hashes,
        hashes_shares=facts.hashes_shares - shares,
        others=tuple(_less(one, done.get(one.algorithm, NOTHING)) for one in facts.others),
        first_job_ns=None if facts.first_job_ns is None else max(facts.first_job_ns, told.last_ns),
        first_ns=max(facts.first_ns, told.last_ns),
    )


def merged(old: SessionFacts, new: SessionFacts) -> SessionFacts:
    """Two sessions of one kind as one: counts added, names joined, times spanned; ``new``'s connection."""
    out = msgspec.structs.replace(
        new,
        workers=tuple(dict.fromkeys(old.workers + new.workers))[:32],
        agents=tuple(dict.fromkeys(old.agents + new.agents))[:32],
        wallets=tuple(dict.fromkeys(old.wallets + new.wallets))[:32],
        shares=_shares(new.shares, old.shares, 1),
        hashes_shares=old.hashes_shares + new.hashes_shares,
        first_ns=min(old.first_ns, new.first_ns),
        last_ns=max(old.last_ns, new.last_ns),
        others=_added((*old.others, *new.others)),
    )
    if old.hashes is not None or new.hashes is not None:
        out.hashes = (old.hashes or 0.0) + (new.hashes or 0.0)
    jobs = [f.first_job_ns for f in (old, new) if f.first_job_ns is not None]
    out.first_job_ns = min(jobs, default=None)
    return out


class Resolved(msgspec.Struct, frozen=True):
    """A closed incident, in the order of closing: when, its id, whose, and its document."""

    at_ns: int
    id: str
    subscriber: bytes
    document: Any


class Store:
    """Records by subscriber, in the order in which they were last touched; closed incidents.

    ``moved`` takes the subscribers of whom what is kept changed.
    """

    def __init__(self, limits: Limits, moved: set[bytes] | None = None) -> None:
        self._limits = limits
        self.records: dict[bytes, Record] = {}
        self.resolved: list[Resolved] = []
        self._resolved_of: dict[bytes, list[Resolved]] = {}
        self.moved: set[bytes] = set() if moved is None else moved
        self.dropped = Dropped()

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records.values())

    def touch(self, subscriber: bytes) -> tuple[Record, Record | None]:
        """The record of a subscriber, made on first use, and the one that had to make room for it."""
        self.moved.add(subscriber)
        record, gone = self.records.pop(subscriber, None), None
        if record is None:
            record = Record(subscriber=subscriber)
            gone = self._room()
        self.records[subscriber] = record
        return record, gone

    def _room(self) -> Record | None:
        """The record that had to go for one more."""
        if len(self.records) < self._limits.subscribers:
            return None
        self.dropped.subscribers += 1
        return self.forget(self._least())

    def forget(self, subscriber: bytes) -> Record:
        """Let go of a record."""
        self.moved.add(subscriber)
        return self.records.pop(subscriber)

    def _least(self) -> bytes:
        """Whom to forget: the quietest of the 64 that were touched longest ago."""
        some = [r for _, r in zip(range(64), self.records.values(), strict=False)]
        return min(some, key=lambda r: r.state in (State.SUSPECTED, State.CONFIRMED)).subscriber

    def keep_session(self, record: Record, facts: SessionFacts) -> SessionFacts | None:
        """Replace what is known of one connection.  Beyond the bound the oldest is added to its like.

        Returns the session that lost its place.  It must be one that will not be told of again, or its
        shares would be counted twice: the bound is above what an observer holds (engine.Config).
        """
        record.sessions.pop(facts.connection, None)
        record.sessions[facts.connection] = facts
        if len(record.sessions) <= self._limits.sessions_per_subscriber:
            return None
        gone = oldest = record.sessions.pop(next(iter(record.sessions)))
        kind = f"{oldest.dialect} {oldest.algorithm} {oldest.role}"
        if kind in record.folded:
            oldest = merged(record.folded[kind], oldest)
        elif len(record.folded) >= FOLDED_KINDS:
            self.dropped.sessions += 1
            return gone
        record.folded[kind] = oldest
        return gone

    def keep_contact(self, record: Record, contact: Contact) -> None:
        """Remember a connection with a known endpoint; the one met longest ago makes room."""
        ends = _ends(contact)
        record.contacts.pop(ends, None)
        record.contacts[ends] = contact
        if len(record.contacts) > self._limits.contacts_per_subscriber:
            del record.contacts[next(iter(record.contacts))]
            self.dropped.contacts += 1

    def keep_resolved(self, subscriber: bytes, document: Any, at_ns: int) -> None:
        """Remember a closed incident; the oldest makes room."""
        made = Resolved(at_ns, document.id, subscriber, document)
        insort(self.resolved, made, key=_order)
        insort(self._resolved_of.setdefault(subscriber, []), made, key=_order)
        self.moved.add(subscriber)
        if len(self.resolved) > self._limits.resolved_incidents:
            self.dropped.resolved += 1
            self._forget_oldest(1)

    def forget_resolved(self, before_ns: int) -> None:
        """Forget incidents that were closed before then."""
        self._forget_oldest(bisect_left(self.resolved, before_ns, key=lambda r: r.at_ns))

    def _forget_oldest(self, count: int) -> None:
        for gone in self.resolved[:count]:
            of = self._resolved_of[gone.subscriber]
            of.remove(gone)
            if not of:
                del self._resolved_of[gone.subscriber]
            self.moved.add(gone.subscriber)
        del self.resolved[:count]

    def state(self, subscriber: bytes) -> tuple[Kept | None, list[tuple[int, Any]]]:
        """What a state record of the subscriber carries: its record, and its closed incidents."""
        record = self.records.get(subscriber)
        closed = [(r.at_ns, r.document) for r in self._resolved_of.get(subscriber, ())]
        return None if record is None else Kept.of(record), closed

    def restore(self, subscriber: bytes, kept: Kept | None, closed: Iterable[tuple[int, Any]]) -> None:
        """Take a subscriber's state, in place of what is known of it."""
        self.records.pop(subscriber, None)
        if kept is not None:
            self._room()
            self.records[subscriber] = kept.record(subscriber, self._limits)
        for at_ns, document in closed:
            self.keep_resolved(subscriber, document, at_ns)
        self.moved.add(subscriber)


def _order(resolved: Resolved) -> tuple[int, str]:
    return resolved.at_ns, resolved.id
