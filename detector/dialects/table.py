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
DECIDES: Final = frozenset({"subscribe", "authorize", "login", "submit", "job"})
"""Kinds that tell who the client is; any side may send a ping or a difficulty to mislead."""
MOST_SORTED: Final = 16
"""Rows of one method are sorted by the length of params up to here."""


class Dialect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One protocol.  ``parser`` names its family's module; ``accepts`` are words for an accepted result.

    ``algorithm`` is set where the protocol serves only one; else a job or a verified share tells it.
    """

    id: str
    parser: Literal["bitcoin", "cryptonote", "ethereum", "getwork"]
    what: str
    status: Literal["sourced", "UNVERIFIED"]
    source: str
    algorithm: str | None = None


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One form of message.

    ``key`` and ``method`` name it (a member and its text); without ``method`` it is a reply, known by its
    shape.  ``shape`` maps a path ("params", "params/login", "result/0") to a word or a list of words of
    ``shapes``; ``fields`` maps a name to the path that holds it.  ``weak`` forms are no evidence alone.
    ``answers`` is the kind of request that a reply must be paired with to be read so.  A reply with
    ``context`` has a shape that other services have too: it counts only in a session of its dialect, or
    where the client asked for work twice, or pushed with id 0.
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
    context: bool = False
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
    keys: list[Any] = [int(k) if k.isdigit() else k for k in path.split("/")]
    first, rest = keys[0], keys[1:]
    if not rest:
        return lambda said: said.get(first, MISSING)
    if len(rest) == 1:
        return _second(first, rest[0])

    def get(value: Any) -> Any:
        for key in keys:
            value = _member(value, key)
        return value

    return get


def _member(value: Any, key: Any) -> Any:
    if type(key) is str:
        return value.get(key, MISSING) if type(value) is dict else MISSING
    return value[key] if type(value) is list and key < len(value) else MISSING


def _second(first: Any, second: Any) -> Callable[[Line], Any]:
    if type(second) is str:

        def named(said: Line) -> Any:
            value = said.get(first)
            return value.get(second, MISSING) if type(value) is dict else MISSING

        return named

    def numbered(said: Line) -> Any:
        value = said.get(first)
        return value[second] if type(value) is list and second < len(value) else MISSING

    return numbered


def _shape(given: str | tuple[str, ...]) -> Predicate:
    return shapes.word(given) if isinstance(given, str) else shapes.elements(given)


class Reader:
    """One row, compiled."""

    __slots__ = ("_fields", "_from_params", "_tests", "decides", "dialect", "id", "kind", "row", "weak")

    def __init__(self, row: Form) -> None:
        self.row = row
        self.id, self.kind, self.dialect, self.weak = row.id, row.kind, row.dialect, row.weak
        self.decides = not row.weak and row.kind in DECIDES
        self._tests = [(getter(path), _shape(word)) for path, word in row.shape.items()]
        self._fields = [(name, getter(path)) for name, path in row.fields.items()]
        wanted = [f"params/{n}" for n in range(len(row.fields))]
        quick = type(row.shape.get("params")) is tuple and list(row.fields.values()) == wanted
        self._from_params = tuple(row.fields) if quick else None

    def matches(self, said: Line) -> bool:
        """Whether the object has this row's shape; its method is the caller's business."""
        for get, test in self._tests:  # noqa: SIM110  # a loop takes half the time of all()
            if not test(get(said)):
                return False
        return True

    def takes(self, length: int) -> bool:
        """Whether an array ``params`` of that length may be this row's."""
        words = self.row.shape.get("params")
        if type(words) is not tuple:
            return True
        least, most = shapes.lengths(words)
        return least <= length <= most

    def fields(self, said: Line) -> dict[str, Any]:
        """The declared fields that are there, by name; a value may be null."""
        if self._from_params is not None:
            return dict(zip(self._from_params, said["params"], strict=False))
        out = {}
        for name, get in self._fields:
            value = get(said)
            if value is not MISSING:
                out[name] = value
        return out


def _first(readers: list[Reader], said: Line, request: str | None) -> Reader | None:
    for reader in readers:
        answers = reader.row.answers
        if (not answers or request in answers) and reader.matches(said):
            return reader
    return None


class Table:
    """All rows, found by method and side, or by the kind of result."""

    def __init__(self) -> None:
        self.dialects: Final = {d.id: d for d in tables.rows("dialects", "dialect", Dialect)}
        self.forms: Final = tables.rows("dialects", "form", Form)
        self._called: Final[dict[str, list[Reader]]] = {}
        self._keys: Final = sorted({f.key for f in self.forms if f.method and f.key != "method"})
        self._lists: Final[list[Reader]] = []
        self._objects: Final[dict[str, list[Reader]]] = {}
        for form in self.forms:
            if not form.method:
                self._add_reply(form)
            else:
                name = form.method if form.key == "method" else f"{form.key}\x00{form.method}"
                self._called.setdefault(name, []).append(Reader(form))
        self._sorted: Final = {
            name: [[r for r in readers if r.takes(n)] for n in range(MOST_SORTED)]
            for name, readers in self._called.items()
        }
        self._accepts: Final = [
            (getter(a.path), shapes.word(a.word)) for a in tables.rows("dialects", "accept", Accept)
        ]
        stale = tables.rows("dialects", "stale", Stale)
        self._stale_codes: Final = {s.code for s in stale if s.code is not None}
        words = "|".join(f"(?:{s.words})" for s in stale if s.words) or r"(?!)"
        self._stale_words: Final = re.compile(words, re.IGNORECASE).search

    def _add_reply(self, form: Form) -> None:
        """File a reply by what its result is: a list, or an object with a member."""
        path = next(iter(form.shape)).split("/")
        if len(path) == 1 or path[1].isdigit():
            self._lists.append(Reader(form))
        else:
            self._objects.setdefault(path[1], []).append(Reader(form))

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
        readers = self._called.get(name)
        if readers is None:
            return None
        params = said.get("params")
        if type(params) is list and len(params) < MOST_SORTED:
            readers = self._sorted[name][len(params)]
        for reader in readers:
            if reader.matches(said):
                return reader
        return None

    def replied(self, said: Line, request: str | None) -> Reader | None:
        """The row of a reply by its shape; ``request`` is the kind of the request it is paired with."""
        result = said.get("result")
        if type(result) is list:
            return _first(self._lists, said, request)
        if type(result) is dict:
            for member, readers in self._objects.items():
                found = _first(readers, said, request) if member in result else None
                if found is not None:
                    return found
        return None

    def accepted(self, said: Line) -> bool:
        """Whether a declared form of acceptance is there."""
        for get, test in self._accepts:  # noqa: SIM110  # as above
            if test(get(said)):
                return True
        return False

    def stale(self, code: int | None, words: str) -> bool:
        """Whether a refusal means that the share came late."""
        return code in self._stale_codes or self._stale_words(words) is not None


@cache
def load() -> Table:
    """The table that ships with the program."""
    return Table()
