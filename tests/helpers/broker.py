"""A real Apache Kafka, one node on loopback with its data in a temporary folder, for tests and development.

    python tests/helpers/broker.py             runs one until Ctrl-C and prints its address
    python tests/helpers/broker.py --fetch     only makes it ready: jars, storage format, class archive

Java 17 is needed, and Maven the first time: see ``kafkadist.py``.
"""

import argparse
import contextlib
import functools
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from kafkadist import (
    Distribution,
    UnavailableError,
    check_java,
    copy_storage,
    fetch,
    format_storage,
    locate,
    locked,
)

STARTED = "Kafka Server started"
START_SECONDS = 90
STOP_SECONDS = 30

# A start is one thread's for as long as Python runs, because the kernel kills the broker (PR_SET_PDEATHSIG)
# when the *thread* that started it ends, and a test may well start one from a thread of its own.
STARTER = ThreadPoolExecutor(1, "broker-starter")

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "offsets.topic.num.partitions": "2",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "2",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    # A killed broker is let in again when its session is over: after 12 s by default, 3 s so.  The price: a
    # pause of more than 2 s is followed by some 5 ms without a leader, which clients bridge by themselves.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # The default, 128 MiB, is taken from the heap at once.
    "log.cleaner.dedupe.buffer.size": "4194304",
}


@functools.cache
def distribution() -> Distribution:
    """Make everything a start needs, once per machine.  Raises UnavailableError."""
    made = locate()
    if not made.archive.exists():
        print(f"poolwatch: making {made.folder} ready", file=sys.stderr)
        check_java(made)
        with locked():
            fetch(made)
            format_storage(made)
            train(made)
    return made


def train(made: Distribution) -> None:
    """Run a broker once to keep the classes it loads: later starts take half the time."""
    if made.archive.exists():
        return
    part = made.archive.with_suffix(".part")
    part.unlink(missing_ok=True)
    with Broker(made=made, options=(f"-XX:ArchiveClassesAtExit={part}",)) as broker:
        exercise(broker.address)
        broker.stop()
    part.rename(made.archive)


def exercise(address: str) -> None:
    """Make the broker load what clients make it load."""
    with contextlib.suppress(ImportError):
        from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

        client = {"bootstrap_servers": address}
        with contextlib.closing(KafkaAdminClient(**client)) as admin:
            admin.create_topics({"t": {"num_partitions": 1, "replication_factor": 1}})
        with contextlib.closing(KafkaProducer(**client)) as producer:
            producer.send("t", b"value").get(30)
        options = {"group_id": "g", "auto_offset_reset": "earliest", "consumer_timeout_ms": 30_000}
        with contextlib.closing(KafkaConsumer("t", **client, **options)) as consumer:
            next(consumer)
            consumer.commit()


def properties(data: Path, port: int, controller: int, more: Mapping[str, str]) -> str:
    """The text of ``server.properties``."""
    own = {
        "log.dirs": str(data),
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
    }
    return "".join(f"{key}={value}\n" for key, value in (PROPERTIES | own | dict(more)).items())


def reserve_port() -> tuple[int, socket.socket]:
    """A free port, and what keeps other brokers of this machine from taking it while this one is down.

    Below the range of outgoing connections: a client that tries again and again to reach a stopped broker
    on a port of that range will one day be given this very port as its own, and be connected to itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0poolwatch-broker-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
        else:
            return port, claim


class Broker:
    """A broker that can be stopped, killed, paused and started again on the same port with the same data.

    ``with Broker() as broker`` starts it and at the end removes its data.  ``properties`` go into
    ``server.properties``.  ``address`` is known, and served by nobody, before the first start.
    """

    def __init__(
        self,
        properties: Mapping[str, str] | None = None,
        *,
        made: Distribution | None = None,
        options: tuple[str, ...] | None = None,
    ) -> None:
        self.properties = dict(properties or {})
        self._made = made
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="poolwatch-kafka-", ignore_cleanup_errors=True)
        (self._port, first), (self._controller, second) = reserve_port(), reserve_port()
        self._claims = (first, second)
        self.address = f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def start(self) -> None:
        """Start, and return when it serves.  Raises UnavailableError, or RuntimeError with the log."""
        assert not self.running, "already started"
        made = self._made or distribution()
        data = self.folder / "data"
        if not data.exists():
            copy_storage(made, data)
        config = self.folder / "server.properties"
        config.write_text(properties(data, self._port, self._controller, self.properties))
        options = (f"-XX:SharedArchiveFile={made.archive}",) if self._options is None else self._options
        command = [*made.command(self._log, *options), "kafka.Kafka", str(config)]
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]
        before = len(self._read())
        self._process = STARTER.submit(self._spawn, command).result()
        end = time.monotonic() + START_SECONDS
        while STARTED not in self._read()[before:]:
            if not self.running or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"Kafka did not start:\n{self.log()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop as an operator would; the data stays."""
        if self._process is None:
            return
        self.resume()
        self._send(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it as a power cut would; the data stays."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Let it answer nothing while its connections stay open, until ``resume``."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its data.  It cannot be started again."""
        self.kill()
        self._folder.cleanup()
        for claim in self._claims:
            claim.close()

    def log(self, lines: int = 60) -> str:
        """The end of the broker's log, after anything it wrote on the console."""
        console = self.folder / "console.log"
        written = console.read_text(errors="replace") if console.exists() else ""
        return "\n".join([*written.splitlines()[-lines:], *self._read().splitlines()[-lines:]])

    @property
    def _log(self) -> Path:
        return self.folder / "kafka.log"

    def _read(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C ends the tests, and they end the broker when they no longer need it.
        with (self.folder / "console.log").open("ab") as console:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


@dataclass(frozen=True)
class Elsewhere:
    """A broker that is somebody else's: ``POOLWATCH_TEST_KAFKA``."""

    address: str


def prefix() -> str:
    """A beginning for names of topics and groups that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}-"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run Kafka for development; it is gone at Ctrl-C.")
    parser.add_argument("--fetch", action="store_true", help="only make it ready")
    parser.add_argument("properties", nargs="*", metavar="KEY=VALUE", help="broker properties")
    arguments = parser.parse_args()
    try:
        distribution()
        if arguments.fetch:
            return 0
        with Broker(dict(pair.split("=", 1) for pair in arguments.properties)) as broker:
            print(broker.address, flush=True)
            while broker.running:
                time.sleep(0.2)
            print(broker.log(), file=sys.stderr)
            return 1
    except UnavailableError as problem:
        print(f"poolwatch: no Kafka: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs inherit SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
