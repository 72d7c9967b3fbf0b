"""UDP sockets: how one is opened, and datagrams one by one where there is no better way (``batches``).

Receiving does nothing but receive: what is lost at the socket is lost for good.  A list is what the kernel
held when we looked; its own count of what it had to drop comes beside (SO_RXQ_OVFL, Linux).
"""

import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from collectors.errors import InputError
from collectors.netflow.batches import RXQ_OVFL, TIMESTAMPNS
from collectors.netflow.datagrams import Block, Datagram, block

_MAX_DATAGRAM: Final = 65535
# Not in Python's socket module: asm-generic/socket.h, linux/sock_diag.h.
_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8
_ANCILLARY: Final = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(16)


@lru_cache(maxsize=65536)
def address_of(text: str) -> bytes:
    """An address as the socket module has it, as 16 octets."""
    given = ip_address(text.partition("%")[0])
    return given.packed if given.version == 6 else bytes(10) + b"\xff\xff" + given.packed


def opened(address: str, port: int, buffer_bytes: int, *, reuse: bool = False) -> socket.socket:
    """A bound socket that does not block, tells what it dropped and stamps what it receives.

    With ``reuse`` it shares the port with others that say so.  The first on a machine to ask for stamps gets
    them a moment later (net_enable_timestamp, Linux); what came before bears the time of its reading.  Raises
    InputError.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if reuse:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _widen(made, buffer_bytes)
        if sys.platform == "linux":
            for option in (RXQ_OVFL, TIMESTAMPNS):
                made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise InputError(f"UDP {address} port {port}: {error}") from None
    made.setblocking(False)
    return made


def granted(one: socket.socket) -> int:
    """Octets of receive buffer that the kernel gave: limited by net.core.rmem_max without CAP_NET_ADMIN."""
    # Linux keeps twice what was asked for, its own book-keeping included (socket(7)).
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def _widen(one: socket.socket, wanted: int) -> None:
    """Ask for a receive buffer, past the limit where we may."""
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except OSError:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)


def drops(one: socket.socket) -> int | None:
    """The kernel's count of what this socket dropped until now; None where it does not tell.

    SO_RXQ_OVFL comes with the next datagram only: of a flood that has ended this knows the end.
    """
    try:
        told = one.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
    except OSError:
        return None
    at = 4 * _MEMINFO_DROPS
    return int(struct.unpack_from("=I", told, at)[0]) if len(told) >= at + 4 else None


class Drops:
    """What a socket's kernel count of 32 bits grew by.  It is told out of order: a datagram that waited
    carries the count of when it came."""

    def __init__(self) -> None:
        self.count = 0

    def grew(self, told: int | None) -> int:
        """The count is ``told`` now: by how much more that is than ever before."""
        more = 0 if told is None else (told - self.count) & 0xFFFFFFFF
        if more >> 31:
            return 0
        self.count += more
        return more


class OneByOne:
    """As ``batches.Batch``, by recvmsg: for systems without recvmmsg.

    Without a clock ``now_ns`` the kernel's time of receipt is taken, where it tells it.
    """

    def __init__(self, most: int = 1024, now_ns: Callable[[], int] | None = None) -> None:
        self._most = most
        self._now_ns = now_ns
        self._found: list[Datagram] = []
        self.truncated = 0

    @property
    def count(self) -> int:
        """How many were taken."""
        return len(self._found)

    @property
    def room(self) -> int:
        """How many more datagrams find room before ``block``."""
        return self._most - len(self._found)

    def take(self, one: socket.socket, quota: int) -> tuple[int, int | None]:
        """Take up to ``quota`` datagrams that wait there; how many, and what the kernel says it dropped."""
        dropped: int | None = None
        now, taken = (self._now_ns or time.time_ns)(), 0
        try:
            for _ in range(min(quota, self.room)):
                payload, told, flags, source = one.recvmsg(_MAX_DATAGRAM, _ANCILLARY)
                taken += 1
                t_ns = now
                for level, kind, data in told:
                    if (level, kind) == (socket.SOL_SOCKET, RXQ_OVFL):
                        dropped = struct.unpack("=I", data[:4])[0]
                    elif (level, kind) == (socket.SOL_SOCKET, TIMESTAMPNS) and self._now_ns is None:
                        seconds, rest = struct.unpack("=qq", data[:16])
                        t_ns = seconds * 1_000_000_000 + rest
                if flags & socket.MSG_TRUNC:
                    self.truncated += 1
                else:
                    self._found.append(Datagram(payload, address_of(source[0]), source[1], t_ns))
        except BlockingIOError:
            pass
        return taken, dropped

    def datagrams(self) -> list[Datagram]:
        """What was taken, in that order."""
        found, self._found = self._found, []
        return found

    def block(self) -> Block:
        """The same as columns."""
        return block(self.datagrams())
