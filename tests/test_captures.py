"""The whole path over real captures: what is true of them is what is told."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from collectors.subscribers import home
from detector import app
from detector.config import Config
from detector.hashrate import garwood

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "captures" / "packets"
ROWS = tomllib.loads((ROOT / "pcaps" / "manifest.toml").read_text())["capture"]
MISSED_BY_CHANCE = "xmrig-argon2.pcap"
PREAMBLES_ARE_READ = "xmrig-socks5.pcap"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")


def scan(*paths, config=None):
    """Reports and incidents of files, in process."""
    detector = app.Detector(config or Config(), CollectorRegistry())
    replays = [app.Replay(detector, str(p)) for p in paths]
    reports = [r.run(lambda: False, lambda _: None) for r in replays]
    return reports, [f.incident for r in replays for f in r.found()]


def expect(row, incidents, subscriber):
    wanted = row["expected"]
    if wanted == "none":
        assert incidents == []
        return
    (d,) = incidents
    truth = row["truth"]
    assert (d.subscriber, d.state.value, d.role) == (subscriber, wanted, "miner")
    assert d.dialects == (truth["dialect"],)
    if wanted == "suspected":
        assert any("refused" in e.why for e in d.evidence)
    if "accepted_shares" in truth:
        assert d.shares.accepted == truth["accepted_shares"]
    if not truth.get("accepted_shares"):
        assert d.hashrate == ()
        return
    assert d.algorithms == (truth["algorithm"],)
    assert d.workers[0].startswith(("bc1qlabonly.worker1", "46uvKTaBJDcTestWallet"))
    (rate,) = d.hashrate
    assert rate.shares == truth["accepted_shares"]
    inside = rate.low <= truth["hashes_per_second"] <= rate.high
    assert inside == (row["file"] != MISSED_BY_CHANCE)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["file"])
def test_our_captures_give_what_is_true_of_them(row):
    _, incidents = scan(ROOT / "pcaps" / row["file"])
    expect(row, incidents, row["subscriber"])


@needs_shared
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["file"])
def test_the_originals_on_loopback_give_the_same(row):
    _, incidents = scan(SHARED / row["origin"])
    expect(row, incidents, "127.0.0.1")


@needs_shared
@pytest.mark.parametrize("networks", [None, ()], ids=["home networks", "any client"])
def test_public_captures_give_no_incident(networks):
    paths = sorted((SHARED / "public-pcapplusplus").iterdir())
    config = Config() if networks is None else Config(home_networks=networks)
    reports, incidents = scan(*paths, config=config)
    assert len(reports) == 175
    assert sum(r.packets for r in reports) > 30_000
    assert incidents == []


def test_the_hash_rate_of_dense_captures_is_within_its_own_error():
    for name, truth in (("cpuminer-scrypt-dense", 24514.193), ("xmrig-cnpico-dense", 1032.698)):
        (d,) = scan(ROOT / "pcaps" / f"{name}.pcap")[1]
        (rate,) = d.hashrate
        low, high = garwood(rate.shares)
        assert rate.value is not None
        assert low / rate.shares < truth / rate.value < high / rate.shares


def test_mining_bytes_are_the_ip_octets_of_mining_connections():
    """Counted here with scapy: IPv4 total lengths of the connections that mine."""
    from scapy.layers.inet import IP, TCP
    from scapy.utils import PcapReader

    for name, port in (("bfgminer-sha256d", 60848), ("cpuminer-scrypt-dense", None)):
        path = ROOT / "pcaps" / f"{name}.pcap"
        up = down = 0
        with PcapReader(str(path)) as packets:
            for p in packets:
                if port in {None, p[TCP].sport, p[TCP].dport}:
                    if p[IP].src.startswith("198.51.100."):
                        up += p[IP].len
                    else:
                        down += p[IP].len
        (d,) = scan(path)[1]
        assert (d.bytes.up, d.bytes.down) == (up, down)


def test_with_both_ends_home_the_server_is_a_pool_and_only_the_miner_is_measured():
    from detector.exporters.report import summary

    path = ROOT / "pcaps" / "cpuminer-scrypt-dense.pcap"
    config = Config(home_networks=("198.51.100.0/24", "203.0.113.0/24"))
    reports, incidents = scan(path, config=config)
    by_role = {d.role: d for d in incidents}
    assert set(by_role) == {"miner", "pool"}
    assert by_role["miner"].shares.accepted == 394
    assert by_role["pool"].hashrate == ()
    total = summary(incidents, reports)
    (alone,) = scan(path)[1]
    assert (total.confirmed, total.bytes) == (1, alone.bytes)


def test_with_no_home_networks_the_client_is_the_subscriber():
    (d,) = scan(ROOT / "pcaps" / "xmrig-plain.pcap", config=Config(home_networks=()))[1]
    assert d.subscriber == "198.51.100.11"


def test_with_other_home_networks_nothing_is_seen_and_the_rows_are_counted():
    registry = CollectorRegistry()
    detector = app.Detector(Config(home_networks=("10.0.0.0/8",)), registry)
    replay = app.Replay(detector, str(ROOT / "pcaps" / "xmrig-plain.pcap"))
    replay.run(lambda: False, lambda _: None)
    assert replay.found() == []
    assert registry.get_sample_value("poolwatch_collector_packet_not_home_total", {"stream": "flows"}) > 0
    assert home(("10.0.0.0/8",)).digest != home().digest


def poolwatch(*arguments, stdin=None, **environment):
    import os

    return subprocess.run(
        [Path(sys.executable).parent / "poolwatch", *map(str, arguments)], input=stdin, capture_output=True,
        cwd=ROOT, env=os.environ | environment, timeout=120, check=False,
    )  # fmt: skip


def test_scan_json_is_one_document_of_the_stated_form():
    done = poolwatch("scan", "--json", "pcaps/xmrig-plain.pcap", "pcaps/chat.pcap")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"files", "incidents", "summary"}
    assert {"path", "packets", "flows", "bytes", "refused"} <= set(told["files"][0])
    (incident,) = told["incidents"]
    assert incident["file"] == "pcaps/xmrig-plain.pcap"
    assert list(incident)[1:] == [
        "id", "subscriber", "state", "belief", "first_seen", "last_seen", "role", "coins", "algorithms",
        "dialects", "services", "workers", "agents", "shares", "hashrate", "power_watts", "bytes", "place",
        "evidence", "coin_reasons", "paid_coins", "wallets", "kwh_per_day",
    ]  # fmt: skip
    assert set(incident["evidence"][0]) == {
        "kind", "group", "rule", "first", "last", "count", "strength", "why",
    }  # fmt: skip
    assert incident["first_seen"].endswith("Z")
    assert told["summary"]["confirmed"] == 1


def test_standard_input_is_read():
    done = poolwatch("scan", "-", stdin=(ROOT / "pcaps" / "xmrig-plain.pcap").read_bytes())
    assert done.returncode == 0
    assert b"198.51.100.11" in done.stdout


def test_an_input_that_cannot_be_read_is_status_1_and_the_others_are_still_read(tmp_path):
    bad = tmp_path / "letter.txt"
    bad.write_text("dear pool, " * 50)
    done = poolwatch("scan", "--json", bad, tmp_path / "nothing.pcap", "pcaps/xmrig-plain.pcap")
    assert done.returncode == 1
    assert b"letter.txt" in done.stderr
    assert b"nothing.pcap" in done.stderr
    told = json.loads(done.stdout)
    assert len(told["files"]) == 3
    assert len(told["incidents"]) == 1


def test_names_from_the_wire_are_text_and_never_markup(tmp_path):
    """A worker called [/x], a file called [red]: shown as they are."""
    data = (ROOT / "pcaps" / "cpuminer-sha256d.pcap").read_bytes()
    hostile = tmp_path / "[red]a[_x].pcap"
    hostile.write_bytes(data.replace(b"bc1qlabonly.worker1", b"[/x][red]:bomb:[/a]"))
    done = poolwatch("scan", hostile)
    assert done.returncode == 0, done.stderr
    assert b"[/x][red]:bomb:[/a]" in done.stdout
    done = poolwatch("run", "--once", hostile, POOLWATCH_HTTP__LISTEN="127.0.0.1:0")
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_no_utf8_and_standard_input_twice_are_no_trouble(tmp_path):
    import os

    odd = tmp_path / os.fsdecode(b"caf\xe9.pcap")
    odd.write_bytes((ROOT / "pcaps" / "chat.pcap").read_bytes())
    assert poolwatch("scan", "--json", odd).returncode == 0
    done = poolwatch("scan", "-", "-", stdin=(ROOT / "pcaps" / "chat.pcap").read_bytes())
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["scan", "--jsn", "x"], {}, b"--jsn"),
        (["frobnicate"], {}, b"frobnicate"),
        (["check"], {"POOLWATCH_HTTP__LISTN": "x"}, b"did you mean 'http.listen'"),
        (["check"], {"POOLWATCH_HTTP__LISTEN": "here"}, b"http.listen: 'here'"),
        (["check"], {"POOLWATCH_HOME_NETWORKS": "10.0.0.1/8"}, b"home_networks: '10.0.0.1/8'"),
        (["check"], {"POOLWATCH_DETECTOR__JUDGE__HALF_LIFE_S": "0"}, b"half_life_s"),
        (["check"], {"POOLWATCH_LISTS__PLACES": "/nowhere.csv"}, b"lists.places: "),
        (["check"], {"POOLWATCH_COLLECTORS__NETFLOW__TEMPLATES_FILE": "/tmp"}, b"/tmp is a folder"),
        (["check"], {"POOLWATCH_COLLECTORS__NETFLOW__TEMPLATES_FILE": "/no/where"}, b"no folder /no"),
        (["check"], {"POOLWATCH_COLLECTORS__NETFLOW__PORTS": "2055,70000"}, b"netflow.ports"),
        (["check"], {"POOLWATCH_COLLECTORS__CAPTURE__FILTER": "tcp prot 3333"}, b"capture filter"),
        (["check", "--config", "/nowhere.toml"], {}, b"/nowhere.toml"),
        (["scan", "pcaps", "--config", "/nowhere.toml"], {}, b"/nowhere.toml"),
        (["run", "--once", "--pace", "-1"], {}, b"--pace"),
        (["run", "--once", "--pace", "nan"], {}, b"--pace"),
        (["run", "--once", "pcaps/chat.pcap"], {"POOLWATCH_OUTPUT__JSONL": "/dev/null/x"}, b"output.jsonl"),
        (["check"], {"POOLWATCH_DETECTOR__PAYLOAD__MAX_CONNECTIONS": "0"}, b"max_connections"),
        (["check"], {"POOLWATCH_COLLECTORS__PACKETS__REASSEMBLY__MAX_CONNECTIONS": "0"}, b"max_connections"),
        (["check"], {"POOLWATCH_DETECTOR__JUDGE__FADE_AT": "0.6"}, b"fade_at"),
        (["check"], {"POOLWATCH_DETECTOR__PAYLOAD__MAX_CONNECTIONS": "4000"}, b"sessions_per_subscriber"),
    ],
)
def test_what_the_operator_got_wrong_is_named_and_status_2(arguments, environment, words):
    done = poolwatch(*arguments, **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert b"Traceback" not in done.stderr


def test_check_and_config_agree_with_each_other(tmp_path):
    assert poolwatch("check").returncode == 0
    printed = tmp_path / "c.toml"
    printed.write_bytes(poolwatch("config").stdout)
    assert poolwatch("check", "--config", printed).returncode == 0
    done = poolwatch("check", POOLWATCH_COLLECTORS__NETFLOW__WORKERS="4")
    assert done.returncode == 0
    assert b"workers = 4 counts for `collect flows` over Kafka only" in done.stderr
    assert poolwatch("config", "--config", printed).stdout == printed.read_bytes()
