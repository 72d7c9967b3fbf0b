"""How connections came: tunnels and tags, as ``flows`` tells them."""

import struct
from ipaddress import ip_address

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectors.packet import vias
from collectors.packet.frames import FRAME, NO_VLAN
from collectors.packet.table import FREE, LIVE, ROW

INNER = ("198.51.100.7", 5), ("203.0.113.9", 10)


def via_of(v, tunnel=0, vlan=NO_VLAN, ends=(1, 2)):
    f = np.zeros(1, FRAME)
    f["tunnel"], f["vlan"], f["tunnel_src_low"], f["tunnel_dst_low"] = tunnel, vlan, *ends
    return int(vias.via_of(f[0], v, np.uint64(7)))


def test_the_outermost_tunnel_is_told_and_turned_as_the_record_is(make):
    there = make.ipv4("192.0.2.1", "192.0.2.2", 4, make.tcp(INNER[0], INNER[1], 1, 1, make.ACK))
    answer = make.ipv4("192.0.2.2", "192.0.2.1", 4, make.tcp(INNER[1], INNER[0], 1, 2, make.SYN | make.ACK))
    for frames in ([there, answer], [answer, there]):
        (row,) = make.replay(make.read(make.pcap(list(enumerate(frames))))).flows
        assert row["src_port"] == 5
        assert row["tunnel"] == 4
        assert row["tunnel_src"][-4:] == ip_address("192.0.2.1").packed
        assert row["tunnel_dst"][-4:] == ip_address("192.0.2.2").packed
        assert row["bytes"] == row["reverse_bytes"] == 60


def test_what_came_in_no_tunnel_tells_none(make):
    (row,) = make.replay(make.read(make.pcap([(0, make.udp(*INNER))]))).flows
    assert (row["tunnel"], row["tunnel_src"], row["tunnel_dst"], row["vlan"]) == (None, None, None, None)


def test_every_tag_is_told_with_a_tunnel_and_without(make):
    for vlan in (0, 1, 4095):
        for raw in (make.udp(*INNER), make.ipv4("192.0.2.1", "192.0.2.2", 4, make.udp(*INNER))):
            frame = bytes(12) + struct.pack(">HHH", 0x8100, vlan, 0x0800) + raw
            (row,) = make.replay(make.read(make.pcap([(0, frame)], link=1))).flows
            assert row["vlan"] == vlan


def test_a_full_table_says_so_and_what_no_row_names_is_forgotten():
    v = vias.vias(8)
    numbers = [via_of(v, 4, ends=(n, 9)) for n in range(9)]
    assert len(set(numbers[:7])) == 7
    assert numbers[7:] == [0, 0]
    assert v.state[vias.UNTOLD] == 2
    assert [via_of(v, 4, ends=(n, 9)) for n in range(7)] == numbers[:7]
    rows = np.zeros(3, ROW)
    rows["via"] = numbers[2], numbers[6], numbers[5]
    rows["phase"] = LIVE, FREE, LIVE
    vias.sweep(v, rows, 3, np.uint64(7))
    told = vias.columns(v, rows["via"][[0, 2]], rows["sender"][[0, 2]], np.zeros(2, np.int64))
    assert told.src[:, -1].tolist() == [2, 5]
    assert v.state[vias.USED] == 2
    assert via_of(v, 4, ends=(2, 9)) == rows["via"][0]
    assert via_of(v, 4, ends=(77, 9)) > 0


HOW = st.tuples(
    st.integers(0, 3), st.sampled_from([NO_VLAN, 0, 5]), st.tuples(st.integers(0, 2), st.integers(0, 2))
)


@given(st.lists(HOW, max_size=60))
def test_numbers_are_those_of_a_plain_reading(came):
    v, plain = vias.vias(16), {}
    for tunnel, vlan, ends in came:
        key = (tunnel, vlan, ends) if tunnel else vlan
        full = tunnel and key not in plain and sum(isinstance(k, tuple) for k in plain) == 15
        got = via_of(v, tunnel, vlan, ends)
        # Beyond the table a tunnel is not told, and its tag is.
        assert got == via_of(v, 0, vlan) if full else plain.setdefault(key, got) == got
    assert len(set(plain.values())) == len(plain)
    numbers = np.array(list(plain.values()), np.int64)
    sent = np.zeros(numbers.size, np.int64)
    told = vias.columns(v, numbers, sent, sent)
    # Where there is no tunnel, its ends say nothing.
    src, dst = (side[:, -1] * (told.tunnel > 0) for side in (told.src, told.dst))
    got = list(zip(told.tunnel, told.vlan, src, dst, strict=True))
    assert got == [(k[0], k[1], *k[2]) if isinstance(k, tuple) else (0, k, 0, 0) for k in plain]
