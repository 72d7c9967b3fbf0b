"""The opt-in look-up of pool names: the only traffic that poolwatch starts by itself, off unless configured.

Names and configured servers in; addresses out, one by one, at a limited rate.  What a wildcard or a parking
service answers is left out.  The only importer of dnspython, and it opens sockets: a shell, not the core.
It is imported when somebody is to be asked: most never ask, and all read this module's configuration.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from detector.clock import SECOND_NS
from detector.endpoints import Entry, packed
from detector.errors import ConfigError
from detector.pools import shared_hosts
from detector.resolutions import Resolutions

if TYPE_CHECKING:
    import dns.nameserver
    import dns.resolver

_FAMILIES: Final = ("A", "AAAA")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom to ask, how fast, how often.  No server: nothing is looked up."""

    servers: tuple[str, ...] = ()  # "192.0.2.53", "192.0.2.53:5353", "[2001:db8::53]:5353"
    rate_per_s: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 5.0
    every_s: Annotated[int, msgspec.Meta(ge=60)] = 6 * 3600
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 3.0


class Stats(msgspec.Struct):
    """What moved, for the caller to show."""

    asked: int = 0
    names: int = 0
    addresses: int = 0
    absent: int = 0
    failed: int = 0
    wildcard: int = 0
    parked: int = 0


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """One address of one name: ``canonical`` is the end of its chain of CNAMEs, ``address`` 16 bytes."""

    name: str
    canonical: str
    address: bytes
    ttl_s: int
    server: str
    at_ns: int


def server(text: str) -> "dns.nameserver.Nameserver":
    """A server as it is configured: an address, with a port where it is not 53.  Raises ConfigError."""
    import dns.nameserver  # noqa: PLC0415

    address, port = text, "53"
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":") or "53"
    elif text.count(":") == 1:
        address, port = text.split(":")
    try:
        ip_address(address)
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError(f"{port!r} is not a port")
    except ValueError as error:
        raise ConfigError(f"resolver: {text!r}: {error}") from None
    return dns.nameserver.Do53Nameserver(address, int(port))


class _Asker:
    """Asks one question at a time, not faster than allowed."""

    def __init__(
        self,
        servers: Sequence[str],
        rate_per_s: float,
        timeout_s: float,
        now: Callable[[], int],
        sleep: Callable[[float], None],
        stats: Stats,
    ) -> None:
        import dns.resolver  # noqa: PLC0415

        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [server(text) for text in servers]
        self._resolver.search = []
        self._resolver.lifetime = timeout_s * max(1, len(servers))
        self._resolver.timeout = timeout_s
        self._gap_ns = int(SECOND_NS / rate_per_s)
        self._next_ns = now()
        self._now, self._sleep, self._stats = now, sleep, stats

    def ask(self, name: str, kind: str) -> "dns.resolver.Answer | None":
        """The answer; None where there is none or nobody gave one."""
        import dns.exception  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415

        wait = self._next_ns - self._now()
        if wait > 0:
            self._sleep(wait / SECOND_NS)
        self._next_ns = max(self._next_ns, self._now()) + self._gap_ns
        self._stats.asked += 1
        try:
            return self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            self._stats.absent += 1
        except (dns.exception.DNSException, OSError, ValueError):
            # Timeouts, refusals, answers that cannot be read, names that cannot be asked.
            self._stats.failed += 1
        return None

    def addresses(self, name: str) -> list[tuple[bytes, int, str, str]]:
        """(address, time to live, canonical name, server) of A and AAAA."""
        out: list[tuple[bytes, int, str, str]] = []
        for kind in _FAMILIES:
            answer = self.ask(name, kind)
            if answer is None or answer.rrset is None:
                continue
            end = answer.canonical_name.to_text(omit_final_dot=True).lower()
            who, ttl = str(answer.nameserver or ""), answer.rrset.ttl
            out += [(packed(record.address), ttl, end, who) for record in answer.rrset]
        return out


class _Suspicion:
    """What is behind an answer: a wildcard, a parking service.  One question per parent and per zone."""

    def __init__(self, asker: _Asker) -> None:
        self._asker = asker
        self._wild: dict[str, frozenset[bytes]] = {}
        self._parked: dict[str, bool] = {}
        self._services = tuple(shared_hosts("parking"))

    def wildcard(self, name: str) -> frozenset[bytes]:
        """The addresses that any name beside this one has."""
        parent = name.partition(".")[2]
        if "." not in parent:
            return frozenset()
        if parent not in self._wild:
            random = f"{secrets.token_hex(8)}.{parent}"
            self._wild[parent] = frozenset(a for a, *_ in self._asker.addresses(random))
        return self._wild[parent]

    def parked(self, name: str, canonical: str) -> bool:
        """Whether the name ends at a parking service, or its zone is served by one."""
        if self._is_service(canonical):
            return True
        zone = ".".join(name.split(".")[-2:])
        if zone not in self._parked:
            answer = self._asker.ask(zone, "NS")
            served = [] if answer is None or answer.rrset is None else list(answer.rrset)
            names = [record.target.to_text(omit_final_dot=True).lower() for record in served]
            self._parked[zone] = any(self._is_service(n) for n in names)
        return self._parked[zone]

    def _is_service(self, name: str) -> bool:
        return any(name == s or name.endswith("." + s) for s in self._services)


def resolve(
    names: Iterable[str],
    servers: Sequence[str],
    rate_per_s: float,
    now: Callable[[], int] = time.time_ns,
    *,
    timeout_s: float = 3.0,
    sleep: Callable[[float], None] = time.sleep,
    stats: Stats | None = None,
) -> Iterator[Resolved]:
    """Addresses of ``names``, asked of ``servers`` in turn, at most ``rate_per_s`` questions a second.

    ``now`` is Unix time in ns.  Nobody to ask: nothing.  Raises ConfigError on a server that is no address.
    """
    stats = stats if stats is not None else Stats()
    if not servers:
        return
    asker = _Asker(servers, rate_per_s, timeout_s, now, sleep, stats)
    suspicion = _Suspicion(asker)
    for name in names:
        stats.names += 1
        found = asker.addresses(name)
        if not found:
            continue
        if suspicion.parked(name, found[0][2]):
            stats.parked += 1
            continue
        wild = suspicion.wildcard(name)
        kept = [f for f in found if f[0] not in wild]
        stats.wildcard += len(found) - len(kept)
        for address, ttl, canonical, who in kept:
            stats.addresses += 1
            yield Resolved(
                name=name, canonical=canonical, address=address, ttl_s=ttl, server=who, at_ns=now()
            )  # fmt: skip


def teach(found: Iterable[Resolved], resolutions: Resolutions) -> Iterator[Entry]:
    """Entries made or renewed by what was found, by the rule for answers."""
    for one in found:
        yield from resolutions.take(
            one.canonical, one.name, one.address, one.ttl_s, one.at_ns, f"looked up at {one.server}"
        )
