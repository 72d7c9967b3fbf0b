"""A plain Python reassembly is the twin: whatever order fragments come in, the whole is what was cut."""

import logging
import struct
from ipaddress import ip_address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collectors.packet import fragments

logging.getLogger("scapy").setLevel(logging.CRITICAL)
from scapy.layers import inet, inet6  # noqa: E402

CLIENT, SERVER = ("198.51.100.7", 40000), ("203.0.113.9", 3333)
LINE = b'{"id":1,"method":"mining.subscribe","params":["example/1.0","and so on and on and on"]}\n'
MS = 1_000_000


def pieces_of(raw, size, number=7):
    """An IP packet, as bytes, in fragments of ``size`` octets of payload: (offset, bytes)."""
    if raw[0] >> 4 == 4:
        head, body = bytearray(raw[:20]), raw[20:]
        out = []
        for at in range(0, len(body), size):
            part = body[at : at + size]
            more = at + size < len(body)
            head[2:8] = struct.pack(">HHH", 20 + len(part), number, at // 8 | (0x2000 if more else 0))
            out.append(bytes(head) + part)
        return out
    head, kind, body = bytearray(raw[:40]), raw[6], raw[40:]
    out = []
    for at in range(0, len(body), size):
        part = body[at : at + size]
        more = at + size < len(body)
        head[4:7] = struct.pack(">HB", 8 + len(part), 44)
        out.append(bytes(head) + struct.pack(">BBHI", kind, 0, at | more, number) + part)
    return out


def six(raw):
    """A raw IPv4 packet as IPv6."""
    ends = [b"\x20\x01\x0d\xb8" + bytes(8) + raw[at : at + 4] for at in (12, 16)]
    return struct.pack(">IHBB", 0x60000000, len(raw) - 20, raw[9], 64) + b"".join(ends) + raw[20:]


def session(make, data, *, size, version=4, order=None):
    """Frames of a connection whose client sends ``data`` in one segment that is cut; and its fragments."""
    frames = [
        make.tcp(CLIENT, SERVER, 100, 0, make.SYN),
        make.tcp(SERVER, CLIENT, 500, 101, make.SYN | make.ACK),
        make.tcp(CLIENT, SERVER, 101, 501, make.ACK),
    ]
    segment = make.tcp(CLIENT, SERVER, 101, 501, make.ACK, data)
    if version == 6:
        frames, segment = [six(f) for f in frames], six(segment)
    parts = pieces_of(segment, size)
    frames += [parts[i] for i in order] if order else parts
    return frames, segment


def run(make, frames, cuts=(), step=MS, **config):
    block = make.read(make.pcap([(i * step, f) for i, f in enumerate(frames)]))[0]
    return make.replay(make.cut(block, cuts), **config)


def said(got):
    rows = sorted((r["seq"], r["data"]) for r in got.payloads if r["src_port"] == CLIENT[1])
    return b"".join(data for _, data in rows)


def outcomes(got):
    return {k[1]: v for k, v in got.moved.items() if k[0] == "fragments_total"}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [8, 16, 24, 40, 64])
def test_a_line_in_fragments_is_read_as_if_it_came_whole(make, version, size):
    frames, _ = session(make, LINE, size=size, version=version)
    got = run(make, frames)
    assert said(got) == LINE
    (row,) = got.flows
    assert row["packets"] + row["reverse_packets"] == len(frames)
    assert row["bytes"] + row["reverse_bytes"] == sum(map(len, frames))
    assert row["payload_bytes"] == len(LINE)
    assert outcomes(got) == {"seen": len(frames) - 3, "whole": 1}
    assert got.moved[("metered_total",)] == got.moved[("frames_total",)] == len(frames)


@given(st.data())
def test_in_any_order_and_however_blocks_are_cut_the_whole_is_the_same(make, data):
    version = data.draw(st.sampled_from([4, 6]))
    size = data.draw(st.sampled_from([8, 24, 48]))
    _, segment = session(make, LINE, size=size, version=version)
    count = len(pieces_of(segment, size))
    order = data.draw(st.permutations(range(count)))
    again = data.draw(st.lists(st.integers(0, count - 1), max_size=3))
    frames, _ = session(make, LINE, size=size, version=version, order=[*order, *again])
    cuts = data.draw(st.lists(st.integers(1, len(frames)), max_size=4))
    got, uncut = run(make, frames, cuts), run(make, frames)
    assert said(got) == LINE
    assert [f for b in got.batches if b[0] == "flows" for f in b[2].to_pylist()] == [
        f for b in uncut.batches if b[0] == "flows" for f in b[2].to_pylist()
    ]
    assert sum(r["packets"] + r["reverse_packets"] for r in got.flows) == len(frames)
    assert sum(r["bytes"] + r["reverse_bytes"] for r in got.flows) == sum(map(len, frames))


def test_later_fragments_of_a_datagram_are_counted_to_its_ports(make):
    raw = make.udp(CLIENT, ("203.0.113.9", 443), b"x" * 3000)
    frames = pieces_of(raw, 1480)
    for order in (frames, frames[::-1]):
        got = run(make, order)
        (row,) = got.flows
        assert (row["src_port"], row["dst_port"], row["packets"]) == (40000, 443, 3)
        assert row["bytes"] == sum(map(len, frames))
    assert row["payload_bytes"] <= 3000


def test_fragments_whose_first_never_comes_are_refused(make):
    frames = pieces_of(make.tcp(CLIENT, SERVER, 1, 1, make.ACK, LINE), 24)[1:]
    got = run(make, frames)
    assert not got.flows
    assert got.moved[("refused_total", "fragment")] == len(frames)
    assert outcomes(got)["orphaned"] == len(frames)


def overlapping(make, version):
    """A segment whose fragments overlap: what comes second says something else."""
    frames, segment = session(make, LINE, size=40, version=version)
    other = bytearray(segment)
    other[-len(LINE) :] = LINE.replace(b"mining", b"mEnInG")
    return [*frames[:4], pieces_of(bytes(other), 40)[1], *frames[4:]], pieces_of(bytes(other), 40)


def test_of_overlapping_fragments_of_ipv4_the_first_wins(make):
    frames, others = overlapping(make, 4)
    frames = [*frames[:4], frames[5], others[1], *frames[6:]]
    got = run(make, frames)
    assert said(got) == LINE
    assert outcomes(got)["overlap"] == 1


def test_fragments_of_ipv4_that_contradict_do_not_keep_the_others_from_being_read(make):
    frames, segment = session(make, LINE, size=40)
    other = bytearray(segment)
    other[20:] = bytes(len(other) - 20)
    forged = pieces_of(bytes(other) + bytes(40), 40)
    parts = frames[3:]
    mixed = [
        parts[-1],
        forged[-1],
        parts[0],
        forged[0],
        *(f for p in zip(parts[1:-1], forged[1:], strict=False) for f in p),
    ]
    got = run(make, [*frames[:3], *mixed])
    assert said(got) == LINE
    assert outcomes(got)["whole"] == 1
    assert outcomes(got)["bad"] == outcomes(got)["overlap"] == 1


def test_overlapping_fragments_of_ipv6_are_refused(make):
    frames, _ = overlapping(make, 6)
    got = run(make, frames)
    assert outcomes(got)["overlap"] == 1
    assert "whole" not in outcomes(got)
    assert sum(r["packets"] + r["reverse_packets"] for r in got.flows) == len(frames)


def test_an_exact_copy_of_a_fragment_of_ipv6_is_no_overlap(make):
    frames, _ = session(make, LINE, size=40, version=6)
    got = run(make, [*frames[:5], frames[4], *frames[5:]])
    assert said(got) == LINE
    assert outcomes(got)["repeated"] == 1


def fragment(offset, body, *, more, number=9, protocol=17):
    head = struct.pack(
        ">BBHHHBBH", 0x45, 0, 20 + len(body), number, offset // 8 | (0x2000 if more else 0), 64, protocol, 0
    )
    return head + ip_address(CLIENT[0]).packed + ip_address(SERVER[0]).packed + body


@pytest.mark.parametrize(
    "frames",
    [
        [
            fragment(0, bytes(36) + bytes(4), more=True, protocol=6),
            fragment(24, bytes(4), more=False, protocol=6),
        ],
        [fragment(0, bytes(40), more=True, protocol=6), fragment(65528, bytes(40), more=False, protocol=6)],
        [fragment(0, bytes(41), more=True, protocol=6)],
        [fragment(8, bytes(8), more=False, protocol=6), fragment(16, bytes(8), more=False, protocol=6)],
        [fragment(0, b"", more=True, protocol=6)],
    ],
    ids=["teardrop", "ping of death", "not in eights", "two ends", "empty"],
)
def test_fragments_that_cannot_be_are_counted_and_make_nothing(make, frames):
    got = run(make, frames)
    assert "whole" not in outcomes(got)
    assert outcomes(got)["bad"] == 1


def test_an_identification_that_comes_again_is_another_packet(make):
    lost, _ = session(make, LINE, size=40)
    segment = make.tcp(CLIENT, SERVER, 101 + len(LINE), 501, make.ACK, LINE.replace(b"and so", b"or not"))
    got = run(make, [*lost[:-1], *pieces_of(segment, 40)], step=600 * MS)
    assert LINE.replace(b"and so", b"or not") in said(got)
    assert outcomes(got)["reused"] == 1
    assert outcomes(got)["whole"] == 1


def test_a_packet_is_not_waited_for_for_ever(make):
    frames, _ = session(make, LINE, size=40)
    block = make.read(make.pcap([(i * MS + (i > 4) * 31 * make.SECOND, f) for i, f in enumerate(frames)]))
    got = make.replay(block)
    assert "whole" not in outcomes(got)
    assert outcomes(got)["expired"] >= 1


def test_a_packet_cut_by_the_snap_length_is_counted_and_not_put_together(make):
    frames, _ = session(make, LINE, size=40)
    cut = [(i * MS, f[:50] if i == 4 else f, len(f)) for i, f in enumerate(frames)]
    got = make.replay(make.read(make.pcap(cut)))
    assert outcomes(got)["cut"] == 1
    assert sum(r["bytes"] + r["reverse_bytes"] for r in got.flows) == sum(map(len, frames))


def test_a_packet_longer_than_the_bound_is_counted_and_not_put_together(make):
    segment = make.tcp(CLIENT, SERVER, 101, 501, make.ACK, b"x" * (fragments.MAX_OCTETS + 100))
    frames = pieces_of(segment, 1480)
    got = run(make, frames)
    assert outcomes(got) == {"seen": len(frames), "long": 1}
    assert got.flows[0]["packets"] == len(frames)


def test_a_flood_of_fragments_between_two_hosts_hides_nobody_elses(make):
    frames, _ = session(make, LINE, size=24)
    noise = [
        make.ipv4("198.51.100.66", "203.0.113.66", 6, b"")[:4]
        + struct.pack(">HHBBH", number, 0x2000, 64, 6, 0)
        + ip_address("198.51.100.66").packed
        + ip_address("203.0.113.66").packed
        + bytes(40)
        for number in range(3000)
    ]
    noise = [n[:2] + (60).to_bytes(2, "big") + n[4:] for n in noise]
    mixed = [*frames[:3]]
    for i, frame in enumerate(frames[3:]):
        mixed += [frame, *noise[i * 400 : i * 400 + 400]]
    # With another seed the two pairs of hosts may be of one set: of eight here, of 128 by default.
    got = run(make, mixed, step=1000, fragmented_packets=64, hash_seed=1)
    assert said(got) == LINE
    assert outcomes(got)["evicted"] > 1000


@pytest.mark.parametrize("version", [4, 6])
def test_a_tunnel_in_fragments_and_fragments_in_a_tunnel_are_read(make, version):
    frames, _ = session(make, LINE, size=48)
    whole, _ = session(make, LINE, size=4096)

    def tunnel(raw, number):
        udp = struct.pack(">HHHH", 5555, 4789, 30 + len(raw), 0)
        body = udp + b"\x08" + bytes(7) + bytes(12) + b"\x08\x00" + raw
        made = make.ipv4("198.51.100.101", "192.0.2.2", 17, body)
        return pieces_of(six(made) if version == 6 else made, 64, number)

    for inner in (frames, whole):
        outer = [part for k, raw in enumerate(inner) for part in tunnel(raw, k)]
        got = run(make, outer)
        assert said(got) == LINE
        assert sum(r["bytes"] + r["reverse_bytes"] for r in got.flows) == sum(map(len, outer))
        assert sum(r["packets"] + r["reverse_packets"] for r in got.flows) == len(outer)
        row = next(r for r in got.flows if r["dst_port"] == 3333)
        assert row["tunnel"] == 201


def test_atomic_fragments_are_whole(make):
    raw = inet6.IPv6(src="2001:db8::1", dst="2001:db8::2") / inet6.IPv6ExtHdrFragment(id=4) / inet.TCP()
    got = run(make, [bytes(raw)])
    assert not outcomes(got)
    assert got.flows[0]["packets"] == 1


PIECE = st.tuples(
    st.integers(0, 40), st.integers(0, 60), st.booleans(), st.integers(1, 2), st.sampled_from([6, 17, 47, 4])
)


@given(st.lists(PIECE, min_size=1, max_size=12), st.booleans())
def test_any_fragments_are_metered_or_refused(make, parts, as_six):
    frames = [
        fragment(at * 8, bytes([number]) * size, more=more, number=number, protocol=protocol)
        for at, size, more, number, protocol in parts
    ]
    if as_six:
        frames = [p for f in frames for p in pieces_of(six(f[:6] + b"\0\0" + f[8:]), 16)]
    assume(frames)
    got = run(make, frames)
    moved = got.moved
    refused = sum(v for k, v in moved.items() if k[0] == "refused_total")
    assert moved.get(("metered_total",), 0) + refused == len(frames)
