"""A reply in, what it decides out.

Errata A6: accepted iff the result is true, whatever ``error`` is or is absent; refused iff the result is
false or null or an error is given.  Other results that accept ("OK") or refuse are rows ``[[accept]]`` and
``[[refuse]]``.
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


def plain(fields: Line, says: bool | None = None) -> Line:
    """The reply that a message of kind ``answer`` is: one with a method of its own, or whose members have
    other names; ``says``: it accepts, or refuses, by its name.  Beam tells by a code alone: 0 lets in, 1
    accepts (errata B8)."""
    if says is not None:
        error = [fields.get("code"), fields.get("words")]
        return {"id": None, "result": True} if says else {"id": None, "error": error}
    code = fields.get("code")
    if type(code) is not int:
        return fields
    out: Line = {"id": fields.get("id")}
    if code in {0, 1}:
        return {**out, "result": True}
    return {**out, "error": [code, fields.get("words")]}


def _null(result: Any) -> Verdict:
    """BIP 22: null accepts, a text says why not; of an object any null does (errata B15)."""
    if result is None or (type(result) is dict and None in result.values()):
        return ACCEPTED
    return Verdict(False, None, result[:MAX_WORDS]) if type(result) is str else UNKNOWN


def key(said: Line) -> Any:
    """The id of the request that ``said`` answers.  An error of Iron Fish carries it, beside the server's
    own counter (errata A8)."""
    error = said.get("error")
    if type(error) is dict and "id" in error and "code" not in error:
        return error["id"]
    return said.get("id")


def verdict(said: Line, table: Table, dialect: str = "mining") -> Verdict:
    """What the reply ``said`` decides in a session of ``dialect``."""
    result = said.get("result", MISSING)
    if result is True:
        return ACCEPTED
    error = said.get("error")
    if dialect in table.nulls and not error and result is not MISSING:
        return _null(result)
    if not error and result is not None and result is not False and result is not MISSING:
        if table.accepted(said):
            return ACCEPTED
        refused = table.refused(said)
        return UNKNOWN if refused is None else Verdict(False, None, refused[:MAX_WORDS])
    bare = dialect in table.bare
    if not error and result is MISSING:
        return ACCEPTED if bare else UNKNOWN
    code, words = _said(error)
    reason = said.get("reject-reason")
    if not words and type(reason) is str:
        words = reason[:MAX_WORDS]
    # EIP-1571: "2xx: request accepted and processed", 202 as stale (errata A7).
    return Verdict(bare and code is not None and 200 <= code < 300, code, words)
