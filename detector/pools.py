"""The pool table: rows of who serves work, where, for which coins.

Lines of CSV in; rows, look-ups, ports and a list of what looks wrong with them out.  The table that ships is
``tables/pools.csv``; the operator's own rows are read by ``poolfiles`` and laid over it.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.resources import files

import msgspec

from detector.endpoints import LISTED, Entry, packed
from detector.errors import ConfigError
from detector.poolnames import COLUMNS, NEVER_PORTS, WEB_PORTS, Names, Pool, is_address, parse

TCP = 6


class Problem(msgspec.Struct, frozen=True):
    """Something about a row that the operator should look at; the row still holds."""

    domain: str
    problem: str


class Pools:
    """Rows of the pool table, and what is derived from them."""

    def __init__(self, rows: Iterable[Pool]) -> None:
        """Exact duplicates count once; of the rows of one name the first gives operator and status."""
        self.rows: tuple[Pool, ...] = tuple(dict.fromkeys(rows))
        self._names = Names(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, other: "Pools") -> None:
        """Have the rows of another table from now on: whoever holds this one has them too."""
        self.rows, self._names = other.rows, other._names
        for derived in ("pool_ports", "exact_names", "suffixes", "digest", "counts"):
            self.__dict__.pop(derived, None)

    def find(self, name: str) -> Pool | None:
        """The row of a name: exact, else the longest suffix at a label boundary."""
        return self._names.find(name)

    def is_exact(self, name: str) -> bool:
        """Whether the name itself is listed, not only a name above it."""
        row = self._names.find(name)
        return row is not None and row.match == "exact"

    @cached_property
    def pool_ports(self) -> frozenset[int]:
        """Every listed port, plain or TLS: for ``subscribers.home(pool_ports=...)``."""
        return frozenset(p for row in self.rows for p in row.all_ports) - NEVER_PORTS

    @cached_property
    def exact_names(self) -> tuple[str, ...]:
        """Exact names, for the collectors' filter of names."""
        return tuple(row.domain for row in self._names.exact() if not is_address(row.domain))

    @cached_property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes, for the collectors' filter of names."""
        return tuple(row.domain for row in self._names.suffixes())

    @cached_property
    def digest(self) -> str:
        """A short hash of the rows, whatever their order."""
        told = sorted("\t".join(row.line()) for row in self.rows)
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many rows there are of each kind, status, risk and match."""
        total: Counter[str] = Counter({"rows": len(self.rows), "ports": len(self.pool_ports)})
        for row in self.rows:
            total.update((row.kind, row.status, row.fp_risk, row.match))
            total["with_port"] += bool(row.all_ports)
        return dict(total)

    def select(self, coin: str | None = None, operator: str | None = None) -> tuple[Pool, ...]:
        """Rows of a coin and an operator, both without case; None is any."""
        return tuple(
            row
            for row in self.rows
            if (coin is None or coin.upper() in row.coins)
            and (operator is None or operator.lower() in row.operator.lower())
        )

    def resolvable(self) -> tuple[Pool, ...]:
        """Rows that may be looked up: exact names in use, of pools, with a port to look for."""
        return tuple(
            row
            for row in self._names.exact()
            if row.status == "active"
            and row.kind != "browser-miner"
            and row.all_ports
            and not is_address(row.domain)
        )

    def listed(self, at_ns: int = 0) -> Iterator[Entry]:
        """Endpoints of rows whose name is an address: known without any look-up."""
        for row in self._names.exact():
            if is_address(row.domain):
                for port in row.all_ports:
                    if port not in NEVER_PORTS:
                        yield Entry(
                            address=packed(row.domain), port=port, protocol=TCP, origin=LISTED,
                            name=row.domain, operator=row.operator, coins=row.coins, tls=row.tls(port),
                            kind=row.kind, weak=row.weak, first_ns=at_ns, last_ns=at_ns, expires_ns=None,
                            why=f"listed: {row.source or 'own list'}",
                        )  # fmt: skip

    def check(self) -> list[Problem]:
        """What looks wrong, in the order of the rows."""
        shared = shared_hosts()
        out = []
        for row in self.rows:
            out += [Problem(row.domain, text) for text in _problems(row, shared)]
        twice = Counter((row.domain, row.match) for row in self.rows)
        out += [Problem(name, f"{n} rows ({match})") for (name, match), n in twice.items() if n > 1]
        return out

    def table(self, rows: Iterable[Pool] | None = None) -> list[str]:
        """The rows as lines of text, columns aligned."""
        cells = [("operator", "name", "ports", "tls", "coins", "kind", "status", "risk")]
        for row in self.rows if rows is None else rows:
            name = row.domain if row.match == "exact" else f"*.{row.domain}"
            cells.append(
                (row.operator, name, _few(row.ports), _few(row.tls_ports), _few(row.coins), row.kind,
                 row.status, row.fp_risk)
            )  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def _few(items: Iterable[object], most: int = 6) -> str:
    given = [str(i) for i in items]
    return ",".join(given[:most]) + (f",+{len(given) - most}" if len(given) > most else "") or "-"


def _problems(row: Pool, shared: frozenset[str]) -> Iterator[str]:
    if row.domain in shared:
        yield "everybody's parent: a public suffix or a shared host"
    elif row.match == "suffix" and any(name.endswith("." + row.domain) for name in shared):
        yield "a parent of shared hosts"
    if not row.all_ports and row.match == "exact" and row.status == "active":
        yield "no port: its addresses cannot be known endpoints"
    if row.status == "unknown" and row.basis not in {"listed-permissive", "fact-only"}:
        yield "status is unknown"
    never = [p for p in row.all_ports if p in NEVER_PORTS]
    if never:
        yield f"port {never[0]} is never believed"
    if row.fp_risk == "low" and row.match == "suffix" and set(row.all_ports) & WEB_PORTS:
        yield "every name below it counts on a web port"


def read(lines: Iterable[str], source: str) -> list[Pool]:
    """The rows of a CSV file.  Raises ConfigError, with ``source`` and line, on one that cannot be read."""
    reader = csv.reader(lines, strict=True)
    out: list[Pool] = []
    try:
        header = tuple(cell.strip().removeprefix("\ufeff") for cell in next(reader, ()))
        if header != COLUMNS:
            raise ConfigError(f"{source}, line 1: the header must be {','.join(COLUMNS)}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(COLUMNS):
                raise ConfigError(
                    f"{source}, line {reader.line_num}: {len(cells)} columns, not {len(COLUMNS)}"
                )
            try:
                out.append(parse(dict(zip(COLUMNS, cells, strict=True))))
            except ValueError as error:
                raise ConfigError(f"{source}, line {reader.line_num}: {error}") from None
    except csv.Error as error:
        raise ConfigError(f"{source}, line {reader.line_num}: {error}") from None
    return out


def shipped() -> list[Pool]:
    """The rows that ship with the program."""
    text = (files("detector.tables") / "pools.csv").read_text("utf-8")
    return read(text.splitlines(), "tables/pools.csv")


def shared_hosts(use: str | None = None) -> frozenset[str]:
    """Names below which strangers have their hosts (``tables/shared_hosts.csv``); of one use, or all."""
    text = (files("detector.tables") / "shared_hosts.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    return frozenset(row["name"] for row in rows if use is None or row["use"] == use)
