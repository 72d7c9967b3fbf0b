"""Judgement: what observers saw in, incidents and their transitions out.

The only place that knows both belief and lifecycle.  Evidence acts on arrival; fading and resolving happen
at times computed from the subscriber's own evidence, and are noticed at the next evidence or when the
watermark passes them, whichever comes first: so batches may be cut anywhere.
"""

from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec

from detector.attribution import Place
from detector.clock import SECOND_NS
from detector.document import Incident, Transition, belief_of, incident, transition
from detector.evidence import Evidence, Seen, SessionFacts, Veto
from detector.explain import headline
from detector.fusion import PRIOR, confirms, log_odds, probability
from detector.incidents import OPEN, Action, Signal, State, step
from detector.measures import Ends, Link, ends_of
from detector.redact import Names
from detector.store import NEVER_FIRST, NEVER_LAST, Limits, Record, Store, merged, since

Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How belief is turned into states."""

    suspect_at: Fraction = 0.5
    fade_at: Fraction = 0.2
    half_life_s: Seconds = 3600
    resolve_after_s: Seconds = 1800
    forget_after_s: Seconds = 86_400
    forget_incidents_after_s: Seconds = 30 * 86_400
    limits: Limits = Limits()


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
    ) -> None:
        self.store = Store(config.limits)
        self._config = config
        self._links = links
        self._place_of = place_of
        self._names = names
        self._prefix6 = prefix6
        self._half_life_ns = config.half_life_s * SECOND_NS
        self._resolve_ns = config.resolve_after_s * SECOND_NS

    def take(self, seen: Seen) -> list[Transition]:
        """Act on what one step of an observer saw, in its order.

        Sessions are stored first: they are what an alert of the same step tells about.
        """
        out: list[Transition] = []
        first_of: dict[bytes, int] = {}
        for e in seen.evidence:
            first_of.setdefault(e.subscriber, e.last_ns)
        for subscriber, at_ns in first_of.items():
            out += self._advance(self.store.touch(subscriber), at_ns)
        for facts in seen.sessions:
            self._learn(facts)
        for e in seen.evidence:
            out += self._weigh(e)
        for veto in seen.vetoes:
            out += self._veto(veto)
        return out

    def _learn(self, facts: SessionFacts) -> None:
        record = self.store.touch(facts.subscriber)
        if facts.connection in record.traces.vetoed:
            return
        told = record.told.get(facts.connection)
        self.store.keep_session(record, facts if told is None else since(facts, told))
        record.changed = True

    def _weigh(self, e: Evidence) -> list[Transition]:
        record = self.store.touch(e.subscriber)
        out = self._advance(record, e.last_ns)
        if not record.traces.add(e, self._config.limits.traces_per_subscriber):
            return out
        record.first_ns = min(record.first_ns, e.first_ns)
        record.last_ns = max(record.last_ns, e.last_ns)
        record.touched_ns = max(record.touched_ns, e.last_ns)
        record.changed = True
        if record.state is State.CONFIRMED:
            return out
        if self._belief(record, record.last_ns) >= self._config.suspect_at:
            kinds = (key[0] for key in record.traces.seen)
            out += self._signal(record, Signal.CONFIRM if confirms(kinds) else Signal.RISE, e.last_ns)
        return out

    def _veto(self, veto: Veto) -> list[Transition]:
        record = self.store.touch(veto.subscriber)
        record.touched_ns = max(record.touched_ns, veto.at_ns)
        record.traces.veto(veto.connection, veto.at_ns, self._config.limits.traces_per_subscriber)
        record.sessions.pop(veto.connection, None)
        record.changed = True
        kinds = [key[0] for key in record.traces.seen]
        enough = self._belief(record, record.last_ns) >= self._config.suspect_at
        if record.state in OPEN and not (enough and (record.state is State.SUSPECTED or confirms(kinds))):
            return self._signal(record, Signal.REFUTE, veto.at_ns)
        return []

    def _belief(self, record: Record, now_ns: int) -> float:
        seen = ((key[0], trace.last_ns) for key, trace in record.traces.seen.items())
        return probability(log_odds(seen, now_ns=now_ns, half_life_ns=self._half_life_ns, prior=PRIOR))

    def _advance(self, record: Record, now_ns: int) -> list[Transition]:
        """What silence up to ``now_ns`` did to an open incident."""
        if record.state is State.CONFIRMED and now_ns - record.last_ns > self._resolve_ns:
            return self._signal(record, Signal.EXPIRE, record.last_ns + self._resolve_ns)
        if record.state is State.SUSPECTED and self._belief(record, now_ns) < self._config.fade_at:
            return self._signal(record, Signal.FADE, now_ns)
        return []

    def _signal(self, record: Record, signal: Signal, at_ns: int) -> list[Transition]:
        before = record.state
        state, action = step(before, signal)
        if state is before:
            return []
        if before not in OPEN:
            record.opening += 1
        record.state = state
        document = self.document(record)
        made = transition(document, before=before, action=action, at_ns=at_ns, summary=headline(document))
        if state not in OPEN:
            self._close(record, document, action)
        return [made]

    def _close(self, record: Record, document: Incident, action: Action) -> None:
        """A closed opening keeps its document; a new one needs new evidence."""
        if action is Action.RESOLVE:
            self.store.keep_resolved(document)
        self._remember(record)
        record.traces.seen.clear()
        record.sessions.clear()
        record.folded.clear()
        record.first_ns, record.last_ns = NEVER_FIRST, NEVER_LAST
        record.changed = False

    def _remember(self, record: Record) -> None:
        """What was told of the connections of a closed opening is not to be told again by the next."""
        for connection, facts in record.sessions.items():
            before = record.told.pop(connection, None)
            record.told[connection] = facts if before is None else merged(before, facts)
            ends = ends_of(facts.client, facts.server, connection.protocol)
            link = self._links.get((record.subscriber, ends))
            if link is not None:
                record.told_bytes.pop(ends, None)
                record.told_bytes[ends] = link.total()
        for table in (record.told, record.told_bytes):
            while len(table) > self._config.limits.sessions_per_subscriber:
                del table[next(iter(table))]

    def tick(self, watermark_ns: int) -> list[Transition]:
        """Fade and resolve what the watermark has passed; forget quiet subscribers after a day."""
        out: list[Transition] = []
        for record in list(self.store):
            if record.state in OPEN:
                out += self._advance(record, watermark_ns)
            elif self._forgettable(record, watermark_ns):
                del self.store.records[record.subscriber]
        return out

    def _forgettable(self, record: Record, watermark_ns: int) -> bool:
        """A subscriber with a past keeps the number of its openings, or a new id would be an old one."""
        keep_s = self._config.forget_incidents_after_s if record.opening else self._config.forget_after_s
        return max(record.touched_ns, record.last_ns) + keep_s * SECOND_NS < watermark_ns

    def document(self, record: Record) -> Incident:
        """The document of a record as it stands."""
        return incident(
            record,
            self._links,
            belief=belief_of(record, self._half_life_ns),
            place=self._place_of(record.subscriber),
            prefix6=self._prefix6,
            names=self._names,
        )

    def documents(self) -> list[Incident]:
        """All incidents: open ones as they stand, and the resolved ones that are still kept."""
        live = [self.document(r) for r in self.store if r.state in OPEN]
        return [*self.store.resolved, *live]  # type: ignore[list-item]

    def changed(self) -> Iterable[Incident]:
        """Open incidents that changed since the last call."""
        for record in self.store:
            if record.changed and record.state in OPEN:
                record.changed = False
                yield self.document(record)
