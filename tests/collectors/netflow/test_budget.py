"""What a hostile exporter may cost in answers from Python, and that nobody else pays for it."""

import struct
from collections import Counter
from ipaddress import ip_address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.netflow import budget, options, sampling
from collectors.netflow.budget import A_TEMPLATES, A_WORDS, P_OWN, P_REFUSED, P_SURE, Budget, Purses, paid
from collectors.netflow.knowledge import Knowledge
from collectors.netflow.readers import cut
from collectors.netflow.tables import Tables
from collectors.netflow.templates import Field, Template

PLAIN = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (22, 4), (21, 4))
START = 1_700_000_000
OCTETS = 16_000
SMALL = Budget(of_exporter=3000, of_exporter_per_s=300, in_all=9000, in_all_per_s=1500)
SECONDS = 6


def plain(sport=1):
    return ip_address("10.0.0.1").packed + ip_address("192.0.2.9").packed + struct.pack(
        ">HHBIIII", sport, 3333, 6, 1000, 10, 1000, 1000
    )  # fmt: skip


def raw_set(number, body):
    return struct.pack(">HH", number, 4 + len(body)) + body


def two_octets(make, salt):
    rates = b"".join(struct.pack(">H", 1 + (n * 7 + salt) % 65000) for n in range(OCTETS // 2))
    return [make.v9(make.template(600, ((1, 0), (34, 2)), scopes=1), raw_set(600, rates))]


def one_field(make, salt):
    told = (struct.pack(">HHHH", 256 + n, 1, 1 + (n + salt) % 400, 4) for n in range(OCTETS // 8))
    return [make.v9(raw_set(0, b"".join(told)))]


def one_field_each(make, salt):
    told = (struct.pack(">HHHH", 256 + n, 1, 1 + (n + salt) % 400, 4) for n in range(OCTETS // 12))
    return [make.v9(*(raw_set(0, one) for one in told))]


def many_fields(make, salt):
    fields = tuple((1 + (n + salt) % 400, 4) for n in range(1000))
    return [make.v9(*(make.template(256 + n, fields) for n in range(OCTETS // 4000)))]


def the_same_again(make, salt):
    return [make.v9(*[make.template(256, ((1, 4),))] * (OCTETS // 12))]


def without_template(make, salt):
    return [make.v9(*(raw_set(700 + n % 5, b"x") for n in range(OCTETS // 5)))]


def news(make, salt):
    told = make.template(256, PLAIN), make.template(600, ((1, 0), (34, 4)), scopes=1)
    each = (
        make.data_set(256, plain()) + raw_set(600, struct.pack(">I", 1 + n + salt))
        for n in range(OCTETS // 41)
    )
    return [make.v9(*told, *each)]


def new_domains(make, salt):
    return [make.v9(domain=salt * 10_000 + n) for n in range(OCTETS // 20)]


def withdrawals(make, salt):
    return [make.ipfix(raw_set(2, struct.pack(">HHHH", 2, 0, 3, 0) * (OCTETS // 8)))]


SHAPES = (two_octets, one_field, one_field_each, many_fields, the_same_again, without_template, news,
          new_domains, withdrawals)  # fmt: skip


def good(make, second, exporter):
    """A router that tells its templates and rates anew each second, and eight records in two datagrams."""
    options_told = make.template(500, ((1, 4), (34, 4)), scopes=1)
    told = make.v9(
        make.template(256, PLAIN), options_told, make.data_set(500, struct.pack(">II", 0, 100 + second)),
        make.data_set(256, *(plain(n) for n in range(4))), sequence=2 * second,
    )  # fmt: skip
    more = make.v9(make.data_set(256, *(plain(n) for n in range(4, 8))), sequence=2 * second + 1)
    return make.gathered(told, more, exporter=exporter, t=(START + second) * make.SECOND + 500_000_000)


@pytest.fixture
def answered(monkeypatch):
    """How often Python was asked, by what for."""
    count = Counter()

    def counted(kind, of, name):
        inner = getattr(of, name)

        def outer(*given, **more):
            count[kind] += 1
            return inner(*given, **more)

        monkeypatch.setattr(of, name, outer)

    for name in ("templates_told", "_hear", "unknown", "options_of", "_told", "_withdraw"):
        counted(name, Knowledge, name)
    counted("domain", Tables, "domain")
    return count


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.__name__)
def test_a_flood_is_answered_within_its_budget_and_the_neighbour_loses_nothing(make, answered, shape):
    lists = []
    router = make.sixteen("192.0.2.7")
    for second in range(SECONDS):
        at = (START + second) * make.SECOND
        for part in range(4):
            flood = shape(make, 10 * second + part)
            lists.append([d._replace(t_ns=at + i) for i, d in enumerate(make.gathered(*flood))])
        lists.append(good(make, second, router))
    got = make.replay(lists, budget=SMALL, partitions=1)
    mine = [row for row in got.rows if row["exporter"] == router]
    assert [row["src_port"] for row in mine] == [*range(8)] * SECONDS
    assert [row["sampling_rate"] for row in mine] == [100 + s for s in range(SECONDS) for _ in range(8)]
    # What the flood may spend, at a word an item, and what the router asks for.
    most = SMALL.of_exporter + SMALL.of_exporter_per_s * SECONDS + 16 * SECONDS
    assert sum(answered.values()) <= most
    assert sum(n for k, n in got.moved.items() if k[0] == "over_budget_total") > 0
    assert ("exporter_over_budget_total", "192.0.2.7") not in got.moved


@pytest.mark.parametrize("shape", [one_field, two_octets, without_template], ids=lambda s: s.__name__)
def test_many_who_flood_together_leave_the_router_its_share(make, answered, shape):
    """Each within its own purse, all together beyond what there is."""
    router, lists = make.sixteen("192.0.2.7"), []
    # It was known for a while before: its sure words are saved.
    lists += [good(make, second, router) for second in range(SECONDS)]
    later = START + 300
    for second in range(300, 300 + SECONDS):
        for n in range(30):
            flood = make.gathered(*shape(make, second), exporter=make.sixteen(f"198.51.100.{n}"))
            lists.append([d._replace(t_ns=(START + second) * make.SECOND + n) for d in flood])
        lists.append(good(make, second, router))
    got = make.replay(lists, budget=SMALL, partitions=1)
    rates = [
        r["sampling_rate"] for r in got.rows if r["exporter"] == router and r["t_received"] >= later * 10**9
    ]
    assert rates == [100 + s for s in range(300, 300 + SECONDS) for _ in range(8)]
    # All words, and as many again as sure ones, and debts of sets that were begun.
    most = 2 * (SMALL.in_all + SMALL.in_all_per_s * (SECONDS + 1)) + 31 * 512 + 16 * 2 * SECONDS
    assert sum(answered.values()) <= most


def test_data_records_are_read_whatever_the_purse_says(make):
    first = make.gathered(make.v9(make.template(256, PLAIN), make.data_set(256, plain())))
    flood = [make.v9(make.template(300 + n, PLAIN), make.data_set(256, plain())) for n in range(200)]
    got = make.replay([first, make.gathered(*flood)], budget=Budget(of_exporter=300, of_exporter_per_s=1))
    assert len(got.rows) == 201
    assert got.moved["over_budget_total", "templates"] > 150


def test_a_heavy_routers_start_is_within_the_default(make):
    wide = tuple((n, 4) for n in range(1, 34))
    every = [make.template(256 + n, (*wide, (400 + n, 2))) for n in range(900)]
    templates = [make.v9(*every[n : n + 9], sequence=n // 9) for n in range(0, 900, 9)]
    named = make.template(2000, ((1, 4), (48, 2), (34, 4)), scopes=1)
    samplers = [
        make.v9(
            named,
            make.data_set(2000, *(struct.pack(">IHI", 0, n + i, 10) for i in range(100))),
            sequence=200 + n,
        )
        for n in range(0, 4000, 100)
    ]
    interfaces = make.v9(
        make.template(2001, ((2, 4), (82, 32)), scopes=1),
        *[make.data_set(2001, bytes(36 * 30))] * 100,
        sequence=9999,
    )
    got = make.replay([make.gathered(*templates, *samplers, interfaces)])
    assert not [k for k in got.moved if k[0] == "over_budget_total"]
    assert got.moved["templates",] == 902
    assert got.moved["records_total", "netflow9", "options"] == 4000 + 3000


def test_what_is_repeated_is_not_read_again_nor_paid_twice(make, answered):
    told = make.v9(*(make.template(256 + n, PLAIN) for n in range(20)))
    repeats = [[d] for d in make.gathered(*[told] * 100)]
    got = make.replay(repeats, budget=Budget(of_exporter=20_000, of_exporter_per_s=1))
    assert answered["_hear"] == 20
    assert answered["templates_told"] == 2000
    assert not [k for k in got.moved if k[0] == "over_budget_total"]


def test_a_set_of_no_octets_is_nothing_to_wait_for(make):
    got = make.replay([make.gathered(make.v9(*[raw_set(300, b"")] * 5))])
    assert ("held_total",) not in got.moved


def test_options_beyond_the_budget_are_counted_as_records_all_the_same(make):
    told = make.template(600, ((1, 0), (34, 2)), scopes=1), raw_set(600, bytes(800))
    got = make.replay([make.gathered(make.v9(*told))], budget=Budget(of_exporter=30))
    assert got.moved["records_total", "netflow9", "options"] == 400
    assert got.moved["over_budget_total", "options"] == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 700), st.integers(0, 2)), max_size=60))
def test_nobody_spends_more_than_there_is(asked):
    purses = Purses(Budget(of_exporter=1000, of_exporter_per_s=100, in_all=1500, in_all_per_s=200))
    for number in range(4):
        purses.enter(number)
    spent, second = Counter(), 0
    twin = {n: [1000, 0] for n in range(4)}
    common = 1500
    purses.fill(0, 4)
    for who, cost, passed in asked:
        second += passed
        purses.fill(second * 10**9, 4)
        if passed:
            common = min(common + 200 * passed, 1500)
            twin = {n: [min(o + 100 * passed, 1000), min(s + 50 * passed, 512)] for n, (o, s) in twin.items()}
        own, sure = twin[who]
        want = own >= cost and (common >= cost or sure >= cost)
        if want:
            twin[who][0] -= cost
            if common >= cost:
                common -= cost
            else:
                twin[who][1] -= cost
        assert paid(purses.each, purses.common, who, cost, A_TEMPLATES) == want
        spent[who] += cost * want
        assert purses.each[who, [P_OWN, P_SURE]].tolist() == twin[who]
        assert purses.common[A_WORDS] == common
    assert all(spent[n] <= 1000 + 100 * second for n in range(4))
    assert sum(spent.values()) <= 1500 + 2 * 200 * second
    assert purses.refused()["templates"] == sum(purses.refused_of().values())
    assert not purses.each[:, P_REFUSED].any()


def test_purses_are_made_for_any_number_of_exporters():
    purses = Purses(Budget(), 4096)
    for number in range(100):
        purses.enter(number)
    assert purses.each[99].tolist() == [65536, 0, 1024, 0]
    purses.spend(99, 70_000)
    assert purses.each[99, P_OWN] < 0
    assert not paid(purses.each, purses.common, 99, 1, A_TEMPLATES)
    assert dict(zip(budget.REFUSED, (1, 0, 0, 0), strict=True)).items() <= purses.refused().items()


FIELDS = st.builds(Field, st.sampled_from([1, 2, 10, 34, 48, 50, 130, 149, 302, 305, 306, 309, 310, 160]),
                   st.sampled_from([0, 1, 2, 4, 8, 16, 65535]), st.sampled_from([0, 0, 0, 9]))  # fmt: skip


@given(st.lists(FIELDS, min_size=1, max_size=5), st.integers(0, 2), st.sampled_from([9, 10]),
       st.lists(st.integers(0, 3), max_size=60))  # fmt: skip
def test_distinct_records_say_what_all_of_them_say(fields, scopes, version, octets):
    """The twin reads every field of every record."""
    template = Template(version, 300, tuple(fields), True, min(scopes, len(fields)), repr(fields).encode())
    body = bytes(octets)

    def number(i, f):
        return -f.number if version == 9 and i < template.scopes and f.number <= 5 else f.number

    every = [
        {
            number(i, f): int.from_bytes(raw[i], "big")
            for i, f in enumerate(fields)
            if not f.enterprise and 0 < len(raw[i]) <= 8 and number(i, f) in sampling.READ
        }
        for raw in cut(template, body)
    ]
    count, found = options.read(template, body)
    assert count == len(every)
    last = {tuple(sorted(said.items())): i for i, said in enumerate(every)}
    order = [last[tuple(sorted(said.items()))] for said in found]
    assert set(order) == set(last.values())
    # The last of equals is in its place.
    kept = {tuple(sorted(said.items())): i for i, said in enumerate(found)}
    assert sorted(kept.values()) == [kept[k] for k in sorted(last, key=last.get)]
    assert np.all(np.array([len(said) for said in found]) <= len(fields))


def test_only_options_that_say_a_number_we_use_stop_the_walk():
    def of(*fields):
        return Template(10, 300, tuple(Field(*f) for f in fields), True, 1)

    assert options.tells(of((149, 4), (34, 4)))
    assert options.tells(of((149, 4), (34, 65535)))
    assert not options.tells(of((149, 4), (34, 0)))
    assert not options.tells(of((149, 4), (34, 16)))
    assert not options.tells(of((149, 4), (34, 4, 9)))
    assert not options.tells(of((149, 4), (82, 32)))
