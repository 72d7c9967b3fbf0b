"""The whole house at once: a tap, collectors, Kafka, a detector, Prometheus, Alertmanager, and one miner."""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import alertmanager
import fleet
import netns
import prometheus
import pytest

from collectors.packet import pcapfile

CAPTURE = Path(__file__).parent.parent.parent / "pcaps" / "cpuminer-scrypt-dense.pcap"
# How long Alertmanager is away; a minute for the figures in the notes.
AWAY_S = float(os.environ.get("POOLWATCH_TEST_AWAY_S", "10"))
PACE = 4.0
ROUNDS = int(os.environ.get("POOLWATCH_TEST_ROUNDS", "2"))
LASTS_S = 61.8 / PACE * ROUNDS
# A flow record over the end of a minute is shared out evenly, so minutes agree to a part of one record.
ACTIVE_S = 3
MINUTE_S = 60
pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not() or "namespaces"),
    pytest.mark.skipif(prometheus.BINARY is None, reason="no prometheus"),
    pytest.mark.skipif(alertmanager.COMMAND is None, reason="no alertmanager"),
]


@contextmanager
def wire():
    """Two interfaces with a wire between them, where Kafka on loopback can be reached too."""
    one, other = (f"pw{secrets.token_hex(3)}{side}" for side in "ab")
    netns.veth(one, other)
    try:
        yield one, other
    finally:
        netns.ip("link", "del", one)


class Traffic(threading.Thread):
    """A miner's frames on an interface, ``ROUNDS`` times over at ``PACE`` times their speed.

    ``octets`` are what it sent in each minute of Unix time, counted from the IP headers.
    """

    def __init__(self, interface: str) -> None:
        super().__init__(daemon=True)
        self._interface = interface
        self.octets: Counter[int] = Counter()
        self.last = 0.0

    def run(self) -> None:
        with CAPTURE.open("rb") as file:
            blocks = list(pcapfile.blocks(file))
        frames = [
            (int(t), bytes(b.data[at : at + size]))
            for b in blocks
            for t, at, size in zip(b.t_ns, b.offset, b.captured, strict=True)
        ]
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((self._interface, 0))
            for _ in range(ROUNDS):
                began = time.time()
                for t_ns, frame in frames:
                    due = began + (t_ns - frames[0][0]) / 1e9 / PACE
                    time.sleep(max(0.0, due - time.time()))
                    out.send(frame)
                    self.last = time.time()
                    self.octets[int(self.last // MINUTE_S)] += int.from_bytes(frame[16:18], "big")


class Watch(threading.Thread):
    """What Prometheus says of each closed minute, the last word on each, in octets."""

    def __init__(self, server: prometheus.Prometheus) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._over = threading.Event()
        self.octets: dict[int, float] = {}

    def run(self) -> None:
        while not self._over.wait(0.5):
            with suppress(OSError):
                # Both of one scrape: what a minute had, and which it was.
                at = f"{time.time() - 1:.3f}"
                mbps = self._server.get("query", query="sum(poolwatch_mining_mbps)", time=at)["result"]
                ended = self._server.get(
                    "query", query="max(poolwatch_mining_mbps_timestamp_seconds)", time=at
                )["result"]
                if ended:
                    told = float(mbps[0]["value"][1]) if mbps else 0.0
                    minute = round(float(ended[0]["value"][1]) / MINUTE_S) - 1
                    self.octets[minute] = told * 1e6 / 8 * MINUTE_S

    def stop(self) -> None:
        self._over.set()
        self.join()


def is_ready(port: int) -> bool:
    with (
        suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer,
    ):
        return answer.status == 200
    return False


def wait(until, what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, what
        time.sleep(0.05)


class Process:
    """A poolwatch process that can be read after its end."""

    def __init__(self, site: fleet.Site, log: Path, *arguments: str, **environment: str) -> None:
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-c", fleet.MAIN, *arguments],
                cwd=fleet.ROOT, env={**site.environment(), **environment}, stdout=said, stderr=said,
            )  # fmt: skip
        self._log = log

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(40) == 0, self._log.read_text()


def test_a_miner_pages_once_and_the_figures_are_right(kafka, prefix, tmp_path, capsys):
    site = fleet.Site(kafka.address, prefix, partitions=4).create()
    judge, tap = fleet.free_port(), fleet.free_port()
    with (
        alertmanager.Receiver() as pager,
        alertmanager.Alertmanager(pager.url) as manager,
        prometheus.Prometheus(
            {"detector": [f"127.0.0.1:{judge}"], "packets": [f"127.0.0.1:{tap}"]}
        ) as figures,
        wire() as (near, far),
    ):

        def detect() -> Process:
            return Process(
                site, tmp_path / "detect.log", "detect", "--listen", f"127.0.0.1:{judge}",
                POOLWATCH_ALERTMANAGER__URLS=manager.url, POOLWATCH_ALERTMANAGER__RESEND_S="2",
                POOLWATCH_DETECTOR__JUDGE__RESOLVE_AFTER_S="45", POOLWATCH_DETECTOR__LATENESS_S="6",
            )  # fmt: skip

        detector = detect()
        collector = Process(
            site, tmp_path / "collect.log", "collect", "packets", "--interface", near,
            "--listen", f"127.0.0.1:{tap}", POOLWATCH_COLLECTORS__PACKETS__ACTIVE_TIMEOUT_S=str(ACTIVE_S),
        )  # fmt: skip
        watch, traffic = Watch(figures), Traffic(far)
        try:
            wait(lambda: is_ready(judge) and is_ready(tap), f"not ready: {tmp_path}")
            watch.start()
            # A minute is closed some seconds after its end; until then the incident must be open, though
            # the second round is no evidence: its segments repeat those of the first.
            wait(lambda: 48 < (time.time() + LASTS_S) % MINUTE_S < 57, "a clock that stands still")
            traffic.start()
            pager.wait(lambda: pager.count("page", "firing"), 30)
            detector.kill()
            manager.stop()
            detector = detect()
            time.sleep(AWAY_S)
            manager.start()
            traffic.join()
            pager.wait(lambda: pager.count("page", "resolved"), 90)
            assert pager.count("page", "firing") == 1
            (page,) = pager.notifications("page", "firing")
            minutes = sorted(traffic.octets)
            wait(lambda: max(watch.octets, default=0) >= minutes[-1], "the last minute is not closed", 90)
            time.sleep(3)  # the last word on it
        finally:
            watch.stop()
            with suppress(Exception):
                collector.stop()
            with suppress(Exception):
                detector.stop()
    (alert,) = page.body["alerts"]
    assert alert["labels"]["subscriber"] == "198.51.100.15"
    assert "btc-v1: pool 203.0.113.15:3354" in alert["annotations"]["description"]
    assert len(pager.notifications("page")) == 2
    sent = sum(traffic.octets.values())
    assert sum(watch.octets[m] for m in minutes) == pytest.approx(sent, rel=0.01)
    shared = sent / LASTS_S * ACTIVE_S if len(minutes) > 1 else 0
    for minute in minutes:
        assert watch.octets[minute] == pytest.approx(traffic.octets[minute], rel=0.01, abs=shared)
    confirmed = [json.loads(r.value) for r in site.records("alerts") if b'"to":"confirmed"' in r.value]
    assert len({a["id"] for a in confirmed}) == 1
    with capsys.disabled():
        told = page.at - pager_time(confirmed[0]["at"])
        print(f"\npage {told:.2f} s after the packet that confirmed; {sent} octets")
    site.close()


def pager_time(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
