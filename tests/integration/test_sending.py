"""The sender before a real broker: what arrives, in which order, and what happens while it is away."""

import threading
import time
from threading import Timer

import fleet
import flowrows
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from collectors import wire
from collectors.errors import ConfigError, InputError
from collectors.kafka import clients, topics
from collectors.kafka.config import LEAST_IN_FLIGHT, Config
from collectors.kafka.sender import Sender

HEADER = wire.Header(
    version=1, collector="tap1", number=0, rows=0, t_first_ns=1, t_last_ns=2, received_ns=3, home="h"
)
INPUTS = ("flows", "payloads", "names")


def config(address, prefix, **more):
    made = Config(bootstrap_servers=(address,), topic_prefix=prefix, partitions=2, replication=1, **more)
    with clients.admin(made) as admin:
        topics.create(admin, made)
    return made


def records(made, *streams):
    """All that is on the topics of streams, as (stream, partition, header, value, key)."""
    names = {topics.topic(made, s): s for s in streams}
    return [(names[r.topic], r.partition, r.headers, r.value, r.key) for r in fleet.consumed(made, *names)]


def read(made):
    return [(s, p, wire.from_headers(h), v) for s, p, h, v, _ in records(made, *INPUTS)]


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_what_is_published_arrives_and_turns_are_the_order_of_publishing(kafka, prefix, compression):
    made = config(kafka.address, prefix, compression=compression)
    rows = {"flows": flowrows.flows(*[{"src_port": n} for n in range(2000)]), "names": wire.empty("names")}
    published = []
    with Sender(made, CollectorRegistry()) as sender:
        assert sender.partitions == 2
        feed = sender.feed("a file", "life")
        for number in range(60):
            stream, partition = ("flows", "names", "flows")[number % 3], (number // 2) % 2
            header = msgspec.structs.replace(HEADER, number=number, rows=rows[stream].num_rows)
            feed.publish(stream, partition, rows[stream], header)
            published.append((stream, partition, number))
        feed.end()
    assert sender.lost == 0
    assert sender.delivered == 62
    got = read(made)
    for partition in range(2):
        mine = sorted((r for r in got if r[1] == partition), key=lambda r: r[2].turn)
        assert [r[2].turn for r in mine] == list(range(len(mine)))
        told = [(s, p, h.number) for s, p, h, _ in mine]
        assert told[:-1] == [one for one in published if one[1] == partition]
        assert [r[2].ends for r in mine] == [False] * (len(mine) - 1) + [True]
    assert {(h.life, h.run) for _, _, h, _ in got} == {("life", "a file")}
    for stream, _, header, value in got:
        assert (value == b"") is (header.rows == 0)
        if value:
            assert wire.decode(stream, value).equals(rows[stream])


def test_documents_and_tombstones_arrive_under_their_keys(kafka, prefix):
    made = config(kafka.address, prefix)
    streams = ("alerts", "state")
    with Sender(made, CollectorRegistry(), streams=streams, role="detector") as sender:
        sent = [
            sender.send_json("alerts", 1, b"k", {"a": 1}, [("h", b"v")]),
            sender.send_json("state", 0, b"s", None),
        ]
        assert sender.wait(sent, 10) == []
        assert [f.value.offset for f in sent] == [0, 0]
    got = {(s, p, k): (v, h) for s, p, h, v, k in records(made, *streams)}
    assert got["alerts", 1, b"k"] == (b'{"a":1}', [("h", b"v")])
    assert got["state", 0, b"s"][0] is None


def test_topics_are_never_created_by_sending(kafka, prefix):
    made = Config(bootstrap_servers=(kafka.address,), topic_prefix=prefix, partitions=2, replication=1)
    with pytest.raises(ConfigError, match="run poolwatch topics create"), Sender(made, CollectorRegistry()):
        pass
    sender = Sender(made, CollectorRegistry())
    sender._producer = clients.producer(made)
    failed = sender.send_json("alerts", 0, b"k", 1)
    assert sender.wait([failed], 10)[0][1].startswith("expired")
    sender.close()
    with clients.admin(made) as admin:
        assert topics.present(admin, [topics.topic(made, "alerts")]) == {}


def test_a_message_that_the_topic_refuses_is_counted_and_the_next_ones_arrive(kafka, prefix):
    made = config(kafka.address, prefix, compression="none")
    small = topics.topic(made, "alerts")
    with clients.admin(made) as admin:
        kind = clients.ConfigResourceType.TOPIC
        admin.alter_configs([clients.ConfigResource(kind, small, {"max.message.bytes": "10000"})])
    registry = CollectorRegistry()
    with Sender(made, registry, streams=("alerts", "flows"), role="detector") as sender:
        first = sender.send_json("alerts", 0, b"k", b"1")
        assert sender.wait([first], 10) == []
        failed = sender.send_json("alerts", 0, b"k", bytes(50_000))
        assert sender.wait([failed], 10)[0][1].startswith("size")
        over = sender.send_json("alerts", 0, b"k", bytes(clients.MAX_RECORD_BYTES + 1))
        assert sender.wait([over], 10)[0][1].startswith("size")
        later = [sender.send_json("alerts", n % 2, b"k", b"2") for n in range(20)]
        later += [sender.send_json("flows", 0, b"k", bytes(wire.MAX_MESSAGE_BYTES))]
        assert sender.wait(later, 20) == []
        sender.alive()
    labels = {"stream": "alerts", "reason": "size"}
    assert registry.get_sample_value("poolwatch_detector_bus_failed_total", labels) == 2
    assert len([r for r in records(made, "alerts") if r[3] == b"2"]) == 20


def test_a_broker_that_takes_its_time_is_waited_for_and_one_that_takes_longer_is_not(brokers, prefix):
    running = brokers({"broker.session.timeout.ms": "30000"})
    made = config(running.address, prefix, connect_timeout_s=6)

    def paused(config, name):
        """It stops when it has been found, before it says where topics are."""
        producer = clients.producer(config, name)
        running.pause()
        return producer

    Timer(4, running.resume).start()
    with Sender(made, CollectorRegistry(), producer=paused) as sender:
        sent = sender.send_json("flows", 0, b"k", b"v")
        assert sender.wait([sent], 10) == []
    before = threads()
    with (
        pytest.raises(InputError, match="not reached within 6 s"),
        Sender(made, CollectorRegistry(), producer=paused),
    ):
        pass
    running.resume()
    assert threads() == before


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("kafka")]


@pytest.mark.parametrize("away", ["pause", "kill"])
def test_while_the_broker_is_away_memory_is_bounded_and_then_all_that_was_accepted_arrives(
    brokers, prefix, away
):
    running = brokers()
    made = config(running.address, prefix, in_flight_bytes=LEAST_IN_FLIGHT)
    registry = CollectorRegistry()
    rows = flowrows.flows(*[{"src_port": n} for n in range(4000)])
    with Sender(made, registry) as sender:
        feed = sender.feed()
        feed.publish("flows", 0, rows, msgspec.structs.replace(HEADER, rows=4000))
        assert sender.flush(10) == 0
        running.pause() if away == "pause" else running.kill()
        began, number = time.monotonic(), 1
        longest = 0.0
        while sender.refused < 10 and time.monotonic() - began < 60:
            header = msgspec.structs.replace(HEADER, rows=4000, number=number)
            before = time.monotonic()
            feed.publish("flows", number % 2, rows, header)
            longest = max(longest, time.monotonic() - before)
            number += 1
        held = registry.get_sample_value("poolwatch_collector_bus_in_flight_bytes")
        assert LEAST_IN_FLIGHT - 2_000_000 < held <= LEAST_IN_FLIGHT
        assert sender.refused == 10
        assert longest < 1, "a live link never waits"
        running.resume() if away == "pause" else running.start()
        back = time.monotonic()
        assert sender.flush(40) == 0
        assert time.monotonic() - back < 15
    assert sender.failed == 0
    got = read(made)
    assert len(got) == sender.delivered == number - sender.refused
    for partition in range(2):
        turns = sorted(h.turn for _, p, h, _ in got if p == partition)
        assert turns == list(range(len(turns))), "nothing lost, nothing twice"


def test_a_file_waits_while_the_broker_is_away_and_loses_nothing(brokers, prefix):
    running = brokers()
    made = config(running.address, prefix, in_flight_messages=20)
    registry = CollectorRegistry()
    with Sender(made, registry) as sender:
        feed = sender.feed("file", blocking=True)
        for number in range(200):
            if number == 50:
                running.kill()
                # It is back after the sender has begun to wait.
                running.start()
            feed.publish("flows", 0, wire.empty("flows"), msgspec.structs.replace(HEADER, number=number))
    assert sender.lost == 0
    assert [h.number for _, _, h, _ in read(made)] == list(range(200))


def test_a_sender_that_is_closed_while_the_broker_is_away_says_what_it_held(brokers, prefix):
    running = brokers()
    made = config(running.address, prefix)
    with Sender(made, CollectorRegistry()) as sender:
        running.kill()
        for _ in range(5):
            sender.send_json("flows", 0, b"k", b"v")
        began = time.monotonic()
        assert sender.close(1) == 5
        assert time.monotonic() - began < 6
    assert sender.failed == 5
