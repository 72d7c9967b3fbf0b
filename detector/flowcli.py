"""``poolwatch flows``: the records of export datagrams in captures, for people and programs."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from collectors.app import datagrams
from collectors.netflow import records
from detector.errors import DecodeError, InputError

COLUMNS = (
    "flowStartMilliseconds", "sourceIPv4Address", "sourceTransportPort", "destinationIPv4Address",
    "destinationTransportPort", "protocolIdentifier", "packetDeltaCount", "octetDeltaCount",
)  # fmt: skip
MOST_ROWS = 10_000


def read(paths: Iterable[str], refused: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Every record of every file; each file is a run with templates of its own.

    Raises InputError on a file that cannot be opened or is no capture.
    """
    for path in paths:
        state = records.State()
        try:
            file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115, PTH123 - closed below
            with file:
                for one in datagrams(file):
                    try:
                        yield from records.records(one.payload, state, one.exporter, one.t_ns)
                    except DecodeError as error:
                        refused[error.reason] = refused.get(error.reason, 0) + 1
        except (DecodeError, OSError) as error:
            raise InputError(f"{path}: {error}") from None
        for reason, count in state.refused.items():
            refused[reason] = refused.get(reason, 0) + count


def print_json(rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object a record, keys by information element name."""
    for row in rows:
        sys.stdout.write(json.dumps(row, default=str, ensure_ascii=False) + "\n")


def print_csv(rows: Iterable[dict[str, Any]]) -> None:
    """All records under the union of their fields."""
    kept = list(rows)
    names = list(dict.fromkeys(name for row in kept for name in row))
    out = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    out.writeheader()
    out.writerows(kept)


def print_table(rows: Iterable[dict[str, Any]]) -> None:
    """The fields that people look for first, at most MOST_ROWS records."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        out.add_column(name)
    count = 0
    for count, row in enumerate(rows, 1):
        if count <= MOST_ROWS:
            out.add_row(*(Text(str(_cell(row, name))) for name in COLUMNS))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    console.print(out)
    console.print(f"{count} records" + (f", {MOST_ROWS} shown" if count > MOST_ROWS else ""))


def _cell(row: dict[str, Any], name: str) -> Any:
    """A field, or the like of it: IPv6 for IPv4, seconds or uptime for milliseconds, totals for deltas."""
    for other in (name, name.replace("v4", "v6"), name.replace("Milliseconds", "Seconds"),
                  name.replace("Milliseconds", "SysUpTime"), name.replace("Delta", "Total")):  # fmt: skip
        if other in row:
            return row[other]
    return "-"
