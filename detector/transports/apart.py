"""Segments that are one message each in, taken apart: what is around it, and the line in it.

Programs send the same heads of HTTP again and again, but for how long the body is and what time it is; what
such a head means is found out once (``Apart``).  A body that is one object is a line then, and may be known
by its form as lines are; so is a member of gzip that holds one.  Nothing depends on what is known here: what
is not taken apart is read as it comes.
"""

import zlib
from typing import Final, NamedTuple

from detector.transports import chia, gunzip, heads
from detector.transports.heads import MAX_KNOWN, Head

MAX_HEADS: Final = 1024
MAX_TEXT: Final = 4 << 10
"""Octets of a body that is looked at; longer ones are templates, which never come again."""
MOST_LOOKS: Final = 1 << 13
"""Rows that are looked at without any of use: a batch of them."""
FIRST_LOOKS: Final = 1 << 10
FREE: Final = 16
"""One row in so many may always be looked at."""
WORTH: Final = 2
"""Looks that one of use pays for."""
SIZE: Final = 9
"""Of what stands for a head."""
MARK: Final = 5
"""The first octet of it: no line begins so, nor a frame's form (``collectors.masking``)."""
PACKED: Final = 6
"""What stands for a member of gzip."""
MAX_PACKED: Final = 1024
MAX_UNPACKED: Final = 2048

_BLANK: Final = b"\r\n\r\n"
_LENGTHS: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_DATES: Final = (b"\r\nDate: ", b"\r\nLast-Modified: ")
_DATE: Final = 29  # octets of one (RFC 9110 section 5.6.7)
_BLANKS: Final = b" \t\r\n"
_MEMBER: Final = gunzip.MAGIC + b"\0"  # without a name or a comment
_PACKED: Final = bytes([PACKED])


class Message(NamedTuple):
    """What stands for the head, or what else is around; the body as a line."""

    head: bytes
    line: bytes


class Apart:
    """What heads mean.  ``said`` is by what stands for them; of those that were forgotten there is none, and
    nothing else will ever stand for another.

    To take a row apart costs as much as to turn several connections away: where it is of no use, as in a
    flood of heads that never come again, few rows are looked at."""

    def __init__(self) -> None:
        self.said: dict[bytes, Head] = {}
        self._once: set[bytes] = set()
        self._names: dict[bytes, bytes] = {}
        self._whole: dict[bytes, tuple[bytes, int]] = {}
        self._number = 0
        self._looks = FIRST_LOOKS

    def looks(self, rows: int) -> int:
        """How many of so many rows may be looked at."""
        self._looks = min(self._looks + -(-rows // FREE), MOST_LOOKS)
        return self._looks

    def looked(self, looks: int, of_use: int) -> None:
        """So many were, and so many of those did not have to be read."""
        self._looks = max(0, self._looks - looks) + WORTH * of_use

    def take(self, told: bytes, start: int, end: int) -> Message | None:
        """Take ``told[start:end]`` apart; None for what is no whole message whose body is an object that is
        read, or whose head says what is not always the same, as a password."""
        if told.startswith(_MEMBER, start, end):
            return _unpacked(told[start:end])
        blank = told.find(_BLANK, start, min(end, start + MAX_KNOWN))
        size = end - blank - 4
        if blank < 0 or not 2 <= size <= MAX_TEXT:
            return None
        whole = told[start:blank]
        name, body = self._whole.get(whole, (b"", size))
        if body != size:
            return None
        name = name or self._head(told, start, blank, size)
        line = told[blank + 4 : end].strip(_BLANKS) if name else b""
        if line[:1] != b"{":
            return None
        if len(self._whole) >= MAX_HEADS:
            self._whole.clear()
        self._whole[whole] = name, size
        return Message(name, line + b"\n")

    def _head(self, told: bytes, start: int, blank: int, size: int) -> bytes:
        """What stands for the head ``told[start:blank]``; b"" where it is to be read, or is not of a body of
        that size."""
        at = told.find(_LENGTHS[0], start, blank)
        if at < 0:
            at = told.find(_LENGTHS[1], start, blank)
        at += len(_LENGTHS[0])
        behind = told.find(b"\r", at, blank + 1)
        if at < len(_LENGTHS[0]) + start or told[at:behind] != b"%d" % size:
            return b""
        head = told[start:at] + told[behind:blank]
        for word in _DATES:
            found = head.find(word)
            if found >= 0 and b"\n" not in head[found + len(word) : found + len(word) + _DATE]:
                head = head[: found + len(word)] + head[found + len(word) + _DATE :]
        name = self._names.get(head)
        return self._name(head, told[start:blank], told[at:behind]) if name is None else name

    def _name(self, head: bytes, whole: bytes, size: bytes) -> bytes:
        """What stands for a head from now on; b"" where it is to be read, or comes for the first time, as
        most that are seen once do not come again."""
        small = whole.lower()
        if b"authorization" in small:
            return b""  # no password is kept
        if head not in self._once:
            if len(self._once) >= MAX_HEADS:
                self._once.clear()
            self._once.add(head)
            return b""
        self._once.remove(head)
        if len(self._names) >= MAX_HEADS:
            self._names.clear()
            self._whole.clear()
            self.said.clear()
        name, said = b"", _read(whole) if small.count(b"content-length") == 1 else None
        if said is not None and said.size == size:
            self._number += 1
            name = bytes([MARK]) + self._number.to_bytes(SIZE - 1, "big")
            self.said[name] = said
        self._names[head] = name
        return name


def _read(whole: bytes) -> Head | None:
    """A head before a body that is read where it is a request's, and that may be where it answers one; None
    for another."""
    if b"\n\n" in whole or b"\n\r\n" in whole:
        return None
    try:
        said = heads.read(whole)
    except ValueError:
        return None
    if said.transfer is not None or said.coding != "identity" or said.upgrades:
        return None
    if said.status:
        return said if said.status >= 200 and said.status not in {204, 304} else None
    posts = said.method in {b"POST", b"PUT"} and (said.is_json or said.is_program)
    return said if posts and not chia.call(said.method, said.target) else None


def _unpacked(data: bytes) -> Message | None:
    """A member of gzip that is a line (RFC 1952); None for what is not one by itself, or a long one."""
    if len(data) > MAX_PACKED:
        return None
    inflate = zlib.decompressobj(-15)
    try:
        line = inflate.decompress(data[gunzip.HEADER :], MAX_UNPACKED).rstrip(_BLANKS)
    except zlib.error:
        return None
    whole = inflate.eof and len(inflate.unused_data) == gunzip.TRAILER
    if not whole or line[:1] != b"{" or line[-1:] != b"}" or b"\r" in line:
        return None
    return Message(_PACKED, line + b"\n")
