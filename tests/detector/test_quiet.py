"""The allow list and the maintenance windows: what they cover, and how they are read."""

import os
import signal
import threading
import time

import pytest
from documents import document
from prometheus_client import CollectorRegistry

from detector import app, quiet
from detector.config import Config, Lists
from detector.document import MOST_LISTED, Service
from detector.errors import ConfigError
from detector.quiet import NEVER_NS, Allowed, Quiet, Window
from detector.reload import Reloads

DAY_NS = 86_400 * 10**9
NOW_NS = 1_795_349_520 * 10**9
TOMORROW_NS = NOW_NS + DAY_NS


def allow(*, expires_ns=TOMORROW_NS, network=None, service=None):
    net = quiet.ip_network(network) if network else None
    return Allowed(network=net, service=service, reason="lab", expires_ns=expires_ns)


def by(*rows, now_ns=NOW_NS, of=None):
    windows = [r for r in rows if isinstance(r, Window)]
    return Quiet([r for r in rows if isinstance(r, Allowed)], windows).covers(of or document(), now_ns)


@pytest.mark.parametrize(
    ("network", "covered"),
    [
        ("198.51.100.1", True), ("198.51.100.0/24", True), ("0.0.0.0/0", True), ("198.51.100.2", False),
        ("198.51.101.0/24", False), ("2001:db8::/32", False), ("::/0", False),
    ],
)  # fmt: skip
def test_an_address_or_a_prefix_is_allowed(network, covered):
    assert by(allow(network=network)) == ("allow" if covered else None)


def test_a_subscriber_that_is_a_prefix_is_allowed_by_it_or_by_a_wider_one():
    six = document(subscriber="2001:db8:0:1::/64")
    assert by(allow(network="2001:db8:0:1::/64"), of=six) == "allow"
    assert by(allow(network="2001:db8::/32"), of=six) == "allow"
    assert by(allow(network="2001:db8:0:2::/64"), of=six) is None


def test_thousands_of_prefixes_are_as_quick_as_one():
    rows = [allow(network=f"10.{n >> 8}.{n & 255}.0/24") for n in range(10_000)]
    lists = Quiet([*rows, allow(network="198.51.100.0/24"), allow(network="2001:db8::/48")])
    began = time.perf_counter()
    for _ in range(100):
        assert lists.covers(document(subscriber="192.0.2.1"), NOW_NS) is None
        assert lists.covers(document(subscriber="2001:db9::/64"), NOW_NS) is None
    assert time.perf_counter() - began < 0.5  # asked of each row: 3 s
    assert lists.covers(document(), NOW_NS) == "allow"
    assert lists.covers(document(subscriber="2001:db8:0:7::/64"), NOW_NS) == "allow"
    assert lists.covers(document(subscriber="2001:db8::/32"), NOW_NS) is None


def test_a_service_is_allowed_only_where_all_that_he_uses_are():
    row = allow(service=("203.0.113.5", 3333))
    assert by(row) == "allow"
    assert by(row, of=document(services=())) is None
    other = Service("203.0.113.6", 3333)
    assert by(row, of=document(services=(*document().services, other))) is None
    assert by(row, allow(service=("203.0.113.6", 3333)), of=document(services=(other,))) == "allow"
    # Where as many are listed as can be, one more may have been left out.
    assert by(row, of=document(services=document().services * MOST_LISTED)) is None


def test_what_expired_allows_nothing():
    row = allow(network="198.51.100.1")
    assert by(row, now_ns=TOMORROW_NS - 1) == "allow"
    assert by(row, now_ns=TOMORROW_NS) is None


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({}, True), ({"network": "198.51.100.0/24"}, True), ({"sector": "university"}, True),
        ({"sector": "hospital"}, False), ({"network": "10.0.0.0/8"}, False),
        ({"network": "198.51.100.0/24", "sector": "hospital"}, False),
        ({"from_ns": NOW_NS + 1}, False), ({"to_ns": NOW_NS}, False), ({"from_ns": NOW_NS}, True),
    ],
)  # fmt: skip
def test_a_window_is_of_a_time_and_of_a_prefix_and_a_sector(changes, covered):
    changes = {"from_ns": NOW_NS - 1, "to_ns": NOW_NS + 1} | changes
    if "network" in changes:
        changes["network"] = quiet.ip_network(changes["network"])
    assert by(Window(reason="works", **changes)) == ("maintenance" if covered else None)


def test_it_says_when_it_may_next_answer_otherwise():
    lists = Quiet([allow(network="10.0.0.1", expires_ns=50)], [Window(from_ns=10, to_ns=20, reason="works")])
    assert [lists.changes_ns(at) for at in (0, 10, 20, 50)] == [10, 20, 50, NEVER_NS]


GOOD_ALLOW = """
[[allow]]
subscriber = "198.51.100.7"
reason = "blockchain lab of the university, ticket 4711"
expires = 2027-03-01

[[allow]]
service = "[2001:db8::5]:3333"
reason = "own pool"
expires = 2026-12-24T18:00:00+01:00
"""
GOOD_WINDOWS = """
[[maintenance]]
from = 2026-11-22T22:00:00Z
to = 2026-11-23T04:00:00Z
prefix = "198.51.100.0/24"
sector = "university"
reason = "exercise of the NOC"
"""


def test_rows_are_read():
    first, second = quiet.allowed(GOOD_ALLOW, "allow.toml")
    assert str(first.network) == "198.51.100.7/32"
    assert first.expires_ns == 1803859200 * 10**9
    assert second.service == ("2001:db8::5", 3333)
    assert second.expires_ns == 1798131600 * 10**9
    (window,) = quiet.windows(GOOD_WINDOWS, "maintenance.toml")
    assert (window.to_ns - window.from_ns, window.sector) == (6 * 3600 * 10**9, "university")
    assert quiet.allowed("", "x") == quiet.windows("", "x") == ()


WHO, WHY, UNTIL = "subscriber = '10.0.0.1'\n", "reason = 'x'\n", "expires = 2027-01-01\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (WHO + UNTIL, "allow row 1, field reason: is missing"),
        (WHO + "reason = ' '\n" + UNTIL, "allow row 1, field reason: must be words"),
        (WHO + WHY, "allow row 1, field expires: is missing"),
        (WHO + WHY + "expires = '2027-01-01'", "field expires: must be a date"),
        (WHO + WHY + "expires = 2027-01-01T00:00:00", "field expires: needs its offset"),
        ("subscriber = '10.0.0.1/8'\n" + WHY + UNTIL, "field subscriber: .*host bits"),
        ("service = '10.0.0.1'\n" + WHY + UNTIL, "field service: .*ADDRESS:PORT"),
        (WHY + UNTIL, "one of subscriber and service is needed"),
        (WHO + "service = '10.0.0.1:1'\n" + WHY + UNTIL, "make two rows"),
        (WHO + WHY + UNTIL + "reson = 'x'", "field reson: is not a field"),
        (WHO + WHY + UNTIL + "[[alow]]", "alow is not a list"),
        ("[[", "allow.toml: "),
    ],
)
def test_a_broken_row_is_refused_by_file_row_and_field(row, said):
    with pytest.raises(ConfigError, match=rf"allow\.toml: .*{said}|^{said}"):
        quiet.allowed("[[allow]]\n" + row, "allow.toml")


@pytest.mark.parametrize(
    ("text", "said"), [("allow = 1", "allow must be rows"), ("allow = [1]", "allow row 1: not a table")]
)
def test_what_is_no_list_is_refused(text, said):
    with pytest.raises(ConfigError, match=rf"^allow\.toml: .*{said}"):
        quiet.allowed(text, "allow.toml")


def test_a_broken_window_is_refused_and_all_that_is_wrong_is_told_at_once():
    text = "[[maintenance]]\nfrom = 2026-11-23T04:00:00Z\nto = 2026-11-22T04:00:00Z\nprefix = 'x'"
    with pytest.raises(ConfigError) as caught:
        quiet.windows(text, "m.toml")
    for said in ("m.toml: maintenance row 1, field to", "field prefix", "field reason: is missing"):
        assert said in str(caught.value)


def test_rows_without_effect_are_complained_about():
    (row,) = quiet.windows(GOOD_WINDOWS, "m.toml")
    lists = Quiet([allow(network="10.0.0.1")], [row])
    assert quiet.over(lists, NOW_NS - 2 * DAY_NS) == []
    assert len(quiet.over(lists, row.to_ns + 2 * DAY_NS)) == 2


# -- read again ------------------------------------------------------------------------------------


def values(registry, name):
    return {
        s.labels["list"]: s.value
        for family in registry.collect()
        for s in family.samples
        if s.name == f"poolwatch_list_{name}"
    }


POOLS = "operator,domain,match,ports,coins,tls_ports,kind,status,fp_risk,source,basis\n"
ROW = "Lab,203.0.113.{n},exact,3333,XMR,,pool,active,low,lab,own\n"
PLACES = "prefix,unit,sector,city\n"


@pytest.fixture
def service(tmp_path):
    (tmp_path / "pools.csv").write_text(POOLS + ROW.format(n=1))
    (tmp_path / "home").write_text("198.51.100.0/24  # the lab\n")
    (tmp_path / "places.csv").write_text(PLACES + "198.51.100.0/24,Lab,university,Leeds\n")
    (tmp_path / "allow.toml").write_text(GOOD_ALLOW)
    (tmp_path / "maintenance.toml").write_text(GOOD_WINDOWS)
    lists = Lists(
        pools=(str(tmp_path / "pools.csv"),), shipped_pools=False, home_networks=str(tmp_path / "home"),
        places=str(tmp_path / "places.csv"), allow=str(tmp_path / "allow.toml"),
        maintenance=str(tmp_path / "maintenance.toml"),
    )  # fmt: skip
    return app.Service(Config(lists=lists))


NAMES = ("pools", "home_networks", "places", "allow", "maintenance")


def packed(text):
    return bytes(10) + b"\xff\xff" + bytes(map(int, text.split(".")))


def test_every_list_is_read_again_by_what_runs(service, tmp_path):
    detector = service.detector
    engine, index = detector.engine(), detector.endpoints()
    flows = detector.site.flow_collector(1, lambda *_: None)
    packets = detector.site.packet_collector(1, lambda *_: None)
    assert values(service.registry, "entries") == dict(zip(NAMES, (1, 1, 1, 2, 1), strict=True))
    (tmp_path / "pools.csv").write_text(POOLS + ROW.format(n=1) + ROW.format(n=2))
    (tmp_path / "home").write_text("10.0.0.0/8\n192.0.2.0/24\n")
    (tmp_path / "places.csv").write_text(PLACES + "10.0.0.0/8,Office,government,York\n")
    (tmp_path / "allow.toml").write_text("")
    (tmp_path / "maintenance.toml").write_text(GOOD_WINDOWS * 3)
    before = values(service.registry, "last_reload_timestamp_seconds")
    service.reloads.ask()
    service.turn()
    assert values(service.registry, "entries") == dict(zip(NAMES, (2, 2, 1, 0, 3), strict=True))
    assert values(service.registry, "last_reload_success") == dict.fromkeys(NAMES, 1)
    after = values(service.registry, "last_reload_timestamp_seconds")
    assert all(after[name] >= before[name] for name in NAMES)
    for known in (engine.index, index):
        assert known.at(packed("203.0.113.2"), 3333, 6)
    assert detector.knowledge.pools.find("203.0.113.2").operator == "Lab"
    assert detector.knowledge.is_home(packed("10.1.2.3"))
    assert not detector.knowledge.is_home(packed("198.51.100.1"))
    assert flows._reader._home is packets._home is detector.site.home
    assert packets._outlet._home == flows._outlet._home == detector.site.home.digest
    assert engine._place_of(packed("10.1.2.3")).city == "York"
    assert service.paging.board.quiet.allowed == ()


@pytest.mark.parametrize("number", range(5), ids=NAMES)
def test_a_broken_list_keeps_the_old_one_and_says_so(service, tmp_path, number, caplog):
    name = NAMES[number]
    file = tmp_path / ("pools.csv", "home", "places.csv", "allow.toml", "maintenance.toml")[number]
    before = values(service.registry, "last_reload_timestamp_seconds")[name]
    file.write_text("nonsense")
    service.reloads.ask()
    service.turn()
    assert values(service.registry, "last_reload_success") == {n: float(n != name) for n in NAMES}
    assert values(service.registry, "last_reload_timestamp_seconds")[name] == before
    assert values(service.registry, "entries") == dict(zip(NAMES, (1, 1, 1, 2, 1), strict=True))
    assert f"list={name}" in caplog.text
    file.unlink()
    service.reloads.ask()
    service.turn()
    assert values(service.registry, "last_reload_success")[name] == 0


@pytest.mark.parametrize("key", ["allow", "maintenance", "home_networks"])
def test_a_list_that_is_broken_at_the_start_stops_it(tmp_path, key):
    file = tmp_path / "list"
    file.write_text("nonsense")
    for path in (str(file), str(tmp_path / "none")):
        with pytest.raises(ConfigError):
            app.Service(Config(lists=Lists(**{key: path})))


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals")
def test_sighup_asks_for_it_and_it_is_said_what_was_reloaded(caplog):
    before = signal.getsignal(signal.SIGHUP)
    try:
        reloads, read = Reloads(CollectorRegistry()), []
        reloads.add("x", (), lambda: read.append(1) or (1, 2), lambda _: None)
        reloads.listen()
        reloads.turn()
        assert read == []
        os.kill(os.getpid(), signal.SIGHUP)
        reloads.turn()
        reloads.turn()
        assert read == [1]
        assert [r.getMessage() for r in caplog.records] == ["lists reloaded x=2"]
    finally:
        signal.signal(signal.SIGHUP, before)
