"""Heads of HTTP/1 over any number of segments: octets in, what of a head matters out.

Where a direction stands is one number of sixteen bits in its row: a state of an automaton, and flags.  The
automaton knows the words that a head may begin with, then those that a field may begin with; from the first
octet that is none of theirs it skips to the next line (RFC 9112 sections 2 and 5).
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.anchors import lowest
from collectors.reading import little

# Bits of ROW.carried; the lowest eight are the automaton's state.
STATE: Final = 0xFF
HEADING: Final = 0x100  # a head goes on in the next segment
JSON: Final = 0x200  # its body is JSON, or a miner's by another field
CODED: Final = 0x400  # its body is cut into chunks, or compressed
POSTS: Final = 0x800
FRAMED: Final = 0x1000  # the direction sent what may be a frame of a WebSocket
WANTED: Final = 0x2000  # it began what carries lines that show no token
AMPLE: Final = 0x4000  # and does so for as long as it lasts

# States with a meaning; the others are between them.
SKIPS: Final = 0  # the rest of the line
LINE: Final = 1  # a line begins
BEGIN: Final = 2  # a head begins
NONE: Final = 3  # it is no head
OVER: Final = 4  # the blank line was read
_ASKS: Final = 5  # an upgrade, or CONNECT, or the server's leave
_JSON: Final = 6
_CODED: Final = 7
_POSTS: Final = 8
_MINES: Final = 9
_INNER: Final = 10

_BEGINS: Final = {
    "GET ": SKIPS, "PUT ": SKIPS, "HEAD ": SKIPS, "OPTIONS ": SKIPS, "DELETE ": SKIPS, "PATCH ": SKIPS,
    "TRACE ": SKIPS, "POST ": _POSTS, "CONNECT ": _ASKS, "PROXY ": _ASKS,
    "HTTP/1.0 101 ": _ASKS, "HTTP/1.1 101 ": _ASKS, "HTTP/1.0 200 C": _ASKS, "HTTP/1.1 200 C": _ASKS,
}  # fmt: skip
_FIELDS: Final = {"transfer-encoding:": _CODED, "content-encoding:": _CODED, "x-mining-": _MINES}
# Of these fields a word in the value.
_VALUES: Final = {"upgrade:": ("websocket", _ASKS), "content-type:": ("json", _JSON)}
_CR: Final = 13
_LF: Final = 10


class _Tables(NamedTuple):
    """``classes`` (256,) u1, a byte's class; ``follows`` (states, classes) u1."""

    classes: np.ndarray
    follows: np.ndarray


def _tables() -> _Tables:
    words = [*_BEGINS, *_FIELDS, *_VALUES, *(word for word, _ in _VALUES.values())]
    letters = sorted({ch for word in words for ch in word.lower()} | {"\r", "\n"})
    classes = np.zeros(256, np.uint8)
    for number, letter in enumerate(letters, 1):
        classes[ord(letter)] = classes[ord(letter.upper())] = number
    rows: list[dict[int, int]] = [{} for _ in range(_INNER)]

    def walk(at: int, word: str, told: int | None) -> int:
        """Enter a word from a state on; ``told`` is what its last letter leads to, None for a new state."""
        for place, letter in enumerate(word.lower()):
            number, last = int(classes[ord(letter)]), place == len(word) - 1
            if number not in rows[at]:
                rows[at][number] = told if last and told is not None else len(rows)
                if rows[at][number] == len(rows):
                    rows.append({})
            at = rows[at][number]
        return at

    begun = len(rows)
    for word, told in _BEGINS.items():
        walk(BEGIN, word, told)
    fields = len(rows)
    for word, told in _FIELDS.items():
        walk(LINE, word, told)
    values: dict[int, int] = {}
    for field, (word, told) in _VALUES.items():
        root = walk(LINE, field, None)
        first = len(rows)
        walk(root, word, told)
        values |= dict.fromkeys((root, *range(first, len(rows))), root)
    follows = np.zeros((len(rows), len(letters) + 1), np.uint8)
    for state, row in enumerate(rows):
        if state == BEGIN or begun <= state < fields:
            follows[state] = NONE
        root = values.get(state, -1)
        if root >= 0:
            # Neither word repeats its first letter: from where it fails it begins anew.
            follows[state] = root
            for number, target in rows[root].items():
                follows[state, number] = target
        for number, target in row.items():
            follows[state, number] = target
        if state != BEGIN and not begun <= state < fields:
            follows[state, classes[_LF]] = OVER if state == LINE else LINE
    follows[LINE, classes[_CR]] = LINE
    return _Tables(classes, follows)


_CLASSES, _FOLLOWS = _tables()
_LFS: Final = np.uint64(0x0A0A0A0A0A0A0A0A)
_ONES: Final = np.uint64(0x0101010101010101)
_TOPS: Final = np.uint64(0x8080808080808080)


@kernel
def _next_line(data, at, end):
    """The place behind the next LF; ``end`` plus one where there is none."""
    while at + 8 <= end:
        x = little(data, at) ^ _LFS
        hit = (x - _ONES) & ~x & _TOPS
        if hit != np.uint64(0):
            return at + (lowest(hit) >> 3) + 1
        at += 8
    while at < end:
        at += 1
        if data[at - 1] == _LF:
            return at
    return end + 1


@kernel
def read_on(data, at, end, word):
    """Read a head on, as far as its blank line: ``word`` is where the direction stands.

    Returns (place behind what was read, the word, octets that were read one by one).  With HEADING the head
    goes on.  WANTED and AMPLE say that it asks for what may carry lines.
    """
    state = np.int64(word) & STATE
    flags = np.int64(word) & ~np.int64(STATE | HEADING)
    steps = 0
    while at < end:
        if state == SKIPS:
            at = _next_line(data, at, end)
            if at > end:
                at = end
            else:
                state = np.int64(LINE)
            continue
        state = np.int64(_FOLLOWS[state, _CLASSES[data[at]]])
        at += 1
        steps += 1
        if state >= _INNER or state <= LINE:
            continue
        if state in (NONE, OVER):
            return at, flags | state, steps
        if state == _ASKS:
            flags |= WANTED | AMPLE
        elif state == _JSON:
            flags |= JSON
        elif state == _CODED:
            flags |= CODED
        elif state == _POSTS:
            flags |= POSTS
        else:
            flags |= POSTS | JSON
        state = np.int64(SKIPS)
    return at, flags | state | HEADING, steps
