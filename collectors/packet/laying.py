"""From records to columns, compiled: each record is read once, and turned to run from its forward end.

Field by field numpy reads every record again for each of thirty columns.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.table import PICKED
from collectors.reading import swapped

# Places in ``eights`` of a flow, and in the others.
T_FIRST: Final = 0
T_LAST: Final = 1
T_OPEN: Final = 2
OCTETS: Final = 3  # and, behind each that is of a direction, its reverse
PACKETS: Final = 5
PAYLOAD_OCTETS: Final = 7
PAYLOAD_PACKETS: Final = 0
SRC_PORT: Final = 0
DST_PORT: Final = 1
TCP_FLAGS: Final = 2
VIA: Final = 4
PROTOCOL: Final = 0
END_REASON: Final = 1
INITIATOR: Final = 2
CANDIDATE: Final = 3
SENDER: Final = 4
FORWARD: Final = 5
SIZED: Final = 6
LASTED: Final = 8
# Of a chunk.
T: Final = 0
OFFSET: Final = 1
AT: Final = 2
SIZE: Final = 3
SEQ: Final = 0
ACK: Final = 1
FLAGS: Final = 0

_TCP: Final = 6


class Laid(NamedTuple):
    """Columns of n records by width: ``eights`` (k, n) i8, ``fours`` (k, n) u4, ``twos`` (k, n) u2, ``ones``
    (k, n) u1; ``src`` and ``dst`` (n, 2) u8, the octets of an address as they are sent; ``sizes`` (2, n, 8)
    u2."""

    eights: np.ndarray
    fours: np.ndarray
    twos: np.ndarray
    ones: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    sizes: np.ndarray

    def taken(self, i: np.ndarray) -> "Laid":
        """Records ``i`` (m,) in that order."""
        if i.size == self.src.shape[0] and np.array_equal(i, np.arange(i.size)):
            return self
        eights, fours, twos, ones = (c.take(i, axis=1) for c in self[:4])
        src, dst = self.src.take(i, axis=0), self.dst.take(i, axis=0)
        return Laid(eights, fours, twos, ones, src, dst, self.sizes.take(i, axis=1))


def _room(n: int, eights: int, fours: int, twos: int, ones: int, sizes: int) -> Laid:
    return Laid(
        np.empty((eights, n), np.int64),
        np.empty((fours, n), np.uint32),
        np.empty((twos, n), np.uint16),
        np.empty((ones, n), np.uint8),
        np.empty((n, 2), np.uint64),
        np.empty((n, 2), np.uint64),
        np.empty((sizes, n, 8), np.uint16),
    )


@kernel
def _lay_flows(rows, to):
    for i in range(rows.size):
        r = rows[i]
        f = np.int64(r.initiator) - 1 if r.initiator > 0 else np.int64(r.sender)
        a_high, a_low = swapped(r.a_high), swapped(r.a_low)
        b_high, b_low = swapped(r.b_high), swapped(r.b_low)
        if f == 0:
            to.src[i, 0], to.src[i, 1], to.dst[i, 0], to.dst[i, 1] = a_high, a_low, b_high, b_low
            to.twos[SRC_PORT, i], to.twos[DST_PORT, i] = r.a_port, r.b_port
        else:
            to.src[i, 0], to.src[i, 1], to.dst[i, 0], to.dst[i, 1] = b_high, b_low, a_high, a_low
            to.twos[SRC_PORT, i], to.twos[DST_PORT, i] = r.b_port, r.a_port
        to.eights[T_FIRST, i] = r.t_first
        to.eights[T_LAST, i] = r.t_last
        to.eights[T_OPEN, i] = r.t_open
        for way in range(2):
            d = f ^ way
            to.eights[OCTETS + way, i] = np.int64(r.octets[d])
            to.eights[PACKETS + way, i] = np.int64(r.packets[d])
            to.eights[PAYLOAD_OCTETS + way, i] = np.int64(r.payload_octets[d])
            to.fours[PAYLOAD_PACKETS + way, i] = r.payload_packets[d]
            to.twos[TCP_FLAGS + way, i] = r.tcp_flags[d]
            to.ones[SIZED + way, i] = r.sized[d]
            for k in range(8):
                to.sizes[way, i, k] = r.sizes[d, k]
        to.twos[VIA, i] = r.via
        to.ones[PROTOCOL, i] = r.protocol
        to.ones[END_REASON, i] = r.end_reason
        to.ones[INITIATOR, i] = np.uint8(r.initiator > 0)
        to.ones[CANDIDATE, i] = np.uint8(r.candidate == PICKED or r.passed_on > 0)
        to.ones[SENDER, i] = r.sender
        to.ones[FORWARD, i] = np.uint8(f)
        to.ones[LASTED, i] = np.uint8(r.lasting != 0)


@kernel
def _lay_chunks(chunks, to):
    for i in range(chunks.size):
        c = chunks[i]
        to.src[i, 0], to.src[i, 1] = swapped(c.src_high), swapped(c.src_low)
        to.dst[i, 0], to.dst[i, 1] = swapped(c.dst_high), swapped(c.dst_low)
        to.twos[SRC_PORT, i], to.twos[DST_PORT, i] = c.src_port, c.dst_port
        to.eights[T, i] = c.t
        to.eights[OFFSET, i] = c.offset
        to.eights[AT, i] = c.at
        to.eights[SIZE, i] = c.size
        to.fours[SEQ, i] = c.seq
        to.fours[ACK, i] = c.ack
        to.ones[FLAGS, i] = c.flags


def lay_flows(rows: np.ndarray) -> Laid:
    """Columns of exported rows (n,) ROW.  A record runs from its initiator, where that is known, else from
    the sender of its first packet."""
    to = _room(rows.size, 9, 2, 5, 9, 2)
    _lay_flows(rows, to)
    return to


def lay_chunks(chunks: np.ndarray) -> Laid:
    """Columns of (n,) CHUNK."""
    to = _room(chunks.size, 4, 2, 2, 1, 0)
    _lay_chunks(chunks, to)
    return to
