"""Names of pools: one row of the pool table, and the look-up of a name among the rows.

A line of a CSV file in, a ``Pool`` out; rows in, a look-up of exact and suffix names out.  Names are compared
without case and without a final dot; a suffix holds at label boundaries only, and the longest one wins.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final, Literal

import msgspec

Match = Literal["exact", "suffix"]
Kind = Literal["pool", "solo", "marketplace", "proxy", "browser-miner"]
Status = Literal["active", "unknown", "defunct"]
Risk = Literal["low", "shared-with-website", "cdn"]

COLUMNS: Final = (
    "operator",
    "domain",
    "match",
    "ports",
    "coins",
    "tls_ports",
    "kind",
    "status",
    "fp_risk",
    "source",
    "basis",
)

# Ports that carry the web: what listens there may be a site, and a client may be a browser.  The second
# line are those of Cloudflare's proxied ports that are not mining ports too.
WEB_PORTS: Final = frozenset((
    80, 81, 443, 591, 8000, 8008, 8080, 8081, 8443, 8880, 8888,
    2052, 2053, 2082, 2083, 2086, 2087, 2095, 2096,
))  # fmt: skip
# Ports on which a listed endpoint is never believed: naming them would suspect every client of DNS.
NEVER_PORTS: Final = frozenset((53, 123, 853))

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_MAX_LINE_ITEMS: Final = 512


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a name, or an address, at which somebody serves work."""

    operator: str
    domain: str
    match: Match
    ports: tuple[int, ...] = ()
    coins: tuple[str, ...] = ()
    tls_ports: tuple[int, ...] = ()
    kind: Kind = "pool"
    status: Status = "unknown"
    fp_risk: Risk = "low"
    source: str = ""
    basis: str = ""

    @property
    def all_ports(self) -> tuple[int, ...]:
        """Plain and TLS ports, each once, in order."""
        return tuple(sorted({*self.ports, *self.tls_ports}))

    @property
    def weak(self) -> bool:
        """Whether the row is only a hint: its name serves a web site or a CDN, pages, or nobody any more."""
        return self.fp_risk != "low" or self.kind == "browser-miner" or self.status == "defunct"

    def tls(self, port: int) -> str:
        """Whether ``port`` speaks TLS: yes, no or unknown."""
        if port not in self.tls_ports:
            return "no" if port in self.ports and self.tls_ports else "unknown"
        return "unknown" if port in self.ports else "yes"

    def line(self) -> tuple[str, ...]:
        """The row as the cells of a CSV line."""
        lists = {name: ";".join(map(str, getattr(self, name))) for name in ("ports", "coins", "tls_ports")}
        return tuple(lists.get(name) or str(getattr(self, name) or "") for name in COLUMNS)


def plain(name: str) -> str:
    """A name as it is compared: lower case, no final dot, no space around it."""
    return name.strip().lower().removesuffix(".")


def is_address(name: str) -> bool:
    """Whether a name is an address literal."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_name(name: str) -> bool:
    """Whether it can be a host name of two labels or more, or an address."""
    labels = name.split(".")
    fits = len(name) <= 253 and len(labels) > 1 and all(_LABEL.fullmatch(label) for label in labels)
    return fits or is_address(name)


def _ports(text: str, column: str) -> tuple[int, ...]:
    parts = [p.strip() for p in text.split(";") if p.strip()]
    if len(parts) > _MAX_LINE_ITEMS:
        raise ValueError(f"{column}: more than {_MAX_LINE_ITEMS}")
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) <= 5 and 1 <= int(part) <= 65535):
            raise ValueError(f"{column}: {part[:40]!r} is not a port")
    return tuple(sorted({int(p) for p in parts}))


def parse(cells: Mapping[str, str | None]) -> Pool:
    """One row of the table.  Raises ValueError that names the column."""
    given = {name: (cells.get(name) or "").strip() for name in COLUMNS}
    domain = plain(given["domain"])
    if not is_name(domain):
        raise ValueError(f"domain: {given['domain'][:80]!r} is not a host name or address")
    if given["match"] == "suffix" and is_address(domain):
        raise ValueError("match: an address has no names below it")
    coins = tuple(c.strip().upper() for c in given["coins"].split(";") if c.strip())
    if len(coins) > _MAX_LINE_ITEMS or not all(
        c.isascii() and c.isprintable() and len(c) < 17 for c in coins
    ):
        raise ValueError(f"coins: {given['coins'][:80]!r} is not a list of tickers")
    made: dict[str, object] = {
        **given,
        "operator": given["operator"] or domain,
        "domain": domain,
        "coins": coins,
        "ports": _ports(given["ports"], "ports"),
        "tls_ports": _ports(given["tls_ports"], "tls_ports"),
        "kind": given["kind"] or "pool",
        "status": given["status"] or "unknown",
        "fp_risk": given["fp_risk"] or "low",
    }
    try:
        return msgspec.convert(made, Pool)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).replace("`$.", "`")) from None


class Names:
    """Look-up of a name among rows.  Several rows of one name are told as one (see ``merged``)."""

    def __init__(self, rows: Iterable[Pool]) -> None:
        self._exact: dict[str, Pool] = {}
        self._suffix: dict[str, Pool] = {}
        for row in rows:
            book = self._exact if row.match == "exact" else self._suffix
            old = book.get(row.domain)
            book[row.domain] = row if old is None else merged(old, row)

    def find(self, name: str) -> Pool | None:
        """The row of an exact name, else of its longest listed suffix, else None."""
        name = plain(name)
        row = self._exact.get(name)
        while row is None:
            row = self._suffix.get(name)
            if row is not None:
                return row
            _, dot, name = name.partition(".")
            if not dot:
                return None
        return row

    def exact(self) -> tuple[Pool, ...]:
        """One row per exact name."""
        return tuple(self._exact.values())

    def suffixes(self) -> tuple[Pool, ...]:
        """One row per suffix."""
        return tuple(self._suffix.values())


def merged(a: Pool, b: Pool) -> Pool:
    """Two rows of one name as one: ports and coins together; of the rest the first, the riskier for risk."""
    risks: tuple[Risk, ...] = ("low", "shared-with-website", "cdn")
    return msgspec.structs.replace(
        a,
        ports=tuple(sorted({*a.ports, *b.ports})),
        tls_ports=tuple(sorted({*a.tls_ports, *b.tls_ports})),
        coins=tuple(dict.fromkeys((*a.coins, *b.coins))),
        fp_risk=max(a.fp_risk, b.fp_risk, key=risks.index),
    )
