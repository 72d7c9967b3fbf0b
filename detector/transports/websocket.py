"""Frames of one direction of a WebSocket in, its messages out (RFC 6455 section 5, RFC 7692).

Fragments are joined, frames of a client unmasked, compressed messages inflated.  Each direction stands
alone: what was agreed on need not have been seen.  A window is kept whatever the two agreed on.
"""

import re
from typing import Annotated, Final

import msgspec

from detector.transports import inflating
from detector.transports.inflating import MAX_INFLATED, WINDOW, InflateError

MAX_MESSAGE: Final = MAX_INFLATED
MAX_HEADER: Final = 14
_CONTINUED: Final = 0
_OPCODES: Final = frozenset({0, 1, 2, 8, 9, 10})
_TEXT: Final = 1
_BINARY: Final = 2
_CONTROL: Final = 8
_BLANKS: Final = b" \t\r\n"
# The first octet of a message that is not compressed; so much of its text tells that it is JSON; and its
# frames may be so long together until then.
STARTS: Final = b"\x01\x02\x81\x82"
_STARTS: Final = re.compile(rb"[\x01\x02\x81\x82]")
_JSON: Final = re.compile(rb"[ \t\r\n]*(?:[{\[][ \t\r\n]*(?:[{}\[\]\"][ \t\r\n\x20-\xff]*)?)?")
_SURE: Final = 8
_MAX_SEARCHED: Final = 1024

Octets = Annotated[bytes, msgspec.Meta(max_length=MAX_MESSAGE)]


class Header(msgspec.Struct, gc=False):
    """Of one frame; ``octets`` is how long it is itself, ``size`` how much payload follows."""

    octets: int
    final: bool
    compressed: bool
    opcode: int
    key: bytes
    size: int


def header(data: bytes, at: int) -> Header | None:
    """The header at ``at``; None where it is cut.  Raises ValueError on what is no frame (section 5.2)."""
    if len(data) < at + 2:
        return None
    first, second = data[at], data[at + 1]
    opcode, size, end = first & 15, second & 127, at + 2
    if first & 0x30 or opcode not in _OPCODES:
        raise ValueError("reserved bits or opcode")
    if opcode >= _CONTROL and (size > 125 or not first & 0x80 or first & 0x40):
        raise ValueError("a control frame that is long, compressed or cut into fragments")
    if size > 125:
        more = 2 if size == 126 else 8
        if len(data) < end + more:
            return None
        size = int.from_bytes(data[end : end + more], "big")
        end += more
        if size >> 63:
            raise ValueError("a length of 64 bits")
    key = b""
    if second & 0x80:
        key, end = data[end : end + 4], end + 4
        if len(data) < end:
            return None
    return Header(end - at, bool(first & 0x80), bool(first & 0x40), opcode, key, size)


def unmask(data: bytes, key: bytes, at: int = 0) -> bytes:
    """``data`` that begins ``at`` octets into its frame, unmasked (section 5.3)."""
    if not key or not data:
        return data
    turned = key[at & 3 :] + key[: at & 3]
    long = turned * (len(data) // 4 + 1)
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(long[: len(data)], "big")
    return mixed.to_bytes(len(data), "big")


def is_frames(data: bytes) -> bool:
    """Whether ``data`` is whole frames and nothing else, and such text among them as JSON may be: what a
    segment of a WebSocket mostly is.  For joining one in the middle."""
    at = 0
    while at < len(data):
        try:
            head = header(data, at)
        except ValueError:
            return False
        if head is None:
            return False
        begins, at = at + head.octets, at + head.octets + head.size
        if head.opcode == _TEXT and not head.compressed:
            text = unmask(data[begins : begins + 16], head.key).lstrip(_BLANKS)
            if text[:1] not in {b"{", b"[", b""}:
                return False
    return at == len(data) > 0


def begins(data: bytes, at: int) -> bool | None:
    """Whether frames of a message that is JSON begin at ``at``; None while the bytes end before that is
    sure.  Its text tells, in fragments of whatever size: what is compressed does not."""
    text, opened, first = b"", False, at
    while len(text) < _SURE:
        try:
            head = header(data, at)
        except ValueError:
            return False
        if head is None:
            break
        if head.compressed or (not opened and head.opcode not in {_TEXT, _BINARY}):
            return False
        opened = True
        at += head.octets
        if head.opcode < _CONTROL:
            text += unmask(data[at : at + min(head.size, _SURE)], head.key)
            if not _JSON.fullmatch(text):
                return False
        at += head.size
        if at >= len(data):
            break
    if len(text) >= _SURE:
        return True
    return None if len(data) - first <= _MAX_SEARCHED else False


def find(data: bytes, at: int = 0) -> tuple[int, bool]:
    """Where from ``at`` on frames begin, and whether that is sure; the end of ``data`` where they do not.
    For one who joined in the middle of anything."""
    for found in _STARTS.finditer(data, at):
        sure = begins(data, found.start())
        if sure is not False:
            return found.start(), bool(sure)
    return len(data), False


class Frames(msgspec.Struct, array_like=True, gc=False):
    """Where one direction stands: ``left`` octets of a frame are to come, ``done`` of it are read.

    ``message`` is what came of a message, as sent; ``dropped`` says that it is too long to be kept, or that
    its beginning was not seen.  ``window`` is what was inflated last, nothing once a message was not read.
    """

    left: Annotated[int, msgspec.Meta(ge=0)] = 0
    done: Annotated[int, msgspec.Meta(ge=0)] = 0
    key: Annotated[bytes, msgspec.Meta(max_length=4)] = b""
    final: bool = True
    control: bool = False
    compressed: bool = False
    open: bool = False
    dropped: bool = False
    message: Octets = b""
    window: Annotated[bytes, msgspec.Meta(max_length=WINDOW)] = b""

    def rests(self) -> bool:
        """Whether no message is begun: then it is as it began, but for ``window``."""
        return not (self.left or self.open)

    def step(self, data: bytes, at: int) -> tuple[int, bool, bytes | None]:
        """Read on at ``at``, to the end of a message at most: where it stopped, whether that is the end of
        one, and the message, None where it cannot be read.

        It stops before the end of ``data`` without a message only where a header is cut.  Raises ValueError
        on what is no frame; what was read before it is not read again.
        """
        begun = at
        while True:
            if not self.left:
                try:
                    head = header(data, at)
                except ValueError:
                    if at == begun:
                        raise
                    return at, False, None
                if head is None:
                    return at, False, None
                self._begin(head)
                at += head.octets
            taken = data[at : at + self.left]
            at += len(taken)
            if taken and not self.control:
                self._keep(unmask(taken, self.key, self.done & 3))
            self.left -= len(taken)
            self.done += len(taken)
            if self.left:
                return at, False, None
            whole = self.final and not self.control
            self.done, self.key, self.final, self.control = 0, b"", True, False
            if whole:
                return at, True, self._finish()

    def _begin(self, head: Header) -> None:
        self.left, self.done, self.key, self.final = head.size, 0, head.key, head.final
        self.control = head.opcode >= _CONTROL
        if self.control:
            return
        if head.opcode != _CONTINUED:
            self.message, self.dropped, self.open = b"", False, True
            self.compressed = head.compressed
        elif not self.open:
            # We joined inside of a message.
            self.message, self.dropped, self.open, self.compressed = b"", True, True, False

    def _keep(self, data: bytes) -> None:
        if self.dropped:
            return
        if len(self.message) + len(data) > MAX_MESSAGE:
            self.message, self.dropped = b"", True
        else:
            self.message += data

    def _finish(self) -> bytes | None:
        message, self.message, self.open = self.message, b"", False
        dropped, self.dropped = self.dropped, False
        compressed, self.compressed = self.compressed, False
        if dropped:
            # What the sender looks back at is not known any more, if it was compressed.
            self.window = b""
            return None
        if not compressed:
            return message
        window, self.window = self.window, b""
        try:
            out = inflating.message(message, window)
        except InflateError:
            return None
        self.window = (window + out)[-WINDOW:]
        return out
