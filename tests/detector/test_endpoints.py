"""The index of known endpoints."""

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.endpoints import BEFORE_NS, HOUR_NS, Endpoints, Entry, Limits


def address(n):
    return n.to_bytes(16, "big")


def entry(n=1, port=3333, origin="resolved", **changes):
    base = {
        "address": address(n), "port": port, "protocol": 6, "origin": origin, "name": "a.example",
        "first_ns": 0, "last_ns": 0, "expires_ns": 10 * HOUR_NS, "why": "",
    }  # fmt: skip
    return Entry(**base | changes)


KEY = st.tuples(st.integers(0, 6), st.integers(1, 4), st.sampled_from([6, 17]))


def matched(index, rows):
    src, dst = (
        np.frombuffer(b"".join(address(r[i][0]) for r in rows), np.uint8).reshape(-1, 16) for i in (0, 1)
    )
    ports = [np.array([r[i][1] for r in rows], np.uint16) for i in (0, 1)]
    hits = index.match(src, dst, *ports, np.array([r[2] for r in rows], np.uint8))
    return list(zip(hits.row, hits.end, hits.entries, strict=True))


@given(
    st.lists(st.tuples(KEY, st.booleans()), max_size=30),
    st.lists(
        st.tuples(
            st.tuples(st.integers(0, 6), st.integers(0, 4)),
            st.tuples(st.integers(0, 6), st.integers(0, 4)),
            st.sampled_from([6, 17]),
        ),
        min_size=1,
        max_size=20,
    ),
)
def test_matching_agrees_with_a_plain_dict(changes, rows):
    index, twin = Endpoints(), set()
    for (n, port, protocol), there in changes:
        if there:
            index.put(entry(n, port, protocol=protocol))
            twin.add((n, port, protocol))
        else:
            index.withdraw(address(n), port, protocol, "resolved")
            twin.discard((n, port, protocol))
    want = [(i, e) for i, r in enumerate(rows) for e in (0, 1) if (*r[e], r[2]) in twin]
    got = matched(index, rows)
    assert [(r, e) for r, e, _ in got] == want
    for row, end, entries in got:
        assert [(e.address, e.port) for e in entries] == [(address(rows[row][end][0]), rows[row][end][1])]


def test_a_listed_one_speaks_before_a_resolved_before_a_learned():
    index = Endpoints([entry(origin="listed")])
    index.put(entry(origin="learned"))
    index.put(entry(origin="resolved"))
    assert [e.origin for e in index.at(address(1), 3333, 6)] == ["listed", "resolved", "learned"]
    index.relist([])
    assert [e.origin for e in index.at(address(1), 3333, 6)] == ["resolved", "learned"]


def test_a_refuted_one_never_matches():
    index = Endpoints()
    index.put(entry(origin="refuted"))
    assert index.at(address(1), 3333, 6) == ()
    assert matched(index, [((1, 3333), (2, 1), 6)]) == []


def test_port_0_is_any_of_its_ports_and_no_other():
    index = Endpoints()
    index.put(entry(port=0, ports=(3333, 4444)))
    assert [len(index.at(address(1), p, 6)) for p in (3333, 4444, 5555, 0)] == [1, 1, 0, 0]
    index.put(entry(port=0, ports=(5555,)))
    assert [len(index.at(address(1), p, 6)) for p in (3333, 4444, 5555)] == [0, 0, 1]
    assert matched(index, [((1, 5555), (2, 1), 6)])
    index.put(entry(2, port=0))
    assert index.stats.no_ports == 1


def test_renewal_keeps_the_first_time_and_a_late_answer_shortens_nothing():
    index = Endpoints()
    index.put(entry(first_ns=100, last_ns=100, expires_ns=1000))
    index.put(entry(first_ns=50, last_ns=50, expires_ns=500, name="old.example"))
    (e,) = index.at(address(1), 3333, 6)
    assert (e.first_ns, e.last_ns, e.expires_ns, e.name, e.generation) == (50, 100, 1000, "a.example", 1)


def test_what_had_expired_begins_a_new_generation_with_its_history():
    index = Endpoints(limits=Limits(history=2))
    for i in range(5):
        index.put(entry(first_ns=i * 100, last_ns=i * 100, expires_ns=i * 100 + 10))
    (e,) = index.at(address(1), 3333, 6)
    assert (e.first_ns, e.generation) == (400, 5)
    assert [(p.first_ns, p.last_ns) for p in e.history] == [(200, 210), (300, 310)]


def test_an_entry_speaks_of_its_time_and_its_subscribers_only():
    e = entry(first_ns=5 * HOUR_NS, expires_ns=6 * HOUR_NS, only=(b"s",))
    assert e.holds(5 * HOUR_NS, 5 * HOUR_NS, b"s")
    assert not e.holds(5 * HOUR_NS, 5 * HOUR_NS, b"t")
    assert not e.holds(6 * HOUR_NS + 1, 7 * HOUR_NS, b"s")
    assert not e.holds(0, 5 * HOUR_NS - BEFORE_NS - 1, b"s")


def test_the_oldest_renewed_goes_first_and_the_list_stays():
    index = Endpoints([entry(99, origin="listed")], Limits(most=3))
    for n in (1, 2, 3, 1, 4):
        index.put(entry(n))
    assert [e.address for e in index] == [address(n) for n in (99, 3, 1, 4)]
    assert index.stats.evicted == 1
    assert index.at(address(2), 3333, 6) == ()


def test_what_expired_long_ago_is_forgotten_and_the_rest_is_not():
    index = Endpoints([entry(9, origin="listed", expires_ns=None)], Limits(keep_ns=HOUR_NS))
    index.put(entry(1, expires_ns=HOUR_NS))
    index.put(entry(2, expires_ns=3 * HOUR_NS))
    assert index.expire(2 * HOUR_NS) == 0
    assert index.expire(2 * HOUR_NS + 1) == 1
    assert len(index) == 2


def test_names_of_one_pool_at_one_port_are_told_together():
    index = Endpoints()
    index.put(entry(operator="o", coins=("XMR",), weak=True))
    index.put(entry(operator="o", coins=("RVN",), last_ns=1))
    (e,) = index.at(address(1), 3333, 6)
    assert (set(e.coins), e.weak) == ({"XMR", "RVN"}, False)


def test_the_filter_grows_and_forgets_nothing():
    index = Endpoints()
    for n in range(1, 12_000):
        index.put(entry(n))
    assert index.stats.rebuilt > 1
    rows = [((n, 3333), (0, 1), 6) for n in range(1, 12_000)]
    assert len(matched(index, rows)) == len(rows)


def test_state_goes_round():
    index = Endpoints([entry(9, origin="listed")])
    for n in (1, 2):
        index.put(entry(n, only=(b"x",)))
    index.put(entry(2, expires_ns=99 * HOUR_NS, first_ns=11 * HOUR_NS))
    blob = msgspec.msgpack.encode(index.state())
    other = Endpoints([entry(9, origin="listed")])
    other.restore(msgspec.msgpack.decode(blob, type=list[Entry]))
    assert list(other) == list(index)
    assert matched(other, [((2, 3333), (9, 3333), 6)]) == matched(index, [((2, 3333), (9, 3333), 6)])


def test_only_what_is_new_is_let_through_the_sieve_and_many_at_a_time():
    index = Endpoints()
    for n in range(1, 100):
        index.put(entry(n))
        index.put(entry(n, last_ns=1))
    assert index._sieve.used == 0
    assert matched(index, [((99, 3333), (0, 1), 6)])
    assert (index._sieve.used, index.stats.rebuilt) == (99, 1)


def test_a_refutation_that_is_forgotten_takes_with_it_what_it_held_off():
    index = Endpoints(limits=Limits(keep_ns=0))
    index.put(entry(origin="learned"))
    index.put(entry(origin="refuted", expires_ns=HOUR_NS))
    assert index.stats.withdrawn == 1
    assert index.at(address(1), 3333, 6) == ()
    assert [e.origin for e in index] == ["refuted"]
    other = Endpoints()
    other.restore(index.state())
    assert [e.origin for e in other] == ["refuted"]
    assert index.expire(HOUR_NS + 1) == 1
    assert len(index) == 0


def test_what_is_seen_after_a_refutation_has_expired_is_told():
    index = Endpoints()
    index.put(entry(origin="refuted", expires_ns=HOUR_NS))
    index.put(entry(origin="learned", first_ns=2 * HOUR_NS, last_ns=2 * HOUR_NS))
    assert [e.origin for e in index.at(address(1), 3333, 6)] == ["learned"]
    assert matched(index, [((1, 3333), (2, 1), 6)])
