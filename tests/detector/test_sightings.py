"""Flow rows that touch a known endpoint."""

import pytest
from flowrows import ATTEMPT, DATA, HOUR, MINER, NOON, POOL, SECOND, flows, packed

from collectors import wire
from detector.endpoints import Endpoints, Entry
from detector.sightings import Recent, Sightings


def entry(**changes):
    base = {
        "address": packed(POOL), "port": 3333, "protocol": 6, "origin": "resolved", "name": "a.example",
        "first_ns": NOON, "last_ns": NOON, "expires_ns": NOON + 48 * HOUR, "why": "",
    }  # fmt: skip
    return Entry(**base | changes)


def find(*changes, entries=None):
    index = Endpoints()
    for e in entries or [entry()]:
        index.put(e)
    sightings = Sightings(index)
    return sightings.find(flows(*changes)), sightings.stats


def test_a_row_to_a_known_endpoint_is_told_with_both_directions():
    (sight,), stats = find({}, {"dst": "51.15.2.4"}, {"dst_port": 4444})
    assert (sight.row, sight.subscriber, sight.endpoint) == (0, packed(MINER), (packed(POOL), 3333))
    assert (sight.up, sight.down, sight.role, sight.source) == ((10, 1200), (10, 2500), "miner", "tap tap1")
    assert (stats.rows, stats.seen) == (3, 1)


def test_the_other_direction_of_an_exported_flow_is_the_same_connection():
    back = {"src": POOL, "dst": MINER, "src_port": 3333, "dst_port": 40_000, "reverse_bytes": None,
            "reverse_packets": None, "source": 9, "exporter": "192.0.2.9", "sampling_rate": 1000}  # fmt: skip
    (there, here), _ = find({}, back)
    assert there.connection == here.connection
    assert (here.up, here.down, here.rate) == ((0, 0), (10, 1200), 1000)
    assert here.source == "NetFlow v9 of 192.0.2.9"


def test_a_listed_endpoint_at_home_has_the_role_pool():
    (sight,), _ = find({"subscriber": POOL, "src": "203.0.113.50"})
    assert sight.role == "pool"


def test_an_ipv6_subscriber_is_its_prefix():
    pool = "2a01:4f8::1"
    row = {"subscriber": "2001:db8:0:1::", "src": "2001:db8:0:1::7", "dst": pool}
    (sight,), _ = find(row, entries=[entry(address=packed(pool))])
    assert sight.role == "miner"


@pytest.mark.parametrize(
    ("flags", "back", "carried"),
    [
        (ATTEMPT, None, False),  # a scan
        (ATTEMPT, 0x14, False),  # a scan that was refused
        (0x12, None, False),  # backscatter of a flood forged in our name
        (0x04, None, False),
        (0x13, 0x13, False),  # a monitor that connects and closes
        (DATA, DATA, True),
        (0x10, None, True),  # one sampled packet of the middle
        (None, DATA, True),
        (None, None, True),  # an exporter that gives no flags
        (0, 0, True),
    ],
)
def test_an_attempt_to_connect_carried_nothing(flags, back, carried):
    (sight,), stats = find({"tcp_flags": flags, "reverse_tcp_flags": back})
    assert sight.carried is carried
    assert stats.no_data == (not carried)


def test_a_stamp_ahead_is_set_to_the_receive_time():
    (sight,), stats = find({"t_first": NOON, "t_last": NOON + 24 * HOUR, "t_received": NOON + HOUR})
    assert (sight.first_ns, sight.last_ns, stats.clamped) == (NOON, NOON + HOUR, 1)
    (sight,), stats = find({"t_first": NOON + 9 * HOUR, "t_last": NOON + 9 * HOUR, "t_received": NOON})
    assert (sight.first_ns, sight.last_ns, stats.clamped) == (NOON, NOON, 1)


def test_a_row_a_year_behind_says_nothing_about_now():
    assert find({"t_received": NOON + 365 * 24 * HOUR})[1].stale == 1
    assert find({"t_received": NOON + HOUR})[1].stale == 0


def test_a_row_outside_the_time_of_an_answer_is_not_its():
    late = {"t_first": NOON + 49 * HOUR, "t_last": NOON + 49 * HOUR}
    found, stats = find(late)
    assert (found, stats.out_of_time) == ([], 1)


def test_what_counts_for_one_subscriber_counts_for_no_other():
    learned = entry(origin="learned", only=(packed(MINER),))
    found, _ = find({}, {"subscriber": "198.51.100.8", "src": "198.51.100.8"}, entries=[learned])
    assert [s.row for s in found] == [0]


def test_a_strong_entry_speaks_before_a_weak_one():
    weak, strong = entry(weak=True), entry(origin="learned")
    (sight,), _ = find({}, entries=[weak, strong])
    assert (sight.entry.origin, sight.weak) == ("learned", False)


def test_rows_may_be_a_slice_and_may_be_none():
    index = Endpoints()
    index.put(entry())
    rows = flows({"dst": "51.15.2.4"}, {}, {"dst_port": 1}, {})
    assert [s.row for s in Sightings(index).find(rows.slice(1, 3))] == [0, 2]
    assert Sightings(index).find(wire.empty("flows")) == []
    assert [s.row for s in Sightings(index).find(wire.decode("flows", wire.encode(rows)))] == [1, 3]


def test_what_was_said_is_remembered_within_a_bound():
    recent = Recent(2)
    assert [recent.is_new((b"", x)) for x in (1, 1, 2, 3, 1)] == [True, False, True, True, True]
    assert len(recent) == 2


def test_times_at_the_ends_of_the_range_do_no_harm():
    found, _ = find(
        {"t_first": -(2**63), "t_last": -(2**63), "t_received": NOON},
        {"t_first": 2**63 - 1, "t_last": 2**63 - 1, "t_received": NOON + SECOND},
        {"t_first": -(2**63), "t_last": 2**63 - 1, "t_received": NOON + SECOND},
    )
    assert [s.last_ns for s in found] == [NOON + SECOND] * 2
