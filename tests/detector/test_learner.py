"""What sessions teach, and what they do not."""

import pytest
from flowrows import HOUR, NOON, SECOND, packed

from detector import networks
from detector.endpoints import Endpoints
from detector.entries import neighbourhood
from detector.evidence import Connection, SessionFacts, Shares
from detector.learner import Learner

POOL = (packed("51.15.2.3"), 4444)


def facts(subscriber="198.51.100.7", server=POOL, accepted=1, at=NOON, **changes):
    client = (packed(subscriber), 40_000)
    base = {
        "subscriber": client[0], "connection": Connection(min(client, server), max(client, server), 6),
        "copy": False, "client": client, "server": server, "role": "miner", "dialect": "cryptonote",
        "coin": "XMR", "shares": Shares(accepted=accepted), "first_ns": at, "last_ns": at,
    }  # fmt: skip
    return SessionFacts(**base | changes)


def taught(learner, *, confirmed=True, at=NOON, proxied=False, home=lambda _: False, **changes):
    return learner.take(facts(at=at, **changes), confirmed, home, at, proxied)


@pytest.fixture
def index():
    return Endpoints()


@pytest.fixture
def learner(index):
    return Learner(index, networks.shipped())


def known(index, subscriber="198.51.100.7", at=NOON):
    return [e.origin for e in index.at(*POOL, 6) if e.holds(at, at, packed(subscriber))]


def test_one_neighbourhood_teaches_for_its_own_subscribers_only(index, learner):
    (e,) = taught(learner)
    assert e.coins == ("XMR",)
    assert known(index) == ["learned"]
    assert known(index, "198.51.100.9") == []
    taught(learner, subscriber="198.51.100.9")
    assert known(index, "198.51.100.9") == known(index) == ["learned"]
    assert known(index, "198.51.101.1") == []


def test_a_second_neighbourhood_teaches_for_everybody(index, learner):
    taught(learner)
    (e,) = taught(learner, subscriber="198.51.101.1")
    assert e.only == ()
    assert known(index, "203.0.113.1") == ["learned"]
    assert learner.stats.promoted == 1
    taught(learner, at=NOON + HOUR)
    assert known(index, "203.0.113.1") == ["learned"]


def test_neighbours_of_ipv6_share_a_48():
    assert neighbourhood(packed("2001:db8:1:2::")) == neighbourhood(packed("2001:db8:1:ffff::"))
    assert neighbourhood(packed("2001:db8:1::")) != neighbourhood(packed("2001:db8:2::"))


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({"confirmed": False}, "unconfirmed"),
        ({"accepted": 0}, "unconfirmed"),
        ({"role": "pool"}, "unconfirmed"),
        ({"copy": True}, "unconfirmed"),
        ({"proxied": None}, "proxied"),
        ({"server": (POOL[0], 1080)}, "proxied"),
        ({"server": (POOL[0], 53)}, "proxied"),
        ({"home": lambda _: True}, "home"),
        ({"server": (packed("10.1.1.1"), 4444)}, "unroutable"),
        ({"server": (packed("104.16.1.1"), 4444)}, "shared"),
    ],
)
def test_what_teaches_nothing_is_counted(index, learner, changes, counted):
    assert taught(learner, **changes) == []
    assert getattr(learner.stats, counted) == 1
    assert not len(index)


def test_a_socks_server_behind_which_somebody_mines_is_not_learned(index, learner):
    socks = (packed("51.15.2.3"), 1080)
    taught(learner, server=socks, proxied=True)
    taught(learner, server=socks, proxied=True, subscriber="198.51.101.1")
    # Seen again from the middle, with its preamble not seen, and at a port that is no proxy's.
    taught(learner, server=socks, proxied=None)
    taught(learner, proxied=None)
    assert {e.origin for e in index} == {"refuted"}
    assert index.at(*socks, 6) == ()
    assert known(index) == []


def test_only_payload_renews_and_silence_forgets(index, learner):
    taught(learner)
    taught(learner, at=NOON + HOUR)
    assert known(index, at=NOON + 49 * HOUR) == ["learned"]
    assert known(index, at=NOON + 49 * HOUR + 1) == []
    assert learner.stats.renewed == 1


def test_what_was_forgotten_is_learned_anew_from_one_neighbourhood(index, learner):
    taught(learner)
    taught(learner, subscriber="198.51.101.1")
    (e,) = taught(learner, at=NOON + 100 * HOUR)
    assert (e.only, e.generation) == ((packed("198.51.100.7"),), 2)


def test_the_same_minute_changes_nothing(learner):
    assert taught(learner)
    assert taught(learner, at=NOON + 30 * SECOND) == []


def test_a_refutation_withdraws_and_holds_off(index, learner):
    taught(learner)
    (gone,) = learner.refute(*POOL, 6, "an Electrum server", NOON + HOUR)
    assert gone.origin == "refuted"
    assert known(index) == []
    assert taught(learner, at=NOON + 2 * HOUR) == []
    assert learner.stats.held_off == 1
    assert learner.refute(*POOL, 6, "again", NOON + HOUR + 1) == []
    assert taught(learner, at=NOON + 200 * HOUR)


def test_own_subscribers_are_bounded(index, learner):
    for i in range(40):
        taught(learner, subscriber=f"198.51.100.{i}")
    (e,) = index.at(*POOL, 6)
    assert len(e.only) == 16


def test_facts_stamped_ahead_renew_no_further_than_now(index, learner):
    learner.take(facts(at=NOON + 1000 * HOUR), True, lambda _: False, NOON, False)
    assert known(index, at=NOON + 49 * HOUR) == []
