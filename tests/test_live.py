"""Live capture in the commands: real interfaces in a network namespace, frames of real miners."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import netns
import pytest
from exported import v5
from prometheus_client import CollectorRegistry

from collectors.bus import Message
from collectors.packet import pcapfile
from collectors.packet.collector import Collector, Metrics
from collectors.packet.collector import Config as PacketConfig
from collectors.privileges import NET_RAW
from collectors.subscribers import home
from detector.engine import Config as EngineConfig
from detector.engine import Engine

ROOT = Path(__file__).parent.parent
POOLWATCH = str(Path(sys.executable).parent / "poolwatch")
MINERS = {
    "198.51.100.11": "xmrig-plain", "198.51.100.14": "cpuminer-sha256d",
    "198.51.100.15": "cpuminer-scrypt-dense", "198.51.100.18": "bfgminer-sha256d",
}  # fmt: skip
QUIET = ("chat", "electrum", "ethrpc", "mqtt", "rpcapp3333")
# IP octets up and down, as test_captures counts them.
BYTES = {"198.51.100.15": (85_976, 44_197), "198.51.100.14": (3_963, 7_936)}
S = 10**9
pytestmark = pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())


@cache
def frames(name):
    """(time after the first, octets) of each frame."""
    with (ROOT / "pcaps" / f"{name}.pcap").open("rb") as file:
        found = list(pcapfile.blocks(file))
    first = int(found[0].t_ns[0])
    return [
        (int(t) - first, bytes(b.data[o : o + c]))
        for b in found
        for t, o, c in zip(b.t_ns, b.offset, b.captured, strict=True)
    ]


@cache
def needed(name):
    """How many frames of a capture, at the least, confirm its miner."""

    def confirms(count):
        out = []
        collector = Collector(
            PacketConfig(), home(), 1, lambda *m: out.append(Message(*m)), Metrics(CollectorRegistry())
        )
        with (ROOT / "pcaps" / f"{name}.pcap").open("rb") as file:
            (block,) = pcapfile.blocks(file)
        collector.feed(block.part(0, count))
        collector.finish()
        engine = Engine(EngineConfig())
        return any(t.to == "confirmed" for m in out for t in engine.step(m).transitions)

    low, high = 0, len(frames(name))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if confirms(middle) else (middle + 1, high)
    return low


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def metric(port, name):
    """The sum of a metric's samples, None while the listener is not there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    return sum(float(v) for v in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.M))


def wait_for(port, name, value, within_s=60):
    ends = time.monotonic() + within_s
    while (got := metric(port, name)) != value:
        assert time.monotonic() < ends, f"{name} never was {value} but {got}"
        time.sleep(0.05)


@pytest.fixture
def wire():
    """Send here; poolwatch captures at pw1."""
    with netns.entered():
        netns.veth("pw0", "pw1")
        with netns.sender("pw0") as opened:
            yield opened


class Watched:
    """A poolwatch that listens, and what it wrote."""

    def __init__(self, process, port, out):
        self.process, self.port, self.out = process, port, out

    def alerts(self):
        # The last line may be half written.
        return [json.loads(line) for line in (self.out / "alerts.jsonl").read_text().split("\n")[:-1]]

    def confirmed(self, subscriber, within_s=20.0):
        """When (Unix time) we saw that it is."""
        ends = time.time() + within_s
        while time.time() < ends:
            if any(a["subscriber"] == subscriber and a["to"] == "confirmed" for a in self.alerts()):
                return time.time()
            time.sleep(0.01)
        raise AssertionError(f"{subscriber} never was confirmed: {self.alerts()}")

    def incidents(self):
        latest = {}
        for line in (self.out / "incidents.jsonl").read_text().splitlines():
            document = json.loads(line)
            latest[document["subscriber"]] = document
        return latest

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, err
        return out, err

    def wait_for_frames(self, count):
        wait_for(self.port, "poolwatch_collector_packet_frames_total", count)


@contextmanager
def listening(tmp_path, *arguments, **environment):
    """Whatever ``arguments`` start, once it says that it listens."""
    port = free_port()
    process = subprocess.Popen(
        [POOLWATCH, *arguments, "--listen", f"127.0.0.1:{port}"], cwd=ROOT,
        env=os.environ | {"POOLWATCH_OUTPUT__JSONL": str(tmp_path / "out")} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        told = [process.stderr.readline()]
        while told[-1] and "receiving on" not in told[-1]:
            told.append(process.stderr.readline())
        assert told[-1], "".join(told)
        made = Watched(process, port, tmp_path / "out")
        made.told = "".join(told)
        wait_for(port, 'poolwatch_collector_packet_interface_up{interface="pw1"}', 1)
        yield made
    finally:
        process.kill()
        process.communicate()


RUN = ("run", "pcaps/chat.pcap", "--interface", "pw1")
COLLECT = ("collect", "packets", "--interface", "pw1")


@pytest.mark.parametrize("command", [RUN, COLLECT], ids=["run", "collect"])
def test_miners_on_the_wire_are_found_at_once_and_exactly_and_nobody_else(tmp_path, wire, command):
    latency = {}
    with listening(tmp_path, *command) as watched:
        sent = 22 if command is RUN else 0  # chat.pcap
        for name in QUIET:
            for _, frame in frames(name):
                wire.send(frame)
            sent += len(frames(name))
        for subscriber, name in MINERS.items():
            last = needed(name)
            for _, frame in frames(name)[:last]:
                wire.send(frame)
            at = time.time()
            latency[subscriber] = watched.confirmed(subscriber) - at
            for _, frame in frames(name)[last:]:
                wire.send(frame)
            sent += len(frames(name))
        watched.wait_for_frames(sent)
        assert metric(watched.port, 'poolwatch_collector_packet_kernel_drops_total{interface="pw1"}') == 0
        watched.stop()
    print({k: round(v, 3) for k, v in latency.items()})
    # Measured: 0.15 to 0.4 s.  The promise is 2 s; a loaded test machine gets more.
    assert max(latency.values()) < 8
    found = watched.incidents()
    assert {s for s, d in found.items() if d["state"] == "confirmed"} == set(MINERS)
    assert set(found) == set(MINERS)
    for subscriber, (up, down) in BYTES.items():
        assert found[subscriber]["bytes"] == {"up": up, "down": down}
    assert found["198.51.100.15"]["shares"]["accepted"] == 394
    pages = [a["subscriber"] for a in watched.alerts() if a["to"] == "confirmed"]
    assert sorted(pages) == sorted(MINERS)


def test_a_miner_at_its_own_pace_is_confirmed_within_two_seconds_of_the_last_packet_it_takes(tmp_path, wire):
    name, subscriber = "cpuminer-scrypt-dense", "198.51.100.15"
    last = needed(name)
    with listening(tmp_path, *COLLECT) as watched:
        began = time.monotonic()
        for t_ns, frame in frames(name)[:last]:
            time.sleep(max(0.0, t_ns / S - (time.monotonic() - began)))
            wire.send(frame)
        at = time.time()
        latency = watched.confirmed(subscriber) - at
        print(f"{last} frames, {latency:.3f} s")
        assert latency < 8
        watched.stop()


def test_by_scapy_it_is_found_too(tmp_path, wire):
    with listening(tmp_path, *COLLECT, "--source", "scapy", "--filter", "tcp port 3354") as watched:
        for name in ("cpuminer-scrypt-dense", "cpuminer-sha256d"):
            for _, frame in frames(name):
                wire.send(frame)
                time.sleep(0.002)
        watched.confirmed("198.51.100.15")
        watched.stop()
    found = watched.incidents()
    assert set(found) == {"198.51.100.15"}
    # scapy reads through a socket of the usual size, and says nothing of what was lost there.
    assert 0 < found["198.51.100.15"]["bytes"]["up"] <= 85_976


def test_what_the_kernel_drops_is_in_the_metrics(tmp_path, wire):
    environment = {
        "POOLWATCH_COLLECTORS__CAPTURE__BLOCKS": "2",
        "POOLWATCH_COLLECTORS__CAPTURE__BLOCK_BYTES": str(1 << 17),
    }
    dropped = 'poolwatch_collector_packet_kernel_drops_total{interface="pw1"}'
    passed = 'poolwatch_collector_packet_kernel_packets_total{interface="pw1"}'
    with listening(tmp_path, *COLLECT, **environment) as watched:
        watched.process.send_signal(signal.SIGSTOP)
        for _ in range(2000):
            wire.send(frames("chat")[0][1] + bytes(1000))
        watched.process.send_signal(signal.SIGCONT)
        wait_for(watched.port, passed, 2000)
        drops = metric(watched.port, dropped)
        assert 1000 < drops < 2000
        watched.wait_for_frames(2000 - drops)
        assert metric(watched.port, 'poolwatch_collector_packet_kernel_freezes_total{interface="pw1"}') >= 1
        # And it goes on.
        for _, frame in frames("cpuminer-sha256d"):
            wire.send(frame)
        watched.confirmed("198.51.100.14")
        _, err = watched.stop()
    assert f"kernel drops frames interface=pw1 count={int(drops)}" in err


def test_an_interface_that_goes_away_and_comes_back_is_listened_to_again(tmp_path, wire):
    up = 'poolwatch_collector_packet_interface_up{interface="pw1"}'
    with listening(tmp_path, *COLLECT) as watched:
        netns.delete("pw1")
        wait_for(watched.port, up, 0)
        netns.veth("pw0", "pw1")
        wait_for(watched.port, up, 1)
        with netns.sender("pw0") as again:
            for _, frame in frames("cpuminer-sha256d"):
                again.send(frame)
        watched.confirmed("198.51.100.14")
        assert (
            metric(watched.port, 'poolwatch_collector_packet_interface_reopened_total{interface="pw1"}') == 1
        )
        time.sleep(1.5)  # it looks once a second
        _, err = watched.stop()
    assert "interface is silent interface=pw1" in err
    assert "interface is back interface=pw1" in err


def test_a_tap_and_a_router_beside_each_other_count_once(tmp_path, wire):
    """The router's record says the same of the miner as the tap; only an address that both name has one
    incident, one amount of bytes, and evidence of both."""
    miner, pool, port = "198.51.100.15", "203.0.113.15", 3354
    (tmp_path / "pools.csv").write_text(
        "operator,domain,match,ports,coins,tls_ports,kind,status,fp_risk,source,basis\n"
        f"LabPool,{pool},exact,{port},LTC,,pool,active,low,lab,own\n"
    )
    arguments = ("run", "pcaps/chat.pcap", "--interface", "pw1", "--udp", "127.0.0.1", "--ports", "0")
    with listening(tmp_path, *arguments, POOLWATCH_LISTS__POOLS=str(tmp_path / "pools.csv")) as watched:
        exports = int(re.search(r"UDP (\d+)", watched.told).group(1))
        first = time.time()
        for _, frame in frames("cpuminer-scrypt-dense"):
            wire.send(frame)
        watched.confirmed(miner)
        last = time.time()
        records = [
            (miner, pool, 34802, port, 779, 85_976, first, last),
            (pool, miner, port, 34802, 405, 44_197, first, last),
        ]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
            router.sendto(v5(records, int(last) + 1, 0), ("127.0.0.1", exports))
        wait_for(watched.port, 'poolwatch_collector_netflow_datagrams_total{protocol="netflow5"}', 1)
        time.sleep(1)
        watched.stop()
    (document,) = watched.incidents().values()
    assert document["subscriber"] == miner
    assert document["bytes"] == {"up": 85_976, "down": 44_197}
    assert {"listed_endpoint", "share_accepted"} <= {e["kind"] for e in document["evidence"]}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_root_is_nobody_once_all_is_open(tmp_path, wire):
    with listening(tmp_path, *COLLECT) as watched:
        tasks = [
            dict(re.findall(r"^(\w+):\s+(.*)$", (task / "status").read_text(), re.M))
            for task in Path(f"/proc/{watched.process.pid}/task").iterdir()
        ]
        assert len(tasks) > 1
        for task in tasks:
            assert set(task["Uid"].split()) == {"65534"}
            assert set(task["Gid"].split()) == {"65534"}
            assert int(task["CapEff"], 16) & ~(1 << NET_RAW) == 0
            assert int(task["CapPrm"], 16) & ~(1 << NET_RAW) == 0
        main = dict(
            re.findall(r"^(\w+):\s+(.*)$", Path(f"/proc/{watched.process.pid}/status").read_text(), re.M)
        )
        assert int(main["CapEff"], 16) == int(main["CapBnd"], 16) == 1 << NET_RAW
        assert main["NoNewPrivs"] == "1"
        for _, frame in frames("cpuminer-sha256d"):
            wire.send(frame)
        watched.confirmed("198.51.100.14")
        watched.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who has no access")
def test_captures_that_nobody_may_read_are_replayed_all_the_same(tmp_path, wire):
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "miner.pcap").write_bytes((ROOT / "pcaps" / "xmrig-plain.pcap").read_bytes())
    with listening(tmp_path, "run", str(hidden), "--interface", "pw1") as watched:
        watched.confirmed("198.51.100.11")
        for _, frame in frames("cpuminer-sha256d"):
            wire.send(frame)
        watched.confirmed("198.51.100.14")
        _, err = watched.stop()
    assert "Permission" not in err
    assert "2 confirmed" in err


def test_a_replay_at_its_own_pace_and_a_live_link_go_on_beside_each_other(tmp_path, wire):
    with listening(
        tmp_path, "run", "pcaps/cpuminer-sha256d.pcap", "--pace", "1", "--interface", "pw1"
    ) as watched:
        for _, frame in frames("xmrig-plain"):
            wire.send(frame)
        watched.confirmed("198.51.100.11", 15)
        watched.stop()


def test_collecting_ends_after_its_seconds(tmp_path, wire):
    with listening(tmp_path, *COLLECT, "--seconds", "1") as watched:
        out, _ = watched.process.communicate(timeout=30)
    assert watched.process.returncode == 0
    assert "no mining found" in out


def refused(*arguments, **environment):
    return subprocess.run(
        [POOLWATCH, *arguments, "--listen", f"127.0.0.1:{free_port()}"], cwd=ROOT,
        env=os.environ | environment, capture_output=True, timeout=60, check=False, text=True,
    )  # fmt: skip


def test_what_cannot_be_captured_is_said(wire):
    done = refused("collect", "packets", "--interface", "nosuch")
    assert (done.returncode, "interface nosuch" in done.stderr) == (1, True)
    done = refused("collect", "packets")
    assert done.returncode == 2
    assert "--interface" in done.stderr
    done = refused("run", "--interface", "pw1", "--filter", "tcp prot 7")
    assert done.returncode == 2
    assert "tcp prot 7" in done.stderr
    done = refused("run", "--interface", "a-name-that-is-too-long")
    assert done.returncode == 2
    assert "interface" in done.stderr
    done = refused("collect", "packets", "--interface", "pw1", POOLWATCH_COLLECTORS__CAPTURE__USER="no-such")
    assert done.returncode == (2 if os.geteuid() == 0 else 0)


@pytest.mark.parametrize("once", [True, False])
def test_trying_to_capture_where_that_cannot_be_stops_nothing(wire, once):
    arguments = [POOLWATCH, "run", "pcaps/xmrig-plain.pcap", "--try-interface", "nosuch", "--listen"]
    process = subprocess.Popen(
        [*arguments, f"127.0.0.1:{(port := free_port())}", *(["--once"] if once else [])], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if not once:
            wait_for(port, 'poolwatch_miners{state="confirmed"}', 1)
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert ("nothing is captured: interface nosuch" in err) != once
