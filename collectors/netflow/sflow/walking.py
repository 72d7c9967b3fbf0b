"""The compiled passes over sFlow: datagrams in, one SAMPLE for each sampled packet out.

``layout`` has it in plain Python and is what these are tested against.  A sampled header is only
found here; whoever reads packets reads it.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.netflow.sequences import FAR_DATAGRAMS, N_DATAGRAMS, N_OCTETS, PER_PROTOCOL, sequence
from collectors.netflow.sflow import layout
from collectors.netflow.walking import u4
from collectors.reading import big

# A datagram's header (i8): where its samples begin and it ends, how many it promises, sub-agent, sequence,
# uptime, why it is refused (0: it is not; else 1 + its place in REFUSALS), and how many packets it may hold.
H_BODY, H_END, H_SAMPLES, H_SUB, H_SEQUENCE, H_UPTIME, H_REFUSED, H_ROOM = range(8)
HEAD: Final = 8
# Counters (i8): as ``sequences`` has them of each protocol, then our own.
(
    N_SAMPLES, N_COUNTERS, N_DISCARDED, N_UNKNOWN, N_SHORT, N_FORMAT, N_BROKEN, N_SAMPLES_LOST, N_POOL,
    N_DROPS, N_SOURCES_FORGOTTEN, N_WITHOUT_LENGTH, N_TOO_LONG,
) = range(PER_PROTOCOL, PER_PROTOCOL + 13)  # fmt: skip
COUNTERS: Final = PER_PROTOCOL + 13
SHORT: Final = 1
FORMAT: Final = 2
# A source of samples (i8): the sequence number that comes next (-1: not known), its pool, its drops and its
# rate as last told.
O_NEXT, O_POOL, O_DROPS, O_RATE = range(4)
SOURCE: Final = 4
UNKNOWN: Final = 255

SAMPLE: Final = np.dtype(
    [
        ("src_high", "u8"), ("src_low", "u8"), ("dst_high", "u8"), ("dst_low", "u8"),
        ("datagram", "i8"),      # its number in the block
        ("header_at", "i8"),     # where the sampled header begins in the data
        ("header", "i8"),        # octets of it; -1: there is none
        ("header_wire", "i8"),   # octets that the frame had
        ("header_protocol", "i8"),
        ("octets", "u8"),        # of the sampled IP packet, where a record says it
        ("rate", "u4"), ("input", "u4"), ("output", "u4"), ("src_as", "u4"), ("dst_as", "u4"),
        ("src_port", "u2"), ("dst_port", "u2"), ("tcp_flags", "u2"), ("vlan", "u2"),
        ("protocol", "u1"), ("tos", "u1"),
        ("ip", "u1"),            # 1: a record says the addresses
        ("has_as", "u1"),
        ("direction", "u1"),     # flowDirection, or UNKNOWN
    ]
)  # fmt: skip

_FLOW: Final = layout.FLOW_SAMPLE
_COUNTER: Final = layout.COUNTER_SAMPLE
_EXPANDED: Final = layout.EXPANDED_FLOW_SAMPLE
_EXPANDED_COUNTER: Final = layout.EXPANDED_COUNTER_SAMPLE
_DISCARDED: Final = layout.DISCARDED_PACKET
_LEAST: Final = np.array([0, *(layout.SAMPLE_BYTES[k] for k in range(1, 6))], np.int64)
_HEADER: Final = layout.HEADER
_IPV4: Final = layout.IPV4
_IPV6: Final = layout.IPV6
_SWITCH: Final = layout.SWITCH
_GATEWAY: Final = layout.GATEWAY
_SINGLE: Final = layout.SINGLE
_INTERNAL: Final = layout.INTERNAL
_NO_VLAN: Final = layout.NO_VLAN
_MAPPED: Final = np.uint64(0xFFFF << 32)
_WORD: Final = 0xFFFFFFFF
# A step forward beyond this is no loss that could be; a step back by so much is a datagram overtaken.
_FAR: Final = 1 << 22
_OVERTAKEN: Final = 4096


@kernel
def is_sflow(data, at, size, out):
    """``out`` (n,) bool: which datagrams say that they are sFlow 5."""
    for i in range(at.size):
        out[i] = size[i] >= 4 and u4(data, at[i]) == 5


@kernel
def heads(data, at, size, out, agents):
    """Read the header of each datagram: ``out`` (n, HEAD) i8, ``agents`` (n, 2) u8, mapped addresses."""
    for i in range(at.size):
        start = at[i]
        h = out[i]
        h[:] = 0
        agents[i, 0] = np.uint64(0)
        agents[i, 1] = np.uint64(0)
        kind = u4(data, start + 4) if size[i] >= 8 else np.int64(0)
        body = start + 8 + (16 if kind == 2 else 4 * kind)
        h[H_END] = start + size[i]
        if kind > 2:
            h[H_REFUSED] = FORMAT
            continue
        if size[i] < 8 or body + 16 > h[H_END]:
            h[H_REFUSED] = SHORT
            continue
        if kind == 1:
            agents[i, 1] = _MAPPED | np.uint64(u4(data, start + 8))
        elif kind == 2:
            agents[i, 0] = big(data, start + 8)
            agents[i, 1] = big(data, start + 16)
        h[H_SUB] = u4(data, body)
        h[H_SEQUENCE] = u4(data, body + 4)
        h[H_UPTIME] = u4(data, body + 8)
        h[H_SAMPLES] = u4(data, body + 12)
        h[H_BODY] = body + 16
        h[H_ROOM] = min(h[H_SAMPLES], (h[H_END] - h[H_BODY]) // 40)


@kernel
def _source(keys, sources, used, key):
    """The place of a source of samples, made where it is new; a table half full begins anew."""
    x = key * np.uint64(0x9E3779B97F4A7C15)
    mask = np.int64(keys.size - 1)
    at = np.int64((x ^ (x >> np.uint64(29))) & np.uint64(mask))
    while keys[at] != key and keys[at] != np.uint64(0):
        at = (at + 1) & mask
    if keys[at] == key:
        return at
    if 2 * used[0] >= keys.size:
        keys[:] = np.uint64(0)
        used[1] += used[0]
        used[0] = 0
        at = np.int64((x ^ (x >> np.uint64(29))) & np.uint64(mask))
    used[0] += 1
    keys[at] = key
    sources[at, O_NEXT] = -1
    return at


@kernel
def _account(source, told, rate, pool, drops, count):
    """Count the samples that a source's sequence lacks, and by how much its pool and its drops grew."""
    expected = source[O_NEXT]
    if expected >= 0:
        ahead = (told - expected) & _WORD
        if ahead > _WORD - _OVERTAKEN:
            return
        if ahead < _FAR:
            count[N_SAMPLES_LOST] += ahead
            by = (drops - source[O_DROPS]) & _WORD
            count[N_DROPS] += by if by < 1 << 31 else 0
            by = (pool - source[O_POOL]) & _WORD
            count[N_POOL] += by if by < 1 << 31 else 0
    source[O_NEXT] = (told + 1) & _WORD
    source[O_POOL] = pool
    source[O_DROPS] = drops
    source[O_RATE] = rate


@kernel
def _interface(kind, value):
    """The ifIndex, 0 where the value names no interface."""
    known = kind == _SINGLE and value not in (_INTERNAL, _WORD)
    return np.uint32(value if known else 0)


@kernel
def _gateway(data, at, end, s):
    """Take AS numbers from an extended gateway record; False where it is cut short."""
    if end - at < 4:
        return False
    kind = u4(data, at)
    if kind > 2:
        return False
    at += 4 + (16 if kind == 2 else 4 * kind)
    if end - at < 16:
        return False
    own = u4(data, at)
    source = u4(data, at + 4)
    segments = u4(data, at + 12)
    last = own
    at += 16
    for _ in range(segments):
        if end - at < 8:
            return False
        count = u4(data, at + 4)
        at += 8 + 4 * count
        if at > end:
            return False
        if count:
            last = u4(data, at - 4)
    s.src_as = np.uint32(source if source else own)
    s.dst_as = np.uint32(last)
    s.has_as = np.uint8(1)
    return True


@kernel
def _addresses(data, at, kind, s):
    """Take what a sampled IPv4 or IPv6 record says."""
    s.ip = np.uint8(1)
    s.octets = np.uint64(u4(data, at))
    s.protocol = np.uint8(u4(data, at + 4) & 0xFF)
    if kind == _IPV4:
        s.src_low = _MAPPED | np.uint64(u4(data, at + 8))
        s.dst_low = _MAPPED | np.uint64(u4(data, at + 12))
        at += 16
    else:
        s.src_high = big(data, at + 8)
        s.src_low = big(data, at + 16)
        s.dst_high = big(data, at + 24)
        s.dst_low = big(data, at + 32)
        at += 40
    s.src_port = np.uint16(u4(data, at) & 0xFFFF)
    s.dst_port = np.uint16(u4(data, at + 4) & 0xFFFF)
    s.tcp_flags = np.uint16(u4(data, at + 8) & 0xFFFF)
    s.tos = np.uint8(u4(data, at + 12) & 0xFF)


@kernel
def _blank(s):
    s.src_high = np.uint64(0)
    s.src_low = np.uint64(0)
    s.dst_high = np.uint64(0)
    s.dst_low = np.uint64(0)
    s.header = np.int64(-1)
    s.header_at = np.int64(0)
    s.header_wire = np.int64(0)
    s.header_protocol = np.int64(0)
    s.octets = np.uint64(0)
    s.src_as = np.uint32(0)
    s.dst_as = np.uint32(0)
    s.src_port = np.uint16(0)
    s.dst_port = np.uint16(0)
    s.tcp_flags = np.uint16(0)
    s.vlan = np.uint16(_NO_VLAN)
    s.protocol = np.uint8(0)
    s.tos = np.uint8(0)
    s.ip = np.uint8(0)
    s.has_as = np.uint8(0)


@kernel
def _record(data, kind, at, end, s):
    """Take one record of a flow sample; 1 where it is broken."""
    size = end - at
    if kind == _HEADER:
        if size < 16:
            return 1
        if s.header >= 0:
            return 0
        octets = u4(data, at + 12)
        if octets > size - 16:
            return 1
        s.header = octets
        s.header_at = at + 16
        s.header_protocol = u4(data, at)
        s.header_wire = max(u4(data, at + 4) - u4(data, at + 8), octets)
    elif kind in (_IPV4, _IPV6):
        if size < (32 if kind == _IPV4 else 56):
            return 1
        if s.ip == 0:
            _addresses(data, at, kind, s)
    elif kind == 2:
        return 1 if size < 24 else 0
    elif kind == _SWITCH:
        if size < 16:
            return 1
        vlan = u4(data, at)
        if s.vlan == _NO_VLAN and 0 < vlan < 0xFFF:
            s.vlan = np.uint16(vlan)
    elif kind == _GATEWAY and s.has_as == 0 and not _gateway(data, at, end, s):
        return 1
    return 0


@kernel
def _records(data, at, end, promised, flow, s):
    """Go through a sample's records, and take them where it is a ``flow``; how many were broken."""
    broken = 0
    for _ in range(promised):
        if end - at < 8:
            return broken + 1
        size = u4(data, at + 4)
        if size > end - at - 8:
            return broken + 1
        if flow:
            broken += _record(data, u4(data, at), at + 8, at + 8 + size, s)
        at += 8 + ((size + 3) & ~3)
    return broken


@kernel
def _flow_sample(data, at, kind, s, count, key, keys, sources, used):
    """The fixed part of a flow sample, of either layout; where its records' number is."""
    told = u4(data, at)
    if kind == _FLOW:
        source = u4(data, at + 4)
        class_, index = source >> 24, source & 0xFFFFFF
        word = u4(data, at + 20)
        in_kind, entered = word >> 30, word & 0x3FFFFFFF
        word = u4(data, at + 24)
        out_kind, left = word >> 30, word & 0x3FFFFFFF
        at += 8
    else:
        class_, index = u4(data, at + 4), u4(data, at + 8)
        in_kind, entered = u4(data, at + 24), u4(data, at + 28)
        out_kind, left = u4(data, at + 32), u4(data, at + 36)
        at += 12
    s.rate = np.uint32(u4(data, at))
    s.input = _interface(in_kind, entered)
    s.output = _interface(out_kind, left)
    s.direction = np.uint8(UNKNOWN)
    if class_ == 0 and index and (s.input == index) != (s.output == index):
        s.direction = np.uint8(s.output == index)
    if key >= 0 and class_ < 4:
        mark = np.uint64(1 << 63) | np.uint64((key << 34) | (class_ << 32) | index)
        place = _source(keys, sources, used, mark)
        _account(sources[place], told, u4(data, at), u4(data, at + 4), u4(data, at + 8), count)


@kernel
def walk(data, heads_, first, last, agent, domains, keys, sources, used, out, size, received, count):
    """Read the samples of datagrams ``first`` up to ``last``; how many of packets were found.

    ``heads_`` as ``heads`` made it; ``agent`` (n,) i8 is each one's row of ``domains`` (domains.DOMAIN), -1
    for one that nobody keeps account of.  ``keys``, ``sources`` and ``used`` (in use, forgotten) are the
    table of sources of samples.  ``out`` SAMPLE has room for the sum of H_ROOM; ``size`` (n,) octets;
    ``received`` (n,) Unix ns.
    """
    n = 0
    for i in range(first, last):
        h = heads_[i]
        if h[H_REFUSED]:
            count[N_SHORT if h[H_REFUSED] == SHORT else N_FORMAT] += 1
            continue
        count[N_DATAGRAMS] += 1
        count[N_OCTETS] += size[i]
        if agent[i] >= 0:
            sequence(
                domains[agent[i]], h[H_SEQUENCE], 1, np.int64(-1), 0, h[H_UPTIME], 0, received[i],
                FAR_DATAGRAMS, count,
            )  # fmt: skip
        at = h[H_BODY]
        end = h[H_END]
        for _ in range(h[H_SAMPLES]):
            if end - at < 8 or u4(data, at + 4) > end - at - 8:
                count[N_BROKEN] += 1
                break
            kind = u4(data, at)
            length = u4(data, at + 4)
            at += 8
            if kind < 1 or kind > 5:
                count[N_UNKNOWN] += 1
            elif length < _LEAST[kind]:
                count[N_BROKEN] += 1
            else:
                flow = kind in (_FLOW, _EXPANDED)
                s = out[n]
                if flow:
                    _blank(s)
                    s.datagram = i
                    _flow_sample(data, at, kind, s, count, agent[i], keys, sources, used)
                    n += 1
                    count[N_SAMPLES] += 1
                elif kind == _DISCARDED:
                    count[N_DISCARDED] += 1
                else:
                    count[N_COUNTERS] += 1
                head = at + _LEAST[kind]
                count[N_BROKEN] += _records(data, head, at + length, u4(data, head - 4), flow, s)
            at += (length + 3) & ~3
    return n
