"""``poolwatch collect`` before a real broker: what a file and a live link put on the topics."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import fleet
import pytest
from exported import pcap, v5

from collectors import wire
from collectors.kafka import clients, topics
from collectors.kafka.config import Config

ROOT = Path(__file__).parent.parent.parent
POOLWATCH = Path(sys.executable).parent / "poolwatch"
MINER = "pcaps/xmrig-plain.pcap"
T0 = 1_790_000_000
RECORD = ("198.51.100.7", "203.0.113.3", 40000, 3333, 10, 1200, T0, T0 + 50)


@pytest.fixture
def site(kafka, prefix):
    made = Config(bootstrap_servers=(kafka.address,), topic_prefix=prefix, partitions=4, replication=1)
    with clients.admin(made) as admin:
        topics.create(admin, made)
    return made


def environment(site):
    return os.environ | {
        "POOLWATCH_BUS": "kafka",
        "POOLWATCH_KAFKA__BOOTSTRAP_SERVERS": ",".join(site.bootstrap_servers),
        "POOLWATCH_KAFKA__TOPIC_PREFIX": site.topic_prefix,
        "POOLWATCH_KAFKA__PARTITIONS": str(site.partitions),
        "POOLWATCH_KAFKA__REPLICATION": "1",
    }


def collect(site, *arguments, **more):
    return subprocess.run(
        [POOLWATCH, "collect", *arguments],
        cwd=ROOT, env=environment(site) | more.pop("env", {}), capture_output=True, timeout=120, check=False,
        **more,
    )  # fmt: skip


def headers(site):
    """Every header on the topics of collectors, as (stream, partition, header, size of the value)."""
    names = {topics.topic(site, s): s for s in ("flows", "payloads", "names")}
    return [
        (names[r.topic], r.partition, wire.from_headers(r.headers), len(r.value))
        for r in fleet.consumed(site, *names)
    ]


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_each_file_is_a_run_of_its_own_that_ends_in_every_partition(site):
    done = collect(site, "packets", MINER, "pcaps/cpuminer-sha256d.pcap")
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    told = re.search(rb"sent (\d+) messages, (\d+) rows, (\d+) bytes\n", done.stderr)
    got = headers(site)
    assert len(got) == int(told[1])
    assert sum(h.rows for _, _, h, _ in got) == int(told[2]) > 0
    runs = {h.run for _, _, h, _ in got}
    assert sorted(r.partition("@")[0] for r in runs) == ["cpuminer-sha256d.pcap", "xmrig-plain.pcap"]
    for run in runs:
        assert {h.life for _, _, h, _ in got if h.run == run} == {run.partition("@")[2]}
        for partition in range(4):
            mine = sorted(((h.turn, h.ends, s) for s, p, h, _ in got if (h.run, p) == (run, partition)))
            assert [turn for turn, *_ in mine] == list(range(len(mine)))
            assert [ends for _, ends, _ in mine] == [False] * (len(mine) - 1) + [True]
            assert mine[-1][2] == "flows"
    assert {s for s, _, h, _ in got if h.rows} >= {"flows", "payloads"}
    assert all((size == 0) == (h.rows == 0) for _, _, h, size in got)


def test_exports_in_a_capture_are_a_run_too(site, tmp_path):
    (tmp_path / "router.pcap").write_bytes(pcap([(v5([RECORD], T0 + 60, 0), T0 + 60)]))
    done = collect(site, "flows", str(tmp_path / "router.pcap"))
    assert done.returncode == 0, done.stderr
    got = headers(site)
    assert {(h.collector, h.run.partition("@")[0]) for _, _, h, _ in got if not h.ends} == {
        ("netflow", "router.pcap")
    }
    assert sum(h.rows for _, _, h, _ in got) == 1
    assert sum(h.ends for _, _, h, _ in got) == site.partitions


def test_a_folder_and_standard_input_are_read_and_a_file_that_is_not_there_is_told(site, tmp_path):
    (tmp_path / "a.pcap").write_bytes((ROOT / MINER).read_bytes())
    with (ROOT / MINER).open("rb") as file:
        done = collect(site, "packets", str(tmp_path), "-", "/nowhere.pcap", stdin=file)
    assert done.returncode == 1
    assert b"/nowhere.pcap: No such file" in done.stderr
    assert {h.run.partition("@")[0] for _, _, h, _ in headers(site)} == {tmp_path.name, "stdin"}


def test_no_topics_no_broker_and_a_wrong_count_are_told_by_status(site):
    wrong = collect(site, "packets", MINER, env={"POOLWATCH_KAFKA__PARTITIONS": "8"})
    assert wrong.returncode == 2
    assert b"poolwatch.flows.v1 has 4 partitions, kafka.partitions is 8" in wrong.stderr
    missing = collect(site, "packets", MINER, env={"POOLWATCH_KAFKA__TOPIC_PREFIX": "nobody-"})
    assert missing.returncode == 2
    assert b"nobody-poolwatch.flows.v1 does not exist: run poolwatch topics create" in missing.stderr
    nowhere = {"POOLWATCH_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9", "POOLWATCH_KAFKA__CONNECT_TIMEOUT_S": "1"}
    gone = collect(site, "packets", MINER, env=nowhere)
    assert gone.returncode == 1
    assert b"kafka at 127.0.0.1:9 was not reached within 1 s" in gone.stderr


def test_a_live_collector_serves_its_health_and_ends_cleanly(site):
    http, udp = free_port(), free_port(socket.SOCK_DGRAM)

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{http}{path}", timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            return ""

    arguments = ("flows", "--udp", "127.0.0.1", "--ports", str(udp), "--listen", f"127.0.0.1:{http}")
    with subprocess.Popen(
        [POOLWATCH, "collect", *arguments],
        cwd=ROOT, env=environment(site), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            end = time.monotonic() + 60
            while get("/readyz") != "ok\n":
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.05)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
                router.sendto(v5([RECORD], T0 + 60, 0), ("127.0.0.1", udp))
            sample = 'poolwatch_collector_bus_rows_total{stream="flows"} 1.0'
            while sample not in get("/metrics"):
                assert time.monotonic() < end
                time.sleep(0.05)
            assert get("/livez") == "ok\n"
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert out == b""
    assert re.search(rb"sent \d+ messages, 1 rows", err)
    got = headers(site)
    assert {(h.run, h.ends) for _, _, h, _ in got} == {("", False)}
    assert len({h.life for _, _, h, _ in got}) == 1
    assert {p for _, p, _, _ in got} == {0, 1, 2, 3}
    assert sum(h.rows for _, _, h, _ in got) == 1


def test_a_signal_in_the_middle_of_a_paced_file_ends_its_run(site):
    with subprocess.Popen(
        [POOLWATCH, "collect", "packets", "pcaps", "--pace", "1"],
        cwd=ROOT, env=environment(site), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            end = time.monotonic() + 60
            while not headers(site):
                assert time.monotonic() < end
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, err
    got = headers(site)
    assert sum(h.ends for _, _, h, _ in got) == site.partitions
    assert rb"sent %d messages" % len(got) in err


def test_with_the_embedded_bus_packets_are_judged_in_this_process():
    done = subprocess.run(
        [POOLWATCH, "collect", "packets", MINER, "--listen", f"127.0.0.1:{free_port()}"],
        cwd=ROOT, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"confirmed" in done.stdout
