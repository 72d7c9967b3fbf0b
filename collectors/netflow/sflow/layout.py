"""sFlow version 5 (sflow.org, "sFlow Version 5", July 2004): one datagram in, its samples out.

All is XDR (RFC 4506): integers of four octets, most significant first, and opaque octets padded to a multiple
of four.  What does not fit is counted as broken and ends what it is in; what stands before it stands.
``walking`` is the compiled form of ``decode`` and ``flow``, and is tested against them.
"""

from typing import Final, NamedTuple

from collectors.errors import DecodeError, Reason
from collectors.netflow.messages import u4

# Formats: enterprise << 12 | number; the standard's enterprise is 0.
FLOW_SAMPLE: Final = 1
COUNTER_SAMPLE: Final = 2
EXPANDED_FLOW_SAMPLE: Final = 3
EXPANDED_COUNTER_SAMPLE: Final = 4
DISCARDED_PACKET: Final = 5
HEADER: Final = 1
ETHERNET: Final = 2
IPV4: Final = 3
IPV6: Final = 4
SWITCH: Final = 1001
ROUTER: Final = 1002
GATEWAY: Final = 1003
# Octets before the records of each sample, and of each record that has a fixed layout.
SAMPLE_BYTES: Final = {
    FLOW_SAMPLE: 32,
    COUNTER_SAMPLE: 12,
    EXPANDED_FLOW_SAMPLE: 44,
    EXPANDED_COUNTER_SAMPLE: 16,
    DISCARDED_PACKET: 32,
}
RECORD_BYTES: Final = {HEADER: 16, ETHERNET: 24, IPV4: 32, IPV6: 56, SWITCH: 16}
ADDRESS_BYTES: Final = {0: 0, 1: 4, 2: 16}
# Kinds of interface value: an index, a reason for discarding, a number of interfaces.
SINGLE, DISCARDED, MULTIPLE = range(3)
# An index that names no interface: the device itself sent the packet or got it.
INTERNAL: Final = 0x3FFFFFFF
NO_VLAN: Final = 0xFFFF


class Interface(NamedTuple):
    """Where a packet came in or went out: ``format`` SINGLE, DISCARDED or MULTIPLE."""

    format: int
    value: int

    @property
    def if_index(self) -> int | None:
        """The ifIndex, where it is one that names an interface."""
        known = self.format == SINGLE and self.value not in (0, INTERNAL, 0xFFFFFFFF)
        return self.value if known else None


_NOWHERE: Final = Interface(SINGLE, 0)


class Record(NamedTuple):
    """One record of a sample: its format and octets."""

    format: int
    body: bytes


class Sample(NamedTuple):
    """One sample.  ``source`` is (class, index); class 0 is an ifIndex.  Counter samples have neither rate
    nor interfaces; ``reason`` is of discarded packets."""

    format: int
    sequence: int
    source: tuple[int, int]
    rate: int = 0
    pool: int = 0
    drops: int = 0
    input: Interface = _NOWHERE
    output: Interface = _NOWHERE
    reason: int = 0
    records: tuple[Record, ...] = ()


class Datagram(NamedTuple):
    """``agent`` 4 octets, 16, or none; ``broken`` counts what did not fit."""

    agent: bytes
    sub_agent: int
    sequence: int
    uptime_ms: int
    samples: tuple[Sample, ...]
    broken: int


class Gateway(NamedTuple):
    """AS numbers: the router's own, the source's (0: the router's), its neighbour's, and the path."""

    next_hop: bytes
    own: int
    source: int
    source_peer: int
    path: tuple[int, ...]

    @property
    def src_as(self) -> int:
        """The source's AS."""
        return self.source or self.own

    @property
    def dst_as(self) -> int:
        """The destination's: the last of the path, and the router's own where there is none."""
        return self.path[-1] if self.path else self.own


class Flow(NamedTuple):
    """What the records of a flow sample say of its packet; () and None where they do not.

    ``header`` is (protocol, frame length less what was stripped, octets).  ``ip`` is (src, dst, octets,
    protocol, source port, destination port, TCP flags, type of service).
    """

    header: tuple[int, int, bytes] | None
    ip: tuple[bytes, bytes, int, int, int, int, int, int] | None
    vlan: int
    gateway: Gateway | None
    broken: int


def is_sflow(data: bytes) -> bool:
    """Whether a datagram says that it is sFlow 5: four octets of version, where NetFlow has two."""
    return data[:4] == b"\0\0\0\5"


def decode(data: bytes) -> Datagram:
    """Decode one datagram.  Raises DecodeError, and nothing else, on a bad header."""
    if len(data) < 8:
        raise DecodeError(Reason.SHORT, f"{len(data)} bytes")
    if not is_sflow(data):
        raise DecodeError(Reason.VERSION, f"sFlow version {u4(data, 0)}")
    kind = u4(data, 4)
    if kind not in ADDRESS_BYTES:
        raise DecodeError(Reason.FORMAT, f"agent address of type {kind}")
    at = 8 + ADDRESS_BYTES[kind]
    if len(data) < at + 16:
        raise DecodeError(Reason.SHORT, f"{len(data)} bytes, a header is {at + 16}")
    samples: list[Sample] = []
    # A count of 2**32 costs no more than what is there: what is cut short ends it.
    found, broken = records(data, at + 16, u4(data, at + 12))
    for one in found:
        made, bad = _sample(one)
        broken += bad
        if made is not None:
            samples.append(made)
    return Datagram(data[8:at], u4(data, at), u4(data, at + 4), u4(data, at + 8), tuple(samples), broken)


def records(data: bytes, at: int, count: int) -> tuple[list[Record], int]:
    """Up to ``count`` of (format, length, octets) from ``at`` on; and 1 where there are not so many."""
    found: list[Record] = []
    while len(found) < count:
        if at + 8 > len(data) or at + 8 + u4(data, at + 4) > len(data):
            return found, 1
        size = u4(data, at + 4)
        found.append(Record(u4(data, at), data[at + 8 : at + 8 + size]))
        at += 8 + (size + 3) // 4 * 4
    return found, 0


def _sample(one: Record) -> tuple[Sample | None, int]:
    """A sample, or none where it is too short; and how much was broken."""
    kind, body = one
    if kind not in SAMPLE_BYTES:
        return Sample(kind, 0, (0, 0)), 0
    head = SAMPLE_BYTES[kind]
    if len(body) < head:
        return None, 1
    word = [u4(body, at) for at in range(0, head, 4)]
    found, broken = records(body, head, word[-1])
    more = tuple(found)
    if kind == COUNTER_SAMPLE:
        return Sample(kind, word[0], _source(word[1]), records=more), broken
    if kind == EXPANDED_COUNTER_SAMPLE:
        return Sample(kind, word[0], (word[1], word[2]), records=more), broken
    if kind == DISCARDED_PACKET:
        ends = Interface(SINGLE, word[4]), Interface(SINGLE, word[5])
        return Sample(kind, word[0], (word[1], word[2]), 0, 0, word[3], *ends, word[6], more), broken
    if kind == FLOW_SAMPLE:
        ends = _interface(word[5]), _interface(word[6])
        source, (rate, pool, drops) = _source(word[1]), word[2:5]
    else:
        ends = Interface(word[6], word[7]), Interface(word[8], word[9])
        source, (rate, pool, drops) = (word[1], word[2]), word[3:6]
    return Sample(kind, word[0], source, rate, pool, drops, *ends, 0, more), broken


def _source(word: int) -> tuple[int, int]:
    return word >> 24, word & 0xFFFFFF


def _interface(word: int) -> Interface:
    return Interface(word >> 30, word & 0x3FFFFFFF)


def direction(sample: Sample) -> int | None:
    """flowDirection: 0 where the source is the interface that the packet came in by, 1 where it went out."""
    kind, index = sample.source
    if kind != 0:
        return None
    entered, left = sample.input.if_index == index, sample.output.if_index == index
    return None if entered == left else int(left)


def flow(sample: Sample) -> Flow:
    """What is known of the packet of a flow sample; of records that come twice the first counts."""
    header, ip, vlan, gateway, broken = None, None, NO_VLAN, None, 0
    for kind, body in sample.records:
        if len(body) < RECORD_BYTES.get(kind, 0):
            broken += 1
        elif kind == HEADER and header is None:
            size = u4(body, 12)
            if size > len(body) - 16:
                broken += 1
            else:
                header = (u4(body, 0), max(u4(body, 4) - u4(body, 8), size), body[16 : 16 + size])
        elif kind in (IPV4, IPV6) and ip is None:
            ip = _ip(body, 4 if kind == IPV4 else 16)
        elif kind == SWITCH and vlan == NO_VLAN and 0 < u4(body, 0) < 0xFFF:
            vlan = u4(body, 0)
        elif kind == GATEWAY and gateway is None:
            gateway = read_gateway(body)
            broken += gateway is None
    return Flow(header, ip, vlan, gateway, broken)


def _ip(body: bytes, size: int) -> tuple[bytes, bytes, int, int, int, int, int, int]:
    ports, flags, service = 8 + 2 * size, 16 + 2 * size, 20 + 2 * size
    return (
        body[8 : 8 + size], body[8 + size : ports], u4(body, 0), u4(body, 4) & 0xFF,
        u4(body, ports) & 0xFFFF, u4(body, ports + 4) & 0xFFFF, u4(body, flags) & 0xFFFF,
        u4(body, service) & 0xFF,
    )  # fmt: skip


def read_gateway(body: bytes) -> Gateway | None:
    """An extended gateway record up to its AS path; None where it is cut short."""
    size = ADDRESS_BYTES.get(u4(body, 0), -1) if len(body) >= 4 else -1
    at = 4 + size
    if size < 0 or at + 16 > len(body):
        return None
    own, source, peer, segments = (u4(body, at + 4 * i) for i in range(4))
    path: list[int] = []
    at += 16
    for _ in range(segments):
        if at + 8 > len(body) or at + 8 + 4 * u4(body, at + 4) > len(body):
            return None
        count = u4(body, at + 4)
        path += [u4(body, at + 8 + 4 * i) for i in range(count)]
        at += 8 + 4 * count
    return Gateway(body[4 : 4 + size], own, source, peer, tuple(path))
