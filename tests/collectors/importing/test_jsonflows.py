"""pmacct's and goflow2's JSON into columns."""

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import numpy as np
import pytest
from flowmessages import plain
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.importing.jsonflows import KINDS, Decoder, instant

NOW = 1_795_348_800 * 10**9
PMACCT = {
    "event_type": "purge", "peer_ip_src": "192.0.2.1", "iface_in": 3, "iface_out": 4,
    "ip_src": "198.51.100.7", "ip_dst": "2001:db8::1", "port_src": 40_000, "port_dst": 3333,
    "ip_proto": "tcp", "tcp_flags": "24", "tos": 0, "as_src": 64_500, "as_dst": 0, "vlan": 12,
    "sampling_rate": 1000, "export_proto_sysid": 9, "packets": 300, "bytes": 1 << 40,
    "timestamp_start": "2026-11-22 12:00:00.000001", "timestamp_end": "2026-11-22 12:01:00.500000",
    "timestamp_arrival": "2026-11-22 12:01:02.000000", "writer_id": "default_kafka/1",
}  # fmt: skip
GOFLOW2 = {
    "type": "NETFLOW_V9", "time_received_ns": NOW, "sequence_num": 3, "sampling_rate": 0,
    "sampler_address": "192.0.2.1", "time_flow_start_ns": NOW - 5, "time_flow_end_ns": NOW - 2, "bytes": 1500,
    "packets": 2, "src_addr": "198.51.100.7", "dst_addr": "51.15.2.3", "etype": "IPv4", "proto": "TCP",
    "src_port": 40_000, "dst_port": 3333, "in_if": 1, "out_if": 0, "src_mac": "00:00:00:00:00:00",
    "tcp_flags": 24, "observation_domain_id": 0, "src_net": "0.0.0.0/0",
}  # fmt: skip


def decode(*values, kind="pmacct", **more):
    decoder = Decoder(kind, **more)
    given = [json.dumps(v).encode() if isinstance(v, dict | list) else v for v in values]
    return plain(decoder.decode(given, np.full(len(given), NOW + 5))), decoder.refused()


def test_every_key_of_pmacct_goes_into_its_column():
    (row,), refused = decode(PMACCT)
    assert not refused
    assert row["src"][12:] == bytes((198, 51, 100, 7))
    assert row["dst"] == bytes.fromhex("20010db8000000000000000000000001")
    assert row["exporter"][10:] == b"\xff\xff\xc0\0\2\1"
    told = {k: v for k, v in row.items() if k not in ("src", "dst", "exporter")}
    assert told == {
        "src_port": 40_000, "dst_port": 3333, "protocol": 6, "bytes": 1 << 40, "packets": 300, "source": 20,
        "t_first": NOW + 1000, "t_last": NOW + 60_500_000_000, "t_received": NOW + 62 * 10**9,
        "sampling_rate": 1000, "input_interface": 3, "output_interface": 4, "src_as": 64_500, "dst_as": 0,
        "tos": 0, "tcp_flags": 24, "vlan": 12, "domain": 9,
    }  # fmt: skip


def test_missing_keys_are_null_and_times_are_kafkas():
    (row,), _ = decode({"ip_src": "198.51.100.7", "ip_dst": "51.15.2.3", "bytes": 5})
    assert {row["t_first"], row["t_last"], row["t_received"]} == {NOW + 5}
    assert row["exporter"] is row["sampling_rate"] is row["tcp_flags"] is row["domain"] is row["tos"] is None
    assert (row["bytes"], row["packets"], row["protocol"]) == (5, 0, 0)


def test_goflow2_has_its_own_keys():
    (row,), refused = decode(GOFLOW2, kind="goflow2-json")
    assert not refused
    assert (row["bytes"], row["protocol"], row["tcp_flags"], row["sampling_rate"]) == (1500, 6, 24, None)
    assert (row["t_first"], row["t_last"], row["t_received"]) == (NOW - 5, NOW - 2, NOW)
    assert (row["input_interface"], row["output_interface"], row["domain"]) == (1, None, 0)


def test_several_objects_a_value_on_lines_and_in_an_array():
    one, two = PMACCT | {"bytes": 1}, PMACCT | {"bytes": 2}
    lines = b"\n".join(json.dumps(r).encode() for r in (one, two)) + b"\n"
    rows, refused = decode(lines, [one, two], [], b"  " + json.dumps(one).encode())
    assert [row["bytes"] for row in rows] == [1, 2, 1, 2, 1]
    assert not refused


def test_what_is_no_purge_is_no_record():
    rows, refused = decode({"event_type": "purge_init", "writer_id": "x"}, PMACCT)
    assert (len(rows), refused) == (1, {})


@pytest.mark.parametrize(
    ("changes", "column", "value"),
    [
        ({"ip_proto": 17}, "protocol", 17), ({"ip_proto": "17"}, "protocol", 17),
        ({"ip_proto": "ipv6-icmp"}, "protocol", 58), ({"ip_proto": "UDP"}, "protocol", 17),
        ({"ip_proto": "no such thing"}, "protocol", 0), ({"tcp_flags": 18}, "tcp_flags", 18),
        ({"tcp_flags": ["SYN", "ACK"]}, "tcp_flags", 18), ({"tcp_flags": []}, "tcp_flags", None),
        ({"tcp_flags": "0"}, "tcp_flags", None), ({"port_src": "8080"}, "src_port", 8080),
        ({"packets": "12"}, "packets", 12), ({"sampling_rate": 0}, "sampling_rate", None),
        ({"peer_ip_src": ""}, "exporter", None), ({"iface_in": 0}, "input_interface", 0),
    ],
)  # fmt: skip
def test_forms_of_a_value(changes, column, value):
    (row,), refused = decode(PMACCT | changes)
    assert not refused
    assert row[column] == value


@pytest.mark.parametrize(
    ("told", "ns"),
    [
        ("2026-11-22 12:00:00.000000", NOW), ("2026-11-22 12:00:00", NOW), ("2026-11-22T12:00:00Z", NOW),
        ("2026-11-22T13:00:00.25+01:00", NOW + 250_000_000),
        ("2026-11-22T12:00:00.123456789Z", NOW + 123456789),
        (NOW // 10**9, NOW), (str(NOW // 10**9), NOW), (f"{NOW // 10**9}.052000", NOW + 52_000_000),
        (NOW / 1e9 + 0.5, NOW + 500_000_000), (0, 0), ("", 0), ("0.000000", 0),
    ],
)  # fmt: skip
def test_stamps_come_in_every_form(told, ns):
    assert instant(told) == ns


@given(st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1)), st.integers(-23, 23))  # noqa: DTZ001
def test_a_stamp_is_what_the_standard_library_makes_of_it(at, hours):
    zone = timezone(timedelta(hours=hours))
    for made in (at.replace(tzinfo=UTC), at.replace(tzinfo=zone)):
        whole = int(made.replace(microsecond=0).timestamp()) * 10**9 + made.microsecond * 1000
        assert instant(made.isoformat()) == whole
    assert instant(f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond:06d}") == instant(
        at.replace(tzinfo=UTC).isoformat()
    )


BROKEN = [
    (b"", "short"), (b"  \n", "short"), (None, "short"), (b"text", "format"), (b"{", "format"),
    (b"\xff\xfe", "format"),
    (b"[1]", "schema"), (b"null", "schema"), (b"[" * 100_000, "schema"), (b'{"a":' * 100_000, "format"),
    (b" " * 2_000_000 + b"{}", "size"), (PMACCT | {"ip_src": "somewhere"}, "not_ip"), ({}, "not_ip"),
    (PMACCT | {"port_src": 65_536}, "schema"), (PMACCT | {"bytes": -1}, "schema"),
    (PMACCT | {"bytes": {"a": 1}}, "schema"), (PMACCT | {"timestamp_end": "yesterday"}, "format"),
    (PMACCT | {"timestamp_end": 1e300}, "format"), (PMACCT | {"ip_proto": 256}, "format"),
    (PMACCT | {"tcp_flags": "x"}, "format"), (PMACCT | {"ip_proto": "9" * 5000}, "format"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_what_cannot_be_read_is_counted_by_reason_and_the_rest_goes_on(value, reason):
    rows, refused = decode(PMACCT, value, PMACCT)
    assert len(rows) == 2
    assert refused == {reason: 1}


def test_of_a_value_only_what_is_broken_is_lost():
    bad = PMACCT | {"port_src": -1}
    assert len(decode([PMACCT, bad, PMACCT])[0]) == 2
    lines = b"\n".join((json.dumps(PMACCT).encode(), b"{oops", json.dumps(PMACCT).encode()))
    rows, refused = decode(lines)
    assert (len(rows), refused) == (2, {"format": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70)

    | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
    | st.sampled_from(["tcp", "192.0.2.1", "::1", "2026-11-22 12:00:00.000000", 6, 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_of_any_key_is_read_or_refused(kind, data):
    base = PMACCT if kind == "pmacct" else GOFLOW2
    keys = st.sampled_from([f.name for f in msgspec.structs.fields(KINDS[kind].record)])
    records = data.draw(st.lists(st.dictionaries(keys, json_values, max_size=4), min_size=1, max_size=4))
    rows, refused = decode(*(base | r for r in records), kind=kind)
    skipped = sum(r.get("event_type", "purge") != "purge" for r in records if kind == "pmacct")
    assert len(records) - skipped <= len(rows) + sum(refused.values()) <= len(records)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.text('{}[]":,0ae\n ', max_size=20).map(str.encode), max_size=5))
def test_any_bytes_are_read_or_refused(given):
    rows, _ = decode(*given)
    assert not rows
