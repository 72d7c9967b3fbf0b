"""Bytes by minute."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectors import wire
from detector.clock import MINUTE_NS, SECOND_NS
from detector.measures import Link, Meter, ends_of, spread

CLIENT, SERVER = bytes(15) + b"\1", bytes(15) + b"\2"
S = SECOND_NS


def flows(*rows):
    """Rows of (t_first, t_last, bytes, reverse, changes) as a batch."""
    n = len(rows)
    base = {
        "subscriber": CLIENT, "copy": 0, "src": CLIENT, "dst": SERVER, "src_port": 40000, "dst_port": 3333,
        "protocol": 6, "t_received": None, "packets": 1, "source": 0, "candidate": 1, "sampling_rate": 1,
        "exporter": bytes(16), "collector": "tap",
    }  # fmt: skip
    made = []
    for first, last, there, back, *changes in rows:
        row = base | {"t_first": first, "t_last": last, "bytes": there, "reverse_bytes": back}
        row |= {"t_received": last} | (changes[0] if changes else {})
        made.append(row)
    columns = {}
    for name in made[0]:
        cells = [r[name] for r in made]
        if isinstance(cells[0], bytes):
            columns[name] = np.frombuffer(b"".join(cells), np.uint8).reshape(n, 16)
        elif name == "reverse_bytes":
            columns[name] = (np.array([c or 0 for c in cells]), np.array([c is not None for c in cells]))
        else:
            columns[name] = cells if name == "collector" else np.array(cells)
    return wire.batch("flows", n, columns)


def the_link(meter):
    (link,) = meter.links.values()
    return link


def up_down(meter):
    """Bytes client to server, server to client: the client has the lower address here."""
    return the_link(meter).total()


@given(
    st.integers(0, 10**12), st.integers(0, 10**11), st.tuples(st.integers(0, 10**15), st.integers(0, 10**15))
)
def test_spreading_loses_no_byte(first, length, amount):
    parts = list(spread((first, first + length), amount))
    assert (sum(p[0] for _, p in parts), sum(p[1] for _, p in parts)) == amount
    assert [m for m, _ in parts] == list(range(first // MINUTE_NS, (first + length) // MINUTE_NS + 1))
    assert all(p[0] >= 0 <= p[1] for _, p in parts)


def test_a_record_over_two_minutes_is_shared_in_proportion_to_time():
    assert list(spread((30 * S, 90 * S), (600, 60))) == [(0, (300, 30)), (1, (300, 30))]


def test_both_directions_of_a_metered_row_count():
    meter = Meter()
    meter.step(flows((0, S, 100, 70)))
    assert up_down(meter) == (100, 70)


def test_two_one_directional_taps_add_up_and_two_full_ones_do_not():
    meter = Meter()
    back = {"src": SERVER, "dst": CLIENT, "src_port": 3333, "dst_port": 40000, "collector": "b"}
    meter.step(flows((0, S, 100, None, {"collector": "a"}), (0, S, 70, None, back)))
    assert up_down(meter) == (100, 70)
    meter = Meter()
    meter.step(flows((0, S, 100, 70, {"collector": "a"}), (0, S, 100, 70, {"collector": "b"})))
    assert up_down(meter) == (100, 70)


def test_a_tap_counts_before_a_router_and_the_lowest_sampling_rate_before_a_higher_one():
    router = {"source": 9, "sampling_rate": 1000}
    closer = {"source": 9, "sampling_rate": 10, "exporter": bytes(15) + b"\7"}
    meter = Meter()
    meter.step(flows((0, S, 3, None, router), (0, S, 100, 70)))
    assert up_down(meter) == (100, 70)
    meter = Meter()
    meter.step(flows((0, S, 3, None, router), (0, S, 9, None, closer)))
    assert up_down(meter) == (90, 0)
    assert the_link(meter).is_estimated()


def test_both_copies_of_a_row_are_kept_each_under_its_subscriber():
    meter = Meter()
    meter.step(flows((0, S, 100, 70), (0, S, 100, 70, {"copy": 1, "subscriber": SERVER})))
    assert [link.total() for link in meter.links.values()] == [(100, 70), (100, 70)]
    assert meter.counts.copies == 1


def test_rows_that_no_collector_marked_are_not_kept():
    meter = Meter()
    meter.step(flows((0, S, 100, 70, {"candidate": 0})))
    assert not meter.links


def test_a_stamp_from_the_future_is_clamped_and_counted_and_a_long_record_cut_short():
    meter = Meter(longest_ns=10 * MINUTE_NS)
    meter.step(flows((0, 10**16, 100, 0, {"t_received": 5 * S})))
    assert the_link(meter).last_ns == 5 * S
    meter.step(flows((0, 10**16, 100, 0)))
    assert len(the_link(meter).minutes) <= 13
    assert (meter.counts.clamped, meter.counts.cut_short) == (1, 1)


def test_links_are_bounded_and_what_turned_out_benign_is_forgotten():
    meter = Meter(most=5, retain_ns=MINUTE_NS)
    meter.step(flows(*((0, S, 1, 1, {"src_port": p}) for p in range(10, 20))))
    assert (len(meter.links), meter.counts.dropped) == (5, 5)
    kept = next(iter(meter.links))
    meter.close(10 * MINUTE_NS, lambda key: key == kept)
    assert list(meter.links) == [kept]
    assert not the_link(meter).minutes
    assert up_down(meter) == (1, 1)


def test_a_flood_of_short_connections_does_not_take_a_miners_place():
    meter = Meter(most=5)
    meter.step(flows((0, S, 100, 70)))
    link = the_link(meter)
    link.told = [100, 70]  # as when a minute of a miner was published
    for port in range(10, 200):
        meter.step(flows((0, S, 1, 1, {"src_port": port})))
    assert link in meter.links.values()
    assert len(meter.links) == 5
    for other in meter.links.values():
        other.told = [1, 1]
    meter.step(flows((0, S, 1, 1, {"src_port": 9})))
    assert len(meter.links) == 5  # where all are miners', one goes all the same


records = st.tuples(st.integers(0, 600), st.integers(0, 200), st.integers(0, 999))


@given(st.lists(records, min_size=1, max_size=20), st.integers(0, 12))
def test_folding_at_any_time_changes_no_total(rows, fold_at):
    plain, folded = Link(), Link()
    for i, (first, length, amount) in enumerate(rows):
        for link in (plain, folded):
            link.add((0, "tap"), (first * S, (first + length) * S), (amount, 2 * amount))
        if i % 3 == 0:
            folded.fold(fold_at)
    assert plain.total() == folded.total()


def test_ends_name_a_connection_whichever_way_it_is_seen():
    a, b = (CLIENT, 5), (SERVER, 6)
    assert ends_of(a, b, 6) == ends_of(b, a, 6) == (a, b, 6)
