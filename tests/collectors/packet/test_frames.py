"""scapy's reading of the same bytes is the twin."""

import logging
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import DecodeError, Reason
from collectors.packet import frames, pcapfile, tunnels

logging.getLogger("scapy").setLevel(logging.CRITICAL)
from scapy.contrib import erspan, geneve, gtp, mpls  # noqa: E402
from scapy.layers import inet, inet6, l2, ppp, vxlan  # noqa: E402
from scapy.packet import Padding, Raw  # noqa: E402

CAPTURES = Path("/work/shared/captures/packets")
FILES = sorted(CAPTURES.glob("*/*.pcap*")) if CAPTURES.is_dir() else []
LINK = {
    1: l2.Ether, 113: l2.CookedLinux, 276: l2.CookedLinuxV2, 228: inet.IP, 229: inet6.IPv6,
    12: None, 14: None, 101: None,
}  # fmt: skip
BELOW_IP = (
    l2.Ether, l2.Dot3, l2.LLC, l2.SNAP, l2.Dot1Q, l2.Dot1AD, l2.CookedLinux, l2.CookedLinuxV2,
    mpls.MPLS, mpls.EoMCW, ppp.PPPoE, ppp.PPP,
)  # fmt: skip
PORTS = {vxlan.VXLAN: (4789, 8472), geneve.GENEVE: (6081,), gtp.GTPHeader: (2152,)}
OVER_IP = (
    *BELOW_IP, ppp.HDLC, vxlan.VXLAN, geneve.GENEVE, l2.GRE,
    erspan.ERSPAN_I, erspan.ERSPAN_II, erspan.ERSPAN_III, erspan.ERSPAN_PlatformSpecific,
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
    read = packet(layer)
    outermost = read
    for _ in range(frames.MAX_TUNNELS):
        inner = carried(read)
        if inner is None or (further := packet(inner)) is None:
            break
        read = further
    return read and (*read[:3], outermost[3], read[4])


def behind_gtp(raw):
    """By hand: scapy knows only some extension headers."""
    at, following = (12, raw[11] if raw[0] & 4 else 0) if raw[0] & 7 else (8, 0)
    while following:
        at += raw[at] * 4
        following = raw[at - 1]
    return {4: inet.IP, 6: inet6.IPv6}.get(raw[at] >> 4, lambda _: None)(raw[at:])


ABOVE_IP = {4: inet.IP, 6: inet.TCP, 17: inet.UDP, 41: inet6.IPv6, 47: l2.GRE}


def carried(read):
    """The IP layer in a tunnel, or None."""
    if read is None or read[5] is None:
        return None
    up, protocol = read[5], read[2]
    if isinstance(up, inet.UDP):
        wanted = [kind for kind, ports in PORTS.items() if isinstance(up.payload, kind) and up.dport in ports]
        if protocol != 17 or not wanted:
            return None
        up = up.payload
        if isinstance(up, gtp.GTPHeader):
            return behind_gtp(up.original) if up.gtp_type == 255 else None
    elif protocol not in (4, 41, 47, 137):
        return None
    while isinstance(up, OVER_IP):
        up = up.payload
    return up if isinstance(up, inet.IP | inet6.IPv6) else None


def packet(layer):
    """(source, destination, protocol, octets, ports and payload, the layer above) of one IP packet."""
    if isinstance(layer, inet.IP):
        if layer.version != 4 or layer.frag:
            return None
        protocol, octets = layer.proto, layer.len or len(layer.original)
    elif isinstance(layer, inet6.IPv6):
        octets = 40 + layer.plen
        protocol = layer.nh
    else:
        return None
    src, dst = layer.src, layer.dst
    if isinstance(layer, inet6.IPv6):
        while isinstance(layer.payload, EXTENSIONS):
            layer = layer.payload
            protocol = layer.nh
            if isinstance(layer, inet6.IPv6ExtHdrFragment) and layer.offset:
                return None
    up = layer.payload
    if protocol == 51:  # scapy reads no AH without its ipsec module
        protocol, rest = up.original[0], up.original[(up.original[1] + 2) * 4 :]
        up = ABOVE_IP.get(protocol, Raw)(rest)
    data = b"" if isinstance(up.payload, Padding) else up.payload.original
    if isinstance(up, inet.TCP) and protocol == 6:
        rest = (up.sport, up.dport, up.seq, up.ack, int(up.flags), data)
    elif isinstance(up, inet.UDP) and protocol == 17:
        rest = (up.sport, up.dport, 0, 0, 0, data)
    else:
        rest = None
    return name(src), name(dst), protocol, octets, rest, up


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


ETHER = l2.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
# MAC addresses that look like IP, or like a control word, behind a label stack.
ODD = [l2.Ether(src="02:00:00:00:00:01", dst=dst) for dst in ("45:00:00:1c:00:00", "60:00:00:00:00:02")]


def over_udp(port, head):
    return inet.UDP(sport=50000, dport=port) / head


def framed(draw, inner):
    return draw(st.sampled_from([ETHER, ETHER / l2.Dot1Q(vlan=9), *ODD])) / inner


@st.composite
def carriers(draw, inner):
    """(kind of tunnel, what goes between an outer IP header and the inner packet, that included)."""
    six = inner.version == 6
    ether = 0x86DD if six else 0x0800
    kind = draw(st.sampled_from(sorted(tunnels.NAMES)))
    key = draw(
        st.sampled_from([{}, {"key_present": 1, "key": 7}, {"chksum_present": 1, "seqnum_present": 1}])
    )
    if kind in (tunnels.IP_IN_IP, tunnels.SIX_IN_FOUR):
        return (tunnels.SIX_IN_FOUR if six else tunnels.IP_IN_IP), inner
    if kind == tunnels.GRE:
        if draw(st.booleans()):
            return kind, l2.GRE(proto=ether, **key) / inner
        return kind, l2.GRE(proto=0x6558, **key) / framed(draw, inner)
    if kind == tunnels.MPLS_IN_IP:
        return kind, mpls.MPLS(label=17, s=0) / mpls.MPLS(label=3, s=1) / inner
    if kind == tunnels.VXLAN:
        port = draw(st.sampled_from([4789, 8472]))
        return kind, over_udp(port, vxlan.VXLAN(vni=5, flags="Instance")) / framed(draw, inner)
    if kind == tunnels.VXLAN_GPE:
        head = bytes([0x0C, 0, 0, 2 if six else 1, 0, 0, 5, 0])
        return kind, over_udp(4790, Raw(head)) / inner
    if kind == tunnels.GENEVE:
        options = draw(st.sampled_from([b"", bytes(4), bytes(60)]))
        head = bytes([len(options) // 4, 0]) + b"\x65\x58" + bytes(4) + options
        return kind, over_udp(6081, Raw(head)) / framed(draw, inner)
    if kind == tunnels.GTP_U:
        extra = draw(st.sampled_from([b"", bytes(4), b"\0\0\0\xc0\x01\x12\x34\x85\x01\x10\x09\0"]))
        flags = 0x30 | (0x04 if len(extra) > 4 else 0x02 if extra else 0)
        head = bytes([flags, 255]) + (len(extra) + len(bytes(inner))).to_bytes(2, "big") + bytes(4) + extra
        return kind, over_udp(2152, Raw(head)) / inner
    if kind == tunnels.TEREDO:
        if not six:
            return tunnels.IP_IN_IP, inner
        inner.dst = "2001:0:1234::5"
        first = draw(st.sampled_from([b"", bytes(8), b"\0\1\0\0" + bytes(9) + bytes(8)]))
        return kind, over_udp(3544, Raw(first)) / inner
    if draw(st.booleans()):
        return kind, l2.GRE(proto=0x88BE, seqnum_present=1) / erspan.ERSPAN_II() / framed(draw, inner)
    third = bytes([0x20, 1]) + bytes(8) + draw(st.sampled_from([bytes(2), b"\0\1" + bytes(8)]))
    return kind, l2.GRE(proto=0x22EB, seqnum_present=1) / Raw(third) / framed(draw, inner)


@st.composite
def tunnelled(draw):
    """(the inner packet, the whole, kind and ends of the outermost tunnel)."""
    inner = whole = draw(packets())
    kind, ends = 0, None
    for _ in range(draw(st.integers(1, frames.MAX_TUNNELS))):
        kind, carrier = draw(carriers(whole))
        ends = draw(V4 | V6)
        # scapy would say 4 for whatever it is given.
        number = kind if kind < 200 else 47 if kind == tunnels.ERSPAN else 17
        if ends[0].version == 4:
            whole = inet.IP(src=str(ends[0]), dst=str(ends[1]), proto=number) / carrier
        else:
            whole = inet6.IPv6(src=str(ends[0]), dst=str(ends[1]), nh=number) / carrier
        raw = bytes(whole)
        whole = inet.IP(raw) if ends[0].version == 4 else inet6.IPv6(raw)
    return inner, raw, kind, ends


def same(f, wanted, payload, inner_payload):
    """The two readings agree on all but octets and vlan."""
    names = ("src_high", "src_low", "dst_high", "dst_low", "src_port", "dst_port", "protocol", "tcp_flags")
    assert [f[n] for n in names] == [wanted[n] for n in names]
    assert payload == inner_payload


@given(tunnelled())
def test_what_a_tunnel_carries_is_read_as_if_it_came_alone(make, made):
    inner, raw, kind, ends = made
    reason, f, payload = one(make, raw)
    wanted_reason, wanted, wanted_payload = one(make, bytes(inner))
    assert (reason, wanted_reason) == (None, None)
    same(f, wanted, payload, wanted_payload)
    assert f["octets"] == len(raw)
    assert f["tunnel"] == kind
    assert address(f["tunnel_src_high"], f["tunnel_src_low"]) == name(str(ends[0]))
    assert address(f["tunnel_dst_high"], f["tunnel_dst_low"]) == name(str(ends[1]))


@given(tunnelled(), st.integers(0, 400))
def test_a_tunnel_cut_by_the_snap_length_is_judged_by_what_is_there(make, made, kept):
    raw = made[1]
    reason, f, payload = one(make, raw[:kept], length=len(raw))
    if reason is not None:
        assert reason is Reason.TRUNCATED
        assert kept < len(raw)
        return
    assert f["octets"] == len(raw)
    whole = one(make, raw)
    if f["tunnel"] and address(f["src_high"], f["src_low"]) == address(
        whole[1]["src_high"], whole[1]["src_low"]
    ):
        assert whole[2].startswith(payload) or f["protocol"] != whole[1]["protocol"]


@pytest.mark.parametrize("depth", [frames.MAX_TUNNELS, frames.MAX_TUNNELS + 1, 200])
def test_what_is_deeper_than_we_go_is_metered_as_the_tunnel_that_it_is(make, depth):
    raw = make.udp(("10.0.0.1", 5), ("10.0.0.2", 10), b"x")
    for k in range(depth):
        raw = make.ipv4(f"10.1.0.{k}", "10.2.0.1", 4, raw)
    reason, f, payload = one(make, raw)
    assert (reason, f["octets"], f["tunnel"]) == (None, len(raw), 4)
    if depth == frames.MAX_TUNNELS:
        assert (f["src_port"], payload) == (5, b"x")
    else:
        assert (f["protocol"], f["src_port"], payload) == (4, 0, b"")


@pytest.mark.parametrize("port", [4789, 8472, 4790, 6081, 2152, 3544])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x08",
        b"\x08" + bytes(30),
        bytes(60),
        b"\xff" * 60,
        b"\x30\xff\0\x10" + bytes(40),
        b"\x08\0\0\0\0\0\5\0" + bytes(12) + b"\x08\x00\x45",
        b"\x32\x01\0\4" + bytes(8),  # GTP-U's echo
    ],
    ids=lambda b: b[:12].hex() or "none",
)
def test_what_goes_to_a_tunnels_port_and_is_no_tunnel_is_a_datagram(make, port, body):
    raw = make.udp(("198.51.100.1", 7), ("198.51.100.2", port), body)
    reason, f, payload = one(make, raw)
    assert (reason, f["tunnel"], f["protocol"], f["dst_port"], payload) == (None, 0, 17, port, body)


def test_what_is_inside_is_no_longer_than_what_it_is_in(make):
    inner = bytearray(make.udp(("10.0.0.1", 5), ("10.0.0.2", 10), b"x" * 8))
    inner[2:4] = (200).to_bytes(2, "big")
    reason, f, _ = one(make, make.ipv4("198.51.100.1", "198.51.100.2", 4, bytes(inner)))
    assert (reason, f["tunnel"], f["protocol"]) == (None, 0, 4)


@given(packets(), st.integers(1, 5), st.sampled_from(["ip", "word", "none", "odd"]))
def test_what_is_behind_labels_is_read_with_a_control_word_or_without(make, packet, labels, kind):
    ether = ODD[0] if kind == "odd" else ETHER
    stack = b"".join((16 << 12 | (k == labels - 1) << 8).to_bytes(4, "big") for k in range(labels))
    frame = bytes(ether / packet)
    carried = {"ip": bytes(packet), "word": bytes(4) + frame}.get(kind, frame)
    reason, f, payload = one(make, bytes(12) + b"\x88\x47" + stack + carried, 1)
    assert reason is None
    assert agree(reason, f, payload, bytes(packet), 101)


@pytest.mark.parametrize("protocol", [b"\x00\x21", b"\x21", b"\xff\x03\x00\x21"])
def test_a_session_of_pppoe_is_read(make, protocol):
    udp = make.udp(("1.2.3.4", 5), ("6.7.8.9", 10), b"x")
    head = b"\x88\x64\x11\x00\x00\x01" + (len(protocol) + len(udp)).to_bytes(2, "big") + protocol
    reason, f, payload = one(make, bytes(12) + head + udp, 1)
    assert (reason, f["src_port"], f["octets"], payload) == (None, 5, 29, b"x")


def test_pptp_is_read_with_an_acknowledgement_or_without(make):
    udp = make.udp(("1.2.3.4", 5), ("6.7.8.9", 10), b"x")
    for flags, more in ((0x3001, bytes(4)), (0x3081, bytes(8)), (0x2001, b"")):
        gre = flags.to_bytes(2, "big") + b"\x88\x0b" + bytes(4) + more + b"\x00\x21" + udp
        reason, f, payload = one(make, make.ipv4("198.51.100.1", "198.51.100.2", 47, gre))
        assert (reason, f["src_port"], f["tunnel"], payload) == (None, 5, 47, b"x")


def test_more_headers_than_anybody_sends_are_refused(make):
    tags = bytes(12) + b"\x81\x00\x00\x07" * 40 + b"\x08\x00"
    assert one(make, tags + bytes(40), 1)[0] is Reason.HEADER
    labels = bytes(12) + b"\x88\x47" + bytes(4) * 40
    assert one(make, labels, 1)[0] is Reason.HEADER
    options = bytes.fromhex("60000000 0140 0040") + bytes(32) + bytes(8) * 40
    assert one(make, options)[0] is Reason.HEADER


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
    st.binary(max_size=200) | packets().map(bytes) | tunnelled().map(lambda made: made[1]),
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
