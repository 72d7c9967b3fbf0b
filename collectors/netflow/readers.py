"""A template in; what reads its records in full, by name, out.

Where every field has a width of its own, ``struct`` takes a record apart at once, and only what is no plain
number is looked at again.  ``cut`` and ``values.value`` say what is in a record, field by field.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from collectors.netflow.elements import Element
from collectors.netflow.messages import Clock, u2
from collectors.netflow.templates import VARIABLE, Template
from collectors.netflow.values import LISTS, code, reader, rfc3339, value

PADDING: Final = 210  # paddingOctets
# Uptimes, and the elements that say the same as a time.
TIMES: Final = {"flowStartSysUpTime": "flowStartMilliseconds", "flowEndSysUpTime": "flowEndMilliseconds"}
# Reads a list (RFC 6313): its octets and type in, what is in it out.
ReadList = Callable[[str, bytes], Any]


class _Field(NamedTuple):
    """A field that is shown: its place among all of the template, and how it is read."""

    place: int
    name: str
    type: str
    width: int


def cut(template: Template, body: bytes, broken: Callable[[], None] = lambda: None) -> Iterator[list[bytes]]:
    """The fields of each record in a data set's body.  What is left over at its end is padding; where it can
    be neither that nor a record ``broken`` is called."""
    at, least = 0, template.least
    # Those of no octets cost nothing: a template may have two thousand, and a record be one octet.
    widths = [(i, each.width) for i, each in enumerate(template.fields) if each.width]
    blank = [b""] * len(template.fields)
    while least and len(body) - at >= least:
        found, begin = blank.copy(), at
        for i, told in widths:
            width = told
            if width == VARIABLE:
                # RFC 7011 section 7: one octet of length, or 255 and two.
                if at >= len(body):
                    _rest(body, begin, broken)
                    return
                width, at = body[at], at + 1
                if width == 255:
                    width, at = u2(body, at), at + 2
            if at + width > len(body):
                _rest(body, begin, broken)
                return
            found[i] = body[at : at + width]
            at += width
        yield found
    if not least:
        _rest(body, 0, broken)


def _rest(body: bytes, at: int, broken: Callable[[], None]) -> None:
    if any(body[at:]):
        broken()


class Reader:
    """Reads the records of one template.  ``named`` are its fields' elements, in order.

    Padding and fields of no octets are left out; a field that comes twice is a list.  ``read_list`` reads
    structured data.  ``times`` are uptimes and what they are called as times, which records end with.
    """

    def __init__(self, template: Template, named: Sequence[Element], read_list: ReadList) -> None:
        self.template, self.named = template, named
        self._read_list = read_list
        # Data sets with octets that are neither records nor padding.
        self.broken = 0
        self._fields = [
            _Field(i, element.name, element.type, told.width)
            for i, (element, told) in enumerate(zip(named, template.fields, strict=True))
            if told.width and (told.number != PADDING or told.enterprise)
        ]
        names = [f.name for f in self._fields]
        self._again = (
            frozenset(n for n in names if names.count(n) > 1) if len(set(names)) < len(names) else ()
        )
        fixed = all(f.width != VARIABLE for f in template.fields)
        self._struct = self._packed() if fixed and not self._again and template.least else None
        self._names = names
        self.times = tuple(
            (f.name, TIMES[f.name])
            for f in self._fields
            if f.name in TIMES and f.width == 4 and TIMES[f.name] not in names and f.name not in self._again
            if template.version != 10 and not template.fields[f.place].enterprise
        )
        self._later = self._conversions()

    def _packed(self) -> struct.Struct:
        shown = {f.place: f for f in self._fields}
        letters = [
            (code(shown[i].type, told.width) or f"{told.width}s") if i in shown else f"{told.width}x"
            for i, told in enumerate(self.template.fields)
        ]
        return struct.Struct(">" + "".join(letters))

    def _conversions(self) -> list[tuple[str, Callable[[bytes], Any]]]:
        """What is not read by ``struct`` as it is meant."""
        return [
            (f.name, self._form(f)) for f in self._fields if f.width != VARIABLE and not code(f.type, f.width)
        ]

    def _form(self, field: _Field) -> Callable[[bytes], Any]:
        if field.type in LISTS:
            kind = field.type
            return lambda raw: self._read_list(kind, raw)
        return reader(field.type, field.width, False)

    def read(
        self, body: bytes, context: Mapping[str, Any] = MappingProxyType({}), clock: Clock | None = None
    ) -> Iterable[dict[str, Any]]:
        """A row for each record in a data set's body, after what ``context`` says of all of them; uptimes
        are times too where there is a ``clock``."""
        rows = self._rows(body, context)
        return rows if clock is None or not self.times else self._timed(rows, clock)

    def _timed(self, rows: Iterable[dict[str, Any]], clock: Clock) -> Iterator[dict[str, Any]]:
        for row in rows:
            for uptime, name in self.times:
                row[name] = rfc3339(clock.at(row[uptime]) * 1_000_000, 3)
            yield row

    def _rows(self, body: bytes, context: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        if self._struct is None:
            return ({**context, **row} for row in self._slowly(body))
        size = self._struct.size
        whole = body if len(body) % size == 0 else body[: len(body) // size * size]
        return self._quickly(self._struct, whole, context)

    def _quickly(
        self, layout: struct.Struct, body: bytes, context: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        names, head, later = [*context, *self._names], tuple(context.values()), self._later
        for found in layout.iter_unpack(body):
            # Of one length by construction, and to make one dictionary is cheaper than to join two.
            row = dict(zip(names, head + found))  # noqa: B905
            for name, form in later:
                row[name] = form(row[name])
            yield row

    def _break(self) -> None:
        self.broken += 1

    def _slowly(self, body: bytes) -> Iterator[dict[str, Any]]:
        for found in cut(self.template, body, self._break):
            row: dict[str, Any] = {}
            for field in self._fields:
                raw = found[field.place]
                if field.type in LISTS:
                    given = self._read_list(field.type, raw)
                else:
                    given = value(field.type, raw, field.width == VARIABLE)
                if field.name in self._again and field.name in row:
                    row[field.name].append(given)
                else:
                    row[field.name] = [given] if field.name in self._again else given
            yield row
