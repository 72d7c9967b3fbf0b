"""Endpoints learned from sessions that payload confirmed.

Facts of sessions in, changed entries of the endpoint index out.  A session teaches only with an accepted
share, when it is known that no proxy preamble came before it, and when its server is not home, globally
routable and in no shared network.  What one neighbourhood alone has seen (one /24, one /48) counts for its
own subscribers only.  Only payload renews; a refutation withdraws, and holds off learning it again.
"""

from collections.abc import Callable
from typing import Literal

import msgspec

from detector.clock import MINUTE_NS
from detector.endpoints import HOUR_NS, LEARNED, REFUTED, Endpoints, Entry
from detector.entries import only_of
from detector.evidence import SessionFacts
from detector.networks import SharedNetworks
from detector.poolnames import NEVER_PORTS
from detector.resolutions import Routable

# Where proxies listen by custom: what is mined through one says nothing about the next one who uses it.
PROXY_PORTS = frozenset((1080, 1081, 3128, 8118, 9050, 9150))


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long what was learned holds."""

    holds_s: int = 48 * 3600
    refuted_s: int = 7 * 24 * 3600
    routable: tuple[str, ...] = ()


class Stats(msgspec.Struct):
    """What moved: sessions that taught, and why others did not."""

    learned: int = 0
    promoted: int = 0
    renewed: int = 0
    refuted: int = 0
    unconfirmed: int = 0
    proxied: int = 0
    home: int = 0
    unroutable: int = 0
    shared: int = 0
    held_off: int = 0


def teaches(port: int) -> bool:
    """Whether sessions at a port may teach at all."""
    return port not in PROXY_PORTS and port not in NEVER_PORTS


def unfit(
    address: bytes,
    home_test: Callable[[bytes], bool],
    routable: Callable[[bytes], bool],
    shared: Callable[[bytes], object],
) -> Literal["home", "unroutable", "shared"] | None:
    """Why an address can be no learned endpoint; None where it can.  ``shared`` finds its shared network."""
    if home_test(address):
        return "home"
    if not routable(address):
        return "unroutable"
    return "shared" if shared(address) is not None else None


class Learner:
    """Turns sessions into entries of the index."""

    def __init__(self, endpoints: Endpoints, shared: SharedNetworks, config: Config | None = None) -> None:
        self.config = config or Config()
        self.stats = Stats()
        self._endpoints = endpoints
        self._shared = shared
        self._routable = Routable(self.config.routable)

    def take(
        self,
        facts: SessionFacts,
        confirmed: bool,
        home_test: Callable[[bytes], bool],
        at_ns: int,
        proxied: bool | None = None,
    ) -> list[Entry]:
        """Learn from one session; the entries that changed.

        ``confirmed``: each side acknowledged the other's bytes.  ``proxied``: whether a proxy preamble was
        seen; None where the beginning of the connection was not, and then nothing is learned.
        """
        address, port = facts.server
        if proxied:
            self.stats.proxied += 1
            return self.refute(
                address, port, facts.connection.protocol, "a proxy: its clients say where to", at_ns
            )
        if not confirmed or facts.shares.accepted < 1 or facts.role != "miner" or facts.copy:
            self.stats.unconfirmed += 1
            return []
        if proxied is None or not teaches(port):
            self.stats.proxied += 1
            return []
        why = unfit(address, home_test, self._routable, self._shared.find)
        if why is not None:
            setattr(self.stats, why, getattr(self.stats, why) + 1)
            return []
        held = self._endpoints.get(address, port, facts.connection.protocol, REFUTED)
        if held is not None and (held.expires_ns is None or at_ns <= held.expires_ns):
            self.stats.held_off += 1
            return []
        return self._learn(facts, min(at_ns, facts.last_ns))

    def _learn(self, facts: SessionFacts, at_ns: int) -> list[Entry]:
        address, port = facts.server
        old = self._endpoints.get(address, port, facts.connection.protocol, LEARNED)
        if old is not None and old.expires_ns is not None and at_ns > old.expires_ns:
            old = None
        mine = (facts.subscriber,)
        only = mine if old is None else only_of(old.only, mine, self._endpoints.limits.own_subscribers)
        if old is not None and old.only == only and at_ns < old.last_ns + MINUTE_NS:
            return []
        if old is None:
            self.stats.learned += 1
        elif old.only and not only:
            self.stats.promoted += 1
        else:
            self.stats.renewed += 1
        made = Entry(
            address=address, port=port, protocol=facts.connection.protocol, origin=LEARNED,
            coins=(facts.coin,) if facts.coin else (), only=only, first_ns=at_ns, last_ns=at_ns,
            expires_ns=at_ns + self.config.holds_s * 10**9,
            why=f"it accepted shares of a subscriber ({facts.dialect})",
        )  # fmt: skip
        return [self._endpoints.put(made)]

    def refute(self, address: bytes, port: int, protocol: int, why: str, at_ns: int) -> list[Entry]:
        """Withdraw what was learned of an endpoint, and hold off learning it again."""
        known = any(e.origin == LEARNED for e in self._endpoints.at(address, port, protocol))
        held = self._endpoints.get(address, port, protocol, REFUTED)
        if not known and held is not None and at_ns < held.last_ns + HOUR_NS:
            return []
        self.stats.refuted += 1
        made = Entry(
            address=address, port=port, protocol=protocol, origin=REFUTED, first_ns=at_ns, last_ns=at_ns,
            expires_ns=at_ns + self.config.refuted_s * 10**9, why=why,
        )  # fmt: skip
        return [self._endpoints.put(made)]
