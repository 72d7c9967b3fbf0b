"""The waist: what observers produce and fusion consumes.

An observer says what it saw, on which connection, when and how often.  It does not say how much that
weighs: the weight is a row of ``tables/weights.toml``, found by ``kind``.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

Address = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
"""16 bytes, IPv4 mapped."""
End = tuple[Address, int]
"""Address and port."""
Hashes = Annotated[float, msgspec.Meta(ge=-1e60, le=1e60)]
"""Finite, so that no sum of a state that was read overflows."""


class Group(StrEnum):
    """Kinds of one group are not independent: within a group only the strongest speaks."""

    IDENTITY = "identity"
    PROTOCOL = "protocol"
    BEHAVIOUR = "behaviour"


class Connection(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The two ends of a connection, ``low`` the lesser (address, port), so that both directions agree.

    ``opened`` tells apart connections that reuse a port: it counts up per pair of ends.
    """

    low: End
    high: End
    protocol: int
    opened: int = 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One observation.  ``(kind, rule, connection, minute of last_ns)`` names it: twice adds nothing."""

    subscriber: bytes
    kind: str
    rule: str
    connection: Connection
    first_ns: int
    last_ns: int
    why: str
    count: int = 1
    role: str = "miner"


class Veto(msgspec.Struct, frozen=True, kw_only=True):
    """This connection is something else: what was seen on it counts no more."""

    subscriber: bytes
    connection: Connection
    at_ns: int
    rule: str
    why: str


class Shares(msgspec.Struct, kw_only=True):
    """Counts of submitted shares by their fate; ``verified`` had their proof of work checked."""

    accepted: int = 0
    rejected: int = 0
    stale: int = 0
    verified: int = 0


class Worked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one connection did of an algorithm that it does no more: hashes of accepted shares, their number,
    nanoseconds, and when it last did."""

    algorithm: str
    hashes: Hashes
    shares: int
    lasted_ns: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
    last_ns: int


class SessionFacts(msgspec.Struct, kw_only=True, array_like=True, gc=False):
    """All that one mining connection has told so far.  A later one of the same connection replaces it.

    ``hashes`` is the sum over accepted shares of the expected hashes of a share at the difficulty in force
    for its job, for the algorithm ``algorithm``; None where the algorithm or a difficulty is not known.
    ``hashes_shares`` is the number of accepted shares in that sum.  ``claimed`` is what the client itself
    said (H/s), kept apart from what was measured.  ``proxied`` says whether a proxy's preamble came before
    the first line, None where the start was not seen.  ``others`` are algorithms that it did before; where it
    does one again, ``first_job_ns`` is so much earlier.  ``client`` and ``server`` are (address, port).
    """

    subscriber: Address
    connection: Connection
    copy: bool
    client: End
    server: End
    role: str
    dialect: str
    algorithm: str | None = None
    coin: str | None = None
    workers: tuple[str, ...] = ()
    wallets: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    shares: Shares = msgspec.field(default_factory=Shares)
    hashes: Hashes | None = None
    hashes_shares: int = 0
    most_hashes_per_share: Hashes | None = None
    claimed: Hashes | None = None
    proxied: bool | None = None
    first_job_ns: int | None = None
    first_ns: int
    last_ns: int
    others: tuple[Worked, ...] = ()


class Contact(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A connection of a subscriber with a known endpoint: ``name``, ``operator`` and ``coins`` are the
    endpoint's; ``weak`` where its address alone says little."""

    subscriber: Address
    connection: Connection
    client: End
    server: End
    role: str
    name: str | None = None
    operator: str | None = None
    coins: tuple[str, ...] = ()
    weak: bool = False


class Seen(msgspec.Struct, frozen=True):
    """What one step of an observer gives back."""

    evidence: tuple[Evidence, ...] = ()
    vetoes: tuple[Veto, ...] = ()
    sessions: tuple[SessionFacts, ...] = ()
    contacts: tuple[Contact, ...] = ()
