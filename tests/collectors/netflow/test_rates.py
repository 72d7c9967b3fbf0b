"""Sampling: who may say a rate, for whom it holds, what is configured, and what is shown."""

import struct
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collectors.netflow import rates, sampling
from collectors.netflow.collector import Config
from collectors.netflow.overrides import Overrides, SamplingRate
from collectors.netflow.series import NamedCounter, RateGauge

PLAIN = ((8, 4), (12, 4), (10, 4), (7, 2), (1, 4), (2, 4))
NAMED = (*PLAIN, (48, 1))


def plain(interface=1, sport=1):
    return ip_address("10.0.0.1").packed + ip_address("192.0.2.9").packed + struct.pack(
        ">IHII", interface, sport, 1000, 10
    )  # fmt: skip


def rate_of(got):
    return [row["sampling_rate"] for row in got.rows]


def in_force(got):
    return {k[2:]: n for k, n in got.moved.items() if k[0] == "sampling_rate"}


@pytest.mark.parametrize(
    ("fields", "rate"),
    [
        ({34: 512}, 512), ({34: 512, 35: 1}, 512), ({48: 1, 49: 2, 50: 100}, 100), ({50: 7}, 7),
        ({305: 1, 306: 999}, 1000), ({305: 10, 306: 90}, 10), ({305: 64}, 64), ({305: 1, 306: 0}, 1),
        ({307: 100, 308: 900}, 10), ({307: 100}, 0), ({309: 2, 310: 1000}, 500), ({309: 2}, 0),
        ({304: 3, 309: 1, 310: 128}, 128), ({311: int.from_bytes(struct.pack(">d", 0.001), "big")}, 1000),
        ({311: int.from_bytes(struct.pack(">f", 0.25), "big")}, 4), ({311: 2**64 - 1}, 0), ({311: 0}, 0),
        ({34: 0, 50: 9}, 9), ({34: 2**40}, 2**32 - 1), ({}, 0), ({309: 0, 310: 9}, 0), ({305: 0, 306: 9}, 0),
    ],
)  # fmt: skip
def test_every_encoding_says_one_packet_in_so_many(fields, rate):
    assert sampling.rate(fields) == rate


@given(st.dictionaries(st.integers(-5, 400), st.integers(0, 2**64 - 1)))
def test_any_fields_say_a_rate_that_fits_or_none(fields):
    assert 0 <= sampling.rate(fields) <= sampling.MAX_RATE
    assert sampling.told(fields, 10, 7).rate == sampling.rate(fields)


@pytest.mark.parametrize(("header", "rate"), [(0x4000 | 100, 100), (0x8000 | 7, 7), (50, 50), (0xC000, None)])
def test_v5_tells_its_rate_beside_the_mode(make, header, rate):
    one = ("10.0.0.1", "192.0.2.9", 1, 2, 1, 1, 0, 0)
    assert rate_of(make.replay([make.gathered(make.v5([one], sampling=header))])) == [rate]


def test_a_rate_that_no_router_has_is_not_believed_whoever_says_it(make):
    by_options = make.template(400, ((1, 4), (34, 4)), scopes=1)
    named = make.template(257, (*PLAIN, (34, 4)))
    sets = (
        by_options, make.template(256, PLAIN), named,
        make.data_set(400, struct.pack(">II", 0, 100)), make.data_set(400, struct.pack(">II", 0, 2**32 - 1)),
        make.data_set(256, plain()), make.data_set(257, plain() + struct.pack(">I", 2**31)),
        make.data_set(257, plain() + struct.pack(">I", 200)),
    )  # fmt: skip
    got = make.replay([make.gathered(make.v9(*sets))], ["10.0.0.0/8"], partitions=1)
    assert rate_of(got) == [100, 100, 200]
    assert got.moved["sampling_rates_implausible_total", "options"] == 1
    assert got.moved["sampling_rates_implausible_total", "record"] == 1
    wide = make.replay([make.gathered(make.v9(*sets))], partitions=1, most_sampling_rate=2**32 - 1)
    assert rate_of(wide) == [2**32 - 1, 2**31, 200]


def test_a_rate_ages_when_its_exporter_tells_others_and_not_that_one(make):
    told = make.template(400, ((1, 4), (48, 1), (34, 4)), scopes=1), make.template(256, NAMED)
    hour = 3600

    def options(second, *rates):
        sets = make.data_set(400, *(struct.pack(">IBI", 0, n, rate) for n, rate in rates))
        return make.gathered(make.v9(*told, sets), t=(1_700_000_001 + second) * make.SECOND)

    def data(second):
        sets = make.data_set(256, plain() + b"\1", plain() + b"\2", plain() + b"\3")
        return make.gathered(make.v9(sets), t=(1_700_000_001 + second) * make.SECOND)

    lists = [options(0, (1, 10), (2, 20)), options(60, (3, 999)), data(61)]
    lists += [options(h * hour, (1, 10), (2, 20)) for h in range(1, 26)]
    got = make.replay([*lists, data(25 * hour + 120)], partitions=1)
    assert rate_of(got) == [10, 20, 999, 10, 20, None]
    once = make.replay([options(0, (1, 10), (2, 20)), data(25 * hour), data(26 * hour)], partitions=1)
    assert rate_of(once) == [10, 20, None] * 2, "who tells them once is believed"


def test_v9_scopes_say_for_whom_a_rate_holds(make):
    of_interface = make.template(400, ((2, 4), (34, 4)), scopes=1)
    of_system = make.template(401, ((1, 4), (34, 4)), scopes=1)
    data = make.data_set(256, plain(1), plain(2))
    first = make.v9(of_interface, make.data_set(400, struct.pack(">II", 2, 64)),
                    make.template(256, PLAIN), data, domain=1)  # fmt: skip
    system = make.v9(of_system, make.data_set(401, struct.pack(">II", 0, 1000)), data, domain=1, sequence=1)
    other = make.v9(make.template(256, PLAIN), data, domain=2)
    got = make.replay([make.gathered(first, system, other)], partitions=1)
    assert rate_of(got) == [None, 64, 1000, 64, 1000, 1000]
    assert in_force(got) == {
        ("1", ""): 1000, ("1", "interface 2"): 64, ("2", ""): 1000,
    }  # fmt: skip


def test_ipfix_says_it_by_interface_for_another_domain_and_for_all(make):
    by_interface = make.template(400, ((10, 4), (305, 4), (306, 4)), 10, scopes=1)
    by_domain = make.template(401, ((149, 4), (34, 4)), 10, scopes=1)
    flows, data = make.template(256, PLAIN, 10), make.data_set(256, plain(1), plain(2))
    sent = (
        make.ipfix(by_interface, make.data_set(400, struct.pack(">III", 2, 1, 99)), flows, data, domain=7),
        make.ipfix(
            by_domain, make.data_set(401, struct.pack(">II", 8, 33), struct.pack(">II", 0, 5)), domain=0
        ),
        make.ipfix(flows, data, domain=8),
        make.ipfix(flows, data, domain=9),
    )
    got = make.replay([make.gathered(*sent)], partitions=1)
    assert rate_of(got) == [None, 100, 33, 33, 5, 5]


def test_a_sampler_that_one_domain_tells_holds_for_records_of_another(make):
    options = make.template(400, ((1, 4), (48, 1), (50, 4)), scopes=1)
    told = make.data_set(400, struct.pack(">IBI", 0, 3, 77), struct.pack(">IBI", 0, 4, 88))
    data = make.data_set(256, plain() + b"\3", plain() + b"\4", plain() + b"\5")
    got = make.replay(
        [make.gathered(make.v9(options, told, domain=0), make.v9(make.template(256, NAMED), data, domain=1))]
    )
    assert rate_of(got) == [77, 88, None]


def test_records_may_carry_their_own_interval(make):
    data = make.data_set(256, plain() + struct.pack(">II", 1, 19))
    got = make.replay([make.gathered(make.ipfix(make.template(256, (*PLAIN, (305, 4), (306, 4)), 10), data))])
    assert rate_of(got) == [20]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([{"rate": 9}], [9, 9, 9]),
        ([{"rate": 9, "when": "when_silent"}], [64, 100, 9]),
        ([{"rate": 9, "exporter": "192.0.2.0/24"}, {"rate": 8}], [9, 9, 9]),
        (
            [{"rate": 9, "exporter": "192.0.2.1", "domain": 7}, {"rate": 8, "exporter": "192.0.2.1"}],
            [9, 9, 9],
        ),
        ([{"rate": 9, "exporter": "198.51.100.0/24"}], [64, 100, None]),
        ([{"rate": 9, "domain": 8}], [64, 100, None]),
        ([{"rate": 9, "interface": 3}], [64, 100, 9]),
        ([{"rate": 9, "interface": 2}, {"rate": 5}], [5, 9, 5]),
        ([{"rate": 9, "interface": 2, "when": "when_silent"}, {"rate": 5}], [5, 9, 5]),
        ([{"rate": 9, "interface": 2, "when": "when_silent"}], [64, 100, None]),
    ],
)
def test_what_is_configured_wins_or_fills_in(make, rows, wanted):
    by_sampler = make.template(400, ((1, 4), (48, 1), (50, 4)), scopes=1)
    by_interface = make.template(401, ((2, 4), (34, 4)), scopes=1)
    sets = (
        by_sampler, make.data_set(400, struct.pack(">IBI", 0, 1, 64), struct.pack(">IBI", 0, 9, 65)),
        by_interface, make.data_set(401, struct.pack(">II", 2, 100)), make.template(256, NAMED),
        make.data_set(256, plain(1) + b"\1", plain(2) + b"\0", plain(3) + b"\0"),
    )  # fmt: skip
    config = tuple(SamplingRate(**row) for row in rows)
    got = make.replay([make.gathered(make.v9(*sets))], partitions=1, sampling=config)
    assert rate_of(got) == wanted
    assert all(row["bytes"] == 1000 for row in got.rows), "figures stay as they were exported"


def test_what_is_configured_holds_for_fixed_layouts_too(make):
    one = ("10.0.0.1", "192.0.2.9", 1, 2, 1, 1, 0, 0)
    for header, when, wanted in ((100, "always", 9), (100, "when_silent", 100), (0, "when_silent", 9)):
        got = make.replay(
            [make.gathered(make.v5([one], sampling=header))], sampling=(SamplingRate(rate=9, when=when),)
        )
        assert rate_of(got) == [wanted]
    # The record of the test comes in by interface 3.
    got = make.replay(
        [make.gathered(make.v5([one], sampling=100))], sampling=(SamplingRate(rate=9, interface=3),)
    )
    assert rate_of(got) == [9]
    assert in_force(got) == {("0", ""): 100, ("0", "interface 3"): 9}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"rate": 0}, "rate"), ({}, "rate"), ({"rate": 1, "exporter": "router1"}, "exporter"),
        ({"rate": 1, "exporter": "192.0.2.1/24"}, "host bits"), ({"rate": 1, "when": "never"}, "when"),
        ({"rate": 1, "interface": -1}, "interface"), ({"rate": 1, "domian": 1}, "domian"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused_by_name(row, why):
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert({"sampling": [row]}, Config)


@given(told=st.integers(0, 9), interface=st.integers(0, 3))
def test_the_rate_for_one_record_is_that_of_the_tables(told, interface):
    rows = SamplingRate(rate=5, when="when_silent"), SamplingRate(rate=7, interface=2)
    found = Overrides(rows).rate(bytes(16), 0, interface, told)
    assert found == (7 if interface == 2 else told or 5)


def test_a_flood_of_samplers_is_bounded_and_counted(make):
    options = make.template(400, ((1, 4), (48, 4), (50, 4)), scopes=1)
    flood = [
        make.v9(options, make.data_set(400, *(struct.pack(">III", 0, n, 10) for n in range(i, i + 100))))
        for i in range(0, 6000, 100)
    ]
    got = make.replay([make.gathered(*flood)])
    assert got.moved["sampling_rates_refused_total",] >= 6000 - rates.MOST_OF_EXPORTER
    assert len(in_force(got)) <= 1024
    assert got.moved["sampling_rates_hidden_total",] > 0


def test_series_are_bounded_and_give_their_room_back():
    registry = CollectorRegistry()
    gauge = RateGauge(registry, "x", most=2)
    gauge.show("a", "1", {"": 5, "1": 6})
    gauge.show("b", "1", {"": 7})
    assert registry.get_sample_value("x_sampling_rates_hidden_total") == 1
    gauge.forget("a", "1")
    gauge.show("b", "1", {"": 7})
    assert registry.get_sample_value("x_sampling_rate", {"exporter": "b", "domain": "1", "sampler": ""}) == 7
    counted = NamedCounter(registry, "y", "told", ("who",), most=1)
    for who in ("a", "b", "c", "b"):
        counted.inc((who,))
    assert registry.get_sample_value("y_total", {"who": "other"}) == 3
    counted.forget(("a",))
    counted.inc(("c",))
    assert registry.get_sample_value("y_total", {"who": "a"}) is None
    assert registry.get_sample_value("y_total", {"who": "c"}) == 1
