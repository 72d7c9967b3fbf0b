"""One line in, one JSON object out; and the chunks of one direction in, whole lines out.

Every text dialect is JSON objects ended by LF, CRLF seen (reference 1.1).  Behind an object CR or NUL alone
ends its line too; a byte order mark before one is passed over; an array of objects (a batch of JSON-RPC 2.0,
section 6) is as many lines.  A line that is neither is refused with a reason; a chunk never is.
"""

import math
import re
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

MAX_LINE_BYTES: Final = 64 << 10
"""The longest line that is kept.  The reference's longest are 6 kB (1.1, item 6)."""


RUN: Final = 3
"""So many mining messages in a row, no prose between, end a quotation."""
MAX_BATCH: Final = 256
_HEAD_BYTES: Final = 32
_BOM: Final = b"\xef\xbb\xbf"
_LEAD: Final = b" \t\r\0"
# What ends a line: LF, or CR or NUL behind an object.
_END: Final = re.compile(rb"\n|(?<=\})[\r\0](?!\n)")
_BATCH: Final = re.compile(rb"\[\s*(?:\{|\Z)")
_WEB: Final = re.compile(
    rb"(?:HTTP/\d|(?:GET|POST|PUT|HEAD|PATCH|DELETE|OPTIONS|TRACE) "
    rb"|(?:Host|Accept[\w-]*|User-Agent|Content-[\w-]+|Connection|Server|Date): )",
    re.IGNORECASE,
)


class Refusal(StrEnum):
    """Why a line was not read."""

    LONG = "long"  # more than MAX_LINE_BYTES without LF
    TEXT = "text"  # does not begin with a brace: not JSON, never parsed
    JSON = "json"  # malformed, not an object
    DEEP = "deep"  # nested deeper than the interpreter's stack
    GAP = "gap"  # unfinished when bytes were lost
    FRAME = "frame"  # in a WebSocket, but no frame of it
    HTTP = "http"  # behind HTTP, but none
    INFLATE = "inflate"  # compressed, and cannot be inflated, or to more than is read


class LineError(ValueError):
    """A peer sent a line that cannot be read."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


_SPOILED: Final = re.compile(rb"\\(?:u(?:0000|[dD][89a-fA-F][\da-fA-F]{2})|.)|[\0-\x1f]")
# Texts, and what stands for a number: as JSON writes it, as Python and JavaScript write what is none.
_VALUES: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?(?:NaN|nan|Infinity|inf)\b|[-+.]?\d[\d.eE+-]*', re.S)
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_MOST_DIGITS: Final = 4000
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


def read(line: bytes) -> dict[str, Any]:
    """The object on one line.  Raises LineError, and nothing else, on bad bytes."""
    if b"\\u0000" not in line:
        try:
            return _OBJECT.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        except RecursionError:
            raise LineError(Refusal.DEEP) from None
    try:
        line = _mended(line)
        try:
            return _OBJECT.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _OBJECT.decode(_VALUES.sub(_sober, line))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise LineError(Refusal.JSON) from None
    except RecursionError:
        raise LineError(Refusal.DEEP) from None


def _mended(line: bytes) -> bytes:
    """The line with what no JSON text may hold replaced: bytes that are not UTF-8, control characters, lone
    surrogates; and NUL, which separates texts in ``shapes``.  A lenient pool reads such a line, so one byte
    in a worker's name must not hide its share."""
    text = line.decode("utf-8", "replace").encode()
    return _SPOILED.sub(_plain, text)


def _plain(found: re.Match[bytes]) -> bytes:
    """Escapes of other characters stay: their backslash must not be taken for another's."""
    said = found[0]
    return said if said[:1] == b"\\" and len(said) == 2 else b"?" if said[:1] == b"\\" else b" "


def _sober(found: re.Match[bytes]) -> bytes:
    """A number that no program means becomes null: such a value costs its line no more than itself."""
    said = found[0]
    if said[:1] == b'"':
        return said
    sane = len(said) <= _MOST_DIGITS and _NUMBER.fullmatch(said) and math.isfinite(float(said))
    return said if sane else b"null"


class Assembler(msgspec.Struct, array_like=True, gc=False):
    """The unfinished line of one direction: plain values, so that a state record can carry it.

    ``skipping`` is set while the rest of a line that will not be kept goes by: one that is too long, or
    one that does not begin with a brace (so a binary stream holds no memory).  ``prose`` counts whole
    lines that neither begin nor end as an object does; ``read`` objects that were read (the caller counts),
    ``run`` mining messages among the quoted since the last prose.

    ``web`` is set where the direction's first line is one of HTTP: nothing in a web page or a form is a
    miner's, however it is written.  ``late`` (the caller sets it) says that something came before, so that
    such a line counts wherever it is.  ``tunnel`` is set by CONNECT, whose header lines are not prose
    (``heads``).
    """

    tail: Annotated[bytes, msgspec.Meta(max_length=MAX_LINE_BYTES)] = b""
    skipping: bool = False
    last: bytes = b""
    prose: int = 0
    read: int = 0
    run: int = 0
    head: bytes = b""
    begun: bool = False
    late: bool = False
    web: bool = False
    tunnel: bool = False
    heads: bool = False

    @property
    def quotes(self) -> bool:
        """Whether objects in this direction are quoted by something else (a chat, a page about Stratum, a
        queue that frames each by its length): more lines of prose than objects.  What a proxy's preamble
        or joining in the middle leaves ends as an object does."""
        return self.prose > self.read

    def mined(self) -> bool:
        """A quoted line was a mining message: does the direction speak by itself after all?"""
        self.run += 1
        if self.run < RUN:
            return False
        self.prose, self.read, self.run = 0, self.run - 1, 0
        return True

    def gap(self) -> Refusal | None:
        """Bytes were lost: forget the unfinished line.  What follows is tried as it comes."""
        lost = Refusal.GAP if self.tail else None
        self.tail, self.skipping, self.last, self.heads = b"", False, b"", False
        return lost

    def feed(self, data: bytes, refused: dict[str, int]) -> list[tuple[bytes, int]]:
        """Whole lines that begin with a brace, each with the offset in ``data`` just behind its LF."""
        if self.tail or self.skipping or data[:1] != b"{" or len(data) > MAX_LINE_BYTES:
            return self._cut(data, refused)
        if data.find(b"\n") == len(data) - 1:  # one line, one segment: the usual
            return [(data, len(data))]
        return self._cut(data, refused)

    def _cut(self, data: bytes, refused: dict[str, int]) -> list[tuple[bytes, int]]:
        out: list[tuple[bytes, int]] = []
        start = 0
        while True:
            end = self._end(data, start)
            piece = data[start:] if end < 0 else data[start:end]
            if not self.skipping:
                self._add(piece, refused)
            elif self.last:
                self.last = piece.rstrip()[-1:] or self.last
                if len(self.head) < _HEAD_BYTES:
                    self.head += piece[: _HEAD_BYTES - len(self.head)]
            if end < 0:
                return out
            if self.tail:
                self._line(end + 1, out, refused)
            elif self.last:
                self._text()
            else:
                self.heads = False
            self.tail, self.skipping, self.last = b"", False, b""
            start = end + 1

    def _end(self, data: bytes, start: int) -> int:
        """Where the line from ``start`` on ends; -1 where it does not."""
        if self.skipping or (b"\r" not in data and b"\0" not in data):
            return data.find(b"\n", start)
        if not start and data[:1] in {b"\r", b"\0"} and self.tail.endswith(b"}"):
            return 0
        found = _END.search(data, start)
        return found.start() if found else -1

    def _line(self, end: int, out: list[tuple[bytes, int]], refused: dict[str, int]) -> None:
        """A whole line that begins as an object or a batch does."""
        if self.tail[:1] == b"{":
            out.append((self.tail, end))
            self.begun, self.heads = True, False
            return
        found = batch(self.tail)
        if found:
            out += [(line, end) for line in found]
            self.begun, self.heads = True, False
        else:
            self.last, self.head = self.tail.rstrip()[-1:], self.tail[:_HEAD_BYTES]
            refused[Refusal.TEXT] = refused.get(Refusal.TEXT, 0) + 1
            self._text()

    def _text(self) -> None:
        """A whole line that is no object."""
        if not self.begun or self.late:
            if self.head.startswith(b"CONNECT "):
                self.tunnel = self.heads = True
            elif _WEB.match(self.head) and not self.heads:
                self.web = self.heads = True
        self.begun = True
        if self.last != b"}" and not self.heads:
            self.prose += 1
            self.run = 0

    def _add(self, piece: bytes, refused: dict[str, int]) -> None:
        grown = self.tail + piece if self.tail else piece.lstrip(_LEAD)
        while grown[:3] == _BOM:
            grown = grown[3:].lstrip(_LEAD)
        if not grown:
            self.tail = b""
        elif len(grown) < len(_BOM) and _BOM.startswith(grown):
            self.tail = grown
        elif grown[:1] != b"{" and not _BATCH.match(grown):
            # PROXY protocol, version 1: the one line of words that may come before (reference 1.1, 7).
            self.last = b"}" if grown.startswith(b"PROXY ") else grown.rstrip()[-1:]
            self.head = grown[:_HEAD_BYTES]
            self._drop(Refusal.TEXT, refused)
        elif len(grown) > MAX_LINE_BYTES:
            self._drop(Refusal.LONG, refused)
        else:
            self.tail = grown

    def _drop(self, why: Refusal, refused: dict[str, int]) -> None:
        self.tail, self.skipping = b"", True
        refused[why] = refused.get(why, 0) + 1


def batch(line: bytes) -> list[bytes]:
    """The objects of a JSON array that holds nothing else, at most MAX_BATCH; none where it is none."""
    try:
        found = [bytes(raw) for raw in _LIST.decode(line)[:MAX_BATCH]]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            found = [bytes(raw) for raw in _LIST.decode(_VALUES.sub(_sober, _mended(line)))[:MAX_BATCH]]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
    return found if all(one.startswith(b"{") for one in found) else []
