"""A miner's flows on the topic of goflow2 and of pmacct, imported, judged, and counted to the byte."""

import json
import re
import signal
import time
import uuid
from datetime import UTC, datetime

import fleet
import pytest
from flowmessages import delimited, message

from collectors.errors import InputError
from collectors.kafka import clients

POOL, PORT = "203.0.113.15", 3354
MINERS = ("198.51.100.7", "198.51.100.8")
TABLE = f"""operator,domain,match,ports,coins,tls_ports,kind,status,fp_risk,source,basis
LabPool,{POOL},exact,{PORT},LTC,,pool,active,low,lab,own
"""
SECOND = 10**9
POISON = (b"", b"{", b"text that is no record at all", bytes(1_500_000))


@pytest.fixture
def site(kafka, prefix):
    made = fleet.Site(kafka.address, prefix, partitions=4).create()
    yield made
    made.close()


def records(now_ns):
    """An hour of one connection of each miner, both directions, a record of each a minute."""
    begin = now_ns // (60 * SECOND) * 60 * SECOND - 3600 * SECOND
    return [
        (src, sport, dst, dport, 600 + minute + at, first, first + 50 * SECOND)
        for at, miner in enumerate(MINERS)
        for minute in range(60)
        for first in (begin + minute * 60 * SECOND,)
        for src, sport, dst, dport in ((miner, 40_000, POOL, PORT), (POOL, PORT, miner, 40_000))
    ]


def as_goflow2(record):
    src, sport, dst, dport, octets, first, last = record
    return delimited(
        message(
            type=3, src_addr=src, dst_addr=dst, src_port=sport, dst_port=dport, proto=6, bytes=octets,
            packets=6, tcp_flags=0x18, sampler_address="192.0.2.1", time_received_ns=last + 2 * SECOND,
            time_flow_start_ns=first, time_flow_end_ns=last,
        )
    )  # fmt: skip


def as_pmacct(record):
    src, sport, dst, dport, octets, first, last = record
    made = {
        "event_type": "purge", "ip_src": src, "ip_dst": dst, "port_src": sport, "port_dst": dport,
        "ip_proto": "tcp", "bytes": octets, "packets": 6, "tcp_flags": "24", "peer_ip_src": "192.0.2.1",
        "timestamp_start": f"{datetime.fromtimestamp(first // SECOND, UTC):%Y-%m-%d %H:%M:%S}.000000",
        "timestamp_end": f"{datetime.fromtimestamp(last // SECOND, UTC):%Y-%m-%d %H:%M:%S}.000000",
    }  # fmt: skip
    return json.dumps(made).encode()


def other_topic(site):
    """A topic of another collector, of three partitions."""
    topic = f"other-{uuid.uuid4().hex[:8]}"
    with clients.admin(site.config) as admin:
        admin.create_topics({topic: {"num_partitions": 3, "replication_factor": 1}})
        admin.wait_for_topics([topic], timeout_ms=30_000)
    return topic


def write(site, topic, values):
    """As the other collector does: no keys."""
    producer = clients.producer(site.config)
    sent = [producer.send(topic, value=value, partition=n % 3) for n, value in enumerate(values)]
    producer.flush()
    for one in sent:
        one.get(timeout=30)
    producer.close()


def wait(true, told, timeout_s=180):
    """Kernels are compiled in it, where they were not yet."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, told()
        time.sleep(0.2)


def importing(topic):
    """The settings of an importer from the topic's beginning on, which is not put out of its group because
    the machine has much to do."""
    return {"POOLWATCH_COLLECTORS__IMPORTS__START": "earliest",
            "POOLWATCH_COLLECTORS__IMPORTS__GROUP": f"{topic}-importers",
            "POOLWATCH_KAFKA__SESSION_TIMEOUT_MS": "10000"}  # fmt: skip


@pytest.mark.parametrize(("form", "encode"), [("goflow2", as_goflow2), ("pmacct", as_pmacct)])
def test_a_miner_on_another_collectors_topic_is_suspected_with_its_bytes(site, tmp_path, form, encode):
    (tmp_path / "pools.csv").write_text(TABLE)
    sent = records(time.time_ns())
    values = [encode(record) for record in sent]
    topic = other_topic(site)
    write(site, topic, [*values[:7], *POISON, *values[7:]])
    ports = fleet.free_port(), fleet.free_port()
    more = importing(topic) | {"POOLWATCH_LISTS__POOLS": json.dumps([str(tmp_path / "pools.csv")])}
    collector = site.start(
        "collect", "flows", "--topic", topic, "--as", form, "--listen", f"127.0.0.1:{ports[0]}", **more
    )
    detector = site.start("detect", "--listen", f"127.0.0.1:{ports[1]}", **more)
    try:
        want = {
            miner: {
                "up": sum(r[4] for r in sent if r[0] == miner),
                "down": sum(r[4] for r in sent if r[2] == miner),
            }
            for miner in MINERS
        }
        found = lambda: {d["subscriber"]: d["bytes"] for d in site.incidents()}  # noqa: E731
        wait(lambda: found() == want, found)
        assert {d["state"] for d in site.incidents()} <= {"suspected", "confirmed"}
        refused = fleet.metrics(ports[0], "poolwatch_collector_import_refused_total")
        assert sum(refused.values()) == len(POISON)
        (read,) = fleet.metrics(ports[0], "poolwatch_collector_import_records_total").values()
        assert read == len(sent)
        said = fleet.stop(collector)
        assert f"{len(sent)} rows" in said
        # Whoever is next begins where the group was told, and reads nothing twice.
        again = site.start("collect", "flows", "--topic", topic, "--as", form, "--seconds", "3", **more)
        _, said = again.communicate(timeout=60)
        assert again.returncode == 0, said
        assert ", 0 rows" in said
    finally:
        for process in (collector, detector):
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()


def members(site, topic):
    """How many importers have partitions of their own."""
    try:
        with clients.admin(site.config) as admin:
            (group,) = admin.describe_groups([f"{topic}-importers"]).values()
    except InputError:  # of the first group of a broker there is no coordinator yet
        return 0
    return (
        len([m for m in group["members"] if m["member_assignment"]])
        if group["group_state"] == "Stable"
        else 0
    )


def test_importers_that_come_and_go_read_each_record_once(site):
    values = [as_pmacct(record) for record in records(time.time_ns())]
    topic = other_topic(site)
    started = []

    def start():
        port = fleet.free_port()
        started.append(
            site.start(
                "collect", "flows", "--topic", topic, "--as", "pmacct", "--listen", f"127.0.0.1:{port}",
                **importing(topic),
            )
        )  # fmt: skip
        wait(lambda: members(site, topic) == len(started), started[-1].poll)
        return port

    def read(port):
        (found,) = fleet.metrics(port, "poolwatch_collector_import_records_total").values()
        return found

    try:
        first = start()
        write(site, topic, values[:60])
        wait(lambda: read(first) == 60, lambda: read(first))
        second = start()
        write(site, topic, values[60:180])
        wait(lambda: read(first) + read(second) == 180, lambda: (read(first), read(second)))
        assert 60 < read(first) < 180
        said = fleet.stop(started.pop())
        wait(lambda: members(site, topic) == 1, lambda: members(site, topic))
        write(site, topic, values[180:])
        own = 240 - int(re.search(r"messages, (\d+) rows", said)[1])
        wait(lambda: read(first) >= own, lambda: (read(first), own))
        assert f"{own} rows" in fleet.stop(started.pop())
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_a_new_group_that_begins_with_what_comes_misses_nothing_that_comes_between_two_starts(site):
    values = [as_pmacct(record) for record in records(time.time_ns())[:12]]
    topic = other_topic(site)
    write(site, topic, values[:6])
    settings = importing(topic) | {"POOLWATCH_COLLECTORS__IMPORTS__START": "latest"}
    port = fleet.free_port()
    arguments = ("collect", "flows", "--topic", topic, "--as", "pmacct")
    first = site.start(*arguments, "--listen", f"127.0.0.1:{port}", **settings)
    wait(lambda: members(site, topic) == 1, first.poll)
    assert ", 0 rows" in fleet.stop(first)
    write(site, topic, values[6:])
    second = site.start(*arguments, "--seconds", "3", **settings)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert ", 6 rows" in said


def test_a_topic_that_is_not_there_is_the_operators_mistake(site):
    process = site.start("collect", "flows", "--topic", "no-such-topic")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "there is no topic no-such-topic" in said
