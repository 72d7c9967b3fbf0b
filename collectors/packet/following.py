"""TCP as the flow table follows it: where a direction is, what begins a connection and what ends it.

A tap sees what anybody sent, so numbers decide: a segment that no end point would take (RFC 9293 section
3.10.7, RFC 5961) neither ends a connection, nor begins it again, nor brings payload.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.jit import within
from collectors.packet.ageing import NOT_TAKEN
from collectors.packet.checksums import RIGHT, judged
from collectors.packet.frames import ACK, FIN, RST, SYN
from collectors.packet.segments import WINDOW
from collectors.packet.table import AGAIN, ENDED, HAS_FIN, HAS_SEQ, HAS_START, LIVE, SUMMED

# So far before a direction's first octets its SYN may still come after them; and so much of the data on a SYN
# may be acknowledged with it (RFC 7413).
_REORDERED: Final = 1 << 16


@within
def mark(seq):
    """What ROW.marks keeps of a number: not 0."""
    return np.uint16(max(np.uint32(seq) & np.uint32(AGAIN), np.uint32(1)))


@kernel
def answered(r, f, d):
    """Does the packet agree to the SYN that waits: the other side's SYN, or the ACK of the same side?"""
    waits = r.marks & AGAIN
    if waits == 0 or f.tcp == 0 or (f.tcp_flags & (ACK | RST)) != ACK:
        return False
    if f.tcp_flags & SYN:
        return mark(f.ack) == waits
    # Only where the other side is not heard.  The mark is short: what is near to where the connection is goes
    # on with it.
    if r.seen[1 - d] & HAS_SEQ:
        return False
    far = np.int64(np.int32(np.uint32(f.seq - r.expect[d])))
    return mark(f.seq) == waits and (far > WINDOW or far < -WINDOW)


@within
def sequence(r, d, f, first):
    """Follow TCP's sequence numbers, ``first`` that of the first octet, and its closing.  Returns the new
    payload octets.

    Numbers that no receiver takes move little: what is behind by more than a window says that those before it
    were forged, or lost on the way to us.
    """
    after = np.uint32(first + np.uint32(f.payload_wire))
    fresh = f.payload_wire
    if r.seen[d] & HAS_SEQ:
        ahead = np.int64(np.int32(np.uint32(after - r.expect[d])))
        if -WINDOW <= ahead < fresh:
            fresh = max(ahead, np.int64(0))
    else:
        r.expect[d] = after
        r.seen[d] |= np.uint8(HAS_SEQ)
        if r.ttl[d] == 0:
            r.ttl[d] = f.ttl
    if fresh > 0:
        r.expect[d] = after
        r.seen[d] &= np.uint8(~np.uint8(HAS_FIN))  # whoever forged the FIN did not end it
    if f.tcp_flags & FIN and after == r.expect[d]:
        r.seen[d] |= np.uint8(HAS_FIN)
    if r.seen[0] & r.seen[1] & HAS_FIN:
        r.phase = np.uint8(ENDED)
    elif fresh > 0 and r.phase == ENDED:
        r.phase = np.uint8(LIVE)  # nor did the RST
    return fresh


@kernel
def control(r, d, f, data):
    """A SYN or a RST.  Returns the new payload octets.

    A RST ends the connection at the very number that is to come, and at no other (RFC 5961 section 3); so
    does any of a direction that said nothing yet.  A SYN counts where a direction begins (RFC 9293 section
    3.10.7.4): not inside a connection.
    """
    if f.tcp_flags & RST:
        behind_fin = np.uint32(1 if r.seen[d] & HAS_FIN else 0)
        if (r.seen[d] & HAS_SEQ) == 0 or np.uint32(f.seq - r.expect[d]) in (np.uint32(0), behind_fin):
            r.phase = np.uint8(ENDED)
        return np.int64(0)
    o = 1 - d
    first = np.uint32(f.seq + np.uint32(1))
    if f.tcp_flags & ACK and r.seen[o] & HAS_START and np.uint32(f.ack - r.start[o]) > _REORDERED:
        return np.int64(0)  # it answers another SYN
    if r.seen[d] & HAS_START:
        if r.start[d] != first:
            return np.int64(0)
    elif r.seen[d] & HAS_SEQ and np.uint32(r.expect[d] - first) > _REORDERED:
        return np.int64(0)
    else:
        r.start[d] = first
        r.seen[d] |= np.uint8(HAS_START)
    r.ttl[d] = max(r.ttl[d], f.ttl)
    if judged(data, f) == RIGHT:
        r.marks |= np.uint16(SUMMED << d)
    if r.initiator == 0:
        opener = (1 - d) if f.tcp_flags & ACK else d
        r.initiator = np.uint8(opener + 1)
    return sequence(r, d, f, first)


@kernel
def refuse_payload(r, d, f, counters):
    """Payload that no end point takes (RFC 9293 section 3.10.7.4) is not there: without ACK, of a RST, of a
    SYN that does not begin its direction."""
    if f.tcp_flags & RST:
        counters[NOT_TAKEN + 1] += 1
    elif f.tcp_flags & SYN:
        first = np.uint32(f.seq + np.uint32(1))
        if (r.seen[d] & HAS_SEQ) == 0 or ((r.seen[d] & HAS_START) and r.start[d] == first):
            return
        counters[NOT_TAKEN + 2] += 1
    else:
        counters[NOT_TAKEN] += 1
    f.payload = np.int64(0)
    f.payload_wire = np.int64(0)
