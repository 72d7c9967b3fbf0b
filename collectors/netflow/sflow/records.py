"""sFlow for people: the samples of a datagram in, every field by name out.

What an information element says is called by its name; what only sFlow has begins with ``sFlow``, and
counters are called as in the MIBs from which sFlow took them.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np

from collectors.netflow.messages import u4
from collectors.netflow.sflow import layout
from collectors.netflow.sflow.layout import Datagram, Flow, Record, Sample
from collectors.netflow.sflow.rows import Frames
from collectors.netflow.values import rfc3339
from collectors.reading import PADDING

_TYPES: Final = {
    layout.FLOW_SAMPLE: "flow",
    layout.COUNTER_SAMPLE: "counter",
    layout.EXPANDED_FLOW_SAMPLE: "flow",
    layout.EXPANDED_COUNTER_SAMPLE: "counter",
    layout.DISCARDED_PACKET: "discardedPacket",
}
_FORMATS: Final = {layout.DISCARDED: "discarded", layout.MULTIPLE: "multiple"}
# Counter structures: names and octets.  Generic interface (RFC 2233), Ethernet (RFC 2358), VLAN, processor,
# and the port's number and name.
COUNTERS: Final[dict[int, tuple[tuple[str, int], ...]]] = {
    1: (
        ("ifIndex", 4), ("ifType", 4), ("ifSpeed", 8), ("ifDirection", 4), ("ifStatus", 4),
        ("ifInOctets", 8), ("ifInUcastPkts", 4), ("ifInMulticastPkts", 4), ("ifInBroadcastPkts", 4),
        ("ifInDiscards", 4), ("ifInErrors", 4), ("ifInUnknownProtos", 4), ("ifOutOctets", 8),
        ("ifOutUcastPkts", 4), ("ifOutMulticastPkts", 4), ("ifOutBroadcastPkts", 4), ("ifOutDiscards", 4),
        ("ifOutErrors", 4), ("ifPromiscuousMode", 4),
    ),
    2: tuple(
        (f"dot3Stats{name}", 4)
        for name in (
            "AlignmentErrors", "FCSErrors", "SingleCollisionFrames", "MultipleCollisionFrames",
            "SQETestErrors", "DeferredTransmissions", "LateCollisions", "ExcessiveCollisions",
            "InternalMacTransmitErrors", "CarrierSenseErrors", "FrameTooLongs", "InternalMacReceiveErrors",
            "SymbolErrors",
        )
    ),
    5: (
        ("vlanId", 4), ("sFlowVlanOctets", 8), ("sFlowVlanUcastPkts", 4), ("sFlowVlanMulticastPkts", 4),
        ("sFlowVlanBroadcastPkts", 4), ("sFlowVlanDiscards", 4),
    ),
    1001: (
        ("sFlowCpu5s", 4), ("sFlowCpu1m", 4), ("sFlowCpu5m", 4), ("sFlowTotalMemory", 8),
        ("sFlowFreeMemory", 8),
    ),
    1004: (("sFlowOpenFlowDatapathId", 8), ("sFlowOpenFlowPort", 4)),
}  # fmt: skip
_PORT_NAME: Final = 1005


def named(data: bytes, frames: Frames, exporter: bytes, t_ns: int) -> tuple[list[dict[str, Any]], int]:
    """A row for every sample of a datagram, and how much of it was broken.

    ``frames`` reads sampled headers.  Raises DecodeError, and nothing else, on a bad header.
    """
    told = layout.decode(data)
    context = _context(told, exporter, t_ns)
    flows = [layout.flow(s) if _TYPES.get(s.format) == "flow" else None for s in told.samples]
    decoded = _decoded(flows, frames)
    made = []
    for sample, flow in zip(told.samples, flows, strict=True):
        row = context | _sampled(sample)
        if flow is not None:
            row |= _flow(sample, flow)
            if flow.header is not None:
                row |= next(decoded)
        else:
            for one in sample.records:
                row |= _counters(one)
        made.append(row)
    return made, told.broken + sum(f.broken for f in flows if f)


def address(raw: bytes) -> str:
    """An address of 4 or 16 octets as text; a mapped one as IPv4."""
    if len(raw) == 4:
        return str(IPv4Address(raw))
    six = IPv6Address(raw)
    return str(six.ipv4_mapped or six)


def _addressed(stem: str, raw: bytes) -> dict[str, Any]:
    """``stem`` with IPv4 or IPv6 in place of its ``*``; nothing for no address."""
    if not raw:
        return {}
    text = address(raw)
    return {stem.replace("*", "IPv6" if ":" in text else "IPv4"): text}


def _context(told: Datagram, exporter: bytes, t_ns: int) -> dict[str, Any]:
    return {
        "sFlowVersion": 5,
        **_addressed("exporter*Address", exporter),
        **_addressed("sFlowAgent*Address", told.agent),
        "sFlowSubAgentId": told.sub_agent,
        "sFlowSequenceNumber": told.sequence,
        "sFlowUptimeMilliseconds": told.uptime_ms,
        "collectionTimeMilliseconds": rfc3339(t_ns, 3),
    }


def _sampled(sample: Sample) -> dict[str, Any]:
    kind = _TYPES.get(sample.format)
    if kind is None:
        return {"sFlowSampleType": f"{sample.format >> 12}:{sample.format & 0xFFF}"}
    row: dict[str, Any] = {
        "sFlowSampleType": kind,
        "sFlowSampleSequenceNumber": sample.sequence,
        "sFlowSourceIdType": sample.source[0],
        "sFlowSourceIdIndex": sample.source[1],
    }
    if kind == "counter":
        return row
    if kind == "flow":
        row |= {"samplingInterval": sample.rate, "sFlowSamplePool": sample.pool}
    else:
        row["sFlowDiscardReason"] = sample.reason
    row["sFlowDrops"] = sample.drops
    for end, name, which in (
        (sample.input, "ingressInterface", "sFlowInput"),
        (sample.output, "egressInterface", "sFlowOutput"),
    ):
        if end.format in _FORMATS:
            row |= {f"{which}Format": _FORMATS[end.format], f"{which}Value": end.value}
        else:
            row[name] = end.value
    side = layout.direction(sample)
    return row if side is None else row | {"flowDirection": side}


def _flow(sample: Sample, flow: Flow) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if flow.ip is not None:
        src, dst, octets, protocol, sport, dport, flags, tos = flow.ip
        row |= _ends(src, dst, sport, dport, protocol, octets)
        row["ipClassOfService"] = tos
        if protocol == 6:
            row["tcpControlBits"] = flags
    if flow.header is not None:
        row |= {"sFlowHeaderProtocol": flow.header[0], "dataLinkFrameSize": flow.header[1]}
    row |= {} if flow.vlan == layout.NO_VLAN else {"vlanId": flow.vlan}
    for one in sample.records:
        row |= _extended(one)
    if flow.gateway is not None:
        row |= {
            **_addressed("bgpNextHop*Address", flow.gateway.next_hop),
            "bgpSourceAsNumber": flow.gateway.src_as,
            "bgpDestinationAsNumber": flow.gateway.dst_as,
            "sFlowRouterAsNumber": flow.gateway.own,
            "sFlowSourcePeerAsNumber": flow.gateway.source_peer,
            "sFlowAsPath": list(flow.gateway.path),
        }
    return row


def _ends(src: bytes, dst: bytes, sport: int, dport: int, protocol: int, octets: int) -> dict[str, Any]:
    return {
        **_addressed("source*Address", src),
        **_addressed("destination*Address", dst),
        "sourceTransportPort": sport,
        "destinationTransportPort": dport,
        "protocolIdentifier": protocol,
        "octetDeltaCount": octets,
        "packetDeltaCount": 1,
    }


def _extended(one: Record) -> dict[str, Any]:
    """Records beside those that ``layout.flow`` reads: MACs, the other VLAN, the next hop."""
    kind, body = one
    if kind == layout.ETHERNET and len(body) >= 24:
        return {
            "sourceMacAddress": body[4:10].hex(":"),
            "destinationMacAddress": body[12:18].hex(":"),
            "ethernetType": u4(body, 20),
        }
    if kind == layout.SWITCH and len(body) >= 16:
        return {
            "dot1qPriority": u4(body, 4),
            "postVlanId": u4(body, 8),
            "sFlowPostPriority": u4(body, 12),
        }
    if kind == layout.ROUTER and len(body) >= 4:
        size = layout.ADDRESS_BYTES.get(u4(body, 0), -1)
        if size >= 0 and len(body) >= 12 + size:
            family = "IPv6" if size == 16 else "IPv4"
            return {
                **_addressed("ipNextHop*Address", body[4 : 4 + size]),
                f"source{family}PrefixLength": u4(body, 4 + size),
                f"destination{family}PrefixLength": u4(body, 8 + size),
            }
    return {}


def _counters(one: Record) -> dict[str, Any]:
    layout = COUNTERS.get(one.format)
    if layout and len(one.body) >= sum(size for _, size in layout):
        at, row = 0, {}
        for name, size in layout:
            row[name] = int.from_bytes(one.body[at : at + size], "big")
            at += size
        return row
    if one.format == _PORT_NAME and len(one.body) >= 4:
        size = u4(one.body, 0)
        return {"interfaceName": one.body[4 : 4 + size].rstrip(b"\0").decode("utf-8", "replace")}
    return {}


def _decoded(flows: list[Flow | None], frames: Frames) -> Iterator[dict[str, Any]]:
    """What the sampled headers say, in order."""
    headers = [f.header for f in flows if f is not None and f.header is not None]
    size = np.array([len(octets) for _, _, octets in headers], np.int64)
    wire = np.array([length for _, length, _ in headers], np.int64)
    protocol = np.array([told for told, _, _ in headers], np.int64)
    at = np.cumsum(size) - size
    data = np.frombuffer(bytearray().join([*(h[2] for h in headers), bytes(PADDING)]), np.uint8)
    told = frames(data, at, size, wire, protocol)
    for i, (link, _, octets) in enumerate(headers):
        row: dict[str, Any] = {}
        if link == 1 and len(octets) >= 14:
            row = {"destinationMacAddress": octets[:6].hex(":"), "sourceMacAddress": octets[6:12].hex(":")}
        if told.read[i]:
            row |= _read(told.columns, i)
        yield row


def _read(told: Any, i: int) -> dict[str, Any]:
    row = _ends(
        told["src"][i].tobytes(), told["dst"][i].tobytes(), int(told["src_port"][i]),
        int(told["dst_port"][i]), int(told["protocol"][i]), int(told["bytes"][i]),
    )  # fmt: skip
    for column, name in (("tcp_flags", "tcpControlBits"), ("vlan", "vlanId")):
        values, valid = told[column]
        if valid[i]:
            row[name] = int(values[i])
    if "tunnel" in told and told["tunnel"][1][i]:
        row["sFlowTunnel"] = int(told["tunnel"][0][i])
        for end, name in (("tunnel_src", "Source"), ("tunnel_dst", "Destination")):
            row |= _addressed(f"sFlowTunnel{name}*Address", told[end][0][i].tobytes())
    return row
