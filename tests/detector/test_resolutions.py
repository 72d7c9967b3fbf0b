"""Which answers make an address known."""

import pytest
from flowrows import HOUR, NOON, packed

from detector import networks
from detector.endpoints import Endpoints
from detector.errors import ConfigError
from detector.poolnames import Pool
from detector.pools import Pools
from detector.resolutions import Config, Resolutions, Routable

ROWS = [
    Pool(operator="P", domain="xmr.pool.example", match="exact", ports=(3333, 443, 53), tls_ports=(443,)),
    Pool(operator="C", domain="cdn.example", match="exact", ports=(3333,), fp_risk="cdn"),
    Pool(
        operator="W", domain="web.example", match="suffix", ports=(3333, 443), fp_risk="shared-with-website"
    ),
    Pool(operator="N", domain="portless.example", match="exact"),
]


def made(**config):
    index = Endpoints()
    return index, Resolutions(Pools(ROWS).find, networks.shipped(), index, Config(**config))


def take(resolutions, name="xmr.pool.example", address="51.15.2.3", ttl=300, at=NOON, alias=None):
    return resolutions.take(name, alias, packed(address), ttl, at, "test")


def test_a_listed_name_makes_its_listed_ports_known_but_never_that_of_dns():
    index, resolutions = made()
    assert sorted(e.port for e in take(resolutions)) == [443, 3333]
    (e,) = index.at(packed("51.15.2.3"), 443, 6)
    assert (e.tls, e.weak, e.weak_at(443)) == ("unknown", False, True)
    assert not index.at(packed("51.15.2.3"), 80, 6)


def test_an_answer_by_cname_is_known_by_the_name_that_was_asked_for():
    _, resolutions = made()
    entries = take(resolutions, name="edge.elsewhere.example", alias="xmr.pool.example")
    assert {e.name for e in entries} == {"xmr.pool.example"}


@pytest.mark.parametrize(
    ("name", "address", "reason"),
    [
        ("bank.example", "51.15.2.3", "name"),
        ("notxmr.pool.example", "51.15.2.3", "name"),
        ("portless.example", "51.15.2.3", "port"),
        ("xmr.pool.example", "10.0.0.1", "routable"),
        ("xmr.pool.example", "0.0.0.0", "routable"),
        ("xmr.pool.example", "127.0.0.1", "routable"),
        ("xmr.pool.example", "224.0.0.1", "routable"),
        ("xmr.pool.example", "fe80::1", "routable"),
        ("xmr.pool.example", "1.1.1.1", "shared"),
        ("xmr.pool.example", "8.8.8.8", "shared"),
        ("cdn.example", "104.16.1.1", "shared"),
        ("a.web.example", "151.101.1.1", "shared"),
    ],
)
def test_what_teaches_nothing_says_why(name, address, reason):
    index, resolutions = made()
    assert take(resolutions, name, address) == []
    assert {k: n for k, n in resolutions.refused.items() if n} == {reason: 1}
    assert not len(index)


def test_in_a_shared_network_a_name_of_low_risk_counts_on_no_web_port():
    _, resolutions = made()
    assert [e.port for e in take(resolutions, address="104.16.1.1")] == [3333]


def test_a_web_sites_name_is_weak_on_every_port():
    _, resolutions = made()
    assert all(e.weak_at(e.port) for e in take(resolutions, "a.web.example"))


@pytest.mark.parametrize(("ttl", "hours"), [(0, 6), (300, 6), (10 * 3600, 10), (2**32 - 1, 72)])
def test_an_answer_holds_for_its_time_to_live_within_floor_and_cap(ttl, hours):
    _, resolutions = made()
    assert {e.expires_ns for e in take(resolutions, ttl=ttl)} == {NOON + hours * HOUR}


def test_a_name_that_answers_with_the_whole_internet_is_bounded_until_answers_expire():
    index, resolutions = made(addresses_per_row=3)
    for i in range(10):
        take(resolutions, address=f"51.15.2.{i}")
    assert resolutions.refused["crowded"] == 7
    assert len(index) == 6
    assert take(resolutions, address="51.15.2.0")
    assert take(resolutions, address="51.15.2.9", at=NOON + 7 * HOUR)
    restored = Resolutions(Pools(ROWS).find, networks.shipped(), index, Config(addresses_per_row=3))
    restored.restore()
    assert take(restored, address="51.15.2.200") == []


def test_a_laboratory_names_its_own_networks():
    assert Routable(("203.0.113.0/24",))(packed("203.0.113.5"))
    assert not Routable()(packed("203.0.113.5"))
    with pytest.raises(ConfigError, match="routable"):
        Routable(("x",))
