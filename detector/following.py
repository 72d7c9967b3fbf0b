"""Following what other detectors know: entries of the ``endpoints`` stream in, a changed index out.

The bus may be hostile, so an entry is believed no further than one made here could go: no listed one, none
that local learning would not accept, none from the future, none for longer than we would hold it.  What is
left is joined (``entries.joined``): twice is once, any order and grouping gives the same index, the echo of
one's own changes nothing, and a refutation holds off what it refutes whichever of the two comes first.
"""

from bisect import bisect_right
from collections.abc import Callable
from enum import StrEnum
from ipaddress import ip_network

import msgspec
import numpy as np

from detector.clock import MINUTE_NS, SECOND_NS
from detector.endpoints import LEARNED, LISTED, REFUTED, RESOLVED, Endpoints, Entry, packed
from detector.learner import Config as LearnerConfig
from detector.learner import teaches, unfit
from detector.networks import Network, SharedNetworks
from detector.poolnames import NEVER_PORTS, WEB_PORTS
from detector.resolutions import Config as ResolutionConfig
from detector.resolutions import Routable


class Refused(StrEnum):
    """Why an entry was not followed."""

    LISTED = "listed"  # the list is each detector's own file
    UNFIT = "unfit"  # an address or a port that is not learned here


class Stats(msgspec.Struct):
    """What moved, for the shell to read."""

    changed: int = 0
    same: int = 0
    ahead: int = 0  # stamps set to the time of receipt
    shortened: int = 0  # would have held for longer than here
    refused: dict[str, int] = msgspec.field(default_factory=lambda: {str(r): 0 for r in Refused})


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """How long after its last time an entry may hold, by origin, in ns."""

    resolved_ns: int
    learned_ns: int
    refuted_ns: int

    @classmethod
    def of(cls, resolutions: ResolutionConfig, learner: LearnerConfig) -> "Caps":
        """As long as those that are made here."""
        return cls(
            resolved_ns=resolutions.cap_s * SECOND_NS,
            learned_ns=learner.holds_s * SECOND_NS,
            refuted_ns=learner.refuted_s * SECOND_NS,
        )


def _number(address: str) -> int:
    return int.from_bytes(packed(address), "big")


def _finder(shared: SharedNetworks) -> Callable[[bytes], Network | None]:
    """``shared.find`` for many single addresses: that one works on columns, and costs 50 µs for one.

    Between two edges of networks the owner is the same, so each edge is asked about once.
    """
    spans = [ip_network(row.prefix) for row in shared.rows]
    begins = [_number(str(n.network_address)) for n in spans]
    ends = [_number(str(n.broadcast_address)) + 1 for n in spans]
    edges = sorted({0, *begins, *(e for e in ends if e < 1 << 128)})
    column = np.frombuffer(b"".join(e.to_bytes(16, "big") for e in edges), np.uint8).reshape(-1, 16)
    rows = [shared.rows[i] if i >= 0 else None for i in shared.rows_of(column).tolist()]
    return lambda address: rows[bisect_right(edges, int.from_bytes(address, "big")) - 1]


class Fits:
    """Whether an entry is one that could have been made here: see ``resolutions`` and ``learner``.

    A refutation is of anything.  An answer is for a port of the pool table, by the rule of ``resolutions``
    for shared networks; its name need not be in our own table, which may be older than the speaker's.
    """

    def __init__(
        self,
        shared: SharedNetworks,
        is_home: Callable[[bytes], bool],
        pool_ports: frozenset[int],
        resolutions: ResolutionConfig | None = None,
        learner: LearnerConfig | None = None,
    ) -> None:
        self._shared = _finder(shared)
        self._is_home = is_home
        self.relist(pool_ports)
        self._answered = Routable((resolutions or ResolutionConfig()).routable)
        self._taught = Routable((learner or LearnerConfig()).routable)

    def relist(self, pool_ports: frozenset[int]) -> None:
        """Have the ports of another pool table."""
        self._pool_ports = pool_ports - NEVER_PORTS

    def __call__(self, entry: Entry) -> bool:
        """Costs some 8 µs, most of them to ask whether the address is routable."""
        if entry.origin == REFUTED:
            return True
        if entry.origin == LEARNED:
            fit = entry.port > 0 and teaches(entry.port)
            return fit and unfit(entry.address, self._is_home, self._taught, self._shared) is None
        return entry.origin == RESOLVED and self._resolved(entry)

    def _resolved(self, entry: Entry) -> bool:
        ports = frozenset(entry.ports if entry.port == 0 else (entry.port,))
        if not ports or not ports <= self._pool_ports or not self._answered(entry.address):
            return False
        network = self._shared(entry.address)
        return network is None or (network.use != "resolver" and not entry.weak and not ports & WEB_PORTS)


class Following:
    """Takes in what the bus says.  ``follow`` is its verb."""

    def __init__(self, index: Endpoints, fits: Callable[[Entry], bool], caps: Caps) -> None:
        self.stats = Stats()
        self._index = index
        self._fits = fits
        self._caps = {RESOLVED: caps.resolved_ns, LEARNED: caps.learned_ns, REFUTED: caps.refuted_ns}

    def follow(self, entry: Entry, received_ns: int) -> bool:
        """Take in one entry that a detector published; whether the index changed.

        A stamp more than 60 s ahead of ``received_ns``, the time of receipt, is set to it.
        """
        if entry.origin == LISTED:
            return self._refuse(Refused.LISTED)
        if entry.last_ns > received_ns + MINUTE_NS:
            self.stats.ahead += 1
            entry = _not_ahead(entry, received_ns)
        latest = entry.last_ns + self._caps[entry.origin]
        if entry.expires_ns is None or entry.expires_ns > latest:
            self.stats.shortened += 1
            entry = msgspec.structs.replace(entry, expires_ns=latest)
        if not self._fits(entry):
            return self._refuse(Refused.UNFIT)
        changed = self._index.join(entry)
        self.stats.changed += changed
        self.stats.same += not changed
        return changed

    def _refuse(self, reason: Refused) -> bool:
        self.stats.refused[reason] += 1
        return False


def _not_ahead(entry: Entry, received_ns: int) -> Entry:
    return msgspec.structs.replace(entry, first_ns=min(entry.first_ns, received_ns), last_ns=received_ns)
