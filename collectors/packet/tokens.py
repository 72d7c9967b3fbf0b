"""The token table, compiled: where in a segment does a mining protocol show?

``candidates.toml`` goes in as rows, a tuple of arrays comes out that the kernels ``find`` and ``spans``
read.  A token begins with a quotation mark or an underscore; a blank in it matches any number of blanks.
"""

import tomllib
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from collectors.errors import ConfigError
from collectors.jit import bare as kernel
from collectors.packet.anchors import SECONDS_QUOTE, SECONDS_SCORE, WIDTH, anchors, lowest

# A token that began at most so many bytes before the end of a segment is found in the next one.
TAIL: Final = 22
_LONGEST: Final = 32
QUOTE: Final = ord('"')
SCORE: Final = ord("_")
BLANK: Final = ord(" ")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row.  ``hits`` and ``misses`` are its own test, kept beside it."""

    id: str
    token: str
    why: str
    hits: list[str]
    misses: list[str]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: list[Token]


class Tokens(NamedTuple):
    """``pattern`` (n, 32) u1 and ``size`` (n,) i8, sorted by second byte; tokens with the second byte b are
    rows ``first[b]`` to ``last[b]``; ``seconds`` as ``anchors`` wants them."""

    pattern: np.ndarray
    size: np.ndarray
    first: np.ndarray
    last: np.ndarray
    seconds: tuple[np.uint8, ...]


def rows(path: Path | None = None) -> list[Token]:
    """The table as written.  Raises ConfigError on one that cannot be read."""
    path = path or Path(__file__).with_name("candidates.toml")
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File).token
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _seconds(found: list[int], room: int, after: str) -> list[np.uint8]:
    if len(found) > room:
        raise ConfigError(f"tokens: more than {room} second bytes after {after}")
    found = found or [0]
    return [np.uint8(b) for b in found + found[:1] * (room - len(found))]


def compile_tokens(table: list[Token]) -> Tokens:
    """Arrays for the kernels.  Raises ConfigError on a token that they cannot look for."""
    tokens = sorted({row.token.encode() for row in table}, key=lambda t: (t[1:2], t))
    for token in tokens:
        if not 3 <= len(token) <= _LONGEST or token[0] not in (QUOTE, SCORE) or BLANK in token[:2]:
            raise ConfigError(f'token {token!r}: 3 to {_LONGEST} bytes, the first one " or _')
    pattern = np.zeros((len(tokens), _LONGEST), np.uint8)
    first = np.zeros(256, np.int64)
    last = np.zeros(256, np.int64)
    for i, token in enumerate(tokens):
        pattern[i, : len(token)] = np.frombuffer(token, np.uint8)
        if last[token[1]] == 0:
            first[token[1]] = i
        last[token[1]] = i + 1
    quote = sorted({t[1] for t in tokens if t[0] == QUOTE})
    score = sorted({t[1] for t in tokens if t[0] == SCORE})
    return Tokens(
        pattern,
        np.array([len(t) for t in tokens], np.int64),
        first,
        last,
        tuple(_seconds(quote, SECONDS_QUOTE, '"') + _seconds(score, SECONDS_SCORE, "_")),
    )


@kernel
def match(data, at, end, pattern, size):
    """Does the token stand at ``at``?  0 no, 1 yes, 2 so far, but the bytes end."""
    i = at
    for k in range(size):
        want = pattern[k]
        if want == BLANK:
            while i < end and data[i] in (32, 9, 10, 13):
                i += 1
        else:
            if i >= end:
                return 2
            if data[i] != want:
                return 0
            i += 1
    return 1


@kernel
def match_any(data, at, end, tokens):
    """The best answer of ``match`` over the tokens that may stand at ``at``: 1, else 2, else 0."""
    first = data[at]
    if first not in (QUOTE, SCORE):
        return 0
    if at + 1 >= end:
        return 2
    best = 0
    second = data[at + 1]
    for k in range(tokens.first[second], tokens.last[second]):
        if tokens.pattern[k, 0] == first:
            got = match(data, at, end, tokens.pattern[k], tokens.size[k])
            if got == 1:
                return 1
            if got == 2:
                best = 2
    return best


@kernel
def find(data, at, end, tokens):
    """Look for any token in data[at:end].  Returns (found, attempts): attempts is what it cost beyond the
    first pass, in candidate places that were looked at one by one."""
    attempts = 0
    while at < end:
        if at + WIDTH + 1 <= data.size:
            mask = anchors(data, at, tokens.seconds)
            # The last byte has no byte after it: that is the business of the tail.
            if end - at <= WIDTH:
                mask &= (np.uint64(1) << np.uint64(end - at - 1)) - np.uint64(1)
            while mask != np.uint64(0):
                attempts += 1
                if match_any(data, at + lowest(mask), end, tokens) == 1:
                    return True, attempts
                mask &= mask - np.uint64(1)
        else:
            for i in range(at, min(end, at + WIDTH)):
                if match_any(data, i, end, tokens) == 1:
                    return True, attempts
        at += WIDTH
    return False, attempts


@kernel
def tail_of(data, at, end, tokens):
    """Where a token begins that the end of the bytes cuts; ``end`` if none, or if it began too early."""
    for i in range(max(at, end - TAIL), end):
        if data[i] in (QUOTE, SCORE) and match_any(data, i, end, tokens) == 2:
            return i
    return end
