"""Hash rates, their intervals, and watts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from detector.evidence import Connection, SessionFacts
from detector.hashrate import HashRate, Power, covered_s, garwood, kwh_per_day, power, rates

S = 10**9


def facts(algorithm="sha256d", hashes=0.0, shares=0, first=0, last=10 * S, opened=0, **more):
    a, b = (b"\1" * 16, 1), (b"\2" * 16, 2)
    return SessionFacts(
        subscriber=b"s" * 16, connection=Connection(a, b, 6, opened), copy=False, client=a, server=b,
        role=more.pop("role", "miner"), dialect="btc-v1", algorithm=algorithm, hashes=hashes,
        hashes_shares=shares, first_job_ns=first, first_ns=first, last_ns=last, **more,
    )  # fmt: skip


@given(st.integers(0, 5000))
def test_the_interval_is_the_exact_one(count):
    low, high = garwood(count)
    assert low <= count <= high
    assert poisson.cdf(count, high) == pytest.approx(0.025, abs=1e-9)
    if count:
        assert poisson.sf(count - 1, low) == pytest.approx(0.025, abs=1e-9)


def test_a_rate_is_hashes_over_the_time_from_first_job_to_last_record():
    (rate,) = rates([facts(hashes=4e9, shares=4, last=8 * S)])
    low, high = garwood(4)
    assert rate == HashRate(algorithm="sha256d", value=5e8, low=low * 1.25e8, high=high * 1.25e8, shares=4)


def test_silence_bounds_the_rate_from_above_where_the_difficulty_is_known():
    (rate,) = rates([facts(most_hashes_per_share=1e9)])
    assert rate.value is None
    assert rate.high == pytest.approx(garwood(0)[1] * 1e8)
    assert rates([facts()]) == ()


def test_algorithms_are_never_added_and_an_unknown_one_has_no_rate():
    made = rates([facts(hashes=1e9, shares=1), facts("scrypt", 1e6, 1), facts(None)])
    assert [r.algorithm for r in made] == ["scrypt", "sha256d"]


def test_parallel_connections_add_and_pools_have_no_rate():
    (rate,) = rates([facts(hashes=1e9, shares=1), facts(hashes=1e9, shares=1, opened=1)])
    assert rate.value == 2e8
    assert rates([facts(hashes=1e9, shares=1, role="pool")]) == ()


spans = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)).map(lambda p: (p[0], p[0] + p[1])))


@given(spans)
def test_covered_time_is_the_union_of_spans(given_spans):
    plain = {t for first, last in given_spans for t in range(first, last)}
    assert covered_s((a * S, b * S) for a, b in given_spans) == len(plain)


def test_power_is_a_range_and_absent_where_no_device_is_known():
    used = power([HashRate(algorithm="sha256d", value=1e12, low=0, high=0, shares=1)])
    assert used is not None
    assert 10 < used.low < used.typical < used.high < 30
    assert power([HashRate(algorithm="nobody-knows", value=1e12, low=0, high=0, shares=1)]) is None


def test_a_day_of_a_kilowatt_is_24_kilowatt_hours():
    assert kwh_per_day(None) is None
    made = kwh_per_day(Power(500.0, 1000.0, 2000.0))
    assert made is not None
    assert (made.low, made.typical, made.high) == pytest.approx((12.0, 24.0, 48.0))
