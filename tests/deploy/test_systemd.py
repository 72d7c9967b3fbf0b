"""The units: what systemd's own tools say of them, and what can be run of them without systemd as init."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import confined
import fleet
import pytest

from collectors import jit, privileges
from collectors.kafka.sender import GRACE_S
from detector.arguments import parser
from detector.config import load

UNITS = confined.UNITS
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
PACKETS = "poolwatch-collect-packets@.service"
PROGRAM = "/opt/poolwatch/bin/poolwatch"
MOST_EXPOSED = 3.0
every_service = pytest.mark.parametrize("unit", SERVICES)
systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze (Debian: systemd)"
)
confinement = pytest.mark.skipif(bool(confined.why_not()), reason=confined.why_not())


# -- what systemd says -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """The units with a program that is there: ``verify`` looks whether it is."""
    for path in UNITS.glob("poolwatch*"):
        install(path, tmp_path / path.name)
    return tmp_path


def install(path, target):
    program = str(Path(sys.executable).parent / "poolwatch")
    target.parent.mkdir(exist_ok=True)
    target.write_text(path.read_text().replace(PROGRAM, program))


def analyze(folder, *arguments):
    done = subprocess.run(
        ["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def exposure(folder, unit):
    _, said = analyze(folder, "security", "--offline=true", f"./{unit}")
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said)[1])


@pytest.mark.tools
@systemd
@pytest.mark.parametrize("unit", [*SERVICES, "poolwatch.target"])
def test_systemd_finds_no_fault_with_a_unit(folder, unit):
    assert analyze(folder, "verify", f"./{unit}") == (0, "")


@pytest.mark.tools
@systemd
@every_service
def test_a_unit_is_little_exposed(folder, unit):
    assert exposure(folder, unit) <= MOST_EXPOSED


@pytest.mark.tools
@systemd
@pytest.mark.parametrize(
    ("example", "unit"),
    [
        ("capture.conf", "poolwatch-run.service"),
        ("redact.conf", "poolwatch-run.service"),
        ("redact.conf", "poolwatch-detect@.service"),
        ("secrets.conf", "poolwatch-detect@.service"),
        ("secrets.conf", "poolwatch-collect-flows.service"),
        ("secrets.conf", PACKETS),
    ],
)
def test_an_example_leaves_a_unit_sound_and_little_exposed(folder, example, unit):
    alone = exposure(folder, unit)
    install(UNITS / "examples" / example, folder / f"{unit}.d" / example)
    assert analyze(folder, "verify", f"./{unit}") == (0, "")
    with_it = exposure(folder, unit)
    assert with_it <= MOST_EXPOSED
    assert (with_it > alone) == (example == "capture.conf")  # that it was read at all


# -- what they say to poolwatch --------------------------------------------------------------------


def command(unit, **instance):
    (line,) = confined.settings(unit)["ExecStart"]
    for letter, text in instance.items():
        line = line.replace(f"%{letter}", text)
    program, *arguments = shlex.split(line)
    assert program == PROGRAM
    return arguments


@pytest.mark.parametrize("unit", SERVICES)
def test_a_units_command_is_one_that_poolwatch_knows(unit):
    instance = "9470" if "detect" in unit else "eth1"
    parser().parse_args(command(unit, i=instance, I=instance))


def variables(path):
    lines = re.findall(r"^Environment=(POOLWATCH_\w+)=(.*)$", path.read_text(), re.M)
    return {name: value for name, value in lines if name != "POOLWATCH_CONFIG"}


def test_every_variable_and_the_example_file_are_configuration(monkeypatch):
    paths = [*UNITS.glob("*.service"), *UNITS.glob("examples/*.conf")]
    assert sum(len(variables(path)) for path in paths) > 8
    for path in paths:
        with monkeypatch.context() as patch:
            for name, value in variables(path).items():
                patch.setenv(name, value)
            load(str(UNITS / "examples" / "poolwatch.toml"))


def test_only_who_captures_packets_has_a_capability():
    for unit in SERVICES:
        said = confined.settings(unit)
        wanted = ["CAP_NET_RAW"] if unit == PACKETS else [""]
        assert said["AmbientCapabilities"] == said["CapabilityBoundingSet"] == wanted
        assert ("AF_PACKET" in said["RestrictAddressFamilies"][0]) == (unit == PACKETS)


@every_service
def test_a_service_has_the_time_to_send_what_it_holds_and_to_be_noticed_when_it_hangs(unit):
    said = confined.settings(unit)
    assert int(said["TimeoutStopSec"][0]) > 2 * GRACE_S
    # /livez is false after 30 s without a turn; then no sign of life is given.
    assert int(said["WatchdogSec"][0]) >= 30
    assert said["Type"] == ["notify"]
    assert said["Restart"] == ["on-failure"]
    assert said["RestartPreventExitStatus"] == ["2"]
    assert said["CacheDirectory"] == said["User"]
    assert f"POOLWATCH_CACHE_DIR=%C/{said['User'][0]}" in said["Environment"]


# -- the commands themselves, confined as the units have it ----------------------------------------


class Manager:
    """In the place of systemd: hears what services say."""

    def __init__(self):
        name = f"poolwatch-test-{os.getpid()}-{time.monotonic_ns()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name)
        self._socket.settimeout(0.2)
        self.environment = {"NOTIFY_SOCKET": "@" + name, "WATCHDOG_USEC": "2000000"}
        self.heard = []

    def wait_for(self, word, process, timeout_s=180, times=1):
        end = time.monotonic() + timeout_s
        while self.heard.count(word) < times:
            assert time.monotonic() < end, self.heard
            assert process.poll() is None, process.communicate()
            self.listen()

    def listen(self):
        try:
            self.heard += self._socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=GRACE_S + 25)[1]
        for _ in range(20):
            self.listen()
        assert process.returncode == 0, said
        return said

    def close(self):
        self._socket.close()


@pytest.fixture
def manager():
    made = Manager()
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path):
    """A cache folder of the service's own with all kernels in it: they are compiled here if need be, for a
    service that compiles beside other tests is not ready in time."""
    folder = tmp_path / "cache"
    folder.mkdir()
    compiled = jit.cache_dir() / jit.VERSION
    if not (compiled / "compiled").is_file():
        program = "from detector import app; app.warm_kernels(print)"
        subprocess.run([sys.executable, "-c", program], cwd=fleet.ROOT, check=True, timeout=900)
    shutil.copytree(compiled, folder / jit.VERSION)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, confined.NOBODY, confined.NOBODY)
    return folder


@pytest.fixture
def site(kafka, prefix):
    made = fleet.Site(kafka.address, prefix, 2).create()
    yield made
    made.close()


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.status


@pytest.mark.tools
@systemd
@confinement
def test_a_detector_works_confined_and_says_so(site, manager, cache):
    port = fleet.free_port()
    told = {**site.environment(), **manager.environment, "POOLWATCH_CACHE_DIR": str(cache)}
    arguments = command("poolwatch-detect@.service", i=str(port))
    with confined.start("poolwatch-detect@.service", arguments, [cache], told) as process:
        try:
            manager.wait_for("READY=1", process)
            assert get(port, "/readyz") == get(port, "/livez") == 200
            manager.wait_for("WATCHDOG=1", process, times=3)
            site.publish([fleet.ROOT / "pcaps" / "xmrig-plain.pcap"])
            site.wait_judged(alive=[process])
            process.send_signal(signal.SIGHUP)  # ExecReload
            manager.wait_for("READY=1", process, times=2)
            manager.stop(process)
        finally:
            process.kill()
    assert len(site.incidents()) == 1
    began = manager.heard.index("RELOADING=1")
    assert manager.heard[began + 1].startswith("MONOTONIC_USEC=")
    assert (manager.heard.count("READY=1"), manager.heard.count("STOPPING=1")) == (2, 1)


@pytest.mark.tools
@systemd
@confinement
def test_a_detector_without_partitions_is_a_stand_by_and_ready(kafka, prefix, manager, cache):
    site = fleet.Site(kafka.address, prefix, 1).create()
    told = {**site.environment(), "POOLWATCH_CACHE_DIR": str(cache)}
    detectors = []
    try:
        for more in ({}, manager.environment):
            port = fleet.free_port()
            arguments = command("poolwatch-detect@.service", i=str(port))
            process = confined.start("poolwatch-detect@.service", arguments, [cache], {**told, **more})
            detectors.append((process, port))
        for process, _ in detectors:
            manager.wait_for("READY=1", process)
        manager.wait_for("WATCHDOG=1", detectors[1][0], times=4)
        owned = [fleet.metrics(port, "poolwatch_detector_partitions") for _, port in detectors]
        assert sorted(sum(samples.values()) for samples in owned) == [0, 1]
        for process, _ in detectors:
            manager.stop(process)
    finally:
        for process, _ in detectors:
            process.kill()
            process.communicate()
        site.close()


@pytest.mark.tools
@systemd
@confinement
def test_a_collector_of_flows_works_confined_and_says_so(site, manager, cache):
    port = fleet.free_port()
    told = {**site.environment(), **manager.environment, "POOLWATCH_CACHE_DIR": str(cache)}
    arguments = [*command("poolwatch-collect-flows.service")[:-1], f"127.0.0.1:{port}", "--ports", "0"]
    with confined.start("poolwatch-collect-flows.service", arguments, [cache], told) as process:
        try:
            manager.wait_for("READY=1", process)
            manager.wait_for("WATCHDOG=1", process, times=2)
            assert get(port, "/livez") == 200
            assert "sent" in manager.stop(process)
        finally:
            process.kill()
    assert any(word.startswith("STATUS=receiving on 0.0.0.0 UDP ") for word in manager.heard)
    assert manager.heard.count("STOPPING=1") == 1


@pytest.mark.tools
@systemd
@confinement
def test_all_in_one_works_confined_and_says_so(manager, cache, tmp_path):
    unit, port, udp = "poolwatch-run.service", fleet.free_port(), fleet.free_port()
    told = {**os.environ, **variables(UNITS / unit), **manager.environment, "POOLWATCH_CACHE_DIR": str(cache)}
    told["POOLWATCH_HTTP__LISTEN"] = f"127.0.0.1:{port}"
    told["POOLWATCH_COLLECTORS__NETFLOW__PORTS"] = f"[{udp}]"
    state = tmp_path / "state"
    state.mkdir()
    told["POOLWATCH_OUTPUT__JSONL"] = str(state)
    told["POOLWATCH_COLLECTORS__NETFLOW__TEMPLATES_FILE"] = str(state / "templates.json")
    with confined.start(unit, command(unit), [cache, state], told) as process:
        try:
            manager.wait_for("READY=1", process)
            manager.wait_for("WATCHDOG=1", process, times=2)
            assert get(port, "/livez") == get(port, "/readyz") == 200
            process.send_signal(signal.SIGHUP)
            manager.wait_for("READY=1", process, times=2)
            manager.stop(process)
        finally:
            process.kill()
    assert f"STATUS=receiving on 0.0.0.0 UDP {udp}" in manager.heard
    assert list(state.iterdir())


def capabilities(pid):
    lines = (line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {key: int(value, 16) for key, value in lines if key.startswith("Cap")}


@pytest.mark.tools
@systemd
@confinement
def test_a_collector_of_packets_works_confined_and_says_so(site, manager, cache):
    port = fleet.free_port()
    told = {**site.environment(), **manager.environment, "POOLWATCH_CACHE_DIR": str(cache)}
    told["POOLWATCH_HTTP__LISTEN"] = f"127.0.0.1:{port}"
    with confined.start(PACKETS, command(PACKETS, I="lo"), [cache], told) as process:
        try:
            manager.wait_for("READY=1", process)
            manager.wait_for("WATCHDOG=1", process, times=2)
            assert get(port, "/livez") == get(port, "/readyz") == 200
            raw = 1 << privileges.NET_RAW
            held = {"CapInh": 0, "CapPrm": raw, "CapEff": raw, "CapBnd": raw, "CapAmb": 0}
            assert capabilities(process.pid) == held
            process.send_signal(signal.SIGHUP)
            manager.wait_for("READY=1", process, times=2)
            manager.stop(process)
        finally:
            process.kill()
    assert any(word.startswith("STATUS=receiving on lo") for word in manager.heard)


CAPABLE = """
import errno, socket
from collectors import privileges

ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
left = privileges.drop("nobody")
assert left.capabilities == {privileges.NET_RAW}, left
assert left.user == "nobody", left
for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW)):
    socket.socket(family, kind, 0 if family == socket.AF_PACKET else socket.IPPROTO_ICMP).close()
try:
    open("/etc/poolwatch-was-here", "w")
except OSError as error:
    assert error.errno == errno.EROFS
else:
    raise AssertionError("/etc can be written")
"""


@pytest.mark.tools
@systemd
@confinement
def test_the_packet_collector_has_its_one_capability_and_keeps_it_when_it_drops_the_rest():
    with confined.run_python(PACKETS, ["-c", CAPABLE], [], os.environ) as process:
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0


@pytest.mark.tools
@systemd
@confinement
@pytest.mark.parametrize("unit", [unit for unit in SERVICES if unit != PACKETS])
def test_nobody_else_may_capture(unit):
    code = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)"
    with confined.run_python(unit, ["-c", code], [], os.environ) as process:
        assert "PermissionError" in process.communicate(timeout=60)[1]
