"""What a live source of frames is: its configuration, what it answers, what it counts."""

from typing import Annotated, Final, Literal, NamedTuple, Protocol

import msgspec
import numpy as np

from collectors.packet.pcapfile import PADDING, Block

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=15)]  # IFNAMSIZ is 16, with its zero octet

# Long enough for every frame that a NIC or the kernel has merged (LRO, GRO: 64 KiB and a link header).
WHOLE: Final = 262144


class CaptureConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Live capture.  The ring of each interface, and of each worker, is ``block_bytes * blocks`` of memory.

    64 MiB hold half a second of a full link of 1 Gbit/s, 50 ms of one of 10 Gbit/s: what a reader that was
    away may have missed.  A block of 1 MiB is 2,200 frames of mean size, so that what is done once a block
    costs nothing, and is still in the processor's cache when it is read.
    """

    interface: Annotated[tuple[Name, ...], msgspec.Meta(max_length=16)] = ()
    # AF_PACKET's ring where there is one, else scapy.
    source: Literal["auto", "afpacket", "scapy"] = "auto"
    block_bytes: Annotated[int, msgspec.Meta(ge=1 << 17, le=1 << 26, multiple_of=1 << 16)] = 1 << 20
    blocks: Annotated[int, msgspec.Meta(ge=2, le=4096)] = 64
    # A block that is not full is handed over after so long: part of every alert's latency.
    block_timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=10000)] = 100
    promiscuous: bool = True
    # As pcap-filter(7).  The kernel has taken the outermost VLAN tag off when it looks.
    filter: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    snap_length: Annotated[int, msgspec.Meta(ge=64, le=WHOLE)] = WHOLE
    # Processes with a ring each on every interface, which share its connections.  0: one a core.
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    # Rings of processes that share this number share their interfaces by ``steering``.  0: alone.
    fanout_group: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    # A folder into which somebody rotates captures, to be followed instead; and the file that remembers over
    # a restart how far that went.  Empty: none.
    follow: str = ""
    follow_state: str = ""
    # Who to be once all is open, where we are root.  Empty: stay.
    user: Annotated[str, msgspec.Meta(max_length=64)] = "nobody"


class Handed(NamedTuple):
    """A bound socket with its ring that another process has opened for this one: the interface and its
    number, the descriptor, and the filter that lets frames in (none: all)."""

    interface: str
    number: int
    descriptor: int
    program: bytes


class Drops(NamedTuple):
    """Sums since the start, from the kernel.

    ``packets`` passed the filter, ``drops`` of them found the ring full, which it was ``freezes`` times.
    """

    packets: int = 0
    drops: int = 0
    freezes: int = 0


class Source(Protocol):
    """One interface.  Opened on entering, which raises InputError or ConfigError; nothing raises later.

    ``up`` is whether frames can come now and ``problem`` says why not; ``reopened`` counts how often the
    interface came back.
    """

    interface: str
    up: bool
    problem: str
    reopened: int

    def __enter__(self) -> "Source": ...

    def __exit__(self, *error: object) -> None: ...

    def read(self, wait_s: float) -> Block:
        """Frames, in order; none when none came for ``wait_s``.  The block is the caller's to keep."""

    def statistics(self) -> Drops | None:
        """What the kernel counted; None where it cannot be known."""

    def fileno(self) -> int:
        """To wait on, with others; -1 while nothing is open."""


def nothing() -> Block:
    """A block without frames."""
    return Block(
        np.zeros(PADDING, np.uint8),
        np.zeros(0, np.int64),
        np.zeros(0, np.uint32),
        np.zeros(0, np.uint32),
        np.zeros(0, np.int64),
        np.zeros(0, np.uint16),
    )
