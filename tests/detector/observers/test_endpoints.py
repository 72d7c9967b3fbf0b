"""Identity from flows."""

import pytest
from flowrows import ATTEMPT, MINER, NOON, POOL, SECOND, flows, packed
from hypothesis import given
from hypothesis import strategies as st

from detector import networks, pools
from detector.endpoints import Endpoints
from detector.observers.endpoints import Config, EndpointObserver
from detector.poolnames import Pool
from detector.pools import Pools
from detector.resolutions import Resolutions
from detector.sightings import Sightings


def watching(*rows):
    """An observer that knows what the name system said of ``rows``: (row, address) pairs."""
    index = Endpoints()
    for row, address in rows:
        Resolutions(Pools([row]).find, networks.shipped(), index).take(
            row.domain, None, packed(address), 300, NOON, "test"
        )
    return Sightings(index), EndpointObserver()


def see(pair, *changes):
    sightings, observer = pair
    return observer.step(sightings.find(flows(*changes))).evidence


LOW = Pool(operator="SupportXMR", domain="pool.example", match="exact", ports=(3333,), tls_ports=(443,))
SITE = Pool(
    operator="2M", domain="rvn.example", match="exact", ports=(6060,), tls_ports=(443,),
    fp_risk="shared-with-website",
)  # fmt: skip


def test_a_flow_to_a_resolved_endpoint_is_identity_and_says_on_what_it_rests():
    (e,) = see(watching((LOW, POOL)), {})
    assert (e.subscriber, e.kind, e.rule, e.count) == (packed(MINER), "resolved_endpoint", "pool", 1)
    for part in ("flow records only", "pool.example", "SupportXMR", f"{POOL}:3333", "3700 bytes", "tap tap1"):
        assert part in e.why
    (e,) = see(watching((LOW, POOL)), {"sampling_rate": 1000, "source": 10, "exporter": "192.0.2.1"})
    assert "IPFIX of 192.0.2.1, 1 packet in 1000" in e.why


def test_one_connection_minute_is_told_once_however_many_exporters_tell_of_it():
    watch = watching((LOW, POOL))
    router = {"source": 9, "exporter": "192.0.2.1"}
    (e,) = see(watch, {}, router, {"source": 9, "exporter": "192.0.2.2"})
    assert e.count == 3
    assert see(watch, {}, router) == ()
    assert len(see(watch, {"t_last": NOON + 120 * SECOND})) == 1


def test_a_web_sites_address_is_weak_and_a_browsers_port_is_not_known_unless_listed():
    watch = watching((SITE, POOL))
    assert [e.kind for e in see(watch, {"dst_port": 6060}, {"dst_port": 443}, {"dst_port": 80})] == [
        "shared_endpoint",
        "shared_endpoint",
    ]


def test_a_listed_web_port_of_a_low_name_is_weak_too():
    (e,) = see(watching((LOW, POOL)), {"dst_port": 443})
    assert e.kind == "shared_endpoint"


def test_a_cdn_address_shared_with_a_pool_is_silent():
    watch = watching((LOW, "104.16.1.1"), (SITE, "104.16.1.2"))
    assert see(watch, {"dst": "104.16.1.1", "dst_port": 443}, {"dst": "104.16.1.2", "dst_port": 443}) == ()


def test_a_forged_answer_for_1_1_1_1_harms_nobody():
    watch = watching((LOW, "1.1.1.1"))
    assert see(watch, *({"dst": "1.1.1.1", "dst_port": p} for p in (53, 443, 853, 3333))) == ()


def test_a_scan_of_a_pool_and_backscatter_are_silent():
    watch = watching((LOW, POOL))
    back = {"src": POOL, "dst": MINER, "src_port": 3333, "dst_port": 1, "tcp_flags": 0x12}
    attempt = {"tcp_flags": ATTEMPT, "reverse_tcp_flags": None}
    assert see(watch, attempt, back | {"reverse_tcp_flags": None}) == ()
    assert watch[1].stats.no_data == 2


def test_what_is_remembered_is_bounded():
    sightings, _ = watching((LOW, POOL))
    observer = EndpointObserver(Config(remembered=4))
    for i in range(20):
        observer.step(sightings.find(flows({"src_port": 1000 + i})))
    assert len(observer.told) == 4


@given(st.lists(st.sampled_from([3333, 443, 80]), min_size=1, max_size=6), st.data())
def test_order_and_cuts_of_batches_do_not_matter(ports, data):
    rows = [{"dst_port": p, "src_port": 1000 + i % 2, "t_last": NOON + 60 * i * SECOND}
            for i, p in enumerate(ports)]  # fmt: skip
    whole = see(watching((LOW, POOL)), *rows)
    mixed = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    watch = watching((LOW, POOL))
    parts = [e for part in (mixed[:cut], mixed[cut:]) if part for e in see(watch, *part)]
    key = lambda e: (e.kind, e.connection, e.last_ns)  # noqa: E731
    assert sorted(map(key, parts)) == sorted(map(key, whole))


@pytest.mark.parametrize("row", [r for r in pools.shipped() if r.all_ports][:40], ids=lambda r: r.domain)
def test_a_shipped_row_is_identity_on_its_ports_alone(row):
    watch = watching((row, POOL))
    seen = see(watch, *({"dst_port": p} for p in row.all_ports))
    assert len(seen) == len(row.all_ports)
    assert see(watch, {"dst_port": next(p for p in range(1, 99) if p not in row.all_ports)}) == ()
    if row.weak:
        assert {e.kind for e in seen} == {"shared_endpoint"}
