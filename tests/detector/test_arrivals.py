"""Headers: gaps, repeats, disagreements."""

from collectors import wire
from detector.arrivals import Arrivals


def header(number, home="h", collector="c"):
    return wire.Header(
        version=1, collector=collector, number=number, rows=0, t_first_ns=0, t_last_ns=0, received_ns=0,
        home=home
    )  # fmt: skip


def heard(*numbers):
    a = Arrivals()
    for n in numbers:
        a.note("flows", 0, header(n))
    return a.counts.lost, a.counts.repeated


def test_what_is_in_order_is_nothing_to_tell():
    assert heard(0, 1, 2, 3) == (0, 0)
    assert heard(7, 8) == (0, 0), "joined in the middle"


def test_a_gap_is_lost_and_a_repeat_is_counted():
    assert heard(0, 1, 5) == (3, 0)
    assert heard(0, 1, 1, 2) == (0, 1)
    assert heard(5, 6, 2, 3, 7) == (0, 2)


def test_a_collector_that_starts_anew_is_neither():
    assert heard(5, 6, 0, 1) == (0, 0)


def test_other_home_networks_are_counted_and_sequences_are_bounded():
    a = Arrivals(most=2)
    for number, home in enumerate(["x", "x", "y", "x"]):
        a.note("flows", 0, header(number, home))
    assert a.counts.disagreeing == 1
    for partition in range(5):
        a.note("flows", partition, header(0))
    assert a.counts.forgotten == 3
