"""Would an end point take this segment?  What of that one packet tells a tap: its checksum and its options.

Who hides sends decoys that reach the tap but not the peer, or that the peer drops: of a wrong checksum, with
an option that nobody agreed on (RFC 2385), in fragments that never become whole, on a SYN whose data is not
taken (RFC 7413).  Such a segment is *doubtful*; ``doubts`` says what becomes of it.  Checksums are verified
of SYNs and of candidates' segments only.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.links import be16, be32, be64

# Bits of EVENT.doubt.
WRONG: Final = 1  # the checksum is wrong, or was left out where the handshake's was right
RIGHT: Final = 2  # the checksum is right
ODD: Final = 4  # an option or flag for which a peer may drop it
PIECE: Final = 8  # the beginning of a packet that may never be whole
UNFILLED: Final = 128  # the checksum was left to the network card

_TCP: Final = 6
_MD5: Final = 19
_AUTHENTICATION: Final = 29
_LOW: Final = np.uint64(0xFFFFFFFF)


@kernel
def _sum(data, at, size):
    """Sum of 16-bit words (RFC 1071), as yet unfolded; below 2**44 for what one packet holds."""
    total = np.uint64(0)
    whole = size & ~7
    for k in range(0, whole, 8):
        eight = be64(data, at + k)
        total += (eight >> np.uint64(32)) + (eight & _LOW)
    for k in range(whole, size):
        total += np.uint64(data[at + k]) << np.uint64(0 if k & 1 else 8)
    return total


@kernel
def _folded(total):
    total = (total >> np.uint64(32)) + (total & _LOW)
    while total >> np.uint64(16):
        total = (total >> np.uint64(16)) + (total & np.uint64(0xFFFF))
    return total


@kernel
def _pseudo(f, size):
    """Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    total = np.uint64(_TCP + size)
    if f.src_high == np.uint64(0) and f.src_low >> np.uint64(32) == np.uint64(0xFFFF):
        return total + (f.src_low & _LOW) + (f.dst_low & _LOW)
    for part in (f.src_high, f.src_low, f.dst_high, f.dst_low):
        total += (part >> np.uint64(32)) + (part & _LOW)
    return total


@kernel
def judged(data, f):
    """RIGHT, WRONG, or UNFILLED where the field is 0 or the sum of the pseudo-header alone; 0 where nobody
    can tell.  ``f`` (FRAME) is a TCP segment's."""
    if f.fragment != 0 or f.payload < f.payload_wire:
        return np.int64(0)
    head = np.int64(f.head)
    at, size = f.payload_at - head, head + f.payload_wire
    pseudo = _pseudo(f, size)
    if _folded(pseudo + _sum(data, at, size)) == np.uint64(0xFFFF):
        return np.int64(RIGHT)
    told = np.uint64(be16(data, at + 16))
    return np.int64(UNFILLED) if told in (np.uint64(0), _folded(pseudo)) else np.int64(WRONG)


@kernel
def _has_odd_option(data, f):
    """An MD5 or authentication option (RFC 2385, RFC 5925): a peer without the key drops the segment."""
    at, end = f.payload_at - np.int64(f.head) + 20, min(f.payload_at, f.end)
    while at + 1 < end and data[at] != 0:
        if data[at] == 1:
            at += 1
            continue
        if data[at] in (_MD5, _AUTHENTICATION):
            return True
        at += max(np.int64(data[at + 1]), np.int64(2))
    return False


@kernel
def stamp_of(data, f):
    """The time stamp of a segment (RFC 7323), or 0; only where it is laid out as all stacks do it, or first
    of the options."""
    at, end = f.payload_at - np.int64(f.head) + 20, min(f.payload_at, f.end)
    while at + 10 <= end and data[at] == 1:
        at += 1
    if at + 10 <= end and data[at] == 8 and data[at + 1] == 10:
        return np.uint32(be32(data, at + 2))
    return np.uint32(0)


@kernel
def doubt_of(data, f, syn, was_right):
    """Bits of EVENT.doubt.  ``was_right``: the checksum of the direction's SYN was."""
    doubt = judged(data, f)
    if doubt == UNFILLED and was_right:
        doubt = np.int64(WRONG)
    if (syn and f.payload_wire > 0) or (f.head > 20 and _has_odd_option(data, f)):
        doubt |= ODD
    if f.fragment != 0:
        doubt |= PIECE
    return np.uint8(doubt)
