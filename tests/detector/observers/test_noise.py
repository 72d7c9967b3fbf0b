"""Encrypted Stratum V2 in flow rows: who, how many shares, and that it is never sure by itself."""

import pytest
from crashes import engine, said
from flowrows import MINER, NOON, POOL, SECOND, flows
from hypothesis import given
from hypothesis import strategies as st
from metering import metered, records
from speakers import noise as speakers
from speakers.conversing import converse
from spoken import Talk

from collectors import wire
from detector import fusion
from detector.observers.noise import NoiseObserver
from detector.sightings import Recent
from detector.state import decode, encode

RECORD = {
    "first_sizes": [64, 98, 91, 62, 62, 62], "reverse_first_sizes": [234, 44, 87, 83, 86], "initiator": 1,
    "payload_bytes": 64 + 98 + 91 + 5 * 62, "t_open": None,
}  # fmt: skip


def look(rows, observer=None):
    observer = observer or NoiseObserver(Recent(1000))
    return observer.step(observer.find(rows))


def spoken(kind, **given):
    talk = Talk()
    truth = converse(kind(), talk, **given)
    return talk, truth


def counted(seen, kind="noise_shares"):
    return sum(e.count for e in seen.evidence if e.kind == kind)


@pytest.mark.parametrize("kind", speakers.SPEAKERS, ids=lambda k: k.name)
def test_a_session_is_known_and_all_its_shares_are_counted(kind):
    talk, truth = spoken(kind)
    seen = look(metered(talk))
    assert counted(seen) == len(truth.shares)
    (facts,) = {f.dialect for f in seen.sessions}
    assert facts == "sv2"
    assert all(f.hashes is None and f.shares.accepted == 0 for f in seen.sessions)
    assert {e.role for e in seen.evidence} == {"miner"}


@pytest.mark.parametrize("kind", speakers.SPEAKERS, ids=lambda k: k.name)
def test_joined_in_the_middle_nothing_is_said(kind):
    talk, _ = spoken(kind)
    assert look(metered(talk, talk.rows[len(talk.rows) // 3 :])).evidence == ()


def test_sizes_never_confirm_and_are_hardly_suspected_alone():
    kinds = ["noise_session", "noise_shares"]
    assert not fusion.confirms(kinds)
    assert fusion.confirms([*kinds, "listed_endpoint"])
    assert not fusion.confirms(["noise_session", "listed_endpoint"])
    odds = [fusion.log_odds([(k, 0) for k in some], now_ns=0, half_life_ns=1) for some in (kinds[:1], kinds)]
    assert 0 < odds[0] < 1 < odds[1]
    assert fusion.log_odds([("noise_shares", 0)], now_ns=0, half_life_ns=1) < 0


def test_the_same_record_twice_adds_nothing():
    observer = NoiseObserver(Recent(1000))
    rows = flows(RECORD)
    assert counted(look(rows, observer)) == 5
    assert look(rows, observer).evidence == ()
    assert look(flows(RECORD | {"collector": "tap2"}), observer).evidence == ()


def test_the_client_is_who_opened_it_or_whose_sizes_fit():
    turned = {
        "first_sizes": RECORD["reverse_first_sizes"], "reverse_first_sizes": RECORD["first_sizes"],
        "src": POOL, "dst": MINER, "src_port": 3333, "dst_port": 40_000,
        "reverse_payload_bytes": RECORD["payload_bytes"], "payload_bytes": 9999,
    }  # fmt: skip
    seen = look(flows(RECORD | turned | {"initiator": 2}))
    assert counted(seen) == 5
    assert look(flows(RECORD | turned | {"initiator": 0})) == seen
    assert look(flows(RECORD | turned | {"initiator": 1})).evidence == ()
    (facts,) = seen.sessions
    assert facts.client[1] == 40_000
    served = look(flows(RECORD | {"subscriber": POOL}))
    assert {e.role for e in served.evidence} == {"pool"}


def test_a_later_record_counts_its_own_octets():
    later = {"t_open": 1, "payload_bytes": 7 * 62}
    assert counted(look(flows(RECORD | later))) == 7
    assert counted(look(flows(RECORD | {"t_open": 1, "payload_bytes": None}))) == 0
    assert counted(look(flows(RECORD | {"payload_bytes": None}))) == 3


def test_few_shares_are_no_rate_and_old_handshakes_weigh_as_their_rows_say():
    assert counted(look(flows(RECORD | {"first_sizes": [64, 98, 91, 62, 62]}))) == 0
    old = {"first_sizes": [15, 34, 84, 77], "reverse_first_sizes": [11, 172, 30, 73]}
    assert {e.kind for e in look(flows(RECORD | old)).evidence} == {"unverified"}


def test_rows_of_routers_and_of_udp_say_nothing():
    assert look(flows({})).evidence == ()
    assert look(flows(RECORD | {"protocol": 17})).evidence == ()
    assert look(wire.empty("flows")).evidence == ()
    only = flows({}, RECORD, {"first_sizes": [], "reverse_first_sizes": []})
    assert [one.row for one in NoiseObserver(Recent(9)).find(only)] == [1]
    assert [one.row for one in NoiseObserver(Recent(9)).find(only.slice(1))] == [0]


SIZES = st.lists(st.integers(0, 65535), max_size=8) | st.sampled_from([RECORD["first_sizes"], [64], [234]])


@given(SIZES, SIZES, st.none() | st.integers(0, 2**60), st.integers(0, 3), st.none() | st.integers(0, 9))
def test_any_row_is_judged(client, server, octets, opener, opened):
    row = {"first_sizes": client, "reverse_first_sizes": server, "payload_bytes": octets}
    seen = look(flows(row | {"reverse_payload_bytes": octets, "initiator": opener, "t_open": opened}))
    assert all(e.count > 0 for e in seen.evidence)
    assert len(seen.sessions) <= 1


def test_what_is_metered_is_what_was_said():
    talk, _ = spoken(speakers.Standard, jobs=2)
    made = records(talk)
    assert made[-1]["first_sizes"][:1] == [64]
    assert made[-1]["reverse_first_sizes"][:2] == [234, 44]
    assert made[0]["t_last"] - made[0]["t_first"] < 60 * SECOND


def incident(*rows):
    """The document of an engine that took the rows, each in a message."""
    one = engine(durable=False)
    for number, row in enumerate(rows):
        one.step(said("flows", flows(row), NOON + (number + 1) * 60 * SECOND, number))
    one.finish()
    documents = one.documents()
    return documents[0] if documents else None


def test_it_is_suspected_by_itself_and_confirmed_at_a_pools_endpoint():
    elsewhere = RECORD | {"dst": "203.0.113.99"}
    alone = incident(elsewhere)
    assert (alone.state, alone.dialects, alone.algorithms) == ("suspected", ("sv2",), ("sha256d",))
    assert (alone.hashrate, alone.shares.accepted, alone.bytes.up) == ((), 0, 1200)
    assert {e.kind: e.count for e in alone.evidence} == {"noise_session": 1, "noise_shares": 5}
    assert incident(RECORD).state == "confirmed"
    assert incident({**RECORD, "first_sizes": [64, 98, 91]}).state == "suspected"
    assert incident(elsewhere | {"first_sizes": [64, 161, 66], "reverse_first_sizes": [234, 142]}) is None


def test_what_was_said_is_not_said_again_after_a_crash():
    rows = flows(RECORD | {"dst": "203.0.113.99"})
    one = engine()
    one.step(said("flows", rows, NOON + 60 * SECOND))
    (subscriber,) = one.changed_subscribers()
    two = engine()
    two.restore(subscriber, decode(encode(one.state(subscriber))))
    two.step(said("flows", rows, NOON + 60 * SECOND))
    (document,) = two.documents()
    assert {e.kind: e.count for e in document.evidence} == {"noise_session": 1, "noise_shares": 5}
