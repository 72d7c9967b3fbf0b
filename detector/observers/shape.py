"""Sightings of known endpoints in, evidence of behaviour out: does it come back, does it look like mining?

``persistence``: data with one endpoint in several distinct hours, by the record's time and by the time it was
received, both directions seen.  ``mining_shape``: a long connection of small packets at a low rate, both
directions seen.  Only flows with known endpoints are looked at: most long quiet connections are no mining.
On a web port of a name that may be a web site neither is told: a dashboard left open behaves alike.

Figures (docs of real sessions): 0.08 to 1.2 kbit/s a connection, 10 where work is polled over HTTP; 99 to 280
bytes a packet up, 80 to 540 down.
"""

from typing import Annotated

import msgspec

from detector.clock import SECOND_NS
from detector.evidence import Address, Connection, Evidence, Seen
from detector.observers import words
from detector.poolnames import WEB_PORTS
from detector.sightings import MINUTE_NS, Recent, Sighting

HOUR_NS = 3600 * SECOND_NS
MOST = 1 << 62
"""Counts stay there: a state record holds 64 bits."""

Ends = tuple[Address, int, int]
"""Address, port, protocol of the endpoint."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What counts as persistent and as the shape of mining, and how much is kept."""

    hours: int = 3  # distinct hours, of the last 24, that are persistence
    within_hours: int = 24
    latest_s: int = 7200  # a record received later than this after its end says nothing about when
    span_s: int = 600  # the least age of a connection that has a shape
    packets: int = 20  # the least number of packets that have one, both directions together
    low_bps: float = 50.0
    high_bps: float = 20_000.0  # of one connection, both directions
    most_up: int = 400  # the largest mean packet, IP bytes
    most_down: int = 1000
    sampled_span_s: int = 6 * 3600  # of records that are sampled: all with this endpoint together
    idle_s: int = 48 * 3600
    subscribers: int = 65_536
    endpoints: int = 64  # per subscriber
    connections: int = 32  # per subscriber and endpoint
    sources: int = 8  # per connection
    remembered: int = 65_536


class Stats(msgspec.Struct):
    """What moved, for the shell to read."""

    sightings: int = 0
    left_out: int = 0
    late: int = 0
    persistent: int = 0
    shaped: int = 0
    evicted: int = 0
    expired: int = 0


class Talk(msgspec.Struct, array_like=True, gc=False):
    """What was counted of one connection, or of all with one endpoint: per source packets and bytes up,
    packets and bytes down.  Sources tell of the same packets: per direction the fullest one counts."""

    first_ns: int
    last_ns: int
    counts: dict[str, Annotated[list[int], msgspec.Meta(min_length=4, max_length=4)]] = {}

    def add(self, sight: Sighting, most: int) -> None:
        """Count one record; a source beyond the bound is left out."""
        self.first_ns = min(self.first_ns, sight.first_ns)
        self.last_ns = max(self.last_ns, sight.last_ns)
        counts = self.counts.get(sight.point)
        if counts is None:
            if len(self.counts) >= most:
                return
            counts = self.counts[sight.point] = [0, 0, 0, 0]
        for i, value in enumerate((*sight.up, *sight.down)):
            counts[i] = min(counts[i] + value, MOST)

    def fullest(self) -> tuple[int, int, int, int]:
        """Packets and bytes up, packets and bytes down."""
        up = max(self.counts.values(), key=lambda c: c[0], default=[0] * 4)
        down = max(self.counts.values(), key=lambda c: c[2], default=[0] * 4)
        return up[0], up[1], down[2], down[3]


class Pair(msgspec.Struct, array_like=True, gc=False):
    """One subscriber and one endpoint: distinct hours of stamps and of receipt, and what was counted."""

    all: Talk
    rate: int = 1
    stamps: list[int] = []
    receipts: list[int] = []
    talks: dict[Connection, Talk] = {}


class State(msgspec.Struct, array_like=True, gc=False):
    """All that is known of one subscriber's endpoints, in plain values."""

    pairs: list[tuple[Ends, Pair]] = []


class ShapeObserver:
    """Sees how subscribers behave with known endpoints.  ``step`` is its verb."""

    def __init__(self, config: Config | None = None, moved: set[bytes] | None = None) -> None:
        """``moved`` takes the subscribers of whom what is kept changed."""
        self.config = config or Config()
        self.stats = Stats()
        self.moved: set[bytes] = set() if moved is None else moved
        self._books: dict[bytes, dict[Ends, Pair]] = {}
        self.told = Recent(self.config.remembered, moved)

    def step(self, sightings: list[Sighting]) -> Seen:
        """Take the sightings of one batch."""
        out: list[Evidence] = []
        for sight in sightings:
            self.stats.sightings += 1
            if not self._fits(sight):
                self.stats.left_out += 1
            elif sight.received_ns - sight.last_ns > self.config.latest_s * SECOND_NS:
                self.stats.late += 1
            else:
                out += self._see(sight)
        return Seen(tuple(out))

    @staticmethod
    def _fits(sight: Sighting) -> bool:
        dashboard = sight.weak and sight.endpoint[1] in WEB_PORTS
        return sight.carried and sight.role == "miner" and not dashboard

    def _see(self, sight: Sighting) -> list[Evidence]:
        pair = self._pair(sight)
        talk = self._count(pair, sight)
        out = []
        if self._persists(pair, sight):
            out += self._say("persistence", "hours", sight, pair.all, self._hours_why(pair, sight))
            self.stats.persistent += len(out)
        shaped = self._shaped(pair, talk)
        if shaped is not None:
            said = self._say("mining_shape", shaped[0], sight, talk, shaped[1])
            self.stats.shaped += len(said)
            out += said
        return out

    # -- what is kept ------------------------------------------------------------------------------

    def _pair(self, sight: Sighting) -> Pair:
        book = self._book(sight.subscriber)
        ends = (*sight.endpoint, sight.connection.protocol)
        pair = book.pop(ends, None)
        if pair is None:
            pair = Pair(Talk(sight.first_ns, sight.last_ns))
            if len(book) >= self.config.endpoints:
                del book[next(iter(book))]
                self.stats.evicted += 1
        book[ends] = pair
        return pair

    def _book(self, subscriber: bytes) -> dict[Ends, Pair]:
        self.moved.add(subscriber)
        book = self._books.pop(subscriber, None)
        if book is None:
            book = {}
            if len(self._books) >= self.config.subscribers:
                gone = next(iter(self._books))
                self.stats.evicted += len(self._books.pop(gone))
                self.moved.add(gone)
        self._books[subscriber] = book
        return book

    def _count(self, pair: Pair, sight: Sighting) -> Talk:
        day_ns = self.config.within_hours * HOUR_NS
        if sight.last_ns - pair.all.first_ns > day_ns and pair.all.first_ns < sight.first_ns - day_ns // 2:
            # A new day: what is sampled is judged by the last day's records, not by all there ever were.
            pair.all = Talk(sight.first_ns, sight.last_ns)
            pair.rate = 1
        pair.all.add(sight, self.config.sources)
        pair.rate = max(pair.rate, sight.rate)
        talk = pair.talks.pop(sight.connection, None) or Talk(sight.first_ns, sight.last_ns)
        if sight.first_ns - talk.last_ns > self.config.idle_s * SECOND_NS:
            talk = Talk(sight.first_ns, sight.last_ns)
        talk.add(sight, self.config.sources)
        pair.talks[sight.connection] = talk
        if len(pair.talks) > self.config.connections:
            del pair.talks[next(iter(pair.talks))]
        self._note_hours(pair, sight)
        return talk

    def _note_hours(self, pair: Pair, sight: Sighting) -> None:
        """A record counts in the hour of its end, and of its beginning where it may be that long: at most
        two hours, so that no single record is persistence."""
        stamps = {min(sight.last_ns, sight.received_ns) // HOUR_NS}
        packets = sight.up[0] + sight.down[0]
        if packets > 1 and sight.last_ns - sight.first_ns <= self.config.latest_s * SECOND_NS:
            stamps.add(sight.first_ns // HOUR_NS)
        received = sight.received_ns // HOUR_NS
        newest = max(received, *pair.receipts) if pair.receipts else received
        after = newest - self.config.within_hours
        pair.stamps = sorted({h for h in (*pair.stamps, *stamps) if after < h <= newest})
        pair.receipts = sorted({h for h in (*pair.receipts, received) if after < h})

    # -- what is seen ------------------------------------------------------------------------------

    def _persists(self, pair: Pair, sight: Sighting) -> bool:
        up, _, down, _ = pair.all.fullest()
        return bool(up and down) and min(len(pair.stamps), len(pair.receipts)) >= self.config.hours

    def _shaped(self, pair: Pair, talk: Talk) -> tuple[str, str] | None:
        """The rule that the shape meets and why, or None.  Sampled records of one connection are too few:
        all with the endpoint are taken together, and their rate is of as many connections as were seen."""
        sampled = pair.rate > 1
        given = pair.all if sampled else talk
        least_s = self.config.sampled_span_s if sampled else self.config.span_s
        span_ns = given.last_ns - given.first_ns
        up, up_bytes, down, down_bytes = given.fullest()
        if span_ns < least_s * SECOND_NS or not (up and down) or up + down < self.config.packets:
            return None
        bps = (up_bytes + down_bytes) * 8 * pair.rate * SECOND_NS / span_ns
        high = self.config.high_bps * (max(1, len(pair.talks)) if sampled else 1)
        means = up_bytes // up, down_bytes // down
        if not self.config.low_bps <= bps <= high:
            return None
        if means[0] > self.config.most_up or means[1] > self.config.most_down:
            return None
        rule = "sampled" if sampled else "connection"
        return rule, (
            f"{bps / 1000:.2f} kbit/s in small packets ({means[0]} bytes up, {means[1]} down) over "
            f"{span_ns // MINUTE_NS} minutes"
        )

    def _hours_why(self, pair: Pair, sight: Sighting) -> str:
        return f"seen in {len(pair.stamps)} distinct hours of the last {self.config.within_hours}"

    def _say(self, kind: str, rule: str, sight: Sighting, talk: Talk, why: str) -> list[Evidence]:
        key = (sight.subscriber, sight.connection, kind, sight.last_ns // MINUTE_NS)
        if not self.told.is_new(key):
            return []
        name = words.clean(sight.entry.name or "a learned endpoint")
        return [
            Evidence(
                subscriber=sight.subscriber, kind=kind, rule=rule, connection=sight.connection,
                first_ns=min(talk.first_ns, sight.last_ns), last_ns=sight.last_ns, role=sight.role,
                why=f"flow records only: {words.end(sight.endpoint)} ({name}): {why} ({sight.source})",
            )
        ]  # fmt: skip

    # -- age and state -----------------------------------------------------------------------------

    def expire(self, watermark_ns: int) -> None:
        """Forget pairs that have been silent for ``idle_s`` at the data's time."""
        before = watermark_ns - self.config.idle_s * SECOND_NS
        for subscriber in list(self._books):
            book = self._books[subscriber]
            gone = [ends for ends, pair in book.items() if pair.all.last_ns < before]
            for ends in gone:
                del book[ends]
                self.moved.add(subscriber)
            self.stats.expired += len(gone)
            if not book:
                del self._books[subscriber]
        self.told.expire(watermark_ns)

    def state(self, subscriber: bytes) -> State:
        """What a state record of the subscriber carries; msgspec.msgpack encodes it.  It shares its values
        with the observer: encode it before the next step."""
        return State(list(self._books.get(subscriber, {}).items()))

    def restore(self, subscriber: bytes, state: State) -> None:
        """Take a subscriber's state, as much of it as the bounds let in, in place of what is known of it."""
        book = self._book(subscriber)
        book.clear()
        book.update(state.pairs[-self.config.endpoints :])
        for pair in book.values():
            for connection in list(pair.talks)[: -self.config.connections]:
                del pair.talks[connection]
