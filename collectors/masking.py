"""Lines of JSON in, what they have in common out: each with its numbers and hex texts masked.

Programs write the same lines again and again, with another id, job and nonce.  Two lines of one ``form`` are
the same text but for the values that are masked (``slots``), which are of the same kind and, of texts, of the
same length: what only depends on these has to be found out once.  What is one frame of a WebSocket around an
object (RFC 6455 section 5.2) is unmasked and has a form of its own kind.  A compiled pass, about a nanosecond
an octet.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel

MAX_LINE: Final = 64 << 10
MAX_FORM: Final = 512
"""Octets of a form; what has a longer one gets none."""
MAX_SLOTS: Final = 64
"""Values of a line that are masked; what has more gets no form."""
_MAX_TEXT: Final = 1 << 14
# Numbers of fewer digits are codes and counts, whose value matters; an id's never does, nor how many hashes
# a pool of Coinhive's kind says that it has counted.
_MIN_DIGITS: Final = 6
_ID_DIGITS: Final = 18
# What stands for a value: no line has such octets.
HEX: Final = 1  # and two octets of length
PREFIXED: Final = 2  # "0x" before it, likewise
NUMBER: Final = 3
FRAME: Final = 4
"""The first octet of the form of what is a frame."""

_QUOTE, _COLON, _OPEN, _CLOSE, _BACKSLASH, _ZERO, _X, _LF = b'":{}\\0x\n'
_I, _D = b"id"
_HASHES: Final = np.frombuffer(b"hashes", np.uint8)
_FINAL_TEXT, _FINAL_BINARY = 0x81, 0x82
_KIND: Final = np.zeros(256, np.uint8)
"""Of an octet: 1 a digit, 2 another of hex, 4 of numbers beside digits, 8 what a text may hold, 16 others."""
_KIND[list(range(32, 127))] = 8
_KIND[[_QUOTE, _BACKSLASH]] = 0
_KIND[list(b"\t\r")] = 16
_KIND[list(b"0123456789")] |= 1
_KIND[list(b"abcdefABCDEF")] |= 2
_KIND[list(b"+-.eE")] |= 4
_MOST: Final = np.frombuffer(b"18446744073709551615", np.uint8)


class Forms(NamedTuple):
    """Of n rows: form i is ``octets[starts[i]:starts[i + 1]]``, empty where the row is not one line of
    printable ASCII that begins with a brace and ends with its only LF, nor one whole frame of text or binary
    data, not compressed, around such an object without LF; its slots are ``slots[firsts[i]:]``, pairs of
    first octet and the one behind, in ``told``, ``firsts[i + 1] - firsts[i]`` numbers.  ``told`` is the data
    of rows that have a form: of a frame the header is blanks and the text unmasked."""

    octets: bytes
    starts: list[int]
    slots: list[int]
    firsts: list[int]
    told: bytes


@kernel
def _is_number(data, at, end, is_id):
    """Whether a run of number's octets is a whole number that is masked; ``is_id``: however short."""
    size = end - at
    for i in range(at, end):
        if not _KIND[data[i]] & 1:
            return False
    if data[at] == _ZERO and size > 1:
        return False
    if is_id:
        return size <= _ID_DIGITS
    if size < 20:
        return size >= _MIN_DIGITS
    if size > 20:
        return False
    for i in range(20):
        if data[at + i] != _MOST[i]:
            return data[at + i] < _MOST[i]
    return True


@kernel
def _hex(data, at, end):
    """HEX or PREFIXED where a text is one that is masked, else 0."""
    size = end - at
    kind = HEX
    if size > 2 and data[at] == _ZERO and data[at + 1] == _X:
        kind = PREFIXED
        at += 2
    if size == 0 or size >= _MAX_TEXT:
        return 0
    for i in range(at, end):
        if not _KIND[data[i]] & 3:
            return 0
    return kind


@kernel
def _mask(data, start, end, out, begin, slots, first):
    """Mask one line; where the form and the slots end, (0, 0) where it has none."""
    at, to, slot = start, begin, first
    is_id = False
    while at < end:
        octet = data[at]
        kind = _KIND[octet]
        if to - begin > MAX_FORM - 8 or slot - first >= 2 * MAX_SLOTS:
            return 0, 0
        if octet == _QUOTE:
            close = at + 1
            while close < end and _KIND[data[close]] & 8:
                close += 1
            if close >= end or data[close] != _QUOTE:
                return 0, 0
            behind = close + 1
            while behind < end and data[behind] == 32:
                behind += 1
            size = close - at - 1
            named = behind < end and data[behind] == _COLON
            what = 0 if named else _hex(data, at + 1, close)
            if what:
                out[to] = what
                out[to + 1] = 0x80 | size & 0x7F
                out[to + 2] = 0x80 | size >> 7
                to += 3
                slots[slot], slots[slot + 1] = at + 1, close
                slot += 2
            else:
                if to - begin + size > MAX_FORM - 8:
                    return 0, 0
                for i in range(at, close + 1):
                    out[to] = data[i]
                    to += 1
            is_id = False
            at = close + 1
            if named:
                is_id = size == 2 and data[close - 2] == _I and data[close - 1] == _D
                if size == _HASHES.size:
                    is_id = True
                    for i in range(size):
                        if data[close - size + i] != _HASHES[i]:
                            is_id = False
                for i in range(at, behind + 1):
                    if to - begin > MAX_FORM - 8:
                        return 0, 0
                    out[to] = data[i]
                    to += 1
                at = behind + 1
        elif kind & 1:
            close = at + 1
            while close < end and _KIND[data[close]] & 5:
                close += 1
            if _is_number(data, at, close, is_id):
                out[to] = NUMBER
                to += 1
                slots[slot], slots[slot + 1] = at, close
                slot += 2
            else:
                if to - begin + close - at > MAX_FORM - 8:
                    return 0, 0
                for i in range(at, close):
                    out[to] = data[i]
                    to += 1
            is_id = False
            at = close
        else:
            if not kind & 24:
                return 0, 0
            is_id = is_id and octet == 32
            out[to] = octet
            to += 1
            at += 1
            while kind & 4 and at < end and _KIND[data[at]] & 5:  # behind a sign or a letter: not a number
                if to - begin > MAX_FORM - 8:
                    return 0, 0
                out[to] = data[at]
                to += 1
                at += 1
    return to, slot


@kernel
def _framed(data, start, end):
    """Where what ``data[start:end]`` is a frame around begins, once its header is blanks and the rest is
    unmasked; ``end`` where it is no whole frame of a message that is not compressed."""
    if end - start < 4 or (data[start] != _FINAL_TEXT and data[start] != _FINAL_BINARY):
        return end
    at, size = start + 2, np.int64(data[start + 1] & 127)
    if size == 126:
        size = np.int64(data[start + 2]) << 8 | np.int64(data[start + 3])
        at += 2
    elif size == 127:
        return end
    key = at
    if data[start + 1] & 128:
        at += 4
    if at + size != end:
        return end
    if key < at:
        for i in range(size):
            data[at + i] ^= data[key + (i & 3)]
    for i in range(start, at):
        data[i] = 32
    return at


@kernel
def _mask_all(data, rows, out, starts, slots, firsts):
    """All rows: (n + 1,) i4 in, octets of forms and slots out, with (n + 1,) i4 of where each begins."""
    to, slot = 0, 0
    for row in range(rows.size - 1):
        starts[row], firsts[row] = to, slot
        start, end = rows[row], rows[row + 1] - 1
        if not 2 <= end - start < MAX_LINE:
            continue
        if data[start] == _OPEN:
            if data[end] != _LF:
                continue
            ends, last = _mask(data, start, end, out, to, slots, slot)
        else:
            start = _framed(data, start, end + 1)
            if start > end or data[start] != _OPEN or data[end] != _CLOSE:
                continue
            out[to] = FRAME
            ends, last = _mask(data, start, end + 1, out, to + 1, slots, slot)
        if ends:
            to, slot = ends, last
    starts[rows.size - 1], firsts[rows.size - 1] = to, slot


def forms(rows: np.ndarray, data: np.ndarray) -> Forms:
    """The forms of rows ``data[rows[i]:rows[i + 1]]``: (n + 1,) i4 and u1, as ``wire.lists`` gives them."""
    count = rows.size - 1
    # One octet becomes three at most.
    room = min(3 * max(0, int(rows[-1]) - int(rows[0])), count * MAX_FORM) + MAX_FORM
    out, slots = np.empty(room, np.uint8), np.empty(2 * MAX_SLOTS * (count + 1), np.int32)
    starts, firsts = np.empty(count + 1, np.int32), np.empty(count + 1, np.int32)
    told = data.copy()
    _mask_all(told, rows, out, starts, slots, firsts)
    octets, places = out[: starts[-1]].tobytes(), slots[: firsts[-1]].tolist()
    return Forms(octets, starts.tolist(), places, firsts.tolist(), told.tobytes())


def warm() -> None:
    """Compile the kernels."""
    forms(np.array([0, 3], np.int32), np.frombuffer(b"{}\n", np.uint8))
