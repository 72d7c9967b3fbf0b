"""A template in, a column program out: what a compiled kernel does to a record's octets, as a small table.

A program is rows of OP.  A record is one run of octets per segment: segment 0 begins with the record, and
each field of variable length ends one; so a field's place is its segment's beginning plus ``at``.  Where
several elements could fill a column, the first of its list that the template has does.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from collectors.netflow import sampling
from collectors.netflow.elements import REVERSE
from collectors.netflow.templates import VARIABLE, Template

# Kinds of operation.
INTEGER: Final = 1
IPV4: Final = 2
IPV6: Final = 3
IPV6_UNLESS_ZERO: Final = 4
SECONDS: Final = 5
MILLISECONDS: Final = 6
NTP_MICROSECONDS: Final = 7
NTP_NANOSECONDS: Final = 8
BEFORE_EXPORT_US: Final = 9
UPTIME: Final = 10
DURATION_MS: Final = 11
DURATION_US: Final = 12
RATE: Final = 13
RATE_OF_SPACE: Final = 14
RATE_OF_SIZE: Final = 15
RATE_OF_SAMPLER: Final = 16
RATE_OF_INTERFACE: Final = 17
RATE_FORCED: Final = 18

# An operation: its kind, the column, where its field begins in its segment, 64 minus the field's bits, the
# segment, and the same of a second field.
OP_KIND, OP_COLUMN, OP_AT, OP_SHIFT, OP_SEGMENT, OP_AT2, OP_SHIFT2 = range(7)
OP_FIELDS: Final = 7
MAX_OPS: Final = 40
MAX_GAPS: Final = 64

# Columns of the first pass, which every record goes through: (name, octets a cell).
KEYS: Final = (
    ("src", 16),
    ("dst", 16),
    ("t_first", 8),
    ("t_last", 8),
    ("duration", 8),
    ("boot_ms", 8),
    ("src_port", 2),
    ("dst_port", 2),
)
# Columns of the second, for records that somebody owns; the order of widths keeps each aligned.
REST: Final = (
    ("bytes", 8),
    ("packets", 8),
    ("reverse_bytes", 8),
    ("reverse_packets", 8),
    ("sampling_rate", 4),
    ("input_interface", 4),
    ("output_interface", 4),
    ("src_as", 4),
    ("dst_as", 4),
    ("tcp_flags", 2),
    ("reverse_tcp_flags", 2),
    ("vlan", 2),
    ("protocol", 1),
    ("tos", 1),
    ("direction", 1),
    ("end_reason", 1),
)
KEY_NAMES: Final = tuple(name for name, _ in KEYS)
REST_NAMES: Final = tuple(name for name, _ in REST)

Ie = tuple[int, int]


def _iana(*numbers: int) -> tuple[Ie, ...]:
    return tuple((0, n) for n in numbers)


def _reverse(*numbers: int) -> tuple[Ie, ...]:
    return tuple((REVERSE, n) for n in numbers)


# Which elements fill a column, best first.  23 and 24 are counted after the router's own work.
INTEGERS: Final[dict[str, tuple[Ie, ...]]] = {
    "src_port": _iana(7, 182, 180),
    "dst_port": _iana(11, 183, 181),
    "bytes": _iana(1, 85, 231, 23, 171),
    "packets": _iana(2, 86, 298, 24, 172),
    "reverse_bytes": (*_reverse(1, 85), (0, 232)),
    "reverse_packets": (*_reverse(2, 86), (0, 299)),
    "input_interface": _iana(10, 252),
    "output_interface": _iana(14, 253),
    "src_as": _iana(16),
    "dst_as": _iana(17),
    "tcp_flags": _iana(6),
    "reverse_tcp_flags": _reverse(6),
    "vlan": _iana(58, 243),
    "protocol": _iana(4),
    "tos": _iana(5),
    "direction": _iana(61),
    "end_reason": _iana(136),
}
ADDRESSES: Final = {"src": (8, 27), "dst": (12, 28)}
# Precise and absolute before coarse and relative; the time of an observation is both first and last.
TIMES: Final = {
    "t_first": (156, 154, 152, 158, 150, 22, 325, 324, 323, 322),
    "t_last": (157, 155, 153, 159, 151, 21, 325, 324, 323, 322),
}
_TIME_KINDS: Final = {
    150: SECONDS, 151: SECONDS, 322: SECONDS,
    152: MILLISECONDS, 153: MILLISECONDS, 323: MILLISECONDS,
    154: NTP_MICROSECONDS, 155: NTP_MICROSECONDS, 324: NTP_MICROSECONDS,
    156: NTP_NANOSECONDS, 157: NTP_NANOSECONDS, 325: NTP_NANOSECONDS,
    158: BEFORE_EXPORT_US, 159: BEFORE_EXPORT_US,
    21: UPTIME, 22: UPTIME,
}  # fmt: skip
_DURATIONS: Final = {161: DURATION_MS, 162: DURATION_US}


@dataclass(frozen=True, slots=True)
class Program:
    """``ops`` (n, OP_FIELDS) i4, of which the first ``keys`` belong to the first pass.

    ``length`` is the record's octets, the least where fields vary; ``gaps`` has, for each field of variable
    length, the octets of the segment before it, and ``tail`` those after the last.  ``present`` has bit i
    where REST[i] is filled.  ``flow``: both addresses are there, so that it makes rows.
    """

    ops: np.ndarray
    keys: int
    length: int
    gaps: tuple[int, ...]
    tail: int
    present: int
    flow: bool


class _Place:
    """Where a field is in the record."""

    __slots__ = ("at", "segment", "width")

    def __init__(self, segment: int, at: int, width: int) -> None:
        self.segment, self.at, self.width = segment, at, width


def _places(template: Template) -> tuple[dict[Ie, _Place], list[int], int]:
    """The first place of every field of a fixed width; the segments before fields that vary; the tail."""
    places: dict[Ie, _Place] = {}
    gaps: list[int] = []
    at = 0
    for each in template.fields:
        if each.width == VARIABLE:
            gaps.append(at)
            at = 0
            continue
        if each.width:
            places.setdefault((each.enterprise, each.number), _Place(len(gaps), at, each.width))
        at += each.width
    return places, gaps, at


def _op(kind: int, column: int, place: _Place, second: _Place | None = None) -> tuple[int, ...]:
    more = (second.at, 64 - 8 * second.width) if second else (0, 0)
    return kind, column, place.at, 64 - 8 * place.width, place.segment, *more


def _first(places: dict[Ie, _Place], wanted: Iterable[Ie], widths: Sequence[int]) -> _Place | None:
    for element in wanted:
        place = places.get(element)
        if place is not None and place.width in widths:
            return place
    return None


_NUMBER: Final = range(1, 9)
_NO_OPS: Final = np.zeros((0, OP_FIELDS), np.int32)


def _addresses(places: dict[Ie, _Place]) -> Iterator[tuple[int, ...]]:
    for name, (four, six) in ADDRESSES.items():
        column = KEY_NAMES.index(name)
        short, long = _first(places, [(0, four)], [4]), _first(places, [(0, six)], [16])
        if short:
            yield _op(IPV4, column, short)
        if long:
            # Some exporters have room for both in every record, and leave one at zero.
            yield _op(IPV6_UNLESS_ZERO if short else IPV6, column, long)


def _times(places: dict[Ie, _Place]) -> Iterator[tuple[int, ...]]:
    for name, wanted in TIMES.items():
        for number in wanted:
            place = _first(places, [(0, number)], _NUMBER)
            if place:
                yield _op(_TIME_KINDS[number], KEY_NAMES.index(name), place)
                break
    for number, kind in _DURATIONS.items():
        place = _first(places, [(0, number)], _NUMBER)
        if place:
            yield _op(kind, KEY_NAMES.index("duration"), place)
            break
    boot = _first(places, [(0, sampling.SYSTEM_INIT)], _NUMBER)
    if boot:
        yield _op(INTEGER, KEY_NAMES.index("boot_ms"), boot)


def _rates(places: dict[Ie, _Place]) -> Iterator[tuple[int, ...]]:
    """Where a record's rate may come from; the last that is not zero holds."""
    column = REST_NAMES.index("sampling_rate")

    def find(number: int) -> _Place | None:
        return _first(places, [(0, number)], _NUMBER)

    interface = _first(places, _iana(10, 252, 14, 253), _NUMBER)
    if interface:
        yield _op(RATE_OF_INTERFACE, column, interface)
    named = find(sampling.SAMPLER) or find(sampling.SELECTOR)
    if named:
        yield _op(RATE_OF_SAMPLER, column, named)
    for number in (sampling.RANDOM_INTERVAL, sampling.INTERVAL):
        plain = find(number)
        if plain:
            yield _op(RATE, column, plain)
    for kind, one, two in (
        (RATE_OF_SIZE, sampling.SIZE, sampling.POPULATION),
        (RATE_OF_SPACE, sampling.PACKET_INTERVAL, sampling.PACKET_SPACE),
    ):
        first, second = find(one), find(two)
        if first and second and first.segment == second.segment:
            yield _op(kind, column, first, second)
    if interface:
        yield _op(RATE_FORCED, column, interface)


def compile_template(template: Template) -> Program:
    """Compile a template, once.  Fields that fill no column cost nothing."""
    places, gaps, tail = _places(template)
    if template.options or not all((0, a) in places or (0, b) in places for a, b in ADDRESSES.values()):
        # It makes no rows: only where its records end matters.
        return Program(_NO_OPS, 0, template.least, tuple(gaps), tail, 0, flow=False)
    keys = [*_addresses(places), *_times(places)]
    rest: list[tuple[int, ...]] = []
    present = 0
    for name, wanted in INTEGERS.items():
        place = _first(places, wanted, _NUMBER)
        if place is None:
            continue
        if name in KEY_NAMES:
            keys.append(_op(INTEGER, KEY_NAMES.index(name), place))
        else:
            rest.append(_op(INTEGER, REST_NAMES.index(name), place))
            present |= 1 << REST_NAMES.index(name)
    rest += _rates(places)
    columns = {op[OP_COLUMN] for op in keys}
    flow = {KEY_NAMES.index(n) for n in ADDRESSES} <= columns
    return Program(
        np.array([*keys, *rest], np.int32).reshape(-1, OP_FIELDS),
        len(keys),
        template.least,
        tuple(gaps),
        tail,
        present,
        flow and len(gaps) <= MAX_GAPS,
    )
