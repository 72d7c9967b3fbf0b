"""The socket: UDP datagrams in, lists of Datagram with their receive time out.  Nothing else opens one here.

Receiving does nothing but receive: what is lost at the socket is lost for good.  A list is what the kernel
held when we looked; its own count of what it had to drop comes beside (SO_RXQ_OVFL, Linux).
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import Final

from collectors.errors import InputError
from collectors.netflow.datagrams import Datagram

_MAX_DATAGRAM: Final = 65535
# Not in Python's socket module: asm-generic/socket.h.
_SO_RXQ_OVFL: Final = getattr(socket, "SO_RXQ_OVFL", 40)
_SO_RCVBUFFORCE: Final = getattr(socket, "SO_RCVBUFFORCE", 33)
_ANCILLARY: Final = socket.CMSG_SPACE(4)


@lru_cache(maxsize=65536)
def _address(text: str) -> bytes:
    given = ip_address(text.partition("%")[0])
    return given.packed if given.version == 6 else bytes(10) + b"\xff\xff" + given.packed


class Receiver(AbstractContextManager["Receiver"]):
    """One UDP socket on ``address`` and ``port``, opened on entering.

    ``buffer_bytes`` is what is asked for, ``granted_bytes`` what the kernel gave (it is limited by
    net.core.rmem_max without CAP_NET_ADMIN); ``dropped`` counts datagrams that found the buffer full, and
    ``lost`` is told of each time it grows, and by how much.
    ``reuse`` lets several sockets share the port, so that the kernel spreads exporters over workers.
    """

    def __init__(
        self,
        address: str,
        port: int,
        buffer_bytes: int = 32 << 20,
        most: int = 1024,
        reuse: bool = False,
        now_ns: Callable[[], int] = time.time_ns,
        lost: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._where = (address, port)
        self._buffer_bytes = buffer_bytes
        self._most = most
        self._reuse = reuse
        self._now_ns = now_ns
        self._lost = lost
        self._socket: socket.socket | None = None
        self.granted_bytes = 0
        self.dropped = 0
        self.port = port

    def __enter__(self) -> "Receiver":
        address, port = self._where
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if self._reuse:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self.granted_bytes = _widen(opened, self._buffer_bytes)
            opened.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
            opened.bind((address, port))
        except OSError as error:
            opened.close()
            raise InputError(f"UDP {address} port {port}: {error}") from None
        opened.setblocking(False)
        self.port = opened.getsockname()[1]
        self._socket = opened
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def receive(self, wait_s: float = 0.1) -> list[Datagram]:
        """What is there, at most ``most``; waits up to ``wait_s`` for the first.  One time for all."""
        if self._socket is None:
            raise InputError("the socket is not open")
        if not select.select([self._socket], [], [], wait_s)[0]:
            return []
        now = self._now_ns()
        take = self._socket.recvmsg
        found: list[Datagram] = []
        ancillary: list[tuple[int, int, bytes]] = []
        try:
            while len(found) < self._most:
                payload, more, _, source = take(_MAX_DATAGRAM, _ANCILLARY)
                ancillary = more or ancillary
                found.append(Datagram(payload, _address(source[0]), source[1], now))
        except BlockingIOError:
            pass
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                dropped = struct.unpack("=I", data[:4])[0]
                # The kernel's count has 32 bits.
                if more_lost := (dropped - self.dropped) & 0xFFFFFFFF:
                    self._lost(more_lost)
                self.dropped = dropped
        return found

    def lists(self, stopped: Callable[[], bool], wait_s: float = 0.1) -> Iterator[list[Datagram]]:
        """Lists until ``stopped`` says so; an empty one when ``wait_s`` went by, for the time is news too."""
        while not stopped():
            yield self.receive(wait_s)


def _widen(opened: socket.socket, wanted: int) -> int:
    """Ask for a receive buffer, past the limit where we may; what the kernel gave."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except OSError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    # Linux keeps twice what was asked for, its own book-keeping included (socket(7)).
    return opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
