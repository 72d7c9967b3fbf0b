"""The closed vocabulary of the table of dialects: a word in, a predicate on a JSON value out.

``text hex hexN hexN+ 0xhex 0xhexN decimal empty int number bool true false null object list any list_text
list_hex64 list_object list_int list_hex u64x4 subscriptions agent account absent``; ``hexN``
has exactly N digits, ``hexN+`` at least N; ``=text`` is that text, ``^text`` begins with it, ``*text``
contains it; ``a|b`` is either; a final ``?`` allows null or nothing.  A list of words is a JSON array with
exactly these elements, a final ``...`` allows more.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

Predicate = Callable[[object], bool]

MISSING: Final = object()
"""What a path that leads nowhere gives."""

# Words that are a regular expression over a text.  NUL is the separator below, so no text may hold it.
_TEXTS: Final = {
    "text": r"[^\x00]*",
    "hex": r"[0-9a-fA-F]+",
    "0xhex": r"0x[0-9a-fA-F]+",
    "decimal": r"[0-9]+",
    "empty": "",
    # An account that only a coin's address format makes: CryptoNote addresses have 95 characters and more
    # (reference section 7), with payment id, fixed difficulty or worker behind.
    "account": r"[0-9A-Za-z]{90,}(?:[.+/:][^\x00]*)?",
    # Reference 9.4; " libuv/" is what a renamed XMRig keeps.
    "agent": r"(?i:[^\x00]* libuv/[^\x00]*|(?:xmrig|xmr-stak|xmr-node-proxy|srbminer|ccminer|cpuminer|cgminer"
    r"|bfgminer|sgminer|claymore|lolminer|gminer|teamredminer|wildrig|nanominer|t-rex|nbminer|bzminer|rigel"
    r"|onezerominer|ethminer|ethproxy|phoenixminer|kawpowminer|tnn-miner|deepminer|nicehash)[^\x00]*)",
}
_SIZED: Final = re.compile(r"(0x)?hex(\d+)(\+?)")


def _pattern(word: str) -> str | None:
    """The regular expression of a word that is about texts, else None."""
    if "|" in word:
        parts = [_pattern(part) for part in word.split("|")]
        return None if None in parts else "|".join(f"(?:{part})" for part in parts)
    if word.startswith("="):
        return re.escape(word[1:])
    if word.startswith("^"):
        return rf"{re.escape(word[1:])}[^\x00]*"
    if word.startswith("*"):
        return rf"[^\x00]*{re.escape(word[1:])}[^\x00]*"
    sized = _SIZED.fullmatch(word)
    if sized:
        return rf"{sized[1] or ''}[0-9a-fA-F]{{{sized[2]}{',' if sized[3] else ''}}}"
    return _TEXTS.get(word)


_HEX: Final = re.compile(r"[0-9a-fA-F]+").fullmatch
_HEX64: Final = re.compile(r"[0-9a-fA-F]{64}").fullmatch


def _hex64(value: object) -> bool:
    return type(value) is str and _HEX64(value) is not None


def _list_of(test: Predicate) -> Predicate:
    return lambda value: type(value) is list and all(map(test, value))


def _subscriptions(value: object) -> bool:
    """``["mining.notify", ..]`` or a list of such: the token as an element of a subscribe result."""
    if type(value) is not list or not value:
        return False
    first = value[0]
    if type(first) is list and first:
        first = first[0]
    return type(first) is str and first.startswith("mining.")


_VALUES: Final[dict[str, Predicate]] = {
    "int": lambda v: type(v) is int,
    "number": lambda v: type(v) is int or type(v) is float,
    "bool": lambda v: type(v) is bool,
    "true": lambda v: v is True,
    "false": lambda v: v is False,
    "null": lambda v: v is None,
    "object": lambda v: type(v) is dict,
    "list": lambda v: type(v) is list,
    "any": lambda v: v is not MISSING,
    "list_text": lambda v: type(v) is list and bool(v) and all(type(e) is str for e in v),
    "list_object": _list_of(lambda v: type(v) is dict),
    "list_hex64": _list_of(_hex64),
    # The solution of a Cuckoo cycle: its length is the length of the cycle, 32 or 42 edges.
    "list_int": lambda v: type(v) is list and len(v) >= 8 and all(type(e) is int for e in v),
    "list_hex": lambda v: type(v) is list and len(v) >= 8 and all(type(e) is str and _HEX(e) for e in v),
    "u64x4": lambda v: type(v) is list and len(v) == 4 and all(type(e) is int and 0 <= e < 2**64 for e in v),
    "subscriptions": _subscriptions,
    "absent": lambda v: v is MISSING,
}


def _either(first: Predicate, *others: Predicate) -> Predicate:
    if not others:
        return first
    other = _either(*others)
    return lambda value: first(value) or other(value)


def word(given: str) -> Predicate:
    """The predicate of one word.  Raises ValueError on one that the vocabulary does not have."""
    if given.endswith("?"):
        inner = word(given[:-1])
        return lambda value: value is MISSING or value is None or inner(value)
    if "|" in given:
        return _either(*map(word, given.split("|")))
    pattern = _pattern(given)
    if pattern is not None:
        match = re.compile(pattern, re.DOTALL).fullmatch
        return lambda value: type(value) is str and match(value) is not None
    if given not in _VALUES:
        raise ValueError(f"unknown shape {given!r}")
    return _VALUES[given]


def _joined(words: Sequence[str], needed: int) -> Predicate | None:
    """One regular expression over all elements: four times faster, where all are about texts."""
    patterns = [_pattern(w.removesuffix("?")) for w in words]
    if not words or None in patterns:
        return None
    told = r"\x00".join(f"(?:{p})" for p in patterns[:needed])
    for p in patterns[needed:]:
        told += rf"(?:\x00(?:{p})"
    told += ")?" * (len(patterns) - needed)
    match = re.compile(told, re.DOTALL).fullmatch

    def test(value: object) -> bool:
        try:
            return match("\x00".join(value)) is not None  # type: ignore[arg-type]
        except TypeError:
            return False

    return test


def lengths(words: Sequence[str]) -> tuple[int, int]:
    """How many elements such an array has, least and most."""
    more = bool(words) and words[-1] == "..."
    needed = most = len(words) - more
    while needed and words[needed - 1].endswith("?"):
        needed -= 1
    return needed, 1 << 30 if more else most


def elements(words: Sequence[str]) -> Predicate:
    """The predicate of an array whose elements are as the words say, in order."""
    needed, most = lengths(words)
    more = most > len(words)
    words = words[:-1] if more else words
    tests = [word(w) for w in words]
    quick = None if more else _joined(words, needed)

    def test(value: object) -> bool:
        if type(value) is not list or not needed <= len(value) <= most:
            return False
        if quick is not None and quick(value):
            return True
        for passes, each in zip(tests, value, strict=False):  # noqa: SIM110  # half the time of all()
            if not passes(each):
                return False
        return True

    return test
