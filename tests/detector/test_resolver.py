"""Look-ups, against a real DNS server on loopback (Debian's dnsmasq-base)."""

import itertools
import shutil
import socket
import subprocess
import time

import pytest
from flowrows import HOUR, NOON, SECOND, packed

from detector import networks, resolver
from detector.endpoints import Endpoints
from detector.errors import ConfigError
from detector.poolnames import Pool
from detector.pools import Pools
from detector.resolutions import Resolutions
from detector.resolver import Stats, resolve, server, teach

ZONE = [
    "--host-record=xmr.pool.example,51.15.2.3,2a01:4f8::3,600",
    "--host-record=btc.pool.example,51.15.2.4",
    "--cname=alias.pool.example,xmr.pool.example",
    "--address=/wild.example/51.15.2.66",
    "--host-record=true.wild.example,51.15.2.66",
    "--host-record=www.sedoparking.com,51.15.2.77",
    "--cname=sold.pool.example,www.sedoparking.com",
    "--host-record=rpc.parked.example,51.15.2.78",
    "--dns-rr=parked.example,2,036e73310b7365646f7061726b696e6703636f6d00",
    "--host-record=sink.pool.example,0.0.0.0",
    "--local=/example/",
    "--local=/sedoparking.com/",
]


@pytest.fixture(scope="module")
def asked():
    binary = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin:/sbin")
    if binary is None:
        pytest.skip("dnsmasq is not installed (Debian: dnsmasq-base)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [binary, "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
         f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root",
         "--pid-file=", *ZONE],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    where = f"127.0.0.1:{port}"
    for _ in range(50):
        if list(resolve(["btc.pool.example"], [where], 1000, timeout_s=0.2)):
            break
        time.sleep(0.05)
    try:
        yield where
    finally:
        process.terminate()
        process.wait(10)


def found(asked, *names, stats=None):
    return list(resolve(names, [asked], 1000, lambda: NOON, sleep=lambda _: None, stats=stats))


@pytest.mark.tools
def test_a_name_has_its_addresses_of_both_families(asked):
    got = found(asked, "xmr.pool.example")
    assert {g.address for g in got} == {packed("51.15.2.3"), packed("2a01:4f8::3")}
    assert {(g.name, g.canonical, g.ttl_s, g.at_ns) for g in got} == {
        ("xmr.pool.example", "xmr.pool.example", 600, NOON)
    }
    assert all("127.0.0.1" in g.server for g in got)


@pytest.mark.tools
def test_an_alias_keeps_the_name_that_was_asked_for(asked):
    (got,) = {(g.name, g.canonical) for g in found(asked, "alias.pool.example")}
    assert got == ("alias.pool.example", "xmr.pool.example")


@pytest.mark.tools
@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("nowhere.pool.example", "absent"),
        ("true.wild.example", "wildcard"),
        ("sold.pool.example", "parked"),
        ("rpc.parked.example", "parked"),
        ("x" * 70 + ".example", "failed"),
    ],
)
def test_what_is_left_out_is_counted(asked, name, counted):
    stats = Stats()
    assert found(asked, name, stats=stats) == []
    assert getattr(stats, counted) >= 1
    assert stats.addresses == 0


@pytest.mark.tools
def test_what_was_found_becomes_known_with_its_expiry_and_a_sinkhole_does_not(asked):
    rows = [
        Pool(operator="P", domain=f"{n}.pool.example", match="exact", ports=(3333,), status="active")
        for n in ("xmr", "btc", "alias", "sink")
    ]
    table, index = Pools(rows), Endpoints()
    resolutions = Resolutions(table.find, networks.shipped(), index)
    got = found(asked, *(r.domain for r in table.resolvable()))
    made = list(teach(got, resolutions))
    assert {e.address for e in index} == {packed(a) for a in ("51.15.2.3", "51.15.2.4", "2a01:4f8::3")}
    assert {e.expires_ns for e in made} == {NOON + 6 * HOUR}
    assert resolutions.refused["routable"] == 1


@pytest.mark.tools
def test_questions_come_no_faster_than_allowed(asked):
    clock, slept = itertools.count(NOON), []
    stats = Stats()
    list(resolve(["xmr.pool.example"], [asked], 2.0, lambda: next(clock), sleep=slept.append, stats=stats))
    assert stats.asked == len(slept) + 1
    assert slept[0] == pytest.approx(0.5, abs=0.01)
    # The clock stands still here, so that the debt grows by half a second a question.
    assert slept[-1] == pytest.approx(0.5 * len(slept), abs=0.01)


def test_a_server_that_is_silent_is_counted_and_nothing_is_found():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        stats = Stats()
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        assert list(resolve(["a.example"], [where], 1000, timeout_s=0.1, stats=stats)) == []
        assert stats.failed == 2


def test_without_a_server_nothing_is_asked():
    stats = Stats()
    assert list(resolve(["a.example"], [], 1, stats=stats)) == []
    assert stats.asked == 0


def test_servers_are_addresses_with_a_port_where_it_is_not_53():
    assert (server("192.0.2.53").address, server("192.0.2.53").port) == ("192.0.2.53", 53)
    assert (server("192.0.2.53:5353").port, server("[2001:db8::1]:5353").port) == (5353, 5353)
    assert server("2001:db8::1").address == "2001:db8::1"
    for wrong in ("dns.example", "192.0.2.53:x", "192.0.2.53:0", "[2001:db8::1]:99999", ""):
        with pytest.raises(ConfigError, match="resolver"):
            server(wrong)


def test_the_task_is_off_unless_configured():
    assert resolver.Config().servers == ()
    assert resolver.Config().every_s * SECOND == 6 * HOUR
