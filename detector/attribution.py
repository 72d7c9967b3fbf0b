"""Whose address it is: unit, sector and city, from the operator's own table of prefixes.

``address`` in, a place or None out.  The table is a CSV file with the header ``prefix,unit,sector,city``;
the longest prefix wins.
"""

import csv
from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import msgspec

from detector.errors import ConfigError


class Place(msgspec.Struct, frozen=True):
    """Where a subscriber is, for the report; "" where not known."""

    unit: str
    sector: str
    city: str


COLUMNS = ("prefix", "unit", "sector", "city")


class Places:
    """Prefixes flattened into disjoint ranges over the 128-bit space, IPv4 mapped."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        """Raises ConfigError, with the line, on a row that cannot be read."""
        nets: list[tuple[int, int, Place]] = []
        reader = csv.DictReader(lines)
        try:
            rows = list(enumerate(reader, 2))
        except csv.Error as error:
            raise ConfigError(f"places, line {reader.line_num}: {error}") from None
        if reader.fieldnames is not None and tuple(reader.fieldnames) != COLUMNS:
            raise ConfigError(f"places: the header must be {','.join(COLUMNS)}")
        for number, row in rows:
            try:
                network = ip_network((row["prefix"] or "").strip())
            except ValueError as error:
                raise ConfigError(f"places, line {number}: {error}") from None
            base = 0xFFFF << 32 if network.version == 4 else 0
            place = Place(row["unit"] or "", row["sector"] or "", row["city"] or "")
            nets.append((base + int(network.network_address), base + int(network.broadcast_address), place))
        self._rows = len(nets)
        self._starts: list[int] = [0]
        self._places: list[Place | None] = [None]
        # Wide networks first, so that a narrower one is laid over it.
        for first, last, place in sorted(nets, key=lambda n: n[0] - n[1]):
            self._lay(first, last, place)

    def __len__(self) -> int:
        return self._rows

    def _lay(self, first: int, last: int, place: Place) -> None:
        left = bisect_right(self._starts, first) - 1
        right = bisect_right(self._starts, last) - 1
        after = self._places[right]
        keep = left if self._starts[left] == first else left + 1
        self._starts[keep : right + 1] = [first, last + 1]
        self._places[keep : right + 1] = [place, after]
        if keep + 2 < len(self._starts) and self._starts[keep + 1] == self._starts[keep + 2]:
            del self._starts[keep + 1], self._places[keep + 1]

    def find(self, address: bytes) -> Place | None:
        """The place of a 16-byte address."""
        return self._places[bisect_right(self._starts, int.from_bytes(address, "big")) - 1]


def text(address: bytes) -> str:
    """A 16-byte address as people write it."""
    made = ip_address(address)
    mapped = made.ipv4_mapped if made.version == 6 else None
    return str(mapped or made)
