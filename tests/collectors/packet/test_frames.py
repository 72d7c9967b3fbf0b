"""scapy's reading of the same bytes is the twin."""

import logging
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import DecodeError, Reason
from collectors.packet import frames, pcapfile

logging.getLogger("scapy").setLevel(logging.CRITICAL)
from scapy.layers import inet, inet6, l2  # noqa: E402
from scapy.packet import Padding, Raw  # noqa: E402

CAPTURES = Path("/work/shared/captures/packets")
FILES = sorted(CAPTURES.glob("*/*.pcap*")) if CAPTURES.is_dir() else []
LINK = {
    1: l2.Ether, 113: l2.CookedLinux, 276: l2.CookedLinuxV2, 228: inet.IP, 229: inet6.IPv6,
    12: None, 14: None, 101: None,
}  # fmt: skip
BELOW_IP = (
    l2.Ether, l2.Dot3, l2.LLC, l2.SNAP, l2.Dot1Q, l2.Dot1AD, l2.CookedLinux, l2.CookedLinuxV2,
)  # fmt: skip
EXTENSIONS = (
    inet6.IPv6ExtHdrHopByHop, inet6.IPv6ExtHdrRouting, inet6.IPv6ExtHdrDestOpt, inet6.IPv6ExtHdrFragment,
    inet6.IPv6ExtHdrSegmentRouting,
)  # fmt: skip


def decode(blocks):
    """(reason or None, FRAME record, payload) of each frame."""
    for b in blocks:
        out = np.zeros(b.offset.size, frames.FRAME)
        code = np.zeros(b.offset.size, np.int64)
        frames.decode_all(*b.columns[:4], b.link, out, code)
        for f, c in zip(out, code, strict=True):
            at = int(f["payload_at"])
            yield frames.REFUSALS[c], f, b.data[at : at + int(f["payload"])].tobytes() if not c else b""


def one(make, raw, link=101, length=None):
    return next(decode(make.read(make.pcap([(0, raw, length or len(raw))], link=link))))


def name(text):
    a = ip_address(text)
    return str(getattr(a, "ipv4_mapped", None) or a)


def address(high, low):
    return name(str(IPv6Address((int(high) << 64) | int(low))))


def plain(raw, link):
    """What scapy says: (source, destination, protocol, octets, ports, seq, ack, flags, payload); or None."""
    if link in (0, 108):  # scapy knows the family in one byte order only
        if not {raw[0], raw[3]} & {2, 10, 23, 24, 28, 30}:
            return None
        raw, link = raw[4:], 101
    kind = LINK.get(link, Raw)
    if kind is None:
        kind = inet6.IPv6 if raw[:1] and raw[0] >> 4 == 6 else inet.IP
    layer = kind(raw)
    while isinstance(layer, BELOW_IP):
        layer = layer.payload
    if isinstance(layer, inet.IP):
        if layer.version != 4 or layer.frag:
            return None
        protocol, octets = layer.proto, layer.len or len(layer.original)
    elif isinstance(layer, inet6.IPv6):
        octets = 40 + layer.plen
        protocol = layer.nh
    else:
        return None
    src, dst, version = layer.src, layer.dst, layer.version
    if isinstance(layer, inet6.IPv6):
        while isinstance(layer.payload, EXTENSIONS):
            layer = layer.payload
            protocol = layer.nh
            if isinstance(layer, inet6.IPv6ExtHdrFragment) and layer.offset:
                return None
    up = layer.payload
    if protocol == 51 and version == 6:  # scapy reads no AH without its ipsec module
        protocol = up.original[0]
    data = b"" if isinstance(up.payload, Padding) else up.payload.original
    if isinstance(up, inet.TCP) and protocol == 6:
        rest = (up.sport, up.dport, up.seq, up.ack, int(up.flags), data)
    elif isinstance(up, inet.UDP) and protocol == 17:
        rest = (up.sport, up.dport, 0, 0, 0, data)
    else:
        rest = None
    return name(src), name(dst), protocol, octets, rest


def agree(reason, f, payload, raw, link):
    said = plain(raw, link)
    if reason is not None:
        return said is None
    src, dst, protocol, octets, rest = said
    assert address(f["src_high"], f["src_low"]) == src
    assert address(f["dst_high"], f["dst_low"]) == dst
    assert f["protocol"] == protocol
    assert f["octets"] == octets
    if rest is None:
        assert f["src_port"] == f["dst_port"] == 0
        return True
    assert (f["src_port"], f["dst_port"]) == rest[:2]
    if protocol == 6:
        assert (f["seq"], f["ack"], f["tcp_flags"] & 0xFF) == (*rest[2:4], rest[4] & 0xFF)
    assert payload == rest[5]
    return True


# What scapy reads further than we do, or less strictly; each was looked at by hand.
STRICTER = {Reason.HEADER, Reason.TRANSPORT, Reason.SHORT, Reason.TRUNCATED}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_frame_of_every_capture_is_read_as_scapy_reads_it(path):
    try:
        with path.open("rb") as file:
            blocks = list(pcapfile.blocks(file))
    except DecodeError:
        pytest.skip("no capture")
    raws = [
        (b.data[o : o + c].tobytes(), int(n))
        for b in blocks
        for o, c, n in zip(b.offset, b.captured, b.link, strict=True)
    ]
    step = max(1, len(raws) // 400)  # scapy takes half a millisecond a frame
    for (reason, f, payload), (raw, link) in list(zip(decode(blocks), raws, strict=True))[::step]:
        assert agree(reason, f, payload, raw, link) or reason in STRICTER, (reason, raw.hex())


PAYLOAD = st.binary(max_size=60)
PORT = st.integers(1, 65535)
V4 = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4))
V6 = st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))


@st.composite
def packets(draw, version=None):
    """An IP packet, with options or extension headers, under TCP, UDP or something else."""
    data = Raw(draw(PAYLOAD))
    ports = {"sport": draw(PORT), "dport": draw(PORT)}
    kind = draw(st.sampled_from(["tcp", "udp", "gre"]))
    if kind == "tcp":
        options = draw(st.sampled_from([[], [("MSS", 1460)], [("Timestamp", (1, 2)), ("NOP", None)]]))
        seq, ack = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**32 - 1))
        up = inet.TCP(**ports, seq=seq, ack=ack, flags=draw(st.integers(0, 255)), options=options) / data
    elif kind == "udp":
        up = inet.UDP(**ports) / data
    else:
        up = l2.GRE() / data
    protocol = {"tcp": 6, "udp": 17, "gre": 47}[kind]
    if (version or draw(st.sampled_from([4, 6]))) == 4:
        src, dst = draw(V4)
        options = draw(st.sampled_from([[], [inet.IPOption_Router_Alert()], [inet.IPOption_NOP()] * 5]))
        return inet.IP(src=str(src), dst=str(dst), proto=protocol, options=options) / up
    src, dst = draw(V6)
    packet = inet6.IPv6(src=str(src), dst=str(dst))
    for extension in draw(st.lists(st.sampled_from(EXTENSIONS[:4]), max_size=3, unique=True)):
        packet /= extension()
    return packet / up


def dress(packet, link, tags, padding):
    """The packet under a link layer, as bytes."""
    kind = 0x86DD if packet.version == 6 else 0x0800
    if link == 1:
        head = l2.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        for tpid in tags:
            head.lastlayer().type = tpid
            head /= l2.Dot1Q(vlan=7) if tpid != 0x88A8 else l2.Dot1AD(vlan=7)
        head.lastlayer().type = kind
        return bytes(head) + bytes(packet) + padding
    if link == 113:
        return bytes(l2.CookedLinux(proto=kind)) + bytes(packet)
    if link == 276:
        return bytes(l2.CookedLinuxV2(proto=kind)) + bytes(packet)
    if link in (0, 108):
        family = 30 if packet.version == 6 else 2
        return family.to_bytes(4, "big" if link == 108 or padding else "little") + bytes(packet)
    return bytes(packet)


@given(
    packets(),
    st.sampled_from([1, 113, 276, 12, 14, 101, 0, 108]),
    st.lists(st.sampled_from([0x8100, 0x88A8]), max_size=3),
    st.sampled_from([b"", bytes(18)]),
)
def test_made_packets_of_every_link_type_are_read_as_scapy_reads_them(make, packet, link, tags, padding):
    raw = dress(packet, link, tags, padding)
    reason, f, payload = one(make, raw, link)
    assert reason is None
    assert agree(reason, f, payload, bytes(packet), 101)
    assert f["vlan"] == (7 if link == 1 and tags else frames.NO_VLAN)


def test_a_double_tag_of_the_old_number_is_read(make):
    raw = (
        bytes(12)
        + bytes.fromhex("9100 0005 8100 0006 0800")
        + make.udp(("1.2.3.4", 5), ("6.7.8.9", 10), b"x")
    )
    reason, f, payload = one(make, raw, 1)
    assert (reason, f["vlan"], payload) == (None, 5, b"x")


def test_ip_over_snap_is_read(make):
    raw = (
        bytes(12) + bytes.fromhex("0030 aaaa03000000 0800") + make.udp(("1.2.3.4", 5), ("6.7.8.9", 10), b"x")
    )
    assert one(make, raw, 1)[0] is None


def test_an_authentication_header_is_stepped_over(make):
    udp = make.udp(("1.2.3.4", 5), ("6.7.8.9", 10), b"x")[20:]
    head = bytes.fromhex("60000000") + (16 + len(udp)).to_bytes(2, "big") + b"\x33\x40" + bytes(32)
    reason, f, payload = one(make, head + bytes.fromhex("11020000") + bytes(12) + udp)
    assert (reason, f["protocol"], f["src_port"], payload) == (None, 17, 5, b"x")


def test_a_length_of_zero_is_an_offload_and_the_frame_tells(make):
    raw = bytearray(make.tcp(("1.2.3.4", 5), ("6.7.8.9", 10), data=b"x" * 90))
    raw[2:4] = b"\0\0"
    reason, f, payload = one(make, bytes(raw))
    assert (reason, f["octets"], payload) == (None, 130, b"x" * 90)


@pytest.mark.parametrize(
    ("raw", "link", "reason"),
    [
        (b"", 1, Reason.SHORT),
        (bytes(13), 1, Reason.SHORT),
        (bytes(60), 1, Reason.NOT_IP),
        (bytes(60), 147, Reason.LINK_TYPE),
        (bytes(60), 101, Reason.HEADER),
        (bytes.fromhex("4300001400000000400600007f0000017f000001"), 101, Reason.HEADER),
        (bytes.fromhex("4500001000000000400600007f0000017f000001"), 101, Reason.HEADER),
        (bytes.fromhex("4500001400000000400600007f0000017f000001"), 101, Reason.TRANSPORT),
        (bytes.fromhex("4500002800000100400600007f0000017f000001") + bytes(20), 101, Reason.FRAGMENT),
        (bytes.fromhex("4500002800000000400600007f0000017f000001") + bytes(20), 101, Reason.TRANSPORT),
        (bytes.fromhex("6000000000000040") + bytes(40), 229, Reason.HEADER),
    ],
)
def test_each_refusal_has_its_reason(make, raw, link, reason):
    assert one(make, raw, link)[0] is reason


@given(packets(), st.integers(0, 200))
def test_a_frame_cut_by_the_snap_length_is_judged_by_what_is_there(make, packet, kept):
    raw = bytes(packet)
    whole = one(make, raw)
    reason, f, payload = one(make, raw[:kept], length=len(raw))
    if reason is not None:
        assert reason is Reason.TRUNCATED
        assert kept < len(raw)
    else:
        assert f["octets"] == whole[1]["octets"]
        assert (f["src_port"], f["dst_port"]) == (whole[1]["src_port"], whole[1]["dst_port"])
        assert whole[2].startswith(payload)


@given(
    st.binary(max_size=200) | packets().map(bytes),
    st.sampled_from([0, 1, 12, 101, 108, 113, 228, 229, 276, 9, 65535]),
    st.integers(0, 3000),
    st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=4),
)
def test_any_bytes_decode_or_are_refused(make, raw, link, length, flips):
    raw = bytearray(raw)
    for at, byte in flips:
        if at < len(raw):
            raw[at] = byte
    block = make.read(make.pcap([(0, bytes(raw), length)], link=link))[0]
    reason, f, _ = next(decode([block]))
    start, end = int(block.offset[0]), int(block.offset[0]) + len(raw)
    if reason is None:
        assert f["octets"] > 0
        assert f["payload"] <= f["payload_wire"] or f["payload"] == 0
        assert f["payload"] == 0 or start <= f["payload_at"] <= f["payload_at"] + f["payload"] <= end
