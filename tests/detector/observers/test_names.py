"""Names beside addresses."""

import pytest
from flowrows import BROWSER, HOUR, MINER, NOON, POOL, SECOND, names, packed
from hypothesis import given
from hypothesis import strategies as st

from detector import networks
from detector.endpoints import Endpoints
from detector.errors import ConfigError
from detector.observers.names import Config, NameObserver
from detector.poolnames import Pool
from detector.pools import Pools
from detector.resolutions import Resolutions

RESOLVER = "192.0.2.53"
ROWS = Pools([
    Pool(operator="SupportXMR", domain="pool.supportxmr.com", match="exact", ports=(3333,), tls_ports=(443,)),
    Pool(operator="SupportXMR", domain="supportxmr.com", match="suffix", fp_risk="shared-with-website"),
    Pool(operator="M", domain="plain.example", match="exact", ports=(3333,)),
    Pool(operator="J", domain="coinhive.example", match="suffix", kind="browser-miner"),
    Pool(operator="D", domain="gone.example", match="exact", ports=(3333,), status="defunct"),
])  # fmt: skip
TLS, CERTIFICATE, HTTP, QUIC = 1, 2, 3, 4


def watching(**config):
    index = Endpoints()
    config.setdefault("resolvers", (RESOLVER,))
    resolutions = Resolutions(ROWS.find, networks.shipped(), index)
    return index, NameObserver(ROWS.find, resolutions, Config(**config))


def see(observer, *changes):
    return observer.step(names(*changes)).evidence


def test_an_answer_of_a_configured_resolver_teaches_and_accuses_nobody():
    index, observer = watching()
    assert see(observer, {}) == ()
    assert sorted(e.port for e in observer.changes()) == [443, 3333]
    assert observer.changes() == []
    (e,) = index.at(packed(POOL), 3333, 6)
    assert (e.origin, e.name, e.why) == ("resolved", "pool.supportxmr.com", f"answered by {RESOLVER}:53")
    assert (e.first_ns, e.expires_ns) == (NOON, NOON + 6 * HOUR)


def test_a_resolver_asking_for_all_pool_names_is_no_miner():
    _, observer = watching()
    asked = [{"subscriber": BROWSER, "name": n} for n in ("pool.supportxmr.com", "plain.example")]
    assert see(observer, *asked * 50) == ()


@pytest.mark.parametrize("resolver", ["203.0.113.99", None, "192.0.2.54"])
def test_an_answer_from_anybody_else_teaches_nothing(resolver):
    index, observer = watching()
    assert see(observer, {"resolver": resolver, "address": "51.15.9.9"}) == ()
    assert observer.stats.unknown_resolver == 1
    assert not len(index)


def test_without_configured_resolvers_nothing_is_taught():
    index, observer = watching(resolvers=())
    see(observer, {})
    assert not len(index)


def test_a_forged_answer_for_1_1_1_1_teaches_nothing():
    index, observer = watching()
    assert see(observer, {"address": "1.1.1.1"}, {"address": "8.8.8.8"}, {"address": "10.0.0.1"}) == ()
    assert not len(index)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"kind": TLS, "port": 443}, "tls_name"),
        ({"kind": TLS, "port": 9000}, "tls_name"),
        ({"kind": QUIC, "port": 443, "protocol": 17}, "tls_name"),
        ({"kind": CERTIFICATE, "port": 443}, "certificate_name"),
        ({"kind": HTTP, "port": 3333}, "http_name"),
        ({"kind": HTTP, "port": 80}, "shared_name"),
        ({"kind": TLS, "port": 8443}, "shared_name"),
        ({"kind": TLS, "port": 443, "name": "www.supportxmr.com"}, "shared_name"),
        ({"kind": TLS, "port": 3333, "name": "x.supportxmr.com"}, "shared_name"),
        ({"kind": TLS, "port": 443, "name": "plain.example"}, "shared_name"),
        ({"kind": TLS, "port": 3333, "name": "gone.example"}, "shared_name"),
        ({"kind": TLS, "port": 443, "name": "ws1.coinhive.example"}, "browser_miner_name"),
    ],
)
def test_a_listed_name_is_identity_as_strong_as_its_row_and_port(row, kind):
    _, observer = watching()
    (e,) = see(observer, {"protocol": 6, "resolver": None, "ttl": None} | row)
    assert (e.subscriber, e.kind, e.first_ns) == (packed(MINER), kind, NOON)
    assert row.get("name", "pool.supportxmr.com") in e.why
    assert (packed(POOL), row["port"]) in (e.connection.low, e.connection.high)


def test_a_browsers_visit_to_a_pools_site_is_weak():
    _, observer = watching()
    visit = [
        {"subscriber": BROWSER, "name": "supportxmr.com"},
        {"subscriber": BROWSER, "name": "supportxmr.com", "kind": TLS, "port": 443},
        {"subscriber": BROWSER, "name": "supportxmr.com", "kind": HTTP, "port": 80},
    ]
    assert {e.kind for e in see(observer, *visit)} == {"shared_name"}


def test_a_name_that_is_not_listed_is_silent_and_one_alike_too():
    _, observer = watching()
    rows = [{"kind": TLS, "port": 443, "name": n} for n in ("bank.example", "notsupportxmr.com", "com", "")]
    assert see(observer, *rows) == ()
    assert observer.stats.unlisted == 4


def test_our_own_hosts_are_exempt():
    _, observer = watching(own_hosts=(MINER,))
    assert see(observer, {"kind": TLS, "port": 443}) == ()
    assert observer.stats.own == 1


def test_one_name_and_minute_is_told_once():
    _, observer = watching()
    row = {"kind": TLS, "port": 443}
    later = row | {"t": NOON + 60 * SECOND}
    assert len(see(observer, row, row, later)) == 2
    assert see(observer, row, later) == ()
    assert observer.stats.repeated == 3


def test_a_name_without_an_address_is_told_of_the_subscriber():
    _, observer = watching()
    (e,) = see(observer, {"kind": TLS, "address": None, "port": None})
    assert e.kind == "tls_name"


def test_an_address_that_is_none_is_the_operators_mistake():
    for section in ("resolvers", "own_hosts"):
        with pytest.raises(ConfigError, match=section):
            watching(**{section: ("dns.example",)})


ADDRESS = st.sampled_from([None, "1.1.1.1", POOL, "::", "ff02::1", "10.0.0.1"])


@given(
    st.lists(
        st.fixed_dictionaries({
            "kind": st.integers(0, 255),
            "t": st.integers(-(2**63), 2**62),
            "name": st.text(max_size=40) | st.sampled_from(["pool.supportxmr.com", "supportxmr.com"]),
            "alias": st.none() | st.text(max_size=40),
            "address": ADDRESS,
            "port": st.none() | st.integers(0, 65535),
            "protocol": st.none() | st.integers(0, 255),
            "ttl": st.none() | st.integers(0, 2**32 - 1),
            "resolver": ADDRESS | st.just(RESOLVER),
        }),
        max_size=8,
    )
)  # fmt: skip
def test_any_rows_are_seen_or_left_out(rows):
    index, observer = watching()
    for e in see(observer, *rows) if rows else ():
        assert e.kind.endswith("_name")
    assert all(e.address == packed(POOL) for e in index)
