"""Everything that a flow collector listens on, opened at once: several UDP sockets a port, TCP and TLS.

The sockets of a port form a group (SO_REUSEPORT) in which the kernel steers an exporter by its address
(``steering``): always to the same socket, so to the same worker, and its datagrams stay in order.  A heavy
exporter fills the buffer of its own socket and no other.  Opened by one process, before there are workers:
those are given their share, and one that is started again finds what came meanwhile in the buffers.
"""

import ctypes
import socket
import struct
import sys
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from typing import Final, NamedTuple

from collectors.errors import InputError
from collectors.netflow import sessions, steering, udp

_ATTACH_REUSEPORT_CBPF: Final = 51


class Share(NamedTuple):
    """The sockets of one worker."""

    udp: tuple[socket.socket, ...] = ()
    tcp: tuple[socket.socket, ...] = ()
    tls: tuple[socket.socket, ...] = ()

    def numbers(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Their descriptors: ``taken_over`` makes sockets of them in another process."""
        return (
            tuple(s.fileno() for s in self.udp),
            tuple(s.fileno() for s in self.tcp),
            tuple(s.fileno() for s in self.tls),
        )

    def close(self) -> None:
        """Close all of them."""
        for one in chain(*self):
            one.close()


def taken_over(numbers: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> Share:
    """A share whose descriptors this process was given."""
    made = Share(*(tuple(socket.socket(fileno=n) for n in kind) for kind in numbers))
    for one in chain(*made):
        one.setblocking(False)
    return made


class Ports(AbstractContextManager["Ports"]):
    """Opened on entering.  ``each`` sockets for each of ``workers`` on each of the UDP ``ports``; one TCP and
    one TLS listener for each worker, where ``tcp`` and ``tls`` are not 0.

    Where the kernel cannot steer there is one socket a port, and one worker: then all holds but that a heavy
    exporter takes from the others' buffer.  ``workers``, ``ports`` and ``steered`` say what came of it.
    """

    def __init__(
        self,
        address: str,
        ports: tuple[int, ...],
        *,
        tcp: int = 0,
        tls: int = 0,
        workers: int = 1,
        each: int = 8,
        buffer_bytes: int = 16 << 20,
    ) -> None:
        self._address = address
        self._wanted = ports
        self._buffer_bytes = buffer_bytes
        self._streams = (tcp, tls)
        self._each = each
        self._udp: list[list[socket.socket]] = []
        self._listeners: tuple[list[socket.socket], list[socket.socket]] = ([], [])
        self._stack = ExitStack()
        self.workers = workers
        self.ports = ports
        self.steered = False

    def __enter__(self) -> "Ports":
        with ExitStack() as opening:
            self.steered = self.workers * self._each > 1 and _can_steer()
            if not self.steered:
                self.workers = self._each = 1
            for port in self._wanted:
                self._udp.append(self._group(port, opening))
            self.ports = tuple(group[0].getsockname()[1] for group in self._udp)
            for port, found in zip(self._streams, self._listeners, strict=True):
                if port:
                    self._listen(port, found, opening)
            self._stack = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def granted_bytes(self) -> int:
        """The receive buffer of each UDP socket."""
        return min((udp.granted(group[0]) for group in self._udp), default=0)

    def share(self, worker: int) -> Share:
        """What ``worker`` of ``workers`` listens on.  Socket i of a group is the one of worker i modulo their
        number, so that an exporter's datagrams and its TCP connections come to the same one."""
        return Share(
            tuple(one for group in self._udp for one in group[worker :: self.workers]),
            tuple(self._listeners[0][worker : worker + 1]),
            tuple(self._listeners[1][worker : worker + 1]),
        )

    def _group(self, port: int, opening: ExitStack) -> list[socket.socket]:
        count = self.workers * self._each
        # A port that somebody else has is refused by a socket that shares nothing; a group would be joined.
        alone = udp.opened(self._address, port, self._buffer_bytes)
        if not self.steered:
            return [opening.enter_context(alone)]
        port = alone.getsockname()[1]
        alone.close()
        made: list[socket.socket] = []
        for _ in range(count):
            made.append(
                opening.enter_context(udp.opened(self._address, port, self._buffer_bytes, reuse=True))
            )
            if len(made) == 1:
                _steer(made[0], count)
        return made

    def _listen(self, port: int, found: list[socket.socket], opening: ExitStack) -> None:
        try:
            alone = sessions.listening(self._address, port)
            if not self.steered:
                found.append(opening.enter_context(alone))
                return
            alone.close()
            for _ in range(self.workers):
                found.append(opening.enter_context(sessions.listening(self._address, port, reuse=True)))
                if len(found) == 1:
                    _steer(found[0], self.workers)
        except OSError as error:
            raise InputError(f"TCP {self._address} port {port}: {error}") from None


def _steer(member: socket.socket, count: int) -> None:
    """Have the kernel choose among the ``count`` sockets of its group by the source address."""
    code = steering.program(count)
    octets = ctypes.create_string_buffer(code)
    # struct sock_fprog: how many instructions, and where they are.
    told = struct.pack("@HP", len(code) // 8, ctypes.addressof(octets))
    member.setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, told)


def _can_steer() -> bool:
    if sys.platform != "linux":
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(("127.0.0.1", 0))
            _steer(probe, 1)
        except OSError:
            return False
    return True
