"""The flow table's memory: rows in a pool, an open-addressed index over them, and their lay-out.

A row is 256 bytes (four cache lines, the busy half first) and the index has two 8-byte entries a row,
and eight bytes say when it falls
due, so a tracked connection costs 280 bytes at the stated load factor of one half of the index.  Nothing
grows: what does not fit is evicted, and counted.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel
from collectors.jit import within

# Sides of a connection: A is the lower (address, port), B the other.  Direction 0 is A to B.
ROW: Final = np.dtype(
    [
        ("a_high", "u8"), ("a_low", "u8"), ("b_high", "u8"), ("b_low", "u8"),
        ("a_port", "u2"), ("b_port", "u2"), ("protocol", "u1"),
        ("phase", "u1"),                # FREE, LIVE or ENDED
        ("sender", "u1"),               # direction of the first packet
        ("initiator", "u1"),            # 0 not known, 1 A, 2 B
        ("t_last", "i8"), ("t_first", "i8"),
        ("expect", "u4", (2,)),         # next sequence number, once HAS_SEQ
        ("octets", "u8", (2,)), ("payload_octets", "u8", (2,)),
        ("packets", "u4", (2,)), ("payload_packets", "u4", (2,)),
        ("tcp_flags", "u2", (2,)),
        ("seen", "u1", (2,)),           # HAS_SEQ and the like, per direction
        ("sized", "u1", (2,)),          # how many of sizes are filled
        ("candidate", "u1"),            # NO, TENTATIVE or PICKED
        ("tail_size", "u1", (2,)),      # bytes kept of a token that the segment's end cut
        ("end_reason", "u1"),
        ("marks", "u2"),                # a SYN that nobody has answered, and SUMMED
        ("attempts", "u2"),
        ("t_open", "i8"), ("conn", "u8"),
        ("lasting", "u4"),              # place plus one of what ``lasting`` keeps, or REFUSED; 0 none
        ("carried", "u2", (2,)),        # where a head of HTTP stands, and what was seen of carriers: heads
        ("via", "u2"),                  # how the first packet came: vias
        ("ttl", "u1", (2,)),            # of the handshake, or of the first packet; 0 not known
        ("start", "u4", (2,)),          # sequence number of the first byte, once HAS_START
        ("tail_next", "u2", (2,)),      # the low half of the sequence number that goes on with ``tail``
        ("passed_on", "u4"),            # candidate payload octets handed to reassembly
        ("life_packets", "u4"),         # of the connection, not of the record
        ("sizes", "u2", (2, 8)),
        ("blanks", "u2", (2,)),         # leading blanks of a direction that is not yet DECIDED
        ("tail", "u1", (2, 22)),
    ]
)  # fmt: skip
INDEX_PER_ROW: Final = 2
BYTES_PER_ROW: Final = ROW.itemsize + 8 * INDEX_PER_ROW + 8

FREE: Final = 0
LIVE: Final = 1
ENDED: Final = 2

NO: Final = 0
TENTATIVE: Final = 1
PICKED: Final = 2

# Bits of ROW.seen.
HAS_SEQ: Final = 1
HAS_START: Final = 2
HAS_FIN: Final = 4
DECIDED: Final = 8  # the first byte that is no blank was seen
HAS_PAYLOAD: Final = 16
BRACE: Final = 32  # and it was an opening brace
# The two top bits: naming.

# ROW.marks: enough of the number that a SYN inside the connection would begin with, 0 none; and from SUMMED
# on, per direction, whether the checksum of its SYN was right.
AGAIN: Final = 0x3FFF
SUMMED: Final = 0x4000

# Places in the state array.
CLOCK: Final = 0  # newest data time
HIGH: Final = 1  # rows ever used
FREED: Final = 2  # rows on the free list
HAND: Final = 3  # next row to be aged
DEBT: Final = 4  # rows times nanoseconds still to be aged
CONN: Final = 5  # connections so far
EVICT_HAND: Final = 6
WARY: Final = 7  # rows to be looked at whatever they are due: the clock went back
RATIONS: Final = 8  # (2,) until when tentative connections are spoken for: one direction seen, both
STATES: Final = 16

_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)
_LINE: Final = 64


class Table(NamedTuple):
    """``rows`` (n,) ROW, ``entries`` (2n,) u8, ``freed`` (n,) u4 a stack, ``state`` (STATES,) i8;
    ``due`` (n,) i8, ns: before that time ``ageing`` need not look at a row."""

    rows: np.ndarray
    entries: np.ndarray
    freed: np.ndarray
    state: np.ndarray
    seed: np.uint64
    due: np.ndarray


def _lines(slots: int) -> np.ndarray:
    """Rows that begin where cache lines do: 256 bytes that straddle are five misses, not four."""
    octets = np.zeros(slots * ROW.itemsize + _LINE, np.uint8)
    at = -octets.ctypes.data % _LINE
    return octets[at : at + slots * ROW.itemsize].view(ROW)


def table(slots: int, seed: int = 0) -> Table:
    """An empty table of ``slots`` rows, a power of two.  ``seed`` keeps others from forging collisions;
    results do not depend on it."""
    if slots < 2 or slots & (slots - 1):
        raise ValueError(f"{slots} slots: not a power of two")
    return Table(
        _lines(slots),
        np.zeros(slots * INDEX_PER_ROW, np.uint64),
        np.zeros(slots, np.uint32),
        np.zeros(STATES, np.int64),
        np.uint64(seed & (2**64 - 1)),
        np.zeros(slots, np.int64),
    )


@within
def hash_of(a_high, a_low, b_high, b_low, ports, seed):
    """64 well mixed bits of a key; ``ports`` is both ports and the protocol."""
    x = (a_low ^ seed) * _PRIME
    x = (x ^ (x >> np.uint64(32)) ^ b_low) * _PRIME
    x = (x ^ (x >> np.uint64(29)) ^ ports) * _PRIME
    x = (x ^ (x >> np.uint64(32)) ^ a_high) * _PRIME
    x = (x ^ (x >> np.uint64(29)) ^ b_high) * _PRIME
    return x ^ (x >> np.uint64(32))


@within
def ports_of(a_port, b_port, protocol):
    """Both ports and the protocol in one number."""
    return (np.uint64(a_port) << np.uint64(32)) | (np.uint64(b_port) << np.uint64(8)) | np.uint64(protocol)


@within
def orient(f, seed):
    """Tell a frame's direction, and the hash of its connection's key: the same both ways."""
    swap = f.src_high > f.dst_high
    if f.src_high == f.dst_high:
        swap = f.src_low > f.dst_low or (f.src_low == f.dst_low and f.src_port > f.dst_port)
    if swap:
        f.swapped = np.uint8(1)
        ports = ports_of(f.dst_port, f.src_port, f.protocol)
        f.hash = hash_of(f.dst_high, f.dst_low, f.src_high, f.src_low, ports, seed)
    else:
        f.swapped = np.uint8(0)
        ports = ports_of(f.src_port, f.dst_port, f.protocol)
        f.hash = hash_of(f.src_high, f.src_low, f.dst_high, f.dst_low, ports, seed)


@within
def home_slot(h, index):
    """The first slot that is tried for a hash: its top bits."""
    return np.int64((h >> np.uint64(32)) & np.uint64(index.size - 1))


@within
def find_row(index, rows, h, a_high, a_low, b_high, b_low, ports):
    """The row of a key, or -1.  An index entry is the hash's upper half and the row's number plus one."""
    mask = index.size - 1
    i = home_slot(h, index)
    while index[i] != np.uint64(0):
        entry = index[i]
        if (entry ^ h) >> np.uint64(32) == np.uint64(0):
            n = np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
            r = rows[n]
            if (
                r.a_low == a_low
                and r.b_low == b_low
                and r.a_high == a_high
                and r.b_high == b_high
                and ports_of(r.a_port, r.b_port, r.protocol) == ports
            ):
                return n
        i = (i + 1) & mask
    return np.int64(-1)


@kernel
def index_row(index, h, n):
    """Enter row ``n`` under a hash.  There is always a free entry: the index is twice the pool."""
    mask = index.size - 1
    i = home_slot(h, index)
    while index[i] != np.uint64(0):
        i = (i + 1) & mask
    index[i] = (h & np.uint64(0xFFFFFFFF00000000)) | np.uint64(n + 1)


@kernel
def forget_row(index, rows, freed, state, seed, n):
    """Take row ``n`` out of the index and give it back (backward shift: no tombstones)."""
    r = rows[n]
    h = hash_of(r.a_high, r.a_low, r.b_high, r.b_low, ports_of(r.a_port, r.b_port, r.protocol), seed)
    mask = index.size - 1
    i = home_slot(h, index)
    while np.int64(index[i] & np.uint64(0xFFFFFFFF)) != n + 1:
        i = (i + 1) & mask
    j = i
    while True:
        j = (j + 1) & mask
        if index[j] == np.uint64(0):
            break
        if ((j - home_slot(index[j], index)) & mask) >= ((j - i) & mask):
            index[i] = index[j]
            i = j
    index[i] = np.uint64(0)
    r.phase = np.uint8(FREE)
    freed[state[FREED]] = np.uint32(n)
    state[FREED] += 1
