"""Floods of connections of one packet: what they may cost, and that no miner is lost beside them."""

import msgspec
import pytest
import spoken
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_rows import MAPPED, batch, row
from spoken import SECOND, Talk

from detector.admission import Budget
from detector.observers.payload import Config, PayloadObserver
from detector.tracks import Purses, State

TIGHT = Budget(of_subscriber=8, of_subscriber_per_s=2, in_all=32, in_all_per_s=4)
LINE = b'{"id":1,"method":"mining.subscribe","params":[]}\n'
BEGAN = 1_700_000_000 * SECOND


def flood(count, *, addresses=1, over_s=10, end=200):
    """Connections of one packet, from so many addresses of 198.51.(end).0."""
    out = []
    for n in range(count):
        who = MAPPED + bytes([198, 51, end, n % addresses])
        out.append(row(
            subscriber=who, src=who, src_port=1024 + n, dst=MAPPED + bytes([203, 0, 113, 9]), seq=n * 7919,
            data=LINE, t=BEGAN + n * over_s * SECOND // count,
        ))  # fmt: skip
    return out


def spoken_by(miner, at_s=0, port=40000):
    talk = Talk(miner=miner, port=port)
    talk.now += at_s * SECOND
    return talk.rows, spoken.btc(talk)


def together(*given):
    return sorted((r for rows in given for r in rows), key=lambda r: r["t"])


def seen(rows, budget=TIGHT, step=7):
    observer = PayloadObserver(Config(budget=budget))
    told = {}
    for at in range(0, len(rows), step):
        for e in observer.step(batch(rows[at : at + step])).evidence:
            key = e.subscriber, e.kind
            told[key] = told.get(key, 0) + e.count
    return observer, told


def turned_away(observer):
    return observer.admission.stats.turned_away


def test_a_flood_from_one_address_begins_no_more_than_its_budget():
    observer, _ = seen(flood(1000))
    # The first is free; then 8 at once and 2 a second, for 10 seconds.
    assert observer.stats.opened == 1 + 8 + 19
    assert turned_away(observer) == {"subscriber": 1000 - 28, "all": 0}


def test_a_flood_from_many_addresses_begins_no_more_than_the_budget_of_all():
    observer, _ = seen(flood(1000, addresses=250))
    assert observer.stats.opened == 32 + 39
    assert turned_away(observer) == {"subscriber": 0, "all": 1000 - 71}


def test_little_is_turned_away_nowhere_by_default():
    observer, _ = seen(flood(900), Budget())
    assert observer.stats.opened == 900
    assert turned_away(observer) == {"subscriber": 0, "all": 0}


@pytest.mark.parametrize("at_s", [0, 5])
def test_a_miner_behind_the_address_of_a_flood_is_confirmed(at_s):
    mined, truth = spoken_by(1, at_s)
    who = mined[0]["subscriber"]
    noise = [r | {"subscriber": who, "src": who} for r in flood(4000)]
    observer, told = seen(together(noise, mined))
    assert turned_away(observer)["subscriber"] > 3900
    assert told[who, "mining_session"] >= 1
    assert told[who, "share_accepted"] == truth.accepted


@pytest.mark.parametrize("at_s", [0, 5])
def test_a_miner_beside_a_flood_from_many_addresses_is_confirmed(at_s):
    mined, truth = spoken_by(1, at_s)
    observer, told = seen(together(flood(4000, addresses=250), mined))
    assert turned_away(observer)["all"] > 3900
    assert told[mined[0]["subscriber"], "share_accepted"] == truth.accepted


def test_a_known_miner_may_begin_another_connection_while_many_flood():
    mined, _ = spoken_by(1)
    again, truth = spoken_by(1, 30, port=40001)
    noise = flood(4000, addresses=250, over_s=60)
    observer, _ = seen(together(noise, mined, again))
    (facts,) = [f for f in observer.step(batch(again[-1:])).sessions if f.client[1] == 40001]
    assert facts.shares.accepted == truth.accepted
    assert facts.workers == ("bc1qlabonly.rig",)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_what_is_turned_away_does_not_depend_on_how_batches_are_cut(cuts):
    mined, _ = spoken_by(1, 2)
    rows = together(flood(60), flood(60, addresses=50, end=201), mined)
    expected, told = seen(rows)
    observer, found, at = PayloadObserver(Config(budget=TIGHT)), {}, 0
    while at < len(rows):
        for size in cuts:
            part = rows[at : at + size]
            for e in observer.step(batch(part)).evidence if part else ():
                found[e.subscriber, e.kind] = found.get((e.subscriber, e.kind), 0) + e.count
            at += size
    assert turned_away(observer) == turned_away(expected)
    assert observer.stats.opened == expected.stats.opened
    assert found == told


def test_a_row_that_comes_late_sets_no_purse_back():
    late = [r | {"t": BEGAN - 3600 * SECOND} for r in flood(20)]
    observer, _ = seen([*flood(1000), *late])
    assert observer.stats.opened == 28


def test_who_is_told_of_by_a_clock_that_is_behind_is_not_turned_away_for_that():
    ahead = [r | {"t": r["t"] + 3600 * SECOND} for r in flood(8, addresses=4, end=201)]
    mined, truth = spoken_by(1)
    observer, told = seen([*ahead, *mined, *flood(7, addresses=7)])
    assert turned_away(observer) == {"subscriber": 0, "all": 0}
    assert told[mined[0]["subscriber"], "share_accepted"] == truth.accepted


def restarted(observer, subscribers):
    """Another one with what state records carry of the first."""
    made = PayloadObserver(observer.config)
    for who in subscribers:
        made.restore(who, msgspec.msgpack.decode(msgspec.msgpack.encode(observer.state(who)), type=State))
    purses = observer.admission.state()
    made.admission.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(purses), type=Purses | None))
    return made


@pytest.mark.parametrize("addresses", [1, 200])
@pytest.mark.parametrize("at", [1, 20, 70, 299])
def test_a_restart_does_not_fill_the_purses(addresses, at):
    rows = flood(300, addresses=addresses)
    whole = PayloadObserver(Config(budget=TIGHT))
    whole.step(batch(rows))
    first = PayloadObserver(Config(budget=TIGHT))
    first.step(batch(rows[:at]))
    second = restarted(first, {r["subscriber"] for r in rows})
    second.step(batch(rows[at:]))
    assert first.stats.opened + second.stats.opened == whole.stats.opened


def test_purses_that_are_full_are_not_kept_and_those_of_a_larger_budget_are_cut():
    observer, _ = seen(flood(3))
    assert observer.admission.state() is not None
    late = flood(1, end=201)[0]
    observer.step(batch([dict(late, t=late["t"] + 3600 * SECOND)]))
    (purses,) = {observer.admission.state().full_ns[0] - observer.admission.state().newest_ns}
    assert purses == SECOND // TIGHT.in_all_per_s
    observer.admission.restore(Purses([1 << 62, 1 << 62], BEGAN))
    rows = flood(3, end=202, over_s=60)
    observer.step(batch(rows))
    assert turned_away(observer)["all"] == 1
