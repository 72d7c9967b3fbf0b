"""One frame in, its innermost IP packet out: links, tunnels, IPv4 and IPv6, TCP and UDP; all compiled.

``decode`` fills one FRAME record and answers a code: 0, or the number of a refusal in ``REFUSALS``.  It
reads nothing outside the captured bytes, and goes through at most MAX_TUNNELS tunnels: what is deeper is
metered as the tunnel that it is.  Addresses and ports are those of the innermost packet; octets those of the
outermost IP header (RFC 791 total length; RFC 8200 payload length plus 40), so neither link layer nor
padding counts.
"""

from typing import Final

import numpy as np

from collectors.errors import Reason
from collectors.jit import bare as kernel
from collectors.packet.links import (
    HEADER,
    NO_VLAN,
    SHORT,
    TRUNCATED,
    be16,
    be32,
    be64,
    network_layer,
    walk,
)
from collectors.packet.tunnels import is_tunnel, opened

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
        ("octets", "i8"),       # of the outermost IP packet, as its header says
        ("payload_at", "i8"),   # index of the transport payload in the block's data
        ("payload", "i8"),      # octets of it that were captured
        ("payload_wire", "i8"), # octets of it on the wire
        ("hash", "u8"), ("refused", "i8"),  # as flows.meter needs them
        ("swapped", "u1"),      # 1: from side B to side A (table.ROW)
        ("protocol", "u1"),
        ("tcp", "u1"),          # 1: flags, seq and ack were captured
        ("fragment", "u1"),     # NO_FRAGMENT, FIRST or LATER
        ("tunnel", "u1"),       # 0, or the kind of the outermost one (tunnels.NAMES), and its ends
        ("ttl", "u1"),          # or hop limit; 0 of a packet put together
        ("head", "u1"),         # octets of the TCP header
        ("packets", "u4"),      # that it counts as
        ("end", "i8"),          # where what was captured of the IP packet ends,
        ("wire_end", "i8"),     # and where it ended on the wire
        # Of a fragment, the outermost where there are two: its IP header, what comes behind it, its ends.
        ("piece_ip", "i8"), ("piece_at", "i8"), ("piece_end", "i8"), ("piece_wire", "i8"),
        ("tunnel_src_high", "u8"), ("tunnel_src_low", "u8"),
        ("tunnel_dst_high", "u8"), ("tunnel_dst_low", "u8"),
    ]
)  # fmt: skip

NO_FRAGMENT: Final = 0
FIRST: Final = 1  # of several: with the ports, and perhaps not all of the payload
LATER: Final = 2  # refused as FRAGMENT: ``fragments`` knows whose it is
# Tunnels within tunnels, and extension headers of one IPv6 header, that are gone through.
MAX_TUNNELS: Final = 4
MAX_EXTENSIONS: Final = 16

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
FRAGMENT: Final = 6
_TRANSPORT: Final = 7

_TCP: Final = 6
_UDP: Final = 17
_AH: Final = 51
_MAPPED: Final = np.uint64(0xFFFF00000000)


@kernel
def _transport(data, at, end, wire, snapped, f):
    """Ports, TCP state and payload of the IP payload data[at:end], which was ``wire`` - at long.

    A first fragment may hold a part of the header only (RFC 1858): the ports are enough to meter.
    """
    cut = np.int64(TRUNCATED if snapped else _TRANSPORT)
    f.payload_at = at
    f.payload = np.int64(0)
    f.payload_wire = np.int64(0)
    if f.protocol not in (_TCP, _UDP):
        return np.int64(0)
    if wire - at < (20 if f.protocol == _TCP else 8) and not snapped:
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
        f.payload_wire = max(np.int64(0), last - at - 8)
        f.payload = max(np.int64(0), min(end, last) - at - 8)
        return np.int64(0)
    if end - at < 14:
        return np.int64(0) if snapped else cut
    head = np.int64(data[at + 12] >> 4) * 4
    if head < 20 or at + head > wire:
        return np.int64(0) if head >= 20 and f.fragment else np.int64(_TRANSPORT)
    f.tcp = np.uint8(1)
    f.head = np.uint8(head)
    f.seq = np.uint32(be32(data, at + 4))
    f.ack = np.uint32(be32(data, at + 8))
    f.tcp_flags = np.uint16(be16(data, at + 12) & 0x01FF)
    f.payload_at = at + head
    f.payload_wire = wire - at - head
    f.payload = max(np.int64(0), end - at - head)
    return np.int64(0)


@kernel
def _piece(ip, at, offset, f):
    """Note a fragment: what is behind its headers begins at ``at``."""
    if f.fragment == NO_FRAGMENT:
        f.fragment = np.uint8(FIRST if offset == 0 else LATER)
        f.piece_ip = ip
        f.piece_at = at
        f.piece_end = f.end
        f.piece_wire = f.wire_end


@kernel
def _ipv4(data, at, end, wire_end, f):
    snapped = end < wire_end
    if end - at < 20:
        return np.int64(TRUNCATED if snapped else SHORT)
    head = np.int64(data[at] & 15) * 4
    total = be16(data, at + 2)
    if total == 0:
        # Captured before segmentation offload filled it in: the frame tells the length.
        total = wire_end - at
    if head < 20 or total < head:
        return np.int64(HEADER)
    if end - at < head:
        return np.int64(TRUNCATED if snapped else SHORT)
    f.src_high = np.uint64(0)
    f.dst_high = np.uint64(0)
    f.src_low = _MAPPED | np.uint64(be32(data, at + 12))
    f.dst_low = _MAPPED | np.uint64(be32(data, at + 16))
    f.protocol = data[at + 9]
    f.ttl = data[at + 8]
    f.octets = total
    f.wire_end = at + total
    f.end = min(end, f.wire_end)
    snapped = end < f.wire_end
    fragment = be16(data, at + 6)
    if fragment & 0x3FFF:
        _piece(at, at + head, fragment & 0x1FFF, f)
        if fragment & 0x1FFF:
            return np.int64(FRAGMENT)
        snapped = True
    at += head
    if f.protocol == _AH and f.end - at >= 12:  # RFC 4302
        f.protocol = data[at]
        at += (np.int64(data[at + 1]) + 2) * 4
        if at > f.end:
            return np.int64(TRUNCATED if snapped else HEADER)
    return _transport(data, at, f.end, f.wire_end, snapped, f)


@kernel
def _ipv6(data, at, end, wire_end, f):
    snapped = end < wire_end
    if end - at < 40:
        return np.int64(TRUNCATED if snapped else SHORT)
    ip = at
    length = be16(data, at + 4)
    kind = np.int64(data[at + 6])
    if length == 0 and kind in (0, _TCP) and wire_end - at > 60:
        length = wire_end - at - 40  # a jumbogram (RFC 2675) or a segment before its offload
    wire = at + 40 + length
    last = min(end, wire)
    snapped = end < wire
    f.src_high = be64(data, at + 8)
    f.src_low = be64(data, at + 16)
    f.dst_high = be64(data, at + 24)
    f.dst_low = be64(data, at + 32)
    f.ttl = data[at + 7]
    f.octets = 40 + length
    f.end = last
    f.wire_end = wire
    at += 40
    # Extension headers (RFC 8200 section 4, AH: RFC 4302): hop-by-hop, routing, fragment, options.
    extensions = 0
    while kind in (0, 43, 44, _AH, 60):
        extensions += 1
        if extensions > MAX_EXTENSIONS:
            return np.int64(HEADER)
        if last - at < 8:
            return np.int64(TRUNCATED if snapped else HEADER)
        size = (np.int64(data[at + 1]) + 1) * 8
        if kind == 44:
            size = np.int64(8)
            fragment = be16(data, at + 2)
            if fragment & 0xFFF9:  # else an atomic one (RFC 6946): whole
                _piece(ip, at + 8, fragment & 0xFFF8, f)
                if fragment & 0xFFF8:
                    f.protocol = data[at]
                    return np.int64(FRAGMENT)
                snapped = True
        elif kind == _AH:
            size = (np.int64(data[at + 1]) + 2) * 4
        kind = np.int64(data[at])
        at += size
        if at > wire and not snapped:
            return np.int64(HEADER)
        if at > last:
            return np.int64(TRUNCATED)
    f.protocol = np.uint8(kind)
    return _transport(data, at, last, wire, snapped, f)


@kernel
def _ip(data, at, end, wire_end, f):
    """Read an IP packet of either version."""
    version = data[at] >> 4
    if version == 4:
        return _ipv4(data, at, end, wire_end, f)
    if version == 6:
        return _ipv6(data, at, end, wire_end, f)
    return np.int64(HEADER)


@kernel
def _inside(data, f):
    """Go on in what the packet carries, if it is a tunnel's; else, or if no IP packet can be read there,
    leave it as it is.  Returns 0, or FRAGMENT for a later fragment inside."""
    octets = f.octets
    for _ in range(MAX_TUNNELS):
        if not is_tunnel(f):
            return np.int64(0)
        kind, carries, at = opened(data, f)
        if kind == 0:
            return np.int64(0)
        end, wire = f.end, f.wire_end
        if f.protocol == _UDP:
            end, wire = f.payload_at + f.payload, f.payload_at + f.payload_wire
        src_high, src_low, dst_high, dst_low = f.src_high, f.src_low, f.dst_high, f.dst_low
        src_port, dst_port, protocol, vlan = f.src_port, f.dst_port, f.protocol, f.vlan
        outer_end, outer_wire, fragment = f.end, f.wire_end, f.fragment
        payload_at, payload, payload_wire = f.payload_at, f.payload, f.payload_wire
        f.src_port = np.uint16(0)
        f.dst_port = np.uint16(0)
        code = np.int64(HEADER)
        here = walk(data, at, end, carries, f)
        if 0 <= here < end:
            code = _ip(data, here, end, wire, f)
            # What is inside is not longer than what it is in, unless the rest is in other fragments.
            if f.wire_end > wire and fragment == NO_FRAGMENT:
                code = np.int64(HEADER)
        f.octets = octets
        if code == 0 or (code == FRAGMENT and fragment == NO_FRAGMENT):
            if f.tunnel == 0:
                f.tunnel = np.uint8(kind)
                f.tunnel_src_high = src_high
                f.tunnel_src_low = src_low
                f.tunnel_dst_high = dst_high
                f.tunnel_dst_low = dst_low
            if code != 0 or f.protocol == _TCP:
                return code
            continue
        f.src_high, f.src_low, f.dst_high, f.dst_low = src_high, src_low, dst_high, dst_low
        f.src_port, f.dst_port, f.protocol, f.vlan = src_port, dst_port, protocol, vlan
        f.end, f.wire_end, f.fragment = outer_end, outer_wire, fragment
        f.payload_at, f.payload, f.payload_wire = payload_at, payload, payload_wire
        return np.int64(0)
    return np.int64(0)


@kernel
def decode(data, at, captured, length, link, f):
    """Read one frame, data[at : at + captured], of ``length`` octets on the wire.

    Returns 0 and fills ``f``, or returns an index into REFUSALS; ``f`` then holds nothing of use, except
    that of a FRAGMENT it tells addresses and protocol, and where it is.
    """
    end = at + captured
    wire_end = at + max(length, captured)
    f.vlan = np.uint16(NO_VLAN)
    f.tcp = np.uint8(0)
    f.tcp_flags = np.uint16(0)
    f.src_port = np.uint16(0)
    f.dst_port = np.uint16(0)
    f.fragment = np.uint8(NO_FRAGMENT)
    f.tunnel = np.uint8(0)
    f.packets = np.uint32(1)
    here = network_layer(data, at, end, link, f)
    if here < 0:
        if -here == SHORT and end < wire_end:
            return np.int64(TRUNCATED)
        return np.int64(-here)
    if here >= end:
        return np.int64(TRUNCATED if end < wire_end else SHORT)
    version = data[here] >> 4
    if (version == 4 and link == 229) or (version == 6 and link == 228):
        return np.int64(HEADER)
    code = _ip(data, here, end, wire_end, f)
    if code != 0 or f.protocol == _TCP or not is_tunnel(f):
        return code
    return _inside(data, f)


@kernel
def decode_all(data, offset, captured, length, link, out, code):
    """Every frame of a block: ``out`` (n,) FRAME and ``code`` (n,) i8 are filled.  For tests and tools."""
    for i in range(offset.size):
        code[i] = decode(
            data, offset[i], np.int64(captured[i]), np.int64(length[i]), np.int64(link[i]), out[i]
        )


__all__ = [
    "ACK", "FIN", "FIRST", "FRAGMENT", "FRAME", "LATER", "MAX_EXTENSIONS", "MAX_TUNNELS", "NO_FRAGMENT",
    "NO_VLAN", "REFUSALS", "RST", "SYN", "be16", "be32", "be64", "decode", "decode_all",
]  # fmt: skip
