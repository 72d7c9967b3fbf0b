"""goflow2's protobuf into columns, against the obvious decoder."""

from collections import Counter

import numpy as np
import pytest
from flowmessages import NUMBERS, delimited, field, message, plain, values_of, varint
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.importing.flowmessage import Decoder
from collectors.importing.records import IMPORTED, MOST_NS

NOW = 1_795_348_800 * 10**9
FULL = {
    "type": 4, "sampling_rate": 1000, "sequence_num": 7, "src_addr": "198.51.100.7",
    "dst_addr": "2001:db8::1", "bytes": 1 << 40, "packets": 300, "sampler_address": "192.0.2.1",
    "src_as": 64_500, "dst_as": 4_200_000_000,
    "in_if": 3, "out_if": 4, "proto": 6, "src_port": 40_000, "dst_port": 3333, "ip_tos": 8, "tcp_flags": 0x18,
    "vlan_id": 12, "etype": 0x86DD, "flow_direction": 1, "observation_domain_id": 9, "time_received_ns": NOW,
    "time_flow_start_ns": NOW - 60 * 10**9, "time_flow_end_ns": NOW - 10**9,
}  # fmt: skip
ENDS = {"src_addr": "198.51.100.7", "dst_addr": "51.15.2.3"}


def decode(*values, **settings):
    decoder = Decoder(**settings)
    return decoder.decode(values, np.full(len(values), NOW + 5)), decoder.refused()


def expected(got, stamp, unit=1):
    """A row from the twin's fields."""

    def nonzero(number, most):
        value = got.get(number, 0)
        return value if 0 < value <= most else None

    def time(number):
        return got.get(number, 0) * unit if got.get(number, 0) <= MOST_NS // unit else 0

    received = time(110) or stamp
    last = time(112) or received
    direction = got.get(42)
    return {
        "src": got[6], "dst": got[7], "exporter": got.get(11), "src_port": got.get(21, 0),
        "dst_port": got.get(22, 0), "protocol": got.get(20, 0), "bytes": got.get(9, 0),
        "packets": got.get(10, 0), "t_received": received, "t_last": last,
        "t_first": min(time(111) or last, last), "source": IMPORTED,
        "sampling_rate": nonzero(3, 2**32 - 1), "input_interface": nonzero(18, 2**32 - 1),
        "output_interface": nonzero(19, 2**32 - 1), "src_as": nonzero(14, 2**32 - 1),
        "dst_as": nonzero(15, 2**32 - 1), "tos": nonzero(23, 255), "tcp_flags": nonzero(26, 65535),
        "vlan": nonzero(29, 65535), "direction": direction if direction in (0, 1) else None,
        "domain": got[70] & 0xFFFFFFFF if 70 in got else None,
    }  # fmt: skip


def test_every_field_goes_into_its_column():
    (row,) = plain(decode(delimited(message(**FULL)))[0])
    assert row["src"] == bytes(10) + b"\xff\xff" + bytes((198, 51, 100, 7))
    assert row["dst"] == bytes.fromhex("20010db8000000000000000000000001")
    assert row["exporter"][12:] == bytes((192, 0, 2, 1))
    told = {k: v for k, v in row.items() if k not in ("src", "dst", "exporter")}
    assert told == {
        "src_port": 40_000, "dst_port": 3333, "protocol": 6, "bytes": 1 << 40, "packets": 300, "source": 20,
        "t_first": NOW - 60 * 10**9, "t_last": NOW - 10**9, "t_received": NOW, "sampling_rate": 1000,
        "input_interface": 3, "output_interface": 4, "src_as": 64_500, "dst_as": 4_200_000_000, "tos": 8,
        "tcp_flags": 24, "vlan": 12, "direction": 1, "domain": 9,
    }  # fmt: skip


def test_what_a_message_leaves_out_is_null_and_its_time_is_kafkas():
    (row,) = plain(decode(delimited(message(**ENDS)))[0])
    assert {row["t_first"], row["t_last"], row["t_received"]} == {NOW + 5}
    assert row["exporter"] is row["sampling_rate"] is row["domain"] is row["tcp_flags"] is None


def test_with_its_length_without_it_and_several_in_a_value():
    one, two = message(**FULL), message(**ENDS, bytes=7)
    columns, refused = decode(delimited(one), two, delimited(one, two, two), delimited(two))
    assert [row["bytes"] for row in plain(columns)] == [1 << 40, 7, 1 << 40, 7, 7, 7]
    assert not refused


def test_a_framing_that_is_configured_is_held_to():
    one = message(**ENDS)
    assert decode(one, framing="delimited")[1] == {"length": 1}
    assert len(plain(decode(one, framing="plain")[0])) == 1
    assert decode(delimited(one), framing="plain")[1]


def test_unknown_fields_are_passed_over_and_the_last_of_a_field_counts():
    extra = (
        field(200, 5) + field(201, b"abc") + varint(300 << 3 | 1) + bytes(8) + varint(5 << 3 | 5) + bytes(4)
    )
    made = message(**ENDS, bytes=5) + extra + message(bytes=9) + field(9, b"not a number")
    assert [row["bytes"] for row in plain(decode(delimited(made))[0])] == [9]


def test_old_goflow_has_its_own_numbers_and_counts_seconds():
    made = message(**ENDS) + field(2, 100) + field(38, 90) + field(5, 95) + field(70, 3)
    (row,) = plain(decode(delimited(made), kind="goflow")[0])
    assert [row[name] // 10**9 for name in ("t_first", "t_last", "t_received")] == [90, 95, 100]
    assert row["domain"] is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "short"), (None, "short"), (b"not a message, but text that is long enough", "length"),
        (b"\x0a", "length"), (delimited(message(src_addr="192.0.2.1")), "not_ip"),
        (delimited(message(**ENDS) + field(6, bytes(5))), "not_ip"),
        (delimited(message(**ENDS) + field(21, 65_536)), "format"),
        (delimited(message(**ENDS) + b"\x0b"), "format"),
        (delimited(message(**ENDS) + b"\x48" + b"\xff" * 11), "format"),
        (delimited(message(**ENDS))[:-1], "length"), (bytes(2000), "size"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_counted_by_reason_and_the_rest_goes_on(value, reason):
    good = delimited(message(**ENDS, bytes=1))
    columns, refused = decode(good, value, good, most_bytes=1999)
    assert [row["bytes"] for row in plain(columns)] == [1, 1]
    assert refused == {reason: 1}


def test_more_records_than_a_call_has_room_for_come_in_pieces():
    value = delimited(*[message(**ENDS, bytes=n) for n in range(70_000)])
    columns, _ = decode(value, delimited(message(**ENDS, bytes=1)), most_bytes=8 << 20)
    assert [len(part["src"]) for part in columns] == [65_536, 4_465]
    assert np.concatenate([part["bytes"] for part in columns]).tolist() == [*range(70_000), 1]


numbers = st.sampled_from([*NUMBERS.values(), 2, 5, 8, 38, 127, 128, 3000])
cells = st.one_of(
    st.integers(0, 2**64 - 1), st.integers(0, 70_000), st.binary(max_size=20),
    st.sampled_from((bytes(4), bytes(16), b"\x0a\0\0\1")),
)  # fmt: skip
messages = st.lists(st.tuples(numbers, cells), max_size=12).map(
    lambda given: b"".join(field(n, v) for n, v in given)
)
whole = st.builds(lambda more, ends: (message(**ENDS) if ends else b"") + more, messages, st.booleans())
values = st.one_of(
    whole, whole.map(delimited), st.lists(whole, max_size=4).map(lambda m: delimited(*m)),
    st.binary(max_size=80), st.builds(lambda m, n: delimited(m)[:-n], whole, st.integers(1, 9)),
    st.builds(lambda m, junk: delimited(m) + junk, whole, st.binary(max_size=9)),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(values, max_size=6))
def test_it_agrees_with_the_plain_twin_on_any_bytes(given):
    columns, refused = decode(*given)
    want = [values_of(value) for value in given]
    assert plain(columns) == [expected(got, NOW + 5) for good, _ in want for got in good]
    assert refused == Counter(why for _, bad in want for why in bad)
