"""What may stand before an IP header: link layers, tags, label stacks, sessions, frames within frames.

``network_layer`` answers where the IP header of a captured frame is, ``walk`` where that of what an
EtherType announces is.  Both read nothing outside the captured bytes and step over at most MAX_HEADERS
headers, a label stack being one of them.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.jit import within
from collectors.reading import big, big16, big32

NO_VLAN: Final = 0xFFFF
# Headers that ``walk`` steps over, and labels of one stack.
MAX_HEADERS: Final = 16
MAX_LABELS: Final = 16

# Refusals: indices into frames.REFUSALS.
SHORT: Final = 1
TRUNCATED: Final = 2
LINK_TYPE: Final = 3
NOT_IP: Final = 4
HEADER: Final = 5

# EtherTypes.
IPV4: Final = 0x0800
IPV6: Final = 0x86DD
BRIDGED: Final = 0x6558  # Transparent Ethernet Bridging: another Ethernet header (RFC 1701)
MPLS: Final = 0x8847
_MPLS_MULTICAST: Final = 0x8848
_PPPOE: Final = 0x8864  # session stage (RFC 2516)

_ETHERNET: Final = 1
_NULL: Final = 0
_LOOP: Final = 108
_SLL: Final = 113
_SLL2: Final = 276


@within
def be16(data, i):
    """Two bytes, most significant first."""
    return big16(data, np.int64(i))


@within
def be32(data, i):
    """Four bytes, most significant first."""
    return big32(data, np.int64(i))


@within
def be64(data, i):
    """Eight bytes, most significant first, as u8."""
    return big(data, np.int64(i))


@kernel
def _family_is_ip(value):
    # AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24, 28 or 30 on the BSDs and macOS, 23 on Windows.
    return value in (2, 10, 23, 24, 28, 30)


@kernel
def _is_tag(kind):
    return kind in (0x8100, 0x88A8, 0x9100, 0x9200)


@kernel
def _like_ethernet(data, at, end):
    """Do an Ethernet header and something that we read begin here?"""
    if end - at < 15:
        return False
    kind = be16(data, at + 12)
    if kind == IPV4:
        return data[at + 14] >> 4 == 4
    if kind == IPV6:
        return data[at + 14] >> 4 == 6
    return _is_tag(kind) or kind in (MPLS, _MPLS_MULTICAST, _PPPOE)


@kernel
def _like_ipv4(data, at, end):
    """Is this an IPv4 header whose checksum is right (RFC 791 section 3.1)?"""
    head = np.int64(data[at] & 15) * 4
    if head < 20 or end - at < head:
        return False
    total = np.int64(0)
    for i in range(0, head, 2):
        total += be16(data, at + i)
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16) == 0xFFFF


@kernel
def _labels(data, at, end):
    """Step over a label stack (RFC 3032).  Returns (EtherType of what follows or a negative refusal, place).

    Labels do not say what they carry.  IP tells itself by its first nibble (RFC 4928); a pseudowire's frame
    comes after a control word, which begins with a nibble of 0, or without one (RFC 4448), and an address
    in it may begin with any nibble.
    """
    bottom = False
    for _ in range(MAX_LABELS):
        if end - at < 4:
            return np.int64(-SHORT), at
        bottom = data[at + 2] & 1 == 1
        at += 4
        if bottom:
            break
    if not bottom:
        return np.int64(-HEADER), at
    if at >= end:
        return np.int64(-SHORT), at
    nibble = data[at] >> 4
    if nibble == 4 and (_like_ipv4(data, at, end) or not _like_ethernet(data, at, end)):
        return np.int64(IPV4), at
    if nibble == 6 and not _like_ethernet(data, at, end):
        return np.int64(IPV6), at
    if nibble == 0 and _like_ethernet(data, at + 4, end):
        return np.int64(BRIDGED), at + 4
    if _like_ethernet(data, at, end):
        return np.int64(BRIDGED), at
    return np.int64(-NOT_IP), at


@kernel
def ppp(data, at, end):
    """Step over a PPP header (RFC 1661), address and control (RFC 1662) and compressed protocol or not.
    Returns as ``_labels`` does."""
    if end - at >= 2 and be16(data, at) == 0xFF03:
        at += 2
    if end - at < 2:
        return np.int64(-SHORT), at
    kind = np.int64(data[at])
    at += 1
    if kind & 1 == 0:
        kind = (kind << 8) | np.int64(data[at])
        at += 1
    if kind == 0x21:
        return np.int64(IPV4), at
    if kind == 0x57:
        return np.int64(IPV6), at
    if kind == 0x0281:
        return np.int64(MPLS), at
    return np.int64(-NOT_IP), at


@kernel
def walk(data, at, end, kind, f):
    """Index of the IP header in what ``kind`` announces; or, negative, a refusal.  ``f.vlan`` is that of the
    first tag met."""
    for _ in range(MAX_HEADERS):
        if kind in (IPV4, IPV6):
            return at
        if kind == BRIDGED:
            if end - at < 14:
                return np.int64(-SHORT)
            kind = be16(data, at + 12)
            at += 14
        elif _is_tag(kind):
            if end - at < 4:
                return np.int64(-SHORT)
            if f.vlan == NO_VLAN:
                f.vlan = np.uint16(be16(data, at) & 0x0FFF)
            kind = be16(data, at + 2)
            at += 4
        elif kind in (MPLS, _MPLS_MULTICAST):
            kind, at = _labels(data, at, end)
            if kind < 0:
                return kind
        elif kind == _PPPOE:
            if end - at < 8:
                return np.int64(-SHORT)
            if be16(data, at) != 0x1100:
                return np.int64(-NOT_IP)
            kind, at = ppp(data, at + 6, end)
            if kind < 0:
                return kind
        elif kind <= 1500 and end - at >= 8 and be32(data, at) == 0xAAAA0300 and be16(data, at + 4) == 0:
            kind = be16(data, at + 6)  # RFC 1042: 802.2 SNAP
            at += 8
        else:
            return np.int64(-NOT_IP)
    return np.int64(-HEADER)


@kernel
def network_layer(data, at, end, link, f):
    """Index of the IP header of a frame; or, negative, a refusal."""
    if link == _ETHERNET:
        head, where = 14, 12
    elif link in (12, 14, 101, 228, 229):
        return at
    elif link == _SLL:
        head, where = 16, 14
    elif link == _SLL2:
        head, where = 20, 0
    elif link in (_NULL, _LOOP):
        if end - at < 4:
            return np.int64(-SHORT)
        family = be32(data, at)
        # DLT_NULL is in the byte order of the machine that captured; nobody says which.
        other = np.int64(data[at]) | np.int64(data[at + 1]) << 8
        other |= (np.int64(data[at + 2]) << 16) | (np.int64(data[at + 3]) << 24)
        if _family_is_ip(family) or (link == _NULL and _family_is_ip(other)):
            return at + 4
        return np.int64(-NOT_IP)
    else:
        return np.int64(-LINK_TYPE)
    if end - at < head:
        return np.int64(-SHORT)
    kind = be16(data, at + where)
    if kind in (IPV4, IPV6):
        return at + head
    return walk(data, at + head, end, kind, f)
