"""Fragments of IP packets: whose they are, and the packets that they make up, inside the compiled pass.

The first fragment tells the ports: it is metered as it comes, and later ones are counted to the same
connection, those that came before it too.  What may be a candidate's (TCP), a tunnel's or an answer of DNS is
put together as well, and read once more when it is whole.  All within bounds: so many packets at a time, in
sets of WAYS by the two addresses, so that a flood between two hosts pushes out nobody else's; so many octets
and fragments a packet, and for so long.  The fragments of a packet come close together, so of a full set the
oldest packet goes.

Where fragments contradict each other end points differ.  Of IPv6 the packet is refused (RFC 5722, RFC 8200
section 4.5).  Of IPv4 what came first stays, and a fragment that cannot be of the same packet is left out: so
does whoever does not refuse such a packet altogether, and nobody can keep us from reading what he reads.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.frames import FIRST, FRAME, NO_VLAN, be16, be32, be64
from collectors.packet.table import hash_of

WAYS: Final = 8
# Octets and fragments of one packet, and for how long it is waited for (RFC 8200 section 4.5: 60 s; hosts
# wait for 30 s).
MAX_OCTETS: Final = 16384
MAX_PIECES: Final = 512
MAX_AGE_NS: Final = 30_000_000_000
# Sooner nobody comes to the same 16-bit identification again: another first fragment is then forged.
_REUSE_NS: Final = 1_000_000_000
_HEAD: Final = 40
MAX_WHOLE: Final = _HEAD + MAX_OCTETS
# Packets that became whole wait here until the pass returns; one frame may complete two, one in the other.
ARENA: Final = 1 << 20
ARENA_FULL: Final = ARENA - 3 * MAX_WHOLE

# What became of fragments, and of packets that were to be put together: places in ``counts``.
SEEN: Final = 0  # fragments
WHOLE: Final = 1  # packets put together
REPEATED: Final = 2  # fragments that were there before
OVERLAP: Final = 3  # fragments that overlap others: of IPv4 the first wins, of IPv6 the packet is refused
BAD: Final = 4  # fragments of a size or at a place that cannot be, or that contradict others
LONG: Final = 5  # packets of more octets or fragments than the bounds
CUT: Final = 6  # packets cut by the snap length
REUSED: Final = 7  # packets that gave way to another of the same identification
EVICTED: Final = 8  # packets that gave way to newer ones
EXPIRED: Final = 9  # packets that were not whole in time
ORPHANED: Final = 10  # fragments whose first never came
OUTCOMES: Final = (
    "seen", "whole", "repeated", "overlap", "bad", "long", "cut", "reused", "evicted", "expired", "orphaned",
)  # fmt: skip

_FREE: Final = 0
_OPEN: Final = 1
_DONE: Final = 2  # whole, or known not to become so; later fragments are still counted
_TCP: Final = 6
_UDP: Final = 17
# Protocols that are put together: TCP, tunnels, and extension headers before them.
_WANTED: Final = (0, 4, 6, 41, 43, 47, 51, 60, 137)
_WANTED_PORTS: Final = (53, 4789, 8472, 4790, 6081, 2152, 3544)
# Answers of ``take``.
HELD: Final = 0
METER: Final = 1
REFUSE: Final = 2

PACKET: Final = np.dtype(
    [
        ("src_high", "u8"), ("src_low", "u8"), ("dst_high", "u8"), ("dst_low", "u8"),
        ("id", "u4"), ("protocol", "u1"), ("six", "u1"),
        ("next", "u1"),      # protocol of what is put together
        ("phase", "u1"), ("known", "u1"), ("wanted", "u1"),
        ("t", "i8"), ("begins", "u8"), ("total", "i8"), ("furthest", "i8"), ("units", "i8"),
        ("pieces", "u4"), ("held", "u4"), ("held_octets", "i8"),
        ("of", FRAME),       # the first fragment, as it was metered
    ]
)  # fmt: skip


class Pieces(NamedTuple):
    """``packets`` (n,) PACKET; ``have`` (n, 32) u8, a bit for each 8 octets; ``body`` (n, MAX_WHOLE) u1, room
    for a header and the octets; ``arena`` (ARENA,) u1 and ``filled`` (2,) i8, how much is used and which
    packet has just become whole (its number plus one); ``counts`` by OUTCOMES; ``whole`` (2,) FRAME."""

    packets: np.ndarray
    have: np.ndarray
    body: np.ndarray
    arena: np.ndarray
    filled: np.ndarray
    counts: np.ndarray
    whole: np.ndarray


def pieces(packets: int) -> Pieces:
    """No fragments yet; room for so many packets, a power of two and at least WAYS."""
    return Pieces(
        np.zeros(packets, PACKET),
        np.zeros((packets, MAX_OCTETS // 8 // 64), np.uint64),
        np.zeros((packets, MAX_WHOLE), np.uint8),
        np.zeros(ARENA, np.uint8),
        np.zeros(2, np.int64),
        np.zeros(len(OUTCOMES), np.int64),
        np.zeros(2, FRAME),
    )


@kernel
def _close(e, why, p):
    """Forget a packet."""
    if e.phase == _FREE:
        return
    p.counts[ORPHANED] += np.int64(e.held)
    if e.phase == _OPEN and e.wanted:
        p.counts[why] += 1
    e.phase = np.uint8(_FREE)


@kernel
def flush(p):
    """The input is over: nothing will become whole any more."""
    for n in range(p.packets.size):
        _close(p.packets[n], EXPIRED, p)


@kernel
def _begin(e, n, t, p):
    e.phase = np.uint8(_OPEN)
    e.known = np.uint8(0)
    e.wanted = np.uint8(0)
    e.t = t
    e.begins = np.uint64(0)
    e.total = np.int64(-1)
    e.furthest = np.int64(0)
    e.units = np.int64(0)
    e.pieces = np.uint32(0)
    e.held = np.uint32(0)
    e.held_octets = np.int64(0)
    for k in range(p.have.shape[1]):
        p.have[n, k] = np.uint64(0)


@kernel
def _packet_of(src_high, src_low, dst_high, dst_low, number, protocol, six, t, p, seed):
    """The packet that a fragment is of, begun if need be."""
    h = hash_of(src_high, src_low, dst_high, dst_low, np.uint64(0), seed)
    base = np.int64((h >> np.uint64(32)) & np.uint64(p.packets.size // WAYS - 1)) * WAYS
    best: np.int64 | int = base
    for k in range(base, base + WAYS):
        e = p.packets[k]
        if e.phase != _FREE and (t - e.t > MAX_AGE_NS or e.t - t > MAX_AGE_NS):
            _close(e, EXPIRED, p)
        if (
            e.phase != _FREE
            and e.id == number
            and e.src_low == src_low
            and e.dst_low == dst_low
            and e.src_high == src_high
            and e.dst_high == dst_high
            and e.protocol == protocol
            and e.six == six
        ):
            return k
        b = p.packets[best]
        if b.phase != _FREE and (e.phase == _FREE or e.t < b.t):
            best = k
    e = p.packets[best]
    _close(e, EVICTED, p)
    e.src_high, e.src_low, e.dst_high, e.dst_low = src_high, src_low, dst_high, dst_low
    e.id, e.protocol, e.six = np.uint32(number), np.uint8(protocol), np.uint8(six)
    _begin(e, best, t, p)
    return best


@kernel
def _same(data, at, body, n, place, size):
    for k in range(size):  # noqa: SIM110 - a kernel knows no generators
        if data[at + k] != body[n, place + k]:
            return False
    return True


@kernel
def _put(data, f, e, n, offset, size, more, p):
    """Add octets to the packet, unless that cannot be.  True: it is whole."""
    if f.piece_end < f.piece_wire:
        p.counts[CUT] += 1
        e.phase = np.uint8(_DONE)
        return False
    e.pieces += np.uint32(1)
    after = offset + size
    if after > MAX_OCTETS or e.pieces > MAX_PIECES:
        p.counts[LONG] += 1
        e.phase = np.uint8(_DONE)
        return False
    ends_elsewhere = e.total >= 0 and (after > e.total or (not more and after != e.total))
    if ends_elsewhere or (not more and e.furthest > after):
        p.counts[BAD] += 1
        if e.six:
            e.phase = np.uint8(_DONE)
        return False
    fresh = np.int64(0)
    units = (size + 7) >> 3
    for k in range(units):
        unit = (offset >> 3) + k
        bit = np.uint64(1) << np.uint64(unit & 63)
        if not p.have[n, unit >> 6] & bit:
            fresh += 1
    if fresh < units:
        if fresh == 0 and _same(data, f.piece_at, p.body, n, _HEAD + offset, size):
            p.counts[REPEATED] += 1
        else:
            p.counts[OVERLAP] += 1
            if e.six:  # RFC 5722
                e.phase = np.uint8(_DONE)
                return False
    e.furthest = max(e.furthest, after)
    if not more:
        e.total = after
    for k in range(units):
        unit = (offset >> 3) + k
        bit = np.uint64(1) << np.uint64(unit & 63)
        if p.have[n, unit >> 6] & bit:
            continue
        p.have[n, unit >> 6] |= bit
        for j in range(k * 8, min(k * 8 + 8, size)):
            p.body[n, _HEAD + offset + j] = data[f.piece_at + j]
    e.units += fresh
    return e.total >= 0 and e.units == (e.total + 7) >> 3


@kernel
def _is_wanted(data, f, protocol, offset):
    if protocol == _UDP:
        if offset != 0 or f.piece_end - f.piece_at < 4:
            return False
        return be16(data, f.piece_at) in _WANTED_PORTS or be16(data, f.piece_at + 2) in _WANTED_PORTS
    return protocol in _WANTED


@kernel
def take(data, f, t, p, seed):
    """Take a fragment.  METER: ``f`` is to be metered, and counts as ``f.packets``; HELD: it is counted once
    the first one comes; REFUSE: nobody would take it.  ``p.filled[1]`` tells of a packet that is whole."""
    p.filled[1] = 0
    p.counts[SEEN] += 1
    ip = f.piece_ip
    size = f.piece_wire - f.piece_at
    six = data[ip] >> 4 == 6
    if six:
        src_high, src_low = be64(data, ip + 8), be64(data, ip + 16)
        dst_high, dst_low = be64(data, ip + 24), be64(data, ip + 32)
        at = f.piece_at - 8
        number, key, following = be32(data, at + 4), np.int64(0), data[at]
        offset, more = be16(data, at + 2) & 0xFFF8, be16(data, at + 2) & 1 == 1
    else:
        src_high, src_low = np.uint64(0), np.uint64(be32(data, ip + 12))
        dst_high, dst_low = np.uint64(0), np.uint64(be32(data, ip + 16))
        number, key, following = be16(data, ip + 4), np.int64(data[ip + 9]), data[ip + 9]
        offset, more = (be16(data, ip + 6) & 0x1FFF) * 8, be16(data, ip + 6) & 0x2000 != 0
    if size <= 0 or (more and size & 7) or offset + size > 65535:
        p.counts[BAD] += 1
        return METER if f.refused == 0 else REFUSE
    n = _packet_of(src_high, src_low, dst_high, dst_low, number, key, 1 if six else 0, t, p, seed)
    e = p.packets[n]
    if f.fragment == FIRST:
        begins = be64(data, f.piece_at) if f.piece_end - f.piece_at >= 8 else np.uint64(0)
        other = e.known and not six and e.begins != begins
        if e.phase == _DONE or (other and abs(t - e.t) >= _REUSE_NS):
            if e.phase == _OPEN:
                p.counts[REUSED] += 1
                e.wanted = np.uint8(0)
            _close(e, REUSED, p)
            _begin(e, n, t, p)
            other = False
        if not other:
            e.begins = begins
    if e.phase == _OPEN:
        if e.pieces == 0 and e.held == 0 and not e.known:
            e.wanted = np.uint8(_is_wanted(data, f, following, offset))
        if offset == 0:
            e.next = following
        if e.wanted and _put(data, f, e, n, offset, size, more, p):
            e.phase = np.uint8(_DONE)
            p.counts[WHOLE] += 1
            p.filled[1] = n + 1
    if f.refused == 0:
        e.known = np.uint8(1)
        e.of = f
        f.packets += e.held
        f.octets += e.held_octets
        e.held = np.uint32(0)
        e.held_octets = np.int64(0)
        return METER
    if not e.known:
        e.held += f.packets
        e.held_octets += f.octets
        return HELD
    octets = f.octets
    f.src_high, f.src_low, f.dst_high, f.dst_low = e.of.src_high, e.of.src_low, e.of.dst_high, e.of.dst_low
    f.src_port, f.dst_port, f.protocol, f.vlan = e.of.src_port, e.of.dst_port, e.of.protocol, e.of.vlan
    f.tunnel = e.of.tunnel
    f.tunnel_src_high, f.tunnel_src_low = e.of.tunnel_src_high, e.of.tunnel_src_low
    f.tunnel_dst_high, f.tunnel_dst_low = e.of.tunnel_dst_high, e.of.tunnel_dst_low
    f.octets = octets
    f.tcp = np.uint8(0)
    f.tcp_flags = np.uint16(0)
    f.payload = np.int64(0)
    f.payload_wire = size if key == _UDP and f.protocol == _UDP else np.int64(0)
    f.refused = np.int64(0)
    return METER


@kernel
def whole(p):
    """Write the packet that has just become whole into the arena, with a header of its own.  Returns
    (place, octets)."""
    n = p.filled[1] - 1
    e = p.packets[n]
    p.filled[1] = 0
    at = p.filled[0]
    head = np.int64(_HEAD if e.six else 20)
    size = head + e.total
    for k in range(head):
        p.arena[at + k] = np.uint8(0)
    if e.six:
        p.arena[at] = np.uint8(0x60)
        p.arena[at + 4] = np.uint8(e.total >> 8)
        p.arena[at + 5] = np.uint8(e.total & 255)
        p.arena[at + 6] = e.next
        for k in range(8):
            shift = np.uint64(56 - 8 * k)
            p.arena[at + 8 + k] = np.uint8((e.src_high >> shift) & np.uint64(255))
            p.arena[at + 16 + k] = np.uint8((e.src_low >> shift) & np.uint64(255))
            p.arena[at + 24 + k] = np.uint8((e.dst_high >> shift) & np.uint64(255))
            p.arena[at + 32 + k] = np.uint8((e.dst_low >> shift) & np.uint64(255))
    else:
        p.arena[at] = np.uint8(0x45)
        p.arena[at + 2] = np.uint8(size >> 8)
        p.arena[at + 3] = np.uint8(size & 255)
        p.arena[at + 9] = e.next
        for k in range(4):
            shift = np.uint64(24 - 8 * k)
            p.arena[at + 12 + k] = np.uint8((e.src_low >> shift) & np.uint64(255))
            p.arena[at + 16 + k] = np.uint8((e.dst_low >> shift) & np.uint64(255))
    for k in range(e.total):
        p.arena[at + head + k] = p.body[n, _HEAD + k]
    p.filled[0] = at + size
    return at, size


@kernel
def inherit(w, f, p, n):
    """A packet put together came the way its fragments came, and counts what of them was not counted."""
    e = p.packets[n]
    w.packets = np.uint32(e.held)
    w.octets = e.held_octets
    e.held = np.uint32(0)
    e.held_octets = np.int64(0)
    if w.vlan == NO_VLAN:
        w.vlan = f.vlan
    if f.tunnel != 0:
        w.tunnel = f.tunnel
        w.tunnel_src_high, w.tunnel_src_low = f.tunnel_src_high, f.tunnel_src_low
        w.tunnel_dst_high, w.tunnel_dst_low = f.tunnel_dst_high, f.tunnel_dst_low
