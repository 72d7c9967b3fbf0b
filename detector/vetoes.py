"""The value of a ``method`` member in, what it says the connection is instead out."""

import re
from functools import cache

import msgspec

from detector import tables


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One namespace; ``pattern`` is matched from the beginning of the method's name."""

    id: str
    pattern: str
    why: str
    source: str
    hits: tuple[str, ...]
    misses: tuple[str, ...]


@cache
def load() -> tuple[Row, ...]:
    """All rows."""
    return tables.rows("vetoes", "veto", Row)


@cache
def _patterns() -> tuple[tuple[Row, re.Pattern[str]], ...]:
    return tuple((row, re.compile(row.pattern)) for row in load())


def find(method: str) -> Row | None:
    """The row that the method matches."""
    for row, pattern in _patterns():
        if pattern.match(method):
            return row
    return None
