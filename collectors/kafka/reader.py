"""Reading topics: as one of a group, partition by partition, or one topic whole.

Records in Kafka's words come out as ``Fetched``; offsets, assignments and lag are by stream and partition
number.  The client's threads stay inside; call every method from one thread.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar

from collectors.errors import ConfigError, InputError
from collectors.kafka.clients import (
    AsyncConsumerRebalanceListener,
    CorruptBatchError,
    KafkaConsumer,
    OffsetAndMetadata,
    TopicPartition,
    commit_from_listener,
    errors,
)

FETCH_WAIT_S: Final = 0.5
PATIENCE_S: Final = 60.0
COMMIT_MS: Final = 5_000
PAUSE_S: Final = 0.1

Answer = TypeVar("Answer")


class Fetched(NamedTuple):
    """One record.  ``t_ms`` is the stamp that its sender or the broker gave it."""

    stream: str
    partition: int
    offset: int
    t_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def _told(stream: str, record: Any) -> Fetched:
    return Fetched(
        stream, record.partition, record.offset, record.timestamp, record.key, record.value,
        record.headers or [],
    )  # fmt: skip


class _Listener(AsyncConsumerRebalanceListener):
    """Notes what the group decides.  The client calls it, on its own thread, while ``poll`` or ``close``
    waits."""

    def __init__(self, reader: "GroupReader", leave: Callable[[], None], lose: Callable[[], None]) -> None:
        self._reader = reader
        self._leave = leave
        self._lose = lose

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            self._reader.call(self._leave)
            await self._reader.part()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._reader.given(assigned)

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        del lost
        self._reader.call(self._lose)


class GroupReader:
    """A member of a group that reads the same partition numbers of several topics.

    ``topics`` is {stream: topic}.  ``leave`` is called before partitions are given up, while they still are
    ours; ``lose`` when they are gone already.
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        topics: Mapping[str, str],
        leave: Callable[[], None],
        lose: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._topics = dict(topics)
        self._streams = {topic: stream for stream, topic in topics.items()}
        self._given: set[TopicPartition] | None = None
        self._paused: set[TopicPartition] = set()
        self._uncommitted: dict[TopicPartition, int] = {}
        self._known: dict[TopicPartition, int] = {}
        self._parting: dict[TopicPartition, int] = {}
        self._committing = False
        self._failed: Exception | None = None
        self._is_over = False
        self.corrupt = 0
        consumer.subscribe(list(self._streams), listener=_Listener(self, leave, lose))

    def given(self, assigned: set[TopicPartition]) -> None:
        """Note an assignment; the next call of ``assigned`` tells it."""
        self._given = set(assigned)

    def call(self, told: Callable[[], None]) -> None:
        """Tell of a change.  What that raises the next ``poll`` raises: the client would only log it."""
        if self._is_over:
            return
        try:
            told()
        except Exception as error:  # noqa: BLE001 - raised again, where it can end the process
            self._failed = error

    def poll(self, wait_s: float, most: int) -> list[Fetched]:
        """At most ``most`` records, those of a partition in order; waits up to ``wait_s`` for the first.

        Of an assignment that came meanwhile nothing is told before ``assigned`` was asked; what came with it
        comes again.  A record batch that is corrupt is passed over, and counted in ``corrupt``.  Brokers that
        are away are waited for.  Raises InputError where they refuse us.
        """
        self._commit()
        try:
            with _reading("the group's topics"):
                found = _polled(self._consumer, wait_s, most)
        except CorruptBatchError as error:
            self.corrupt += _skip(self._consumer, error)
            return []
        if self._failed is not None:
            raise self._failed
        if self._given is not None:
            # The client has gone past them; who is told of the assignment may go on from where it began.
            for tp in found.keys() & self._consumer.assignment():
                self._consumer.seek(tp, found[tp][0].offset)
            return []
        return [_told(self._streams[tp.topic], r) for tp, records in found.items() for r in records]

    def assigned(self) -> set[int] | None:
        """The partition numbers of a new assignment, None where it is the same as before.

        Raises ConfigError where the topics' numbers differ: states could not be kept by number.
        """
        if self._given is None:
            return None
        given, self._given = self._given, None
        self._paused.clear()
        self._uncommitted.clear()
        self._known.clear()
        numbers = {t: {tp.partition for tp in given if tp.topic == t} for t in self._streams}
        one, *others = numbers.values()
        if any(other != one for other in others):
            told = ", ".join(f"{topic} {sorted(found)}" for topic, found in sorted(numbers.items()))
            raise ConfigError(f"the group gave different partitions of topics that belong together: {told}")
        return one

    def seek(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Go on at these offsets, by stream."""
        for stream, offset in offsets.items():
            self._consumer.seek(TopicPartition(self._topics[stream], partition), offset)

    def hold(self, stream: str, partition: int, held: bool) -> None:
        """Do not fetch for now, or fetch again."""
        tp = TopicPartition(self._topics[stream], partition)
        if held and tp not in self._paused:
            self._paused.add(tp)
            self._consumer.pause(tp)
        elif not held and tp in self._paused:
            self._paused.discard(tp)
            self._consumer.resume(tp)

    def ends(self) -> dict[tuple[str, int], int]:
        """The newest offset that is known of each partition we read, by (stream, number)."""
        found = ((tp, self._consumer.highwater(tp)) for tp in self._consumer.assignment())
        return {(self._streams[tp.topic], tp.partition): end for tp, end in found if end is not None}

    def positions(self) -> dict[tuple[str, int], int]:
        """The offset that each partition we read goes on from, by (stream, number); not of one whose broker
        does not tell."""
        out = {}
        for tp in self._consumer.assignment():
            with suppress(errors.KafkaError):
                position = self._consumer.position(tp, timeout_ms=COMMIT_MS)
                if position is not None:
                    out[self._streams[tp.topic], tp.partition] = position
        return out

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Tell the group how far we are, for its tools; nobody starts from there.  It is told with the next
        ``poll``, and again after one that failed."""
        for (stream, partition), offset in offsets.items():
            tp = TopicPartition(self._topics[stream], partition)
            self._uncommitted[tp] = self._known[tp] = offset

    def commit_last(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """From ``leave``: tell the group before our partitions are given up, for who is given them begins
        there.  Where that fails it begins at what was told before."""
        self._parting = {TopicPartition(self._topics[s], p): offset for (s, p), offset in offsets.items()}

    async def part(self) -> None:
        """Do what ``commit_last`` asked for."""
        parting, self._parting = self._parting, {}
        if parting:
            with suppress(errors.KafkaError):
                await commit_from_listener(self._consumer, _metadata(parting), COMMIT_MS)

    def is_there(self) -> bool:
        """Whether the brokers know all topics.  Raises InputError where they do not answer."""
        with _reading("topics"):
            return all(self._consumer.partitions_for_topic(topic) for topic in self._topics.values())

    def is_member(self) -> bool:
        """Ask the group whether our partitions are ours still: it takes offsets from nobody else.  Not to be
        called from ``leave`` or ``lose``."""
        if not self._known:
            return True
        try:
            self._consumer.commit(_metadata(self._known), timeout_ms=2_000)
        except errors.KafkaError:
            return False
        return self._given is None

    def _commit(self) -> None:
        if not self._uncommitted or self._committing:
            return
        sent, self._uncommitted = self._uncommitted, {}
        self._committing = True

        def told(_offsets: object, answer: object) -> None:
            self._committing = False
            if isinstance(answer, Exception):
                ours = self._consumer.assignment()
                self._uncommitted = {tp: o for tp, o in sent.items() if tp in ours} | self._uncommitted

        self._consumer.commit_async(_metadata(sent), callback=told)

    def close(self) -> None:
        """Leave the group; ``leave`` is called first."""
        try:
            if self._uncommitted:
                self._consumer.commit(_metadata(self._uncommitted), timeout_ms=COMMIT_MS)
        except errors.KafkaError:
            pass  # the state says how far we are
        try:
            self._consumer.close(autocommit=False, timeout_ms=10_000)
        except errors.KafkaError as error:
            raise InputError(f"leaving the group: {error}") from None
        finally:
            self._is_over = True
        if self._failed is not None:
            raise self._failed

    def abandon(self) -> None:
        """Leave the group without a word to ``leave``, for something else went wrong; not after ``close``."""
        if not self._is_over:
            self._is_over = True
            with suppress(errors.KafkaError):
                self._consumer.close(autocommit=False, timeout_ms=2_000)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Say in our words that brokers refuse us."""
    try:
        yield
    except CorruptBatchError:
        raise
    except errors.KafkaError as error:
        raise InputError(f"reading {what}: {error}") from None


def _polled(consumer: KafkaConsumer, wait_s: float, most: int) -> dict[TopicPartition, list[Any]]:
    """What came: nothing where brokers are away.  Most often the client waits by itself; where they go while
    it looks for the group's coordinator it raises (3.0.12)."""
    try:
        found: dict = consumer.poll(timeout_ms=int(wait_s * 1000), max_records=most)
        return found
    except errors.RetriableError:
        time.sleep(max(wait_s, PAUSE_S))
        return {}


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """What brokers say that may be away for ``PATIENCE_S``.  Raises the client's errors."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except errors.RetriableError:
            if time.monotonic() > end:
                raise
            time.sleep(FETCH_WAIT_S)


def _skip(consumer: KafkaConsumer, error: CorruptBatchError) -> int:
    """Go one record on where a batch is corrupt, for nothing else tells how many there are; 1, to be
    counted."""
    if error.place in consumer.assignment():
        consumer.seek(error.place, max(consumer.position(error.place), error.offset) + 1)
    return 1


def _metadata(offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {tp: OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items()}


class TopicReader:
    """Reads one topic from its beginning, and what is added later.  It belongs to no group."""

    def __init__(self, consumer: KafkaConsumer, stream: str, topic: str) -> None:
        self._consumer = consumer
        self._stream = stream
        self._topic = topic
        self.corrupt = 0

    def _all(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, p) for p in partitions]

    def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset behind the last record of each partition.  Raises InputError where the broker does not
        answer for a minute."""
        try:
            found = _patiently(lambda: self._consumer.end_offsets(self._all(partitions)))
        except errors.KafkaError as error:
            raise InputError(f"{self._topic}: {error}") from None
        return {tp.partition: end for tp, end in found.items()}

    def whole(
        self, partitions: Iterable[int], turned: Callable[[], None] = lambda: None
    ) -> Iterator[Fetched]:
        """Every record that the partitions hold now, oldest first.  ``turned`` is called now and then.

        Raises InputError where the broker does not answer for a minute.
        """
        wanted = self._all(partitions)
        if not wanted:
            return
        ends = self.ends(partitions)
        self._consumer.assign(wanted)
        self._consumer.seek_to_beginning(*wanted)
        left = self._behind(wanted, ends)
        waited_s = 0.0
        while left:
            found = self._poll(FETCH_WAIT_S)
            waited_s = 0.0 if found else waited_s + FETCH_WAIT_S
            if waited_s > PATIENCE_S:
                raise InputError(f"{self._topic}: no answer for {PATIENCE_S:.0f} s")
            for records in found.values():
                yield from (_told(self._stream, r) for r in records)
            # Where the last records were compacted away the position goes past them all the same.
            left = self._behind(left, ends)
            turned()

    def _behind(self, places: Iterable[TopicPartition], ends: Mapping[int, int]) -> list[TopicPartition]:
        with _reading(self._topic):
            position = self._consumer.position
            return _patiently(lambda: [tp for tp in places if position(tp) < ends[tp.partition]])

    def _poll(self, wait_s: float) -> dict[TopicPartition, list[Any]]:
        try:
            with _reading(self._topic):
                return _polled(self._consumer, wait_s, 5000)
        except CorruptBatchError as error:
            self.corrupt += _skip(self._consumer, error)
            return {}

    def begin(self, partitions: Iterable[int]) -> None:
        """From here on ``more`` gives all that the partitions hold, a part at a time.  Does not wait."""
        wanted = self._all(partitions)
        with _reading(self._topic):
            self._consumer.assign(wanted)
            self._consumer.seek_to_beginning(*wanted)

    def more(self) -> list[Fetched]:
        """What has been added since; does not wait."""
        return [_told(self._stream, r) for records in self._poll(0).values() for r in records]

    def close(self) -> None:
        """Close the client."""
        self._consumer.close(autocommit=False, timeout_ms=5_000)
