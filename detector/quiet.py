"""Who is not to page: the allow list and the maintenance windows, two small TOML files.

Text in, rows out, all of it checked; then, for an incident and a time, what keeps it quiet.  An incident that
is kept quiet is an incident all the same: it is judged, counted and written; nobody is called.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal

import msgspec

from detector.document import MOST_LISTED, Incident
from detector.errors import ConfigError

By = Literal["allow", "maintenance"]
BY: Final[tuple[By, ...]] = ("allow", "maintenance")
MOST_ROWS: Final = 10_000
MOST_REASON: Final = 500
MOST_ERRORS: Final = 20
NEVER_NS: Final = 1 << 62

Network = IPv4Network | IPv6Network


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the allow list: a subscriber's address or prefix, or a service (address, port)."""

    network: Network | None = None
    service: tuple[str, int] | None = None
    reason: str
    expires_ns: int


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One maintenance window, of everybody or of a prefix or a sector (of both: who is in both)."""

    from_ns: int
    to_ns: int
    network: Network | None = None
    sector: str | None = None
    reason: str


class Quiet:
    """Both lists.  ``covers`` is its verb; ``changes_ns`` says when it may next answer otherwise."""

    def __init__(self, allowed: Iterable[Allowed] = (), windows: Iterable[Window] = ()) -> None:
        self.allowed = tuple(allowed)
        self.windows = tuple(windows)
        self._networks: dict[Network, int] = {}
        self._services: dict[tuple[str, int], int] = {}
        for row in self.allowed:
            if row.service is not None:
                self._services[row.service] = max(row.expires_ns, self._services.get(row.service, 0))
            elif row.network is not None:
                self._networks[row.network] = max(row.expires_ns, self._networks.get(row.network, 0))
        # Asked under the judge's lock: one look for each length, not one for each row.
        self._lengths = {(n.version, n.prefixlen) for n in self._networks}

    def covers(self, document: Incident, now_ns: int) -> By | None:
        """What keeps this incident quiet at ``now_ns`` (Unix time), None where nothing does."""
        if not self.allowed and not self.windows:
            return None
        network = ip_network(document.subscriber, strict=False)
        if self._is_allowed(document, network, now_ns):
            return "allow"
        sector = document.place.sector if document.place else ""
        for window in self.windows:
            if (
                window.from_ns <= now_ns < window.to_ns
                and (window.network is None or _within(network, window.network))
                and (window.sector is None or window.sector == sector)
            ):
                return "maintenance"
        return None

    def _is_allowed(self, document: Incident, network: Network, now_ns: int) -> bool:
        for version, length in self._lengths:
            if version == network.version and length <= network.prefixlen:
                outer = network if length == network.prefixlen else network.supernet(new_prefix=length)
                if self._networks.get(outer, 0) > now_ns:
                    return True
        # Who also mines elsewhere is not excused by the one service that is allowed; a document that lists
        # as many services as it can may have left out the other.
        services = document.services
        return 0 < len(services) < MOST_LISTED and all(
            self._services.get((s.address, s.port), 0) > now_ns for s in services
        )

    def changes_ns(self, now_ns: int) -> int:
        """The next time after ``now_ns`` at which a row begins or ends; ``NEVER_NS`` where none does."""
        times = [row.expires_ns for row in self.allowed]
        times += [at for window in self.windows for at in (window.from_ns, window.to_ns)]
        return min((at for at in times if at > now_ns), default=NEVER_NS)


def _within(network: Network, outer: Network) -> bool:
    return network.version == outer.version and network.subnet_of(outer)  # type: ignore[arg-type]


class _Row:
    """One table of the file while it is read: takes fields out, keeps what is wrong with them."""

    def __init__(self, given: Any, where: str, wrong: list[str]) -> None:
        self._left = dict(given) if isinstance(given, dict) else {}
        self._where = where
        self._wrong = wrong
        if not isinstance(given, dict):
            wrong.append(f"{where}: not a table")

    def take(self, field: str, read: Callable[[Any], Any], *, must: bool) -> Any:
        if field not in self._left:
            if must:
                self.complain(field, "is missing")
            return None
        try:
            return read(self._left.pop(field))
        except (ValueError, TypeError) as error:
            return self.complain(field, str(error))

    def complain(self, field: str, problem: str) -> None:
        self._wrong.append(f"{self._where}, field {field}: {problem}")

    def end(self) -> None:
        for field in self._left:
            self.complain(str(field), "is not a field")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be words")
    if len(value) > MOST_REASON or not value.isprintable():
        raise ValueError(f"must be one printable line of at most {MOST_REASON} characters")
    return value.strip()


def _network(value: Any) -> Network:
    if not isinstance(value, str):
        raise ValueError("must be an address or a prefix, as text")
    return ip_network(value.strip())


def _service(value: Any) -> tuple[str, int]:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise ValueError(f"{value!r} is not ADDRESS:PORT")
    return str(ip_address(host.strip("[]"))), int(port)


def _time(value: Any) -> int:
    """Unix nanoseconds; a date is its first moment in UTC."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("needs its offset from UTC, Z for none")
        return int(value.timestamp()) * 10**9
    if isinstance(value, date):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()) * 10**9
    raise ValueError("must be a date or a time, without quotes")


def _rows(text: str, source: str, key: str, read: Callable[[_Row], Any]) -> tuple[Any, ...]:
    """Every row read; raises ConfigError with all that is wrong."""
    try:
        tree: Mapping[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from None
    given = tree.get(key, [])
    wrong = [f"{name} is not a list of it: rows begin with [[{key}]]" for name in tree if name != key]
    if not isinstance(given, list) or len(given) > MOST_ROWS:
        raise ConfigError(f"{source}: {key} must be rows that begin with [[{key}]], at most {MOST_ROWS}")
    out = []
    for number, one in enumerate(given, 1):
        row = _Row(one, f"{key} row {number}", wrong)
        out.append(read(row))
        row.end()
    if wrong:
        more = f"; and {len(wrong) - MOST_ERRORS} more" if len(wrong) > MOST_ERRORS else ""
        raise ConfigError(f"{source}: {'; '.join(wrong[:MOST_ERRORS])}{more}")
    return tuple(out)


def allowed(text: str, source: str) -> tuple[Allowed, ...]:
    """The rows of an allow list.  Raises ConfigError, with ``source``, row and field, on all mistakes."""

    def read(row: _Row) -> Allowed:
        network = row.take("subscriber", _network, must=False)
        service = row.take("service", _service, must=False)
        if network is not None and service is not None:
            row.complain("service", "one of subscriber and service is enough, make two rows")
        elif network is None and service is None:
            row.complain("subscriber", "one of subscriber and service is needed")
        return Allowed(
            network=network,
            service=service,
            reason=row.take("reason", _text, must=True) or "",
            expires_ns=row.take("expires", _time, must=True) or 0,
        )

    return _rows(text, source, "allow", read)


def windows(text: str, source: str) -> tuple[Window, ...]:
    """The maintenance windows of a file.  Raises ConfigError, with ``source``, row and field."""

    def read(row: _Row) -> Window:
        from_ns, to_ns = row.take("from", _time, must=True), row.take("to", _time, must=True)
        if from_ns is not None and to_ns is not None and from_ns >= to_ns:
            row.complain("to", "must be after from")
        return Window(
            from_ns=from_ns or 0,
            to_ns=to_ns or 0,
            network=row.take("prefix", _network, must=False),
            sector=row.take("sector", _text, must=False),
            reason=row.take("reason", _text, must=True) or "",
        )

    return _rows(text, source, "maintenance", read)


def over(quiet: Quiet, now_ns: int) -> list[str]:
    """What to tell the operator of rows that have no effect any more."""
    rows = [("allow", "expired", row.reason) for row in quiet.allowed if row.expires_ns <= now_ns]
    rows += [("maintenance", "is over", row.reason) for row in quiet.windows if row.to_ns <= now_ns]
    return [f"{key} row {what}, take it out: {reason}" for key, what, reason in rows]
