"""Sampling rates: what an options record or a flow record says, as "one packet in so many".

Options speak of a sampler where they name one (samplerId 48, selectorId 302), of an interface where they name
one, of every domain of their exporter where their scope is the whole of it, else of their own observation
domain.  A rate of 0 is one that is not known.
"""

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

# Elements (IANA).
INTERVAL: Final = 34
SAMPLER: Final = 48
RANDOM_INTERVAL: Final = 50
SELECTOR: Final = 302
PACKET_INTERVAL: Final = 305
PACKET_SPACE: Final = 306
TIME_INTERVAL: Final = 307
TIME_SPACE: Final = 308
SIZE: Final = 309
POPULATION: Final = 310
PROBABILITY: Final = 311
SYSTEM_INIT: Final = 160
# v9 scopes are no elements (RFC 3954 section 6.1): here they are negative.
SYSTEM_SCOPE: Final = -1
INTERFACE_SCOPE: Final = -2
_INTERFACES: Final = (INTERFACE_SCOPE, 10, 252, 14, 253)
# Elements that stand for the exporter itself: its addresses, the exporting process.
_EXPORTER: Final = (130, 131, 144)
_DOMAIN: Final = 149
# An options template with any of these, in as many octets as a number may have, has something to say to us.
TELLING: Final = frozenset(
    {INTERVAL, RANDOM_INTERVAL, PACKET_INTERVAL, TIME_INTERVAL, SIZE, PROBABILITY, SYSTEM_INIT}
)
MAX_RATE: Final = 2**32 - 1
# All that ``told`` looks at.
READ: Final = TELLING | {SAMPLER, SELECTOR, PACKET_SPACE, TIME_SPACE, POPULATION, SYSTEM_SCOPE, _DOMAIN,
                         *_INTERFACES, *_EXPORTER}  # fmt: skip


def rate(fields: Mapping[int, int]) -> int:
    """The rate that a record's fields (element number to value) say, 0 where they do not."""
    size = fields.get(SIZE, 0)
    found = 0
    for taken, passed in ((PACKET_INTERVAL, PACKET_SPACE), (TIME_INTERVAL, TIME_SPACE)):
        # So many packets (or microseconds) are taken, then so many passed over (RFC 5477 section 8.2); where
        # nothing is said of the latter, exporters mean one in so many.
        interval, space = fields.get(taken, 0), fields.get(passed)
        if interval and (taken == PACKET_INTERVAL or space is not None):
            found = interval if space is None else (interval + space) // interval
            break
    if not found and size and fields.get(POPULATION):
        found = fields[POPULATION] // size
    found = found or fields.get(INTERVAL, 0) or fields.get(RANDOM_INTERVAL, 0) or _chance(fields)
    return min(found, MAX_RATE)


def _chance(fields: Mapping[int, int]) -> int:
    """samplingProbability, a float64, or a float32 by reduced-size encoding."""
    raw = fields.get(PROBABILITY, 0)
    form, octets = (">f", 4) if raw < 1 << 32 else (">d", 8)
    (told,) = struct.unpack(form, raw.to_bytes(octets, "big"))
    return round(1 / told) if 1 / MAX_RATE <= told <= 1 else 0


def sampler(fields: Mapping[int, int]) -> int | None:
    """The sampler that a record names.  Cisco's number 0 for "no sampler" is one like any other."""
    named = fields.get(SAMPLER, fields.get(SELECTOR))
    return None if named is None else named & 0xFFFFFFFF


class Told(NamedTuple):
    """What one options record says: a rate (0: none), of whom, and Unix ms of the exporter's start (0: none).

    ``domain`` is whose rate it is, ``wide``: it holds for domains of the exporter that were told nothing.
    """

    rate: int
    sampler: int | None
    interface: int | None
    domain: int
    wide: bool
    start_ms: int


def told(fields: Mapping[int, int], version: int, domain: int) -> Told:
    """Read an options record of ``domain``.

    The whole exporter is meant by v9's scope System, by an exporter's address or process as a scope, and by
    IPFIX's domain 0 (RFC 7011 section 3.1: no one domain is meant).
    """
    whose = fields.get(_DOMAIN, domain) & 0xFFFFFFFF if version == 10 else domain
    wide = version == 10 and not whose
    wide = wide or (version == 9 and SYSTEM_SCOPE in fields) or any(n in fields for n in _EXPORTER)
    interface = next((fields[n] & 0xFFFFFFFF for n in _INTERFACES if fields.get(n)), None)
    return Told(rate(fields), sampler(fields), interface, whose, wide, fields.get(SYSTEM_INIT, 0))


def _whose(said: Told) -> tuple[int | None, int | None]:
    """A record that names a sampler is of that, whatever interface it names."""
    return said.sampler, None if said.sampler is not None else said.interface


class Samplers:
    """The rates of one domain, or of one exporter as a whole: its own, by sampler, and by interface."""

    def __init__(self) -> None:
        self.own = 0
        self.wide = False
        self.by_id: dict[int, int] = {}
        self.by_interface: dict[int, int] = {}
        # When each was last told, by sampler and interface.
        self._heard: dict[tuple[int | None, int | None], int] = {}

    @property
    def size(self) -> int:
        """How many rates but its own."""
        return len(self.by_id) + len(self.by_interface)

    def find(self, said: Told) -> int | None:
        """The rate that holds for what a record speaks of."""
        if said.sampler is not None:
            return self.by_id.get(said.sampler)
        if said.interface is not None:
            return self.by_interface.get(said.interface)
        return self.own or None

    def learn(self, said: Told) -> None:
        """Take what options say."""
        self.wide = self.wide or said.wide
        if said.sampler is not None:
            self.by_id[said.sampler] = said.rate
        elif said.interface is not None:
            self.by_interface[said.interface] = said.rate
        else:
            self.own = said.rate

    def hear(self, said: Told, now_ns: int) -> None:
        """Note that it was told again."""
        self._heard[_whose(said)] = now_ns

    def old(self, age_ns: int) -> list[Told]:
        """What was not told again for so long before the newest was."""
        newest = max(self._heard.values(), default=0)
        return [
            Told(0, sampler, interface, 0, False, 0)
            for (sampler, interface), t_ns in self._heard.items()
            if newest - t_ns > age_ns
        ]

    def forget(self, said: Told) -> None:
        """Remove a rate."""
        del self._heard[_whose(said)]
        if said.sampler is not None:
            self.by_id.pop(said.sampler, None)
        elif said.interface is not None:
            self.by_interface.pop(said.interface, None)
        else:
            self.own = 0

    @property
    def default(self) -> int:
        """What holds for a record that names no sampler: the domain's rate, else that on which all agree."""
        rates = set(self.by_id.values())
        return self.own or (rates.pop() if len(rates) == 1 else 0)
