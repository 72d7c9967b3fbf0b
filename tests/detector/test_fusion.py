"""The laws of belief."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.clock import MINUTE_NS, SECOND_NS
from detector.evidence import Connection, Evidence, Group
from detector.fusion import PRIOR, WEIGHTS, Traces, confirms, log_odds, probability

HALF = 3600 * SECOND_NS
A, B = (b"\1" * 16, 1), (b"\2" * 16, 2)
kinds = st.sampled_from(sorted(WEIGHTS))
times = st.integers(0, 10**18)
seen = st.lists(st.tuples(kinds, times), max_size=12)


def odds(pairs, now):
    return log_odds(pairs, now_ns=now, half_life_ns=HALF)


def evidence(kind="share", rule="r", opened=0, last=0, first=None, count=1, why="w"):
    return Evidence(
        subscriber=b"s" * 16,
        kind=kind,
        rule=rule,
        connection=Connection(A, B, 6, opened),
        first_ns=last if first is None else first,
        last_ns=last,
        count=count,
        why=why,
    )


@given(seen, times)
def test_saying_it_twice_adds_nothing(pairs, now):
    assert odds(pairs + pairs, now) == odds(pairs, now)


@given(seen, kinds, times, times)
def test_evidence_for_mining_never_lowers_belief(pairs, kind, at, now):
    assert odds([*pairs, (kind, at)], now) >= odds(pairs, now)


@given(seen, times, st.integers(0, 10**17))
def test_silence_never_raises_belief(pairs, now, more):
    now = max([now, *(at for _, at in pairs)])
    assert odds(pairs, now + more) <= odds(pairs, now)


@given(seen, times, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(pairs, now, rng):
    other = list(pairs)
    rng.shuffle(other)
    assert odds(other, now) == odds(pairs, now)


@given(kinds, times, times)
def test_a_later_one_only_restores_what_faded(kind, first, later):
    first, later = sorted((first, later))
    fresh = odds([(kind, later)], later)
    assert odds([(kind, first), (kind, later)], later) == fresh
    assert odds([(kind, first)], later) <= fresh


@given(kinds, times, st.integers(1, 10**18))
def test_evidence_from_the_future_is_as_old_as_now(kind, now, ahead):
    assert odds([(kind, now + ahead)], now) == odds([(kind, now)], now)


@given(seen, times)
def test_within_a_group_only_the_strongest_speaks(pairs, now):
    best = {}
    for kind, at in pairs:
        w = WEIGHTS[kind]
        best[w.group] = max(best.get(w.group, 0), w.log_odds * 0.5 ** (max(0, now - at) / HALF))
    assert odds(pairs, now) == pytest.approx(PRIOR + sum(best.values()))


def test_the_prior_is_one_in_ten_thousand():
    assert probability(PRIOR) == pytest.approx(1e-4)
    assert probability(-1e6) == 0.0


@pytest.mark.parametrize("row", WEIGHTS.values(), ids=lambda r: r.id)
def test_no_weight_exceeds_what_its_negatives_can_carry(row):
    assert 0 < row.log_odds <= log(row.negatives / 3)
    assert row.reason
    assert row.tested


def test_a_strong_identity_is_suspected_and_a_shared_one_is_not():
    for name, row in WEIGHTS.items():
        if row.group is Group.IDENTITY:
            weak = name in {"shared_endpoint", "shared_name", "http_name", "browser_miner_name"}
            assert (probability(PRIOR + row.log_odds) < 0.5) == weak
    for behaviour in ("persistence", "mining_shape"):
        odds = PRIOR + WEIGHTS["listed_endpoint"].log_odds + WEIGHTS[behaviour].log_odds
        assert probability(odds) >= 0.99
        assert probability(PRIOR + WEIGHTS[behaviour].log_odds) < 0.5


@pytest.mark.parametrize("row", WEIGHTS.values(), ids=lambda r: r.id)
def test_what_confirms_is_believed_99_of_100_and_the_rest_is_at_most_suspected(row):
    belief = probability(PRIOR + row.log_odds)
    assert belief >= 0.99 if row.confirms else belief < 0.9
    assert confirms([row.id]) == row.confirms


def test_identity_alone_does_not_confirm_but_with_behaviour_it_does(monkeypatch):
    import msgspec

    row = WEIGHTS["job"]
    for name, group in (("seen_name", Group.IDENTITY), ("seen_shape", Group.BEHAVIOUR)):
        monkeypatch.setitem(WEIGHTS, name, msgspec.structs.replace(row, id=name, group=group))
    assert not confirms(["seen_name"])
    assert not confirms(["seen_shape"])
    assert confirms(["seen_name", "seen_shape"])


def test_a_veto_holds_for_its_connection_only_and_for_good():
    traces = Traces()
    assert traces.add(evidence(opened=0), 8)
    assert traces.add(evidence(opened=1), 8)
    assert traces.veto(Connection(A, B, 6, 0), 5, 8)
    assert [k[2].opened for k in traces.seen] == [1]
    assert not traces.add(evidence(opened=0), 8)
    assert not traces.veto(Connection(A, B, 6, 7), 5, 8)


@given(
    st.lists(
        st.tuples(kinds, st.integers(0, 3), st.integers(0, 9), st.integers(1, 5), st.integers(0, 99)),
        max_size=60,
    )
)
def test_traces_are_bounded_and_lose_no_count(rows):
    traces = Traces()
    for kind, rule, opened, count, minute in rows:
        traces.add(evidence(kind, f"r{rule}", opened, minute * MINUTE_NS, count=count), 10)
    assert len([k for k in traces.seen if k[2] is not None]) <= 10
    assert sum(t.count for t in traces.seen.values()) == sum(r[3] for r in rows)
    for t in traces.seen.values():
        assert t.first_ns <= t.last_ns


def test_the_words_of_a_trace_are_those_of_its_first_occurrence():
    traces = Traces()
    traces.add(evidence(last=5, why="later"), 8)
    traces.add(evidence(last=3, why="first"), 8)
    traces.add(evidence(last=9, why="last"), 8)
    (trace,) = traces.seen.values()
    assert (trace.why, trace.first_ns, trace.last_ns, trace.count) == ("first", 3, 9, 3)
