"""From spans of records to batches of ``flows``: keys first, then owners, then each row at its own place.

``stages`` has the compiled passes; here are the memory that they work in and the batches that come of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from collectors import subscribers, wire
from collectors.netflow.decoding import straighten
from collectors.netflow.program import KEYS, REST, REST_NAMES
from collectors.netflow.stages import DOUBTS, FIRST_DOUBT, stage, used
from collectors.netflow.staging import LARGEST, Pool, Room, arena
from collectors.netflow.tables import Tables
from collectors.netflow.walking import S_COUNT, S_ROW

# An exporter's clock may run ahead of the receive time by so much.
AHEAD_NS: Final = 60 * 1_000_000_000
# What every row has, whatever its template.
_OWN: Final = (
    ("subscriber", 16), ("src", 16), ("dst", 16), ("exporter", 16),
    ("t_first", 8), ("t_last", 8), ("t_received", 8),
    ("domain", 4), ("src_port", 2), ("dst_port", 2), ("template", 2),
    ("copy", 1), ("source", 1),
)  # fmt: skip
# All that are written, widest first; those of _OWN keep their order.
_COLUMNS: Final = tuple(sorted((*_OWN, *REST), key=lambda c: -c[1]))
_NAMES: Final = tuple(name for name, _ in _COLUMNS)
_OWN_AT: Final = np.array([_NAMES.index(name) for name, _ in _OWN])
_REST_AT: Final = np.array([_NAMES.index(name) for name in REST_NAMES])
_RATE: Final = REST_NAMES.index("sampling_rate")
# Columns of REST that a row cannot be without: zero where the template has none.
_NEEDED: Final = ("bytes", "packets", "protocol")
_MEASURES: Final = ("bytes", "packets", "reverse_bytes", "reverse_packets")


@dataclass(frozen=True, slots=True)
class Spans:
    """Records that wait to be read: ``spans`` (n, SPAN) i8 over ``data``; ``marks`` for those that vary."""

    data: np.ndarray
    spans: np.ndarray
    marks: np.ndarray

    @property
    def rows(self) -> int:
        """How many records."""
        return int(self.spans[-1, S_ROW] + self.spans[-1, S_COUNT]) if len(self.spans) else 0


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of one partition: a slice of the batch, and the times that it spans."""

    partition: int
    first: int
    last: int
    t_first_ns: int
    t_last_ns: int
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch over all partitions, the runs that cut it, and how many records had no home end.

    Where one did not hold them all, ``more`` has those that follow: a run's ``batch`` counts them from 1.
    Rows that no run names hold anything.  ``corrected`` records came under a wrong time of export, ``future``
    ones said to end well after it; ``doubted`` have too few octets for their packets, too many, more than a
    line carries, or tell a rate that is not believed.
    """

    batch: wire.Batch
    runs: tuple[Run, ...]
    dropped: int
    more: tuple[wire.Batch, ...] = ()
    corrected: int = 0
    future: int = 0
    doubted: tuple[int, int, int, int] = (0, 0, 0, 0)


class Believed(NamedTuple):
    """What is believed of a record.

    A clock is wrong that differs from ours by more than ``skew_ns``, 0: none is; a rate is at most
    ``most_rate``; octets are what ``gigabits_per_s`` carry in the record's duration, which is a minute at
    least and ``longest_ns`` at most.
    """

    skew_ns: int = 0
    most_rate: int = 2**32 - 1
    gigabits_per_s: int = 1_000_000
    longest_ns: int = 3600 * 1_000_000_000


def _words(addresses: np.ndarray) -> np.ndarray:
    return addresses.view(np.uint64)


class _Scratch:
    """What a block leaves to the next pass, kept for the next block."""

    def __init__(self) -> None:
        n = LARGEST
        self.keys = arena(KEYS, n)
        made = [self.keys.column(i) for i in range(len(KEYS))]
        self.columns = tuple(
            _words(c) if c.ndim == 2 else c.view(np.int64) if c.dtype == np.uint64 else c for c in made
        )
        # Both ends of a record may be home: two rows.
        self.block = (
            np.arange(n), np.empty(2 * n, np.int64), np.empty(n + 1, np.int64), np.empty(2 * n, np.int64),
            np.empty(2 * n, np.int64), np.empty(2 * n, np.int64), np.empty((2 * n, 2), np.uint64),
            np.empty(2 * n, np.uint8),
        )  # fmt: skip


class _Filled:
    """A room that is being filled: what the kernel keeps of it, and the batch at the end."""

    def __init__(self, room: Room, partitions: int) -> None:
        self.room = room
        n = room.slots
        self.kept = (
            room.rows, np.zeros(n, np.int64), np.full(partitions, -1), np.zeros(partitions, np.int64),
            np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64),
        )  # fmt: skip
        self.state = np.zeros(FIRST_DOUBT + DOUBTS, np.int64)
        made = [room.arena.column(i) for i in _OWN_AT.tolist()]
        self.own = tuple(
            _words(c) if c.ndim == 2 else c.view(np.int64) if c.dtype == np.uint64 else c for c in made
        )

    def runs(self, batch: int) -> list[Run]:
        """The runs of the slots in use, by partition."""
        rows, filled, _, _, owner, lows, highs = self.kept
        used = int(self.state[0])
        told = zip(*(c[:used].tolist() for c in (owner, filled, lows, highs)), strict=True)
        return sorted(
            (Run(p, s * rows, s * rows + f, low, high, batch) for s, (p, f, low, high) in enumerate(told)),
            key=lambda run: run.partition,
        )


_ALL_BELIEVED: Final = Believed()


class Reader:
    """Reads spans by the programs of ``tables`` for one collector.

    With ``transit`` records without a home end are read too, into runs of partition number ``partitions``.
    """

    def __init__(
        self,
        tables: Tables,
        home: subscribers.Home,
        partitions: int,
        collector: str,
        believed: Believed = _ALL_BELIEVED,
        *,
        transit: bool = False,
    ) -> None:
        self._tables = tables
        self._home = home
        self._partitions = partitions
        self._filled = partitions + transit
        self._collector = collector
        self._believed = believed
        self._pool = Pool(_COLUMNS, self._filled)
        self._scratch = _Scratch()

    def rehome(self, home: subscribers.Home) -> None:
        """Give rows to the ends that are home by these networks from now on."""
        self._home = home

    def read(self, held: Spans) -> Rows:
        """One batch or several, in the order of partitions."""
        batches: list[wire.Batch] = []
        runs: list[Run] = []
        at, dropped, future = 0, 0, 0
        doubted = np.zeros(DOUBTS, np.int64)
        t = self._tables
        corrected = straighten(held.spans, len(held.spans), t.slots, t.ops, self._believed.skew_ns, t.clocks)
        always, ever = used(held.spans, len(held.spans), self._tables.slots)
        left = held.rows
        while at < len(held.spans):
            filled = _Filled(self._pool.take(left), self._filled)
            at, valid = self._stage(held, at, filled, always, ever)
            left = max(1, int(held.spans[at:, S_COUNT].sum()))
            dropped += int(filled.state[1])
            future += int(filled.state[4])
            doubted += filled.state[FIRST_DOUBT:]
            if filled.state[0]:
                runs += filled.runs(len(batches))
                batches.append(self._batch(filled, always, ever, valid))
        few, many, beyond, rates = doubted.tolist()
        told = few, many, beyond, rates
        if not batches:
            return Rows(wire.empty("flows"), (), dropped, (), corrected, future, told)
        return Rows(batches[0], tuple(runs), dropped, tuple(batches[1:]), corrected, future, told)

    def _stage(
        self, held: Spans, at: int, filled: _Filled, always: int, ever: int
    ) -> tuple[int, dict[int, np.ndarray]]:
        """Fill the room from span ``at`` on; the span to go on from, and where columns hold a value."""
        t, a, s = self._tables, filled.room.arena, self._scratch
        measures = [i for i, name in enumerate(REST_NAMES) if name in _MEASURES and ever >> i & 1]
        names = [
            i for i, name in enumerate(REST_NAMES)
            if not always >> i & 1 and (name in _NEEDED or i in measures)
        ]  # fmt: skip
        some = [
            i for i, name in enumerate(REST_NAMES)
            if ever >> i & 1 and not always >> i & 1 and name not in (*_NEEDED, "sampling_rate")
        ]  # fmt: skip
        valid = np.empty((len(some), a.rows), np.uint8)
        home = self._home
        at = stage(
            (held.data, held.spans, held.marks),
            at,
            (
                t.slots,
                t.ops,
                t.domains,
                _words(t.addresses),
                t.clocks,
                t.index.keys,
                t.index.values,
                t.index.seed,
            ),
            s.block,
            s.columns,
            (s.keys.start, s.keys.cell, s.keys.u1, s.keys.u2, s.keys.u4, s.keys.u8),
            (home.first, home.last, home.four, home.pool_port, subscribers.mask_of(home), self._partitions),
            filled.kept,
            (a.start[_REST_AT], a.cell[_REST_AT], a.u1, a.u2, a.u4, a.u8),
            filled.own,
            a.column(int(_REST_AT[_RATE])),
            np.array(names, np.int64),
            np.array(some, np.int64),
            valid,
            AHEAD_NS,
            tuple(self._believed),
            np.array(measures, np.int64),
            filled.state,
        )
        return at, dict(zip(some, valid, strict=True))

    def _batch(self, filled: _Filled, always: int, ever: int, valid: dict[int, np.ndarray]) -> wire.Batch:
        """The room's columns as a batch, with nulls where a row's template does not fill them."""
        a = filled.room.arena
        rows = int(filled.state[0]) * filled.room.rows
        made: dict[str, object] = {name: a.column(i)[:rows] for i, (name, _) in enumerate(_COLUMNS)}
        for i, name in enumerate(REST_NAMES):
            values = made[name]
            if name == "sampling_rate":
                known, unknown = filled.state[2:4].tolist()
                made[name] = None if not known else (values, values != 0) if unknown else values
            elif i in valid:
                made[name] = (values, valid[i][:rows])
            elif not (always >> i & 1 or name in _NEEDED):
                made[name] = None
        made["candidate"] = _zeros(rows)
        made["collector"] = self._collector
        return wire.batch("flows", rows, made)


@lru_cache(maxsize=64)
def _zeros(rows: int) -> np.ndarray:
    return np.zeros(rows, np.uint8)


def cut(rows: Rows) -> Iterator[tuple[Run, wire.Batch]]:
    """Each run with its part of its batch."""
    batches = (rows.batch, *rows.more)
    for each in rows.runs:
        yield each, batches[each.batch].slice(each.first, each.last - each.first)
