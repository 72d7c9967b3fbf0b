"""The detector's core: messages in, transitions and closed minutes out.  No clock, no socket, no metric.

One engine per run of the data: a live detector has one, each replayed file has its own.
"""

from collections import Counter
from collections.abc import Callable
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
from detector.evidence import Seen, SessionFacts
from detector.incidents import OPEN
from detector.judge import Config as JudgeConfig
from detector.judge import Judge
from detector.measures import Ends, Meter, ends_of
from detector.minutes import Minute, Minutes
from detector.observers.payload import Config as PayloadConfig
from detector.observers.payload import PayloadObserver
from detector.redact import PLAIN, Names
from detector.store import Record

TICK_NS = 10 * SECOND_NS


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The detector: how it judges, what it keeps, how late a flow record may be."""

    judge: JudgeConfig = JudgeConfig()
    payload: PayloadConfig = PayloadConfig()
    lateness_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 120
    connections: Annotated[int, msgspec.Meta(ge=1, le=10**8)] = 200_000

    def __post_init__(self) -> None:
        # A session that lost its place in a record must be gone from the observer: see Store.keep_session.
        least = 2 * self.payload.max_connections
        if self.judge.limits.sessions_per_subscriber < least:
            raise ValueError(f"judge.limits.sessions_per_subscriber must be at least {least}")


class Told(msgspec.Struct):
    """What one step has to tell."""

    transitions: list[Transition] = msgspec.field(default_factory=list)
    minutes: list[Minute] = msgspec.field(default_factory=list)


class Engine:
    """Observers, judgement and measures of one run."""

    def __init__(
        self,
        config: Config,
        *,
        place_of: Callable[[bytes], Place | None] = lambda _: None,
        names: Names = PLAIN,
        prefix6: int = 64,
    ) -> None:
        self.meter = Meter(config.connections)
        self.judge = Judge(config.judge, self.meter.links, place_of=place_of, names=names, prefix6=prefix6)
        self.payload = PayloadObserver(config.payload)
        self.watermark = Watermark()
        self.arrivals = Arrivals()
        self.evidence: Counter[tuple[str, str]] = Counter()
        self._place_of = place_of
        self._minutes = Minutes(config.lateness_s * SECOND_NS)
        self._ticked_ns = -(1 << 62)
        self._advanced_ns = -(1 << 62)

    def step(self, message: Message) -> Told:
        """Take in one message of any stream."""
        told = Told()
        self.arrivals.note(message.stream, message.partition, message.header)
        if message.rows.num_rows:
            if message.stream == "flows":
                self.meter.step(message.rows)
            elif message.stream == "payloads":
                latest = message.header.received_ns + MINUTE_NS
                rows, clamped = wire.clamped(message.rows, "t", latest, message.header.received_ns)
                self.arrivals.counts.clamped += clamped
                for run in _by_minute(rows):
                    told.transitions += self._see(self.payload.step(run))
        for clock in message.header.clocks:
            self.watermark.observe(clock.source, clock.newest_ns, clock.delay_ns, message.header.received_ns)
        if message.header.received_ns - self._advanced_ns >= SECOND_NS:
            self._advanced_ns = message.header.received_ns
            self._tick(told, self.watermark.advance())
        return told

    def finish(self) -> Told:
        """The data has ended: close every minute.  No time passes, so nothing fades or resolves."""
        told = Told()
        last = max((link.last_ns for link in self.meter.links.values()), default=None)
        if last is not None:
            told.minutes.append(self._minutes.close(last // MINUTE_NS, self._mining(), self.meter.links))
        return told

    def documents(self) -> list[Incident]:
        """All incidents, open and resolved."""
        return self.judge.documents()

    def _see(self, seen: Seen) -> list[Transition]:
        for e in seen.evidence:
            self.evidence[e.kind, e.rule] += e.count
        return self.judge.take(seen)

    def _tick(self, told: Told, watermark_ns: int) -> None:
        due = self._minutes.due(watermark_ns)
        if due is not None:
            told.minutes.append(self._minutes.close(due, self._mining(), self.meter.links))
            mining = self._mining_ends()
            self.meter.close(watermark_ns, mining.__contains__)
        if watermark_ns - self._ticked_ns >= TICK_NS:
            self._ticked_ns = watermark_ns
            told.transitions += self.judge.tick(watermark_ns)
            self.payload.expire(watermark_ns)

    def _mining(self) -> list[tuple[Record, SessionFacts, Place | None]]:
        """One entry per connection that is mining, of subscribers with an open incident."""
        out: dict[tuple[bytes, Ends], tuple[Record, SessionFacts, Place | None]] = {}
        for record in self.judge.store:
            if record.state in OPEN:
                place = self._place_of(record.subscriber)
                for facts in record.sessions.values():
                    ends = ends_of(facts.client, facts.server, facts.connection.protocol)
                    out[record.subscriber, ends] = (record, facts, place)
        return list(out.values())

    def _mining_ends(self) -> set[tuple[bytes, Ends]]:
        return {
            (r.subscriber, ends_of(f.client, f.server, f.connection.protocol)) for r, f, _ in self._mining()
        }


def _by_minute(rows: wire.Batch) -> list[wire.Batch]:
    """Cut a batch where the minute of its rows changes, so that no step spans a long silence."""
    minute = wire.values(rows, "t") // MINUTE_NS
    cuts = np.flatnonzero(np.diff(minute)) + 1
    if not cuts.size:
        return [rows]
    edges = [0, *cuts.tolist(), rows.num_rows]
    return [rows.slice(a, b - a) for a, b in pairwise(edges)]
