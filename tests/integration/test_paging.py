"""Pages through the real Alertmanager: one a miner, whatever goes away in between."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import alertmanager
import msgspec
import pytest
from alertmanager import Alertmanager, Receiver, free_port
from documents import document
from prometheus_client import CollectorRegistry

from detector.config import Alertmanager as Config
from detector.delivery import Delivery, Metrics
from detector.incidents import State
from detector.metrics import Deliveries
from detector.quiet import Allowed, Quiet, ip_network

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(
        alertmanager.COMMAND is None, reason="needs Alertmanager (Debian package prometheus-alertmanager)"
    ),
]
STILL_S = 2.0
ROOT = Path(__file__).parent.parent.parent


@contextmanager
def running(*arguments, **environment):
    """``poolwatch run``; it is gone at the end."""
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "poolwatch"), "run", *arguments], cwd=ROOT,
        env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


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
    while metric(port, name) != value:
        assert time.monotonic() < end, f"{name} never was {value}"
        time.sleep(0.05)


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made


@pytest.fixture
def server(receiver):
    with Alertmanager(receiver.url) as made:
        yield made


def paging(server, **changes):
    config = msgspec.structs.replace(
        Config(urls=(server.url,), resend_s=1, retry_first_s=0.1, retry_most_s=0.5, timeout_s=1), **changes
    )
    registry = CollectorRegistry()
    return Delivery(config, Deliveries(registry), Metrics(registry))


def now(**changes):
    at = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06d}Z"
    return document(**{"first_seen": stamp} | changes)


def subscribers(notification):
    return {a["labels"]["subscriber"] for a in notification.body["alerts"]}


def test_a_miner_pages_once_and_resolves(server, receiver, capsys):
    with paging(server) as delivery:
        began = time.time()
        delivery.incident(now())
        while not server.firing():
            time.sleep(0.005)
        there = time.time() - began
        receiver.wait(lambda: receiver.count("page", "firing"))
        paged = receiver.notifications("page")[0].at - began
        time.sleep(STILL_S)
        assert receiver.count("page") == 1, "it was told again meanwhile, and paged once"
        ended = time.time()
        delivery.incident(now(state=State.RESOLVED))
        receiver.wait(lambda: receiver.count("page", "resolved") == 1)
        resolved = receiver.notifications("page", "resolved")[0].at - ended
    assert receiver.count("ticket") == 0
    (one,) = receiver.notifications("page", "firing")
    assert "Belief 0.9998" in one.body["alerts"][0]["annotations"]["description"]
    assert there < 1
    with capsys.disabled():
        print(f" [at Alertmanager {there * 1e3:.0f} ms, notified {paged:.2f} s, resolved {resolved:.2f} s]")


def test_an_outbreak_is_one_page(server, receiver):
    with paging(server) as delivery:
        for n in range(1, 201):
            delivery.incident(now(number=n))
        receiver.wait(lambda: receiver.count("page", "firing"))
        time.sleep(STILL_S)
    assert receiver.count("page") == 1
    assert len(subscribers(receiver.notifications("page")[0])) == 200


def test_a_suspicion_is_a_ticket_and_when_confirmed_one_page(server, receiver):
    with paging(server) as delivery:
        delivery.incident(now(state=State.SUSPECTED))
        receiver.wait(lambda: receiver.count("ticket", "firing") == 1)
        assert receiver.count("page") == 0
        delivery.incident(now())
        receiver.wait(lambda: receiver.count("page", "firing") == 1)
        receiver.wait(lambda: receiver.count("ticket", "resolved") == 1)
        time.sleep(STILL_S)
        assert [a["labels"]["severity"] for a in server.firing()] == ["page"]
        assert (receiver.count("page"), receiver.count("ticket", "firing")) == (1, 1)


def test_who_is_paged_for_gets_no_ticket(server, receiver):
    with paging(server) as delivery:
        delivery.incident(now())
        receiver.wait(lambda: receiver.count("page", "firing") == 1)
        delivery.incident(now(id="e" * 16, state=State.SUSPECTED))
        time.sleep(STILL_S)
        assert len(server.firing()) == 2
        assert receiver.count("ticket") == 0


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_alertmanager_is_away_and_back_and_it_pages_once(server, receiver, how):
    with paging(server) as delivery:
        (server.stop if how == "stopped" else server.pause)()
        delivery.incident(now())
        delivery.incident(now(number=2, state=State.SUSPECTED))
        delivery.incident(now(number=3))
        delivery.incident(now(number=3, state=State.RESOLVED))
        delivery.incident(now(number=2))
        time.sleep(5)
        assert receiver.got == []
        (server.start if how == "stopped" else server.resume)()
        back = time.time()
        receiver.wait(lambda: receiver.count("page", "firing") == 1)
        assert receiver.notifications("page")[0].at - back < 3
        time.sleep(STILL_S)
        assert receiver.count("page") == 1
        assert subscribers(receiver.notifications("page")[0]) == {"198.51.100.1", "198.51.100.2"}
        assert receiver.count("ticket") == 0


def test_alertmanager_starts_anew_while_it_fires_and_it_pages_once(server, receiver):
    with paging(server) as delivery:
        delivery.incident(now())
        receiver.wait(lambda: receiver.count("page", "firing") == 1)
        time.sleep(0.5)  # it writes down that it notified only after it did
        server.stop()
        server.start()
        time.sleep(STILL_S)
        assert [a["labels"]["subscriber"] for a in server.firing()] == ["198.51.100.1"]
        assert receiver.count("page") == 1


@pytest.mark.parametrize("memory", [True, False], ids=["with its memory", "without"])
def test_a_detector_is_started_again_while_it_fires_and_it_pages_once(server, receiver, memory):
    with paging(server) as delivery:
        delivery.incident(now(coins=()))
        receiver.wait(lambda: receiver.count("page", "firing") == 1)
    with paging(server) as delivery:
        more = {} if memory else {"id": "f" * 16}
        if not memory:
            delivery.incident(now(state=State.SUSPECTED, **more))
            time.sleep(0.5)
        delivery.incident(now(**more))
        time.sleep(STILL_S)
        assert receiver.count("page") == 1
        assert receiver.count("ticket") == 0
        delivery.incident(now(state=State.RESOLVED, **more))
        receiver.wait(lambda: receiver.count("page", "resolved") == 1)
    assert server.firing() == []


def test_an_allowed_one_pages_when_its_row_expires(server, receiver):
    with paging(server) as delivery:
        until = time.time_ns() + 3 * 10**9
        delivery.hush(Quiet([Allowed(network=ip_network("198.51.100.1"), reason="lab", expires_ns=until)]))
        delivery.incident(now())
        receiver.wait(lambda: receiver.count("page", "firing") == 1)
        assert receiver.notifications("page")[0].at * 1e9 > until


def told(name, outcome):
    return f'poolwatch_alert_{name}_total{{outcome="{outcome}",sink="alertmanager"}}'


def test_the_command_pages_of_a_replay_only_where_it_is_told_to(server, receiver):
    port = free_port()
    given = ("pcaps/xmrig-plain.pcap", "--listen", f"127.0.0.1:{port}")
    with running(*given, POOLWATCH_ALERTMANAGER__URLS=server.url):
        wait_for(port, 'poolwatch_miners{state="confirmed"}', 1)
        time.sleep(1)
        assert metric(port, told("deliveries", "delivered")) == 0
        assert server.firing() == []
    again = {"POOLWATCH_ALERTMANAGER__URLS": server.url, "POOLWATCH_ALERTMANAGER__REPLAYS": "true"}
    for _ in range(2):
        with running(*given, **again) as process:
            receiver.wait(lambda: metric(port, told("deliveries", "delivered")))
            receiver.wait(lambda: receiver.count("page", "firing") == 1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
    time.sleep(STILL_S)
    assert receiver.count("page") == 1


def test_sighup_reads_the_lists_again(server, receiver, tmp_path):
    port, file = free_port(), tmp_path / "allow.toml"
    file.write_text("")
    more = {
        "POOLWATCH_ALERTMANAGER__URLS": server.url, "POOLWATCH_ALERTMANAGER__REPLAYS": "true",
        "POOLWATCH_LISTS__ALLOW": str(file),
    }  # fmt: skip
    with running("pcaps/xmrig-plain.pcap", "--listen", f"127.0.0.1:{port}", **more) as process:
        receiver.wait(lambda: receiver.count("page", "firing") == 1, 60)
        row = '[[allow]]\nsubscriber = "198.51.100.0/24"\nreason = "lab"\nexpires = 2126-01-01\n'
        file.write_text(row)
        process.send_signal(signal.SIGHUP)
        receiver.wait(lambda: receiver.count("page", "resolved") == 1)
        wait_for(port, 'poolwatch_alerts_quieted{by="allow"}', 1)
        assert metric(port, 'poolwatch_miners{state="confirmed"}') == 1
        assert metric(port, 'poolwatch_list_entries{list="allow"}') == 1
        file.write_text("nonsense")
        os.kill(process.pid, signal.SIGHUP)
        wait_for(port, 'poolwatch_list_last_reload_success{list="allow"}', 0)
        assert metric(port, 'poolwatch_alerts_quieted{by="allow"}') == 1
        file.write_text("")
        os.kill(process.pid, signal.SIGHUP)
        receiver.wait(lambda: receiver.count("page", "firing") == 2)
