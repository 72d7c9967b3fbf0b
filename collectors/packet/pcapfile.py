"""Capture files in, blocks of frames out: pcap and pcapng in either byte order, plain or gzip.

The input is any open binary file object, read once from front to back in pieces of a few MiB, so a pipe
serves as well as a file.  Records are found by compiled walkers; Python sees blocks only.  What is whole is
used; what is not is counted under a Reason.  Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from collectors.errors import DecodeError, Reason
from collectors.packet.gunzip import GZIP, Gunzip, Reader
from collectors.packet.walking import (
    BAD,
    FULL,
    MAX_FRAME,
    OTHER,
    PcapForm,
    walk_ng,
    walk_pcap,
)

# Large enough that what Python does for each is little, small enough for the processor's cache: with 1 MiB
# the packet path takes a tenth longer.
PIECE_BYTES: Final = 4 << 20
MAX_FRAMES: Final = 32768
# Vector loads of the scanner may read so far past the last frame.
PADDING: Final = 128
MAX_INTERFACES: Final = 4096
# A section header or an interface description longer than this is not believed.
_MAX_DESCRIPTION: Final = 1 << 20

# Read at once, and walked before more is read: where a record begins is only known from the one before,
# so each is a wait for memory unless it lies in the nearest cache (a twentieth of the packet path).
_STEP: Final = 1 << 19
# With so much of a pipe in hand, what it holds is looked at.
_ENOUGH: Final = 1 << 16
_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
# Fills columns: a walker of ``walking`` at work on a window.
_Walker = Callable[[tuple[np.ndarray, ...]], tuple[int, int, int]]
_MAGICS: Final = {
    # magic: (nanoseconds, octets of a record header); the last is Kuznetzov's patched libpcap.
    0xA1B2C3D4: (False, 16),
    0xA1B23C4D: (True, 16),
    0xA1B2CD34: (False, 24),
}


@dataclass(frozen=True, slots=True)
class Block:
    """Frames as columns.  Frame i is ``data[offset[i] : offset[i] + captured[i]]``.

    ``data`` u1, padded; ``offset`` i8; ``captured`` and ``length`` (on the wire) u4, octets; ``t_ns`` i8,
    Unix time; ``link`` u2, LINKTYPE numbers.  ``refused`` counts what was met and could not be used.
    """

    data: np.ndarray
    offset: np.ndarray
    captured: np.ndarray
    length: np.ndarray
    t_ns: np.ndarray
    link: np.ndarray
    refused: dict[Reason, int] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """As the kernels take them."""
        return self.data, self.offset, self.captured, self.length, self.t_ns, self.link

    def part(self, first: int, last: int) -> "Block":
        """Frames ``first`` up to ``last``; what was refused goes with frame 0."""
        offset, captured, length, t_ns, link = (c[first:last] for c in self.columns[1:])
        refused = {} if first else self.refused
        return Block(self.data, offset, captured, length, t_ns, link, refused)


class _Window:
    """The part of the input that is being looked at: ``data[at:end]``."""

    def __init__(self, file: Reader, head: bytes, size: int) -> None:
        self._file = file
        self._into = getattr(file, "readinto", None)
        # A live input tells whether there is more without waiting for it.
        self._ready = getattr(file, "ready", lambda: True)
        self._size = size
        self.data = np.zeros(size + PADDING, np.uint8)
        self.data[: len(head)] = np.frombuffer(head, np.uint8)
        self.at = 0
        self.end = len(head)
        self.over = False
        # Whether the input gave all that it was asked for the last time.
        self._plenty = False

    def more(self) -> bool:
        """Read on, into a fresh buffer: blocks that were handed out keep theirs.  False at the end."""
        fresh = np.empty(self._size + PADDING, np.uint8)
        left = self.end - self.at
        fresh[:left] = self.data[self.at : self.end]
        self.data, self.at, self.end = fresh, 0, left
        got = 0
        # A pipe gives little at a time, and a live one must not wait for much.
        while self.end < self._size and not self.over and got < _ENOUGH and (not got or self._ready()):
            got += self._step()
        return got > 0

    def grow(self) -> bool:
        """Read on into the same buffer.  False where it is full, or where the input might make us wait."""
        return self._plenty and self.end < self._size and self._ready() and self._step() > 0

    def _step(self) -> int:
        room = self.data[self.end : min(self.end + _STEP, self._size)]
        n = self._fill(room)
        self._plenty, self.over = n == room.size, n == 0
        self.end += n
        self.data[self.end : self.end + PADDING] = 0
        return n

    def _fill(self, room: np.ndarray) -> int:
        """Read into ``room``, without a copy where the input can."""
        if self._into is not None:
            return self._into(room) or 0
        piece = self._file.read(room.size)
        room[: len(piece)] = np.frombuffer(piece, np.uint8)
        return len(piece)

    def need(self, n: int) -> bool:
        """Have at least ``n`` octets before us, if the input has them and they fit."""
        while self.end - self.at < n:
            if n > self._size or not self.more():
                return False
        return True

    def skip(self, n: int) -> bool:
        """Go past ``n`` octets, of whatever length.  False if the input ends before."""
        while n > self.end - self.at:
            n -= self.end - self.at
            self.at = self.end
            if not self.more():
                return False
        self.at += n
        return True

    def bytes(self, n: int) -> bytes:
        return self.data[self.at : self.at + n].tobytes()


def blocks(file: Reader, piece_bytes: int = PIECE_BYTES) -> Iterator[Block]:
    """Read a capture.  Raises DecodeError(Reason.FORMAT or VERSION) on what is no capture at all.

    At most ``piece_bytes`` of the file and MAX_FRAMES frames make a block; ``piece_bytes`` is raised to what
    the longest frame needs.
    """
    head = _head(file, b"")
    source: Reader = file
    gunzip = None
    if head[:2] == GZIP:
        source = gunzip = Gunzip(file, head)
        head = _head(source, b"")
    window = _Window(source, head, max(piece_bytes, MAX_FRAME + 64))
    order = _byte_order(head)
    if head[:4] == _SECTION.to_bytes(4, "big"):
        found = _pcapng(window)
    elif order:
        found = _pcap(window, order)
    else:
        raise DecodeError(Reason.FORMAT, f"begins with {head[:4].hex() or 'nothing'}: no capture file")
    yield from found
    if gunzip is not None and gunzip.broken:
        yield _empty({Reason.TRUNCATED: 1})


def _head(file: Reader, head: bytes) -> bytes:
    while len(head) < 24:
        piece = file.read(24 - len(head))
        if not piece:
            break
        head += piece
    return head


def _byte_order(head: bytes) -> str:
    for order in ("little", "big"):
        if int.from_bytes(head[:4], order) in _MAGICS and len(head) >= 4:  # type: ignore[arg-type]
            return order
    return ""


def _empty(refused: dict[Reason, int]) -> Block:
    return Block(
        np.zeros(PADDING, np.uint8),
        np.zeros(0, np.int64),
        np.zeros(0, np.uint32),
        np.zeros(0, np.uint32),
        np.zeros(0, np.int64),
        np.zeros(0, np.uint16),
        refused,
    )


class _Columns:
    """Room for one block's columns."""

    def __init__(self) -> None:
        self.arrays = (
            np.empty(MAX_FRAMES, np.int64),
            np.empty(MAX_FRAMES, np.uint32),
            np.empty(MAX_FRAMES, np.uint32),
            np.empty(MAX_FRAMES, np.int64),
            np.empty(MAX_FRAMES, np.uint16),
        )

    def after(self, n: int) -> tuple[np.ndarray, ...]:
        """What frame ``n`` and the following ones go into."""
        return tuple(a[n:] for a in self.arrays)

    def block(self, data: np.ndarray, n: int, refused: dict[Reason, int]) -> Block:
        offset, captured, length, t_ns, link = (a[:n].copy() for a in self.arrays)
        return Block(data, offset, captured, length, t_ns, link, refused)


def _walk(window: _Window, columns: _Columns, walk: _Walker) -> tuple[int, int]:
    """Frames of what the window holds and of what can be read behind it: how many, and why no more."""
    n = 0
    while True:
        window.at, found, why = walk(columns.after(n))
        n += found
        if why or not window.grow():
            return n, why


def _pcap(window: _Window, order: str) -> Iterator[Block]:
    head = window.bytes(24)
    if len(head) < 24 or window.end < 24:
        raise DecodeError(Reason.FORMAT, "a pcap file header is 24 bytes")
    magic = int.from_bytes(head[:4], order)  # type: ignore[arg-type]
    major = int.from_bytes(head[4:6], order)  # type: ignore[arg-type]
    if major != 2:
        raise DecodeError(Reason.VERSION, f"pcap version {major}")
    # The upper half of the last word says how long frame check sequences are; IP says where it ends.
    link = int.from_bytes(head[20:24], order) & 0xFFFF  # type: ignore[arg-type]
    nanoseconds, header = _MAGICS[magic]
    form = PcapForm(order == "big", nanoseconds, header, link)
    window.at = 24
    columns = _Columns()
    while True:
        n, why = _walk(window, columns, lambda out: walk_pcap(window.data, window.at, window.end, form, out))
        if n:
            yield columns.block(window.data, n, {})
        if why == BAD:
            # Where the next record begins is not known any more.
            yield _empty({Reason.LENGTH: 1})
            return
        if why != FULL and not window.more():
            break
    if window.end > window.at:
        yield _empty({Reason.TRUNCATED: 1})


class _Section:
    """What a pcapng section has said so far: its byte order and its interfaces."""

    def __init__(self) -> None:
        self.big = False
        self.count = 0
        # Per interface: link type, snap length, units a second (negative: a power of 2), offset in seconds.
        self.interfaces = np.zeros((MAX_INTERFACES, 4), np.int64)

    def begin(self, head: bytes) -> None:
        self.big = head[8:12] == b"\x1a\x2b\x3c\x4d"
        if not self.big and head[8:12] != b"\x4d\x3c\x2b\x1a":
            raise DecodeError(Reason.FORMAT, "a pcapng section without its byte-order magic")
        if self.number(head[12:14]) != 1:
            raise DecodeError(Reason.VERSION, f"pcapng version {self.number(head[12:14])}")
        self.count = 0

    def number(self, raw: bytes) -> int:
        return int.from_bytes(raw, "big" if self.big else "little")

    def interface(self, body: bytes) -> bool:
        """Note one interface description.  False: too many, or too short to be one."""
        if self.count >= MAX_INTERFACES or len(body) < 8:
            return False
        resolution, offset = 6, 0
        for code, value in self._options(body[8:]):
            if code == 9 and len(value) >= 1:
                resolution = value[0]
            elif code == 14 and len(value) >= 8:
                offset = int.from_bytes(value[:8], "big" if self.big else "little", signed=True)
        # if_tsresol: the top bit set means a power of two.
        digits = -(resolution & 0x7F) - 1 if resolution & 0x80 else resolution
        offset = max(-(2**40), min(2**40, offset))
        row = (self.number(body[:2]), self.number(body[4:8]), digits, offset)
        self.interfaces[self.count] = row
        self.count += 1
        return True

    def _options(self, raw: bytes) -> Iterator[tuple[int, bytes]]:
        while len(raw) >= 4:
            code, size = self.number(raw[:2]), self.number(raw[2:4])
            if code == 0:
                return
            yield code, raw[4 : 4 + size]
            raw = raw[4 + (size + 3) // 4 * 4 :]


def _pcapng(window: _Window) -> Iterator[Block]:
    section = _Section()
    columns = _Columns()
    last_ns = np.zeros(1, np.int64)
    refusals = np.zeros(3, np.int64)
    first = True

    def walk(out: tuple[np.ndarray, ...]) -> tuple[int, int, int]:
        return walk_ng(
            window.data, window.at, window.end, section.big, section.interfaces, section.count,
            last_ns, refusals, out,
        )  # fmt: skip

    while window.need(12):
        refused: dict[Reason, int] = {}
        if not first:
            n, why = _walk(window, columns, walk)
            for reason, count in zip(
                (Reason.LENGTH, Reason.INTERFACE, Reason.CORRUPT), refusals, strict=True
            ):
                if count:
                    refused[reason] = int(count)
            refusals[:] = 0
            if n or refused:
                yield columns.block(window.data, n, refused)
            if why == FULL or (why == 0 and window.more()):
                continue
            if why == 0:
                break
            if why == BAD:
                yield _empty({Reason.LENGTH: 1})
                return
        try:
            if not _description(window, section, first):
                break
        except DecodeError as error:
            if first:
                raise
            yield _empty({error.reason: 1})
            return
        first = False
    if window.end > window.at:
        yield _empty({Reason.TRUNCATED: 1})


def _description(window: _Window, section: _Section, first: bool) -> bool:
    """Take the block before us, which is no packet.  False: the input ends in it."""
    if not window.need(12):
        return False
    head = window.bytes(12)
    if head[:4] == _SECTION.to_bytes(4, "big"):
        if not window.need(28):
            if first:
                raise DecodeError(Reason.FORMAT, "a pcapng section header is 28 bytes")
            return False
        section.begin(window.bytes(28))
    kind, size = section.number(head[:4]), section.number(head[4:8])
    if size < 12 or size % 4:
        raise DecodeError(Reason.FORMAT, f"pcapng block of {size} bytes")
    if kind == _INTERFACE and size <= _MAX_DESCRIPTION:
        if not window.need(size):
            return False
        section.interface(window.bytes(size)[8:-4])
    return window.skip(size)


__all__ = ["MAX_FRAMES", "OTHER", "Block", "blocks"]
