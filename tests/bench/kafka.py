"""Collector, broker and detector on one machine: throughput, octets on the broker, restoring, latency.

    .venv/bin/python tests/bench/kafka.py [--seconds 30] [--compression zstd|lz4] [--partitions 32]

One process collects NetFlow v5 datagrams that were made beforehand, one is Apache Kafka, one is ``poolwatch
detect``; one record in 10,000 is of a listed endpoint.  The collector sends as fast as the detector judges,
so what is counted is what all three do at steady state.  CPU time is the kernel's account of each process.
Latency is taken at half of that rate, from the sending of the message that decides to the alert's arrival
at a reader of the topic; restoring from the start of ``poolwatch detect`` to its readiness.
"""

import argparse
import io
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

# This file has the name of the client library, which must be found first.
sys.path.remove(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import broker
import fleet
import msgspec
from crashes import captured
from processes import machine
from prometheus_client import CollectorRegistry

from collectors import subscribers
from collectors.bus import Message
from collectors.kafka import clients, topics
from collectors.kafka.sender import Sender
from collectors.netflow.collector import Collector, Config
from collectors.netflow.datagrams import Block
from collectors.netflow.metrics import Metrics
from collectors.packet import pcapfile
from collectors.packet.collector import Collector as PacketCollector
from collectors.packet.collector import Config as PacketConfig
from collectors.packet.collector import Metrics as PacketMetrics
from detector import parts
from detector import state as forms
from detector.engine import Config as EngineConfig
from detector.engine import Engine

POOL, PORT = "203.0.113.15", 3354
TABLE = f"""operator,domain,match,ports,coins,tls_ports,kind,status,fp_risk,source,basis
LabPool,{POOL},exact,{PORT},LTC,,pool,active,low,lab,own
"""
CAPTURE = "pcaps/cpuminer-sha256d.pcap"
DATAGRAMS, RECORDS, BLOCKS = 2048, 30, 8
HEAD = np.dtype(
    [("version", ">u2"), ("count", ">u2"), ("uptime", ">u4"), ("sec", ">u4"), ("nsec", ">u4"),
     ("sequence", ">u4"), ("engine", ">u2"), ("sampling", ">u2")]
)  # fmt: skip
RECORD = np.dtype(
    [("src", "4u1"), ("dst", "4u1"), ("hop", "4u1"), ("in", ">u2"), ("out", ">u2"), ("packets", ">u4"),
     ("octets", ">u4"), ("first", ">u4"), ("last", ">u4"), ("sport", ">u2"), ("dport", ">u2"), ("pad", "u1"),
     ("flags", "u1"), ("protocol", "u1"), ("tos", "u1"), ("as", ">u4"), ("mask", ">u2"), ("pad2", ">u2")]
)  # fmt: skip
WHOLE = np.dtype([("head", HEAD), ("records", RECORD, RECORDS)])
UPTIME_MS = 10**9


def blocks(hits):
    """Datagrams of hosts in 10/8 that talk to servers, few of which are asked by many; half go each way."""
    random = np.random.default_rng(1)
    servers = random.integers(1, 224, (20_000, 4)).astype(np.uint8)
    out = []
    for _ in range(BLOCKS):
        made = np.zeros(DATAGRAMS, WHOLE)
        n = DATAGRAMS * RECORDS
        flat = np.zeros(n, RECORD)
        near = np.stack([np.full(n, 10), *random.integers(0, [64, 250, 250], (n, 3)).T], 1)
        far = servers[np.minimum(random.zipf(1.3, n), 20_000) - 1]
        near_port = random.integers(32_768, 60_999, n)
        far_port = random.choice([443, 443, 443, 80, 53, 8080, 123, 993], n)
        known = random.random(n) < hits
        far[known], far_port[known] = list(map(int, POOL.split("."))), PORT
        near[known, 1] = 0
        near[known, 2] = random.integers(0, 8, known.sum())
        up = random.random(n) < 0.5
        flat["src"], flat["dst"] = np.where(up[:, None], near, far), np.where(up[:, None], far, near)
        flat["sport"], flat["dport"] = np.where(up, near_port, far_port), np.where(up, far_port, near_port)
        flat["packets"] = 1 + random.pareto(1.2, n).clip(0, 1e5)
        flat["octets"] = flat["packets"] * random.integers(60, 1400, n)
        flat["last"] = UPTIME_MS - random.integers(0, 15_000, n)
        flat["first"] = flat["last"] - random.integers(0, 60_000, n)
        flat["protocol"], flat["flags"] = np.where(far_port == 53, 17, 6), 0x1A
        flat["in"], flat["out"] = random.integers(1, 40, n), random.integers(1, 40, n)
        made["records"] = flat.reshape(DATAGRAMS, RECORDS)
        made["head"]["version"], made["head"]["count"], made["head"]["uptime"] = 5, RECORDS, UPTIME_MS
        out.append(made)
    return out


def collect(config, hits, batch, shared):
    """The collector's process.  ``shared``: rows sent, rows judged, rows a second (0: as many as are
    judged), whether to end."""
    sent, judged, rate, ended = shared
    made = blocks(hits)
    room = np.zeros(made[0].nbytes + 4096, np.uint8)
    at = np.arange(DATAGRAMS, dtype=np.int64) * WHOLE.itemsize
    size, exporter = np.full(DATAGRAMS, WHOLE.itemsize), np.zeros(DATAGRAMS, np.int64)
    address = [bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])]
    with Sender(config, CollectorRegistry()) as sender:
        feed = sender.feed(blocking=True)
        flows = Collector(
            Config(batch_datagrams=batch), subscribers.home(), sender.partitions, feed.publish,
            Metrics(CollectorRegistry()),
        )  # fmt: skip
        sequence, number, due_s, was = 0, 0, time.monotonic(), 0.0
        while not ended.value:
            if not rate.value and sent.value - judged.value > 1_500_000:
                time.sleep(0.01)
                continue
            if rate.value:
                due_s = (due_s if was == rate.value else time.monotonic()) + DATAGRAMS * RECORDS / rate.value
                time.sleep(max(0, due_s - time.monotonic()))
            was = rate.value
            one = made[number % BLOCKS]
            number += 1
            now_ns = time.time_ns()
            one["head"]["sec"], one["head"]["nsec"] = divmod(now_ns, 10**9)
            one["head"]["sequence"] = (sequence + np.arange(DATAGRAMS) * RECORDS) % (1 << 32)
            sequence += DATAGRAMS * RECORDS
            room[: one.nbytes] = one.view(np.uint8).reshape(-1)
            flows.feed(Block(room, at, size, exporter, np.full(DATAGRAMS, now_ns), address), now_ns)
            sent.value += DATAGRAMS * RECORDS
        flows.finish()


def cpu_s(pid):
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Judged:
    """Asks the detector how many rows of flows it has judged, and tells the collector."""

    def __init__(self, port, shared):
        self._port, self._shared = port, shared
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def rows(self):
        return fleet.metrics(self._port, "poolwatch_detector_rows_total")[
            'poolwatch_detector_rows_total{stream="flows"}'
        ]

    def _ask(self):
        while not self._stop.wait(0.25):
            self._shared.value = int(self.rows())

    def close(self):
        self._stop.set()
        self._thread.join()


def wait_ready(port, process, timeout_s=300):
    end = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(process.communicate())
        time.sleep(0.02)


def started(site, port, **environment):
    """A detector, and how long it took to be ready."""
    began = time.monotonic()
    process = site.start("detect", "--listen", f"127.0.0.1:{port}", **environment)
    try:
        wait_ready(port, process)
    except BaseException:
        process.kill()
        raise
    return process, time.monotonic() - began


def throughput(judged, children, given):
    end = time.monotonic() + 120  # it may have to compile
    while not judged.rows():
        if time.monotonic() > end:
            raise RuntimeError("nothing is judged")
        time.sleep(0.1)
    time.sleep(given.warm)
    before, cpu, at = judged.rows(), {k: cpu_s(p) for k, p in children.items()}, time.monotonic()
    time.sleep(given.seconds)
    rows, wall_s = judged.rows() - before, time.monotonic() - at
    used = {k: cpu_s(p) - cpu[k] for k, p in children.items()}
    print(f"flow records judged     {rows / wall_s:12,.0f} /s   ({rows:,.0f} in {wall_s:.1f} s)")
    for name, seconds in used.items():
        share = seconds / (rows / 1e6)
        print(f"  CPU of the {name:10}   {seconds:12.1f} s    ({share:.3f} s per million records)")
    return rows / wall_s


def on_broker(running, prefix, sent):
    """Octets of the topic of flows by record, from the log's files."""
    files = Path(running.folder / "data").glob(f"{prefix}poolwatch.flows.v1-*/*.log")
    octets = sum(file.stat().st_size for file in files)
    print(f"octets on the broker    {octets / sent:12.1f} per record ({octets / 1e6:,.0f} MB)")


def deciding(partitions):
    """The messages of a capture up to the one that confirms, a row each."""
    sent, out, judging = [], [], Engine(EngineConfig())
    collector = PacketCollector(
        PacketConfig(), subscribers.home(), partitions, lambda *m: sent.append(Message(*m)),
        PacketMetrics(CollectorRegistry()),
    )  # fmt: skip
    for block in pcapfile.blocks(io.BytesIO(Path(CAPTURE).read_bytes())):
        collector.feed(block)
    collector.finish()
    for message in sent:
        if message.stream != "payloads":
            continue
        for row in range(message.rows.num_rows):
            header = msgspec.structs.replace(message.header, rows=1)
            out.append(message._replace(rows=message.rows.slice(row, 1), header=header))
            if any(t.to == "confirmed" for t in judging.step(out[-1]).transitions):
                return out
    raise RuntimeError("the capture confirms nobody")


def latency(site, number):
    """From the sending of what decides to the alert: seconds, of ``number`` replays one after another."""
    messages, sent, arrived = deciding(site.config.partitions), {}, {}
    over = threading.Event()

    def hear():
        reader = clients.consumer(site.config, "bench-alerts")
        topic = topics.topic(site.config, "alerts")
        places = [clients.TopicPartition(topic, p) for p in range(site.config.partitions)]
        reader.assign(places)
        reader.seek_to_end(*places)
        for place in places:
            reader.position(place)
        over.clear()
        ready.set()
        while not over.is_set():
            for records in reader.poll(timeout_ms=100).values():
                for record in records:
                    run = dict(record.headers or []).get("run", b"").decode()
                    if b'"to":"confirmed"' in record.value:
                        arrived.setdefault(run, time.monotonic())
        reader.close(autocommit=False)

    ready = threading.Event()
    thread = threading.Thread(target=hear, daemon=True)
    thread.start()
    ready.wait(30)
    with site.sender() as sender:
        for n in range(number):
            run = f"bench {n}"
            feed = sender.feed(run, blocking=True)
            for message in messages[:-1]:
                feed.publish(*message)
            time.sleep(0.1)
            sent[run] = time.monotonic()
            feed.publish(*messages[-1])
            time.sleep(0.05)
            feed.end()
    time.sleep(5)
    over.set()
    thread.join()
    found = sorted(arrived[run] - at for run, at in sent.items() if run in arrived)
    cuts = statistics.quantiles(found, n=100)
    print(
        f"latency to the alert    p50 {cuts[49]:.3f} s, p95 {cuts[94]:.3f} s, p99 {cuts[98]:.3f} s, "
        f"most {found[-1]:.3f} s ({len(found)} of {number})"
    )


def fill_states(site, number):
    """The states of so many subscribers, each that of one miner under another address."""
    judged = Engine(EngineConfig(), durable=True)
    for message in captured(CAPTURE):
        judged.step(message)
    (one, *_) = (s for s in judged.changed_subscribers() if judged.state(s) is not None)
    state, whole = forms.encode(judged.state(one)), forms.encode_whole(judged.whole())
    partitions, octets = site.config.partitions, 0
    with Sender(site.config, CollectorRegistry(), streams=("state",)) as sender:
        for n in range(number):
            who = one[:12] + (10 << 24 | n).to_bytes(4, "big")
            held = parts.Held(parts.VERSION, "", who, (0, 0, 0), state.replace(one, who))
            value = msgspec.msgpack.encode(held)
            octets += len(value)
            sender.send_json("state", n % partitions, parts.key("", who), value)
        for p in range(partitions):
            made = parts.Whole(parts.VERSION, (0, 0, 0), [], [("", whole)])
            sender.send_json("state", p, parts.WHOLE, msgspec.msgpack.encode(made))
        if sender.flush(120) or sender.lost:
            raise RuntimeError("states were not written")
    return octets / number


def restoring(address, given, environment):
    site = fleet.Site(address, broker.prefix(), given.partitions).create()
    port = fleet.free_port()
    process, empty_s = started(site, port, **environment)
    fleet.stop(process)
    octets = fill_states(site, given.subscribers)
    process, full_s = started(site, port, **environment)
    try:
        used_s, began = cpu_s(process.pid), time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
            answer.read()
        asked_s = time.monotonic() - began
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        peak = next(line for line in status if "VmHWM" in line)
        print(
            f"restoring               {full_s:12.1f} s    to ready with {given.subscribers:,} subscribers of "
            f"{octets:,.0f} octets, {empty_s:.1f} s with none; CPU {used_s:.1f} s, peak "
            f"{int(peak.split()[1]) // 1024:,} MB; then /metrics takes {asked_s:.1f} s",
            flush=True,
        )
    finally:
        process.kill()
        process.communicate()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="0: restoring alone")
    parser.add_argument("--warm", type=float, default=15, help="seconds before counting begins")
    parser.add_argument("--compression", choices=("zstd", "lz4", "none"), default="zstd")
    parser.add_argument("--partitions", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048, help="datagrams of a batch")
    parser.add_argument("--hits", type=float, default=1e-4)
    parser.add_argument("--subscribers", type=int, default=100_000, help="to restore; 0: leave that out")
    parser.add_argument("--alerts", type=int, default=200, help="to time; 0: leave that out")
    given = parser.parse_args()
    print(f"{machine()}; {given.compression}, {given.partitions} partitions, batches of {given.batch}")
    context = multiprocessing.get_context("spawn")
    shared = (context.Value("q", 0), context.Value("q", 0), context.Value("d", 0), context.Value("b", 0))
    with (
        tempfile.TemporaryDirectory() as folder,
        broker.Broker(options=("-Xmx1g", "-XX:TieredStopAtLevel=4")) as running,
    ):
        pools = Path(folder, "pools.csv")
        pools.write_text(TABLE)
        environment = {"POOLWATCH_LISTS__POOLS": str(pools)}
        prefix = broker.prefix()
        site = fleet.Site(running.address, prefix, given.partitions, compression=given.compression)
        site.config = msgspec.structs.replace(site.config, session_timeout_ms=10_000, state_write_ms=1000)
        site.create()
        if not given.seconds:
            restoring(running.address, given, environment)
            return 0
        port = fleet.free_port()
        detector, _ = started(site, port, **environment)
        collector = context.Process(target=collect, args=(site.config, given.hits, given.batch, shared))
        collector.start()
        judged = Judged(port, shared[1])
        try:
            children = {"collector": collector.pid, "broker": running._process.pid, "detector": detector.pid}
            rate = throughput(judged, children, given)
            on_broker(running, prefix, shared[0].value)
            if given.alerts:
                shared[2].value = rate / 2
                while shared[0].value - shared[1].value > rate:
                    time.sleep(0.1)
                time.sleep(5)
                latency(site, given.alerts)
        finally:
            shared[3].value = 1
            collector.join(60)
            judged.close()
            fleet.stop(detector, 60)
        if given.subscribers:
            restoring(running.address, given, environment)
    return 0


if __name__ == "__main__":
    sys.exit(main())
