"""The output to goflow2's topic, beside our own stream and after it."""

import threading

import flowrows
import pytest
from prometheus_client import CollectorRegistry

from collectors import wire
from collectors.exporting import flowmessage, laying
from collectors.exporting.settings import Goflow2
from collectors.kafka.config import Config
from collectors.kafka.sender import Metrics
from detector import goflow2
from detector.goflow2 import Output

HEADER = wire.Header(
    version=1, collector="netflow", number=0, rows=0, t_first_ns=1, t_last_ns=2, received_ns=3, home="h"
)


class Topic:
    """In place of ``Elsewhere``: a topic of three partitions that takes all, once it is ``open``."""

    def __init__(self):
        self.partitions, self.most_bytes = 3, 1 << 20
        self.open = threading.Event()
        self.laid, self.refused = [], 0

    def __enter__(self):
        return self

    def close(self, _timeout_s):
        return 0

    def refuse(self, _stream, messages):
        self.refused += messages

    def send_laid(self, partition, octets, records, rows, *, blocking):
        self.open.wait(30)
        self.laid.append((partition, bytes(octets), records, rows, blocking))


@pytest.fixture
def made(monkeypatch):
    def make(**changes):
        monkeypatch.setattr(goflow2, "Elsewhere", lambda *_args, **_more: topic)
        return Output(Goflow2(topic="t", **changes), Config(), Metrics(CollectorRegistry(), ())), topic

    # What the thread does not compile while somebody waits for it.
    flowmessage.warm()
    laying.warm()
    topic = Topic()
    yield make
    topic.open.set()


def rows(n=3):
    return flowrows.flows(*({"exporter": "192.0.2.1", "source": 9, "bytes": b} for b in range(1, n + 1)))


def test_without_a_topic_a_collector_publishes_as_before():
    out = Output(Goflow2(), Config(), Metrics(CollectorRegistry(), ()))

    def publish(*_):
        raise AssertionError

    with out:
        assert out.beside(publish) == (publish, None)
    assert (out.told(), out.lost) == ("", 0)


def test_our_own_stream_comes_first_and_records_of_nobodys_are_sent_too(made):
    out, topic = made()
    seen = []
    with out:
        publish, transit = out.beside(lambda *given: seen.append((given, out._rows)))
        publish("flows", 1, rows(3), HEADER)
        publish("flows", 2, wire.empty("flows"), HEADER)
        transit(rows(4))
        topic.open.set()
    assert [given[1] for given, _ in seen] == [1, 2]
    assert seen[0][1] == 0
    assert sum(records for _, _, records, _, _ in topic.laid) == 7
    assert {blocking for *_, blocking in topic.laid} == {False}


def test_a_live_link_never_waits_for_it_what_finds_no_room_is_counted(made, monkeypatch):
    monkeypatch.setattr(goflow2, "MOST_ROWS", 10)
    monkeypatch.setattr(goflow2, "LINGER_S", 0.0)
    out, topic = made(messages_a_value=2)
    with out:
        publish, _ = out.beside(lambda *_: None)
        for _ in range(20):
            publish("flows", 0, rows(5), HEADER)
        # The thread holds one, two wait.
        assert topic.refused >= 17 * 3
        topic.open.set()
    assert sum(r for *_, r, _ in topic.laid) == 20 * 5 - topic.refused // 3 * 5


def test_files_wait_for_it(made, monkeypatch):
    monkeypatch.setattr(goflow2, "MOST_ROWS", 10)
    out, topic = made()
    with out:
        publish, _ = out.beside(lambda *_: None, blocking=True)
        timer = threading.Timer(0.2, topic.open.set)
        timer.start()
        for _ in range(20):
            publish("flows", 0, rows(5), HEADER)
        timer.join()
    assert topic.refused == 0
    assert sum(r for *_, r, _ in topic.laid) == 100


def test_a_mistake_of_ours_in_its_thread_ends_the_process(made):
    out, topic = made()
    topic.send_laid = None
    topic.open.set()
    with out:
        publish, _ = out.beside(lambda *_: None)
        publish("flows", 0, rows(), HEADER)
        out._thread.join(30)
        with pytest.raises(TypeError):
            publish("flows", 0, rows(), HEADER)
