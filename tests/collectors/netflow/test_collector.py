"""Datagrams to rows: what every exporter's trick does to the columns, and what is counted."""

import struct
from ipaddress import ip_address

import pytest

from collectors.errors import ConfigError, Reason
from collectors.netflow.collector import mapped
from collectors.netflow.datagrams import STREAM
from collectors.netflow.records import State, records

PLAIN = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (22, 4), (21, 4))
CUT = (
    "ipfix-netscaler-with-variable-length-fields-2",
    "netflow-9-ipt-netflow-reduced-size-encoding",
    "ipfix-mikrotik-routeros-6-39-2",
    "netflow-9-cisco-asa-2",
    "ipfix",
)
UPTIME = 3_600_000
EXPORTED = 1_700_000_000 * 10**9


def ntp(seconds, part=0):
    """A Unix time as an NTP timestamp, with ``part`` of 2**32 of a second."""
    return (seconds + 2_208_988_800) << 32 | part


def plain(
    src="10.0.0.1",
    dst="192.0.2.9",
    sport=40000,
    dport=3333,
    octets=1000,
    first=UPTIME - 5000,
    last=UPTIME - 1000,
):
    return ip_address(src).packed + ip_address(dst).packed + struct.pack(
        ">HHBIIII", sport, dport, 6, octets, 10, first, last
    )  # fmt: skip


def address(row, name):
    found = ip_address(row[name])
    return str(found.ipv4_mapped or found)


def test_a_v5_record_fills_its_columns(make):
    one = ("10.0.0.1", "192.0.2.9", 40000, 3333, 10, 1000, UPTIME - 5000, UPTIME - 1000)
    got = make.replay([make.gathered(make.v5([one], sampling=0x4000 | 100, engine=0x0102))], ["10.0.0.0/8"])
    (row,) = got.rows
    wanted = {
        "src_port": 40000, "dst_port": 3333, "protocol": 6, "bytes": 1000, "packets": 10, "source": 5,
        "t_first": EXPORTED - 5 * 10**9, "t_last": EXPORTED - 10**9, "t_received": 1_700_000_001 * 10**9,
        "sampling_rate": 100, "domain": 0x0102, "template": 0, "input_interface": 3, "output_interface": 4,
        "src_as": 65001, "dst_as": 65002, "tcp_flags": 0x18, "tos": 0, "vlan": None, "reverse_bytes": None,
        "direction": None, "copy": 0, "candidate": 0, "collector": "netflow",
    }  # fmt: skip
    assert {k: row[k] for k in wanted} == wanted
    assert [address(row, n) for n in ("subscriber", "src", "dst", "exporter")] == [
        "10.0.0.1", "10.0.0.1", "192.0.2.9", "192.0.2.1",
    ]  # fmt: skip


def test_every_metric_that_moves_is_seen(make):
    wide = make.template(300, ((1, 8), (2, 8)))
    sets = (make.template(256, PLAIN), make.data_set(256, plain(), plain("203.0.113.1", "203.0.113.2")), wide)
    got = make.replay(
        [make.gathered(
            make.v9(make.data_set(256, plain())),
            make.v9(*sets, sequence=1),
            make.v9(make.data_set(300, bytes(16)), sequence=4),
            b"\0\5",
            b"\0\x08" + bytes(30),
            make.v9(b"\1\0\0\2", sequence=5),
        )],
        ["10.0.0.0/8"],
    )  # fmt: skip
    assert got.moved == {
        ("datagrams_total", "netflow9"): 4,
        ("bytes_total", "netflow9"): 53 + 142 + 40 + 24,
        ("refused_total", "short"): 1,
        ("refused_total", "version"): 1,
        ("refused_total", "length"): 1,
        ("records_total", "netflow9", "flow"): 3,
        ("records_total", "netflow9", "other"): 1,
        ("lost_total", "netflow9"): 2,
        ("gaps_total", "netflow9"): 1,
        ("domain_lost_total", "192.0.2.1", "7", "netflow9"): 2,
        ("sequence_domains", "standard"): 1,
        ("template_events_total", "new"): 2,
        ("templates",): 2,
        ("exporters",): 1,
        ("domains",): 1,
        ("held_total",): 1,
        ("decoded_late_total",): 1,
        ("rows_total",): 2,
        ("batches_total",): 9,
        ("not_home_total",): 1,
        ("exporter_heard_timestamp_seconds", "192.0.2.1"): 1_700_000_001_005_000_000 / 1e9,
        ("exporter_clock_skew_seconds", "192.0.2.1"): -1.0,
    }


def test_data_before_their_template_are_decoded_when_it_comes(make):
    early = make.ipfix(make.data_set(256, plain(sport=1), plain(sport=2)))
    got = make.replay([make.gathered(early, make.ipfix(make.template(256, PLAIN, 10)))])
    assert [row["src_port"] for row in got.rows] == [1, 2]
    assert got.moved["decoded_late_total",] == 1


def test_what_waits_for_a_template_is_bounded_and_ages(make):
    early = [make.v9(make.data_set(256, plain()), sequence=i) for i in range(40)]
    got = make.replay([make.gathered(*early)], held_bytes=4096)
    assert got.moved["dropped_total", "bytes"] + got.moved["held_total",] == 40
    assert got.moved["held_bytes",] <= 1024
    late = make.gathered(
        make.v9(make.template(256, PLAIN), sequence=40), t=(1_700_000_001 + 3600) * make.SECOND
    )
    aged = make.replay(
        [make.gathered(early[0]), make.gathered(b"\0\5", t=(1_700_000_001 + 3500) * make.SECOND), late]
    )
    assert aged.moved["dropped_total", "age"] == 1
    assert not aged.rows


def test_a_template_may_change_under_its_id_in_the_middle_of_a_datagram(make):
    other = tuple(reversed(PLAIN))
    turned = struct.pack(">IIIIBHH", UPTIME, UPTIME, 7, 777, 17, 53, 5353) + bytes(
        (192, 0, 2, 1, 10, 0, 0, 7)
    )
    got = make.replay(
        [make.gathered(
            make.v9(make.template(256, PLAIN), make.data_set(256, plain()), make.template(256, other),
                    make.data_set(256, turned)),
        )]
    )  # fmt: skip
    assert {(row["bytes"], row["protocol"], address(row, "src")) for row in got.rows} == {
        (1000, 6, "10.0.0.1"),
        (777, 17, "10.0.0.7"),
    }
    assert got.moved["template_events_total", "changed"] == 1


def test_a_withdrawn_template_is_gone(make):
    withdrawal = make.data_set(2, struct.pack(">HH", 256, 0))
    sets = make.template(256, PLAIN, 10), make.data_set(256, plain()), withdrawal, make.data_set(256, plain())
    over_tcp = [d._replace(port=STREAM | 4739) for d in make.gathered(make.ipfix(*sets))]
    got = make.replay([over_tcp])
    assert len(got.rows) == 1
    assert got.moved["template_events_total", "withdrawn"] == 1
    assert got.moved["held_total",] == 1


def test_a_withdrawal_over_udp_is_ignored_and_counted(make):
    withdrawal = make.data_set(2, struct.pack(">HHHH", 256, 0, 2, 0))
    sets = make.template(256, PLAIN, 10), make.data_set(256, plain()), withdrawal, make.data_set(256, plain())
    got = make.replay([make.gathered(make.ipfix(*sets))])
    assert len(got.rows) == 2
    assert got.moved["template_events_total", "withdrawal_ignored"] == 2
    assert ("template_events_total", "withdrawn") not in got.moved


def test_a_flood_of_templates_costs_only_those_that_no_data_used(make):
    used = make.v9(make.template(256, PLAIN), make.data_set(256, plain()))
    flood = [
        make.v9(*(make.template(n, PLAIN) for n in range(first, first + 20))) for first in range(300, 900, 20)
    ]
    again = make.v9(make.data_set(256, plain()))
    got = make.replay(
        [make.gathered(used), *([one] for one in make.gathered(*flood)), make.gathered(again)],
        most_templates_of_exporter=64,
    )
    assert len(got.rows) == 2
    assert got.moved["templates",] <= 64
    assert got.moved["template_events_total", "evicted"] > 0


def test_templates_belong_to_exporter_version_and_domain(make):
    one = make.v9(make.template(256, PLAIN), domain=1)
    data = make.data_set(256, plain())
    others = [
        *make.gathered(make.v9(data, domain=2), make.ipfix(data, domain=1)),
        *make.gathered(make.v9(data, domain=1), exporter=make.sixteen("192.0.2.77")),
    ]
    assert not make.replay([make.gathered(one), others]).rows
    assert len(make.replay([make.gathered(one, make.v9(data, domain=1))]).rows) == 1


def test_octets_that_do_not_go_with_packets_are_kept_and_counted(make):
    def record(packets, octets, sport):
        return ("10.0.0.1", "192.0.2.9", sport, 2, packets, octets, UPTIME - 5000, UPTIME - 1000)

    told = [record(10, 199, 1), record(10, 200, 2), record(10, 655_359, 3), record(10, 655_360 + 65535, 4),
            record(0, 500, 5), record(5, 0, 6)]  # fmt: skip
    got = make.replay([make.gathered(make.v5(told))], ["10.0.0.0/8", "192.0.2.0/24"], partitions=1)
    assert [(row["packets"], row["bytes"]) for row in got.rows] == [(r[4], r[5]) for r in told]
    assert got.moved["implausible_total", "few_octets"] == 1
    assert got.moved["implausible_total", "many_octets"] == 1


def test_no_record_counts_more_than_a_line_carries_in_its_time(make):
    ends = ip_address("10.0.0.1").packed + ip_address("192.0.2.9").packed
    most = 60_000 * 125_000

    fields = ((8, 4), (12, 4), (1, 8), (2, 8), (1, 8, 29305), (152, 8), (153, 8))
    now = 1_700_000_000_000

    def timed(octets, packets, back, seconds):
        return ends + struct.pack(">QQQQQ", octets, packets, back, now - 1000 * seconds, now)

    sets = make.template(256, fields, 10), make.template(257, fields[:4], 10)
    data = make.data_set(
        256, timed(2**63, 2**62, 2**61, 0), timed(most, 1 + most // 1500, most, 1),
        timed(3 * most, most, 7, 180), timed(2**64 - 1, 5, 7, 7000),
    )  # fmt: skip
    plainer = make.data_set(257, ends + struct.pack(">QQ", 100, 2))
    got = make.replay(
        [make.gathered(make.ipfix(*sets, data, plainer))], partitions=1, fastest_gigabits_per_s=1
    )
    assert [(row["bytes"], row["packets"], row["reverse_bytes"]) for row in got.rows] == [
        (most, most, most), (most, 1 + most // 1500, most), (3 * most, most, 7), (60 * most, 5, 7),
        (100, 2, None),
    ]  # fmt: skip
    assert got.moved["implausible_total", "line_rate"] == 2
    assert got.moved["implausible_total", "few_octets"] == 1


def test_exporters_are_bounded_and_may_be_listed(make):
    spray = [
        d for i in range(50) for d in make.gathered(make.v5(), exporter=make.sixteen(f"192.0.2.{i + 1}"))
    ]
    got = make.replay([spray], most_exporters=10)
    assert got.moved["exporters",] == 10
    assert got.moved["strangers_total", "no_room"] == 40
    assert make.replay([spray], exporters=("192.0.2.3",)).moved["strangers_total", "not_listed"] == 49
    with pytest.raises(ConfigError):
        mapped("router")


def test_uptimes_survive_the_wrap_of_49_days(make):
    one = ("10.0.0.1", "192.0.2.9", 1, 2, 1, 1, 2**32 - 2000, 3000)
    (row,) = make.replay([make.gathered(make.v5([one], uptime=5000))]).rows
    assert (row["t_first"], row["t_last"]) == (EXPORTED - 7 * 10**9, EXPORTED - 2 * 10**9)


@pytest.mark.parametrize(
    ("fields", "values", "first", "last"),
    [
        (((150, 4), (151, 4)), (1_699_999_990, 1_699_999_995), -10 * 10**9, -5 * 10**9),
        (((152, 8), (153, 8)), (1_699_999_990_123, 1_699_999_995_456), -9_877_000_000, -4_544_000_000),
        (((154, 8), (155, 8)), (ntp(1_699_999_990), ntp(1_699_999_995, 1 << 31)),
         -10 * 10**9, -4_500_000_000),
        (((154, 8), (155, 8)), (1_699_999_990_000_001, 1_699_999_995_000_000), -9_999_999_000, -5 * 10**9),
        (((156, 8), (157, 8)), (ntp(1_699_999_990, 1 << 30), ntp(1_699_999_995)),
         -9_750_000_000, -5 * 10**9),
        (((158, 4), (159, 4)), (3_000_000, 500_000), -3 * 10**9, -500_000_000),
        (((152, 8), (161, 4)), (1_699_999_990_000, 4000), -10 * 10**9, -6 * 10**9),
        (((153, 8), (162, 4)), (1_699_999_990_000, 4000), -10_004_000_000 + 0, -10 * 10**9),
        (((161, 4),), (4000,), -4 * 10**9, 0),
        (((22, 4), (21, 4)), (1000, 5000), -4 * 10**9, 0),
        (((22, 4), (21, 4), (160, 8)), (1000, 5000, 1_699_999_990_000), -9 * 10**9, -5 * 10**9),
        (((150, 4), (151, 4)), (0, 0), 0, 0),
        (((323, 8),), (1_699_999_990_000,), -10 * 10**9, -10 * 10**9),
        ((), (), 0, 0),
    ],
)  # fmt: skip
def test_every_kind_of_time_is_unix_nanoseconds(make, fields, values, first, last):
    widths = {1: "B", 2: "H", 4: "I", 8: "Q"}
    record = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + struct.pack(
        ">" + "".join(widths[w] for _, w in fields), *values
    )
    sets = make.template(256, ((8, 4), (12, 4), *fields), 10), make.data_set(256, record)
    (row,) = make.replay([make.gathered(make.ipfix(*sets))]).rows
    assert (row["t_first"] - EXPORTED, row["t_last"] - EXPORTED) == (first, last)


def test_uptimes_in_ipfix_are_placed_by_the_start_that_options_tell(make):
    options = make.template(400, ((149, 4), (160, 8)), 10, scopes=1)
    told = make.data_set(400, struct.pack(">IQ", 7, (1_700_000_000 - 3600) * 1000))
    flows = make.template(256, PLAIN, 10), make.data_set(256, plain())
    (row,) = make.replay([make.gathered(make.ipfix(options, told, *flows))]).rows
    assert (row["t_first"], row["t_last"]) == (EXPORTED - 5 * 10**9, EXPORTED - 10**9)


def test_sampling_is_by_sampler_else_by_domain(make):
    sampled = (*PLAIN, (48, 1))
    options = (
        make.template(400, ((1, 4), (48, 1), (50, 4)), scopes=1),
        make.template(401, ((1, 4), (34, 4)), scopes=1),
    )
    rates = [struct.pack(">IBI", 0, n, rate) for n, rate in ((1, 100), (2, 2000))]
    data = make.data_set(256, *(plain(sport=n) + bytes((n,)) for n in (1, 2, 3)))
    flows = make.template(256, sampled), make.template(257, PLAIN)
    first = make.v9(*options, make.data_set(400, *rates), *flows, data, make.data_set(257, plain(sport=9)))
    domain = make.v9(make.data_set(401, struct.pack(">II", 0, 50)), data, sequence=1)
    changed = make.v9(make.data_set(400, struct.pack(">IBI", 0, 1, 10)), data, sequence=2)
    got = make.replay([make.gathered(first, domain, changed)], partitions=1)
    assert [(row["src_port"], row["sampling_rate"]) for row in got.rows] == [
        (1, 100), (2, 2000), (3, None), (9, None), (1, 100), (2, 2000), (3, 50), (1, 10), (2, 2000), (3, 50),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "values", "rate"),
    [
        (((305, 4), (306, 4)), (1, 999), 1000),
        (((305, 4), (306, 4)), (1, 0), 1),
        (((309, 4), (310, 4)), (2, 1000), 500),
        (((305, 4),), (64,), 64),
        (((34, 4),), (512,), 512),
        (((302, 8), (305, 4), (306, 4)), (77, 1, 63), 64),
    ],
)
def test_every_encoding_of_a_rate_is_understood(make, fields, values, rate):
    widths = {4: "I", 8: "Q"}
    options = make.template(400, ((149, 4), *fields), 10, scopes=1)
    told = make.data_set(400, struct.pack(">I" + "".join(widths[w] for _, w in fields), 7, *values))
    (row,) = make.replay(
        [make.gathered(make.ipfix(options, told, make.template(256, PLAIN, 10), make.data_set(256, plain())))]
    ).rows
    assert row["sampling_rate"] == rate


def test_octets_that_no_record_can_be_are_counted_and_padding_is_not(make):
    fields = ((8, 4), (12, 4), (82, 65535), (1, 4))
    one = bytes((10, 0, 0, 1, 10, 0, 0, 2, 2, 65, 66, 0, 0, 0, 9))
    told = make.template(300, fields, 10), make.template(301, ((1, 0), (2, 0)), 10)

    def refused(*sets):
        got = make.replay([make.gathered(make.ipfix(*told, *sets))], partitions=1)
        state = State()
        rows = records(make.ipfix(*told, *sets), state, make.EXPORTER)
        assert got.moved.get(("refused_total", "length"), 0) == state.refused.get(Reason.LENGTH, 0)
        assert got.moved.get(("records_total", "ipfix", "flow"), 0) == len(rows)
        return len(rows), state.refused.get(Reason.LENGTH, 0)

    assert refused(make.data_set(300, one, one, bytes(3))) == (2, 0)
    assert refused(make.data_set(300, one, one[:-2], bytes(1))) == (1, 1)
    assert refused(make.data_set(300, one, one[:8] + b"\xff\xff\xff" + bytes(20))) == (1, 1)
    assert refused(make.data_set(300, one, bytes(12)), make.data_set(300, one[:8] + b"\x09" + bytes(8))) == (
        1,
        1,
    )
    assert refused(make.data_set(301, bytes(8)), make.data_set(301, one), make.data_set(300, one)) == (1, 1)


def test_reduced_wide_variable_reverse_and_enterprise_fields_share_a_record(make):
    fields = ((27, 16), (28, 16), (82, 65535), (1, 3), (2, 1), (1, 8, 29305), (2, 8, 29305),
              (6, 2, 29305), (99, 65535, 9),
              (6, 2), (10, 8), (58, 2), (61, 1), (136, 1), (152, 8), (210, 0))  # fmt: skip
    record = ip_address("2001:db8::1").packed + ip_address("2606::1").packed
    record += (
        b"\3eth"
        + (70000).to_bytes(3, "big")
        + b"\x09"
        + struct.pack(">QQH", 5, 6, 0x1B)
        + b"\xff\1\2"
        + bytes(258)
    )
    record += struct.pack(">HQHBBQ", 0x12, 77, 12, 1, 3, 1_699_999_999_000)
    sets = make.template(256, fields, 10), make.data_set(256, record, record)
    row, twin = make.replay([make.gathered(make.ipfix(*sets))]).rows
    wanted = {"bytes": 70000, "packets": 9, "reverse_bytes": 5, "reverse_packets": 6,
              "reverse_tcp_flags": 0x1B, "tcp_flags": 0x12, "input_interface": 77, "vlan": 12,
              "direction": 1, "end_reason": 3,
              "t_first": EXPORTED - 10**9}  # fmt: skip
    assert {k: row[k] for k in wanted} == wanted
    assert row == twin
    assert address(row, "subscriber") == "2001:db8::"


def test_columns_that_only_some_templates_fill_are_null_for_the_others(make):
    sets = make.template(256, PLAIN), make.template(257, (*PLAIN, (5, 1)))
    data = make.data_set(256, plain(sport=1)), make.data_set(257, plain(sport=2) + b"\7")
    got = make.replay([make.gathered(make.v9(*sets, *data))])
    assert {row["src_port"]: row["tos"] for row in got.rows} == {1: None, 2: 7}


def test_batches_cut_anywhere_give_the_same_rows_and_metrics(captures, make):
    def told(found):
        return sorted(tuple(sorted((k, str(v)) for k, v in row.items())) for row in found.every)

    for name in CUT:
        all_ = make.datagrams(captures / f"logstash-codec-netflow/{name}.pcap")
        whole = make.replay([all_])
        single = make.replay([[d] for d in all_], batch_datagrams=1)
        assert told(whole) == told(single), name
        moved = [{k: v for k, v in m.items() if k[0] != "batches_total"} for m in (whole.moved, single.moved)]
        assert moved[0] == moved[1], name


def test_sequence_gaps_late_datagrams_and_restarts_are_told_apart(make):
    def lost(*numbers, uptimes=()):
        uptimes = uptimes or [UPTIME + i * 1000 for i in range(len(numbers))]
        payloads = [make.v9(sequence=n, uptime=u) for n, u in zip(numbers, uptimes, strict=True)]
        moved = make.replay([make.gathered(*payloads)]).moved
        return tuple(
            int(moved.get((f"{k}_total", "netflow9"), 0)) for k in ("lost", "gaps", "late", "restarts")
        )

    assert lost(5, 6, 7) == (0, 0, 0, 0)
    assert lost(5, 6, 10) == (3, 1, 0, 0)
    assert lost(2**32 - 1, 0, 1) == (0, 0, 0, 0)
    assert lost(5, 7, 6, 8) == (0, 0, 1, 0), "what was overtaken is not lost"
    assert lost(100_000, 0, 1) == (0, 0, 0, 1)
    assert lost(100, 3, 4, uptimes=(UPTIME * 10, 1000, 2000)) == (0, 0, 0, 1)
    assert lost(100, 101, 102, uptimes=(2**32 - 500, 500, 1500)) == (0, 0, 0, 0), "an uptime that wraps"
    assert lost(*range(500, 510), *range(20)) == (0, 0, 0, 1), "a sequence that stays behind has begun anew"


def test_ipfix_counts_records_and_v5_flows(make):
    flows = make.template(256, PLAIN, 10), make.data_set(256, plain(), plain())
    got = make.replay([make.gathered(make.ipfix(*flows, sequence=10), make.ipfix(flows[1], sequence=17))])
    assert got.moved["lost_total", "ipfix"] == 5
    one = ("10.0.0.1", "192.0.2.9", 1, 2, 1, 1, 0, 0)
    got = make.replay([make.gathered(make.v5([one, one], sequence=100), make.v5([one], sequence=103))])
    assert got.moved["lost_total", "netflow5"] == 1


def test_an_exporters_clock_is_its_newest_record_and_waits_for_its_longest(make):
    late = plain(first=UPTIME - 1_800_000, last=UPTIME - 2000)
    ahead = plain(first=UPTIME, last=UPTIME + 86_400_000)
    got = make.replay([make.gathered(make.v9(make.template(256, PLAIN), make.data_set(256, late)))])
    (clock,) = got.batches[0][3].clocks
    assert (clock.source, clock.newest_ns, clock.delay_ns) == (
        "192.0.2.1",
        EXPORTED - 2 * 10**9,
        (1798 + 60) * 10**9,
    )
    sets = make.template(256, PLAIN), make.data_set(256, ahead)
    got = make.replay([make.gathered(make.v9(*sets))], clock_skew_s=0)
    (clock,) = got.batches[0][3].clocks
    assert (clock.newest_ns, clock.delay_ns) == ((1_700_000_001 + 60) * 10**9, (3600 + 60) * 10**9)


def test_what_was_learned_outlives_a_restart(make):
    options = make.template(401, ((1, 4), (34, 4)), scopes=1), make.data_set(401, struct.pack(">II", 0, 50))
    before = make.replay([make.gathered(make.v9(make.template(256, PLAIN), *options))])
    after = make.replay([make.gathered(make.v9(make.data_set(256, plain())))], saved=before.collector.saved())
    assert [row["sampling_rate"] for row in after.rows] == [50]
