"""Structured data of IPFIX (RFC 6313): the octets of a list in, what is in it out.

A ``basicList`` has values of one element; a ``subTemplateList`` has records of one template, and a
``subTemplateMultiList`` of several.  Lists nest, here to a bounded depth.  What cannot be read is hex.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from collectors.netflow.elements import Element
from collectors.netflow.messages import u2, u4
from collectors.netflow.readers import cut
from collectors.netflow.templates import VARIABLE, Field, Template
from collectors.netflow.values import LISTS, value

MAX_DEPTH: Final = 8
SEMANTICS: Final = {
    0: "noneOf",
    1: "exactlyOneOf",
    2: "oneOrMoreOf",
    3: "allOf",
    4: "ordered",
    255: "undefined",
}

# The records in some octets by the template of that id, lists read by the callable; None: not known.
ReadList = Callable[[str, bytes], Any]
Records = Callable[[int, bytes, ReadList], Iterable[dict[str, Any]] | None]
Name = Callable[[int, int], Element]


class Lists:
    """Reads lists of one observation domain.  ``name`` names elements by (enterprise, number); ``records``
    reads records of its templates."""

    def __init__(self, name: Name, records: Records, depth: int = 0) -> None:
        self._name = name
        self._records = records
        self._depth = depth

    def read(self, kind: str, raw: bytes) -> Any:
        """What a list of type ``kind`` has: ``semantic`` and its members, or ``octets`` in hex."""
        if self._depth >= MAX_DEPTH or not raw:
            return {"type": kind, "octets": raw.hex()}
        semantic = SEMANTICS.get(raw[0], raw[0])
        made: dict[str, Any] | None
        if kind == "basicList":
            made = self._basic(raw)
        elif kind == "subTemplateList":
            made = self._records_of(u2(raw, 1), raw[3:]) if len(raw) >= 3 else None
        else:
            parts = self._parts(raw)
            made = None if parts is None else {"lists": parts}
        if made is None:
            return {"type": kind, "octets": raw.hex()}
        return {"type": kind, "semantic": semantic, **made}

    def _deeper(self) -> "Lists":
        return Lists(self._name, self._records, self._depth + 1)

    def _basic(self, raw: bytes) -> dict[str, Any] | None:
        """RFC 6313 section 4.5.1: semantic, field, length, then as many as there are."""
        if len(raw) < 5:
            return None
        number, width = u2(raw, 1), u2(raw, 3)
        at, enterprise = 5, 0
        if number & 0x8000:
            if len(raw) < 9:
                return None
            number, enterprise, at = number & 0x7FFF, u4(raw, 5), 9
        element = self._name(enterprise, number)
        one = Template(10, 0, (Field(number, width, enterprise),))
        if not width and at < len(raw):
            return None
        values = [self._member(element.type, found, width) for (found,) in cut(one, raw[at:])]
        return {"element": element.name, "values": values}

    def _member(self, kind: str, raw: bytes, width: int) -> Any:
        if kind in LISTS:
            return self._deeper().read(kind, raw)
        return value(kind, raw, width == VARIABLE)

    def _records_of(self, template: int, body: bytes) -> dict[str, Any]:
        found = self._records(template, body, self._deeper().read)
        if found is None:
            return {"templateId": template, "octets": body.hex()}
        return {"templateId": template, "records": list(found)}

    def _parts(self, raw: bytes) -> list[dict[str, Any]] | None:
        """RFC 6313 section 4.5.3: after the semantic, template ids and lengths, each with its records."""
        made = []
        for template, body in _cut_parts(raw):
            if template is None:
                return None
            made.append(self._records_of(template, body))
        return made


def _cut_parts(raw: bytes) -> Iterator[tuple[int | None, bytes]]:
    at = 1
    while at < len(raw):
        size = u2(raw, at + 2) if at + 4 <= len(raw) else 0
        if size < 4 or at + size > len(raw):
            yield None, b""
            return
        yield u2(raw, at), raw[at + 4 : at + size]
        at += size
