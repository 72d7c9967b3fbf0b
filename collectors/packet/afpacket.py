"""An interface's frames by AF_PACKET's ring (Linux): blocks out, and what the kernel had to drop.

The filter is attached before the socket is bound, and a socket that is not bound receives nothing: no frame
gets in that it would have kept out.  What a NIC or the kernel merges (LRO, GRO, TSO on our own sending) comes
as one frame of up to 64 KiB, and is read as such.

A ring of a group is shut by a filter until it is a member: else it would get the others' frames too.  Rings
that are opened for workers stay shut until their worker is there to read.
"""

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Final

import numpy as np
from msgspec import structs

from collectors.errors import ConfigError, InputError
from collectors.packet import bpf, ring, steering
from collectors.packet.pcapfile import Block
from collectors.packet.sources import CaptureConfig, Drops, Handed, nothing

# asm-generic/socket.h, linux/sockios.h, linux/if.h
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP: Final = 0x1
_IFF_RUNNING: Final = 0x40
_TROUBLE: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL
# How often we look whether the interface is (still) the one that bears the name.
LOOK_S: Final = 1.0

_ADVICE: Final = (
    "capture needs CAP_NET_RAW: run as root, or `setcap cap_net_raw+ep` on the Python executable, "
    "or AmbientCapabilities=CAP_NET_RAW in its systemd unit"
)


def available() -> bool:
    """Whether this system has AF_PACKET."""
    return hasattr(socket, "AF_PACKET")


def _ask(opened: socket.socket, interface: str, what: int) -> int:
    """The first two octets of an interface's answer (struct ifreq).  Raises OSError where there is none."""
    asked = struct.pack("=16s24x", os.fsencode(interface))
    return int(struct.unpack_from("=H", fcntl.ioctl(opened, what, asked), 16)[0])


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def _program(code: bytes) -> tuple[bytes, object]:
    """struct sock_fprog of a program, and what must live as long as it is used."""
    held = ctypes.create_string_buffer(code, len(code))
    return struct.pack("@HP", len(code) // 8, ctypes.addressof(held)), held


def _attach(opened: socket.socket, code: bytes) -> None:
    told, _held = _program(code)
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)


def admit(opened: socket.socket, code: bytes) -> None:
    """Let in what the filter passes; without one everything."""
    if code:
        _attach(opened, code)
        return
    with suppress(FileNotFoundError):
        opened.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def opened(interface: str, config: CaptureConfig, *, shut: bool = False) -> tuple[socket.socket, Handed]:
    """A bound socket with its ring, and what another process needs to take it over.  With ``shut`` nothing
    gets in before ``admit``.  Raises OSError, InputError or ConfigError, and then holds nothing."""
    index = _index(interface)
    if not index:
        told = f"there is none (but {', '.join(n for _, n in socket.if_nameindex())})"
        raise OSError(errno.ENODEV, told)
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        kind = _ask(made, interface, _SIOCGIFHWADDR)
        if kind not in (*ring.ETHERNET, *ring.IP):
            raise InputError(f"interface {interface}: neither Ethernet nor IP (ARPHRD {kind})")
        ethernet = kind in ring.ETHERNET
        code = bpf.program(
            interface, ethernet=ethernet, expression=config.filter, snap_length=config.snap_length
        )
        made.setsockopt(ring.SOL_PACKET, ring.PACKET_VERSION, ring.TPACKET_V3)
        made.setsockopt(ring.SOL_PACKET, ring.PACKET_RESERVE, ring.TAG)
        wanted = ring.request(config.block_bytes, config.blocks, config.block_timeout_ms)
        made.setsockopt(ring.SOL_PACKET, ring.PACKET_RX_RING, wanted)
        admit(made, bpf.NOTHING if shut or config.fanout_group else code)
        made.bind((interface, ring.ETH_P_ALL))
        if config.promiscuous:
            member = struct.pack("=iHH8x", index, ring.PACKET_MR_PROMISC, 0)
            made.setsockopt(ring.SOL_PACKET, ring.PACKET_ADD_MEMBERSHIP, member)
        if config.fanout_group:
            _join(made, config.fanout_group, index, ethernet)
        if not shut:
            admit(made, code)
    except BaseException:
        made.close()
        raise
    return made, Handed(interface, index, made.fileno(), code)


def seed_of(number: int) -> int:
    """What steering begins with: the same for all that share the number."""
    return int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:4], "big")


def _join(opened: socket.socket, number: int, index: int, ethernet: bool) -> None:
    """Make the ring one of its group.  A group has one interface, which has another number once it was
    deleted and made again: so has the group, and its old one may still be there."""
    group = number + index & 0xFFFF
    opened.setsockopt(ring.SOL_PACKET, ring.PACKET_FANOUT, group | ring.PACKET_FANOUT_CBPF << 16)
    told, _held = _program(steering.program(seed_of(number), ethernet=ethernet))
    opened.setsockopt(ring.SOL_PACKET, ring.PACKET_FANOUT_DATA, told)


class Rings(AbstractContextManager["Rings"]):
    """A ring on each interface for each of so many workers, opened on entering, shut until they are there.

    They outlive a worker: what comes while one is started again waits in its ring.
    """

    def __init__(self, config: CaptureConfig, workers: int) -> None:
        """``config`` is what the workers are to have.  Raises ConfigError where rings cannot be had."""
        if config.source == "scapy" or not available():
            raise ConfigError("collectors.capture.workers: only AF_PACKET shares an interface")
        # Another one than those of other programs.
        number = config.fanout_group or 1 + secrets.randbelow(0xFFFF)
        self.config = structs.replace(config, fanout_group=number, workers=1)
        self.workers = workers
        self._given: list[list[Handed]] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Rings":
        with ExitStack() as opening:
            for _ in range(self.workers):
                mine = []
                for interface in dict.fromkeys(self.config.interface):
                    with _told(interface):
                        made, handed = opened(interface, self.config, shut=True)
                    opening.enter_context(made)
                    mine.append(handed)
                self._given.append(mine)
            self._stack = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def share(self, worker: int) -> tuple[Handed, ...]:
        """The rings of ``worker``."""
        return tuple(self._given[worker])


@contextmanager
def _told(interface: str) -> Iterator[None]:
    """What the system refuses as an InputError."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"interface {interface}: {error.strerror}; {_ADVICE}") from None
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"interface {interface}: {error.strerror}") from None


class _Opened:
    """A bound socket and its ring, ours or ``handed`` to us.  Raises as ``opened`` does."""

    def __init__(self, interface: str, config: CaptureConfig, handed: Handed | None = None) -> None:
        if handed is None:
            self.socket, handed = opened(interface, config)
        else:
            self.socket = socket.socket(fileno=handed.descriptor)
        self.index = handed.number
        try:
            self._map(config)
            # Now that there is somebody to read; where there was somebody before us it is open.
            admit(self.socket, handed.program)
        except BaseException:
            self.socket.close()
            raise

    def _map(self, config: CaptureConfig) -> None:
        size = config.block_bytes * config.blocks
        # Unmapped, like the arrays that look into it, when the last of them is gone.
        memory = mmap.mmap(self.socket.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._blocks = np.frombuffer(memory, np.uint8).reshape(config.blocks, config.block_bytes)
        stride = (config.block_bytes,)
        self._status = np.ndarray((config.blocks,), np.uint32, memory, ring.STATUS, stride)
        self._columns = ring.columns(config.block_bytes)
        sequence = np.ndarray((config.blocks,), np.uint64, memory, ring.SEQUENCE, stride)
        self._next = ring.resumed(self._status.copy(), sequence)

    def take(self) -> Block | None:
        """The next retired block, if there is one; the kernel has it back at once."""
        at = self._next
        if not self._status[at] & ring.TP_STATUS_USER:
            return None
        try:
            return ring.frames(self._blocks[at], self._columns)
        finally:
            self._status[at] = ring.TP_STATUS_KERNEL
            self._next = (at + 1) % self._status.size

    def statistics(self) -> Drops:
        """Since the last call: the kernel forgets what it has told."""
        return Drops(
            *struct.unpack("=3I", self.socket.getsockopt(ring.SOL_PACKET, ring.PACKET_STATISTICS, 12))
        )

    def close(self) -> None:
        # The mapping keeps the socket alive, so that goes first.
        del self._blocks, self._status
        self.socket.close()


class Ring(AbstractContextManager["Ring"]):
    """The ring of one interface, opened on entering (see ``sources.Source``).

    It outlives its interface: one that goes down and up again is the kernel's matter; for one that was
    deleted, or lost its name to another, a new ring is opened once a second until that works.
    """

    def __init__(
        self,
        interface: str,
        config: CaptureConfig,
        now: Callable[[], float] = time.monotonic,
        handed: Handed | None = None,
    ) -> None:
        """A ring that was ``handed`` to us is read first, as long as the interface is the same."""
        self.interface = interface
        self.up = False
        self.problem = ""
        self.reopened = 0
        self._config = config
        self._handed = handed
        self._now = now
        self._opened: _Opened | None = None
        self._look_at = 0.0
        self._was_up = False
        self._sums = Drops()

    def __enter__(self) -> "Ring":
        with _told(self.interface):
            self._opened = _Opened(self.interface, self._config, self._handed)
        self._look()
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
        self.up = False

    def read(self, wait_s: float = 0.1) -> Block:
        """The frames of one block of the ring; none when none came for ``wait_s``."""
        if self._now() >= self._look_at:
            self._look()
        opened = self._opened
        if opened is None:
            time.sleep(wait_s)
            return nothing()
        block = opened.take()
        if block is None and self._wait(opened, wait_s):
            block = opened.take()
        return block or nothing()

    def statistics(self) -> Drops:
        """What the kernel has counted since the start, over all rings that were opened."""
        if self._opened is not None:
            more = self._opened.statistics()
            self._sums = Drops(*(a + b for a, b in zip(self._sums, more, strict=True)))
        return self._sums

    def fileno(self) -> int:
        """To wait on, with others; -1 while nothing is open."""
        return -1 if self._opened is None else self._opened.socket.fileno()

    def _wait(self, opened: _Opened, wait_s: float) -> bool:
        waiter = select.poll()
        waiter.register(opened.socket, select.POLLIN)
        events = waiter.poll(wait_s * 1000)
        if events and events[0][1] & _TROUBLE:
            # Asking takes the error away.  What the ring still holds is read before the next look.
            code = opened.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._say_up(False, os.strerror(code))
                self._look_at = self._now() + LOOK_S
        return bool(events)

    def _look(self) -> None:
        """See who bears the name now, and open a ring on it if it is another than ours."""
        self._look_at = self._now() + LOOK_S
        index = _index(self.interface)
        if not index:
            self._say_up(False, "there is none")
            return
        try:
            if self._opened is None or self._opened.index != index:
                self._close()
                self._opened = _Opened(self.interface, self._config)
            flags = _ask(self._opened.socket, self.interface, _SIOCGIFFLAGS)
        except (OSError, ValueError) as error:
            self._say_up(False, str(error))
            return
        if not flags & _IFF_UP:
            self._say_up(False, "down")
        else:
            self._say_up(bool(flags & _IFF_RUNNING), "" if flags & _IFF_RUNNING else "no carrier")

    def _say_up(self, up: bool, problem: str) -> None:
        if up and not self.up and self._was_up:
            self.reopened += 1
        self._was_up = self._was_up or up
        self.up, self.problem = up, problem

    def _close(self) -> None:
        self.statistics()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()
