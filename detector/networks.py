"""Networks that many strangers share: CDN edges, front ends, public resolvers.

Lines of CSV in; for 16-byte addresses, who owns the network and what it is used for out.  An address there
says little about who is behind it, so it becomes a known endpoint only by the rule of ``resolutions``.
"""

import csv
from collections.abc import Iterable
from importlib.resources import files
from ipaddress import ip_network
from typing import Final, Literal

import msgspec
import numpy as np

from detector.errors import ConfigError

COLUMNS: Final = ("prefix", "owner", "use", "source", "date")


class Network(msgspec.Struct, frozen=True):
    """One row: ``use`` says what its addresses do; ``resolver`` ones are never an endpoint."""

    prefix: str
    owner: str
    use: Literal["cdn", "frontend", "hosting", "resolver"]
    source: str
    date: str


class SharedNetworks:
    """Ranges flattened into disjoint pieces over the 128-bit space; the longest prefix wins."""

    def __init__(self, rows: Iterable[Network]) -> None:
        """Raises ConfigError on a prefix that is none."""
        self.rows = tuple(rows)
        spans = sorted((_span(row.prefix), i) for i, row in enumerate(self.rows))
        bounds = {edge for (first, last), _ in spans for edge in (first, last + 1)} | {0}
        edges = sorted(edge for edge in bounds if edge < 1 << 128)
        owner = np.full(len(edges), -1, np.int32)
        place = {edge: i for i, edge in enumerate(edges)}
        # Wide ones first, so that a narrower one is laid over them.
        for (first, last), i in sorted(spans, key=lambda s: s[0][0] - s[0][1]):
            end = place.get(last + 1, len(edges))
            owner[place[first] : end] = i
        self._high = np.array([e >> 64 for e in edges], np.uint64)
        self._low = np.array([e & (2**64 - 1) for e in edges], np.uint64)
        self._owner = owner

    def find(self, address: bytes) -> Network | None:
        """The row of one address."""
        at = int(self.rows_of(np.frombuffer(address, np.uint8).reshape(1, 16))[0])
        return None if at < 0 else self.rows[at]

    def rows_of(self, addresses: np.ndarray) -> np.ndarray:
        """(n,) i4: for each of (n, 16) u1 addresses the index into ``rows``, -1 where none.

        Two binary searches: by the high half, then, among the edges of one high half, by the low one.
        """
        halves = np.ascontiguousarray(addresses).view(">u8").astype(np.uint64).reshape(-1, 2)
        left = np.searchsorted(self._high, halves[:, 0], "left")
        right = np.searchsorted(self._high, halves[:, 0], "right")
        while True:
            open_ = left < right
            if not open_.any():
                return self._owner[left - 1]
            middle = (left + right) >> 1
            below = open_ & (self._low[np.minimum(middle, len(self._low) - 1)] <= halves[:, 1])
            left = np.where(below, middle + 1, left)
            right = np.where(open_ & ~below, middle, right)

    def __len__(self) -> int:
        return len(self.rows)


def _span(prefix: str) -> tuple[int, int]:
    try:
        network = ip_network(prefix)
    except ValueError as error:
        raise ConfigError(f"shared networks: {error}") from None
    base = 0xFFFF << 32 if network.version == 4 else 0
    return base + int(network.network_address), base + int(network.broadcast_address)


def read(lines: Iterable[str], source: str) -> list[Network]:
    """Rows of a CSV file.  Raises ConfigError, with ``source`` and line, on one that cannot be read."""
    out = []
    reader = csv.DictReader(lines)
    for row in reader:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ConfigError(f"{source}, line 1: the header must be {','.join(COLUMNS)}")
        try:
            made = msgspec.convert({c: row[c] or "" for c in COLUMNS}, Network)
            _span(made.prefix)
        except (msgspec.ValidationError, ConfigError) as error:
            raise ConfigError(f"{source}, line {reader.line_num}: {error}") from None
        out.append(made)
    return out


def shipped() -> SharedNetworks:
    """The table that ships with the program."""
    text = (files("detector.tables") / "shared_networks.csv").read_text("utf-8")
    return SharedNetworks(read(text.splitlines(), "tables/shared_networks.csv"))
