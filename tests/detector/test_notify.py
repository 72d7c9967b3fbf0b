"""What systemd hears: a real socket in its place."""

import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from detector.notify import Notifier


def yes():
    return True


def no():
    return False


class Manager:
    """The receiving end of $NOTIFY_SOCKET."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(10)
        self.heard = []

    def wait_for(self, word):
        """All that was heard until ``word`` was."""
        while not any(word in message for message in self.heard):
            self.heard.append(self.socket.recv(4096).decode())
        return self.heard

    def rest(self):
        self.socket.setblocking(False)
        try:
            while True:
                self.heard.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return self.heard
        finally:
            self.socket.settimeout(10)


@contextmanager
def managed(address):
    manager = Manager(address)
    try:
        yield manager
    finally:
        manager.socket.close()


@pytest.fixture
def manager(tmp_path):
    with managed(str(tmp_path / "notify")) as made:
        made.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        yield made


def test_without_a_socket_nothing_is_opened():
    before = threading.active_count()
    with Notifier(yes, yes, {"WATCHDOG_USEC": "1000"}) as notifier, notifier.reloading():
        assert threading.active_count() == before
        assert notifier._socket is None


def test_ready_is_told_once_when_it_first_is_so(manager):
    ready = threading.Event()
    with Notifier(yes, ready.is_set, manager.environment):
        manager.wait_for("EXTEND_TIMEOUT_USEC=60000000")
        assert "READY=1" not in manager.rest()
        ready.set()
        manager.wait_for("READY=1")
        ready.clear()
        time.sleep(0.6)
        ready.set()
        time.sleep(0.6)
    assert manager.rest().count("READY=1") == 1


def test_starting_is_not_given_more_time_when_the_loop_stands_still(manager):
    with Notifier(no, no, manager.environment) as notifier:
        notifier.status = "here"
        manager.wait_for("STATUS=here")
    assert manager.rest() == ["STATUS=here", "STOPPING=1"]


def test_stopping_is_told_once(manager):
    with Notifier(yes, yes, manager.environment) as notifier:
        manager.wait_for("READY=1")
        notifier.stopping()
    assert manager.rest() == ["READY=1", "STOPPING=1"]


def test_the_watchdog_is_fed_twice_an_interval_while_the_loop_turns(manager):
    live = threading.Event()
    live.set()
    environment = {**manager.environment, "WATCHDOG_USEC": "400000", "WATCHDOG_PID": str(os.getpid())}
    with Notifier(live.is_set, yes, environment):
        time.sleep(2)
        fed = manager.rest().count("WATCHDOG=1")
        assert 5 <= fed <= 12
        live.clear()
        time.sleep(0.5)
        fed = manager.rest().count("WATCHDOG=1")
        time.sleep(1)
        assert manager.rest().count("WATCHDOG=1") == fed


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}],
    ids=["none", "no number", "for another process"],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(manager, watchdog):
    with Notifier(yes, yes, {**manager.environment, **watchdog}):
        time.sleep(0.7)
    assert manager.rest() == ["READY=1", "STOPPING=1"]


def test_a_reload_has_a_begin_with_its_time_and_an_end_even_if_it_fails(manager):
    with Notifier(yes, yes, manager.environment) as notifier:
        manager.wait_for("READY=1")
        before = time.monotonic_ns() // 1000
        with pytest.raises(ValueError, match="broken"), notifier.reloading():
            raise ValueError("broken list")
        after = time.monotonic_ns() // 1000
    _, began, ended, stopped = manager.rest()
    first, second = began.split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= after
    assert (ended, stopped) == ("READY=1", "STOPPING=1")


def test_a_status_is_one_line_and_told_when_it_changes(manager):
    with Notifier(yes, yes, manager.environment) as notifier:
        notifier.status = "two\nREADY=0"
        manager.wait_for("STATUS=")
        time.sleep(0.6)
    assert [m for m in manager.rest() if m.startswith("STATUS")] == ["STATUS=two READY=0"]


def test_an_abstract_socket_is_reached():
    name = f"poolwatch-test-{os.getpid()}"
    with managed("\0" + name) as manager:
        with Notifier(yes, yes, {"NOTIFY_SOCKET": "@" + name}):
            manager.wait_for("READY=1")
        assert "STOPPING=1" in manager.rest()


@pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1"])
def test_a_manager_that_cannot_be_reached_does_not_stop_the_work(address):
    with Notifier(yes, yes, {"NOTIFY_SOCKET": address}) as notifier:
        notifier.status = "working"
