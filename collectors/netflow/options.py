"""Options data sets: octets and their template in; what each distinct record says, as numbers, out.

A record that is repeated within a set says nothing new, so each is read once, the last of equals in its
place; and of its fields only those that ``sampling`` looks at.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from collectors.netflow.readers import cut
from collectors.netflow.sampling import READ, TELLING
from collectors.netflow.templates import VARIABLE, Template

# v9's types of scope (RFC 3954 section 6.1): they are no elements, and negative here.
_SCOPES: Final = 5


def tells(template: Template) -> bool:
    """Whether records of an options template may say what we use."""
    return any(
        f.number in TELLING and not f.enterprise and (0 < f.width <= 8 or f.width == VARIABLE)
        for f in template.fields
    )


class _Plan(NamedTuple):
    """Octets of the shortest record, whether records vary, and of each field that is used: its number, its
    place among the fields, its first octet and its width."""

    least: int
    varies: bool
    used: tuple[tuple[int, int, int, int], ...]


@lru_cache(maxsize=1024)
def _plan(template: Template) -> _Plan:
    found = []
    at = 0
    for i, f in enumerate(template.fields):
        scope = template.version == 9 and i < template.scopes and f.number <= _SCOPES
        number = -f.number if scope else f.number
        if number in READ and f.width and not f.enterprise:
            found.append((number, i, at, f.width))
        at += f.width
    return _Plan(template.least, any(f.width == VARIABLE for f in template.fields), tuple(found))


def read(template: Template, body: bytes) -> tuple[int, list[dict[int, int]]]:
    """How many records there are, and the numbers that distinct ones say: IANA elements of up to 8 octets."""
    least, varies, used = _plan(template)
    if varies:
        rows = list(cut(template, body))
        return len(rows), [
            {n: int.from_bytes(row[i], "big") for n, i, _, _ in used if 0 < len(row[i]) <= 8} for row in rows
        ]
    if not least:
        return 0, []
    count = len(body) // least
    # From the last to the first: of equals the last is met, and it overrules what came before it.
    octets = dict.fromkeys(body[at : at + least] for at in range((count - 1) * least, -1, -least))
    numbers = [(n, at, at + width) for n, _, at, width in used if width <= 8]
    distinct = [{n: int.from_bytes(row[a:b], "big") for n, a, b in numbers} for row in octets]
    return count, distinct[::-1]
