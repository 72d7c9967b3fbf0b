"""The table of message forms: rows, loaded once, and which row a JSON object is.

Adding a form, an accepted reply, a stale word or a dialect is adding a row; rows test themselves by their
``hits`` and ``misses``.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Literal

import msgspec

from detector import tables
from detector.dialects import shapes
from detector.dialects.shapes import MISSING, Predicate

Kind = Literal[
    "subscribe", "authorize", "login", "submit", "poll", "hashrate", "configure", "talk",
    "job", "difficulty", "target", "extranonce", "mask", "reconnect", "subscribed", "configured",
]  # fmt: skip
Side = Literal["client", "server"]
Line = dict[str, Any]


class Dialect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One protocol.  ``parser`` names its family's module; ``accepts`` are words for an accepted result.

    ``algorithm`` is set where the protocol serves only one; else a job or a verified share tells it.
    """

    id: str
    parser: Literal["bitcoin", "cryptonote", "ethereum"]
    what: str
    status: Literal["sourced", "UNVERIFIED"]
    source: str
    algorithm: str | None = None


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One form of message.

    ``key`` and ``method`` name it (a member and its text); without ``method`` it is a reply, known by its
    shape.  ``shape`` maps a path ("params", "params/login", "result/0") to a word or a list of words of
    ``shapes``; ``fields`` maps a name to the path that holds it.  ``weak`` forms are no evidence alone.
    ``answers`` is the kind of request that a reply must be paired with to be read so.
    """

    id: str
    dialect: str
    kind: Kind
    side: Side
    status: Literal["sourced", "UNVERIFIED"]
    source: str
    hits: tuple[str, ...]
    misses: tuple[str, ...]
    key: str = "method"
    method: str = ""
    shape: dict[str, str | tuple[str, ...]] = {}
    fields: dict[str, str] = {}
    weak: bool = False
    answers: tuple[str, ...] = ()


class Accept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A result that accepts: the value at ``path`` is as ``word`` says."""

    id: str
    path: str
    word: str
    source: str


class Stale(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A refusal that means late, not wrong: by its code, or by a pattern over its words."""

    id: str
    source: str
    code: int | None = None
    words: str | None = None


def getter(path: str) -> Callable[[Line], Any]:
    """A function from an object to the value at ``path``, MISSING where there is none."""
    keys = [int(k) if k.isdigit() else k for k in path.split("/")]

    def get(value: Any) -> Any:
        for key in keys:
            if type(key) is str:
                value = value.get(key, MISSING) if type(value) is dict else MISSING
            elif type(value) is list and key < len(value):
                value = value[key]
            else:
                return MISSING
        return value

    return get


def _shape(given: str | tuple[str, ...]) -> Predicate:
    return shapes.word(given) if isinstance(given, str) else shapes.elements(given)


class Reader:
    """One row, compiled."""

    __slots__ = ("_fields", "_from_params", "_tests", "dialect", "id", "kind", "row", "weak")

    def __init__(self, row: Form) -> None:
        self.row = row
        self.id, self.kind, self.dialect, self.weak = row.id, row.kind, row.dialect, row.weak
        self._tests = [(getter(path), _shape(word)) for path, word in row.shape.items()]
        self._fields = [(name, getter(path)) for name, path in row.fields.items()]
        wanted = [f"params/{n}" for n in range(len(row.fields))]
        self._from_params = tuple(row.fields) if list(row.fields.values()) == wanted else None

    def matches(self, said: Line) -> bool:
        """Whether the object has this row's shape; its method is the caller's business."""
        return all(test(get(said)) for get, test in self._tests)

    def fields(self, said: Line) -> dict[str, Any]:
        """The declared fields that are there and not null, by name."""
        if self._from_params is not None:
            return dict(zip(self._from_params, said["params"], strict=False))
        out = {}
        for name, get in self._fields:
            value = get(said)
            if value is not MISSING and value is not None:
                out[name] = value
        return out


class Table:
    """All rows, found by method and side, or by the kind of result."""

    def __init__(self) -> None:
        self.dialects: Final = {d.id: d for d in tables.rows("dialects", "dialect", Dialect)}
        self.forms: Final = tables.rows("dialects", "form", Form)
        self._called: Final[dict[str, list[Reader]]] = {}
        self._keys: Final = sorted({f.key for f in self.forms if f.method and f.key != "method"})
        self._replies: Final = [Reader(f) for f in self.forms if not f.method]
        for form in self.forms:
            if form.method:
                name = form.method if form.key == "method" else f"{form.key}\x00{form.method}"
                self._called.setdefault(name, []).append(Reader(form))
        self._accepts: Final = [
            (getter(a.path), shapes.word(a.word)) for a in tables.rows("dialects", "accept", Accept)
        ]
        stale = tables.rows("dialects", "stale", Stale)
        self._stale_codes: Final = {s.code for s in stale if s.code is not None}
        words = "|".join(f"(?:{s.words})" for s in stale if s.words) or r"(?!)"
        self._stale_words: Final = re.compile(words, re.IGNORECASE).search

    def name(self, said: Line) -> str | None:
        """What names the message: the value of ``method``, or of another naming member."""
        method = said.get("method")
        if type(method) is str:
            return method
        for key in self._keys:
            value = said.get(key)
            if type(value) is str:
                return f"{key}\x00{value}"
        return None

    def called(self, name: str, said: Line) -> Reader | None:
        """The row of a message with a name."""
        for reader in self._called.get(name, ()):
            if reader.matches(said):
                return reader
        return None

    def replied(self, said: Line, request: str | None) -> Reader | None:
        """The row of a reply by its shape; ``request`` is the kind of the request it is paired with."""
        for reader in self._replies:
            answers = reader.row.answers
            if (not answers or request in answers) and reader.matches(said):
                return reader
        return None

    def accepted(self, said: Line) -> bool:
        """Whether a declared form of acceptance is there."""
        return any(test(get(said)) for get, test in self._accepts)

    def stale(self, code: int | None, words: str) -> bool:
        """Whether a refusal means that the share came late."""
        return code in self._stale_codes or self._stale_words(words) is not None


@cache
def load() -> Table:
    """The table that ships with the program."""
    return Table()
