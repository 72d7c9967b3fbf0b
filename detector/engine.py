"""The detector's core: messages in, transitions and closed minutes out.  No clock, no socket, no metric.

One engine per run of the data: a live detector has one, each replayed file has its own.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np

from collectors import wire
from collectors.bus import Message
from detector.arrivals import Arrivals
from detector.attribution import Place
from detector.clock import MINUTE_NS, SECOND_NS, Watermark
from detector.document import Incident, Transition
from detector.endpoints import Endpoints, Entry
from detector.endpoints import Limits as EndpointLimits
from detector.evidence import Contact, Seen
from detector.incidents import OPEN, State
from detector.judge import Config as JudgeConfig
from detector.judge import Judge
from detector.learner import Config as LearnerConfig
from detector.learner import Learner
from detector.measures import Ends, Meter, ends_of
from detector.minutes import Mining, Minute, Minutes
from detector.networks import SharedNetworks
from detector.observation import Config as MeasuresConfig
from detector.observation import Rule
from detector.observers.endpoints import Config as ContactConfig
from detector.observers.endpoints import EndpointObserver
from detector.observers.names import Config as NameConfig
from detector.observers.names import NameObserver
from detector.observers.noise import Config as NoiseConfig
from detector.observers.noise import NoiseObserver
from detector.observers.payload import Config as PayloadConfig
from detector.observers.payload import PayloadObserver
from detector.observers.shape import Config as ShapeConfig
from detector.observers.shape import ShapeObserver
from detector.pools import Pools
from detector.redact import PLAIN, Names
from detector.resolutions import Config as ResolutionConfig
from detector.resolutions import Resolutions
from detector.sightings import Config as SightingConfig
from detector.sightings import Sighting, Sightings
from detector.state import EngineState, SubscriberState

EMPTY_POOLS = Pools(())
EMPTY_NETWORKS = SharedNetworks(())
TICK_NS = 10 * SECOND_NS


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The detector: how it judges, what it keeps, how late a flow record may be."""

    judge: JudgeConfig = JudgeConfig()
    payload: PayloadConfig = PayloadConfig()
    endpoints: EndpointLimits = EndpointLimits()
    sightings: SightingConfig = SightingConfig()
    contacts: ContactConfig = ContactConfig()
    shape: ShapeConfig = ShapeConfig()
    noise: NoiseConfig = NoiseConfig()
    resolutions: ResolutionConfig = ResolutionConfig()
    names: NameConfig = NameConfig()
    learner: LearnerConfig = LearnerConfig()
    measures: MeasuresConfig = MeasuresConfig()
    lateness_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 120
    connections: Annotated[int, msgspec.Meta(ge=1, le=10**8)] = 200_000

    def __post_init__(self) -> None:
        # A session that lost its place in a record must be gone from the observer: see Store.keep_session.
        least = 2 * self.payload.max_connections
        if self.judge.limits.sessions_per_subscriber < least:
            raise ValueError(f"judge.limits.sessions_per_subscriber must be at least {least}")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known beforehand: the pool table, networks that many share, and who is home."""

    pools: Pools = EMPTY_POOLS
    shared: SharedNetworks = EMPTY_NETWORKS
    is_home: Callable[[bytes], bool] = lambda _: False


class Told(msgspec.Struct):
    """What one step has to tell."""

    transitions: list[Transition] = msgspec.field(default_factory=list)
    minutes: list[Minute] = msgspec.field(default_factory=list)


class Engine:
    """Observers, judgement and measures of one run.

    ``index`` is shared with other engines where it is given; the listed endpoints are in it already.  A
    ``durable`` engine notes what changed, for one who writes its state (and must ask, or it notes for ever).
    """

    def __init__(
        self,
        config: Config,
        *,
        place_of: Callable[[bytes], Place | None] = lambda _: None,
        names: Names = PLAIN,
        prefix6: int = 64,
        knowledge: Knowledge | None = None,
        index: Endpoints | None = None,
        durable: bool = False,
    ) -> None:
        moved = self._moved = set[bytes]()
        self._durable = durable
        self._found: list[Entry] = []
        self.meter = Meter(config.connections, moved=moved, rule=Rule(config.measures))
        self.judge = Judge(
            config.judge, self.meter.links, place_of=place_of, names=names, prefix6=prefix6, moved=moved
        )
        self.payload = PayloadObserver(config.payload, moved)
        known = knowledge or Knowledge()
        self._is_home = known.is_home
        self.owns_index = index is None
        self.index = Endpoints(known.pools.listed(), config.endpoints) if index is None else index
        self.sightings = Sightings(self.index, config.sightings)
        self.endpoints = EndpointObserver(config.contacts, moved)
        self.shape = ShapeObserver(config.shape, moved)
        self.noise = NoiseObserver(self.shape.told, config.noise)
        self.resolutions = Resolutions(known.pools.find, known.shared, self.index, config.resolutions)
        self.names = NameObserver(known.pools.find, self.resolutions, config.names, moved)
        self.learner = Learner(self.index, known.shared, config.learner)
        self.watermark = Watermark()
        self.arrivals = Arrivals()
        self.evidence: Counter[tuple[str, str]] = Counter()
        self._place_of = place_of
        self._minutes = Minutes(config.lateness_s * SECOND_NS, moved)
        self._ticked_ns = -(1 << 62)
        self._advanced_ns = -(1 << 62)

    def step(self, message: Message) -> Told:
        """Take in one message of any stream."""
        told = Told()
        self.arrivals.note(message.stream, message.partition, message.header)
        if message.rows.num_rows:
            if message.stream == "flows":
                told.transitions += self._flows(message.rows)
            else:
                received_ns = message.header.received_ns
                rows, clamped = wire.clamped(message.rows, "t", received_ns + MINUTE_NS, received_ns)
                self.arrivals.counts.clamped += clamped
                observe = self.payload.step if message.stream == "payloads" else self.names.step
                for run in _by_minute(rows):
                    told.transitions += self._see(observe(run))
        for clock in message.header.clocks:
            self.watermark.observe(clock.source, clock.newest_ns, clock.delay_ns, message.header.received_ns)
        if message.header.received_ns - self._advanced_ns >= SECOND_NS:
            self._advanced_ns = message.header.received_ns
            self._tick(told, self.watermark.advance())
        self._found += self.names.changes()
        if not self._durable:
            self.judge.note(self._moved)
            self._moved.clear()
            self._found.clear()
        return told

    def finish(self) -> Told:
        """The data has ended: close every minute.  No time passes, so nothing fades or resolves."""
        told = Told()
        self.judge.note(self._moved)
        last = max((link.last_ns for link in self.meter.links.values()), default=None)
        if last is not None:
            told.minutes.append(self._minutes.close(last // MINUTE_NS, self._mining(), self.meter.links))
        return told

    def documents(self) -> list[Incident]:
        """All incidents, open and resolved."""
        return self.judge.documents()

    # -- state -------------------------------------------------------------------------------------

    def state(self, subscriber: bytes) -> SubscriberState | None:
        """All that is kept of one subscriber, None where nothing is.  It shares its values with the engine:
        encode it before the next step.  Tell first what steps gave and ``judge.changed`` has: who begins
        from a state does not tell again what came before it."""
        record, closed = self.judge.store.state(subscriber)
        state = SubscriberState(
            payload=self.payload.state(subscriber), shape=self.shape.state(subscriber),
            links=self.meter.state(subscriber), record=record, resolved=closed,
            endpoints_told=self.endpoints.told.state(subscriber),
            shape_told=self.shape.told.state(subscriber), names_told=self.names.told.state(subscriber),
        )  # fmt: skip
        return None if state.is_empty() else state

    def restore(self, subscriber: bytes, state: SubscriberState) -> None:
        """Take one subscriber's state, which the engine owns from then on, into an engine that has not
        heard of it."""
        if state.payload.tracks or state.payload.opened:
            self.payload.restore(subscriber, state.payload)
        if state.shape.pairs:
            self.shape.restore(subscriber, state.shape)
        self.meter.restore(subscriber, state.links)
        self.judge.restore(subscriber, state.record, state.resolved)
        self.endpoints.told.restore(subscriber, state.endpoints_told)
        self.shape.told.restore(subscriber, state.shape_told)
        self.names.told.restore(subscriber, state.names_told)
        self._moved.discard(subscriber)

    def whole(self) -> EngineState:
        """What is kept and is of no subscriber.  The endpoint index is apart: it may be shared."""
        return EngineState(
            heard=self.watermark.state(), arrivals=self.arrivals.state(), closed=self._minutes.closed,
            ticked_ns=self._ticked_ns, advanced_ns=self._advanced_ns, purses=self.payload.admission.state(),
        )  # fmt: skip

    def resume(self, state: EngineState) -> None:
        """Go on from there; the index holds by now what it held."""
        self.watermark.restore(state.heard)
        self.arrivals.restore(state.arrivals)
        self._minutes.closed = state.closed
        self.payload.admission.restore(state.purses)
        self._ticked_ns, self._advanced_ns = state.ticked_ns, state.advanced_ns
        self.resolutions.restore()

    def changed_subscribers(self) -> set[bytes]:
        """Whose state changed since the last call, the forgotten ones too; of a durable engine."""
        self._must_be_durable()
        changed = set(self._moved)
        self.judge.note(changed)
        self._moved.clear()
        return changed

    def endpoint_changes(self) -> list[Entry]:
        """Entries of the index that this engine made, renewed or refuted since the last call, as they were
        then, in their order; one that is refuted withdraws what was learned there.  Of a durable engine."""
        self._must_be_durable()
        changes, self._found = self._found, []
        return changes

    def _must_be_durable(self) -> None:
        if not self._durable:
            raise RuntimeError("an engine that is not durable does not note what changed")

    # -- the parts ---------------------------------------------------------------------------------

    def _flows(self, rows: wire.Batch) -> list[Transition]:
        """Flow rows: what they say of known endpoints and of encrypted mining, and the bytes of what may be
        mining."""
        sightings, encrypted = self.sightings.find(rows), self.noise.find(rows)
        self.meter.step(rows, [*(s.row for s in sightings), *(e.row for e in encrypted)])
        told = self._see(self.noise.step(encrypted)) if encrypted else []
        if not sightings:
            return told
        seen = self.endpoints.step(sightings)
        contacts = tuple(_contact(s) for s in sightings if s.carried)
        made = told + self._see(msgspec.structs.replace(seen, contacts=contacts))
        return made + self._see(self.shape.step(sightings))

    def _see(self, seen: Seen) -> list[Transition]:
        for e in seen.evidence:
            self.evidence[e.kind, e.rule] += e.count
        made = self.judge.take(seen)
        for facts in seen.sessions:
            if facts.shares.accepted:
                record = self.judge.store.records.get(facts.subscriber)
                confirmed = record is not None and record.state is State.CONFIRMED
                self._found += self.learner.take(
                    facts, confirmed, self._is_home, facts.last_ns, facts.proxied
                )
        return made

    def _tick(self, told: Told, watermark_ns: int) -> None:
        due = self._minutes.due(watermark_ns)
        if due is not None:
            mining = self._mining()
            told.minutes.append(self._minutes.close(due, mining, self.meter.links))
            self.meter.close(watermark_ns, mining.__contains__)
        if watermark_ns - self._ticked_ns >= TICK_NS:
            self._ticked_ns = watermark_ns
            told.transitions += self.judge.tick(watermark_ns)
            self.payload.expire(watermark_ns)
            self.shape.expire(watermark_ns)
            self.endpoints.told.expire(watermark_ns)
            self.names.told.expire(watermark_ns)
            self.index.expire(watermark_ns)

    def _mining(self) -> dict[tuple[bytes, Ends], Mining]:
        """One entry per connection that is mining, of subscribers with an open incident."""
        out: dict[tuple[bytes, Ends], Mining] = {}
        for record in self.judge.store:
            if record.state not in OPEN:
                continue
            place = self._place_of(record.subscriber)
            for ends, contact in record.contacts.items():
                if not contact.weak:
                    out[record.subscriber, ends] = Mining(None, contact, place)
            for facts in record.sessions.values():
                ends = ends_of(facts.client, facts.server, facts.connection.protocol)
                out[record.subscriber, ends] = Mining(facts, record.contacts.get(ends), place)
        return out


def _contact(sight: Sighting) -> Contact:
    """The connection of a sighting, as a document tells it."""
    connection, entry = sight.connection, sight.entry
    client = connection.high if connection.low == sight.endpoint else connection.low
    return Contact(
        subscriber=sight.subscriber, connection=connection, client=client, server=sight.endpoint,
        role=sight.role, name=entry.name, operator=entry.operator, coins=entry.coins, weak=sight.weak,
    )  # fmt: skip


def _by_minute(rows: wire.Batch) -> list[wire.Batch]:
    """Cut a batch where the minute of its rows changes, so that no step spans a long silence."""
    minute = wire.values(rows, "t") // MINUTE_NS
    cuts = np.flatnonzero(np.diff(minute)) + 1
    if not cuts.size:
        return [rows]
    edges = [0, *cuts.tolist(), rows.num_rows]
    return [rows.slice(a, b - a) for a, b in pairwise(edges)]
