"""What sends, before a producer that answers when it is told to."""

import threading
import time
from types import SimpleNamespace

import flowrows
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from collectors import wire
from collectors.kafka import clients, sender
from collectors.kafka.config import LEAST_IN_FLIGHT, Config
from collectors.kafka.sender import Failure, Sender

HEADER = wire.Header(
    version=1, collector="tap1", number=0, rows=0, t_first_ns=1, t_last_ns=2, received_ns=3, home="h"
)
NOTHING = wire.empty("flows")


class Producer:
    """Keeps what is sent; ``answer`` acknowledges or fails what waits."""

    def __init__(self):
        self.sent = []
        self.waiting = []
        self.raises = None
        self.closed = False
        self._sender = SimpleNamespace(force_close=self.fail_all, join=lambda _: None)

    def send(self, topic, **given):
        if self.raises is not None:
            raise self.raises
        future = clients.Future()
        self.sent.append((topic, given))
        self.waiting.append(future)
        return future

    def answer(self, error=None, most=1 << 30):
        answered, self.waiting = self.waiting[:most], self.waiting[most:]
        for future in answered:
            future.success("record") if error is None else future.failure(error)

    def fail_all(self):
        self.answer(clients.errors.IllegalStateError("closed forcefully"))

    def close(self, timeout):
        self.closed = True


@pytest.fixture
def made():
    def make(stopped=lambda: False, **changes):
        registry = CollectorRegistry()
        config = Config(**({"in_flight_bytes": LEAST_IN_FLIGHT, "partitions": 2} | changes))
        out = Sender(config, registry, stopped=stopped)
        out._producer = producer = Producer()
        return out, producer, registry

    return make


def value(registry, name, **labels):
    return registry.get_sample_value(f"poolwatch_collector_bus_{name}", labels)


def headers(sent):
    return wire.from_headers(sent[1]["headers"])


def test_a_feed_writes_life_run_and_turn_and_leaves_the_rest():
    out = Sender(Config(partitions=2), CollectorRegistry())
    out._producer = producer = Producer()
    feed = out.feed("file@1", "1")
    rows = flowrows.flows({}, {})
    given = msgspec.structs.replace(HEADER, rows=2, number=7, clocks=(wire.Clock("r1", 5, 6),))
    feed.publish("flows", 1, rows, given)
    topic, sent = producer.sent[0]
    assert (topic, sent["partition"], sent["key"]) == ("poolwatch.flows.v1", 1, None)
    assert wire.decode("flows", sent["value"]).equals(rows)
    assert headers(producer.sent[0]) == msgspec.structs.replace(given, life="1", run="file@1", turn=0)


def test_turns_run_by_partition_over_all_streams(made):
    out, producer, _ = made()
    feed = out.feed()
    for stream, partition in (("flows", 0), ("names", 0), ("flows", 1), ("payloads", 0), ("flows", 1)):
        feed.publish(stream, partition, wire.empty(stream), HEADER)
    assert [(s[1]["partition"], headers(s).turn) for s in producer.sent] == [
        (0, 0), (0, 1), (1, 0), (0, 2), (1, 1),
    ]  # fmt: skip
    assert {s[1]["value"] for s in producer.sent} == {b""}


def test_the_sending_thread_is_woken_only_for_what_it_would_look_at_too_late(monkeypatch):
    now, woken, looked, wait_ms = [100.0], [], [], clients.LINGER_MS / 2
    monkeypatch.setattr(clients, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(clients.kafka_sender.Sender, "wakeup", lambda _: woken.append(now[0]))

    def look(thread, at):
        looked.append(now[0])
        thread.wakeup()  # somebody adds a batch while it looks
        return wait_ms

    monkeypatch.setattr(clients.kafka_sender.Sender, "_send_producer_data", look)
    thread = object.__new__(clients._Waker)
    for _ in range(2):  # at once it would find nothing new
        assert thread._send_producer_data() == pytest.approx(wait_ms)
        thread.wakeup()
    assert (looked, woken) == ([100.0], [100.0])
    now[0] += 1
    wait_ms = 60_000
    assert thread._send_producer_data() == pytest.approx(60_000)
    thread.wakeup()
    assert (looked, woken) == ([100.0, 101.0], [100.0, 101.0, 101.0])
    thread._send_producer_data()
    assert len(looked) == 3


def test_each_feed_is_a_life_of_its_own(made):
    out, *_ = made()
    assert out.feed().life != out.feed().life


def test_the_end_is_told_to_every_partition_once_something_was_published(made):
    out, producer, _ = made()
    feed = out.feed("r", "l")
    feed.end()
    assert producer.sent == []
    feed.publish("flows", 1, NOTHING, HEADER)
    feed.end()
    told = [headers(s) for s in producer.sent[1:]]
    assert [(h.ends, h.run, h.turn, h.home, h.rows) for h in told] == [
        (True, "r", 0, "h", 0), (True, "r", 1, "h", 0),
    ]  # fmt: skip


def test_a_live_feed_gives_up_the_newest_message_and_its_turn_is_used_by_the_next(made):
    out, producer, registry = made(in_flight_messages=2)
    feed = out.feed()
    for number in range(4):
        feed.publish("flows", 0, NOTHING, msgspec.structs.replace(HEADER, number=number))
    assert value(registry, "refused_total", stream="flows") == 2 == out.refused
    producer.answer()
    feed.publish("flows", 0, NOTHING, msgspec.structs.replace(HEADER, number=4))
    assert [(headers(s).number, headers(s).turn) for s in producer.sent] == [(0, 0), (1, 1), (4, 2)]


def test_octets_are_bounded_too(made):
    out, _, registry = made()
    for _ in range(10):
        out.send("flows", 0, None, bytes(4 << 20), (), rows=1, blocking=False)
    assert value(registry, "in_flight_bytes") <= LEAST_IN_FLIGHT
    assert value(registry, "in_flight_messages") == 5
    assert out.refused == 5


def test_a_file_waits_for_room_and_the_wait_is_counted(made):
    out, producer, registry = made(in_flight_messages=1)
    feed = out.feed("f", blocking=True)
    feed.publish("flows", 0, NOTHING, HEADER)
    timer = threading.Timer(0.2, producer.answer)
    timer.start()
    feed.publish("flows", 0, NOTHING, HEADER)
    timer.join()
    assert len(producer.sent) == 2
    assert out.refused == 0
    assert value(registry, "waited_seconds_total") > 0.1


def test_a_stopped_file_gives_up_after_its_grace(made, monkeypatch):
    monkeypatch.setattr(sender, "GRACE_S", 0.2)
    out, _, _ = made(stopped=lambda: True, in_flight_messages=1)
    feed = out.feed("f", blocking=True)
    began = time.monotonic()
    for _ in range(3):
        feed.publish("flows", 0, NOTHING, HEADER)
    assert out.refused == 2
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (clients.errors.MessageSizeTooLargeError("x"), Failure.SIZE),
        (clients.errors.RecordListTooLargeError("x"), Failure.SIZE),
        (clients.errors.KafkaTimeoutError("x"), Failure.EXPIRED),
        (clients.errors.TopicAuthorizationFailedError("x"), Failure.DENIED),
        (clients.errors.IllegalStateError("x"), Failure.CLOSED),
        (clients.errors.UnknownError("x"), Failure.BROKER),
    ],
)
def test_what_fails_is_counted_by_reason_and_never_raises(made, error, reason):
    out, producer, registry = made()
    feed = out.feed()
    feed.publish("flows", 0, NOTHING, HEADER)
    producer.answer(error)
    assert value(registry, "failed_total", stream="flows", reason=reason) == 1 == out.lost
    producer.raises = error
    feed.publish("flows", 0, NOTHING, HEADER)
    assert value(registry, "failed_total", stream="flows", reason=reason) == 2
    assert value(registry, "in_flight_bytes") == value(registry, "in_flight_messages") == 0


def test_a_message_that_never_left_uses_no_turn(made):
    out, producer, _ = made()
    feed = out.feed()
    producer.raises = clients.errors.KafkaTimeoutError("no metadata")
    feed.publish("flows", 0, NOTHING, HEADER)
    producer.raises = None
    feed.publish("flows", 0, NOTHING, HEADER)
    assert [headers(s).turn for s in producer.sent] == [0]


def test_failures_are_logged_at_most_once_a_second(made, caplog):
    out, producer, _ = made()
    for _ in range(50):
        out.send("flows", 0, None, b"", (), rows=0, blocking=False)
    producer.answer(clients.errors.UnknownError("x"))
    assert len(caplog.records) == 1


def test_documents_are_json_and_none_is_a_tombstone(made):
    out, producer, _ = made()
    futures = [
        out.send_json("alerts", 0, b"k", {"a": 1}),
        out.send_json("state", 1, b"k", b"raw", [("h", b"v")]),
        out.send_json("incidents", 1, b"k", None),
    ]
    assert [(s[1]["value"], s[1]["key"]) for s in producer.sent] == [
        (b'{"a":1}', b"k"), (b"raw", b"k"), (None, b"k"),
    ]  # fmt: skip
    producer.answer(most=1)
    producer.answer(clients.errors.UnknownError("why"), most=1)
    told = out.wait(futures, 0.05)
    assert [place for place, _ in told] == [1, 2]
    assert told[0][1].startswith("broker: ")
    assert told[1][1] == "waiting"


def test_flush_tells_how_many_still_wait(made):
    out, producer, _ = made()
    out.send_json("alerts", 0, b"k", 1)
    assert out.flush(0.05) == 1
    producer.answer()
    assert out.flush(0.05) == 0


def test_closing_tells_what_was_not_delivered_and_counts_it(made):
    out, producer, registry = made()
    out.send("flows", 0, None, b"", (), rows=0, blocking=False)
    assert out.close(0.05) == 1
    assert producer.closed
    assert value(registry, "failed_total", stream="flows", reason="closed") == 1
    assert out.told() == "sent 0 messages, 0 rows, 0 bytes; refused 0, failed 1"


def test_what_was_sent_is_told(made):
    out, producer, registry = made()
    out.feed().publish("names", 0, wire.empty("names"), msgspec.structs.replace(HEADER, rows=3))
    producer.answer()
    assert out.close(0.05) == 0
    assert out.told().startswith("sent 1 messages, 3 rows, ")
    assert value(registry, "messages_total", stream="names") == 1
    assert value(registry, "rows_total", stream="names") == 3
    assert value(registry, "bytes_total", stream="names") == out.octets > 0
    assert value(registry, "send_seconds_count") == 1
