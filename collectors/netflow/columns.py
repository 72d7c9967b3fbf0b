"""Decoded columns of records that nobody owns yet in; one batch of ``flows`` over all partitions out.

For whatever is no template's: sFlow samples, and records that another collector has decoded.  Templates'
records take ``rows``, which reads only what somebody owns.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np

from collectors import subscribers, wire
from collectors.netflow.rows import Rows, Run

Column: TypeAlias = np.ndarray | tuple[np.ndarray, np.ndarray]
# What every record has; ``bytes`` and ``packets`` as exported, before any scaling.
NEEDED: Final = (
    "src", "dst", "src_port", "dst_port", "protocol", "t_first", "t_last", "t_received", "bytes", "packets",
    "source",
)  # fmt: skip


def rows(
    columns: Mapping[str, Column],
    home: subscribers.Home,
    partitions: int,
    collector: str,
    *,
    transit: bool = False,
) -> Rows:
    """Give every record to its home ends and put the rows in the order of partitions.

    ``columns`` has n records under the names of the stream ``flows`` (collectors/streams.py), in its types:
    ``src``, ``dst`` and other addresses (n, 16) u1, IPv4 mapped; ports u2, times i8 (Unix ns), the rest as
    declared there.  NEEDED must be there; of the nullable columns those that are known, as values or as a
    pair (values, valid (n,) bool), and not the lists.  ``subscriber``, ``copy``, ``candidate`` and
    ``collector`` are made here.

    The answer is as ``rows.Reader`` makes it: the batch, the runs that ``rows.cut`` cuts it by, each of at
    most wire.MAX_ROWS rows of one partition, and how many records had no home end.  A record whose ends are
    both home has two rows.  With ``transit`` those without a home end have one, in partition number
    ``partitions``.  Raises KeyError on a column that the stream does not have or that is missing.
    """
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise KeyError(f"flows need {missing}")
    src, dst, src_port, dst_port = (_plain(columns[name]) for name in NEEDED[:4])
    owned = subscribers.assign(src, dst, src_port, dst_port, home, partitions, transit=transit)
    if not owned.row.size:
        return Rows(wire.empty("flows"), (), owned.dropped)
    # Of 16 bits, because numpy sorts those by their digits.
    narrow = owned.partition.astype(np.uint16) if partitions <= 1 << 16 else owned.partition
    order = np.argsort(narrow, kind="stable")
    place = owned.row[order]
    made: dict[str, object] = {name: _gathered(column, place) for name, column in columns.items()}
    made["subscriber"] = _taken(owned.subscriber, order)
    made["copy"] = owned.copy[order]
    made["candidate"] = np.zeros(place.size, np.uint8)
    made["collector"] = collector
    first, last = _plain(columns["t_first"])[place], _plain(columns["t_last"])[place]
    runs = _runs(owned.partition[order], first, last)
    return Rows(wire.batch("flows", place.size, made), runs, owned.dropped)


def _plain(column: Column) -> np.ndarray:
    return np.ascontiguousarray(column[0] if isinstance(column, tuple) else column)


def _taken(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """``values[place]``; addresses as two words each, which is several times faster than as 16 octets."""
    if values.ndim == 2:
        words = np.ascontiguousarray(values).view(np.uint64)
        return words[place].view(np.uint8)
    return values[place]


def _gathered(column: Column, place: np.ndarray) -> Column:
    if isinstance(column, tuple):
        return _taken(column[0], place), np.asarray(column[1], bool)[place]
    return _taken(column, place)


def _runs(partition: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[Run, ...]:
    """Runs over rows that are in the order of partitions."""
    begins = np.flatnonzero(np.diff(partition, prepend=-1))
    ends = [*begins[1:].tolist(), partition.size]
    lows = np.minimum.reduceat(first, begins)
    highs = np.maximum.reduceat(last, begins)
    return tuple(
        Run(part, at, min(at + wire.MAX_ROWS, end), low, high)
        for part, begin, end, low, high in zip(
            partition[begins].tolist(), begins.tolist(), ends, lows.tolist(), highs.tolist(), strict=True
        )
        for at in range(begin, end, wire.MAX_ROWS)
    )
