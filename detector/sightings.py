"""Flows that touch a known endpoint, told one by one.

A ``flows`` batch in, sightings out: whose flow, with which endpoint, in which direction, how much, when, seen
by whom.  Stamps more than a minute ahead of their receive time are set to it; rows that are older than a day
when they are received say nothing about now and are left out.  Both are counted.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import numpy as np

from collectors import wire
from detector.attribution import text
from detector.clock import MINUTE_NS
from detector.endpoints import Endpoints, Entry, Hits
from detector.evidence import Connection

TCP: Final = 6
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
# Twice what Config.oldest_s lets through: a minute that old is not told of again.
RECENT_MINUTES: Final = 2 * 24 * 60
_SOURCES: Final = {1: "sFlow", 5: "NetFlow v5", 9: "NetFlow v9", 10: "IPFIX", 20: "imported flows"}

_ADDRESSES: Final = ("subscriber", "src", "dst")
_FIXED: Final = (
    "src_port", "dst_port", "protocol", "t_first", "t_last", "t_received", "bytes", "packets", "source",
)  # fmt: skip
_NULLABLE: Final = (
    "exporter", "reverse_bytes", "reverse_packets", "tcp_flags", "reverse_tcp_flags", "sampling_rate",
    "direction",
)  # fmt: skip


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is too old to count."""

    oldest_s: int = 24 * 3600


class Stats(msgspec.Struct):
    """What moved, for the shell to read."""

    rows: int = 0
    seen: int = 0
    clamped: int = 0
    stale: int = 0
    out_of_time: int = 0
    no_data: int = 0


class Sighting(msgspec.Struct, frozen=True):
    """One flow record of a subscriber and a known endpoint.

    ``up`` and ``down`` are (packets, bytes) from and to the subscriber, as exported; one packet in ``rate``
    was looked at.  ``carried`` says that the record shows more than an attempt to connect.  ``role`` is
    ``pool`` where the endpoint itself is the subscriber's.  ``source`` is who saw it, for people; ``point``
    tells apart what may be the same packets: see ``observation``.  ``row`` is the row of the batch.
    """

    row: int
    subscriber: bytes
    endpoint: tuple[bytes, int]
    connection: Connection
    entry: Entry
    weak: bool
    role: str
    first_ns: int
    last_ns: int
    received_ns: int
    up: tuple[int, int]
    down: tuple[int, int]
    rate: int
    source: str
    point: str
    carried: bool


class Recent:
    """Which things were said not long ago: at most ``most``, the oldest forgotten first.

    A thing is a tuple: a subscriber, what was said of it, and the minute of the data last.  ``moved`` takes
    the subscribers of whom something was said or forgotten.
    """

    def __init__(self, most: int, moved: set[bytes] | None = None) -> None:
        self.moved: set[bytes] = set() if moved is None else moved
        self._said: dict[tuple[Any, ...], None] = {}
        self._of: dict[bytes, dict[tuple[Any, ...], None]] = {}
        self._most = most

    def is_new(self, what: tuple[Any, ...]) -> bool:
        """Whether it was not said yet; from now on it was."""
        if what in self._said:
            return False
        self._said[what] = None
        self._of.setdefault(what[0], {})[what] = None
        self.moved.add(what[0])
        if len(self._said) > self._most:
            self._forget(next(iter(self._said)))
        return True

    def _forget(self, what: tuple[Any, ...]) -> None:
        del self._said[what]
        of = self._of[what[0]]
        del of[what]
        if not of:
            del self._of[what[0]]
        self.moved.add(what[0])

    def expire(self, watermark_ns: int) -> None:
        """Forget what was said of minutes so old that their records come no more."""
        before = watermark_ns // MINUTE_NS - RECENT_MINUTES
        while self._said and (what := next(iter(self._said)))[-1] < before:
            self._forget(what)

    def state(self, subscriber: bytes) -> list[tuple[Any, ...]]:
        """What was said of one subscriber, the oldest first, without its name."""
        return [what[1:] for what in self._of.get(subscriber, ())]

    def restore(self, subscriber: bytes, said: Iterable[tuple[Any, ...]]) -> None:
        """Take what was said of one subscriber."""
        for what in said:
            self.is_new((subscriber, *what))

    def __len__(self) -> int:
        return len(self._said)


class Sightings:
    """Asks the index about every row.  ``find`` is its verb."""

    def __init__(self, endpoints: Endpoints, config: Config | None = None) -> None:
        self.config = config or Config()
        self.stats = Stats()
        self._endpoints = endpoints

    def find(self, rows: wire.Batch) -> list[Sighting]:
        """Sightings of one ``flows`` batch, in the order of its rows."""
        self.stats.rows += rows.num_rows
        if not rows.num_rows:
            return []
        hits = self._endpoints.match(
            *(wire.values(rows, name) for name in ("src", "dst", "src_port", "dst_port", "protocol"))
        )
        return list(self._told(rows, hits)) if hits.row else []

    def _told(self, rows: wire.Batch, hits: Hits) -> Iterator[Sighting]:
        cells = _cells(rows, np.array(hits.row, np.int64))
        for cell, row, end, entries in zip(cells, hits.row, hits.end, hits.entries, strict=True):
            first, last = self._times(cell)
            if last is None:
                continue
            entry = _speaker(entries, first, last, cell)
            if entry is None:
                self.stats.out_of_time += 1
                continue
            self.stats.seen += 1
            made = _sighting(row, end, cell, entry, (first, last))
            self.stats.no_data += not made.carried
            yield made

    def _times(self, cell: dict[str, Any]) -> tuple[int, int | None]:
        first, last, received = cell["t_first"], cell["t_last"], cell["t_received"]
        if last > received + MINUTE_NS:
            self.stats.clamped += 1
            last = received
        if received - last > self.config.oldest_s * 10**9:
            self.stats.stale += 1
            return first, None
        return min(first, last), last


def _cells(rows: wire.Batch, chosen: np.ndarray) -> list[dict[str, Any]]:
    """Rows as plain values: a few of a batch of thousands, so no column is touched as a whole."""
    few: dict[str, list[Any]] = {}
    for name in (*_ADDRESSES, *_FIXED, *_NULLABLE):
        column = wire.values(rows, name)
        if not len(column):  # all null
            few[name] = [None] * len(chosen)
            continue
        cells = column[chosen]
        few[name] = [c.tobytes() for c in cells] if cells.ndim == 2 else cells.tolist()
        if name in _NULLABLE:
            there = _valid(rows.column(name), chosen)
            few[name] = [c if ok else None for c, ok in zip(few[name], there, strict=True)]
    collector = rows.column("collector")
    few["collector"] = [collector[i].as_py() for i in chosen.tolist()]
    return [dict(zip(few, cells, strict=True)) for cells in zip(*few.values(), strict=True)]


def _valid(column: Any, chosen: np.ndarray) -> list[int]:
    """Which of the chosen cells hold a value.  ``wire.valid`` would unpack the bits of all rows."""
    bits = column.buffers()[0]
    if bits is None:
        return [1] * len(chosen)
    at = chosen + column.offset
    return (np.frombuffer(bits, np.uint8)[at >> 3] >> (at & 7) & 1).tolist()


def _speaker(entries: tuple[Entry, ...], first: int, last: int, cell: dict[str, Any]) -> Entry | None:
    """The entry that speaks of this flow: a strong one before a weak one."""
    holding = [e for e in entries if e.holds(first, last, cell["subscriber"])]
    return min(holding, key=lambda e: e.weak_at(e.port), default=None)


def _sighting(row: int, end: int, cell: dict[str, Any], entry: Entry, times: tuple[int, int]) -> Sighting:
    src, dst = (cell["src"], cell["src_port"]), (cell["dst"], cell["dst_port"])
    there = (cell["packets"], cell["bytes"])
    back = (cell["reverse_packets"] or 0, cell["reverse_bytes"] or 0)
    far, near = (src, dst) if end == 0 else (dst, src)
    low, high = min(src, dst), max(src, dst)
    return Sighting(
        row=row, subscriber=cell["subscriber"], endpoint=far,
        connection=Connection(low, high, cell["protocol"]),
        entry=entry, weak=entry.weak_at(far[1]), role=_role(cell["subscriber"], near[0], far[0]),
        first_ns=times[0], last_ns=times[1], received_ns=cell["t_received"],
        up=there if end == 1 else back, down=back if end == 1 else there,
        rate=max(1, cell["sampling_rate"] or 1), source=_source(cell), point=_point(cell),
        carried=carried(cell),
    )  # fmt: skip


def _role(subscriber: bytes, near: bytes, far: bytes) -> str:
    """``miner``, or ``pool`` where the endpoint's own address is the subscriber's (more leading bits)."""
    own = int.from_bytes(subscriber, "big")
    return "miner" if int.from_bytes(near, "big") ^ own <= int.from_bytes(far, "big") ^ own else "pool"


def _source(cell: dict[str, Any]) -> str:
    if cell["source"] == 0:
        return f"tap {cell['collector']}"
    name = _SOURCES.get(cell["source"], "flows")
    return f"{name} of {text(cell['exporter'])}" if cell["exporter"] else f"{name} by {cell['collector']}"


def _point(cell: dict[str, Any]) -> str:
    """As the measures name it, without domain and sampler: those of one exporter add up."""
    if cell["source"] == 0:
        return f"tap {cell['collector']}"
    way = "e" if cell["direction"] == 1 else ""
    return f"{(cell['exporter'] or b'').hex()}{way}/{cell['collector']}"


def carried(cell: dict[str, Any]) -> bool:
    """Whether a record shows more than an attempt to connect.

    A SYN may be a scan, or forged in the pool's name; so may its answers: backscatter (SYN and ACK, RST) hits
    addresses that asked for nothing.  So: a push, or an acknowledgement in a record with neither SYN nor RST
    (a sampled packet out of the middle).  Exporters that give no flags are believed.
    """
    if cell["protocol"] != TCP:
        return bool(cell["packets"])
    for flags in (cell["tcp_flags"], cell["reverse_tcp_flags"]):
        if flags and (flags & PSH or (flags & ACK and not flags & (SYN | RST))):
            return True
    return not cell["tcp_flags"] and not cell["reverse_tcp_flags"] and bool(cell["packets"])
