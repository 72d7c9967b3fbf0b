"""Behaviour with known endpoints."""

import msgspec
import pytest
from flowrows import HOUR, MINER, NOON, POOL, SECOND, flows, packed
from hypothesis import given
from hypothesis import strategies as st

from detector.endpoints import Endpoints, Entry
from detector.observers.shape import Config, ShapeObserver, State
from detector.sightings import Sightings

EVERY = 10 * 60 * SECOND


def endpoint(port=3333, **changes):
    base = {
        "address": packed(POOL), "port": port, "protocol": 6, "origin": "listed", "name": "a.example",
        "first_ns": 0, "last_ns": 0, "expires_ns": None, "why": "",
    }  # fmt: skip
    return Entry(**base | changes)


def watching(*entries, **config):
    return Sightings(Endpoints(entries or [endpoint()])), ShapeObserver(Config(**config))


def see(watch, *changes):
    out = []
    for change in changes:
        out += watch[1].step(watch[0].find(flows(change))).evidence
    return out


def kinds(evidence):
    return {e.kind for e in evidence}


def at(minute, length_min=1, **changes):
    last = NOON + minute * 60 * SECOND
    return {"t_first": last - length_min * 60 * SECOND, "t_last": last} | changes


def mining(minutes, **changes):
    """A record every ten minutes, as a real connection is metered: 0.1 kbit/s."""
    base = {"bytes": 2400, "packets": 20, "reverse_bytes": 5000, "reverse_packets": 20}
    return [at(m, 10, **base | changes) for m in range(10, minutes + 1, 10)]


def test_three_distinct_hours_are_persistence_and_two_are_not():
    watch = watching()
    assert "persistence" not in kinds(see(watch, at(5), at(65)))
    (e, *_) = [e for e in see(watch, at(125)) if e.kind == "persistence"]
    assert "3 distinct hours" in e.why
    assert "flow records only" in e.why
    assert e.subscriber == packed(MINER)


def test_a_short_visit_has_no_behaviour():
    assert see(watching(), at(1), at(2), at(3)) == []


def test_visits_to_several_endpoints_do_not_add_up():
    watch = watching(endpoint(3333), endpoint(4444), endpoint(5555))
    assert see(watch, at(5, dst_port=3333), at(65, dst_port=4444), at(125, dst_port=5555)) == []


def test_hours_further_apart_than_a_day_do_not_add_up():
    assert not see(watching(), at(0), at(26 * 60), at(52 * 60))


def test_a_mining_connection_has_its_shape():
    (first, *_) = see(watching(), *mining(40))
    assert (first.kind, first.rule) == ("mining_shape", "connection")
    assert "kbit/s in small packets (120 bytes up, 250 down)" in first.why


@pytest.mark.parametrize(
    "changes",
    [
        {"reverse_bytes": None, "reverse_packets": None},  # one direction only
        {"bytes": 12, "packets": 1, "reverse_bytes": 12, "reverse_packets": 1},  # too quiet
        {"bytes": 10_000_000, "packets": 100_000},  # too loud
        {"bytes": 14_000, "packets": 10},  # large packets up
        {"reverse_bytes": 28_000},  # large packets down
    ],
)
def test_what_is_not_like_mining_has_no_shape(changes):
    assert "mining_shape" not in kinds(see(watching(), *mining(60, **changes)))


def test_several_short_connections_are_no_long_one():
    rows = [at(m, 1, src_port=1000 + m) for m in range(1, 40)]
    assert see(watching(), *rows) == []


def test_one_direction_alone_is_not_persistence():
    rows = [at(m, reverse_bytes=None, reverse_packets=None) for m in (5, 65, 125, 185)]
    assert see(watching(), *rows) == []


def test_two_exporters_of_one_direction_each_are_both_directions():
    there = {"reverse_bytes": None, "reverse_packets": None, "source": 9, "exporter": "192.0.2.1"}
    back = there | {"src": POOL, "dst": MINER, "src_port": 3333, "dst_port": 40_000, "exporter": "192.0.2.2"}
    rows = [at(m, **way) for m in (5, 65, 125) for way in (there, back)]
    assert "persistence" in kinds(see(watching(), *rows))


def test_two_exporters_of_the_same_packets_do_not_count_twice():
    rows = mining(60, bytes=60_000, packets=600, reverse_bytes=60_000, reverse_packets=600)
    twice = [row | {"source": 9, "exporter": f"192.0.2.{i}"} for row in rows for i in (1, 2, 3)]
    said = [e.why for e in see(watching(high_bps=2_500.0), *twice) if e.kind == "mining_shape"]
    assert said
    assert "1.60 kbit/s" in said[-1]


def sampled(minute):
    one = {"sampling_rate": 1000, "source": 9, "exporter": "192.0.2.1", "packets": 1, "tcp_flags": 0x18,
           "reverse_bytes": None, "reverse_packets": None, "reverse_tcp_flags": None}  # fmt: skip
    up = at(minute, 0, bytes=180, **one)
    return [up, at(minute, 0, **one, bytes=300) | {"src": POOL, "dst": MINER, "src_port": 3333,
                                                   "dst_port": 40_000}]  # fmt: skip


def test_a_sampled_miner_persists_before_it_has_a_shape():
    watch = watching()
    first = see(watch, *(r for m in range(0, 180, 60) for r in sampled(m)))
    assert kinds(first) == {"persistence"}
    later = see(watch, *(r for m in range(180, 900, 60) for r in sampled(m)))
    assert {e.rule for e in later if e.kind == "mining_shape"} == {"sampled"}


def test_a_dashboard_left_open_all_day_is_silent():
    rows = [at(m, 30, dst_port=443) for m in range(30, 24 * 60, 30)]
    assert see(watching(endpoint(443, weak=True)), *rows) == []
    assert see(watching(endpoint(443, origin="resolved", expires_ns=None)), *rows) == []


def test_a_web_sites_name_on_a_pools_port_persists():
    assert "persistence" in kinds(see(watching(endpoint(weak=True)), at(5), at(65), at(125)))


def test_a_monitor_that_connects_every_minute_and_closes_is_silent():
    flags = {"tcp_flags": 0x13, "reverse_tcp_flags": 0x13}
    assert see(watching(), *(at(m, 0, **flags) for m in range(600))) == []


# -- hostile time ------------------------------------------------------------------------------------


def test_one_record_of_a_whole_day_is_not_persistence():
    long = at(24 * 60, 24 * 60, bytes=100_000, packets=1000, reverse_bytes=100_000, reverse_packets=1000)
    assert "persistence" not in kinds(see(watching(), long))


def test_records_stamped_a_day_ahead_do_not_persist():
    received = {"t_received": NOON}
    rows = [at(m, **received) for m in range(60, 24 * 60, 60)]
    assert see(watching(), *rows) == []


def test_records_stamped_behind_do_not_persist():
    rows = [at(-m, t_received=NOON) for m in range(0, 23 * 60, 10)]
    assert "persistence" not in kinds(see(watching(), *rows))
    rows = [at(m - 365 * 24 * 60, t_received=NOON + m * 60 * SECOND) for m in range(0, 600, 60)]
    assert see(watching(), *rows) == []


def test_an_active_timeout_of_half_an_hour_persists_in_its_own_time():
    rows = [at(m, 30, t_received=NOON + (m + 1) * 60 * SECOND) for m in range(30, 181, 30)]
    told = [e for e in see(watching(), *rows) if e.kind == "persistence"]
    assert told
    assert min(e.last_ns for e in told) == NOON + 120 * 60 * SECOND


def test_a_late_record_beside_a_live_tap_changes_no_verdict():
    live = [at(m) for m in (1, 5, 10)]
    late = at(0, 30, source=9, exporter="192.0.2.1", t_received=NOON + 11 * 60 * SECOND)
    assert "persistence" not in kinds(see(watching(), *live, late))


# -- laws, bounds, state -----------------------------------------------------------------------------


@given(st.permutations(range(8)), st.integers(0, 8))
def test_the_last_word_is_the_same_in_any_order_within_an_hour(order, cut):
    rows = [at(60 * (m // 2) + 5 * (m % 2)) for m in range(6)] + [at(130), at(140)]
    watch, other = watching(), watching()
    see(watch, *rows)
    see(other, *[rows[i] for i in order])
    (a,), (b,) = ([p for _, p in w[1].state(packed(MINER)).pairs] for w in (watch, other))
    assert (a.stamps, a.receipts, a.all.fullest()) == (b.stamps, b.receipts, b.all.fullest())


@given(
    st.lists(
        st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 2**40), st.integers(0, 2**63)), max_size=5
    )
)
def test_any_rows_are_seen_or_left_out(rows):
    watch = watching()
    for t, length, count in rows:
        row = {"t_first": NOON + (t - length) * 1000, "t_last": NOON + t * 1000, "bytes": count,
               "packets": count, "t_received": NOON}  # fmt: skip
        see(watch, row)
    assert len(watch[1].state(packed(MINER)).pairs) <= 1


def test_every_table_is_bounded():
    ports = range(1, 9)
    watch = watching(
        *(endpoint(p) for p in ports), subscribers=2, endpoints=3, connections=4, sources=2, remembered=5
    )
    for host in (1, 2, 3):
        who = {"subscriber": f"198.51.100.{host}", "src": f"198.51.100.{host}"}
        for p in ports:
            for i in range(6):
                see(watch, at(i, dst_port=p, src_port=1000 + i, **who))
                see(watch, at(i, dst_port=p, source=9, exporter=f"192.0.2.{i}", **who))
    assert len(watch[1]._books) == 2
    for book in watch[1]._books.values():
        assert len(book) <= 3
        for pair in book.values():
            assert len(pair.talks) <= 4
            assert all(len(t.counts) <= 2 for t in (pair.all, *pair.talks.values()))
    assert watch[1].stats.evicted > 0


def test_silence_is_forgotten():
    watch = watching()
    see(watch, at(5))
    watch[1].expire(NOON + 47 * HOUR)
    assert watch[1].state(packed(MINER)).pairs
    watch[1].expire(NOON + 49 * HOUR)
    assert not watch[1].state(packed(MINER)).pairs
    assert watch[1].stats.expired == 1


def test_state_goes_round_in_the_middle_of_a_miner():
    watch, other = watching(), watching()
    see(watch, at(5), at(65))
    blob = msgspec.msgpack.encode(watch[1].state(packed(MINER)))
    other[1].restore(packed(MINER), msgspec.msgpack.decode(blob, type=State))
    assert kinds(see(other, at(125))) == kinds(see(watch, at(125))) == {"persistence"}
