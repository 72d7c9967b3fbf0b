"""The table of message forms: rows, loaded once, and which row a JSON object is.

Adding a form, an accepted reply, a stale word or a dialect is adding a row; rows test themselves by their
``hits`` and ``misses``.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, Final, Literal

import msgspec

from detector import tables
from detector.dialects import shapes
from detector.dialects.shapes import MISSING, Predicate

Kind = Literal[
    "subscribe", "authorize", "login", "submit", "poll", "hashrate", "configure", "talk",
    "job", "difficulty", "target", "extranonce", "mask", "reconnect", "subscribed", "configured",
    "answer", "admitted", "batch",
]  # fmt: skip
Side = Literal["client", "server"]
Line = dict[str, Any]
DECIDES: Final = frozenset({"subscribe", "authorize", "login", "submit", "job"})
"""Kinds that tell who the client is; any side may send a ping or a difficulty to mislead."""
MOST_SORTED: Final = 16
"""Rows of one method are sorted by the length of params up to here."""


class Dialect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One protocol.  ``parser`` names its family's module, ``worth`` is the formula of a share's expected
    hashes in words.

    ``algorithm`` is set where the protocol serves one unless it says otherwise; else a job, a share's form,
    an account or a verified share tells it.  ``begins`` is the difficulty that holds before any was set.
    ``bare``: a reply with neither result nor error accepts.  ``extends`` names the dialect whose forms it
    shares.  ``loose`` is a pattern of agents that name a wrong job in their shares: the latest counts.
    ``nulls``: a reply of null accepts, a text says why not (BIP 22).  ``silent``: only what is refused is
    answered.
    """

    id: str
    parser: Literal[
        "bitcoin", "cryptonote", "ethereum", "targets", "equihash", "ergo", "alephium", "graphs", "getwork",
        "templates", "channels", "noise", "nimiq", "chia",
    ]  # fmt: skip
    what: str
    worth: str
    status: Literal["sourced", "UNVERIFIED"]
    source: str
    algorithm: str | None = None
    begins: float | None = None
    bare: bool = False
    extends: str | None = None
    nulls: bool = False
    silent: bool = False
    loose: str | None = None


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An account's ``pattern``, from its beginning, that tells the algorithm in a dialect that serves
    several; without ``algorithm`` none is assumed."""

    id: str
    dialect: str
    pattern: str
    source: str
    status: Literal["sourced", "UNVERIFIED"]
    algorithm: str | None = None


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One form of message.

    ``key`` and ``method`` name it (a member and its text); without ``method`` it is a reply, known by its
    shape.  ``shape`` maps a path ("params", "params/login", "result/0") to a word or a list of words of
    ``shapes``; ``fields`` maps a name to the path that holds it.  ``weak`` forms are no evidence alone.
    The dialect ``mining`` is that of forms that several have in common.
    ``answers`` is the kind of request that a reply must be paired with to be read so; of a message with a
    name, the kinds of requests of which it answers the oldest, and ``says`` whether it accepts.  A reply with
    ``context`` has a shape that other services have too: it counts only in a session of its dialect, or
    where the client asked for work twice, or pushed with id 0.
    ``polls`` is how many looks for work are a miner's, 0 where no number is; of one with ``software`` the
    first is, where the head of HTTP names a miner's program.
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
    says: bool | None = None
    polls: int = 2
    software: bool = False


class Accept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A result that accepts: the value at ``path`` is as ``word`` says."""

    id: str
    path: str
    word: str
    source: str


class Refuse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A result that refuses: the value at ``path`` is as ``word`` says, why stands at ``words``."""

    id: str
    path: str
    word: str
    words: str
    source: str


class Stale(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A refusal that means late, not wrong: by its code, by a pattern over its words, or, where it is
    ``silent``, because it gives no reason.  A dialect with codes of its own has no others."""

    id: str
    source: str
    dialect: str = ""
    code: int | None = None
    words: str | None = None
    silent: bool = False


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


def _all(tests: list[tuple[Callable[[Line], Any], Predicate]]) -> Callable[[Line], bool]:
    """Whether what each path leads to passes its test."""
    if len(tests) == 1:
        ((only, passes),) = tests
        return lambda said: passes(only(said))

    def matches(said: Line) -> bool:
        for get, test in tests:  # noqa: SIM110  # a loop takes half the time of all()
            if not test(get(said)):
                return False
        return True

    return matches


class Reader:
    """One row, compiled."""

    __slots__ = (
        "_fields", "_from_params", "client", "decides", "dialect", "id", "kind", "matches", "row",
        "unverified", "weak",
    )  # fmt: skip

    def __init__(self, row: Form) -> None:
        self.row = row
        self.id, self.kind, self.dialect, self.weak = row.id, row.kind, row.dialect, row.weak
        self.decides = not row.weak and row.kind in DECIDES
        self.unverified = row.status == "UNVERIFIED"
        self.client = row.side == "client"
        # Whether an object has this row's shape; its method is the caller's business.
        self.matches = _all([(getter(path), _shape(word)) for path, word in row.shape.items()])
        self._fields = [(name, getter(path)) for name, path in row.fields.items()]
        wanted = [f"params/{n}" for n in range(len(row.fields))]
        quick = type(row.shape.get("params")) is tuple and list(row.fields.values()) == wanted
        self._from_params = tuple(row.fields) if quick else None

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
        self.bare: Final = frozenset(d.id for d in self.dialects.values() if d.bare)
        self.nulls: Final = frozenset(d.id for d in self.dialects.values() if d.nulls)
        self.bases: Final = {d.id: d.extends for d in self.dialects.values() if d.extends}
        self.silent: Final = frozenset(d.id for d in self.dialects.values() if d.silent)
        self._called: Final[dict[str, list[Reader]]] = {}
        self._own: Final[dict[tuple[str, str], list[Reader]]] = {}
        self._keys: Final = sorted({f.key for f in self.forms if f.method and f.key != "method"})
        self._naming: Final = frozenset(self._keys)
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
        for dialect in self.dialects.values():
            self._add_own(dialect)
        self._accounts: Final[dict[str, list[tuple[re.Pattern[str], str | None]]]] = {}
        for a in tables.rows("dialects", "account", Account):
            self._accounts.setdefault(a.dialect, []).append((re.compile(a.pattern), a.algorithm))
        self._accepts: Final = [
            (getter(a.path), shapes.word(a.word)) for a in tables.rows("dialects", "accept", Accept)
        ]
        self._refuses: Final = [
            (getter(r.path), shapes.word(r.word), getter(r.words))
            for r in tables.rows("dialects", "refuse", Refuse)
        ]
        self._stale: Final = _Late(tables.rows("dialects", "stale", Stale))

    def _add_reply(self, form: Form) -> None:
        """File a reply by what its result is: a list, or an object with a member."""
        path = next(iter(form.shape)).split("/")
        if len(path) == 1 or path[1].isdigit():
            self._lists.append(Reader(form))
        else:
            self._objects.setdefault(path[1], []).append(Reader(form))

    def _add_own(self, dialect: Dialect) -> None:
        """File the forms of one dialect, its own before those of the one that it extends."""
        for name, readers in self._called.items():
            own = [r for r in readers if r.dialect == dialect.id]
            own += [r for r in readers if r.dialect == dialect.extends]
            if own:
                self._own[name, dialect.id] = own

    def is_of(self, dialect: str, reader: Reader) -> bool:
        """Whether a session of the dialect goes on in it by such a message, if it is not weak."""
        return reader.dialect in ("mining", dialect, self.bases.get(dialect))

    def name(self, said: Line) -> str | None:
        """What names the message: the value of ``method``, or of another naming member."""
        method = said.get("method")
        if type(method) is str:
            return method
        if self._naming.isdisjoint(said):
            return None
        for key in self._keys:
            value = said.get(key)
            if type(value) is str and (name := f"{key}\x00{value}") in self._called:
                return name
        return None

    def called(self, name: str, said: Line, dialect: str = "mining") -> Reader | None:
        """The row of a message with a name.  Where forms of several dialects fit, as those of a share
        often do, the one of the session's ``dialect`` is taken, else the first."""
        for reader in self._own.get((name, dialect), ()):
            if reader.matches(said):
                return reader
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

    def refused(self, said: Line) -> str | None:
        """The pool's words, "" for none, where a declared form of refusal is there."""
        for get, test, words in self._refuses:
            if test(get(said)):
                why = words(said)
                return why if type(why) is str else ""
        return None

    def stale(self, code: int | None, words: str, dialect: str = "mining") -> bool:
        """Whether a refusal means that the share came late."""
        return self._stale.is_late(code, words, dialect)

    @lru_cache(maxsize=4096)  # noqa: B019  # there is one table
    def account(self, dialect: str, login: str) -> tuple[bool, str | None]:
        """Whether a row knows such an account, and the algorithm that it tells."""
        for pattern, algorithm in self._accounts.get(dialect, ()):
            if pattern.match(login):
                return True, algorithm
        return False, None


class _Late:
    """The rows ``[[stale]]``, by dialect."""

    def __init__(self, rows: tuple[Stale, ...]) -> None:
        self._codes: dict[str, set[int]] = {}
        for row in rows:
            if row.code is not None:
                self._codes.setdefault(row.dialect, set()).add(row.code)
        self._silent = {row.dialect for row in rows if row.silent}
        words = "|".join(f"(?:{row.words})" for row in rows if row.words) or r"(?!)"
        self._words = re.compile(words, re.IGNORECASE).search

    def is_late(self, code: int | None, words: str, dialect: str) -> bool:
        codes = self._codes.get(dialect) or self._codes.get("", set())
        if code in codes or self._words(words) is not None:
            return True
        return code is None and not words and dialect in self._silent


@cache
def load() -> Table:
    """The table that ships with the program."""
    return Table()
