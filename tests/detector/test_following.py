"""What detectors tell each other of endpoints: laws of joining, and what is not believed."""

import itertools

import pytest
from flowrows import HOUR, NOON, SECOND, packed
from hypothesis import given
from hypothesis import strategies as st

from detector import networks, pools
from detector.endpoints import HOUR_NS, Endpoints, Entry, Limits, Period
from detector.following import Caps, Fits, Following
from detector.learner import Config as LearnerConfig
from detector.poolnames import parse
from detector.resolutions import Config as ResolutionConfig
from detector.resolutions import Resolutions

LIMITS = Limits(own_subscribers=3, history=2)
CAPS = Caps.of(ResolutionConfig(), LearnerConfig())
POOL = packed("51.15.2.3")
SUBSCRIBERS = [packed(f"198.51.{n}.{i}") for n in (100, 101) for i in range(5)]
SHARED = networks.shipped()
TIMES = st.integers(0, 20).map(lambda n: n * HOUR_NS)


def following(fits=lambda _: True, limits=LIMITS):
    index = Endpoints(limits=limits)
    return index, Following(index, fits, CAPS)


@st.composite
def entries(draw, origins=("resolved", "learned", "refuted")):
    origin = draw(st.sampled_from(origins))
    first, last = sorted((draw(TIMES), draw(TIMES)))
    own = draw(st.sampled_from([SUBSCRIBERS[:5], SUBSCRIBERS]))
    return Entry(
        address=POOL, port=draw(st.sampled_from([3333, 4444])), protocol=6, origin=origin,
        name=draw(st.sampled_from([None, "", "a.example", "b.example"])),
        operator=draw(st.sampled_from([None, "a", "b"])),
        coins=tuple(draw(st.lists(st.sampled_from(["XMR", "RVN", "BTC"]), max_size=3))),
        weak=draw(st.booleans()),
        only=tuple(draw(st.lists(st.sampled_from(own), max_size=5))) if origin == "learned" else (),
        first_ns=first, last_ns=last, expires_ns=last + draw(TIMES), why=draw(st.sampled_from(["x", "y"])),
        generation=draw(st.integers(1, 2)),
        history=tuple(draw(st.lists(st.builds(Period, st.none(), TIMES, TIMES), max_size=3))),
    )  # fmt: skip


def known(index):
    """All that can be asked of an index, whatever the order in which it came to be."""
    told = {(e.port, e.origin): e for e in index}
    return told, [index.at(POOL, p, 6) for p in (3333, 4444)], sorted(map(repr, index.state()))


def after(told, received_ns=NOON):
    index, follower = following()
    for entry in told:
        follower.follow(entry, received_ns)
    return index


@given(st.lists(entries(), max_size=6))
def test_twice_is_once(told):
    index, follower = following()
    for entry in told:
        follower.follow(entry, NOON)
        before = known(index)
        assert not follower.follow(entry, NOON)
        assert known(index) == before
    assert known(after(told + told)) == known(index)


@given(
    st.lists(entries(), min_size=2, max_size=6).flatmap(lambda l: st.tuples(st.just(l), st.permutations(l)))
)
def test_any_order_gives_the_same_index(orders):
    one, other = orders
    assert known(after(one)) == known(after(other))


@given(st.lists(entries(), max_size=5), st.lists(entries(), max_size=5), st.lists(entries(), max_size=5))
def test_any_grouping_gives_the_same_index(a, b, c):
    """What an index tells of several entries is worth as much as those entries."""
    assert known(after([*after([*a, *b]).state(), *c])) == known(after([*a, *after([*b, *c]).state()]))


@given(st.lists(st.tuples(entries(), st.booleans()), max_size=8))
def test_the_echo_of_ones_own_changes_nothing(steps):
    index, follower = following()
    said = []
    for entry, local in steps:
        if local:
            said.append(index.put(entry_of_today(entry)))
        else:
            follower.follow(entry, NOON)
    before = known(index)
    assert not any(follower.follow(entry, NOON) for entry in said)
    assert known(index) == before


def entry_of_today(entry):
    """As one is made here: one moment, no past."""
    changes = {"first_ns": entry.last_ns, "generation": 1, "history": ()}
    return Entry(**{f: getattr(entry, f) for f in entry.__struct_fields__} | changes)


@given(entries(("resolved",)), entries(("resolved",)))
def test_an_older_one_shortens_nothing(a, b):
    index = after([a, b])
    for entry in (a, b):
        (known_,) = (e for e in index if e.port == entry.port)
        assert known_.last_ns >= entry.last_ns
        assert known_.expires_ns >= entry.expires_ns


def learned(*only, at=NOON, origin="learned", **changes):
    base = {
        "address": POOL, "port": 3333, "protocol": 6, "origin": origin, "only": only, "first_ns": at,
        "last_ns": at, "expires_ns": at + HOUR, "why": "",
    }  # fmt: skip
    return Entry(**base | changes)


@given(st.lists(st.sampled_from(SUBSCRIBERS), min_size=1, unique=True))
def test_subscribers_join_until_a_second_neighbourhood_is_among_them(own):
    (e,) = after([learned(s) for s in own])
    if len({s[:15] for s in own}) > 1:
        assert e.only == ()
    else:
        assert e.only == tuple(sorted(own)[:3])
    assert [x.only for x in after([learned(own[0]), learned()])] == [()]


def test_a_refutation_withdraws_whichever_comes_first():
    old, new = learned(SUBSCRIBERS[0]), learned(SUBSCRIBERS[1], at=NOON + 200 * HOUR)
    veto = learned(origin="refuted", at=NOON - HOUR, expires_ns=NOON + 100 * HOUR)
    for order in itertools.permutations([old, veto]):
        assert [e.origin for e in after(order, NOON + 300 * HOUR)] == ["refuted"]
    for order in itertools.permutations([old, veto, new]):
        assert [e.origin for e in after(order, NOON + 300 * HOUR).at(POOL, 3333, 6)] == ["learned"]


def test_the_bus_cannot_list():
    index, follower = following()
    assert not follower.follow(learned(origin="listed"), NOON)
    assert follower.stats.refused == {"listed": 1, "unfit": 0}
    assert list(index) == []


@pytest.mark.parametrize(("origin", "hours"), [("resolved", 72), ("learned", 48), ("refuted", 168)])
@pytest.mark.parametrize("expires", [None, NOON + 10**6 * HOUR])
def test_nothing_holds_for_longer_than_what_is_made_here(origin, hours, expires):
    index, follower = following()
    assert follower.follow(learned(origin=origin, expires_ns=expires), NOON)
    (e,) = index
    assert e.expires_ns == NOON + hours * HOUR
    assert follower.stats.shortened == 1


def test_a_stamp_from_the_future_is_the_time_of_receipt():
    index, follower = following()
    follower.follow(learned(at=NOON + 60 * SECOND, port=1), NOON)
    follower.follow(learned(at=NOON + 60 * SECOND + 1, expires_ns=NOON + 10**6 * HOUR), NOON)
    near, far = index
    assert near.last_ns == NOON + 60 * SECOND
    assert (far.first_ns, far.last_ns, far.expires_ns) == (NOON, NOON, NOON + 48 * HOUR)
    assert follower.stats.ahead == 1


def test_the_index_grows_no_further_than_its_bound():
    index, follower = following(limits=Limits(most=5))
    for port in range(1, 50):
        follower.follow(learned(port=port), NOON)
    assert (len(index), index.stats.evicted) == (5, 44)


def fits(home=lambda _: False):
    return Fits(SHARED, home, frozenset((3333, 443, 53)))


@pytest.mark.parametrize(
    ("changes", "fit"),
    [
        ({}, True),
        ({"port": 53}, False),
        ({"port": 1080}, False),
        ({"port": 0, "ports": (3333,)}, False),
        ({"address": packed("10.1.1.1")}, False),
        ({"address": packed("104.16.1.1")}, False),
        ({"origin": "refuted", "port": 53}, True),
        ({"origin": "resolved"}, True),
        ({"origin": "resolved", "port": 443}, True),
        ({"origin": "resolved", "port": 53}, False),
        ({"origin": "resolved", "port": 22}, False),
        ({"origin": "resolved", "port": 0, "ports": (3333, 22)}, False),
        ({"origin": "resolved", "address": packed("224.0.0.1")}, False),
        ({"origin": "resolved", "address": packed("104.16.1.1")}, True),
        ({"origin": "resolved", "address": packed("104.16.1.1"), "weak": True}, False),
        ({"origin": "resolved", "address": packed("104.16.1.1"), "port": 443}, False),
        ({"origin": "resolved", "address": packed("8.8.8.8")}, False),
    ],
)
def test_what_local_learning_would_not_accept_is_refused(changes, fit):
    index, follower = following(fits())
    assert follower.follow(learned(**changes), NOON) is fit
    assert follower.stats.refused["unfit"] == (not fit)
    assert len(index) == fit


def test_a_learned_endpoint_at_home_is_refused():
    assert not fits(lambda a: a == POOL)(learned())


ROWS = pools.Pools(
    parse({"operator": "o", "domain": d, "match": "exact", "ports": p, "fp_risk": r})
    for d, p, r in (("a.example", "3333;443;53", "low"), ("b.example", "3333", "cdn"))
)
HOSTS = st.sampled_from(
    ["51.15.2.3", "10.0.0.1", "104.16.1.1", "8.8.8.8", "2606:4700::1", "2001:41d0::1", "::1"]
)


@given(HOSTS, st.sampled_from(["a.example", "b.example"]))
def test_what_answers_teach_here_is_what_is_believed_of_others(host, name):
    index = Endpoints()
    made = Resolutions(ROWS.find, SHARED, index).take(name, None, packed(host), 60, NOON, "")
    believed = Fits(SHARED, lambda _: False, ROWS.pool_ports)
    assert all(believed(e) for e in made)
    row = ROWS.find(name)
    for port in {*row.all_ports} - {e.port for e in made}:
        assert not believed(
            learned(origin="resolved", address=packed(host), port=port, name=name, weak=row.weak)
        )


@given(st.sampled_from(SHARED.rows), st.integers(-1, 1), st.booleans())
def test_single_addresses_are_in_the_networks_that_columns_say(row, by, end):
    from ipaddress import IPv6Address, ip_network

    from detector.following import _finder

    network = ip_network(row.prefix)
    edge = int.from_bytes(packed(str(network.broadcast_address if end else network.network_address)), "big")
    address = IPv6Address((edge + by) % (1 << 128)).packed
    assert _finder(SHARED)(address) == SHARED.find(address)
