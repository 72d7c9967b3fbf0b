"""Segments that the tap sees and their receiver perhaps does not take: when one is doubted, and why.

What is doubted waits aside (``payloads``): another copy of the same octets that is not doubted takes its
place, the receiver's acknowledgement without such a copy makes it good.  Only where the receiver is not heard
at all it is taken after a wait.  What turned out good is not doubted for the same reason again.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.checksums import ODD, PIECE, RIGHT, UNFILLED, WRONG
from collectors.packet.frames import ACK
from collectors.packet.segments import WINDOW, Segment

# Reasons beside those of ``checksums``.
FAR_ACK: Final = 16  # acknowledges what was never sent (RFC 5961 section 5)
LOW_TTL: Final = 32  # of a lower TTL than others of its direction: it may not get as far
OLD: Final = 64  # of an older time stamp (RFC 7323 section 5)
# Those that are not held against a direction again.
LOOSE: Final = WRONG | ODD | FAR_ACK
# A bit of CONNECTION.loose: right checksums were seen, so one that is not filled is as good as wrong.
_SUMS: Final = 128
# Segments that wait aside, of one direction.
MAX_DOUBTED: Final = 64


@kernel
def doubted_first(e):
    """Reasons to doubt the first segment (EVENT) of a connection, 0 for none."""
    reasons = np.int64(e.doubt & (WRONG | ODD | PIECE))
    return reasons | LOW_TTL if e.ttl != 0 and e.ttl < e.usual_ttl else reasons


@kernel
def doubted(e, r):
    """Reasons to doubt a segment (EVENT) of a connection (ordered.CONNECTION), 0 for none."""
    d = np.int64(e.direction)
    reasons = np.int64(e.doubt & (WRONG | ODD | PIECE) & ~r.loose[d])
    if e.doubt & UNFILLED and r.loose[d] & (_SUMS | WRONG) == _SUMS:
        reasons |= WRONG
    if e.ttl != 0 and e.ttl < (r.ttl[d] if r.ttl[d] != 0 else e.usual_ttl):
        reasons |= LOW_TTL
    if e.stamp != 0 and r.stamp[d] != 0 and np.int32(np.uint32(e.stamp - r.stamp[d])) < 0:
        reasons |= OLD
    if r.published[1 - d] >= 0 and e.tcp_flags & ACK and not r.loose[d] & FAR_ACK:
        ahead = (np.int64(e.ack) - r.base[1 - d] - r.next[1 - d] + WINDOW) & 0xFFFFFFFF
        if ahead > 2 * WINDOW:
            reasons |= FAR_ACK
    return reasons


@kernel
def ahead_of(e, r):
    """How far a segment (EVENT) begins ahead of what is next in its direction, the nearest way round."""
    d = np.int64(e.direction)
    return np.int64(np.int32(np.uint32((np.int64(e.seq) - r.base[d] - r.next[d]) & 0xFFFFFFFF)))


@kernel
def learn(e, r):
    """What a segment that nobody doubts says of others of its direction, if it is next or comes again."""
    d = np.int64(e.direction)
    if r.base[d] < 0 or not -WINDOW <= ahead_of(e, r) <= 0:
        return
    r.ttl[d] = max(r.ttl[d], e.ttl)
    if e.stamp != 0:
        r.stamp[d] = e.stamp
    if e.doubt & RIGHT:
        r.loose[d] = np.uint8(r.loose[d] & ~np.uint8(WRONG) | _SUMS)


@kernel
def doubted_one(events, i, t, n):
    """``doubted`` of one event of the connection at place ``n`` of ordered.Tables, for Reassembly."""
    return doubted(events[i], t.places[n])


@kernel
def learn_one(events, i, t, n):
    """``learn`` of one event, for Reassembly."""
    learn(events[i], t.places[n])


def covered(segments: list[Segment], ack: int) -> list[Segment]:
    """Those that end where ``ack`` says that all was received, or not far before."""
    return [s for s in segments if (ack - s.seq - len(s.data)) & 0xFFFFFFFF <= WINDOW]


def ranked(segments: list[Segment]) -> list[Segment]:
    """The best copy first: of a checksum that is not wrong, of the highest TTL, the first that came."""
    return sorted(segments, key=lambda s: (s.doubt & WRONG, -s.ttl))


def earliest(segments: list[Segment]) -> Segment:
    """The one of the lowest sequence number (modulo 2**32)."""
    first = segments[0].seq
    return min(segments, key=lambda s: (s.seq - first + 0x80000000) & 0xFFFFFFFF)
