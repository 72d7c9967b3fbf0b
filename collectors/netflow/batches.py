"""Many datagrams in one call: recvmmsg(2) into memory that is used over and over, a Block of columns out.

No Python object is made of a datagram.  The memory of a Block is its reader's to keep: octets are copied out
of their slots close to one another (70 ns a datagram of 1,400 octets, where its records take 3,000), so that
the slots are free again at once, whoever holds the Block.  Blocks lie one after the other in a store, which
begins anew when nobody holds any of them: fresh memory costs more than what is done with it (a fault and a
cleared page for every third datagram), and blocks of one store are joined without a copy.  Layouts are those
of 64-bit, little-endian Linux; elsewhere ``available`` is false and ``udp.OneByOne`` does the same.
"""

import ctypes
import errno
import os
import secrets
import socket
import struct
import sys
import time
from typing import Any, Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.netflow.datagrams import Block
from collectors.reading import PADDING

# asm-generic/socket.h; Python's socket module has no name for them.
RXQ_OVFL: Final = 40
TIMESTAMPNS: Final = 35
_BILLION: Final = 1_000_000_000
# What nearly every datagram fits in; longer ones go on in memory that is touched for them only.
_HEAD: Final = 2048
_LONGEST: Final = 65536
# struct mmsghdr in words of 8 octets.
_NAME_BYTES, _CONTROL_BYTES, _FLAGS, _LENGTH, _WORDS = 1, 5, 6, 7, 8
_NAME: Final = 32
_CONTROL: Final = 64
_LOW: Final = 0xFFFFFFFF
_AT, _SIZE, _EXPORTER, _T, _PORT, _COLUMNS = range(6)
STORE_BYTES: Final = 16 << 20
_STORES: Final = 3
# The store itself and the argument of sys.getrefcount: nobody else has it.
_FREE: Final = 2


def _recvmmsg() -> Any:
    if sys.platform != "linux" or sys.byteorder != "little" or sys.maxsize < 2**62:
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "recvmmsg", None)


_CALL: Final = _recvmmsg()


def available() -> bool:
    """Whether this system has recvmmsg, with the layouts that we know."""
    return _CALL is not None


@kernel
def gather(count, messages, controls, names, heads, tails, kinds, now_ns, seed, data, used, out, slots,
           addresses, known):  # fmt: skip
    """Copy ``count`` datagrams from their slots to ``data``, from ``used[0]`` on, which is moved; describe
    them in ``out``, and free the slots.

    ``kinds`` is (AF_INET, SOL_SOCKET, SCM_TIMESTAMPNS, MSG_TRUNC).  ``slots`` is a table of a power of two of
    numbers of ``addresses`` (n, 2), of which there are ``known``, else -1; no more than half of it is used.
    Returns (kept, addresses, truncated).
    """
    kept, cut, at = 0, 0, used[0]
    mask = np.int64(slots.size - 1)
    head = np.int64(heads.shape[1])
    for i in range(count):
        size = messages[i, _LENGTH] & _LOW
        if messages[i, _FLAGS] & kinds[3]:
            cut += 1
        else:
            first = min(size, head)
            for j in range(first):
                data[at + j] = heads[i, j]
            for j in range(size - first):
                data[at + first + j] = tails[i, j]
            low, high = names[i, 1], names[i, 2]
            if names[i, 0] & 0xFFFF == kinds[0]:
                low = np.int64(0)
                high = np.int64(0xFFFF0000) | (names[i, 0] >> 32) << 32
            mixed = (low ^ seed) * np.int64(-7046029254386353131) + high * np.int64(-4417276706812531889)
            mixed ^= (mixed >> 31) & np.int64(0x1FFFFFFFF)
            place = (mixed * np.int64(-7046029254386353131) >> 29) & mask
            while slots[place] >= 0:
                number = slots[place]
                if addresses[number, 0] == low and addresses[number, 1] == high:
                    break
                place = (place + 1) & mask
            if slots[place] < 0:
                slots[place] = known
                addresses[known, 0] = low
                addresses[known, 1] = high
                known += 1
            out[_AT, kept] = at
            out[_SIZE, kept] = size
            out[_EXPORTER, kept] = slots[place]
            port = names[i, 0] >> 16
            out[_PORT, kept] = (port & 0xFF) << 8 | (port >> 8) & 0xFF
            out[_T, kept] = _stamp(controls, i, messages[i, _CONTROL_BYTES], kinds, now_ns)
            at += size
            kept += 1
        messages[i, _NAME_BYTES] = _NAME
        messages[i, _CONTROL_BYTES] = _CONTROL
        messages[i, _FLAGS] = 0
    used[0] = at
    return kept, known, cut


@kernel
def _stamp(controls, i, size, kinds, now_ns):
    """The kernel's time of receipt among the control messages of datagram i, else ``now_ns``."""
    at = np.int64(0)
    while at + 16 <= size:
        length, what = controls[i, at >> 3], controls[i, (at >> 3) + 1]
        if length < 16:
            break
        if what & _LOW == kinds[1] and what >> 32 == kinds[2] and length >= 32 and at + 32 <= size:
            return controls[i, (at >> 3) + 2] * _BILLION + controls[i, (at >> 3) + 3]
        at += length + 7 & ~7
    return now_ns


class _Store:
    """Memory of several blocks, one after the other, whose exporters have the same numbers."""

    def __init__(self, octets: int, most: int) -> None:
        self.data = np.empty(octets + PADDING, np.uint8)
        self.data[-PADDING:] = 0
        self.used = np.zeros(1, np.int64)
        self.octets = octets
        self.most = most
        self.slots = np.full(1 << (2 * most - 1).bit_length(), -1, np.int32)
        self.pairs = np.empty((most, 2), np.int64)
        self.addresses: list[bytes] = []

    def has_room(self, octets: int, count: int) -> bool:
        """Whether a block of so many octets and datagrams fits, whoever they are from."""
        return self.used[0] + octets <= self.octets and len(self.addresses) + count <= self.most

    def free(self) -> bool:
        """Whether nobody holds a block of it."""
        return sys.getrefcount(self.data) <= _FREE

    def empty(self) -> None:
        """Begin anew."""
        self.used[0] = 0
        if self.addresses:
            self.slots.fill(-1)
            self.addresses = []


class Batch:
    """Room for ``most`` datagrams of up to ``longest`` octets.  ``take`` from sockets, then ``block``."""

    def __init__(self, most: int = 1024, longest: int = _LONGEST) -> None:
        head = min(_HEAD, longest)
        self._heads = np.zeros((most, head), np.uint8)
        self._tails = np.empty((most, max(1, longest - head)), np.uint8)
        self._names = np.zeros((most, _NAME // 8), np.int64)
        self._controls = np.zeros((most, _CONTROL // 8), np.int64)
        self._vectors = np.zeros((most, 4), np.int64)
        self._messages = np.zeros((most, _WORDS), np.int64)
        self._stores = [_Store(STORE_BYTES, 16 * most)]
        self._seed = secrets.randbits(62)
        self._most = most
        row = np.arange(most)
        self._vectors[:, 0] = self._heads.ctypes.data + row * self._heads.strides[0]
        self._vectors[:, 1] = head
        self._vectors[:, 2] = self._tails.ctypes.data + row * self._tails.strides[0]
        self._vectors[:, 3] = longest - head
        self._messages[:, 0] = self._names.ctypes.data + row * _NAME
        self._messages[:, _NAME_BYTES] = _NAME
        self._messages[:, 2] = self._vectors.ctypes.data + row * self._vectors.strides[0]
        self._messages[:, 3] = 2
        self._messages[:, 4] = self._controls.ctypes.data + row * _CONTROL
        self._messages[:, _CONTROL_BYTES] = _CONTROL
        self._at = self._messages.ctypes.data
        self._kinds = np.array([socket.AF_INET, socket.SOL_SOCKET, TIMESTAMPNS, socket.MSG_TRUNC], np.int64)
        self.count = 0
        self.truncated = 0

    @property
    def room(self) -> int:
        """How many more datagrams find room before ``block``."""
        return self._most - self.count

    def take(self, opened: socket.socket, quota: int) -> tuple[int, int | None]:
        """Take up to ``quota`` datagrams that wait there; how many, and the kernel's count of those that it
        had to drop before the last of them, where it told."""
        first = self.count
        if not (want := min(quota, self._most - first)):
            return 0, None
        got = _CALL(
            opened.fileno(), ctypes.c_void_p(self._at + first * 8 * _WORDS), want, socket.MSG_DONTWAIT, None
        )
        if got <= 0:
            code = ctypes.get_errno() if got < 0 else 0
            if code in (0, errno.EAGAIN, errno.EINTR):
                return 0, None
            raise OSError(code, os.strerror(code))
        self.count += got
        return got, self._dropped(self.count - 1)

    def _dropped(self, last: int) -> int | None:
        size = int(self._messages[last, _CONTROL_BYTES])
        control = self._controls[last].tobytes()[:size]
        at = 0
        while at + 20 <= size:
            length, level, kind = struct.unpack_from("=qii", control, at)
            if level == socket.SOL_SOCKET and kind == RXQ_OVFL:
                return int.from_bytes(control[at + 16 : at + 20], "little")
            at += max(16, length + 7 & ~7)
        return None

    def block(self) -> Block:
        """What was taken, in that order, without what was truncated (``truncated`` counts it)."""
        count, self.count = self.count, 0
        octets = int(self._messages[:count, _LENGTH].sum())
        store = self._store(octets, count)
        out = np.empty((_COLUMNS, count), np.int64)
        kept, known, cut = gather(
            count, self._messages, self._controls, self._names, self._heads, self._tails, self._kinds,
            time.time_ns(), self._seed, store.data, store.used, out, store.slots, store.pairs,
            len(store.addresses),
        )  # fmt: skip
        self.truncated += cut
        if known > len(store.addresses):
            # A new list: blocks before this one keep theirs.
            fresh = range(len(store.addresses), known)
            store.addresses = [*store.addresses, *(store.pairs[i].tobytes() for i in fresh)]
        out = out[:, :kept]
        return Block(store.data, out[_AT], out[_SIZE], out[_EXPORTER], out[_T], store.addresses, out[_PORT])

    def _store(self, octets: int, count: int) -> _Store:
        """The one that is being filled; where it is free or full, one from its beginning."""
        now = self._stores[-1]
        if now.free():
            now.empty()
        if now.has_room(octets, count):
            return now
        for i, one in enumerate(self._stores):
            if one.free() and one.octets >= octets:
                one.empty()
                self._stores.append(self._stores.pop(i))
                return one
        self._stores = [*self._stores[1 - _STORES :], _Store(max(octets, STORE_BYTES), now.most)]
        return self._stores[-1]


def warm() -> None:
    """Compile the kernel, with an empty block."""
    Batch(1).block()
