"""One partition of the bus, judged: arrivals in, what its engines tell out; and its state as records.

A partition holds one engine for the live links and one for each replay that comes by (``Header.run``).  Its
state is one record per subscriber and one for the partition.  Every record says which offsets of the input
it includes; the partition's is written after the subscribers' of the same moment, so a detector that
restores goes on at the partition's offsets, and leaves out what a subscriber's record already holds.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from collectors import wire
from collectors.bus import Message
from detector import state as forms
from detector.engine import Engine, Told
from detector.errors import DecodeError, Reason
from detector.intake import INPUTS, Arrival
from detector.turns import Counts as TurnCounts
from detector.turns import Sender, Turns

WHOLE: Final = b"partition"
VERSION: Final = 1
MOST_RUNS: Final = 256
IDLE_CALLS: Final = 10

Offset = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Offsets = tuple[Offset, Offset, Offset]
"""The next offset that is not yet included, of each of ``INPUTS``."""


class Held(msgspec.Struct, array_like=True, frozen=True):
    """A subscriber's record."""

    version: int
    run: wire.Name
    subscriber: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    offsets: Offsets
    state: bytes


class Whole(msgspec.Struct, array_like=True, frozen=True):
    """A partition's record: offsets, the turns of senders, and of each run what belongs to no subscriber."""

    version: int
    offsets: Offsets
    turns: Annotated[list[tuple[Sender, Offset]], msgspec.Meta(max_length=65536)]
    runs: Annotated[list[tuple[wire.Name, bytes]], msgspec.Meta(max_length=MOST_RUNS)]


Made = TypeVar("Made", Held, Whole)


class Record(NamedTuple):
    """One record of the ``state`` topic; ``value`` None is a tombstone."""

    key: bytes
    value: bytes | None


class Step(NamedTuple):
    """What one arrival led to: in which run, told by which engine; ``over`` where it was the run's last."""

    run: str
    engine: Engine
    message: Message
    told: Told
    over: bool


class Counts(TurnCounts):
    """What moved, for the shell to read: subscribers ``restored``, rows ``passed_over`` that their states
    held, records that were ``corrupt``, items that had been ``cut`` from records, messages of replays that
    were over, replays that made room."""

    restored: int = 0
    passed_over: int = 0
    corrupt: int = 0
    cut: int = 0
    late: int = 0
    runs_dropped: int = 0


class Part:
    """Engines and state of one partition.  ``step`` is its verb."""

    def __init__(
        self,
        make: Callable[[str], Engine],
        unmake: Callable[[str, Engine], None],
        counts: Counts | None = None,
    ) -> None:
        self.counts = counts or Counts()
        self.turns = Turns(self.counts)
        self.engines: dict[str, Engine] = {}
        self._make = make
        self._unmake = unmake
        self._offsets = dict.fromkeys(INPUTS, 0)
        self._recorded: dict[str, set[bytes]] = {}
        self._ahead: dict[str, dict[bytes, Offsets]] = {}
        self._over: dict[str, None] = {}
        self._gone: list[bytes] = []
        self._moved = False
        self._idle = 0

    @property
    def offsets(self) -> Offsets:
        """The next offset of each of ``INPUTS`` that has not been taken in."""
        return tuple(self._offsets[stream] for stream in INPUTS)  # type: ignore[return-value]

    # -- what comes --------------------------------------------------------------------------------

    def step(self, arrival: Arrival) -> Step | None:
        """Take in one arrival; None where it had nothing to say."""
        self._offsets[arrival.stream] = arrival.offset + 1
        self._moved = True
        if arrival.message is None:
            return None
        header = arrival.message.header
        if header.run in self._over:
            self.counts.late += 1
            return None
        ends = header.ends and bool(header.run)
        if ends and header.run not in self.engines and not arrival.message.rows.num_rows:
            self._note_over(header.run)  # nothing of it came here
            return None
        engine = self.engine(header.run)
        told = engine.step(self._unseen(arrival.message, arrival.offset))
        if ends:
            last = engine.finish()
            told.transitions += last.transitions
            told.minutes += last.minutes
        return Step(header.run, engine, arrival.message, told, ends)

    def engine(self, run: str) -> Engine:
        """The engine of a run, made on first use.  Where there are too many the oldest replay is dropped."""
        engine = self.engines.get(run)
        if engine is None:
            if len(self.engines) >= MOST_RUNS:
                self.counts.runs_dropped += 1
                self.end(next(name for name in self.engines if name))
            engine = self.engines[run] = self._make(run)
            self._recorded.setdefault(run, set())
        return engine

    def end(self, run: str) -> None:
        """Forget a run that is over: its last documents have been told."""
        engine = self.engines.pop(run)
        self._gone += [key(run, subscriber) for subscriber in sorted(self._recorded.pop(run, ()))]
        self._ahead.pop(run, None)
        self._note_over(run)
        self._idle = IDLE_CALLS
        self._unmake(run, engine)

    def _note_over(self, run: str) -> None:
        self._over[run] = None
        if len(self._over) > MOST_RUNS:
            del self._over[next(iter(self._over))]

    def _unseen(self, message: Message, offset: int) -> Message:
        """The message without the rows that a restored subscriber's state holds already."""
        ahead = self._ahead.get(message.header.run)
        if not ahead:
            return message
        place = INPUTS.index(message.stream)
        held = {subscriber for subscriber, offsets in ahead.items() if offset < offsets[place]}
        if not held:
            if all(not _before(self.offsets, offsets) for offsets in ahead.values()):
                del self._ahead[message.header.run]
            return message
        if not message.rows.num_rows:
            return message
        owners = wire.values(message.rows, "subscriber")
        keep = np.array([owner.tobytes() not in held for owner in owners], bool)
        self.counts.passed_over += int(np.count_nonzero(~keep))
        return message._replace(rows=wire.chosen(message.rows, keep))

    # -- state -------------------------------------------------------------------------------------

    def checkpoint(self, *, whole: bool = True) -> list[Record]:
        """What has changed since the last call, in the order in which it must be written: subscribers, the
        partition, and last the tombstones of what the partition's record no longer needs.

        Without ``whole`` the partition's record waits, up to ``IDLE_CALLS`` calls, for a subscriber's: where
        nobody mines only the time goes on.
        """
        if not self._moved:
            return []
        out: list[Record] = []
        gone, self._gone = self._gone, []
        offsets = self.offsets
        for run, engine in self.engines.items():
            recorded = self._recorded[run]
            for subscriber in sorted(engine.changed_subscribers()):
                kept = engine.state(subscriber)
                if kept is not None:
                    recorded.add(subscriber)
                    included = self._included(run, subscriber)
                    held = Held(VERSION, run, subscriber, included, forms.encode(kept))
                    out.append(Record(key(run, subscriber), msgspec.msgpack.encode(held)))
                elif subscriber in recorded:
                    recorded.discard(subscriber)
                    gone.append(key(run, subscriber))
        self._idle += 1
        if not (out or gone or whole or self._idle >= IDLE_CALLS):
            return []
        self._moved, self._idle = False, 0
        partition = Whole(VERSION, offsets, self.turns.state(), self._wholes())
        out.append(Record(WHOLE, msgspec.msgpack.encode(partition)))
        return out + [Record(k, None) for k in gone]

    def _included(self, run: str, subscriber: bytes) -> Offsets:
        """The offsets that a subscriber's state includes: what it was restored with may be ahead of us."""
        ahead = self._ahead.get(run, {}).get(subscriber, self.offsets)
        return tuple(map(max, self.offsets, ahead))  # type: ignore[return-value]

    def _wholes(self) -> list[tuple[str, bytes]]:
        """What belongs to no subscriber, by run.  Where it would be too large for a message, replays lose
        theirs, the largest first: clocks in headers are as many as a sender likes."""
        out = {run: forms.encode_whole(engine.whole()) for run, engine in self.engines.items()}
        left = sum(map(len, out.values()))
        for run in sorted((run for run in out if run), key=lambda run: -len(out[run])):
            if left <= forms.MAX_STATE_BYTES:
                break
            left -= len(out[run])
            out[run] = b""
            self.counts.cut += 1
        return list(out.items())

    def restore(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Take over what the ``state`` topic holds of this partition: (key, value) in the topic's order.

        Of one key the record with the highest offsets counts, not the last: a detector that was stopped for
        long and does not know yet that another took over may have written late.
        """
        whole, held = self._read(records)
        known: dict[str, bytes] = {}
        if whole is not None:
            self._offsets = dict(zip(INPUTS, whole.offsets, strict=True))
            self.turns.restore(whole.turns)
            known = dict(whole.runs)
        for run, told in known.items():
            engine = self.engine(run)
            if not told:
                continue
            try:
                engine.resume(forms.decode_whole(told))
            except DecodeError:
                self.counts.corrupt += 1
        for one in held:
            ahead = _before(self.offsets, one.offsets)
            if one.run not in known and not ahead:
                self._gone.append(key(one.run, one.subscriber))  # of a run that is over
                continue
            try:
                state = forms.decode(one.state)
            except DecodeError:
                self.counts.corrupt += 1
                continue
            self.engine(one.run).restore(one.subscriber, state)
            self._recorded[one.run].add(one.subscriber)
            self.counts.restored += 1
            self.counts.cut += state.cut
            if ahead:
                self._ahead.setdefault(one.run, {})[one.subscriber] = one.offsets

    def _read(
        self, records: Iterable[tuple[bytes | None, bytes | None]]
    ) -> tuple[Whole | None, Iterable[Held]]:
        whole: Whole | None = None
        written: Whole | None = None
        held: dict[bytes, Held] = {}
        for name, value in records:
            if name is None:
                self.counts.corrupt += 1
            elif value is None:
                # It follows the partition's record of the same moment: a late one ends nothing newer.
                old = held.get(name)
                if old is not None and (written is None or sum(old.offsets) <= sum(written.offsets)):
                    del held[name]
            elif name == WHOLE:
                new = written = self._decoded(value, Whole)
                if new is not None and (whole is None or sum(new.offsets) >= sum(whole.offsets)):
                    whole = new
            else:
                one = self._decoded(value, Held)
                if one is None or name != key(one.run, one.subscriber):
                    self.counts.corrupt += one is not None
                    continue
                old = held.get(name)
                if old is None or sum(one.offsets) >= sum(old.offsets):
                    held[name] = one
        return whole, held.values()

    def _decoded(self, value: bytes, kind: type[Made]) -> Made | None:
        try:
            made = msgspec.msgpack.decode(value, type=kind)
            if made.version != VERSION:
                raise DecodeError(Reason.VERSION, f"state version {made.version}")
        except (msgspec.DecodeError, DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
            self.counts.corrupt += 1
            return None
        return made


def _before(offsets: Offsets, others: Offsets) -> bool:
    """Whether the others include anything that ``offsets`` do not."""
    return any(other > one for one, other in zip(offsets, others, strict=True))


def key(run: str, subscriber: bytes) -> bytes:
    """The key of a subscriber's record; ``subscriber`` is 16 bytes."""
    return f"{run}/{subscriber.hex()}".encode()


@contextmanager
def garbage_left() -> Iterator[None]:
    """Let the collector of garbage wait.  It would look at all that is read again and again: to restore
    100,000 subscribers takes 16 s with it and 6 s without.  What stays is not looked at later either."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.freeze()
        if was:
            gc.enable()
