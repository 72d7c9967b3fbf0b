"""The jars of a Kafka server and what makes it start fast, brought once per machine into a cache folder.

The jars are named in ``tests/integration/kafka/pom.xml`` and come from Maven Central.  The folder is
``$POOLWATCH_TEST_CACHE``, else ``$XDG_CACHE_HOME/poolwatch``, else ``~/.cache/poolwatch``.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "integration" / "kafka"
JVM = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


class UnavailableError(RuntimeError):
    """Kafka cannot be run on this machine; the message says what is missing."""


@dataclass(frozen=True)
class Distribution:
    """What a start needs: Java, and a folder with jars, formatted storage and an archive of classes."""

    java: str
    folder: Path

    @property
    def libs(self) -> Path:
        return self.folder / "libs"

    @property
    def storage(self) -> Path:
        """A data folder as the storage tool leaves it.  A start copies it and gives it ids of its own."""
        return self.folder / "storage"

    @property
    def archive(self) -> Path:
        """Parsed classes, of use to the very JVM that wrote them: its age is part of the name."""
        return self.folder / f"classes-{int(Path(self.java).stat().st_mtime)}.jsa"

    def command(self, log: Path, *options: str) -> list[str]:
        """The JVM's command line up to the main class."""
        jars = ":".join(str(jar) for jar in sorted(self.libs.glob("*.jar")))
        logging = (f"-Dlog4j2.configurationFile={RECIPE / 'log4j2.xml'}", f"-Dpoolwatch.log={log}")
        return [self.java, *JVM, *options, *logging, "-cp", jars]


def locate() -> Distribution:
    """Say where everything is, or is to be.  Raises UnavailableError without Java."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        raise UnavailableError("java was not found: install default-jre-headless")
    pom = (RECIPE / "pom.xml").read_bytes()
    version = re.search(rb"<version>([\d.]+)</version>", pom)
    assert version is not None
    # The digest tells a change of any other jar from what is in the cache.
    name = f"kafka-{version[1].decode()}-{hashlib.sha256(pom).hexdigest()[:8]}"
    return Distribution(str(Path(java).resolve()), cache() / name)


def cache() -> Path:
    if own := os.environ.get("POOLWATCH_TEST_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "poolwatch"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One test run at a time fills the cache; the others wait for it."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_tool(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired as late:
        raise UnavailableError(str(late)[:600]) from late
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise UnavailableError(f"{Path(command[0]).name} failed: " + " | ".join(lines[:4])[:600])


def check_java(made: Distribution) -> None:
    version = subprocess.run([made.java, "-version"], capture_output=True, text=True, check=False).stderr
    major = re.search(r'version "(\d+)', version)
    if major is None or int(major[1]) < 17:
        raise UnavailableError(f"Kafka needs Java 17 or newer, {made.java} says {version.strip()[:60]}")


def fetch(made: Distribution) -> None:
    """Bring the jars, all or none."""
    if made.libs.exists():
        return
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError(f"the jars are not in {made.libs} and mvn was not found: install maven")
    part = cache() / "kafka.part"
    shutil.rmtree(part, ignore_errors=True)
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    options = (f"-DoutputDirectory={part}", "-DincludeScope=runtime")
    run_tool(maven, "-B", "-q", "-C", "-f", str(RECIPE / "pom.xml"), goal, *options)
    made.folder.mkdir(exist_ok=True)
    part.rename(made.libs)


def format_storage(made: Distribution) -> None:
    """Format once: every start would spend 0.7 s on a JVM for the same 400 bytes."""
    if made.storage.exists():
        return
    part = made.storage.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "data").mkdir(parents=True)
    config = part / "server.properties"
    config.write_text(
        f"log.dirs={part / 'data'}\n"
        "process.roles=broker,controller\n"
        "node.id=1\n"
        "controller.quorum.voters=1@127.0.0.1:2\n"
        "controller.listener.names=CONTROLLER\n"
        "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\n"
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
    )
    tool = made.command(part / "format.log")
    run_tool(*tool, "kafka.tools.StorageTool", "format", "-t", kafka_id(), "-c", str(config))
    (part / "data").rename(made.storage)
    shutil.rmtree(part)


def copy_storage(made: Distribution, data: Path) -> None:
    """Make an empty, formatted data folder with ids of its own."""
    shutil.copytree(made.storage, data)
    ids = f"node.id=1\nversion=1\ncluster.id={kafka_id()}\ndirectory.id={kafka_id()}\n"
    (data / "meta.properties").write_text(ids)


def kafka_id() -> str:
    """A random id as Kafka writes them: 16 bytes in 22 letters, no hyphen first."""
    return "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
