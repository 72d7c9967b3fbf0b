"""Where a flow was seen, and which of those that saw it counts.

A row's exporter, interfaces and direction in; the name of its observation point out, or why its bytes do not
count.  One packet may be told of by many: a tap and a router, two routers on its way, one router where it
comes in and where it goes out, one exporter whose datagrams two collectors receive.  The rule:

- Points that see *different* packets add up: observation domains (line cards), interfaces and samplers of one
  exporter that meter the same way, and workers of one tap (``NAME#0``, ``NAME#1``): the kernel gives a packet
  to one of them, and may give a connection to another when all are started anew.
- Points that may see the *same* packets do not: per connection and direction one of them counts, a tap
  before exporters, then the lowest sampling rate, then the lowest address, ingress before egress.  Where that
  one is silent between two minutes of its own no other fills in, unless it is for longer than QUIET_MINUTES:
  records are spread over their time, and those of two exporters never end together.
- Of one exporter's domain the collector with the lowest name counts, minute by minute.
- With border interfaces named, an exporter's row counts only where it came in or went out by one of them.  A
  packet crosses the border once, so what different exporters tell there adds up.

Successive records of one long flow come from one point, so they add up.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

QUIET_MINUTES: Final = 30
"""The longest silence of a point that still says: no traffic.  Active timeouts are 1 to 30 minutes."""
MOST_POINTS: Final = 64
"""Of one connection: forged exporters make no more."""
NEVER: Final = -(1 << 62)

SourceKey = tuple[int, str]
"""Packets per packet that was looked at, 0 for a tap, and the name of the point."""

Interface = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]


class Border(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An exporter at the border: its address and the ifIndex of its border interfaces; none: all of them."""

    exporter: str
    interfaces: tuple[Interface, ...] = ()

    def __post_init__(self) -> None:
        try:
            ip_address(self.exporter)
        except ValueError:
            raise ValueError(f"{self.exporter!r} is no address") from None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which rows of exporters count in the measures; evidence they are in any case.

    ``border`` names the interfaces at which traffic is counted; without it all are.  ``count`` is the
    metering that counts: where a packet comes in, where it goes out, or either.  A row that does not say is
    one of ingress.
    """

    border: tuple[Border, ...] = ()
    count: Literal["ingress", "egress", "either"] = "either"


class Passed(StrEnum):
    """Why the bytes of a row do not count."""

    EXPORTER = "exporter"  # not at the border
    INTERFACE = "interface"  # came in and went out by other interfaces than those of the border
    NO_INTERFACE = "no_interface"  # does not say by which
    DIRECTION = "direction"  # metered the other way than `count` says
    SECOND = "second"  # another point has told of the same traffic
    POINTS = "points"  # one more point than MOST_POINTS of a connection


class Seen(NamedTuple):
    """Who saw a row, None where it does not say: the exporter as 16 bytes, its domain, the ifIndex by which
    the packets came in and went out, flowDirection (0 ingress, 1 egress), and who received it."""

    rate: int
    exporter: bytes | None
    domain: int | None
    entered: int | None
    left: int | None
    direction: int | None
    collector: str


class Rule:
    """The rule of one configuration.  ``source`` is its verb."""

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or Config()
        self._border: dict[bytes, set[int]] = {}
        for one in self._config.border:
            address = ip_address(one.exporter)
            packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
            known = self._border.get(packed)
            both = known and one.interfaces  # none named: all of them
            self._border[packed] = (
                set(one.interfaces) if known is None else known | {*one.interfaces} if both else set()
            )

    def source(self, seen: Seen) -> SourceKey | Passed:
        """The point that exported a row, or why the row does not count."""
        egress = seen.direction == 1
        if self._config.count == ("ingress" if egress else "egress"):
            return Passed.DIRECTION
        way = "e" if egress else ""
        exporter = seen.exporter.hex() if seen.exporter else "?"
        domain = "" if seen.domain is None else str(seen.domain)
        if not self._border:
            return max(1, seen.rate), f"{exporter}{way}/{domain}/{seen.collector}"
        why = self._inside(seen)
        return why or (max(1, seen.rate), f"border{way}/{exporter}:{domain}/{seen.collector}")

    def _inside(self, seen: Seen) -> Passed | None:
        interfaces = self._border.get(seen.exporter or b"")
        if interfaces is None:
            return Passed.EXPORTER
        if not interfaces or seen.entered in interfaces or seen.left in interfaces:
            return None
        known = seen.entered is not None or seen.left is not None
        return Passed.INTERFACE if known else Passed.NO_INTERFACE


def tap(collector: str) -> SourceKey:
    """The point that is a packet collector, or the worker of one."""
    return 0, collector


@lru_cache(maxsize=4096)
def _parts(source: SourceKey) -> tuple[str, str, str]:
    """Group, part and copy.  Groups may see the same packets; parts of a group see different ones; copies
    of a part are one export, received by different collectors."""
    rate, name = source
    if rate == 0:
        whole, _, worker = name.partition("#")
        return f"tap/{whole}", worker, ""
    group, _, rest = name.partition("/")
    part, _, copy = rest.partition("/")
    return group, f"{rate}/{part}", copy


def group_of(source: SourceKey) -> str:
    """The group of a point: of two groups one counts."""
    return _parts(source)[0]


def copies_removed(sources: Iterable[SourceKey]) -> list[SourceKey]:
    """Of points of one group those that count: of each part the collector with the lowest name."""
    first: dict[str, tuple[str, SourceKey]] = {}
    for source in sources:
        _, part, copy = _parts(source)
        known = first.get(part)
        if known is None or copy < known[0]:
            first[part] = copy, source
    return [source for _, source in first.values()]


class Presence:
    """When each group told of one direction of a connection: who speaks for a minute, and who is silent.

    ``minutes`` is {group: its minutes, ascending}, ``folded`` {group: the newest of those that are kept no
    longer, or NEVER}.
    """

    def __init__(self, ranked: Iterable[str], minutes: Mapping[str, list[int]], folded: Mapping[str, int]):
        self._ranked = list(ranked)
        self._minutes = minutes
        self._folded = folded

    def speaker(self, minute: int) -> str | None:
        """The group that counts in a minute, None where the one that does tells of nothing."""
        for group in self._ranked:
            told = self._minutes.get(group, [])
            at = bisect_left(told, minute)
            if at < len(told) and told[at] == minute:
                return group
            if self._covers(group, told, minute):
                return None
        return None

    def _covers(self, group: str, told: list[int], minute: int) -> bool:
        """Whether a group that has nothing in a minute says so: it has a minute beside it, or one before and
        one after that are not far apart."""
        at = bisect_right(told, minute)
        folded = self._folded.get(group, NEVER)
        before = told[at - 1] if at else folded
        before = max(before, folded) if folded < minute else before
        after = told[at] if at < len(told) else -NEVER
        if folded >= minute:  # a late row: what stood beside it is kept no longer
            return folded - minute <= QUIET_MINUTES
        return minute - before <= 1 or after - minute <= 1 or after - before <= QUIET_MINUTES
