"""The flow table against a plain meter, and each rule of a connection's life."""

from collections import defaultdict
from ipaddress import IPv6Address
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.packet import table

A, B = ("10.0.0.1", 40000), ("93.184.216.34", 3333)
S = 10**9
FIN, SYN, RST, ACK = 1, 2, 4, 16
ONE = bytes([10, 0, 0, 1])


def text(address):
    a = IPv6Address(address)
    return str(a.ipv4_mapped or a)


def ends(row):
    return (text(row["src"]), row["src_port"]), (text(row["dst"]), row["dst_port"])


def replay(make, packets, **config):
    return make.replay(make.read(make.pcap(packets)), **config)


ENDS = st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.9.9.9"]), st.integers(1, 4))
HOPS = st.lists(
    st.tuples(ENDS, ENDS, st.sampled_from([6, 17]), st.integers(0, 300), st.integers(0, 40)), max_size=60
)


@given(HOPS, st.sampled_from([16, 64]))
def test_totals_are_those_of_a_plain_meter(make, hops, slots):
    octets, packets, t = defaultdict(int), defaultdict(int), 0
    frames = []
    for src, dst, protocol, size, wait in hops:
        t += wait * S // 2
        data = make.udp(src, dst, b"x" * size) if protocol == 17 else make.tcp(src, dst, data=b"x" * size)
        frames.append((t, data))
        octets[src, dst, protocol] += len(data)
        packets[src, dst, protocol] += 1
    got = replay(make, frames, flow_slots=slots)
    told, counted = defaultdict(int), defaultdict(int)
    for row in got.flows:
        assert row["t_open"] <= row["t_first"] <= row["t_last"] <= row["t_received"]
        assert row["bytes"] + row["reverse_bytes"] > 0
        if row["copy"]:
            continue
        src, dst = ends(row)
        for key, n, size in (
            ((src, dst, row["protocol"]), row["packets"], row["bytes"]),
            ((dst, src, row["protocol"]), row["reverse_packets"], row["reverse_bytes"]),
        ):
            told[key] += size
            counted[key] += n
    assert {k: v for k, v in told.items() if v} == octets
    assert {k: v for k, v in counted.items() if v} == packets


@given(st.lists(st.integers(0, 200), min_size=1, max_size=30))
def test_a_datagram_flow_splits_where_it_was_silent_too_long(make, waits):
    t, frames, expected = 0, [], []
    for wait in waits:
        t += wait * S
        if not expected or t - expected[-1][-1] >= 60 * S:
            expected.append([])
        expected[-1].append(t)
        frames.append((t, make.udp(A, B, b"x")))
    rows = replay(make, frames).flows
    opened = defaultdict(list)
    for row in rows:
        opened[row["t_open"]].append(row)
    assert sorted(opened) == [e[0] for e in expected]
    for e in expected:
        assert sum(r["packets"] for r in opened[e[0]]) == len(e)
        assert max(r["t_last"] for r in opened[e[0]]) == e[-1]


def session(make, at=0, isn=1000, finish=True):
    """A handshake, a request of 10 octets, an answer of 20, and an end."""
    return [
        (at, make.tcp(A, B, isn, 0, make.SYN)),
        (at + 1, make.tcp(B, A, 9000, isn + 1, make.SYN | make.ACK)),
        (at + 2, make.tcp(A, B, isn + 1, 9001)),
        (at + 3, make.tcp(A, B, isn + 1, 9001, make.ACK, b"x" * 10)),
        (at + 4, make.tcp(B, A, 9001, isn + 11, make.ACK, b"y" * 20)),
        *(
            [
                (at + 5, make.tcp(A, B, isn + 11, 9021, make.ACK | make.FIN)),
                (at + 6, make.tcp(B, A, 9021, isn + 12, make.ACK | make.FIN)),
                (at + 7, make.tcp(A, B, isn + 12, 9022)),
            ]
            if finish
            else []
        ),
    ]


def test_a_whole_connection_is_one_record(make):
    (row,) = replay(make, session(make)).flows
    assert ends(row) == (A, B)
    picked = {
        k: row[k] for k in row if k not in ("src", "dst", "subscriber", "partition") and row[k] is not None
    }
    assert picked == {
        "copy": 0, "src_port": 40000, "dst_port": 3333, "protocol": 6, "t_first": 0, "t_last": 7,
        "t_received": 7, "bytes": 210, "packets": 5, "reverse_bytes": 140, "reverse_packets": 3,
        "tcp_flags": 19, "reverse_tcp_flags": 19, "sampling_rate": 1, "source": 0, "end_reason": 3,
        "t_open": 0, "initiator": 1, "payload_packets": 1, "reverse_payload_packets": 1,
        "payload_bytes": 10, "reverse_payload_bytes": 20, "first_sizes": [10], "reverse_first_sizes": [20],
        "candidate": 0, "collector": "packet",
    }  # fmt: skip


@pytest.mark.parametrize("first", [0, 1, 3])
def test_who_opened_is_told_by_the_handshake_only(make, first):
    (row,) = replay(make, session(make)[first:]).flows
    assert ends(row) == (A, B)
    assert row["initiator"] == (1 if first < 3 else 0)


def test_without_a_handshake_the_first_sender_is_forward(make):
    (row,) = replay(make, session(make)[4:5]).flows
    assert ends(row) == (B, A)
    assert row["initiator"] == 0


def test_an_end_is_exported_two_seconds_later_and_a_new_syn_opens_anew(make):
    rows = replay(make, session(make) + session(make, at=S, isn=5000)).flows
    assert [(r["t_open"], r["end_reason"], r["packets"]) for r in rows] == [(0, 3, 6), (S + 1, 3, 4)]
    assert [(r["initiator"], r["payload_bytes"]) for r in rows] == [(1, 10), (1, 10)]
    rows = replay(make, [*session(make), (4 * S, make.udp(A, B))]).flows
    assert sorted((r["protocol"], r["t_received"]) for r in rows) == [(6, 4 * S), (17, 4 * S)]


def test_a_syn_after_silence_opens_anew_without_an_end(make):
    rows = replay(make, session(make, finish=False) + session(make, at=5 * S, isn=77)).flows
    assert [(r["t_open"], r["end_reason"]) for r in rows] == [(0, 4), (5 * S + 1, 3)]
    heard = [
        f for f in session(make, finish=False) + session(make, at=5 * S, isn=10**8) if f[1][12:16] == ONE
    ]
    assert [r["t_open"] for r in replay(make, heard).flows] == [0, 5 * S + 2]


FORGED = {
    "reset elsewhere": [(1500, RST)],
    "reset": [(1011, RST)],
    "syn": [(7777, SYN), (10**9, SYN | ACK)],
    "fin elsewhere": [(5000, FIN | ACK), (10**8, FIN | ACK)],
    "fin": [(1011, FIN | ACK)],
    "all flags": [(1011, 0x3F)],
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_forged_segments_neither_end_a_connection_nor_begin_it_again_nor_bring_payload(make, forged):
    frames = session(make, finish=False)
    for k in range(30):
        frames += [(k * S + 9, make.tcp(A, B, seq + k, 9021, flags, b"#")) for seq, flags in forged]
        frames.append((k * S + 10, make.tcp(A, B, 1011 + k, 9021, ACK, b"x")))
    rows = replay(make, frames).flows
    assert {r["t_open"] for r in rows} == {0}
    if forged != FORGED["fin elsewhere"]:  # its octets may be of a hole
        assert sum(r["payload_bytes"] for r in rows) == 40


def test_payload_that_no_end_point_takes_is_refused_by_reason(make):
    frames = session(make, finish=False)
    frames += [
        (9, make.tcp(A, B, 1011, 9021, flags, b"#" * 5)) for flags in (0, 8, RST, RST | ACK, SYN, 0x3F)
    ]
    got = replay(make, frames)
    assert got.flows[0]["payload_bytes"] == 10
    refused = {k[1]: v for k, v in got.moved.items() if k[0] == "payload_refused_total"}
    assert refused == {"no_ack": 2, "reset": 3, "syn": 1}


def test_numbers_far_from_the_stream_do_not_hide_its_payload(make):
    frames = session(make, finish=False)
    for k in range(20):
        frames.append((k * S + 9, make.tcp(A, B, 2**31 - 5000 + 10**7 * k, 9021, ACK, b"#")))
        frames.append((k * S + 10, make.tcp(A, B, 1011 + 10 * k, 9021, ACK, b"x" * 10)))
    assert sum(r["payload_bytes"] for r in replay(make, frames).flows) == 10 + 20 * 11


def test_of_several_beginnings_that_counts_which_the_other_side_acknowledges(make):
    line = b'{"id":1,"method":"mining.subscribe","params":[]}\n'
    frames = [
        (0, make.tcp(A, B, 4000, 0, SYN)),
        (1, make.tcp(A, B, 1000, 0, SYN)),
        (2, make.tcp(B, A, 70_000, 99, SYN | ACK)),
        (3, make.tcp(B, A, 9000, 1001, SYN | ACK)),
        (4, make.tcp(A, B, 1001, 9001)),
        (5, make.tcp(A, B, 1001, 9001, ACK, line)),
        (6, make.tcp(B, A, 9001, 1001 + len(line), ACK, line)),
    ]
    rows = [r for r in replay(make, frames).payloads if r["data"]]
    assert [(r["offset"], r["flags"] & 3, r["data"]) for r in rows] == [(0, 2, line)] * 2


def test_a_repeated_syn_is_the_same_connection(make):
    (row,) = replay(
        make, [(0, make.tcp(A, B, 5, 0, make.SYN)), (9 * S, make.tcp(A, B, 5, 0, make.SYN))]
    ).flows
    assert (row["t_open"], row["packets"]) == (0, 2)


def test_records_are_deltas_and_the_opening_stays(make):
    frames = [(k * 7 * S, make.tcp(A, B, 100 * k, 0, make.ACK, b"x" * 100)) for k in range(20)]
    rows = replay(make, frames).flows
    assert len(rows) == 3
    assert {r["t_open"] for r in rows} == {0}
    assert [r["end_reason"] for r in rows] == [2, 2, 4]
    assert sum(r["packets"] for r in rows) == 20
    assert all(a["t_last"] < b["t_first"] for a, b in pairwise(rows))
    assert all(r["t_last"] - r["t_first"] < 60 * S for r in rows)
    assert rows[-1]["first_sizes"] == [100] * 8


def test_a_silent_tcp_connection_is_told_as_idle_and_goes_on_as_itself(make):
    frames = [*session(make, finish=False), (200 * S, make.tcp(A, B, 1011, 9021, make.ACK, b"z"))]
    rows = replay(make, frames).flows
    assert [(r["t_open"], r["t_first"], r["end_reason"]) for r in rows] == [(0, 0, 1), (0, 200 * S, 4)]
    rows = replay(make, [*frames, (2000 * S, make.tcp(A, B, 1012, 9021, make.ACK, b"z"))]).flows
    assert rows[-1]["t_open"] == 2000 * S


def test_retransmissions_are_no_new_payload(make):
    frames = [
        (k, make.tcp(A, B, seq, 0, make.ACK, b"x" * n))
        for k, (seq, n) in enumerate([(100, 10), (100, 10), (105, 10), (90, 5), (115, 1)])
    ]
    (row,) = replay(make, frames).flows
    assert (row["packets"], row["payload_packets"], row["payload_bytes"]) == (5, 3, 16)


def test_sequence_numbers_wrap(make):
    frames = [(k, make.tcp(A, B, 2**32 - 10 + 10 * k, 0, make.ACK, b"x" * 10)) for k in range(4)]
    (row,) = replay(make, frames).flows
    assert row["payload_bytes"] == 40


def test_a_forged_reset_does_not_hide_what_follows(make):
    frames = [*session(make, finish=False), (10, make.tcp(B, A, 9021, 0, make.RST))]
    frames += [(k * S, make.tcp(A, B, 1011 + k, 9021, make.ACK, b"x")) for k in range(1, 50)]
    rows = replay(make, frames).flows
    assert {r["t_open"] for r in rows} == {0}


def test_a_flood_of_single_packets_pushes_out_no_long_lived_connection(make):
    frames = []
    for k in range(3000):
        if k % 20 == 0:
            frames.append((k * S // 20, make.tcp(A, B, k, 0, make.ACK, b"x")))
        frames.append((k * S // 20, make.udp((f"10.1.{k >> 8}.{k & 255}", k & 0x7FFF), B)))
    got = replay(make, frames, flow_slots=64)
    rows = [r for r in got.flows if r["protocol"] == 6]
    assert {r["t_open"] for r in rows} == {0}
    assert {r["end_reason"] for r in rows} <= {2, 4}
    assert sum(r["packets"] for r in rows) == 150
    assert got.moved["evictions_total", "no"] > 2900 - 64


def test_stamps_that_go_back_are_another_clock_and_lose_nothing(make):
    frames = [(10**18 + k * S, make.udp(A, B, b"x")) for k in range(5)]
    frames += [(k * S, make.udp(B, A, b"x")) for k in range(5)]
    rows = replay(make, frames).flows
    assert sum(r["packets"] + r["reverse_packets"] for r in rows) == 10


SWINGS = {
    "back": (0, -86400 * S),
    "ahead": (86400 * S, 0),
    "to and fro": (0, -86400 * S, 3 * S, 86400 * S, 9 * S),
}


@pytest.mark.parametrize("stamps", SWINGS.values(), ids=SWINGS)
@pytest.mark.parametrize("active", [5, 60])
def test_no_stamp_makes_a_record_longer_than_the_active_timeout(make, stamps, active):
    start = 10**6 * S
    frames = [
        (start + t + n, make.tcp((f"10.0.1.{n}", 4000), B, 7 * k, 1, make.ACK, b"x" * 7))
        for k, t in enumerate(stamps)
        for n in range(9)
    ]
    rows = replay(make, frames, active_timeout_s=active).flows
    assert sum(r["packets"] for r in rows) == len(frames)
    assert max(r["t_last"] - r["t_first"] for r in rows) < max(active, 10) * S
    assert all(r["t_open"] <= r["t_first"] <= r["t_last"] <= r["t_received"] for r in rows)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-200, 200)), min_size=1, max_size=60), st.data())
def test_whatever_the_stamps_records_are_short_and_do_not_depend_on_blocks(make, hops, data):
    t, frames = 10**6, []
    for k, (n, step) in enumerate(hops):
        t += step
        frames.append((t * S, make.udp((f"10.0.1.{n}", 4000 + k % 2), B, b"x")))
    (block,) = make.read(make.pcap(frames))
    whole = make.replay([block])
    assert sum(r["packets"] for r in whole.flows) == len(hops)
    assert all(r["t_last"] - r["t_first"] < 60 * S for r in whole.flows)
    places = data.draw(st.sets(st.integers(1, len(hops)), max_size=5))
    assert sorted(make.replay(make.cut(block, places)).flows, key=str) == sorted(whole.flows, key=str)


def test_a_row_that_was_stamped_ahead_falls_silent_and_ends(make):
    ahead = [(86400 * S, make.tcp(A, B, 1, 0, make.ACK, b"x")), (86400 * S, make.udp(A, B, b"x"))]
    rest = [(k * S, make.udp(("10.0.0.2", 7), B, b"x")) for k in range(1000)]
    rows = replay(make, [*ahead, *rest, (999 * S, make.tcp(A, B, 2, 0, make.ACK, b"x"))]).flows
    early = [r for r in rows if r["t_first"] == 86400 * S]
    assert [(r["packets"], r["end_reason"], r["t_received"]) for r in early] == [(1, 4, 86400 * S)] * 2
    assert [r["t_open"] for r in rows if r["protocol"] == 6][1:] == [999 * S]


def test_one_stamp_that_is_far_back_ends_no_other_connection(make):
    frames = [(10**6 * S + k * S, make.tcp(A, B, k, 0, make.ACK, b"x")) for k in range(50)]
    frames.insert(25, (5 * S, make.udp(("10.0.0.2", 7), B, b"x")))
    rows = [r for r in replay(make, frames).flows if r["protocol"] == 6]
    assert [(r["packets"], r["t_open"]) for r in rows] == [(50, 10**6 * S)]


def test_a_row_stays_under_its_budget():
    assert table.BYTES_PER_ROW < 320


def test_the_result_does_not_depend_on_the_hash_seed(make):
    frames = [(k, make.udp((f"10.0.0.{k % 50}", k % 7), B, b"x" * k)) for k in range(300)]
    plain = replay(make, frames).flows
    assert replay(make, frames, hash_seed=2**63 + 12345).flows == plain


def probe(t, key):
    """(hash, row or -1) of a key that differs in one address only."""
    zero, one, u = np.uint64(0), np.uint64(1), np.uint64(key)
    h = np.uint64(table.hash_of(zero, u, zero, one, np.uint64(5), t.seed))
    return h, table.find_row(t.entries, t.rows, h, zero, u, zero, one, np.uint64(5))


@given(st.lists(st.integers(0, 60), max_size=150), st.integers(0, 3))
def test_rows_are_found_however_many_were_forgotten(keys, seed):
    """Backward-shift deletion against a plain dictionary."""
    t = table.table(64, seed)
    held, spare = {}, list(range(64))
    for key in keys:
        h, found = probe(t, key)
        assert found == held.get(key, -1)
        if key in held:
            spare.append(held[key])
            table.forget_row(t.entries, t.rows, t.freed, t.state, t.seed, held.pop(key))
            t.state[table.FREED] = 0
        else:
            n = spare.pop()
            row = t.rows[n : n + 1]
            row["a_low"], row["b_low"], row["protocol"] = key, 1, 5
            table.index_row(t.entries, h, n)
            held[key] = n
    assert {k: probe(t, k)[1] for k in range(61)} == {k: held.get(k, -1) for k in range(61)}
    assert (t.entries != 0).sum() == len(held)
