"""A reply in, what it decides out.

Errata A6: accepted iff the result is true, whatever ``error`` is or is absent; refused iff the result is
false or null or an error is given.  Other accepted results ("OK") are rows ``[[accept]]``.
"""

from typing import Any, Final

import msgspec

from detector.dialects.shapes import MISSING
from detector.dialects.table import Line, Table

MAX_WORDS: Final = 80


class Verdict(msgspec.Struct, gc=False):
    """``accepted`` is None where the reply says neither; ``words`` are the pool's, cut."""

    accepted: bool | None
    code: int | None = None
    words: str = ""


ACCEPTED: Final = Verdict(True)
UNKNOWN: Final = Verdict(None)


def _said(error: Any) -> tuple[int | None, str]:
    """Code and words of an error: array, object, text or number (reference 1.1, item 9)."""
    if type(error) is dict:
        error = [error.get("code"), error.get("message")]
    if type(error) is not list:
        error = [error if type(error) is int else None, error]
    code = error[0] if error and type(error[0]) is int else None
    if code is not None and not -(2**53) < code < 2**53:
        code = None
    words = next((e for e in error if type(e) is str), "")
    return code, words[:MAX_WORDS]


def verdict(said: Line, table: Table) -> Verdict:
    """What the reply ``said`` decides."""
    result = said.get("result", MISSING)
    if result is True:
        return ACCEPTED
    error = said.get("error")
    if not error and result is not None and result is not False and result is not MISSING:
        return ACCEPTED if table.accepted(said) else UNKNOWN
    if not error and result is MISSING:
        return UNKNOWN
    code, words = _said(error)
    reason = said.get("reject-reason")
    if not words and type(reason) is str:
        words = reason[:MAX_WORDS]
    return Verdict(False, code, words)
