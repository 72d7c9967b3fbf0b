"""Tunnels over IP: which kind one packet opens, and where what it carries begins.

A packet is a tunnel's only if its header is well formed; one that merely goes to a tunnel's UDP port stays
what it is.  What is inside is judged by ``frames``: unless an IP packet is read there, the tunnel is metered
as itself.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.links import BRIDGED, IPV4, IPV6, MPLS, be16, be32, ppp

# Values of the column ``tunnel``: the IP protocol number where the tunnel has one of its own.
IP_IN_IP: Final = 4
SIX_IN_FOUR: Final = 41  # IPv6 in IPv4, or in IPv6
GRE: Final = 47  # NVGRE and PPTP too
MPLS_IN_IP: Final = 137
VXLAN: Final = 201
VXLAN_GPE: Final = 202
GENEVE: Final = 203
GTP_U: Final = 204
ERSPAN: Final = 205  # types I, II and III
TEREDO: Final = 206

NAMES: Final = {
    IP_IN_IP: "IP-in-IP", SIX_IN_FOUR: "6in4", GRE: "GRE", MPLS_IN_IP: "MPLS-in-IP", VXLAN: "VXLAN",
    VXLAN_GPE: "VXLAN-GPE", GENEVE: "GENEVE", GTP_U: "GTP-U", ERSPAN: "ERSPAN", TEREDO: "Teredo",
}  # fmt: skip

_UDP: Final = 17
# Extension headers of one GTP-U header that are stepped over.
_MAX_GTP_EXTENSIONS: Final = 8
_NONE: Final = (0, 0, 0)


@kernel
def is_tunnel(f):
    """Whether the packet may open a tunnel: a few compares, for everything that is not TCP."""
    if f.protocol == _UDP:
        # VXLAN (RFC 7348; 8472 on old Linux), VXLAN-GPE, GENEVE (RFC 8926), GTP-U, Teredo (RFC 4380).
        port = f.dst_port
        return port in (4789, 8472, 4790, 6081, 2152, 3544) or f.src_port == 3544
    return f.protocol in (IP_IN_IP, SIX_IN_FOUR, GRE, MPLS_IN_IP)


@kernel
def _by_nibble(data, at, end):
    if at >= end:
        return np.int64(0)
    version = data[at] >> 4
    return np.int64(IPV4) if version == 4 else np.int64(IPV6) if version == 6 else np.int64(0)


@kernel
def _gre(data, at, end):
    """GRE (RFC 2784, 2890), with what RFC 7637, 2637 and ERSPAN make of it."""
    if end - at < 4:
        return _NONE
    flags = be16(data, at)
    kind = be16(data, at + 2)
    size = np.int64(4)
    if flags & 7 == 1 and kind == 0x880B:  # PPTP: key always, sequence and acknowledgement at will
        if not flags & 0x2000:
            return _NONE
        size += 4 + (4 if flags & 0x1000 else 0) + (4 if flags & 0x0080 else 0)
        kind, inner = ppp(data, at + size, end)
        return (np.int64(GRE), kind, inner) if kind > 0 else _NONE
    if flags & 0x4FFF:  # routing, or a version that is not 0
        return _NONE
    size += (4 if flags & 0x8000 else 0) + (4 if flags & 0x2000 else 0) + (4 if flags & 0x1000 else 0)
    inner = at + size
    if kind == 0x88BE:
        if not flags & 0x1000:  # type I has no header
            return np.int64(ERSPAN), np.int64(BRIDGED), inner
        if end - inner < 8 or data[inner] >> 4 != 1:
            return _NONE
        return np.int64(ERSPAN), np.int64(BRIDGED), inner + 8
    if kind == 0x22EB:
        if end - inner < 12 or data[inner] >> 4 != 2:
            return _NONE
        carried = (data[inner + 10] >> 2) & 31
        inner += 20 if data[inner + 11] & 1 else 12
        if carried == 2:
            return np.int64(ERSPAN), _by_nibble(data, inner, end), inner
        return np.int64(ERSPAN), np.int64(BRIDGED), inner
    return np.int64(GRE), kind, inner


@kernel
def _vxlan(data, at, end):
    if end - at < 8 or data[at] & 0x08 == 0:
        return _NONE
    return np.int64(VXLAN), np.int64(BRIDGED), at + 8


@kernel
def _vxlan_gpe(data, at, end):
    """draft-ietf-nvo3-vxlan-gpe: the next protocol is told."""
    if end - at < 8 or data[at] & 0x0C != 0x0C or data[at] & 0x30:
        return _NONE
    told = data[at + 3]
    kind = np.int64(0)
    if told == 1:
        kind = np.int64(IPV4)
    elif told == 2:
        kind = np.int64(IPV6)
    elif told == 3:
        kind = np.int64(BRIDGED)
    elif told == 5:
        kind = np.int64(MPLS)
    return np.int64(VXLAN_GPE), kind, at + 8


@kernel
def _geneve(data, at, end):
    if end - at < 8 or data[at] >> 6 or data[at + 1] & 0x80:  # a version that is not 0; a control packet
        return _NONE
    return np.int64(GENEVE), be16(data, at + 2), at + 8 + np.int64(data[at] & 0x3F) * 4


@kernel
def _gtp(data, at, end, wire):
    """GTP-U version 1 (3GPP TS 29.281): a G-PDU carries a packet, all else is signalling."""
    if end - at < 8 or data[at] >> 4 != 3 or data[at + 1] != 255:
        return _NONE
    if at + 8 + be16(data, at + 2) > wire:
        return _NONE
    inner = at + 8
    if data[at] & 7:
        if end - at < 12:
            return _NONE
        inner = at + 12
        following = data[at + 11] if data[at] & 4 else np.uint8(0)
        for _ in range(_MAX_GTP_EXTENSIONS):
            if following == 0:
                break
            if inner >= end or data[inner] == 0:
                return _NONE
            inner += np.int64(data[inner]) * 4
            if inner > end:
                return _NONE
            following = data[inner - 1]
        if following != 0:
            return _NONE
    return np.int64(GTP_U), _by_nibble(data, inner, end), inner


@kernel
def _teredo(data, at, end):
    """RFC 4380 section 5.1.1: authentication, origin, then IPv6 of which one end is in 2001::/32."""
    if end - at >= 4 and be16(data, at) == 1:
        at += 13 + np.int64(data[at + 2]) + np.int64(data[at + 3])
    if end - at >= 8 and be16(data, at) == 0:
        at += 8
    if end - at < 40 or data[at] >> 4 != 6:
        return _NONE
    if be32(data, at + 8) != 0x20010000 and be32(data, at + 24) != 0x20010000:
        return _NONE
    return np.int64(TEREDO), np.int64(IPV6), at


@kernel
def opened(data, f):
    """(kind of tunnel, EtherType of what it carries, its place); zeros where ``f``'s packet is no tunnel's.

    ``f`` holds what ``frames`` read of the packet: protocol, ports, ``body_at``, ``end`` and ``wire_end``.
    """
    end = f.end
    if f.protocol == _UDP:
        at = f.payload_at
        if f.payload == 0:
            return _NONE
        end = at + f.payload
        port = f.dst_port
        if port in (4789, 8472):
            return _vxlan(data, at, end)
        if port == 4790:
            return _vxlan_gpe(data, at, end)
        if port == 6081:
            return _geneve(data, at, end)
        if port == 2152:
            # The first fragment of a packet that says how long the whole is.
            return _gtp(data, at, end, np.int64(1) << 62 if f.fragment else at + f.payload_wire)
        return _teredo(data, at, end)
    at = f.payload_at
    if f.protocol == GRE:
        return _gre(data, at, end)
    if f.protocol == IP_IN_IP:
        return np.int64(IP_IN_IP), np.int64(IPV4), at
    if f.protocol == SIX_IN_FOUR:
        return np.int64(SIX_IN_FOUR), np.int64(IPV6), at
    return np.int64(MPLS_IN_IP), np.int64(MPLS), at
