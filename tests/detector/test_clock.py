"""The watermark."""

from hypothesis import given
from hypothesis import strategies as st

from detector.clock import MINUTE_NS, SECOND_NS, Watermark


def test_it_is_the_smallest_of_the_sources_less_their_delay():
    w = Watermark()
    w.observe("tap", 100 * SECOND_NS, 5 * SECOND_NS, 100 * SECOND_NS)
    assert w.advance() == 95 * SECOND_NS
    w.observe("router", 90 * SECOND_NS, 60 * SECOND_NS, 100 * SECOND_NS)
    assert w.advance() == 95 * SECOND_NS, "it never goes back"
    w.observe("tap", 300 * SECOND_NS, 5 * SECOND_NS, 200 * SECOND_NS)
    w.observe("router", 200 * SECOND_NS, 60 * SECOND_NS, 200 * SECOND_NS)
    assert w.advance() == 140 * SECOND_NS


def test_a_source_silent_for_two_minutes_no_longer_holds_it_back():
    w = Watermark()
    w.observe("router", 0, 0, 0)
    w.observe("tap", 121 * SECOND_NS, 0, 121 * SECOND_NS)
    assert w.advance() == 121 * SECOND_NS


def test_a_stamp_far_ahead_of_receive_time_is_not_believed():
    w = Watermark()
    w.observe("tap", 10**18, 0, 1000 * SECOND_NS)
    assert w.advance() == 1000 * SECOND_NS + MINUTE_NS


def test_sources_are_bounded_and_the_cost_is_counted():
    w = Watermark(sources=3)
    for i in range(10):
        w.observe(f"s{i}", i, 0, i)
    assert w.dropped == 7


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**12), st.integers(0, 10**12)), max_size=30))
def test_it_never_goes_back(rows):
    w, last = Watermark(), -(1 << 62)
    for source, newest, received in rows:
        w.observe(str(source), newest, 0, received)
        assert w.advance() >= last
        last = w.advance()
