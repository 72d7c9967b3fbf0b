"""What a router's exports say about mining, from the wire and from captures."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from exported import pcap, sflow, v5

ROOT = Path(__file__).parent.parent
POOLWATCH = str(Path(sys.executable).parent / "poolwatch")
MINER, POOL, PORT = "198.51.100.15", "203.0.113.15", 3354
UP, DOWN = 85_976, 44_197  # IP octets of cpuminer-scrypt-dense.pcap, as test_captures counts them
HEADER = "operator,domain,match,ports,coins,tls_ports,kind,status,fp_risk,source,basis\n"
T0 = 1_790_000_000


@pytest.fixture
def lab(tmp_path):
    """The environment of a poolwatch that knows the laboratory's pool."""
    (tmp_path / "pools.csv").write_text(
        HEADER + f"LabPool,{POOL},exact,{PORT},LTC,,pool,active,low,lab,own\n"
    )
    return os.environ | {"POOLWATCH_LISTS__POOLS": str(tmp_path / "pools.csv")}


def both_ways(first, last, packets=60, octets=6000):
    there = (MINER, POOL, 40000, PORT, packets, octets, first, last)
    return [there, (POOL, MINER, PORT, 40000, packets, octets, first, last)]


def scan(tmp_path, environment, data, name="exports.pcap"):
    (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [POOLWATCH, "scan", "--json", str(tmp_path / name)], env=environment, cwd=ROOT, capture_output=True,
        timeout=120, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_a_short_visit_is_suspected(tmp_path, lab):
    told = scan(tmp_path, lab, pcap([(v5(both_ways(T0, T0 + 40), T0 + 60, 0), T0 + 60)]))
    (d,) = told["incidents"]
    assert (d["subscriber"], d["state"]) == (MINER, "suspected")
    assert d["bytes"] == {"up": 6000, "down": 6000}
    assert d["services"][0]["operator"] == "LabPool"
    assert d["coins"] == ["LTC"]
    assert "flow records only" in d["evidence"][0]["why"]


def test_persistence_confirms_and_the_explanation_says_on_what(tmp_path, lab):
    half = 1800
    sent = [
        (
            v5(both_ways(T0 + n * half, T0 + (n + 1) * half - 5), T0 + (n + 1) * half, 2 * n),
            T0 + (n + 1) * half,
        )
        for n in range(9)
    ]
    told = scan(tmp_path, lab, pcap(sent))
    (d,) = told["incidents"]
    assert (d["subscriber"], d["state"]) == (MINER, "confirmed")
    assert {e["group"] for e in d["evidence"]} == {"identity", "behaviour"}
    assert all("share" not in e["kind"] for e in d["evidence"])
    assert any("flow records only" in e["why"] for e in d["evidence"])
    assert d["bytes"] == {"up": 9 * 6000, "down": 9 * 6000}
    assert d["hashrate"] == []


@pytest.mark.parametrize("every", [1, 10])
def test_sampled_packets_of_a_miner_make_it_suspected_with_its_scaled_octets(tmp_path, lab, every):
    capture = (ROOT / "pcaps" / "cpuminer-scrypt-dense.pcap").read_bytes()
    told = scan(tmp_path, lab, pcap(sflow(capture, every), port=6343))
    (d,) = told["incidents"]
    assert (d["subscriber"], d["state"]) == (MINER, "suspected")
    if every == 1:
        assert d["bytes"] == {"up": UP, "down": DOWN}
    else:
        # 118 packets of 1,184 were looked at: the figure is an estimate.
        assert d["bytes"]["up"] == pytest.approx(UP, rel=0.25)
        assert d["bytes"]["down"] == pytest.approx(DOWN, rel=0.25)
    assert d["services"][0]["operator"] == "LabPool"
    assert "flow records only" in d["evidence"][0]["why"]


def test_an_unlisted_server_is_nothing(tmp_path):
    assert (
        scan(tmp_path, os.environ, pcap([(v5(both_ways(T0, T0 + 40), T0 + 60, 0), T0 + 60)]))["incidents"]
        == []
    )


@pytest.mark.parametrize("off_s", [86_400, -86_400 * 365])
def test_short_visits_stamped_over_hours_a_day_ahead_or_a_year_behind_confirm_nobody(tmp_path, lab, off_s):
    """They came within nine seconds: an exporter's clock that is so wrong gives way to that."""
    sent = [
        (v5(both_ways(at, at + 40), at + 60, 2 * n), T0 + n)
        for n, at in enumerate(range(T0 + off_s, T0 + off_s + 9 * 1800, 1800))
    ]
    told = scan(tmp_path, lab, pcap(sent))
    assert [d["state"] for d in told["incidents"]] == ["suspected"]


def test_a_router_whose_clock_is_wrong_tells_the_same_as_one_whose_clock_is_right(tmp_path, lab):
    def told(off_s):
        exported = v5(both_ways(T0 + off_s, T0 + off_s + 1700), T0 + off_s + 1800, 0)
        return scan(tmp_path, lab, pcap([(exported, T0 + 1800)]))["incidents"]

    right = told(0)
    assert [d["state"] for d in right] == ["confirmed"]
    assert told(86_400) == told(-86_400 * 365) == right


def test_a_tap_and_a_router_on_one_link_do_not_count_twice(tmp_path, lab):
    from scapy.utils import rdpcap, wrpcap

    packets = rdpcap(str(ROOT / "pcaps" / "cpuminer-scrypt-dense.pcap"))
    first, last = float(packets[0].time), float(packets[-1].time)
    records = [
        (MINER, POOL, 34802, PORT, 779, UP, first, last),
        (POOL, MINER, PORT, 34802, 405, DOWN, first, last),
    ]
    (tmp_path / "router.pcap").write_bytes(pcap([(v5(records, int(last) + 1, 0), last + 1)]))
    router = rdpcap(str(tmp_path / "router.pcap"))
    from scapy.layers.l2 import Ether

    exported = [Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / p for p in router]
    for made, p in zip(exported, router, strict=True):
        made.time = p.time
    wrpcap(str(tmp_path / "both.pcap"), [*packets, *exported])
    told = scan(tmp_path, lab, (tmp_path / "both.pcap").read_bytes())
    (d,) = [i for i in told["incidents"] if i["subscriber"] == MINER]
    assert d["state"] == "confirmed"
    assert d["bytes"] == {"up": UP, "down": DOWN}
    assert d["shares"]["accepted"] == 394
    assert {"listed_endpoint", "share_accepted"} <= {e["kind"] for e in d["evidence"]}
    assert d["services"] == [{"address": POOL, "port": PORT, "name": POOL, "operator": "LabPool"}]


def answered(name, address, resolver="10.0.0.53", client=MINER):
    """A DNS answer on the wire, before the miner's connection."""
    from scapy.layers.dns import DNS, DNSQR, DNSRR
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    message = DNS(id=7, qr=1, qd=DNSQR(qname=name), an=DNSRR(rrname=name, ttl=300, rdata=address))
    ends = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=resolver, dst=client)
    return Ether(bytes(ends / UDP(sport=53, dport=5353) / message))


@pytest.mark.parametrize(("resolver", "resolves"), [("10.0.0.53", True), ("10.0.0.66", False)])
def test_an_answer_of_a_configured_resolver_makes_an_endpoint_and_another_s_does_not(
    tmp_path, resolver, resolves
):
    from scapy.utils import rdpcap, wrpcap

    row = f"LabPool,stratum.lab.example,exact,{PORT},LTC,,pool,active,low,lab,own\n"
    (tmp_path / "pools.csv").write_text(HEADER + row)
    packets = rdpcap(str(ROOT / "pcaps" / "cpuminer-scrypt-dense.pcap"))
    dns = answered("stratum.lab.example", POOL, resolver)
    dns.time = packets[0].time - 1
    wrpcap(str(tmp_path / "dns.pcap"), [dns, *packets])
    environment = os.environ | {
        "POOLWATCH_LISTS__POOLS": str(tmp_path / "pools.csv"),
        "POOLWATCH_COLLECTORS__PACKETS__DNS_RESOLVERS": "10.0.0.53",
        "POOLWATCH_DETECTOR__RESOLUTIONS__ROUTABLE": "203.0.113.0/24",
    }
    told = scan(tmp_path, environment, (tmp_path / "dns.pcap").read_bytes())
    (d,) = told["incidents"]
    assert ("resolved_endpoint" in {e["kind"] for e in d["evidence"]}) == resolves
    assert (d["services"][0]["name"] == "stratum.lab.example") == resolves


@contextmanager
def collecting(environment):
    """A live flow collector and the port it receives on."""
    process = subprocess.Popen(
        [POOLWATCH, "collect", "flows", "--udp", "127.0.0.1", "--ports", "0", "--listen", "127.0.0.1:0"],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        told = ""
        while "receiving on" not in told:
            told = process.stderr.readline()
        yield process, told.split("UDP ")[1].strip()
    finally:
        process.kill()
        process.communicate()


def export(version, port, capture):
    """softflowd meters a capture and sends what it saw."""
    subprocess.run(
        ["softflowd", "-d", "-v", str(version), "-n", f"127.0.0.1:{port}", "-r", str(capture)],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip


@pytest.mark.tools
@pytest.mark.skipif(not shutil.which("softflowd"), reason="needs softflowd (Debian package softflowd)")
@pytest.mark.parametrize("version", [5, 9, 10])
def test_softflowd_over_udp_is_received_and_judged(tmp_path, lab, version):
    environment = lab | {"POOLWATCH_OUTPUT__JSONL": str(tmp_path / "out")}
    with collecting(environment) as (process, port):
        export(version, port, lately(tmp_path))
        ends = time.monotonic() + 30
        while time.monotonic() < ends and not (tmp_path / "out" / "alerts.jsonl").read_text():
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "1 suspected" in out
    document = json.loads((tmp_path / "out" / "incidents.jsonl").read_text().splitlines()[-1])
    assert (document["subscriber"], document["state"]) == (MINER, "suspected")
    assert document["bytes"] == {"up": UP, "down": DOWN}


@pytest.mark.tools
@pytest.mark.skipif(
    not (shutil.which("softflowd") and shutil.which("dnsmasq")), reason="needs softflowd and dnsmasq-base"
)
def test_a_name_that_is_looked_up_makes_the_endpoint_of_an_export(tmp_path):
    """Nothing but a name is listed: dnsmasq has its address, softflowd tells of the connection."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        dns_port = probe.getsockname()[1]
    row = f"LabPool,stratum.lab.example,exact,{PORT},LTC,,pool,active,low,lab,own\n"
    (tmp_path / "pools.csv").write_text(HEADER + row)
    environment = os.environ | {
        "POOLWATCH_LISTS__POOLS": str(tmp_path / "pools.csv"),
        "POOLWATCH_LISTS__SHIPPED_POOLS": "false",
        "POOLWATCH_RESOLVER__SERVERS": f"127.0.0.1:{dns_port}",
        "POOLWATCH_RESOLVER__RATE_PER_S": "100",
        "POOLWATCH_DETECTOR__RESOLUTIONS__ROUTABLE": "203.0.113.0/24",
        "POOLWATCH_OUTPUT__JSONL": str(tmp_path / "out"),
    }
    dnsmasq = subprocess.Popen(
        ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
         f"--port={dns_port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root",
         "--pid-file=", f"--host-record=stratum.lab.example,{POOL}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with collecting(environment) as (process, port):
            ends = time.monotonic() + 30
            while time.monotonic() < ends and not (tmp_path / "out" / "alerts.jsonl").read_text():
                export(10, port, lately(tmp_path))
                time.sleep(1)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    finally:
        dnsmasq.kill()
        dnsmasq.communicate()
    document = json.loads((tmp_path / "out" / "incidents.jsonl").read_text().splitlines()[-1])
    assert document["state"] == "suspected"
    assert document["evidence"][0]["kind"] == "resolved_endpoint"
    assert document["services"][0]["name"] == "stratum.lab.example"


def lately(tmp_path):
    """The miner's capture, moved so that it ends now: an answer of today says nothing of last month."""
    from scapy.utils import rdpcap, wrpcap

    packets = rdpcap(str(ROOT / "pcaps" / "cpuminer-scrypt-dense.pcap"))
    move = time.time() - float(packets[-1].time)
    for p in packets:
        p.time = float(p.time) + move
    wrpcap(str(tmp_path / "lately.pcap"), packets)
    return tmp_path / "lately.pcap"


def poolwatch(*arguments, **environment):
    return subprocess.run(
        [POOLWATCH, *map(str, arguments)], cwd=ROOT, env=os.environ | environment, capture_output=True,
        timeout=60, check=False, text=True,
    )  # fmt: skip


def test_flows_prints_records_by_element_name(tmp_path):
    (tmp_path / "e.pcap").write_bytes(pcap([(v5(both_ways(T0, T0 + 40), T0 + 60, 0), T0 + 60)]))
    done = poolwatch("flows", "--json", tmp_path / "e.pcap")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["sourceIPv4Address"], r["octetDeltaCount"]) for r in rows] == [(MINER, 6000), (POOL, 6000)]
    assert poolwatch("flows", "--csv", tmp_path / "e.pcap").stdout.count("\n") == 3
    assert "2 records" in poolwatch("flows", tmp_path / "e.pcap").stdout
    assert poolwatch("flows", tmp_path / "none.pcap").returncode == 1


def test_pools_are_listed_checked_and_imported(tmp_path):
    (tmp_path / "more.csv").write_text(
        HEADER + "Own,pool.example.net,suffix,3333;4444,XMR,5555,pool,active,low,us,own\n"
    )
    own = tmp_path / "own.csv"
    assert "1 added" in poolwatch("pools", "import", tmp_path / "more.csv", own).stdout
    assert "0 added" in poolwatch("pools", "import", tmp_path / "more.csv", own).stdout
    listed = poolwatch("pools", "list", "--operator", "Own", POOLWATCH_LISTS__POOLS=str(own)).stdout
    assert "pool.example.net" in listed
    assert "no port: its addresses cannot be known endpoints" in poolwatch("pools", "check").stdout
    (tmp_path / "bad.csv").write_text(HEADER + "Own,pool.example.net,maybe,x,,,,,,,\n")
    done = poolwatch("pools", "import", tmp_path / "bad.csv", own)
    assert done.returncode == 2
    assert "bad.csv" in done.stderr
    assert "line 2" in done.stderr
    assert poolwatch("pools", "resolve").returncode == 2
