"""``poolwatch run`` as a process: replay, service, signals, files."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
POOLWATCH = str(Path(sys.executable).parent / "poolwatch")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def running(*arguments, **environment):
    process = subprocess.Popen(
        [POOLWATCH, "run", *arguments], cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def metric(port, name):
    """The sum of a metric's samples, None while the listener is not there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    return sum(float(v) for v in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.M))


def wait_for(port, name, value):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if metric(port, name) == value:
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} never was {value}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_replays_serves_and_ends_cleanly_on_a_signal(number):
    port = free_port()
    with running("pcaps/xmrig-plain.pcap", "--listen", f"127.0.0.1:{port}") as process:
        wait_for(port, 'poolwatch_miners{state="confirmed"}', 1)
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        assert process.returncode == 0, err
        assert b"1 confirmed" in err
        assert out == b""


def test_a_signal_in_the_middle_of_a_paced_replay_ends_it():
    port = free_port()
    with running("pcaps", "--pace", "0.5", "--listen", f"127.0.0.1:{port}") as process:
        wait_for(port, "poolwatch_collector_packet_frames_total", 5)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
        assert process.returncode == 0


def test_once_prints_the_table_and_writes_alerts_and_incidents(tmp_path):
    port = free_port()
    done = subprocess.run(
        [POOLWATCH, "run", "--once", "pcaps", "--listen", f"127.0.0.1:{port}"], cwd=ROOT, capture_output=True,
        env=os.environ | {"POOLWATCH_OUTPUT__JSONL": str(tmp_path)}, timeout=120, check=True,
    )  # fmt: skip
    for number in (*range(11, 19), 21, 23):
        assert re.search(rf"198\.51\.100\.{number} .*confirmed", done.stdout.decode())
    alerts = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    pages = [a["subscriber"] for a in alerts if a["action"] == "alert"]
    assert len(pages) == len(set(pages)) == 10
    assert len({a["id"] for a in alerts}) == len(alerts)
    latest = {}
    for line in (tmp_path / "incidents.jsonl").read_text().splitlines():
        document = json.loads(line)
        latest[document["id"]] = document
    assert {a["incident"] for a in alerts} <= set(latest)
    dense = next(d for d in latest.values() if d["subscriber"] == "198.51.100.15")
    assert dense["shares"]["accepted"] == 394


def test_an_address_in_use_is_said_and_is_status_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [POOLWATCH, "run", "--once", "pcaps/chat.pcap", "--listen", f"127.0.0.1:{port}"], cwd=ROOT,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert b"cannot listen" in done.stderr
    assert b"Traceback" not in done.stderr


def test_redaction_keeps_the_link_and_hides_the_text(tmp_path):
    (tmp_path / "key").write_text("secret")
    environment = {
        "POOLWATCH_OUTPUT__REDACT": "true",
        "POOLWATCH_OUTPUT__REDACT_KEY_FILE": str(tmp_path / "key"),
    }
    done = subprocess.run(
        [POOLWATCH, "scan", "--json", "pcaps/cpuminer-sha256d.pcap", "pcaps/cpuminer-idle-highdiff.pcap",
         "pcaps/xmrig-badlogin.pcap"],
        cwd=ROOT, capture_output=True, env=os.environ | environment, timeout=60, check=True,
    )  # fmt: skip
    assert b"bc1qlabonly" not in done.stdout
    assert b"46uvKTaB" not in done.stdout
    assert b"refused" in done.stdout
    workers = {tuple(i["workers"]) for i in json.loads(done.stdout)["incidents"]}
    assert len(workers) == 2
    assert next(iter(workers))[0].startswith("redacted:")


def test_on_a_terminal_there_is_a_live_table():
    main, side = pty.openpty()
    process = subprocess.Popen(
        [POOLWATCH, "run", "--once", "pcaps/xmrig-plain.pcap", "--listen", f"127.0.0.1:{free_port()}"],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"}, stdout=side, stderr=side,
    )  # fmt: skip
    os.close(side)
    shown = b""
    try:
        while chunk := os.read(main, 65536):
            shown += chunk
    except OSError:
        pass
    assert process.wait(30) == 0
    assert b"1 incidents" in shown
    assert b"198.51.100.11" in shown
    assert b"\x1b[" in shown
