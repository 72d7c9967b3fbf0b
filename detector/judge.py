"""Judgement: what observers saw in, incidents and their transitions out.

The only place that knows both belief and lifecycle.  Evidence acts on arrival; fading and resolving happen
at times computed from the subscriber's own evidence, and are noticed at the next evidence or when the
watermark passes them, whichever comes first: so batches may be cut anywhere.
"""

from collections.abc import Callable
from math import log, log2
from typing import Annotated

import msgspec

from detector.attribution import Place
from detector.clock import SECOND_NS
from detector.document import Incident, Transition, belief_of, incident, transition
from detector.evidence import Evidence, Group, Seen, SessionFacts, Veto
from detector.explain import headline
from detector.fusion import PRIOR, WEIGHTS, confirms, log_odds, probability
from detector.incidents import OPEN, Action, Signal, State, step
from detector.measures import Ends, Link, ends_of
from detector.redact import Names
from detector.store import NEVER_FIRST, NEVER_LAST, Kept, Limits, Record, Store, merged, since

Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How belief is turned into states."""

    suspect_at: Annotated[float, msgspec.Meta(gt=0, le=0.9)] = 0.5
    fade_at: Fraction = 0.2
    half_life_s: Seconds = 3600
    resolve_after_s: Seconds = 1800
    resolve_flows_after_s: Seconds = 6 * 3600
    forget_after_s: Seconds = 86_400
    forget_incidents_after_s: Seconds = 30 * 86_400
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.fade_at >= self.suspect_at:
            raise ValueError("fade_at must be less than suspect_at")


class Judge:
    """Keeps one record per subscriber and moves its incident through the table of states.

    ``links`` are the meter's connections (for the bytes of a document); ``place_of`` and ``names`` say how
    a subscriber and the names on the wire are told.
    """

    def __init__(
        self,
        config: Config,
        links: dict[tuple[bytes, Ends], Link],
        *,
        place_of: Callable[[bytes], Place | None],
        names: Names,
        prefix6: int = 64,
        moved: set[bytes] | None = None,
    ) -> None:
        self.store = Store(config.limits, moved)
        self._config = config
        self._links = links
        self._place_of = place_of
        self._made: dict[bytes, Incident] = {}
        self.stale: set[bytes] = set()
        self._names = names
        self._prefix6 = prefix6
        self._half_life_ns = config.half_life_s * SECOND_NS
        self._resolve_ns = config.resolve_after_s * SECOND_NS
        self._resolve_flows_ns = config.resolve_flows_after_s * SECOND_NS
        self._forget_ns = config.forget_after_s * SECOND_NS
        self._changed: set[bytes] = set()
        self._urgent: set[bytes] = set()
        self._closed: list[Incident] = []

    def take(self, seen: Seen) -> list[Transition]:
        """Act on what one step of an observer saw, in its order; a veto follows its connection's evidence.

        Sessions are stored first: they are what an alert of the same step tells about.
        """
        out: list[Transition] = []
        first_of: dict[bytes, int] = {}
        for e in seen.evidence:
            first_of.setdefault(e.subscriber, e.first_ns)
        for subscriber, at_ns in first_of.items():
            out += self._advance(self._touch(subscriber, out), at_ns)
        for facts in seen.sessions:
            self._learn(facts, out)
        for contact in seen.contacts:
            record = self._touch(contact.subscriber, out)
            self.store.keep_contact(record, contact)
            self._changed.add(record.subscriber)
        last_of = {e.connection: n for n, e in enumerate(seen.evidence)}
        vetoes: dict[int, list[Veto]] = {}
        for veto in seen.vetoes:
            vetoes.setdefault(last_of.get(veto.connection, -1), []).append(veto)
        for veto in vetoes.get(-1, ()):
            out += self._veto(veto, out)
        for n, e in enumerate(seen.evidence):
            out += self._weigh(e, out)
            for veto in vetoes.get(n, ()):
                out += self._veto(veto, out)
        return out

    def _touch(self, subscriber: bytes, out: list[Transition]) -> Record:
        """The record of a subscriber.  One with an open incident that makes room for it is withdrawn."""
        record, gone = self.store.touch(subscriber)
        if gone is not None and gone.state in OPEN:
            out += self._signal(gone, Signal.REFUTE, gone.last_ns)
        return record

    def _learn(self, facts: SessionFacts, out: list[Transition]) -> None:
        record = self._touch(facts.subscriber, out)
        if facts.connection in record.traces.vetoed:
            return
        told = record.told.get(facts.connection)
        folded = self.store.keep_session(record, facts if told is None else since(facts, told))
        if folded is not None:
            self._fold_bytes(record, folded)
        self._changed.add(record.subscriber)

    def _fold_bytes(self, record: Record, facts: SessionFacts) -> None:
        link = self._links.get(
            (record.subscriber, ends_of(facts.client, facts.server, facts.connection.protocol))
        )
        if link is not None:
            up, down = link.up_down(facts.client)
            record.folded_bytes[0] += up
            record.folded_bytes[1] += down

    def _weigh(self, e: Evidence, so_far: list[Transition]) -> list[Transition]:
        record = self._touch(e.subscriber, so_far)
        out = self._advance(record, e.first_ns)
        if not record.traces.add(e, self._config.limits.traces_per_subscriber):
            return out
        record.first_ns = min(record.first_ns, e.first_ns)
        record.last_ns = max(record.last_ns, e.last_ns)
        record.touched_ns = max(record.touched_ns, e.last_ns)
        self._changed.add(record.subscriber)
        if record.state is State.CONFIRMED:
            return out
        if self._belief(record, record.last_ns) >= self._config.suspect_at:
            signal = Signal.CONFIRM if self._confirms(record) else Signal.RISE
            out += self._signal(record, signal, e.first_ns)
        return out

    def _veto(self, veto: Veto, so_far: list[Transition]) -> list[Transition]:
        record = self._touch(veto.subscriber, so_far)
        record.touched_ns = max(record.touched_ns, veto.at_ns)
        record.traces.veto(veto.connection, veto.at_ns, self._config.limits.traces_per_subscriber)
        record.sessions.pop(veto.connection, None)
        self._changed.add(record.subscriber)
        enough = self._belief(record, record.last_ns) >= self._config.suspect_at
        if record.state in OPEN and not (
            enough and (record.state is State.SUSPECTED or self._confirms(record))
        ):
            return self._signal(record, Signal.REFUTE, veto.at_ns)
        return []

    def _confirms(self, record: Record) -> bool:
        """Whether what was seen lately may confirm: what has faded by half no longer joins the rest."""
        since_ns = record.last_ns - self._half_life_ns
        return confirms(key[0] for key, trace in record.traces.seen.items() if trace.last_ns >= since_ns)

    def _odds(self, record: Record, now_ns: int) -> float:
        seen = ((key[0], trace.last_ns) for key, trace in record.traces.seen.items())
        return log_odds(seen, now_ns=now_ns, half_life_ns=self._half_life_ns, prior=PRIOR)

    def _belief(self, record: Record, now_ns: int) -> float:
        return probability(self._odds(record, now_ns))

    def _fades_ns(self, record: Record) -> int:
        """When a suspicion has faded: all of its evidence halves alike, so the time can be solved for."""
        above = self._odds(record, record.last_ns) - PRIOR
        goal = log(self._config.fade_at / (1 - self._config.fade_at)) - PRIOR
        return record.last_ns + max(0, int(self._half_life_ns * log2(above / goal))) if above > 0 else 0

    def _advance(self, record: Record, now_ns: int) -> list[Transition]:
        """What silence up to ``now_ns`` did to an open incident."""
        quiet_ns = self._resolve_ns if self._was_heard(record) else self._resolve_flows_ns
        if record.state is State.CONFIRMED and now_ns - record.last_ns > quiet_ns:
            return self._signal(record, Signal.EXPIRE, record.last_ns + quiet_ns)
        if record.state is State.SUSPECTED and now_ns > (fades_ns := self._fades_ns(record)):
            return self._signal(record, Signal.FADE, fades_ns)
        return []

    @staticmethod
    def _was_heard(record: Record) -> bool:
        """Whether payload speaks: flow records alone come late, and sampled ones seldom."""
        return any(WEIGHTS[key[0]].group is Group.PROTOCOL for key in record.traces.seen)

    def _signal(self, record: Record, signal: Signal, at_ns: int) -> list[Transition]:
        before = record.state
        state, action = step(before, signal)
        if state is before:
            return []
        if before not in OPEN:
            # The number of an opening is the second of its first evidence: it needs no memory to be new.
            record.opening = max(record.opening + 1, record.first_ns // SECOND_NS)
        record.state = state
        self.store.moved.add(record.subscriber)
        document = self.document(record, None if state in OPEN else at_ns)
        made = transition(document, before=before, action=action, at_ns=at_ns, summary=headline(document))
        self._urgent.add(record.subscriber)
        if state not in OPEN:
            self._close(record, document, action, at_ns)
        return [made]

    def _close(self, record: Record, document: Incident, action: Action, at_ns: int) -> None:
        """A closed opening keeps its document; a new one needs new evidence."""
        if action is Action.RESOLVE:
            self.store.keep_resolved(record.subscriber, document, at_ns)
        self._closed.append(document)
        self._remember(record, at_ns)
        record.traces.seen.clear()
        record.sessions.clear()
        record.folded.clear()
        record.contacts.clear()
        record.folded_bytes = [0, 0]
        record.first_ns, record.last_ns = NEVER_FIRST, NEVER_LAST

    def _remember(self, record: Record, at_ns: int) -> None:
        """What was told of the connections of a closed opening is not to be told again by the next."""
        for connection, facts in record.sessions.items():
            before = record.told.pop(connection, None)
            record.told[connection] = facts if before is None else merged(before, facts)
            ends = ends_of(facts.client, facts.server, connection.protocol)
            link = self._links.get((record.subscriber, ends))
            if link is not None:
                record.told_bytes.pop(ends, None)
                record.told_bytes[ends] = link.total(at_ns)
        most = self._config.limits.sessions_per_subscriber
        while len(record.told) > most:
            del record.told[next(iter(record.told))]
        while len(record.told_bytes) > most:
            del record.told_bytes[next(iter(record.told_bytes))]

    def tick(self, watermark_ns: int) -> list[Transition]:
        """Fade and resolve what the watermark has passed; forget quiet subscribers and old incidents."""
        out: list[Transition] = []
        for record in list(self.store):
            if record.state in OPEN:
                out += self._advance(record, watermark_ns)
            elif self._forgettable(record, watermark_ns):
                self.store.forget(record.subscriber)
        self.store.forget_resolved(watermark_ns - self._config.forget_incidents_after_s * SECOND_NS)
        return out

    def _forgettable(self, record: Record, watermark_ns: int) -> bool:
        """What connections that go on have told already is kept for as long as they may go on."""
        return max(record.touched_ns, record.last_ns) + self._forget_ns < watermark_ns

    def document(self, record: Record, until_ns: int | None = None) -> Incident:
        """The document of a record as it stands, or as it stood at ``until_ns`` when it was over."""
        return incident(
            record,
            self._links,
            belief=belief_of(record, self._half_life_ns),
            place=self._place_of(record.subscriber),
            prefix6=self._prefix6,
            names=self._names,
            until_ns=until_ns,
        )

    def documents(self) -> list[Incident]:
        """All incidents: open ones as they stand, and the resolved ones that are still kept.  A document is
        made again where its subscriber is ``stale``, or was moved to another place."""
        known, self._made = self._made, {}
        stale = self.stale | self.store.moved
        for record in self.store:
            if record.state in OPEN:
                subscriber = record.subscriber
                made = None if subscriber in stale else known.get(subscriber)
                if made is None or made.place != self._place_of(subscriber):
                    made = self.document(record)
                self._made[subscriber] = made
        self.stale.clear()
        return [*(r.document for r in self.store.resolved), *self._made.values()]

    def restore(self, subscriber: bytes, kept: Kept | None, closed: list[tuple[int, Incident]]) -> None:
        """Take a subscriber's state.  Whether exporters have seen its document is not known: they will."""
        self.store.restore(subscriber, kept, closed)
        self._changed.add(subscriber)

    def note(self, subscribers: set[bytes]) -> None:
        """Something about them changed, if only their bytes: their documents are no longer as they were."""
        self.stale |= subscribers
        self._changed |= subscribers & self.store.records.keys()

    def changed(self, *, everything: bool = False) -> list[Incident]:
        """Documents that exporters have not seen: closed ones, those that moved to another state, and with
        ``everything`` all others that changed, each once."""
        out, self._closed = self._closed, []
        due = self._changed | self._urgent if everything else self._urgent
        records = (self.store.records.get(subscriber) for subscriber in sorted(due))
        out += [self.document(r) for r in records if r is not None and r.state in OPEN]
        self._changed -= due
        self._urgent = set()
        return out
