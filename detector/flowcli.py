"""``poolwatch flows``: the records of exports in captures and IPFIX files, for people and programs."""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address
from itertools import islice
from typing import Any, BinaryIO

import msgspec
from prometheus_client import CollectorRegistry
from rich.table import Table
from rich.text import Text

from collectors import subscribers
from collectors.app import blocks, datagrams, sampled_frames
from collectors.bus import Publisher
from collectors.exporting.flowmessage import encode
from collectors.netflow import jsonlines, records, totals
from collectors.netflow.collector import Collector, Config
from collectors.netflow.datagrams import STREAM, Block
from collectors.netflow.metrics import Metrics
from collectors.netflow.values import rfc3339
from collectors.wire import Batch, Header
from detector.errors import DecodeError, InputError
from detector.exporters.paper import Paper
from detector.wording import counted

# What the table shows beside when a flow began: its columns, and the fields that they are.
COLUMNS = {
    "source": "sourceIPv4Address", "port": "sourceTransportPort", "destination": "destinationIPv4Address",
    "port ": "destinationTransportPort", "protocol": "protocolIdentifier", "packets": "packetDeltaCount",
    "octets": "octetDeltaCount",
}  # fmt: skip
_FIGURES = frozenset({"port", "port ", "protocol", "packets", "octets"})
MOST_ROWS = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# CSV's columns are the fields of so many records; what later ones have besides is one column more.
LOOK_AHEAD = 50_000
MORE = "more"
WITHOUT = "data sets without a template"
UNTYPED = "vendors' elements announced that found no room"
WITHDRAWN = "template withdrawals over UDP"
# What a collector counts of them: those that waited or found no room to, but for those whose template came.
_WITHOUT: tuple[tuple[int, str, dict[str, str]], ...] = (
    (1, "held", {}), (1, "dropped", {"reason": "bytes"}), (-1, "decoded_late", {}),
)  # fmt: skip
# Records that are written at once.
_TOGETHER = 512
# Exporters send text: on a terminal these characters would be commands to it.  msgspec escapes those below
# a space itself.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_ENCODER = msgspec.json.Encoder()
_CONTROLS_UTF8 = re.compile(b"\x7f|\xc2[\x80-\x9f]")
PROTOCOLS = {1: "sFlow 5", 3: "NetFlow v1", 5: "NetFlow v5", 7: "NetFlow v7", 9: "NetFlow v9", 10: "IPFIX"}


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """A file or standard input.  Raises InputError where it cannot be opened or read, or is no capture."""
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115, PTH123 - closed below
        with file:
            yield file
    except BrokenPipeError:
        raise
    except IsADirectoryError:
        raise InputError(f"{path}: a folder with no captures in it") from None
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def read(
    paths: Iterable[str], refused: dict[str, int], lines: records.Written | None = None
) -> Iterator[dict[str, Any]]:
    """Every record of every file; each file is a run with templates of its own.

    ``refused`` counts what could not be read, by reason; data sets whose template never came as WITHOUT.
    What ``lines`` writes comes as octets.  Raises InputError on a file that cannot be opened or is no
    capture.
    """
    for path in paths:
        state = records.State(frames=sampled_frames, lines=lines)
        with _opened(path) as file:
            for one in datagrams(file, refused):
                try:
                    stream = bool(one.port & STREAM)
                    found = records.records(one.payload, state, one.exporter, one.t_ns, withdraws=stream)
                except DecodeError as error:
                    refused[error.reason] = refused.get(error.reason, 0) + 1
                    continue
                yield from found
        told: dict[str, int] = {str(reason): count for reason, count in state.refused.items()}
        if without := state.dropped + sum(map(len, state.waiting.values())):
            told[WITHOUT] = without
        if state.types_dropped:
            told[UNTYPED] = state.types_dropped
        if state.withdrawals_ignored:
            told[WITHDRAWN] = state.withdrawals_ignored
        for reason, count in told.items():
            refused[reason] = refused.get(reason, 0) + count


def read_for_json(paths: Iterable[str], refused: dict[str, int]) -> Iterator[Any]:
    """As ``read``, for ``print_json``: records of most templates are lines already."""
    yield from read(paths, refused, jsonlines.Lines().written)


def print_json(rows: Iterable[dict[str, Any] | bytes]) -> None:
    """One JSON object a record, keys by information element name.  Octets are lines already."""
    out = sys.stdout.buffer
    together: list[dict[str, Any]] = []
    for row in rows:
        if isinstance(row, bytes):
            if together:
                out.write(encoded(together))
                together = []
            out.write(row)
        else:
            together.append(row)
            if len(together) == _TOGETHER:
                out.write(encoded(together))
                together = []
    out.write(encoded(together))
    out.flush()


def encoded(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows as lines of JSON that give a terminal no commands."""
    return _CONTROLS_UTF8.sub(lambda found: b"\\u00%02x" % found[0][-1], _ENCODER.encode_lines(rows))


def print_csv(rows: Iterable[dict[str, Any]]) -> None:
    """Records under the union of the fields of the first LOOK_AHEAD.

    Other fields of later ones come as JSON in a last column ``more``, which is only there where the input is
    longer.
    """
    rows = iter(rows)
    kept = list(islice(rows, LOOK_AHEAD))
    names = list(dict.fromkeys(name for row in kept for name in row))
    following = next(rows, None)
    known = frozenset(names)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(names if following is None else [*names, MORE])
    for row in kept:
        cells = [_plain(row.get(name, "")) for name in names]
        out.writerow(cells if following is None else [*cells, ""])
    if following is None:
        return
    for row in _chained(following, rows):
        more = {name: given for name, given in row.items() if name not in known}
        out.writerow([*(_plain(row.get(name, "")) for name in names), _plain(more) if more else ""])


def _chained(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield first
    yield from rest


def _plain(given: Any) -> Any:
    """A cell: lists and structured data as JSON; control characters escaped, as there."""
    if isinstance(given, dict | list):
        given = msgspec.json.encode(given).decode()
    return _escaped(given) if isinstance(given, str) else given


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_table(rows: Iterable[dict[str, Any]]) -> None:
    """The fields that people look for first, of at most MOST_ROWS flows; other records are counted."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("start (UTC)", overflow="fold")
    for name in COLUMNS:
        out.add_column(name, justify="right" if name in _FIGURES else "left", overflow="fold")
    count = others = 0
    for count, row in enumerate(rows, 1):
        cells = [_cell(row, name) for name in COLUMNS.values()]
        # Options, counters, what a switch or a firewall tells of itself.
        if all(cell == "-" for cell in cells):
            others += 1
        elif count - others <= MOST_ROWS:
            out.add_row(*(Text(_escaped(str(cell))) for cell in (_start(row), *cells)))
    paper = Paper()
    paper.print(out)
    shown = f", {MOST_ROWS} shown" if count - others > MOST_ROWS else ""
    are = "is no flow" if others == 1 else "are no flows"
    more = f"; {others} of them {are} and not shown: --json shows all" if others else ""
    paper.print(counted(count, "record") + shown + more)


# Where a record says a column in other words.
_STARTS = (
    "flowStartMilliseconds", "flowStartMicroseconds", "flowStartNanoseconds", "flowStartSeconds",
    "observationTimeMilliseconds", "collectionTimeMilliseconds",
)  # fmt: skip
_WRAP_MS = 1 << 32
_LIKE: dict[str, tuple[str, ...]] = {
    "sourceIPv4Address": ("sourceIPv6Address",),
    "destinationIPv4Address": ("destinationIPv6Address",),
    "packetDeltaCount": ("packetTotalCount", "initiatorPackets"),
    "octetDeltaCount": ("octetTotalCount", "initiatorOctets"),
}  # fmt: skip


def _start(row: dict[str, Any]) -> Any:
    """When a flow began, as wall-clock time: as the record says it, or reckoned from the time of its export.

    An uptime wraps after 49 days; a record is at most half as old.
    """
    for name in _STARTS:
        if name in row:
            return row[name]
    exported = row.get("exportTime")
    first, delta_us = row.get("flowStartSysUpTime"), row.get("flowStartDeltaMicroseconds")
    if isinstance(exported, str) and isinstance(delta_us, int):
        return rfc3339(_unix_ms(exported) * 1_000_000 - delta_us * 1000, 3)
    booted = row.get("systemInitTimeMilliseconds")
    if not (isinstance(exported, str) and isinstance(booted, str) and isinstance(first, int)):
        return "-"
    began_ms = _unix_ms(booted) + first
    ahead_ms = (began_ms - _unix_ms(exported) + _WRAP_MS // 2) % _WRAP_MS - _WRAP_MS // 2
    return rfc3339((_unix_ms(exported) + ahead_ms) * 1_000_000, 3)


@lru_cache(maxsize=4096)
def _unix_ms(text: str) -> int:
    """A time that ``rfc3339`` wrote, in milliseconds."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def _cell(row: dict[str, Any], name: str) -> Any:
    """A field, or the like of it: IPv6 for IPv4, totals for deltas."""
    for other in (name, *_LIKE.get(name, ())):
        if other in row:
            return row[other]
    return "-"


# -- totals ------------------------------------------------------------------------------------------


def _collected(
    paths: Iterable[str],
    refused: dict[str, int],
    publish: Publisher,
    beside: Callable[[Block], None] = lambda _block: None,
) -> Iterator[CollectorRegistry]:
    """Give every file to a collector of its own, the compiled road; what each counted, once it is done.

    ``beside`` is called with each block after the collector.
    """
    for path in paths:
        registry = CollectorRegistry()
        # With no networks every record has one row.
        collector = Collector(Config(), subscribers.home(()), 1, publish, Metrics(registry), sampled_frames)
        with _opened(path) as file:
            for block in blocks(file, refused):
                if len(block):
                    collector.feed(block)
                    beside(block)
        collector.finish()
        for sample in (s for family in registry.collect() for s in family.samples):
            if sample.name == "poolwatch_collector_netflow_refused_total" and sample.value:
                reason = sample.labels["reason"]
                refused[reason] = refused.get(reason, 0) + int(sample.value)
        yield registry


def count(paths: Iterable[str], refused: dict[str, int]) -> Iterator[tuple[totals.Group, totals.Total]]:
    """Totals by exporter and template of all files, in their order; each file is a run of its own."""
    made = totals.Totals()
    for _ in _collected(paths, refused, lambda _stream, _part, rows, _header: made.rows(rows), made.sets):
        made.finish()
    yield from sorted(made.groups.items(), key=lambda item: item[0])


def print_protobuf(paths: Iterable[str], refused: dict[str, int]) -> None:
    """Every flow record as goflow2's FlowMessage behind its length, one after another.

    ``refused`` as for ``read``.  What options and records without addresses say has no message.
    """
    out = sys.stdout.buffer

    def write(_stream: str, _part: int, rows: Batch, _header: Header) -> None:
        out.write(encode(rows)[0].data)

    for registry in _collected(paths, refused, write):
        without = sum(
            sign * int(registry.get_sample_value(f"poolwatch_collector_netflow_{name}_total", labels) or 0)
            for sign, name, labels in _WITHOUT
        )
        if without:
            refused[WITHOUT] = refused.get(WITHOUT, 0) + without
    out.flush()


def _counted(group: totals.Group, total: totals.Total) -> dict[str, Any]:
    six = IPv6Address(group.exporter)
    return {
        "exporter": str(six.ipv4_mapped or six),
        "protocol": PROTOCOLS.get(group.source, str(group.source)),
        "domain": group.domain,
        "template": group.template,
        "kind": group.kind,
        "records": total.records,
        "packets": total.packets,
        "octets": total.octets,
        "first": rfc3339(total.t_first, 3),
        "last": rfc3339(total.t_last, 3),
    }


def print_counts(
    counts: Iterable[tuple[totals.Group, totals.Total]], show: Callable[[Iterable[dict[str, Any]]], None]
) -> None:
    """Totals by ``print_json``, ``print_csv`` or as a table."""
    rows = [_counted(group, total) for group, total in counts]
    if show is not print_table:
        show(rows)
        return
    out = Table(box=None, pad_edge=False, header_style="bold")
    names = list(rows[0]) if rows else ["exporter", "records"]
    for name in names:
        figure = name in ("domain", "template", "records", "packets", "octets")
        out.add_column(name, justify="right" if figure else "left")
    for row in rows:
        out.add_row(*(Text(str(row[name])) for name in names))
    paper = Paper()
    paper.print(out)
    summed = {n: sum(row[n] for row in rows) for n in ("records", "packets", "octets")} if rows else {}
    paper.print(", ".join(counted(n, name[:-1]) for name, n in summed.items()) or "0 records")
