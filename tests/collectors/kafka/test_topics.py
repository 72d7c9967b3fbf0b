"""How topics are made, by stream."""

import pytest

from collectors import wire
from collectors.kafka import topics
from collectors.kafka.config import Config, Retention
from collectors.streams import STREAMS

MADE = topics.specification(Config())


def test_every_stream_has_its_topic_under_the_prefix():
    got = topics.specification(Config(topic_prefix="lab-", partitions=8, replication=1))
    assert {s: t.name for s, t in got.items()} == {s: f"lab-{STREAMS[s].topic}" for s in STREAMS}
    assert {(t.partitions, t.replication) for t in got.values()} == {(8, 1)}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_topic_takes_the_largest_message_and_a_segment_holds_it(stream):
    given = MADE[stream].settings
    assert int(given["max.message.bytes"]) > wire.MAX_MESSAGE_BYTES
    assert int(given["segment.bytes"]) > int(given["max.message.bytes"])
    assert given["compression.type"] == "producer"


@pytest.mark.parametrize("stream", STREAMS)
def test_what_is_compacted_is_so_by_the_table_of_streams(stream):
    given = MADE[stream].settings
    assert given["cleanup.policy"].startswith("compact") is STREAMS[stream].compacted


def test_streams_are_kept_as_long_as_is_stated():
    kept = {
        s: int(t.settings["retention.ms"]) / 3.6e6 for s, t in MADE.items() if "retention.ms" in t.settings
    }
    assert kept == {"flows": 6, "payloads": 1, "names": 6, "alerts": 720, "endpoints": 2160}
    mine = topics.specification(Config(retention_s=Retention(flows=60)))
    assert mine["flows"].settings["retention.ms"] == "60000"


def test_raw_octets_are_gone_soon_after_their_hour():
    assert int(MADE["payloads"].settings["segment.ms"]) <= 600_000


def test_two_records_of_one_state_stay_for_minutes():
    assert int(MADE["state"].settings["min.compaction.lag.ms"]) >= 300_000


def test_a_second_broker_has_it_where_there_are_three():
    assert MADE["flows"].settings["min.insync.replicas"] == "2"
    single = topics.specification(Config(replication=1))
    assert single["flows"].settings["min.insync.replicas"] == "1"
