"""One member of the group of detectors: partitions in, incidents out.

A cycle: follow endpoints, fetch, put in order, judge, tell, write.  All of it happens in one thread; the
client's own threads only move bytes.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors.kafka.reader import Fetched, GroupReader, TopicReader
from detector import endpointdoc
from detector.app import Detector
from detector.engine import Engine
from detector.errors import DecodeError, InputError, Reason
from detector.exporters.kafka import Records
from detector.indexes import LIVE, Indexes
from detector.intake import INPUTS, Arrival, read
from detector.metrics import Complaints
from detector.paging import Beside
from detector.parts import Counts, Part, Step, garbage_left
from detector.totals import Run
from detector.writing import Writer

FETCH_WAIT_S: Final = 0.1
MOST_FETCHED: Final = 100
# What may wait for its turn, over all partitions; a topic that runs ahead of the others is not fetched.
WAITING_BYTES: Final = 256 << 20
MEASURE_S: Final = 1.0
MOST_NAME: Final = 256


class Metrics:
    """What moves while a detector reads the bus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"poolwatch_detector_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"poolwatch_detector_{name}", text, labels, registry=registry)

        self.refused = counter(
            "bus_messages_refused", "Messages of the bus that were skipped.", ["stream", "reason"]
        )
        for stream in (*INPUTS, "endpoints"):
            for reason in Reason:
                self.refused.labels(stream, reason)
        self.corrupt = counter("bus_corrupt_batches", "Record batches whose checksum was wrong.")
        self.missed = counter(
            "bus_messages_missed", "Messages that were removed from the bus before they were judged.",
            ["stream"],
        )  # fmt: skip
        for stream in INPUTS:
            self.missed.labels(stream)
        self.followed = counter(
            "endpoints_followed", "Endpoints that detectors told each other, by what became of them.",
            ["outcome"],
        )  # fmt: skip
        self.lag = gauge(
            "bus_lag_messages", "Messages that are on the bus and not judged.", ["stream", "partition"]
        )
        self.partitions = gauge("partitions", "Partitions that this detector judges.")
        self.rebalances = counter("rebalances", "Assignments of partitions by the group.")
        self.restored = counter("state_restored", "Subscribers whose state was taken over.")
        self.state_corrupt = counter("state_corrupt", "State records that could not be read.")
        self.passed_over = counter("state_rows_passed_over", "Rows that a restored state held already.")
        self.state_records = counter("state_records", "State records written.")
        self.state_bytes = counter("state_bytes", "Bytes of state written, before compression.")
        self.state_cut = counter("state_cut", "Items left out of state records that were too large.")
        self.turns_missing = counter("turns_missing", "Messages that never came in their turn.")
        self.turns_forgotten = counter("turns_forgotten", "Senders whose turn made room for others.")
        self.late = counter("late_messages", "Messages of a replay that was over.")
        self.runs_dropped = counter("runs_dropped", "Replays that made room for others.")
        self.written = gauge("state_written_timestamp_seconds", "When state was last written, Unix time.")


class Detecting:
    """The loop and what it holds.  ``turn`` is one cycle; ``stop`` ends it cleanly.

    ``writer`` is made by the composition root around ``send``; ``turned`` is called while something slow goes
    on, and with each cycle; ``now_s`` goes on steadily, ``now_ns`` is Unix time.
    """

    def __init__(
        self,
        detector: Detector,
        metrics: Metrics,
        records: Records,
        writer: Writer,
        indexes: Indexes,
        also: Beside,
        turned: Callable[[], None] = lambda: None,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._detector = detector
        self._metrics = metrics
        self._records = records
        self._writer = writer
        self._indexes = indexes
        self._also = also
        self._turned = turned
        self._now_s = now_s
        self._now_ns = now_ns
        self._complaints = Complaints(logging.getLogger("poolwatch"))
        self._log = logging.getLogger("poolwatch")
        self._parts: dict[int, Part] = {}
        self._parked: dict[int, Part] = {}
        self._runs: dict[int, Run] = {}
        self._counts = Counts()
        self._told = Counts()
        self._refused: dict[str, int] = {}
        self._shown: dict[Counter, int] = {}
        self._measured_s = 0.0
        self._polled_s: float | None = None
        self._is_in_doubt = False
        self._waiting_bytes: dict[tuple[str, int], int] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self.is_ready = False

    def begin(
        self, reader: GroupReader, states: TopicReader, endpoints: TopicReader, partitions: int
    ) -> None:
        """Read all endpoints that are known, then join the group with the first ``turn``."""
        self._reader = reader
        self._states = states
        self._endpoints = endpoints
        with garbage_left():
            for fetched in endpoints.whole(range(partitions), self._turned):
                self._follow(fetched)

    # -- a cycle -----------------------------------------------------------------------------------

    def turn(self) -> None:
        """One cycle."""
        self._turned()
        for fetched in self._endpoints.more():
            self._follow(fetched)
        fetched_now = self._reader.poll(FETCH_WAIT_S, MOST_FETCHED)
        self._heard()
        given = self._reader.assigned()
        if given is not None:
            self._take_over(given)
            return
        for fetched in fetched_now:
            self._put(fetched)
        for number, part in self._parts.items():
            self._judge(number, part)
        self._hold()
        now_s = self._now_s()
        if self._is_in_doubt:
            self._is_in_doubt = not self._reader.is_member()
        if not self._is_in_doubt:
            self._writer.turn(self._parts, now_s)
        if now_s - self._measured_s >= MEASURE_S:
            self._measured_s = now_s
            self._measure()

    def _heard(self) -> None:
        """After a long halt we may have lost our partitions and not know it yet: write nothing until the
        group has said that they are ours."""
        now_s, session_s = self._now_s(), self._detector.config.kafka.session_timeout_ms / 1000
        if self._polled_s is not None and now_s - self._polled_s > session_s / 2:
            self._is_in_doubt = True
        self._polled_s = now_s

    def _put(self, fetched: Fetched) -> None:
        stream, partition = fetched.stream, fetched.partition
        part = self._parts.get(partition)
        if part is None:
            return
        at = stream, partition
        wanted = self._positions.get(at, 0)
        if wanted and fetched.offset != wanted:
            self._jumped(fetched, wanted)
        self._positions[at] = fetched.offset + 1
        size = len(fetched.value or b"")
        try:
            message = read(stream, partition, fetched.value, fetched.headers)
        except DecodeError as error:
            message = None
            self._refuse(fetched, error.reason)
        part.turns.put(Arrival(stream, fetched.offset, size, message))
        self._waiting_bytes[at] = self._waiting_bytes.get(at, 0) + size

    def _refuse(self, fetched: Fetched, reason: str) -> None:
        self._metrics.refused.labels(fetched.stream, reason).inc()
        self._complain(fetched, reason)

    def _complain(self, fetched: Fetched, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1
        where = f"{fetched.stream}/{fetched.partition}@{fetched.offset}"
        self._complaints.say(where, {reason: self._refused[reason]})

    def _jumped(self, fetched: Fetched, wanted: int) -> None:
        """Messages were removed before we came to them; or the topic was made anew, and the state is of
        another."""
        self._metrics.missed.labels(fetched.stream).inc(max(0, fetched.offset - wanted))
        self._complain(fetched, "missed" if fetched.offset > wanted else "topic_made_anew")

    def _judge(self, number: int, part: Part) -> None:
        while (arrival := part.turns.take(self._now_s())) is not None:
            self._waiting_bytes[arrival.stream, number] -= arrival.size
            began_s = time.perf_counter()
            with self._detector.guard:
                step = part.step(arrival)
                if step is not None:
                    self._tell(number, part, step)
            if step is not None:
                seconds = time.perf_counter() - began_s
                self._detector.pace.took(arrival.stream, step.message.rows.num_rows, seconds)

    def _tell(self, number: int, part: Part, step: Step) -> None:
        run = self._runs[id(step.engine)]
        self._detector.totals.take(run, step.told)
        for made in step.told.transitions:
            self._records.alert(step.run, number, made)
            for sink in self._also.of(step.run, part):
                sink.alert(made)
        everything = bool(step.told.minutes) or step.over
        for document in step.engine.judge.changed(everything=everything):
            self._records.incident(step.run, number, document)
            for sink in self._also.of(step.run, part):
                sink.incident(document)
        for entry in step.engine.endpoint_changes():
            self._records.endpoint(step.run, entry)
        if step.over:
            part.end(step.run)

    def _follow(self, fetched: Fetched) -> None:
        """Take in what a detector, perhaps this one, knows of an endpoint."""
        if fetched.value is None:
            return
        name = next((v for k, v in fetched.headers if k == "run" and v), b"")
        run = name.decode("utf-8", "replace") if name else LIVE
        try:
            if len(run) > MOST_NAME:
                raise DecodeError(Reason.HEADER, "a run whose name is too long")
            entry = endpointdoc.decode(fetched.value)
        except DecodeError as error:
            self._refuse(fetched, error.reason)
            return
        self._indexes.follow(run, entry, self._now_ns())

    def _hold(self) -> None:
        """Fetch no more of a topic that waits for another."""
        each = max(1, WAITING_BYTES // max(1, len(self._parts) * len(INPUTS)))
        for number in self._parts:
            for stream in INPUTS:
                self._reader.hold(stream, number, self._waiting_bytes.get((stream, number), 0) > each)

    # -- partitions come and go --------------------------------------------------------------------

    def _take_over(self, given: set[int]) -> None:
        """Go on with partitions that were ours and that nobody wrote to since; restore the others."""
        self._metrics.rebalances.inc()
        ends = self._states.ends(given) if given else {}
        kept = {p: part for p, part in self._parked.items() if self._writer.ends.get(p) == ends.get(p, -1)}
        for number, part in self._parked.items():
            if number not in kept or number not in given:
                self._drop(part)
        self._parked = {}
        self._parts = {p: kept.get(p) or self._part() for p in sorted(given)}
        self._is_in_doubt = False
        fresh = [p for p in self._parts if p not in kept]
        self._without()
        self._restore(fresh, ends)
        for number, part in self._parts.items():
            offsets = dict(zip(INPUTS, part.offsets, strict=True))
            self._positions |= {(stream, number): offset for stream, offset in offsets.items()}
            self._reader.seek(number, offsets)
            self._reader.commit({(stream, number): offset for stream, offset in offsets.items()})
        self._metrics.partitions.set(len(self._parts))
        self.is_ready = True
        self._log.info("partitions assigned=%s restored=%s", sorted(given), fresh)

    def _restore(self, fresh: list[int], ends: dict[int, int]) -> None:
        found: dict[int, list[tuple[bytes | None, bytes | None]]] = {p: [] for p in fresh}
        for fetched in self._states.whole(fresh, self._turned):
            found[fetched.partition].append((fetched.key, fetched.value))
        with garbage_left():
            for number in fresh:
                # One at a time, so that whoever asks for figures meanwhile has his turn.
                with self._detector.guard:
                    self._parts[number].restore(found.pop(number))
                    self._also.restored(self._parts[number])
                self._writer.ends[number] = ends[number]
                self._turned()

    def _part(self) -> Part:
        return Part(self._made, self._unmade, self._counts)

    def _made(self, run: str) -> Engine:
        engine = self._detector.engine(self._indexes.of(run))
        if self.is_ready:  # else it is restored, and counts then
            engine.resolutions.restore()
        self._runs[id(engine)] = self._detector.totals.start(engine, run or "live", live=not run)
        return engine

    def _unmade(self, run: str, engine: Engine) -> None:
        self._detector.totals.drop(self._runs.pop(id(engine)))
        if not any(run in part.engines for part in (*self._parts.values(), *self._parked.values())):
            self._indexes.drop(run)

    def _drop(self, part: Part) -> None:
        self._also.left(part)
        with self._detector.guard:
            for run in list(part.engines):
                part.end(run)

    def leave(self) -> None:
        """Partitions are about to be given up: write all that we know.  They are kept beside, for the group
        may give them back.  What cannot be written is forgotten: who comes next reads it again."""
        try:
            self._write_all(commit=False)
        except InputError as error:
            self._log.warning("partitions given up, state not written: %s", error)
            return
        self._parked, self._parts = self._parts, {}
        self._without()

    def _write_all(self, *, commit: bool) -> None:
        """Write all states; where that cannot be, forget them, and raise InputError.  After a halt they may
        be another's: what was not begun to be written is kept, and nothing written."""
        for part in self._parts.values():
            part.turns.clear()
        if self._is_in_doubt:
            if not self._writer.is_idle:
                self.lose()
            return
        try:
            self._writer.flush(self._parts, commit=commit)
        except InputError:
            self.lose()
            raise

    def _without(self) -> None:
        """We have no partitions."""
        self.is_ready = False
        self._positions.clear()
        self._waiting_bytes.clear()
        self._metrics.lag.clear()
        self._metrics.partitions.set(0)

    def lose(self) -> None:
        """Partitions were given to others while we did not answer: what we know of them is out of date."""
        self._writer.forget()
        for part in (*self._parts.values(), *self._parked.values()):
            self._drop(part)
        self._parts, self._parked = {}, {}
        self._without()

    def stop(self) -> None:
        """Write all documents and states, tell the group where we are, and leave it."""
        with self._detector.guard:
            for number, part in self._parts.items():
                for run, engine in part.engines.items():
                    for document in engine.judge.changed(everything=True):
                        self._records.incident(run, number, document)
        try:
            self._write_all(commit=True)
        finally:
            self._measure()
            self._reader.close()

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Tell the group where we are."""
        self._reader.commit(offsets)

    # -- figures -----------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Move the metrics to where the counts are."""
        m, new, old = self._metrics, self._counts, self._told
        for name, counter in (
            ("restored", m.restored), ("corrupt", m.state_corrupt), ("passed_over", m.passed_over),
            ("late", m.late), ("runs_dropped", m.runs_dropped), ("cut", m.state_cut),
            ("turns_missing", m.turns_missing), ("turns_forgotten", m.turns_forgotten),
        ):  # fmt: skip
            counter.inc(getattr(new, name) - getattr(old, name))
        self._told = msgspec.structs.replace(new)
        if self._writer.records > self._shown.get(m.state_records, 0):
            m.written.set(self._now_ns() / 1e9)
        followed = ((m.followed.labels(name), n) for name, n in self._indexes.counts().items())
        for counter, count in (
            *followed, (m.state_records, self._writer.records), (m.state_bytes, self._writer.bytes),
            (m.corrupt, self._reader.corrupt + self._states.corrupt + self._endpoints.corrupt),
        ):  # fmt: skip
            counter.inc(count - self._shown.get(counter, 0))
            self._shown[counter] = count
        for (stream, number), end in self._reader.ends().items():
            part = self._parts.get(number)
            if part is not None:
                behind = end - part.offsets[INPUTS.index(stream)]
                m.lag.labels(stream, str(number)).set(max(0, behind))
