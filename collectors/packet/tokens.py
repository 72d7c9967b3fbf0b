"""The token table, compiled: where in a segment does a mining protocol show?

``candidates.toml`` goes in as rows, a tuple of arrays comes out that the kernels ``find`` and ``tail_of``
read.  A token begins with a quotation mark or an underscore and eight bytes that are no blanks; a blank in it
matches any number of blanks.

Three steps, each for what the one before left over: sixty-four places at a time where two bytes are right
(``anchors``); eight bytes at once, by one look into a table of all beginnings; then byte by byte.
"""

import sys
import tomllib
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from collectors.errors import ConfigError
from collectors.jit import bare as kernel
from collectors.packet.anchors import SECONDS_QUOTE, SECONDS_SCORE, WIDTH, anchors, lowest, marks, near
from collectors.reading import little

# A token that began at most so many bytes before the end of a segment is found in the next one.
TAIL: Final = 22
_LONGEST: Final = 32
QUOTE: Final = ord('"')
SCORE: Final = ord("_")
BLANK: Final = ord(" ")
# So many bytes of a token are compared at once.
BEGIN: Final = 8
_SLOTS: Final = 64
# What a beginning that is right costs, in places that only seemed to be one.
NEAR: Final = 6


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
    """``pattern`` (n, 32) u1 and ``size`` (n,) i8, sorted; ``seconds`` as ``anchors`` wants them,
    all from ``low`` to ``low + reach``.

    The tokens that begin as slot s of ``begins`` (64,) u8 says are rows ``first[s]`` to ``last[s]``, the same
    up to ``common[s]``; a beginning times ``spread`` has its slot in the top bits.
    """

    pattern: np.ndarray
    size: np.ndarray
    begins: np.ndarray
    first: np.ndarray
    last: np.ndarray
    common: np.ndarray
    spread: np.uint64
    seconds: tuple[np.uint8, ...]
    low: np.uint8
    reach: np.uint8


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


def _spread(begins: list[int]) -> int:
    """A factor that gives each beginning a slot of its own."""
    for factor in range(0x9E3779B97F4A7C15, 0x9E3779B97F4A7C15 + (1 << 16), 2):
        if len({factor * b % (1 << 64) // ((1 << 64) // _SLOTS) for b in begins}) == len(begins):
            return factor
    raise ConfigError(f"tokens: {len(begins)} beginnings do not fit {_SLOTS} slots")


def _common(a: bytes, b: bytes) -> int:
    """How many bytes they begin with both."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def compile_tokens(table: list[Token]) -> Tokens:
    """Arrays for the kernels.  Raises ConfigError on a token that they cannot look for."""
    tokens = sorted({row.token.encode() for row in table})
    for token in tokens:
        if not BEGIN <= len(token) <= _LONGEST or token[0] not in (QUOTE, SCORE) or BLANK in token[:BEGIN]:
            raise ConfigError(f'token {token!r}: {BEGIN} to {_LONGEST} bytes, the first one " or _')
        if len(token.replace(b" ", b"")) > TAIL + 1:
            raise ConfigError(f"token {token!r}: more than {TAIL + 1} bytes that are no blanks")
    pattern = np.zeros((len(tokens), _LONGEST), np.uint8)
    words = [int.from_bytes(token[:BEGIN], sys.byteorder) for token in tokens]
    spread = np.uint64(_spread(sorted(set(words))))
    begins, places = np.zeros(_SLOTS, np.uint64), np.zeros((3, _SLOTS), np.int64)
    for i, (token, word) in enumerate(zip(tokens, words, strict=True)):
        pattern[i, : len(token)] = np.frombuffer(token, np.uint8)
        slot = int(spread) * word % (1 << 64) // ((1 << 64) // _SLOTS)
        if begins[slot] == 0:
            begins[slot], places[:, slot] = word, (i, i, len(token))
        places[1, slot] = i + 1
        places[2, slot] = min(places[2, slot], _common(token, tokens[places[0, slot]]))
    quote = sorted({t[1] for t in tokens if t[0] == QUOTE})
    score = sorted({t[1] for t in tokens if t[0] == SCORE})
    seconds = _seconds(quote, SECONDS_QUOTE, '"') + _seconds(score, SECONDS_SCORE, "_")
    return Tokens(
        pattern,
        np.array([len(t) for t in tokens], np.int64),
        begins,
        places[0],
        places[1],
        places[2],
        spread,
        tuple(seconds),
        min(seconds),
        max(seconds) - min(seconds),
    )


@kernel
def _slot(word, tokens):
    return np.int64((word * tokens.spread) >> np.uint64(58))


@kernel
def _walk(data, at, end, pattern, k, size):
    """Does pattern[k:size] stand at ``at``?  0 no, 1 yes, 2 so far, but the bytes end; and where it ends."""
    for n in range(k, size):
        want = pattern[n]
        if want == BLANK:
            while at < end and data[at] in (32, 9, 10, 13):
                at += 1
        else:
            if at >= end:
                return 2, at
            if data[at] != want:
                return 0, at
            at += 1
    return 1, at


@kernel
def match(data, at, end, slot, tokens):
    """Does a token that begins as the slot says go on at ``at``, behind its beginning?  The best answer of
    ``_walk`` over the slot's tokens: 1, else 2, else 0."""
    first = tokens.first[slot]
    common = tokens.common[slot]
    best, at = _walk(data, at, end, tokens.pattern[first], BEGIN, common)
    if best != 1:
        return best
    best = 0
    for n in range(first, tokens.last[slot]):
        got, _ = _walk(data, at, end, tokens.pattern[n], common, tokens.size[n])
        if got == 1:
            return 1
        if got == 2:
            best = 2
    return best


@kernel
def _pair(data, at, tokens):
    """What ``anchors`` says of one place."""
    first = SECONDS_QUOTE if data[at] == SCORE else 0
    found = False
    if data[at] in (QUOTE, SCORE):
        for k in range(first, first + (SECONDS_SCORE if first > 0 else SECONDS_QUOTE)):
            found = found or data[at + 1] == tokens.seconds[k]
    return found


@kernel
def find(data, at, end, tokens, room):
    """Look for any token in data[at:end].  Returns (found, steps): steps is what it cost beyond the first
    pass, in places that were looked at one by one, NEAR more for each that begins as a token does.  Soon
    after ``room`` steps it gives up: then steps is more than that, and the rest was not searched."""
    steps = np.int64(0)
    while at < end and steps <= room:
        if at + WIDTH + BEGIN <= data.size:
            mask = near(data, at, tokens.low, tokens.reach)
            if mask != np.uint64(0):
                mask = anchors(data, at, tokens.seconds)
            # The last byte has no byte after it: that is the business of the tail.
            if end - at <= WIDTH:
                mask &= (np.uint64(1) << np.uint64(end - at - 1)) - np.uint64(1)
            while mask != np.uint64(0):
                place = at + lowest(mask)
                steps += 1
                word = little(data, place)
                slot = _slot(word, tokens)
                if tokens.begins[slot] == word and place + BEGIN <= end:
                    steps += NEAR
                    if match(data, place + BEGIN, end, slot, tokens) == 1:
                        return True, steps
                mask &= mask - np.uint64(1)
        else:  # the same, too near the end of what may be read
            for place in range(at, min(end - 1, at + WIDTH)):
                if not _pair(data, place, tokens):
                    continue
                steps += 1
                if place + BEGIN <= end:
                    word = little(data, place)
                    slot = _slot(word, tokens)
                    if tokens.begins[slot] == word:
                        steps += NEAR
                        if match(data, place + BEGIN, end, slot, tokens) == 1:
                            return True, steps
        at += WIDTH
    return False, steps


@kernel
def tail_of(data, at, end, tokens):
    """Where a token begins that the end of the bytes cuts; ``end`` if none, or if it began too early."""
    first = max(at, end - TAIL)
    if first + WIDTH <= data.size and end > first:
        mask = marks(data, first) & ((np.uint64(1) << np.uint64(end - first)) - np.uint64(1))
        if mask == np.uint64(0):
            return end
        first += lowest(mask)
    for i in range(first, end):
        if data[i] not in (QUOTE, SCORE):
            continue
        if i + BEGIN <= end:
            word = little(data, i)
            slot = _slot(word, tokens)
            if tokens.begins[slot] == word and match(data, i + BEGIN, end, slot, tokens) == 2:
                return i
            continue
        for k in range(tokens.size.size):
            n = 1
            while i + n < end and data[i + n] == tokens.pattern[k, n]:
                n += 1
            if i + n == end and data[i] == tokens.pattern[k, 0]:
                return i
    return end
