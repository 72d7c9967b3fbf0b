"""The Kafka of the tests: what other tests rely on when they ask for it."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import broker
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError, UnknownTopicOrPartitionError

HEADERS = [("kind", b"flows"), ("version", b"\x01")]


def create(address, topic, **configs):
    with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
        admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1, "configs": configs}})


def producer(address, **options):
    return closing(KafkaProducer(bootstrap_servers=address, allow_auto_create_topics=False, **options))


def send(address, topic, *values, **options):
    with producer(address, **options) as open_producer:
        sent = [open_producer.send(topic, value, headers=HEADERS) for value in values]
        return [future.get(20).offset for future in sent]


def read(address, topic, count, within_s=20.0):
    """Everything from the beginning, until ``count`` records came."""
    found, end = [], time.monotonic() + within_s
    with closing(KafkaConsumer(bootstrap_servers=address, allow_auto_create_topics=False)) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        while len(found) < count and time.monotonic() < end:
            for records in consumer.poll(timeout_ms=200).values():
                found += records
    return found


@pytest.mark.parametrize("codec", [None, "zstd", "lz4"])
def test_values_and_headers_come_back_however_they_are_packed(kafka, prefix, codec):
    topic = prefix + "flows"
    create(kafka.address, topic)
    values = [bytes([i]) * 10_000 for i in range(20)]
    assert send(kafka.address, topic, *values, compression_type=codec, linger_ms=20) == list(range(20))
    got = read(kafka.address, topic, 20)
    assert [r.value for r in got] == values
    assert all(r.headers == HEADERS for r in got)


def test_a_topic_may_take_larger_messages_than_the_broker(kafka, prefix):
    topic = prefix + "large"
    create(kafka.address, topic, **{"max.message.bytes": "4000000"})
    value = os.urandom(3_000_000)
    assert send(kafka.address, topic, value, max_request_size=4_000_000) == [0]
    assert [r.value for r in read(kafka.address, topic, 1)] == [value]


def test_no_topic_is_made_by_asking_for_it(kafka, prefix):
    with producer(kafka.address, max_block_ms=1500) as open_producer, pytest.raises(KafkaError) as refused:
        open_producer.send(prefix + "absent", b"x").get(5)
    assert isinstance(refused.value, (KafkaTimeoutError, UnknownTopicOrPartitionError))
    with closing(KafkaAdminClient(bootstrap_servers=kafka.address)) as admin:
        assert prefix + "absent" not in admin.list_topics()


def test_a_group_continues_where_it_committed_and_its_session_may_be_short(kafka, prefix):
    topic = prefix + "flows"
    create(kafka.address, topic)
    send(kafka.address, topic, b"one", b"two")
    seen = []
    for _ in range(2):
        with closing(
            KafkaConsumer(
                topic,
                bootstrap_servers=kafka.address,
                group_id=prefix + "group",
                session_timeout_ms=500,
                heartbeat_interval_ms=100,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                max_poll_records=1,
                allow_auto_create_topics=False,
                consumer_timeout_ms=20_000,
            )
        ) as consumer:
            seen.append(next(consumer).value)
            consumer.commit()
    assert seen == [b"one", b"two"]


def test_a_transaction_is_seen_whole_or_not_at_all(kafka, prefix):
    topic = prefix + "out"
    create(kafka.address, topic)
    with producer(kafka.address, transactional_id=prefix + "writer") as writer:
        writer.init_transactions()
        for value, ending in ((b"kept", writer.commit_transaction), (b"dropped", writer.abort_transaction)):
            writer.begin_transaction()
            writer.send(topic, value).get(10)
            ending()
    options = {"isolation_level": "read_committed", "consumer_timeout_ms": 1500}
    with closing(KafkaConsumer(bootstrap_servers=kafka.address, **options)) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        assert [r.value for r in consumer] == [b"kept"]


def test_what_was_written_survives_a_stop_and_a_power_cut(brokers):
    ours = brokers()
    create(ours.address, "t")
    send(ours.address, "t", b"one")
    for end, value in ((ours.stop, b"two"), (ours.kill, b"three")):
        end()
        assert not ours.running
        ours.start()
        send(ours.address, "t", value)
    assert [r.value for r in read(ours.address, "t", 3)] == [b"one", b"two", b"three"]


def test_a_paused_broker_answers_when_it_is_resumed(brokers):
    ours = brokers()
    create(ours.address, "t")
    with producer(ours.address) as open_producer:
        open_producer.send("t", b"one").get(10)
        ours.pause()
        waiting = open_producer.send("t", b"two")
        time.sleep(0.5)
        assert not waiting.is_done
        ours.resume()
        assert waiting.get(20).offset == 1


def test_brokers_live_side_by_side_and_take_properties(brokers):
    first, second = brokers(), brokers({"message.max.bytes": "2000"})
    assert first.address != second.address
    create(second.address, "t")
    assert send(second.address, "t", b"small") == [0]
    with pytest.raises(KafkaError):
        send(second.address, "t", os.urandom(3000))


def test_a_start_that_fails_shows_the_log(brokers):
    with pytest.raises(RuntimeError, match=r"(?s)did not start.*num\.io\.threads"):
        brokers({"num.io.threads": "none"})


def test_no_broker_outlives_the_process_that_started_it(kafka_distribution, tmp_path):
    main = Path(broker.__file__)
    own = os.environ | {"TMPDIR": str(tmp_path)}  # it has no chance to tidy up
    with subprocess.Popen([sys.executable, main], stdout=subprocess.PIPE, text=True, env=own) as started:
        address = started.stdout.readline().strip()
        create(address, "t")
        started.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while listens(address) and time.monotonic() < end:
        time.sleep(0.05)
    assert not listens(address)


def listens(address):
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
