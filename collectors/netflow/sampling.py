"""Sampling rates: what an options record or a flow record says, as "one packet in so many".

Options speak of a sampler where they name one (samplerId 48, selectorId 302), else of their whole
observation domain.  A rate of 0 is one that is not known.
"""

from collections.abc import Mapping
from typing import Final

# Elements (IANA).
INTERVAL: Final = 34
SAMPLER: Final = 48
RANDOM_INTERVAL: Final = 50
SELECTOR: Final = 302
PACKET_INTERVAL: Final = 305
PACKET_SPACE: Final = 306
SIZE: Final = 309
POPULATION: Final = 310
SYSTEM_INIT: Final = 160
# An options template with any of these has something to say to us.
TELLING: Final = frozenset({INTERVAL, RANDOM_INTERVAL, PACKET_INTERVAL, SIZE, SYSTEM_INIT})
MAX_RATE: Final = 2**32 - 1


def rate(fields: Mapping[int, int]) -> int:
    """The rate that a record's fields (element number to value) say, 0 where they do not."""
    interval = fields.get(PACKET_INTERVAL, 0)
    size = fields.get(SIZE, 0)
    if interval:
        # So many packets are taken, then so many are passed over (RFC 5477 section 8.2); where nothing is
        # said of the latter, exporters mean one in so many.
        space = fields.get(PACKET_SPACE)
        found = interval if space is None else (interval + space) // interval
    elif size and fields.get(POPULATION):
        found = fields[POPULATION] // size
    else:
        found = fields.get(INTERVAL, 0) or fields.get(RANDOM_INTERVAL, 0)
    return min(found, MAX_RATE)


def sampler(fields: Mapping[int, int]) -> int | None:
    """The sampler that a record names.  Cisco's number 0 for "no sampler" is one like any other."""
    named = fields.get(SAMPLER, fields.get(SELECTOR))
    return None if named is None else named & 0xFFFFFFFF


class Samplers:
    """The rates of one domain: its own, and by sampler; bounded."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self.own = 0
        self.by_id: dict[int, int] = {}

    def learn(self, fields: Mapping[int, int]) -> bool:
        """Take what options say; whether anything changed."""
        told, name = rate(fields), sampler(fields)
        if not told:
            return False
        if name is None:
            changed, self.own = self.own != told, told
            return changed
        if self.by_id.get(name) == told or (name not in self.by_id and len(self.by_id) >= self._most):
            return False
        self.by_id[name] = told
        return True

    @property
    def default(self) -> int:
        """What holds for a record that names no sampler: the domain's rate, else that on which all agree."""
        rates = set(self.by_id.values())
        return self.own or (rates.pop() if len(rates) == 1 else 0)
