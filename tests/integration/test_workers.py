"""``poolwatch collect`` with several workers before a real broker: one command, one face."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import fleet
import pytest
from exported import v5

from collectors import wire
from collectors.kafka import clients, topics
from collectors.kafka.config import Config
from collectors.netflow import steering, udp
from collectors.packet import afpacket
from collectors.packet import steering as packetsteering
from collectors.privileges import NET_RAW

ROOT = Path(__file__).parent.parent.parent
POOLWATCH = Path(sys.executable).parent / "poolwatch"
T0 = 1_790_000_000
RECORD = ("198.51.100.7", "203.0.113.3", 40000, 3333, 10, 1200, T0, T0 + 50)
ROUTERS = [f"127.0.0.{n}" for n in range(1, 13)]
LOGIN = b'{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"44Cb","pass":"x","agent":"XMRig"}}\n'
PATIENCE_S = 100


@pytest.fixture
def site(kafka, prefix):
    made = Config(bootstrap_servers=(kafka.address,), topic_prefix=prefix, partitions=4, replication=1)
    with clients.admin(made) as admin:
        topics.create(admin, made)
    return made


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Running:
    """The command, its port, and its face."""

    def __init__(self, process, http, port):
        self.process, self.http, self.port = process, http, port

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            return ""

    def until(self, holds):
        ends = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > ends or self.process.poll() is not None:
                self.process.kill()
                pytest.fail(self.process.communicate()[1].decode())
            time.sleep(0.05)

    def sum(self, name, **labels):
        """All samples of a metric that have these labels, added up."""
        found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", self.get("/metrics"), re.M)
        wanted = {f'{k}="{v}"' for k, v in labels.items()}
        return sum(float(value) for text, value in found if wanted <= set(text.split(",")))

    def children(self):
        """Process numbers of the workers, in their order."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in pids]

    def export(self, routers, number=0):
        for source in routers:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
                router.bind((source, 0))
                router.sendto(v5([RECORD], T0 + 60, number), ("127.0.0.1", self.port))


@contextmanager
def collecting(site, *arguments, workers=2, **environment):
    http, port = free_port(), free_port(socket.SOCK_DGRAM)
    given = os.environ | {
        "POOLWATCH_BUS": "kafka",
        "POOLWATCH_KAFKA__BOOTSTRAP_SERVERS": ",".join(site.bootstrap_servers),
        "POOLWATCH_KAFKA__TOPIC_PREFIX": site.topic_prefix,
        "POOLWATCH_KAFKA__PARTITIONS": str(site.partitions),
        "POOLWATCH_KAFKA__REPLICATION": "1",
        "POOLWATCH_COLLECTORS__NETFLOW__WORKERS": str(workers),
        "POOLWATCH_COLLECTORS__CAPTURE__WORKERS": str(workers),
    }
    arguments = arguments or ("flows", "--udp", "127.0.0.1", "--ports", str(port))
    with subprocess.Popen(
        [POOLWATCH, "collect", *arguments, "--listen", f"127.0.0.1:{http}"],
        cwd=ROOT, env=given | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield Running(process, http, port)
        finally:
            process.kill()


def ready(one):
    return lambda: one.get("/readyz") == "ok\n"


def headers(site):
    """Every header on the topic of flows."""
    return [wire.from_headers(r.headers) for r in fleet.consumed(site, topics.topic(site, "flows"))]


def worker_of(source):
    return steering.member(udp.address_of(source), 2)


def test_each_exporter_has_one_worker_and_the_whole_one_face(site, tmp_path):
    (tmp_path / "home").write_text("198.51.100.0/24\n")
    with collecting(site, POOLWATCH_LISTS__HOME_NETWORKS=str(tmp_path / "home")) as one:
        one.until(ready(one))
        for number in range(3):
            one.export(ROUTERS, number)
        one.until(lambda: one.sum("poolwatch_collector_netflow_rows_total") == 36)
        for worker in (0, 1):
            mine = [r for r in ROUTERS if worker_of(r) == worker]
            assert len(mine) > 1
            assert one.sum("poolwatch_collector_netflow_rows_total", worker=worker) == 3 * len(mine)
            assert one.sum("poolwatch_collector_netflow_exporters", worker=worker) == len(mine)
        assert one.sum("poolwatch_collector_netflow_lost_total") == 0
        assert one.sum("poolwatch_collector_workers") == 2
        assert one.get("/livez") == "ok\n"

        (tmp_path / "home").write_text("203.0.113.0/24\n192.0.2.0/24\n")
        one.process.send_signal(signal.SIGHUP)
        one.until(lambda: one.sum("poolwatch_list_entries", list="home_networks") == 4)

        one.process.send_signal(signal.SIGTERM)
        _, err = one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 0, err
    assert re.search(rb"receiving on 127.0.0.1 UDP \d+, 2 workers\n", err)
    assert re.search(rb"sent \d+ messages, 36 rows", err), err
    got = headers(site)
    assert {h.collector for h in got} == {"netflow-0", "netflow-1"}
    assert sum(h.rows for h in got) == 36


def test_a_worker_that_is_killed_is_started_again_and_nothing_that_came_meanwhile_is_lost(site):
    with collecting(site) as one:
        one.until(ready(one))
        before = one.children()
        os.kill(before[0], signal.SIGKILL)
        one.export(ROUTERS)
        one.until(lambda: one.sum("poolwatch_collector_worker_restarts_total") == 1)
        one.until(lambda: one.sum("poolwatch_collector_netflow_rows_total") == len(ROUTERS))
        one.until(ready(one))
        assert len(set(before) & set(one.children())) == 1
        one.process.send_signal(signal.SIGTERM)
        _, err = one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 0, err
    assert b"worker died, it is started again worker=0 status=-9" in err


def test_a_worker_that_never_was_ready_ends_the_whole_with_its_status(site):
    # Seconds are counted from when all are ready: so short a time does not end it before.
    said = "flows", "--udp", "127.0.0.1", "--ports", str(free_port(socket.SOCK_DGRAM)), "--seconds", "0.1"
    with collecting(site, *said, POOLWATCH_KAFKA__TOPIC_PREFIX="nobody-") as one:
        _, err = one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 2
    assert b"does not exist: run poolwatch topics create" in err


def test_workers_end_when_who_started_them_is_gone(site):
    with collecting(site) as one:
        one.until(ready(one))
        workers = one.children()
        one.process.kill()
        one.process.communicate(timeout=PATIENCE_S)
        ends = time.monotonic() + PATIENCE_S
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < ends
            time.sleep(0.05)


def talk(listener, miners):
    """Have each of these addresses say a miner's first line over the loopback."""
    for source in miners:
        with socket.create_connection(listener.getsockname(), source_address=(source, 0)) as miner:
            miner.sendall(LOGIN)
            with listener.accept()[0] as pool:
                assert pool.recv(4096) == LOGIN


def said(site):
    """What was said by whom, by all rows on the topic of payloads."""
    consumer = clients.consumer(site)
    out = {}
    try:
        places = [clients.TopicPartition(topics.topic(site, "payloads"), p) for p in range(site.partitions)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        consumer.seek_to_beginning()
        while any(consumer.position(p) < ends[p] for p in places):
            for got in consumer.poll(timeout_ms=500).values():
                for record in got:
                    collector = wire.from_headers(record.headers).collector
                    rows = wire.decode("payloads", record.value).to_pylist()
                    for row in (row for row in rows if row["data"] and not row["copy"]):
                        key = collector, socket.inet_ntoa(bytes(row["src"])[12:])
                        out[key] = out.get(key, b"") + row["data"]
    finally:
        consumer.close()
    return out


def members(group):
    """Which of two workers of a group has whose connections with 127.0.0.1."""
    server, seed = udp.address_of("127.0.0.1"), afpacket.seed_of(group)
    return [packetsteering.member(udp.address_of(source), server, 2, seed) for source in ROUTERS]


@pytest.mark.skipif(os.geteuid() != 0, reason="capture needs root or CAP_NET_RAW")
def test_the_connections_of_an_interface_are_shared_and_a_worker_that_is_killed_is_started_again(site):
    picked = "poolwatch_collector_packet_candidates_total"
    # Nobody else's, and such that both have some early and some late.
    numbers = iter(lambda: 1 + secrets.randbelow(0xFFFF), 0)
    group = next(n for n in numbers if all(len({*half}) == 2 for half in (members(n)[:6], members(n)[6:])))
    early, late = members(group)[:6], members(group)[6:]
    environment = {
        "POOLWATCH_COLLECTORS__CAPTURE__FANOUT_GROUP": str(group),
        # Nobody may not run Python from where it is on every machine.
        "POOLWATCH_COLLECTORS__CAPTURE__USER": "",
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        only = f"tcp port {listener.getsockname()[1]}"
        with collecting(site, "packets", "--interface", "lo", "--filter", only, **environment) as one:
            one.until(ready(one))
            talk(listener, ROUTERS[:6])
            for worker in (0, 1):
                one.until(lambda worker=worker: one.sum(picked, worker=worker) == early.count(worker))
            assert one.sum("poolwatch_collector_workers") == 2
            before = one.children()
            os.kill(before[0], signal.SIGKILL)
            talk(listener, ROUTERS[6:])
            one.until(lambda: one.sum("poolwatch_collector_worker_restarts_total") == 1)
            one.until(ready(one))
            assert len(set(before) & set(one.children())) == 1
            one.until(lambda: one.sum(picked, worker=0) == late.count(0))
            one.until(lambda: one.sum(picked, worker=1) == early.count(1) + late.count(1))
            assert one.sum("poolwatch_collector_packet_kernel_drops_total") == 0
            one.process.send_signal(signal.SIGTERM)
            _, err = one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 0, err
    assert b"receiving on lo, 2 workers\n" in err
    got = said(site)
    # What the worker that was killed had not sent is lost.
    wanted = {(f"packet#{w}", source): LOGIN for w, source in zip(early + late, ROUTERS, strict=True)}
    lost = {("packet#0", source) for source in ROUTERS[:6]}
    assert got.items() <= wanted.items()
    assert wanted.keys() - got.keys() <= lost


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_workers_and_who_looks_after_them_are_nobody(site):
    with collecting(site, "packets", "--interface", "lo", "--filter", "udp port 1") as one:
        one.until(ready(one))
        for pid in (one.process.pid, *one.children()):
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Uid:\t65534" in status
            assert int(re.search(r"CapEff:\s+(\w+)", status).group(1), 16) == 1 << NET_RAW
        one.process.send_signal(signal.SIGTERM)
        _, err = one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 0, err


def test_an_interface_that_cannot_be_had_ends_the_whole(site):
    with collecting(site, "packets", "--interface", "nosuch") as one:
        _, err = one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 1
    assert b"interface nosuch" in err


def test_a_folder_is_followed_until_it_is_told_to_stop(site, tmp_path):
    miner = (ROOT / "pcaps" / "xmrig-plain.pcap").read_bytes()
    (tmp_path / "tap-0.pcap").write_bytes(miner)
    with collecting(site, "packets", "--follow", str(tmp_path)) as one:
        one.until(lambda: one.sum("poolwatch_collector_packet_candidates_total") == 1)
        (tmp_path / "tap-1.pcap").write_bytes((ROOT / "pcaps" / "cpuminer-sha256d.pcap").read_bytes())
        one.until(lambda: one.sum("poolwatch_collector_packet_candidates_total") == 2)
        assert one.get("/readyz") == "ok\n"
        one.process.send_signal(signal.SIGTERM)
        _, err = one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 0, err
    assert f"following {tmp_path}".encode() in err
    assert re.search(rb"sent [1-9]\d* messages", err), err
    told = headers(site)
    assert len({h.run for h in told}) == 1
    assert any(h.ends for h in told)
