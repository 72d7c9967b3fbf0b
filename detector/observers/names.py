"""Names seen beside addresses in; evidence of identity out, and addresses for the endpoint index.

A TLS server name, a certificate or an HTTP host that is listed says with whom its client speaks.  A DNS
answer says where a pool is, and nothing about who asked: resolvers, block lists and threat feeds ask too.
Answers teach only when they come from a configured resolver.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any, Final

import msgspec

from collectors import wire
from collectors.streams import NAME_KINDS
from detector.endpoints import Entry, packed
from detector.errors import ConfigError
from detector.evidence import Connection, Evidence, Seen
from detector.observers import words
from detector.poolnames import WEB_PORTS, Pool
from detector.resolutions import Resolutions
from detector.sightings import MINUTE_NS, Recent

DNS: Final = NAME_KINDS.index("dns")
TCP: Final = 6
# What a listed name is evidence of, by how it was seen; a weak row, a suffix, or a web port that is not
# listed makes any of them ``shared_name``.
KINDS: Final = {
    NAME_KINDS.index("tls_server_name"): "tls_name",
    NAME_KINDS.index("quic_server_name"): "tls_name",
    NAME_KINDS.index("certificate"): "certificate_name",
    NAME_KINDS.index("http_host"): "http_name",
}
WEAK: Final = "shared_name"
BROWSER: Final = "browser_miner_name"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose answers teach: addresses of ``resolvers``.  What ``own_hosts`` do is no evidence."""

    resolvers: tuple[str, ...] = ()
    own_hosts: tuple[str, ...] = ()
    remembered: int = 65_536


class Stats(msgspec.Struct):
    """What moved, for the shell to read."""

    rows: int = 0
    answers: int = 0
    taught: int = 0
    unknown_resolver: int = 0
    told: int = 0
    repeated: int = 0
    unlisted: int = 0
    own: int = 0
    unreadable: int = 0


class NameObserver:
    """Sees listed names.  ``step`` is its verb; ``changes`` are endpoints that it made known since asked."""

    def __init__(
        self,
        find: Callable[[str], Pool | None],
        resolutions: Resolutions,
        config: Config | None = None,
        moved: set[bytes] | None = None,
    ) -> None:
        """``moved`` takes the subscribers of whom what is kept changed.

        Raises ConfigError on a resolver or own host that is no address.
        """
        self.config = config or Config()
        self.stats = Stats()
        self._find = find
        self._resolutions = resolutions
        self._resolvers = _addresses(self.config.resolvers, "resolvers")
        self._own = _addresses(self.config.own_hosts, "own_hosts")
        self._changes: list[Entry] = []
        self.told = Recent(self.config.remembered, moved)

    def step(self, rows: wire.Batch) -> Seen:
        """Take one batch of NAMES, whose stamps are not ahead of their receive time."""
        self.stats.rows += rows.num_rows
        out: list[Evidence] = []
        for row in rows.to_pylist():
            if row["kind"] == DNS:
                self._answer(row)
            elif row["kind"] in KINDS:
                out += self._name(row)
            else:
                self.stats.unreadable += 1
        return Seen(tuple(out))

    def changes(self) -> list[Entry]:
        """Endpoints made or renewed since the last call."""
        changed, self._changes = self._changes, []
        return changed

    def _answer(self, row: dict[str, Any]) -> None:
        self.stats.answers += 1
        if row["resolver"] not in self._resolvers:
            self.stats.unknown_resolver += 1
            return
        if row["address"] is None:
            self.stats.unreadable += 1
            return
        who = words.end((row["resolver"], 53))
        made = self._resolutions.take(
            row["name"], row["alias"], row["address"], row["ttl"] or 0, row["t"], f"answered by {who}"
        )
        self.stats.taught += bool(made)
        self._changes += made

    def _name(self, row: dict[str, Any]) -> list[Evidence]:
        if row["subscriber"] in self._own:
            self.stats.own += 1
            return []
        pool = self._find(row["name"])
        if pool is None:
            self.stats.unlisted += 1
            return []
        kind, port, at_ns = _kind(pool, row), row["port"] or 0, row["t"]
        server = (row["address"] or bytes(16), port)
        client = (row["subscriber"], 0)
        connection = Connection(min(client, server), max(client, server), row["protocol"] or TCP)
        if not self.told.is_new((row["subscriber"], connection, kind, pool.domain, at_ns // MINUTE_NS)):
            self.stats.repeated += 1
            return []
        self.stats.told += 1
        return [
            Evidence(
                subscriber=row["subscriber"], kind=kind, rule=pool.match, connection=connection,
                first_ns=at_ns, last_ns=at_ns, why=_why(pool, row, server),
            )
        ]  # fmt: skip


def _kind(pool: Pool, row: dict[str, Any]) -> str:
    if pool.kind == "browser-miner":
        return BROWSER
    port = row["port"] or 0
    site = port in WEB_PORTS and port not in pool.all_ports
    return WEAK if pool.weak or site or pool.match == "suffix" else KINDS[row["kind"]]


def _why(pool: Pool, row: dict[str, Any], server: tuple[bytes, int]) -> str:
    how = NAME_KINDS[row["kind"]].replace("_", " ")
    beside = f" at {words.end(server)}" if row["address"] is not None else ""
    of = f" of {words.clean(pool.operator)}" if pool.operator != pool.domain else ""
    return f"{how} {words.clean(row['name'])}{beside} is listed{of} ({pool.kind}, {pool.status})"


def _addresses(texts: Iterable[str], what: str) -> frozenset[bytes]:
    out = set()
    for text in texts:
        try:
            ip_address(text)
        except ValueError as error:
            raise ConfigError(f"{what}: {error}") from None
        out.add(packed(text))
    return frozenset(out)
