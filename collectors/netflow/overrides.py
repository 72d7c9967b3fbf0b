"""Configured sampling rates: rows of ``collectors.netflow.sampling`` in, the rate for a domain out."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, ip_network
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

Number = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class SamplingRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One packet in ``rate`` was looked at by ``exporter`` (an address or prefix; empty: everybody), in
    ``domain`` and on ``interface`` where they are given.

    ``when``: always, or only where the exporter itself is silent about it.
    """

    rate: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
    exporter: str = ""
    domain: Number | None = None
    interface: Number | None = None
    when: Literal["always", "when_silent"] = "always"

    def __post_init__(self) -> None:
        _network(self.exporter)


@lru_cache(maxsize=4096)
def _network(text: str) -> tuple[int, int]:
    """(prefix as a number of 128 bits, its length).  Raises ValueError."""
    if not text:
        return 0, 0
    try:
        given = ip_network(text)
    except ValueError as error:
        raise ValueError(f"exporter: {error}") from None
    if isinstance(given, IPv4Network):
        return 0xFFFF << 32 | int(given.network_address), 96 + given.prefixlen
    return int(given.network_address), given.prefixlen


class Configured(NamedTuple):
    """What is configured for a domain: its own rate or none, and those of its interfaces."""

    own: SamplingRate | None
    by_interface: dict[int, SamplingRate]

    def rates(self, interface: np.ndarray, told: np.ndarray) -> np.ndarray:
        """The rates (n,) of records on ``interface`` (n,) whose exporter tells ``told`` (n,) (0: nothing)."""
        made, silent = told.copy(), told == 0
        always = self.own is not None and self.own.when == "always"
        if self.own is not None:
            made[silent | always] = self.own.rate
        for number, row in self.by_interface.items():
            made[(interface == number) & (silent | (always or row.when == "always"))] = row.rate
        return made


class Overrides:
    """The longest prefix holds; of one exporter's rows that which names the domain.  A row that names an
    interface holds for its records, whatever the others say; where the domain's is for always, it is too."""

    def __init__(self, rows: Iterable[SamplingRate] = ()) -> None:
        self.any = bool(rows := list(rows))
        # The most particular last; of equals the later one.
        self._rows = sorted(rows, key=lambda row: (_network(row.exporter)[1], row.domain is not None))

    def of(self, exporter: bytes, domain: int) -> Configured:
        """``exporter`` is 16 octets, or more, of which the first 16 are its address."""
        address = int.from_bytes(exporter[:16], "big")
        own: SamplingRate | None = None
        by_interface: dict[int, SamplingRate] = {}
        for row in self._rows:
            prefix, length = _network(row.exporter)
            if (address ^ prefix) >> (128 - length) or row.domain not in (None, domain):
                continue
            if row.interface is None:
                own = row
            else:
                by_interface[row.interface] = row
        return Configured(own, by_interface)

    def rate(self, exporter: bytes, domain: int, interface: int, told: int) -> int:
        """The rate for a record whose exporter tells ``told`` (0: nothing)."""
        found = self.of(exporter, domain)
        always = found.own is not None and found.own.when == "always"
        for row in (found.by_interface.get(interface), found.own):
            if row is not None and (always or row.when == "always" or not told):
                return row.rate
        return told
