"""Collectors, topics and detectors on a real Kafka, for tests and benchmarks."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from collectors import subscribers
from collectors.app import exports, sampled_frames
from collectors.kafka import clients, topics
from collectors.kafka.config import Config as KafkaConfig
from collectors.kafka.reader import TopicReader
from collectors.kafka.sender import Sender
from collectors.netflow.collector import Collector as FlowCollector
from collectors.netflow.collector import Config as FlowConfig
from collectors.netflow.metrics import Metrics as FlowMetrics
from collectors.packet import pcapfile
from collectors.packet.collector import Collector, Config, Metrics
from detector.intake import INPUTS

MAIN = "from detector.cli import main; raise SystemExit(main())"
ROOT = Path(__file__).parent.parent.parent


def consumed(config, *names):
    """Every record that is on these topics by now."""
    consumer = clients.consumer(config)
    try:
        places = [
            clients.TopicPartition(t, p) for t in names for p in sorted(consumer.partitions_for_topic(t))
        ]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        consumer.seek_to_beginning()
        out = []
        while any(consumer.position(p) < ends[p] for p in places):
            for got in consumer.poll(timeout_ms=500).values():
                out += got
        return out
    finally:
        consumer.close()


class Site:
    """One set of topics on a broker, and who uses them."""

    def __init__(self, address: str, prefix: str, partitions: int = 8, **more: object) -> None:
        self.config = KafkaConfig(
            bootstrap_servers=(address,), topic_prefix=prefix, partitions=partitions, replication=1,
            group=f"{prefix}detectors", session_timeout_ms=1000, state_write_ms=50, **more,
        )  # fmt: skip
        self._asking: clients.KafkaConsumer | None = None

    def create(self) -> "Site":
        with clients.admin(self.config) as admin:
            topics.create(admin, self.config)
        return self

    @contextmanager
    def sender(self):
        with Sender(self.config, CollectorRegistry()) as sender:
            yield sender

    def publish(self, paths: Iterable[Path], kind: str = "packets", spy=lambda *_: None) -> None:
        """Each file is a run of its own, as ``poolwatch collect packets FILE`` and ``flows FILE`` do it."""
        with self.sender() as sender:
            for path in paths:
                self.publish_with(sender, path, kind, path.name, spy)

    @staticmethod
    def publish_with(sender: Sender, path: Path, kind: str, run: str, spy=lambda *_: None) -> None:
        """One file, as the run ``run``; ``spy`` is told of each message."""
        feed = sender.feed(run, blocking=True)
        home, registry = subscribers.home(), CollectorRegistry()

        def publish(*message) -> None:
            spy(*message)
            feed.publish(*message)

        if kind == "flows":
            flows = FlowCollector(
                FlowConfig(), home, sender.partitions, publish, FlowMetrics(registry), sampled_frames
            )
        else:
            packets = Collector(Config(), home, sender.partitions, publish, Metrics(registry))
        for block in pcapfile.blocks(io.BytesIO(path.read_bytes())):
            if kind == "flows":
                flows.feed(exports(block, any_port=True))
            else:
                packets.feed(block)
        (flows if kind == "flows" else packets).finish()
        feed.end()

    def environment(self) -> dict[str, str]:
        """What makes ``poolwatch`` use this site."""
        kafka = self.config
        told = {
            "BUS": "kafka", "KAFKA__BOOTSTRAP_SERVERS": ",".join(kafka.bootstrap_servers),
            "KAFKA__TOPIC_PREFIX": kafka.topic_prefix, "KAFKA__PARTITIONS": str(kafka.partitions),
            "KAFKA__REPLICATION": "1", "KAFKA__GROUP": kafka.group,
            "KAFKA__SESSION_TIMEOUT_MS": str(kafka.session_timeout_ms),
            "KAFKA__STATE_WRITE_MS": str(kafka.state_write_ms),
        }  # fmt: skip
        return {**os.environ, **{f"POOLWATCH_{k}": v for k, v in told.items()}}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """A ``poolwatch`` process."""
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments], cwd=ROOT, text=True,
            env={**self.environment(), **environment}, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    # -- what is there -----------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of what ``ends`` and ``committed`` ask with."""
        if self._asking is not None:
            self._asking.close(autocommit=False)

    def _places(self) -> dict[tuple[str, int], clients.TopicPartition]:
        if self._asking is None:
            self._asking = clients.consumer(self.config, group_id=self.config.group)
        return {
            (stream, p): clients.TopicPartition(topics.topic(self.config, stream), p)
            for stream in INPUTS
            for p in range(self.config.partitions)
        }

    def ends(self) -> dict[tuple[str, int], int]:
        """How much collectors have put there."""
        places = self._places()
        found = self._asking.end_offsets(list(places.values()))
        return {place: found[tp] for place, tp in places.items()}

    def committed(self) -> dict[tuple[str, int], int]:
        """How much detectors say that they have judged and written."""
        return {place: self._asking.committed(tp) or 0 for place, tp in self._places().items()}

    def wait_judged(self, timeout_s: float = 60, alive: Iterable[subprocess.Popen] = ()) -> None:
        """Until all that is there has been judged, and what came of it written."""
        end = time.monotonic() + timeout_s
        ends = self.ends()
        while behind := {k: (v, ends[k]) for k, v in self.committed().items() if v < ends[k]}:
            assert time.monotonic() < end, f"not judged: {behind}"
            for process in alive:
                assert process.poll() is None, process.communicate()
            time.sleep(0.1)

    def records(self, stream: str) -> list:
        """All records of an output, in their partitions' order."""
        consumer = clients.consumer(self.config)
        reader = TopicReader(consumer, stream, topics.topic(self.config, stream))
        try:
            return list(reader.whole(range(self.config.partitions)))
        finally:
            reader.close()

    def incidents(self) -> list[dict]:
        """The latest document of each incident."""
        latest: Mapping[bytes, bytes] = {r.key: r.value for r in self.records("incidents")}
        return sorted((json.loads(v) for v in latest.values()), key=lambda d: (d["subscriber"], d["id"]))

    def alerts(self) -> list[str]:
        """Distinct alerts."""
        return sorted({r.key.decode().rpartition("/")[2] for r in self.records("alerts")})


def _listens(pid: int) -> bool:
    """Whether a process catches SIGTERM: its mask in proc_pid_status(5)."""
    with suppress(OSError):
        told = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return told is not None and bool(int(told[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def stop(process: subprocess.Popen, timeout_s: float = 30) -> str:
    """End a process cleanly, once it has come so far that it can; what it said."""
    end = time.monotonic() + timeout_s
    while process.poll() is None and not _listens(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, said
    return said


def plain(document: object) -> dict:
    """A document as JSON tells it."""
    return json.loads(msgspec.json.encode(document))


def fields(config: msgspec.Struct) -> dict:
    return {name: getattr(config, name) for name in config.__struct_fields__}


def allow_large(admin: clients.KafkaAdminClient, topic: str) -> None:
    """Let a topic take messages of 20 MB."""
    resource = clients.ConfigResource(
        clients.ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": str(20 << 20)}
    )
    admin.alter_configs([resource])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def metrics(port: int, name: str) -> dict[str, float]:
    """Samples of one metric, by their labels as text."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith((name + "{", name + " ")))
    return {left: float(value) for left, _, value in found}
