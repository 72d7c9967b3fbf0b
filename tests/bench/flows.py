"""The flow path's speed: datagrams to batches of ``flows``, and to the Kafka topic, beside other collectors.

    .venv/bin/python tests/bench/flows.py [--quick] [--only batch,protobuf,kafka,goflow2,peers]
        [--formats v5,v9,ipfix]

The inputs are those of ``../shared/tools/gen_netflow.py``: 3 million records each of NetFlow v5, v9 (23
fields) and IPFIX (33 fields), made by it into ``$POOLWATCH_BENCH_DIR`` where they are not there yet.  The
first pass is summed: records, packets and bytes must be the generator's own totals, or the exit status is 1.
Then passes are repeated, each with later times and sequence numbers, until ``--seconds`` of CPU time were
worked; starting Python, loading kernels, the first pass and the renewing of the input are left out.

Every record has one home end (10/8, the default list), as at a border router; "a quarter home" is the same
input under networks that a quarter of the records' sources are in.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# A file here has the name of the Kafka client library, which must be found first.
sys.path.remove(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import broker
import flowpeers
from processes import machine
from prometheus_client import CollectorRegistry

from collectors import subscribers, wire
from collectors.exporting import flowmessage, laying
from collectors.exporting.settings import Goflow2
from collectors.kafka import clients, topics
from collectors.kafka.config import Config as KafkaConfig
from collectors.kafka.sender import Sender
from collectors.netflow.collector import Collector, Config, warm
from collectors.netflow.datagrams import Block
from collectors.netflow.metrics import Metrics
from collectors.reading import PADDING
from detector.goflow2 import Output

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("POOLWATCH_SHARED", ROOT.parent / "shared")) / "tools"
FOLDER = Path(os.environ.get("POOLWATCH_BENCH_DIR", Path(tempfile.gettempdir()) / "poolwatch-bench"))
FORMATS = {
    "v5": ["--v5"],
    "v9": ["--seed", str(TOOLS / "seeds/v9-cisco-template-260.pcap"), "--template-id", "260"],
    "ipfix": [
        "--seed", str(TOOLS / "seeds/ipfix-cisco-template-260.pcap"), "--template-id", "260",
        "--dst-port", "4739",
    ],
}  # fmt: skip
# Receive stamps advance as on a link of so many datagrams a second; a batch is sent after 200 ms or 8,192.
RATE = 200_000
# Where in a header the export time and the sequence are.
EXPORT = {5: 8, 9: 8, 10: 4}
SEQUENCE = {5: 16, 9: 12, 10: 8}
SECOND = 10**9
PROTOBUF = "to goflow2's messages"


def inputs(name):
    """The capture of a format, made where it is not there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.pcap"
    if not path.with_suffix(".pcap.json").exists():
        command = [sys.executable, TOOLS / "gen_netflow.py", *FORMATS[name], "--out", path]
        subprocess.run([*map(str, command), "--records", "3000000"], check=True, stdout=subprocess.DEVNULL)
    return path


class Input:
    """The datagrams of a generated capture; ``renew`` makes those of the next pass of them."""

    def __init__(self, path):
        self.told = json.loads(path.with_suffix(".pcap.json").read_text())
        raw = path.read_bytes()
        # Two, one after the other: the collector may still hold the last datagrams of the pass before.
        self._copies = [np.frombuffer(bytearray(raw) + bytearray(PADDING), np.uint8) for _ in range(2)]
        self.data = self._copies[0]
        at, size = [], []
        place = 24
        while place + 16 <= len(raw):
            length = int.from_bytes(raw[place + 8 : place + 12], "little")
            at.append(place + 16 + 42)
            size.append(length - 42)
            place += 16 + length
        self.at, self.size = np.array(at), np.array(size)
        # The last octet of the source address numbers the exporters from 1.
        self.exporter = self.data[self.at - 42 + 14 + 15].astype(np.int64) - 1
        number = int(self.exporter.max()) + 1
        self.addresses = [bytes(10) + b"\xff\xff" + bytes([10, 255, 0, 1 + e]) for e in range(number)]
        version = self.told["version"]
        self._export, self._sequence = EXPORT[version], SEQUENCE[version]
        self._base = self._word(self._sequence)
        self._base_s = int(self._word(self._export)[0])
        units = np.ones(len(self.at), np.int64)
        if version != 9:
            units[:] = self.told["per_packet"]
            # A set of templates has no records: 2 is their set in IPFIX.
            if version == 10:
                units[(self.data[self.at + 16] == 0) & (self.data[self.at + 17] == 2)] = 0
        self._units = np.bincount(self.exporter, units).astype(np.int64)
        self.passes = 0

    def _word(self, offset):
        places = self.at[:, None] + offset + np.arange(4)
        return self.data[places].astype(np.int64) @ np.array([1 << 24, 1 << 16, 1 << 8, 1])

    def _write(self, offset, values):
        for i in range(4):
            self.data[self.at + offset + i] = values >> (24 - 8 * i) & 255

    def renew(self):
        """The datagrams of the next pass, in blocks as a receiver would hand them over."""
        n = len(self.at)
        self.data = self._copies[self.passes % 2]
        t_ns = self._base_s * SECOND + (self.passes * n + np.arange(n)) * (SECOND // RATE)
        self._write(self._export, t_ns // SECOND)
        self._write(self._sequence, self._base + self.passes * self._units[self.exporter])
        self.passes += 1
        return [
            Block(
                self.data, self.at[a : a + 8192], self.size[a : a + 8192], self.exporter[a : a + 8192],
                t_ns[a : a + 8192], self.addresses,
            )
            for a in range(0, n, 8192)
        ]  # fmt: skip


class Sums:
    """A publisher that sums what it is given while ``on``, and passes it on."""

    def __init__(self, further=None):
        self.on, self.further = True, further
        self.rows = self.packets = self.bytes = 0

    def publish(self, stream, partition, rows, header):
        if self.on and rows.num_rows:
            first = wire.values(rows, "copy") == 0
            self.rows += int(np.count_nonzero(first))
            self.packets += int(wire.values(rows, "packets")[first].sum())
            self.bytes += int(wire.values(rows, "bytes")[first].sum())
        if self.further:
            self.further(stream, partition, rows, header)


def homes(share):
    """Networks under which so many records have a home end: sources are spread evenly over 10/8."""
    if share >= 1:
        return subscribers.home()
    return subscribers.home((f"10.0.0.0/{8 + round(-np.log2(share))}",))


def work(name, seconds, share, further=None, flush=None):
    """In this process: the sums of the first pass, then records and CPU seconds of those that followed."""
    given = Input(inputs(name))
    sums = Sums(further)
    registry = CollectorRegistry()
    made = Collector(Config(), homes(share), 32, sums.publish, Metrics(registry))

    def feed():
        for one in given.renew():
            made.feed(one)

    for one in given.renew():
        made.feed(one)
    made._send(everywhere=True)
    exact = (sums.rows, sums.packets, sums.bytes) == tuple(
        given.told[k] for k in ("records", "packets", "bytes")
    )
    sums.on = False
    feed()
    if flush:
        flush()
    records, passes, aside = 0, 0, 0.0
    began = time.process_time()
    while True:
        at = time.thread_time()
        blocks = given.renew()
        aside += time.thread_time() - at
        for one in blocks:
            made.feed(one)
        records += given.told["records"]
        passes += 1
        if time.process_time() - began - aside >= seconds:
            break
    made.finish()
    if flush:
        flush()
    used = time.process_time() - began - aside
    lost = sum(registry.get_sample_value("poolwatch_collector_netflow_lost_total", {"protocol": p}) or 0
               for p in ("netflow5", "netflow9", "ipfix"))  # fmt: skip
    return {
        "records": records, "cpu_s": used, "passes": passes, "exact": exact or share < 1, "lost": lost,
        "sums": [sums.rows, sums.packets, sums.bytes],
    }  # fmt: skip


def to_protobuf(name, seconds, share):
    """As ``work``, each batch made goflow2's messages."""
    octets = 0

    def further(stream, partition, rows, header):
        nonlocal octets
        octets += flowmessage.encode(rows)[0].size

    found = work(name, seconds, share, further)
    found["octets"] = octets / (found["records"] + 2 * found["sums"][0])
    return found


def to_kafka(name, seconds, share, address, compression, a_value=0):
    """As ``work``, to a broker; the sender's threads are in the account, and what waits is waited for.

    With ``a_value`` to a topic of goflow2's too, so many messages a value.
    """
    config = KafkaConfig(
        bootstrap_servers=(address,), topic_prefix=broker.prefix(), partitions=32, replication=1,
        compression=compression,
    )  # fmt: skip
    beside = Goflow2(topic=config.topic_prefix + "goflow2" if a_value else "", messages_a_value=a_value or 1)
    with clients.admin(config) as admin:
        topics.create(admin, config)
        if a_value:
            admin.create_topics({beside.topic: {"num_partitions": 8, "replication_factor": 1}})
            admin.wait_for_topics([beside.topic], timeout_ms=30_000)
    with Sender(config, CollectorRegistry()) as sender, Output(beside, config, sender.metrics) as output:
        feed = sender.feed(blocking=True)
        publish, _ = output.beside(feed.publish, blocking=True)

        def flush():
            sender.flush(60)
            while a_value and (output._rows or output._laying.messages or output._sender.flush(60)):
                time.sleep(0.01)

        found = work(name, seconds, share, publish, flush)
        found["lost"] += sender.lost + output.lost
        found["exact"] &= not a_value or output._sender.rows == found["records"] + 2 * found["sums"][0]
        found["octets"] = sender.octets / max(1, sender.rows)
        found["messages"] = sender.delivered
    with clients.admin(config) as admin:
        made = [topics.topic(config, s) for s in topics.STREAMS] + [beside.topic] * bool(a_value)
        admin.delete_topics(made)
    return found


def child(*arguments):
    """Run ``work`` or ``to_kafka`` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def row(table, what, name, found):
    """Print one result and keep it."""
    rate = found["records"] / found["cpu_s"] / 1e6
    table.setdefault(what, {})[name] = rate
    more = f", {found['octets']:.0f} octets a row" if "octets" in found else ""
    ok = "" if found["exact"] else "  TOTALS DIFFER"
    ok += f"  LOST {found['lost']:.0f}" if found.get("lost") else ""
    print(
        f"{what:34} {name:6} {rate:7.2f} M records/CPU s  ({found['records'] / 1e6:.0f} M in "
        f"{found['cpu_s']:.1f} s{more}){ok}",
        flush=True,
    )
    return found["exact"] and not found.get("lost")


def ours(given, table):
    """Our own paths, for each format."""
    good = True
    for name in given.formats:
        if "batch" in given.only:
            good &= row(table, "to batches", name, child("work", name, given.seconds, 1.0))
            quarter = child("work", name, given.seconds / 3, 0.25)
            good &= row(table, "to batches, a quarter home", name, quarter)
        if "protobuf" in given.only:
            good &= row(table, PROTOBUF, name, child("to_protobuf", name, given.seconds, 1.0))
    if {"kafka", "goflow2"} & set(given.only):
        with broker.Broker(options=("-Xmx2g", "-XX:TieredStopAtLevel=4")) as running:
            for name in given.formats:
                for kind in given.compression:
                    for a_value in (0, 1, 100) if "goflow2" in given.only else (0,):
                        found = child("to_kafka", name, given.seconds, 1.0, running.address, kind, a_value)
                        more = f" and goflow2's topic by {a_value}" if a_value else ""
                        good &= row(table, f"to Kafka, {kind}{more}", name, found)
    return good


def ratios(table):
    """What we do of the best of each peer, on the same input in the same run."""
    for what in ("to batches", PROTOBUF, "to Kafka, zstd", "to Kafka, lz4"):
        for peer, rates in table.items():
            if peer.startswith("to ") or what not in table:
                continue
            told = ", ".join(f"{n} {table[what][n] / r:.1f}" for n, r in rates.items() if n in table[what])
            if told:
                print(f"{what:22} times {peer:34} {told}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="CPU seconds of each measurement")
    parser.add_argument("--quick", action="store_true", help="5 seconds of each")
    parser.add_argument("--only", default="batch,protobuf,kafka,goflow2,peers", help="of these")
    parser.add_argument("--formats", default="v5,v9,ipfix")
    parser.add_argument("--compression", default="zstd,lz4")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warm()
    flowmessage.warm()
    laying.warm()
    if given.child:
        function, *arguments = json.loads(given.child)
        roads = {"work": work, "to_protobuf": to_protobuf, "to_kafka": to_kafka}
        print(json.dumps(roads[function](*arguments)))
        return 0
    given.seconds = 5 if given.quick else given.seconds
    given.only, given.formats = given.only.split(","), given.formats.split(",")
    given.compression = given.compression.split(",")
    print(machine(), flush=True)
    table = {}
    good = ours(given, table)
    if "peers" in given.only:
        for name in given.formats:
            for what, found in flowpeers.measure(inputs(name), FOLDER, given.seconds):
                row(table, what, name, found)
    ratios(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
