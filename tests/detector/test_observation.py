"""One flow that many saw is counted once."""

from itertools import pairwise

import msgspec
import pyarrow as pa
import pytest
from flowrows import packed
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import wire
from detector.clock import MINUTE_NS, SECOND_NS
from detector.config import Config as WholeConfig
from detector.config import as_toml
from detector.measures import Ends, Link, Meter
from detector.observation import MOST_POINTS, QUIET_MINUTES, Border, Config, Passed, Rule, Seen

S = SECOND_NS
MINER, POOL = "198.51.100.7", "51.15.2.3"
FIRST, OTHER = "192.0.2.1", "192.0.2.2"
BASE = {
    "subscriber": MINER, "copy": 0, "src": MINER, "dst": POOL, "src_port": 40_000, "dst_port": 3333,
    "protocol": 6, "t_first": 0, "t_last": S, "bytes": 100, "packets": 1, "source": 9, "exporter": FIRST,
    "candidate": 1, "collector": "c",
}  # fmt: skip
BACK = {"src": POOL, "dst": MINER, "src_port": 3333, "dst_port": 40_000}
TAP = {"source": 0, "exporter": None}
EGRESS = {"direction": 1}


def batch(rows):
    made = []
    for change in rows:
        row = BASE | change
        row.setdefault("t_received", row["t_last"])
        for name in ("subscriber", "src", "dst", "exporter"):
            row[name] = None if row[name] is None else packed(row[name])
        made.append({name: row.get(name) for name in wire.SCHEMAS["flows"].names})
    return pa.RecordBatch.from_pylist(made, schema=wire.SCHEMAS["flows"])


def metered(rows, config=None, cuts=()):
    meter = Meter(rule=Rule(config))
    edges = [0, *sorted(c % (len(rows) + 1) for c in cuts), len(rows)]
    for a, b in pairwise(edges):
        meter.step(batch(rows[a:b]))
    return meter


def counted(rows, config=None):
    """Bytes from and to the miner."""
    meter = metered(rows, config)
    (link,) = meter.links.values()
    return link.up_down((packed(MINER), 40_000))


# Records of one exporter: one after another, as active timeouts cut a long flow; a byte or more a minute.
record = st.tuples(st.integers(0, 1200), st.integers(0, 1800), st.integers(200, 5000), st.booleans())


def successive(drawn, **changes):
    rows, at = [], 10 * MINUTE_NS
    for gap_s, length_s, octets, back in drawn:
        first = at + gap_s * S
        at = first + length_s * S
        rows.append({"t_first": first, "t_last": at, "bytes": octets} | (BACK if back else {}) | changes)
    return rows


def shifted(rows, by_ms, **changes):
    """The same records as another point tells them: its clock and its timers are its own."""
    moved = {"t_first": by_ms * 10**6, "t_last": by_ms * 10**6}
    return [r | {n: r[n] + d for n, d in moved.items()} | changes for r in rows]


OTHERS = {
    "a second router": {"exporter": OTHER},
    "egress of the same router": EGRESS,
    "egress of a second router": {"exporter": OTHER} | EGRESS,
    "a sampled router": {"exporter": "192.0.2.0", "sampling_rate": 1000},
    "sFlow of a switch": {"exporter": OTHER, "source": 1, "sampling_rate": 512},
    "a proxy under its own address": {"exporter": "203.0.113.9", "source": 20},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
@settings(max_examples=60, deadline=None)
@given(st.lists(record, min_size=1, max_size=8), st.integers(-20_000, 20_000), st.randoms(), st.data())
def test_what_another_point_tells_of_the_same_flow_changes_nothing(changes, drawn, by_ms, rng, data):
    rows = successive(drawn)
    both = rows + shifted(rows, by_ms, **changes)
    rng.shuffle(both)
    (alone,), (link,) = metered(rows).links.values(), metered(both).links.values()
    assert link.total() == alone.total()
    assert link.is_estimated() == alone.is_estimated() is False
    cuts = data.draw(st.lists(st.integers(0, 16), max_size=4))
    (again,) = metered(sorted(both, key=lambda r: rng.random()), cuts=cuts).links.values()
    assert again.total() == link.total()


@settings(max_examples=60, deadline=None)
@given(st.lists(record, min_size=1, max_size=8), st.integers(-20_000, 20_000), st.sampled_from([*OTHERS]))
def test_folding_as_time_goes_by_changes_no_total(drawn, by_ms, which):
    rows = successive(drawn)
    both = sorted(rows + shifted(rows, by_ms, **OTHERS[which]), key=lambda r: r["t_last"])
    whole, folding = Meter(), Meter(retain_ns=60 * MINUTE_NS)
    for row in both:
        for meter in (whole, folding):
            meter.step(batch([row]))
        folding.close(row["t_last"], lambda _: True)
    (link,), (folded,) = whole.links.values(), folding.links.values()
    assert folded.total() == link.total()


@settings(max_examples=40, deadline=None)
@given(st.lists(record, min_size=1, max_size=6), st.integers(0, 40), st.sampled_from([*OTHERS]))
def test_a_state_between_any_two_rows_changes_nothing(drawn, at, which):
    rows = successive(drawn)
    both = rows + shifted(rows, 300, **OTHERS[which])
    meter = metered(both[: at % len(both)] or both[:1])
    back = Meter()
    ((subscriber, _),) = meter.links
    form = list[tuple[Ends, Link]]
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(meter.state(subscriber)), type=form)
    back.restore(subscriber, kept)
    rest = both[at % len(both) or 1 :]
    for one in (meter, back):
        one.step(batch(rest))
    assert [link.total() for link in back.links.values()] == [link.total() for link in meter.links.values()]


def test_a_state_from_before_there_were_points_is_read():
    old = Link(minutes={5: {(1, "aa"): [10, 0], (7, "bb"): [70, 0]}})
    meter = Meter()
    meter.restore(bytes(16), [(((bytes(16), 1), (bytes(16), 2), 6), old)])
    assert old.total() == (10, 0)
    assert set(old.points) == {"aa", "bb"}


def at(minute, **changes):
    """A record of a second."""
    return {"t_first": minute * MINUTE_NS, "t_last": minute * MINUTE_NS + S} | changes


def test_both_directions_may_come_from_different_routers():
    assert counted([{"bytes": 5}, {"bytes": 7, "exporter": OTHER} | BACK]) == (5, 7)


def test_line_cards_and_samplers_of_one_exporter_see_different_packets():
    cards = [
        {"domain": 1, "bytes": 5},
        {"domain": 2, "bytes": 7},
        {"domain": 1, "bytes": 1, "sampling_rate": 9},
    ]
    assert counted(cards) == (5 + 7 + 9, 0)


def test_datagrams_that_two_collectors_receive_are_counted_once_and_what_one_lost_is_not():
    rows = [at(m, domain=domain) for domain in (1, 2) for m in range(3)]
    copies = [r | {"collector": "a"} for r in rows[1:]]
    assert counted(rows + copies) == counted(rows) == (600, 0)


def test_a_path_that_moves_to_another_router_goes_on_being_counted():
    before, after = [at(m) for m in range(10)], [at(m, exporter=OTHER) for m in range(20, 30)]
    assert counted(before + after) == (2000, 0)


def test_a_router_is_believed_while_a_tap_is_away_for_long_and_not_while_it_is_silent():
    router = [at(m, bytes=3) for m in range(200)]
    silent = [at(m, **TAP) for m in (0, 25, 50, 199)]
    away = 199 - 50 - 3
    assert counted(router + silent) == (4 * 100 + 3 * away, 0)
    assert away > QUIET_MINUTES


def test_workers_of_one_tap_see_different_packets_and_add_up():
    """A connection goes to another of them where all are started anew; two taps see the same."""
    first = [at(m, **TAP, collector="packet#0") for m in (*range(5), *range(9, 12))]
    other = [at(m, **TAP, collector="packet#1") for m in range(4, 10)]
    assert counted(first + other) == (1400, 0)
    away = [at(m, **TAP, collector="zweites#0") for m in range(12)]
    assert counted(first + other + away) == (1400, 0)
    assert counted([at(4, **TAP, collector=c) for c in ("packet-0", "packet-1")]) == (100, 0)


def test_half_of_the_packets_by_each_of_two_routers_is_half_of_the_bytes():
    """The price of the rule; border interfaces pay it back."""
    halves = [{"bytes": 50}, {"bytes": 50, "exporter": OTHER}]
    assert counted(halves) == (50, 0)
    border = Config(border=(Border(exporter=FIRST), Border(exporter=OTHER)))
    assert counted(halves, border) == (100, 0)


def crossing(entered, left, **changes):
    return {"input_interface": entered, "output_interface": left} | changes


BORDER = Config(border=(Border(exporter=FIRST, interfaces=(1, 2)), Border(exporter=OTHER)))


def test_rows_of_inner_interfaces_and_of_other_exporters_do_not_count():
    rows = [
        crossing(7, 1), crossing(2, 8, **BACK), crossing(7, 8), crossing(7, 8, exporter=OTHER), BASE,
        crossing(1, 2, exporter="192.0.2.3"), TAP | {"dst": "203.0.113.5"},
    ]  # fmt: skip
    meter = metered(rows, BORDER)
    link, tapped = meter.links.values()
    assert link.up_down((packed(MINER), 40_000)) == (200, 100)
    assert tapped.total() != (0, 0), "a tap is no exporter"
    moved = {reason: n for reason, n in meter.counts.passed_over.items() if n}
    assert moved == {Passed.INTERFACE: 1, Passed.NO_INTERFACE: 1, Passed.EXPORTER: 1}
    assert meter.counts.kept == 4


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 999)), min_size=1, max_size=9))
def test_with_a_border_the_sum_is_that_of_what_crosses_it(drawn):
    rows = [crossing(a, b, bytes=octets) for a, b, octets in drawn]
    meter = metered(rows, BORDER)
    want = sum(octets for a, b, octets in drawn if {a, b} & {1, 2})
    assert sum(sum(link.total()) for link in meter.links.values()) == want


def test_the_metering_that_counts_can_be_chosen():
    rows = [{"bytes": 5, "direction": 0}, {"bytes": 7} | EGRESS, {"bytes": 9, "exporter": OTHER}]
    assert counted(rows, Config(count="ingress")) == (5, 0)
    assert counted(rows, Config(count="egress")) == (7, 0)
    assert counted(rows) == (5, 0)
    meter = metered(rows, Config(count="egress"))
    assert meter.counts.passed_over[Passed.DIRECTION] == 2


def test_rows_of_a_second_point_are_counted_as_passed_over():
    meter = metered([{}, {"exporter": OTHER}, EGRESS, at(300)])
    assert meter.counts.passed_over[Passed.SECOND] == 2


def test_forged_exporters_make_no_more_points_than_the_bound():
    meter = metered([{"exporter": f"10.0.{n // 250}.{n % 250}"} for n in range(MOST_POINTS + 36)])
    (link,) = meter.links.values()
    assert len(link.points) == MOST_POINTS
    assert meter.counts.passed_over[Passed.POINTS] == 36
    cards = metered([{"domain": n} for n in range(MOST_POINTS + 5)])
    assert cards.counts.passed_over[Passed.POINTS] == 5


def test_points_that_fell_silent_are_forgotten():
    meter = metered([{}, at(500, exporter=OTHER)])
    (link,) = meter.links.values()
    link.fold(450)
    assert len(link.points) == 1
    assert sorted(link.total()) == [0, 200]


def test_an_exporter_that_does_not_say_who_it_is_is_one_point():
    seen = Seen(1, None, None, None, None, None, "c")
    assert Rule().source(seen) == (1, "?//c")
    assert Rule(BORDER).source(seen) is Passed.EXPORTER


def test_an_exporter_named_twice_has_the_interfaces_of_both_and_all_where_one_names_none():
    def seen(interface):
        return Seen(1, packed(FIRST), None, interface, None, None, "c")

    one, two = Border(exporter=FIRST, interfaces=(1,)), Border(exporter=FIRST, interfaces=(2,))
    twice = Rule(Config(border=(one, two)))
    assert [isinstance(twice.source(seen(i)), Passed) for i in (1, 2, 3)] == [False, False, True]
    for order in ((one, Border(exporter=FIRST)), (Border(exporter=FIRST), one)):
        assert not isinstance(Rule(Config(border=order)).source(seen(3)), Passed)


def test_the_border_goes_through_the_configuration_file():
    from detector.engine import Config as EngineConfig

    config = WholeConfig(detector=EngineConfig(measures=BORDER))
    assert msgspec.toml.decode(as_toml(config), type=WholeConfig) == config
    with pytest.raises(msgspec.ValidationError, match="no address"):
        msgspec.toml.decode('[[detector.measures.border]]\nexporter = "router1"', type=WholeConfig)
