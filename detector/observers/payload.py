"""Payload chunks in, evidence of mining and facts of its sessions out.

Rows may be of any subscribers and connections, in batches cut anywhere: counts are additive over steps,
facts replace one another.  Nothing here reads a clock: times are the data's.
"""

from typing import Annotated

import msgspec

from collectors import wire
from collectors.streams import END, START
from detector import kinship, vetoes
from detector.admission import Admission, Budget
from detector.clock import SECOND_NS
from detector.dialects.lines import LineError
from detector.evidence import Evidence, Seen, SessionFacts, Veto
from detector.ledger import WRAP
from detector.observers import telling, words
from detector.observers.given import Given, Route
from detector.observers.plans import NO_PLAN, UNUSUAL, Slots
from detector.observers.repeats import BINARY, MAX_MISSED, Repeats
from detector.observers.telling import Step
from detector.pairing import Arrival
from detector.sessions import Engine, Sight
from detector.tracks import (
    PLAIN,
    TCP,
    Book,
    Chunk,
    Ends,
    State,
    Track,
    covers,
    is_line,
    is_new,
    is_sure,
    is_web,
    lines_of,
    place,
)

Bound = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the payload observer."""

    idle_s: Bound = 3600
    max_connections: Bound = 1024  # per subscriber; the one that was silent longest goes
    max_remembered: Bound = 4096  # per subscriber: ends whose opening number is kept
    remembered_s: Bound = 24 * 3600  # and for how long
    max_subscribers: Bound = 65536  # with connections; the one that was silent longest goes
    verified_shares: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 32  # per connection, checked by hashing
    budget: Budget = Budget()


class Stats(msgspec.Struct):
    """What moved, for the shell to read.  ``refused`` is by ``lines.Refusal``, ``dropped`` by ``DROPS``."""

    rows: int = 0
    lines: int = 0
    quoted: int = 0
    bytes: int = 0
    repeated_bytes: int = 0
    opened: int = 0
    evicted: int = 0
    expired: int = 0
    vetoes: int = 0
    vetoes_lifted: int = 0
    forgotten: int = 0
    refused: dict[str, int] = {}
    dropped: dict[str, int] = {}


class PayloadObserver:
    """Sees mining in what is said.  ``step`` is its verb."""

    def __init__(self, config: Config | None = None, moved: set[bytes] | None = None) -> None:
        """``moved`` takes the subscribers of whom what is kept changed."""
        self.config = config or Config()
        self.moved: set[bytes] = set() if moved is None else moved
        self._engine = Engine(self.config.verified_shares)
        self._repeats = Repeats(self._engine)
        self.stats = Stats(dropped=self._engine.dropped)
        self.admission = Admission(self.config.budget)
        self._books: dict[bytes, Book] = {}
        self._changes = 0  # tracks that were put in another's place or taken away: routes do not hold then

    def step(self, rows: wire.Batch) -> Seen:
        """Take one batch of PAYLOADS."""
        steps: dict[int, Step] = {}
        repeats, stats = self._repeats, self.stats
        given = Given(rows, repeats.apart)
        told, shown, forms, slots, routes = given.told, given.shown, given.forms, given.slots, given.routes
        stats.rows += rows.num_rows
        places: Slots
        read = 0
        repeats.begin()
        for t_ns, offset, seq, ack, flags, start, end, begins, ends, first, last, name in given.rows:
            route = routes.get(name) or given.route(name)
            step, plans, plan = route.step, UNUSUAL, None
            usual = begins < ends or (start < end and told[start] in BINARY)
            if usual and (step is None or route.change != self._changes):
                step = self._known(route, seq, steps)
            if usual and step is not None and flags in PLAIN:
                track, way = step.track, route.way
                plans, side = step.plans, track.sides[way]
                if plans is None:
                    plans = step.plans = repeats.fit(step)
                if plans is not UNUSUAL and seq == side.reached:
                    said, places, at, form = shown, slots, first, plans.form
                    if form is not None:
                        said, places, at = told, (start, end), 0
                    plan = plans.get(forms[begins:ends] if form is None else form(told, shown, start, end))
                    reached = (seq + end - start) & WRAP
                    if plan and (sight := plan.take(step, way, t_ns, ack, reached, said, places, at)):
                        side.reached = reached
                        side.lines.read += 1
                        stats.lines += 1
                        stats.bytes += end - start
                        self._touch(step, t_ns)
                        if sight is not True:
                            telling.see(step, sight)
                        continue
            chunk = Chunk(t_ns, offset, seq, ack, flags, told[start:end])
            heard = self._read(route, chunk, steps)
            read += begins < ends and begins in given.bodies
            if heard and plan is None and plans is not UNUSUAL:
                if plans.form is not None:
                    repeats.learn_texts(step, plans, plans.form(told, shown, start, end), shown[start:end])
                elif begins < ends:
                    at, to = given.line(begins, start, end)
                    within = [value - at for value in slots[first:last]]
                    repeats.learn(step, plans, forms[begins:ends], shown[at:to], within)
            elif plan is NO_PLAN:
                step.missed += 1
        given.over(read)
        return self._told(steps)

    def _touch(self, step: Step, t_ns: int) -> None:
        """A row came."""
        track, book = step.track, step.book
        book.rows += 1
        track.touched = book.rows
        if t_ns > track.last_ns:
            track.last_ns = t_ns
        elif t_ns < track.first_ns:
            track.first_ns = t_ns

    def _read(self, route: Route, chunk: Chunk, steps: dict[int, Step]) -> bool:
        """Take a row as it comes; whether it was not turned away."""
        step: Step | None = route.step
        if step is None or route.change != self._changes or is_new(step.track, route.way, chunk):
            step = self._open(route, chunk, steps)
        if step is not None:
            step.plans = None if step.missed < MAX_MISSED else UNUSUAL
            self._touch(step, chunk.t_ns)
            self._chunk(step, route.way, chunk)
        return step is not None

    def _open(self, route: Route, chunk: Chunk, steps: dict[int, Step]) -> Step | None:
        """The step of the row's connection, begun where it is new; None where it is turned away."""
        known, ends = self._books.get(route.subscriber), route.ends
        track = None if known is None else known.tracks.get(ends)
        new = track is None or is_new(track, route.way, chunk)
        if new and not self.admission.admits(known, chunk):
            return None
        book = self._book(route.subscriber)
        if track is None or new:
            self._changes += track is not None
            track = book.tracks[ends] = self._begin(book, ends, chunk)
        return self._noted(route, track, book, steps)

    def _known(self, route: Route, seq: int, steps: dict[int, Step]) -> Step | None:
        """The step of a connection that plainly goes on; None where it may be new."""
        book = self._books.get(route.subscriber)
        track = None if book is None else book.tracks.get(route.ends)
        if track is None or track.sides[route.way].ended or track.sides[route.way].reached != seq:
            return None
        return self._noted(route, track, self._book(route.subscriber), steps)

    def _noted(self, route: Route, track: Track, book: Book, steps: dict[int, Step]) -> Step:
        step: Step | None = steps.get(id(track))
        if step is None:
            step = steps[id(track)] = Step(route.subscriber, route.ends, track, book)
        route.step, route.change = step, self._changes
        return step

    def _book(self, subscriber: bytes) -> Book:
        self.moved.add(subscriber)
        book = self._books.pop(subscriber, None)
        if book is None:
            book = Book()
            if len(self._books) >= self.config.max_subscribers:
                self._changes += 1
                gone = next(iter(self._books))
                self.moved.add(gone)
                self.stats.evicted += len(self._books.pop(gone).tracks)
        self._books[subscriber] = book
        return book

    def _number(self, book: Book, ends: Ends, t_ns: int) -> int:
        number, _ = book.opened.pop(ends, (0, 0))
        book.opened[ends] = number + 1, t_ns
        if len(book.opened) > self.config.max_remembered:
            del book.opened[next(iter(book.opened))]
            self.stats.forgotten += 1
        return number

    def _begin(self, book: Book, ends: Ends, chunk: Chunk) -> Track:
        number = self._number(book, ends, chunk.t_ns)
        if len(book.tracks) >= self.config.max_connections and ends not in book.tracks:
            self._changes += 1
            del book.tracks[min(book.tracks, key=lambda e: book.tracks[e].touched)]
            self.stats.evicted += 1
        self.stats.opened += 1
        return Track(number, chunk.t_ns, chunk.t_ns)

    def _chunk(self, step: Step, way: int, chunk: Chunk) -> None:
        track, side = step.track, step.track.sides[way]
        if side.first is None and chunk.data and chunk.flags & START:
            side.plain = not chunk.offset and chunk.data.lstrip().startswith(b"{")
        data = place(track, way, chunk, step.ends[2], self.stats.refused)
        if is_line(side, data):
            self.stats.bytes += len(data)
            self.stats.repeated_bytes += len(chunk.data) - len(data)
            self._line(step, way, chunk, data, len(chunk.data), body=False)
        elif data:
            skipped = len(chunk.data) - len(data)
            self.stats.bytes += len(data)
            self.stats.repeated_bytes += skipped
            for line, end, body in lines_of(track, way, chunk, data, self.stats.refused):
                self._line(step, way, chunk, line, skipped + end, body=body)
        elif chunk.data:
            self.stats.repeated_bytes += len(chunk.data)
        elif chunk.flags & END:
            for line, end, body in lines_of(track, way, chunk, data, self.stats.refused):
                self._line(step, way, chunk, line, end, body=body)
        if track.waiting and is_sure(track):
            telling.confirmed(step)

    def _line(self, step: Step, way: int, chunk: Chunk, line: bytes, end: int, *, body: bool) -> None:
        track, session = step.track, step.track.session
        side, other = track.sides[way], track.sides[1 - way]
        lines = side.lines
        self.stats.lines += 1
        if not body and lines.web and is_web(track, way):
            self.stats.quoted += 1
            return
        if lines.prose and not body and lines.quotes and not (self._engine.mines(line) and lines.mined()):
            self.stats.quoted += 1
            return
        if step.ends[2] == TCP:
            at = Arrival(way, chunk.t_ns, (chunk.seq + end) & 0xFFFFFFFF, chunk.ack, other.reached)
        else:
            at = Arrival(way, chunk.t_ns, None, None, None)
        heard = session.heard
        sights: list[Sight] = []
        who = kinship.NOBODY if side.wrap.http is None else kinship.asker(step, way, body=body)
        try:
            name = self._engine.read(session, at, line, sights, who)
        except LineError as error:
            refused = self.stats.refused
            refused[error.reason] = refused.get(error.reason, 0) + 1
            return
        lines.read += 1
        if not track.turned and 0 < heard < session.heard and covers(chunk.ack, other):
            track.turned = True
        if name is not None:
            self._stranger(step, at, name)
        elif track.vetoed is not None and session.mining[track.vetoed]:
            self._lift(step)
        if track.vetoed is None:
            for sight in sights:
                telling.see(step, sight)

    # -- vetoes ------------------------------------------------------------------------------------

    def _stranger(self, step: Step, at: Arrival, method: str) -> None:
        """A method that no dialect knows: does it say that the connection is something else?"""
        track, way = step.track, at.direction
        if method.startswith("mining."):
            track.session.mining[way] = True
            return
        if track.vetoed is not None or track.session.mining[way]:
            return
        row = vetoes.find(method)
        if row is None:
            return
        track.vetoed = way
        track.waiting.clear()
        self.stats.vetoes += 1
        why = f"{words.ends(step.ends, way)} {row.why}: method {words.clean(method)}"
        step.now.vetoes.append(Veto(
            subscriber=step.subscriber, connection=step.now.connection, at_ns=at.t_ns, rule=row.id, why=why
        ))  # fmt: skip

    def _lift(self, step: Step) -> None:
        """The same side speaks mining after all, or accepted a login or a share (EthProxy servers name no
        method).  A veto cannot be withdrawn, so the connection gets a new opening number; else one Electrum
        line would hide a miner for good."""
        track = step.track
        track.vetoed = None
        track.opened = self._number(self._books[step.subscriber], step.ends, track.last_ns)
        self.stats.vetoes_lifted += 1
        step.begin()

    # -- what is told ------------------------------------------------------------------------------

    def _told(self, steps: dict[int, Step]) -> Seen:
        evidence: list[Evidence] = []
        sessions: list[SessionFacts] = []
        given: list[Veto] = []
        for step in steps.values():
            session = step.track.session
            client = 0 if session.client is None else session.client
            role = words.role(step.subscriber, step.ends, client)
            for tale in step.tales:
                given += tale.vetoes
                evidence += telling.evidence(step.subscriber, tale, role)
            if session.shaped and session.client is not None and step.track.vetoed is None:
                sessions.append(telling.facts(step, client, role))
        return Seen(tuple(evidence), tuple(given), tuple(sessions))

    # -- age and state -----------------------------------------------------------------------------

    def expire(self, watermark_ns: int) -> None:
        """Forget connections that have been silent for ``idle_s`` at the data's time ``watermark_ns``."""
        before = watermark_ns - self.config.idle_s * SECOND_NS
        for subscriber in list(self._books):
            book = self._books[subscriber]
            kinship.forget(book.kin, before)
            gone = [ends for ends, track in book.tracks.items() if track.last_ns < before]
            for ends in gone:
                del book.tracks[ends]
            self.stats.expired += len(gone)
            old = watermark_ns - self.config.remembered_s * SECOND_NS
            over = [e for e, (_, at) in book.opened.items() if at < old and e not in book.tracks]
            for ends in over:
                del book.opened[ends]
            if gone or over:
                self.moved.add(subscriber)
            if not book.tracks and not book.opened:
                del self._books[subscriber]

    def state(self, subscriber: bytes) -> State:
        """What a state record of the subscriber carries; msgspec.msgpack encodes it.  It shares its values
        with the observer: encode it before the next step."""
        book = self._books.get(subscriber)
        return State() if book is None else book.state()

    def restore(self, subscriber: bytes, state: State) -> None:
        """Take a subscriber's state, as much of it as the bounds let in, in place of what is known of it."""
        self._books.pop(subscriber, None)
        self._book(subscriber).restore(state, self.config.max_connections, self.config.max_remembered)
