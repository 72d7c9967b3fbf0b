"""From names to endpoints: which answer of the name system makes an address known.

(name, address, time to live) in, entries of the endpoint index out, or the reason why not.  The same rule
serves answers seen on the wire and those that our own resolver asked for:

- the name asked for, or the name of the answer, is listed, with a port;
- the address is globally routable;
- in a shared network (CDN, front end) only a name of low risk counts, and only on a port that is no web
  port: there the port, not the address, tells the pool from its neighbours; a public resolver never counts;
- it holds for the answer's time to live, within a floor (a mining connection outlives its look-up) and a cap.
"""

from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv6Address, ip_network

import msgspec

from detector.clock import SECOND_NS
from detector.endpoints import HOUR_NS, RESOLVED, Endpoints, Entry
from detector.errors import ConfigError
from detector.networks import SharedNetworks
from detector.poolnames import NEVER_PORTS, WEB_PORTS, Pool
from detector.pools import TCP


class Refused(StrEnum):
    """Why an answer taught nothing."""

    NAME = "name"  # not listed
    PORT = "port"  # listed without a port that may count
    ROUTABLE = "routable"  # private, reserved, multicast
    SHARED = "shared"  # in a network of strangers
    CROWDED = "crowded"  # more addresses of one row than are kept


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long answers hold.  ``routable`` networks count although they are not global (laboratories)."""

    floor_s: int = 6 * 3600
    cap_s: int = 72 * 3600
    addresses_per_row: int = 256
    routable: tuple[str, ...] = ()


class Routable:
    """Whether an address can be reached over the internet."""

    def __init__(self, also: tuple[str, ...] = ()) -> None:
        """Raises ConfigError on a text that is no network."""
        try:
            self._also = [ip_network(text) for text in also]
        except ValueError as error:
            raise ConfigError(f"routable: {error}") from None

    def __call__(self, address: bytes) -> bool:
        """``address`` is 16 bytes, IPv4 mapped."""
        made = IPv6Address(address)
        given = made.ipv4_mapped or made
        if any(given in network for network in self._also):
            return True
        return given.is_global and not given.is_multicast


class Resolutions:
    """Turns answers into entries of the index."""

    def __init__(
        self,
        find: Callable[[str], Pool | None],
        shared: SharedNetworks,
        endpoints: Endpoints,
        config: Config | None = None,
    ) -> None:
        self.config = config or Config()
        self.refused: dict[str, int] = {str(reason): 0 for reason in Refused}
        self._find = find
        self._shared = shared
        self._endpoints = endpoints
        self._routable = Routable(self.config.routable)
        self._known: dict[str, dict[bytes, int]] = {}

    def take(
        self, name: str, alias: str | None, address: bytes, ttl_s: int, at_ns: int, why: str
    ) -> list[Entry]:
        """Entries made or renewed by one answer: ``alias`` is the name asked for, where ``name`` is the last
        of a chain of CNAMEs.  ``why`` says who answered."""
        row = (self._find(alias) if alias else None) or self._find(name)
        reason = Refused.NAME if row is None else self._unfit(row, address)
        if row is None or reason is not None:
            self.refused[str(reason)] += 1
            return []
        ports = self._ports(row, address)
        if not ports:
            self.refused[Refused.SHARED if row.all_ports else Refused.PORT] += 1
            return []
        until = at_ns + min(max(ttl_s, self.config.floor_s), self.config.cap_s) * SECOND_NS
        if not self._room(row, address, at_ns, until):
            self.refused[Refused.CROWDED] += 1
            return []
        return [
            self._endpoints.put(
                Entry(
                    address=address, port=port, protocol=TCP, origin=RESOLVED, name=alias or name,
                    operator=row.operator, coins=row.coins, tls=row.tls(port), kind=row.kind, weak=row.weak,
                    first_ns=at_ns, last_ns=at_ns, expires_ns=until, why=why,
                )
            )
            for port in ports
        ]  # fmt: skip

    def _unfit(self, row: Pool, address: bytes) -> Refused | None:
        if not set(row.all_ports) - NEVER_PORTS:
            return Refused.PORT
        return None if self._routable(address) else Refused.ROUTABLE

    def _ports(self, row: Pool, address: bytes) -> list[int]:
        ports = [p for p in row.all_ports if p not in NEVER_PORTS]
        network = self._shared.find(address)
        if network is None:
            return ports
        if row.weak or network.use == "resolver":
            return []
        return [p for p in ports if p not in WEB_PORTS]

    def _room(self, row: Pool, address: bytes, at_ns: int, until_ns: int) -> bool:
        """At most so many addresses of one row at a time: a name that answers with the whole internet."""
        known = self._known.setdefault(row.domain, {})
        if address not in known and len(known) >= self.config.addresses_per_row:
            for old in [a for a, until in known.items() if until < at_ns]:
                del known[old]
            if len(known) >= self.config.addresses_per_row:
                return False
        known[address] = max(until_ns, known.get(address, 0))
        return True

    def restore(self) -> None:
        """Count again what the index holds, after its state was restored."""
        self._known.clear()
        for entry in self._endpoints:
            row = self._find(entry.name) if entry.origin == RESOLVED and entry.name else None
            if row is not None:
                self._known.setdefault(row.domain, {})[entry.address] = entry.expires_ns or HOUR_NS
