"""Alerts, incidents and endpoints as records."""

import json
import zlib

import msgspec
from crashes import captured, engine
from flowrows import NOON, packed

from detector import endpointdoc
from detector.endpoints import HOUR_NS, Entry
from detector.exporters.kafka import Records


class Topics:
    def __init__(self):
        self.sent = []

    def send(self, stream, partition, key, value, headers):
        self.sent.append((stream, partition, key, value, headers))
        return len(self.sent)


def told():
    """What a capture leads to: transitions and a document."""
    judged, transitions = engine(), []
    for message in captured("pcaps/cpuminer-sha256d.pcap"):
        transitions += judged.step(message).transitions
    return transitions, judged.documents()


def test_alerts_and_incidents_go_to_their_subscribers_partition_under_their_ids():
    topics = Topics()
    records = Records(topics.send, 8)
    (alert, *_), (document,) = told()
    records.alert("", 5, alert)
    records.incident("", 5, document)
    first, second = topics.sent
    assert (first[:3], first[4]) == (("alerts", 5, alert.id.encode()), [])
    assert (second[:3], second[4]) == (("incidents", 5, document.id.encode()), [])
    assert json.loads(first[3]) == json.loads(msgspec.json.encode(alert))
    assert json.loads(second[3])["subscriber"] == document.subscriber


def test_a_replays_records_carry_its_name_and_take_the_place_of_nobodys():
    topics = Topics()
    records = Records(topics.send, 8)
    _, (document,) = told()
    for run in ("", "a/file", "b"):
        records.incident(run, 1, document)
    keys = [key for _, _, key, _, _ in topics.sent]
    assert len(set(keys)) == 3
    assert [headers for *_, headers in topics.sent] == [[], [("run", b"a/file")], [("run", b"b")]]
    assert {key.decode().rpartition("/")[2] for key in keys} == {document.id}


def test_an_endpoint_has_its_own_partition_and_key_whoever_tells_of_it():
    entry = Entry(
        address=packed("51.15.2.3"), port=3333, protocol=6, origin="resolved", name="pool.example",
        first_ns=NOON, last_ns=NOON, expires_ns=NOON + HOUR_NS, why="test",
    )  # fmt: skip
    topics = Topics()
    Records(topics.send, 8).endpoint("", entry)
    Records(topics.send, 8).endpoint("a file", entry)
    live, replayed = topics.sent
    name = endpointdoc.key(entry)
    assert live[:3] == ("endpoints", zlib.crc32(name) % 8, name)
    assert replayed[:3] == ("endpoints", live[1], b"a file/" + name)
    assert endpointdoc.decode(live[3]) == entry


def test_what_is_handed_over_is_pending_once():
    topics = Topics()
    records = Records(topics.send, 8)
    (alert, *_), (document,) = told()
    records.alert("", 0, alert)
    records.incident("", 0, document)
    assert records.pending() == [1, 2]
    assert records.pending() == []
