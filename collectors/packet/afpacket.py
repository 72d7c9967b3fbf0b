"""An interface's frames by AF_PACKET's ring (Linux): blocks out, and what the kernel had to drop.

The filter is attached before the socket is bound, and a socket that is not bound receives nothing: no frame
gets in that it would have kept out.  What a NIC or the kernel merges (LRO, GRO, TSO on our own sending) comes
as one frame of up to 64 KiB, and is read as such.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import numpy as np

from collectors.errors import InputError
from collectors.packet import bpf, ring
from collectors.packet.pcapfile import Block
from collectors.packet.sources import CaptureConfig, Drops, nothing

# asm-generic/socket.h, linux/sockios.h, linux/if.h
_SO_ATTACH_FILTER: Final = 26
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


def _attach(opened: socket.socket, program: bytes) -> None:
    if program:
        held = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


class _Opened:
    """A bound socket and its ring.  Raises OSError, InputError or ConfigError, and then holds nothing."""

    def __init__(self, interface: str, config: CaptureConfig) -> None:
        self.index = _index(interface)
        if not self.index:
            raise OSError(
                errno.ENODEV, f"there is none (but {', '.join(n for _, n in socket.if_nameindex())})"
            )
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._set_up(interface, config)
        except BaseException:
            self.socket.close()
            raise

    def _set_up(self, interface: str, config: CaptureConfig) -> None:
        opened = self.socket
        kind = _ask(opened, interface, _SIOCGIFHWADDR)
        if kind not in (*ring.ETHERNET, *ring.IP):
            raise InputError(f"interface {interface}: neither Ethernet nor IP (ARPHRD {kind})")
        program = bpf.program(
            interface,
            ethernet=kind in ring.ETHERNET,
            expression=config.filter,
            snap_length=config.snap_length,
        )
        opened.setsockopt(ring.SOL_PACKET, ring.PACKET_VERSION, ring.TPACKET_V3)
        opened.setsockopt(ring.SOL_PACKET, ring.PACKET_RESERVE, ring.TAG)
        wanted = ring.request(config.block_bytes, config.blocks, config.block_timeout_ms)
        opened.setsockopt(ring.SOL_PACKET, ring.PACKET_RX_RING, wanted)
        _attach(opened, program)
        size = config.block_bytes * config.blocks
        # Unmapped, like the arrays that look into it, when the last of them is gone.
        memory = mmap.mmap(opened.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._blocks = np.frombuffer(memory, np.uint8).reshape(config.blocks, config.block_bytes)
        self._status = np.ndarray((config.blocks,), np.uint32, memory, ring.STATUS, (config.block_bytes,))
        self._columns = ring.columns(config.block_bytes)
        self._next = 0
        opened.bind((interface, ring.ETH_P_ALL))
        if config.promiscuous:
            member = struct.pack("=iHH8x", self.index, ring.PACKET_MR_PROMISC, 0)
            opened.setsockopt(ring.SOL_PACKET, ring.PACKET_ADD_MEMBERSHIP, member)
        if config.fanout_group:
            group = config.fanout_group | ring.PACKET_FANOUT_HASH << 16
            opened.setsockopt(ring.SOL_PACKET, ring.PACKET_FANOUT, group)

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
        self, interface: str, config: CaptureConfig, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.interface = interface
        self.up = False
        self.problem = ""
        self.reopened = 0
        self._config = config
        self._now = now
        self._opened: _Opened | None = None
        self._look_at = 0.0
        self._was_up = False
        self._sums = Drops()

    def __enter__(self) -> "Ring":
        try:
            self._opened = _Opened(self.interface, self._config)
        except PermissionError as error:
            raise InputError(f"interface {self.interface}: {error.strerror}; {_ADVICE}") from None
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"interface {self.interface}: {error.strerror}") from None
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
