"""Every flow record on another collector's topic, as goflow2 writes it, and back from there."""

import socket
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from ipaddress import ip_address

import fleet
import pytest
from exported import pcap, v5
from flowmessages import values_of

from collectors import wire
from collectors.kafka import clients

T0 = 1_790_000_000
PATIENCE_S = 180
KAFKA = {"POOLWATCH_KAFKA__SESSION_TIMEOUT_MS": "10000"}


@pytest.fixture
def site(kafka, prefix):
    made = fleet.Site(kafka.address, prefix, partitions=4).create()
    yield made
    made.close()


def topic_of(site, **configs):
    """A topic of three partitions that somebody else has made."""
    topic = f"flow-messages-{uuid.uuid4().hex[:8]}"
    with clients.admin(site.config) as admin:
        admin.create_topics({topic: {"num_partitions": 3, "replication_factor": 1, "configs": configs}})
        admin.wait_for_topics([topic], timeout_ms=30_000)
    return topic


def sending(topic, **more):
    """The settings of who sends there."""
    told = {"TOPIC": topic} | {name.upper(): str(value) for name, value in more.items()}
    return {f"POOLWATCH_COLLECTORS__NETFLOW__GOFLOW2__{name}": value for name, value in told.items()}


def records(n):
    """Flows of two subscribers, and of nobody who is home."""
    sources = ("198.51.100.7", "203.0.113.9", "198.51.100.200")
    return [
        (sources[i % 3], "203.0.113.3", 40_000 + i, 3333, 10 + i, 1200 + i, T0 + i, T0 + i + 50)
        for i in range(n)
    ]


def capture(path, flows, together=30):
    cut = [flows[i : i + together] for i in range(0, len(flows), together)]
    path.write_bytes(pcap([(v5(some, T0 + 1000, together * n), T0 + 1000) for n, some in enumerate(cut)]))
    return str(path)


def read(site, topic):
    """Every record of the topic: (partition, key, value)."""
    return [(r.partition, r.key, r.value) for r in fleet.consumed(site.config, topic)]


def wait(true, process):
    """Kernels are compiled in it, where they were not yet."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def sums(port, name, *labels):
    """Samples of a metric that have these labels, added up; 0 where nothing is served yet."""
    try:
        found = fleet.metrics(port, name)
    except urllib.error.URLError:
        return 0
    return sum(value for told, value in found.items() if all(label in told for label in labels))


def is_ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except urllib.error.URLError:
        return False


def messages(value):
    found, bad = values_of(value)
    assert not bad
    return found


def rows(site):
    """How often each row is in the stream, by what a goflow2 message keeps of it."""
    names = ("src_port", "dst_port", "bytes", "packets", "t_first", "t_last", "t_received", "tcp_flags")
    found = Counter()
    for record in site.records("flows"):
        if record.value:
            batch = wire.decode("flows", record.value)
            ends = [wire.values(batch, name) for name in ("src", "dst", "subscriber", "exporter")]
            cells = [wire.values(batch, name).tolist() for name in names]
            found.update(zip(*([a.tobytes() for a in end] for end in ends), *cells, strict=True))
    return found


@pytest.mark.parametrize(("codec", "a_value"), [("zstd", 1), ("none", 7)])
def test_what_is_sent_there_and_imported_again_is_the_stream_itself(site, kafka, tmp_path, codec, a_value):
    flows, topic = records(1000), topic_of(site)
    more = sending(topic, messages_a_value=a_value) | {"POOLWATCH_KAFKA__COMPRESSION": codec}
    collector = site.start("collect", "flows", capture(tmp_path / "a.pcap", flows), **more)
    _, said = collector.communicate(timeout=PATIENCE_S)
    assert collector.returncode == 0, said
    values = -(-len(flows) // a_value)
    assert f"goflow2: sent {values} messages, {len(flows)} rows" in said

    got = read(site, topic)
    assert len(got) == values
    assert {key for _, key, _ in got} == {ip_address("192.0.2.1").packed}
    found = [m for _, _, value in got for m in messages(value)]
    told = Counter((m[6][12:], m[21], m[9], m[10]) for m in found)
    assert told == Counter((ip_address(f[0]).packed, f[2], f[5], f[4]) for f in flows)

    other = fleet.Site(kafka.address, f"{site.config.topic_prefix}again-", partitions=4).create()
    group = {"POOLWATCH_COLLECTORS__IMPORTS__START": "earliest",
             "POOLWATCH_COLLECTORS__IMPORTS__GROUP": f"{topic}-importers"}  # fmt: skip
    port = fleet.free_port()
    importer = other.start(
        "collect", "flows", "--topic", topic, "--as", "goflow2", "--listen", f"127.0.0.1:{port}",
        **group, **KAFKA,
    )  # fmt: skip
    try:
        wait(lambda: sums(port, "poolwatch_collector_import_records_total") == 1000, importer)
        fleet.stop(importer)
    finally:
        importer.kill()
        importer.communicate()
    assert sum(rows(site).values()) == 667
    assert rows(other) == rows(site)
    other.close()


def test_every_worker_sends_there(site):
    topic, port, http = topic_of(site), fleet.free_port(), fleet.free_port()
    routers = [f"127.0.0.{n}" for n in range(1, 9)]
    more = sending(topic) | {"POOLWATCH_COLLECTORS__NETFLOW__WORKERS": "2"}
    collector = site.start(
        "collect", "flows", "--udp", "127.0.0.1", "--ports", str(port), "--listen", f"127.0.0.1:{http}",
        **more,
    )  # fmt: skip

    def sent():
        return sums(http, "poolwatch_collector_bus_messages_total", 'stream="goflow2"')

    try:
        wait(lambda: is_ready(http), collector)
        for router in routers:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.bind((router, 0))
                one.sendto(v5(records(9), T0 + 1000, 0), ("127.0.0.1", port))
        wait(lambda: sent() == 9 * len(routers), collector)
        fleet.stop(collector)
    finally:
        collector.kill()
        collector.communicate()
    keys = Counter(key for _, key, _ in read(site, topic))
    assert keys == {ip_address(router).packed: 9 for router in routers}


def test_a_topic_that_is_not_there_or_too_small_and_a_bus_without_topics_are_told(site, tmp_path):
    file, small = capture(tmp_path / "a.pcap", records(3)), topic_of(site, **{"max.message.bytes": "10000"})
    for settings, told in (
        (sending("nobodys-topic"), "there is no topic nobodys-topic: make it first"),
        (sending(small, messages_a_value=40), "messages_a_value is 40: the topic takes 5904 bytes at once"),
        (sending(small) | {"POOLWATCH_BUS": "embedded"}, 'it is sent to over Kafka: set bus = "kafka"'),
    ):
        collector = site.start("collect", "flows", file, **settings)
        _, said = collector.communicate(timeout=PATIENCE_S)
        assert collector.returncode == 2, said
        assert told in said
