"""One frame in, its IP layer out: link layer, IPv4 and IPv6, TCP and UDP, in compiled functions.

``decode`` fills one FRAME record and answers a code: 0, or the number of a refusal in ``REFUSALS``.  It
reads nothing outside the captured bytes.  Octets are those of the outermost IP header (RFC 791 total
length; RFC 8200 payload length plus 40), so neither link layer nor padding counts.
"""

from typing import Final

import numpy as np

from collectors.errors import Reason
from collectors.jit import bare as kernel

NO_VLAN: Final = 0xFFFF
# TCP flags (RFC 9293 section 3.1).
FIN: Final = 1
SYN: Final = 2
RST: Final = 4
ACK: Final = 16
FRAME: Final = np.dtype(
    [
        ("src_high", "u8"), ("src_low", "u8"), ("dst_high", "u8"), ("dst_low", "u8"),
        ("src_port", "u2"), ("dst_port", "u2"), ("vlan", "u2"), ("tcp_flags", "u2"),
        ("seq", "u4"), ("ack", "u4"),
        ("octets", "i8"),       # of the IP packet, as its header says
        ("payload_at", "i8"),   # index of the transport payload in the block's data
        ("payload", "i8"),      # octets of it that were captured
        ("payload_wire", "i8"), # octets of it on the wire
        ("hash", "u8"), ("refused", "i8"),  # as flows.meter needs them
        ("swapped", "u1"),      # 1: from side B to side A (table.ROW)
        ("protocol", "u1"),
        ("tcp", "u1"),          # 1: flags, seq and ack were captured
    ]
)  # fmt: skip

# What ``decode`` answers is an index into this tuple.
REFUSALS: Final = (
    None,
    Reason.SHORT,
    Reason.TRUNCATED,
    Reason.LINK_TYPE,
    Reason.NOT_IP,
    Reason.HEADER,
    Reason.FRAGMENT,
    Reason.TRANSPORT,
)
_SHORT: Final = 1
_TRUNCATED: Final = 2
_LINK_TYPE: Final = 3
_NOT_IP: Final = 4
_HEADER: Final = 5
_FRAGMENT: Final = 6
_TRANSPORT: Final = 7

_ETHERNET: Final = 1
_NULL: Final = 0
_LOOP: Final = 108
_SLL: Final = 113
_SLL2: Final = 276
_TCP: Final = 6
_UDP: Final = 17
_MAPPED: Final = np.uint64(0xFFFF00000000)


@kernel
def be16(data, i):
    """Two bytes, most significant first."""
    return (np.int64(data[i]) << 8) | np.int64(data[i + 1])


@kernel
def be32(data, i):
    """Four bytes, most significant first."""
    return (be16(data, i) << 16) | be16(data, i + 2)


@kernel
def be64(data, i):
    """Eight bytes, most significant first, as u8."""
    return (np.uint64(be32(data, i)) << np.uint64(32)) | np.uint64(be32(data, i + 4))


@kernel
def _family_is_ip(value):
    # AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24, 28 or 30 on the BSDs and macOS, 23 on Windows.
    return value in (2, 10, 23, 24, 28, 30)


@kernel
def network_layer(data, at, end, link, f):
    """Index of the IP header; or, negative, a refusal.  ``f.vlan`` is the outermost tag's."""
    if link in (12, 14, 101, 228, 229):
        return at
    if link in (_NULL, _LOOP):
        if end - at < 4:
            return -_SHORT
        family = be32(data, at)
        # DLT_NULL is in the byte order of the machine that captured; nobody says which.
        other = np.int64(data[at]) | np.int64(data[at + 1]) << 8
        other |= (np.int64(data[at + 2]) << 16) | (np.int64(data[at + 3]) << 24)
        if _family_is_ip(family) or (link == _NULL and _family_is_ip(other)):
            return at + 4
        return -_NOT_IP
    if link == _ETHERNET:
        head, where = 14, 12
    elif link == _SLL:
        head, where = 16, 14
    elif link == _SLL2:
        head, where = 20, 0
    else:
        return -_LINK_TYPE
    if end - at < head:
        return -_SHORT
    kind = be16(data, at + where)
    at += head
    while kind in (0x8100, 0x88A8, 0x9100, 0x9200):
        if end - at < 4:
            return -_SHORT
        if f.vlan == NO_VLAN:
            f.vlan = np.uint16(be16(data, at) & 0x0FFF)
        kind = be16(data, at + 2)
        at += 4
    if kind <= 1500 and end - at >= 8 and be32(data, at) == 0xAAAA0300 and be16(data, at + 4) == 0:
        kind = be16(data, at + 6)  # RFC 1042: IP over 802.2 SNAP
        at += 8
    if kind not in (0x0800, 0x86DD):
        return -_NOT_IP
    return at


@kernel
def _transport(data, at, end, wire, snapped, f):
    """Ports, TCP state and payload of the IP payload data[at:end], which was ``wire`` - at long."""
    cut = np.int64(_TRUNCATED if snapped else _TRANSPORT)
    f.payload_at = at
    f.payload = np.int64(0)
    f.payload_wire = np.int64(0)
    if f.protocol not in (_TCP, _UDP):
        return np.int64(0)
    if wire - at < (20 if f.protocol == _TCP else 8):
        return np.int64(_TRANSPORT)
    if end - at < 4:
        return cut
    f.src_port = np.uint16(be16(data, at))
    f.dst_port = np.uint16(be16(data, at + 2))
    if f.protocol == _UDP:
        last = wire
        if end - at >= 6:
            said = be16(data, at + 4)
            if said != 0 and said < 8:  # 0 is a jumbogram's (RFC 2675)
                return np.int64(_TRANSPORT)
            if said != 0 and at + said < last:
                last = at + said
        f.payload_at = at + 8
        f.payload_wire = last - at - 8
        f.payload = max(np.int64(0), min(end, last) - at - 8)
        return np.int64(0)
    if end - at < 14:
        return np.int64(0) if snapped else cut  # ports are enough to meter
    head = np.int64(data[at + 12] >> 4) * 4
    if head < 20 or at + head > wire:
        return np.int64(_TRANSPORT)
    f.tcp = np.uint8(1)
    f.seq = np.uint32(be32(data, at + 4))
    f.ack = np.uint32(be32(data, at + 8))
    f.tcp_flags = np.uint16(be16(data, at + 12) & 0x01FF)
    f.payload_at = at + head
    f.payload_wire = wire - at - head
    f.payload = max(np.int64(0), end - at - head)
    return np.int64(0)


@kernel
def _ipv4(data, at, end, wire_end, f):
    snapped = end < wire_end
    if end - at < 20:
        return np.int64(_TRUNCATED if snapped else _SHORT)
    head = np.int64(data[at] & 15) * 4
    total = be16(data, at + 2)
    if total == 0:
        # Captured before segmentation offload filled it in: the frame tells the length.
        total = wire_end - at
    if head < 20 or total < head:
        return np.int64(_HEADER)
    if end - at < head:
        return np.int64(_TRUNCATED if snapped else _SHORT)
    f.src_high = np.uint64(0)
    f.dst_high = np.uint64(0)
    f.src_low = _MAPPED | np.uint64(be32(data, at + 12))
    f.dst_low = _MAPPED | np.uint64(be32(data, at + 16))
    f.protocol = data[at + 9]
    f.octets = total
    fragment = be16(data, at + 6)
    if fragment & 0x1FFF:
        return np.int64(_FRAGMENT)
    return _transport(data, at + head, min(end, at + total), at + total, end < at + total, f)


@kernel
def _ipv6(data, at, end, wire_end, f):
    snapped = end < wire_end
    if end - at < 40:
        return np.int64(_TRUNCATED if snapped else _SHORT)
    length = be16(data, at + 4)
    kind = np.int64(data[at + 6])
    if length == 0 and kind in (0, _TCP) and wire_end - at > 60:
        length = wire_end - at - 40  # a jumbogram (RFC 2675) or a segment before its offload
    wire = at + 40 + length
    last = min(end, wire)
    f.src_high = be64(data, at + 8)
    f.src_low = be64(data, at + 16)
    f.dst_high = be64(data, at + 24)
    f.dst_low = be64(data, at + 32)
    f.octets = 40 + length
    at += 40
    # Extension headers (RFC 8200 section 4, AH: RFC 4302): hop-by-hop, routing, fragment, options.
    while kind in (0, 43, 44, 51, 60):
        if last - at < 8:
            return np.int64(_TRUNCATED if end < wire else _HEADER)
        size = (np.int64(data[at + 1]) + 1) * 8
        if kind == 44:
            size = np.int64(8)
            if be16(data, at + 2) & 0xFFF8:
                f.protocol = data[at]
                return np.int64(_FRAGMENT)
        elif kind == 51:
            size = (np.int64(data[at + 1]) + 2) * 4
        kind = np.int64(data[at])
        at += size
        if at > wire:
            return np.int64(_HEADER)
        if at > last:
            return np.int64(_TRUNCATED)
    f.protocol = np.uint8(kind)
    return _transport(data, at, last, wire, end < wire, f)


@kernel
def decode(data, at, captured, length, link, f):
    """Read one frame, data[at : at + captured], of ``length`` octets on the wire.

    Returns 0 and fills ``f``, or returns an index into REFUSALS; ``f`` then holds nothing of use.
    """
    end = at + captured
    wire_end = at + max(length, captured)
    f.vlan = np.uint16(NO_VLAN)
    f.tcp = np.uint8(0)
    f.tcp_flags = np.uint16(0)
    f.src_port = np.uint16(0)
    f.dst_port = np.uint16(0)
    here = network_layer(data, at, end, link, f)
    if here < 0:
        if -here == _SHORT and end < wire_end:
            return np.int64(_TRUNCATED)
        return np.int64(-here)
    if here >= end:
        return np.int64(_TRUNCATED if end < wire_end else _SHORT)
    version = data[here] >> 4
    if version == 4 and link != 229:
        return _ipv4(data, here, end, wire_end, f)
    if version == 6 and link != 228:
        return _ipv6(data, here, end, wire_end, f)
    return np.int64(_HEADER)


@kernel
def decode_all(data, offset, captured, length, link, out, code):
    """Every frame of a block: ``out`` (n,) FRAME and ``code`` (n,) i8 are filled.  For tests and tools."""
    for i in range(offset.size):
        code[i] = decode(
            data, offset[i], np.int64(captured[i]), np.int64(length[i]), np.int64(link[i]), out[i]
        )
