"""Records as lines of JSON by a compiled program of their template: octets in, octets out.

What ``readers`` and an encoder make of a data set, byte for byte, without an object a record.  What the
program cannot say (lists, fields that come twice, floats, text other than ASCII, times beyond the year 9999)
is left to them, a data set at a time.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from collectors.jit import kept
from collectors.netflow.jsonwriter import (
    BOOLEAN,
    HEX,
    IPV4,
    IPV6,
    MAC,
    MICROSECONDS,
    MILLISECONDS,
    NANOSECONDS,
    SECONDS,
    SIGNED,
    SKIPPED,
    TEXT,
    TIME,
    UNSIGNED,
    UNTYPED,
    write,
)  # fmt: skip
from collectors.netflow.messages import Clock
from collectors.netflow.readers import PADDING as PADDING_ELEMENT
from collectors.netflow.readers import Reader
from collectors.netflow.templates import VARIABLE
from collectors.netflow.values import LISTS, reader
from collectors.reading import PADDING

# The program's kind by the function that reads such fields elsewhere; of each function one type and width.
_KINDS: Final[dict[Callable[[bytes], Any], int]] = {
    reader(type_, width, False): kind
    for type_, width, kind in (
        ("unsigned32", 4, UNSIGNED), ("signed32", 4, SIGNED), ("ipv4Address", 4, IPV4),
        ("ipv6Address", 16, IPV6), ("macAddress", 6, MAC), ("boolean", 1, BOOLEAN),
        ("dateTimeSeconds", 4, SECONDS), ("dateTimeMilliseconds", 8, MILLISECONDS),
        ("dateTimeMicroseconds", 8, MICROSECONDS), ("dateTimeNanoseconds", 8, NANOSECONDS),
        ("octetArray", 4, HEX), ("string", 4, TEXT),
    )
}  # fmt: skip
_OF_VARIABLE: Final = {"string": TEXT, "octetArray": HEX, "": UNTYPED}
_UNQUOTED: Final = frozenset({UNSIGNED, SIGNED, BOOLEAN})
# The longest value of a kind; of those that are not here it is twice their octets.
_LONGEST: Final = {
    UNSIGNED: 20, SIGNED: 20, BOOLEAN: 5, IPV4: 15, IPV6: 39, MAC: 17, SECONDS: 20, MILLISECONDS: 24,
    MICROSECONDS: 27, NANOSECONDS: 30, TIME: 24,
}  # fmt: skip
# IPFIX has none, nor uptimes that need one.
_NO_CLOCK: Final = Clock(0, 0)
# Names may be an exporter's own, of any length (RFC 5610): longer records are not worth the memory.
MAX_RECORD: Final = 65536
# Octets that a data set may become: one of 64 KiB may be so many records of one octet with long names.
MAX_LINES: Final = 16 << 20
# To compile the kernel takes three times as long as so many octets of data sets take without it.
SLOW_OCTETS: Final = 8 << 20


class Program(NamedTuple):
    """How a record is written.  ``fields`` (n, 4) i8: kind, width (-1: told in the record), where its name is
    in ``names`` (u1, PADDING octets more) and how long; of a TIME, in the width's place, where in the record
    the uptime is.  ``least`` octets are a record, and at most ``record`` its line, without text and what all
    begin with."""

    fields: np.ndarray
    names: np.ndarray
    least: int
    record: int


def program(known: Reader, context: Mapping[str, Any]) -> Program | None:
    """The program of what ``known`` reads; None where there can be none."""
    template = known.template
    rows: list[tuple[int, int, int, int]] = []
    names, record, seen = b"", 0, set(context)
    at, places = 0, dict[str, int]()
    for element, told in zip(known.named, template.fields, strict=True):
        if not told.width:
            continue
        places[element.name], at = at, at + told.width
        width = -1 if told.width == VARIABLE else told.width
        if told.number == PADDING_ELEMENT and not told.enterprise:
            rows.append((SKIPPED, width, 0, 0))
            continue
        kind = _kind(element.type, told.width)
        if kind is None or element.name in seen:
            return None
        seen.add(element.name)
        name = _key(element.name, kind)
        rows.append((kind, width, len(names), len(name)))
        names += name
        record += len(name) + _LONGEST.get(kind, 0) + 1
        if record > MAX_RECORD:
            return None
    if known.times and at >= VARIABLE:
        # Nobody says uptimes beside fields of variable length, and where they are would vary.
        return None
    for uptime, called in known.times:
        name = _key(called, TIME)
        rows.append((TIME, places[uptime], len(names), len(name)))
        names += name
        record += len(name) + _LONGEST[TIME] + 1
    if not rows:
        return None
    padded = np.frombuffer(names + bytes(PADDING), np.uint8)
    return Program(np.array(rows, np.int64), padded, template.least, record + 2)


def _key(name: str, kind: int) -> bytes:
    """What is written before a value."""
    return b"," + msgspec.json.encode(name) + b":" + (b"" if kind in _UNQUOTED else b'"')


def _kind(type_: str, width: int) -> int | None:
    if type_ in LISTS:
        return None
    if width == VARIABLE:
        return _OF_VARIABLE.get(type_)
    return _KINDS.get(reader(type_, width, False))


class Lines:
    """Writes data sets as JSON lines; ``records.State.lines`` takes ``written``.

    While the kernel is not compiled yet the first ``slow_octets`` are left to the reader, so that nobody
    waits for it for a small file.
    """

    def __init__(self, slow_octets: int = SLOW_OCTETS) -> None:
        self._left = 0 if kept(write) else slow_octets
        self._programs: WeakKeyDictionary[Reader, Program | None] = WeakKeyDictionary()
        self._out = np.empty(1 << 18, np.uint8)

    def written(
        self, known: Reader, body: bytes, context: Mapping[str, Any], clock: Clock | None
    ) -> bytes | None:
        """The records in a data set's body, a line each; None where the reader must read them."""
        if self._left > 0:
            self._left -= len(body)
            return None
        try:
            made = self._programs[known]
        except KeyError:
            made = self._programs[known] = program(known, context)
        if made is None:
            return None
        head = msgspec.json.encode(context)[:-1]
        most = len(body) // made.least * (len(head) + made.record) + 2 * len(body) + PADDING
        if most > MAX_LINES:
            return None
        if most > self._out.size:
            self._out = np.empty(most, np.uint8)
        size = write(
            np.frombuffer(body + bytes(PADDING), np.uint8), len(body), made.least, made.fields,
            made.names, np.frombuffer(head + bytes(PADDING), np.uint8), len(head), *(clock or _NO_CLOCK),
            self._out,
        )  # fmt: skip
        return None if size < 0 else self._out[:size].tobytes()
