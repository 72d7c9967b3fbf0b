"""Information elements: (enterprise, number) in, name and type out.

``elements.csv`` holds facts: IANA's IPFIX registry (enterprise 0), and vendors' elements by their own
names as far as they are published; an empty type there means that nobody says.  RFC 5103 section 6.1: the
reverse of an IANA element has its number under enterprise 29305.
"""

import csv
from functools import lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

REVERSE: Final = 29305
# NetFlow v9 scope types (RFC 3954 section 6.1), which are no information elements.
SCOPES: Final = {
    1: "scopeSystem",
    2: "scopeInterface",
    3: "scopeLineCard",
    4: "scopeCache",
    5: "scopeTemplate",
}


class Element(NamedTuple):
    """A name, and an abstract data type of RFC 7012 section 3.1 or "" where it is not known."""

    name: str
    type: str


def _read() -> dict[tuple[int, int], Element]:
    text = (files("collectors.netflow") / "elements.csv").read_text()
    return {
        (int(row["enterprise"]), int(row["number"])): Element(row["name"], row["type"])
        for row in csv.DictReader(text.splitlines())
    }


@lru_cache(maxsize=1)
def table() -> dict[tuple[int, int], Element]:
    """Every element that is known, read once."""
    return _read()


@lru_cache(maxsize=8192)
def element(enterprise: int, number: int) -> Element:
    """What an element is called; ``enterprise<PEN>_<id>`` or ``element<id>`` where nobody told us."""
    known = table().get((enterprise, number))
    if known is not None:
        return known
    if enterprise == REVERSE and (0, number) in table():
        forward = table()[0, number]
        return Element("reverse" + forward.name[0].upper() + forward.name[1:], forward.type)
    return Element(f"enterprise{enterprise}_{number}" if enterprise else f"element{number}", "")


def scope(version: int, number: int) -> Element:
    """A scope field: an element in IPFIX, a kind of place in v9."""
    if version == 9 and number in SCOPES:
        return Element(SCOPES[number], "")
    return element(0, number)
