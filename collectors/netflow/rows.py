"""From spans of records to batches of ``flows``: keys first, then owners, then each row at its own place."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from collectors import subscribers, wire
from collectors.jit import bare as kernel
from collectors.netflow import decoding
from collectors.netflow.decoding import Arena, arena
from collectors.netflow.domains import D_ID
from collectors.netflow.program import KEY_NAMES, KEYS, REST, REST_NAMES
from collectors.netflow.tables import Tables
from collectors.netflow.walking import (
    S_COUNT,
    S_DOMAIN,
    S_EXPORTER,
    S_RECEIVED,
    S_ROW,
    S_SLOT,
    T_ID,
    T_PRESENT,
    T_VERSION,
)

# An exporter's clock may run ahead of the receive time by so much.
AHEAD_NS: Final = 60 * 1_000_000_000
# What every row has, whatever its template.
_OWN: Final = (
    ("subscriber", 16), ("src", 16), ("dst", 16), ("exporter", 16),
    ("t_first", 8), ("t_last", 8), ("t_received", 8),
    ("domain", 4), ("src_port", 2), ("dst_port", 2), ("template", 2),
    ("copy", 1), ("source", 1),
)  # fmt: skip
_OWN_NAMES: Final = tuple(name for name, _ in _OWN)
# Columns of REST that a row cannot be without: zero where the template has none.
_NEEDED: Final = ("bytes", "packets", "protocol")
_NEVER: Final = np.iinfo(np.int64)


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


@dataclass(frozen=True, slots=True)
class Rows:
    """One batch over all partitions, the runs that cut it, and how many records had no home end."""

    batch: wire.Batch
    runs: tuple[Run, ...]
    dropped: int


@kernel
def _order(partition, row, t_first, t_last, ends, lows, highs, place):
    """Places by partition, each in its order; where each partition's begin (``ends``), and its times."""
    for j in range(partition.size):
        p = partition[j]
        ends[p + 1] += 1
        lows[p] = min(lows[p], t_first[row[j]])
        highs[p] = max(highs[p], t_last[row[j]])
    for p in range(1, ends.size):
        ends[p] += ends[p - 1]
    for j in range(partition.size):
        p = partition[j]
        place[j] = ends[p]
        ends[p] += 1


@kernel
def _own(spans, n, slots, domains, addresses, row, place, keys, owned, out):
    """Write what every row has.  ``keys``, ``owned`` and ``out`` are tuples in the order of the tables."""
    src, dst, t_first, t_last, src_port, dst_port = keys
    subscriber, copy = owned
    (o_subscriber, o_src, o_dst, o_exporter, o_first, o_last, o_received, o_domain, o_src_port, o_dst_port,
     o_template, o_copy, o_source) = out  # fmt: skip
    e = 0
    for s in range(n):
        span = spans[s]
        last = span[S_ROW] + span[S_COUNT]
        slot = slots[span[S_SLOT]]
        received = span[S_RECEIVED]
        template = np.uint16(slot[T_ID])
        source = np.uint8(slot[T_VERSION])
        domain = np.uint32(domains[span[S_DOMAIN], D_ID])
        high = addresses[span[S_EXPORTER], 0]
        low = addresses[span[S_EXPORTER], 1]
        while e < row.size and row[e] < last:
            r = row[e]
            p = place[e]
            o_subscriber[p, 0] = subscriber[e, 0]
            o_subscriber[p, 1] = subscriber[e, 1]
            o_src[p, 0] = src[r, 0]
            o_src[p, 1] = src[r, 1]
            o_dst[p, 0] = dst[r, 0]
            o_dst[p, 1] = dst[r, 1]
            o_exporter[p, 0] = high
            o_exporter[p, 1] = low
            o_first[p] = t_first[r]
            o_last[p] = t_last[r]
            o_received[p] = received
            o_domain[p] = domain
            o_src_port[p] = src_port[r]
            o_dst_port[p] = dst_port[r]
            o_template[p] = template
            o_copy[p] = copy[e]
            o_source[p] = source
            e += 1


@kernel
def _present(spans, n, slots, row, place, bit, out):
    """1 for rows whose template fills column number ``bit``."""
    e = 0
    for s in range(n):
        last = spans[s, S_ROW] + spans[s, S_COUNT]
        has = np.uint8((slots[spans[s, S_SLOT], T_PRESENT] >> bit) & 1)
        while e < row.size and row[e] < last:
            out[place[e]] = has
            e += 1


def _words(addresses: np.ndarray) -> np.ndarray:
    return addresses.view(np.uint64)


class Reader:
    """Reads spans by the programs of ``tables`` for one collector."""

    def __init__(self, tables: Tables, home: subscribers.Home, partitions: int, collector: str) -> None:
        self._tables = tables
        self._home = home
        self._partitions = partitions
        self._collector = collector

    def rehome(self, home: subscribers.Home) -> None:
        """Give rows to the ends that are home by these networks from now on."""
        self._home = home

    def read(self, held: Spans) -> Rows:
        """One batch, in the order of partitions."""
        n = held.rows
        every = np.arange(n)
        keys = arena(KEYS, n, zeros=True)
        self._run(held, 0, every, every, keys)
        src, dst, t_first, t_last, duration, boot, src_port, dst_port = (
            keys.column(i) for i in range(len(KEY_NAMES))
        )
        first, last = t_first.view(np.int64), t_last.view(np.int64)
        decoding.settle(
            held.spans, len(held.spans), first, last, duration.view(np.int64), boot.view(np.int64),
            AHEAD_NS, self._tables.clocks,
        )  # fmt: skip
        owned = subscribers.assign(src, dst, src_port, dst_port, self._home, self._partitions)
        if not owned.row.size:
            return Rows(wire.empty("flows"), (), owned.dropped)
        place = np.empty(owned.row.size, np.int64)
        runs = self._runs(owned, first, last, place)
        mine = arena(_OWN, owned.row.size, zeros=False)
        out = [mine.column(i) for i in range(len(_OWN))]
        _own(
            held.spans, len(held.spans), self._tables.slots, self._tables.domains,
            _words(self._tables.addresses), owned.row, place,
            (_words(src), _words(dst), first, last, src_port, dst_port),
            (_words(owned.subscriber), owned.copy),
            tuple(_words(c) if c.ndim == 2 else c for c in out),
        )  # fmt: skip
        columns = dict(zip(_OWN_NAMES, out, strict=True)) | self._rest(held, owned.row, place)
        columns["candidate"] = np.zeros(owned.row.size, np.uint8)
        columns["collector"] = self._collector
        return Rows(wire.batch("flows", owned.row.size, columns), runs, owned.dropped)

    def _run(self, held: Spans, rest: int, row: np.ndarray, place: np.ndarray, out: Arena) -> None:
        tables = self._tables
        decoding.run(
            held.data, held.spans, len(held.spans), tables.slots, tables.ops, rest, held.marks, row, place,
            np.empty(row.size, np.int64), np.empty(len(held.spans) + 1, np.int64), out.start, out.cell,
            out.u1, out.u2, out.u4, out.u8, tables.index.keys, tables.index.values, tables.index.seed,
        )  # fmt: skip

    def _runs(
        self, owned: subscribers.Owned, first: np.ndarray, last: np.ndarray, place: np.ndarray
    ) -> tuple[Run, ...]:
        ends = np.zeros(self._partitions + 1, np.int64)
        lows = np.full(self._partitions, _NEVER.max)
        highs = np.full(self._partitions, _NEVER.min)
        _order(owned.partition, owned.row, first, last, ends, lows, highs, place)
        runs: list[Run] = []
        begin = 0
        # Each end has moved from its partition's beginning to the next one's.
        for part, (end, low, high) in enumerate(
            zip(ends[:-1].tolist(), lows.tolist(), highs.tolist(), strict=True)
        ):
            runs += [
                Run(part, at, min(at + wire.MAX_ROWS, end), low, high)
                for at in range(begin, end, wire.MAX_ROWS)
            ]
            begin = end
        return tuple(runs)

    def _rest(self, held: Spans, row: np.ndarray, place: np.ndarray) -> dict[str, object]:
        """The columns of the second pass, with nulls where a row's template does not fill them."""
        slots = self._tables.slots
        used = slots[np.unique(held.spans[:, S_SLOT]), T_PRESENT]
        always = int(np.bitwise_and.reduce(used))
        ever = int(np.bitwise_or.reduce(used))
        out = arena(REST, row.size, zeros=False)
        for i, name in enumerate(REST_NAMES):
            partly = not always >> i & 1
            if partly and name in _NEEDED:
                out.column(i)[:] = 0
        rate = out.column(REST_NAMES.index("sampling_rate"))
        decoding.rates(held.spans, len(held.spans), row, place, rate)
        self._run(held, 1, row, place, out)
        made: dict[str, object] = {}
        for i, name in enumerate(REST_NAMES):
            values = out.column(i)
            if name == "sampling_rate":
                known = values != 0
                made[name] = values if known.all() else (values, known) if known.any() else None
            elif always >> i & 1 or name in _NEEDED:
                made[name] = values
            elif ever >> i & 1:
                valid = np.empty(row.size, np.uint8)
                _present(held.spans, len(held.spans), slots, row, place, i, valid)
                made[name] = (values, valid)
        return made


def cut(rows: Rows) -> Iterator[tuple[Run, wire.Batch]]:
    """Each run with its part of the batch."""
    for run in rows.runs:
        yield run, rows.batch.slice(run.first, run.last - run.first)
