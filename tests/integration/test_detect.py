"""The same answers over Kafka as on the embedded bus: one detector, three, and detectors that die."""

import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import broker
import fleet
import pytest
from crashes import said
from exported import pcap, v5
from flowrows import SECOND, flows, names
from prometheus_client import CollectorRegistry
from zygote import Zygote

from collectors import wire
from collectors.kafka import clients, topics
from detector import app
from detector.config import Config, Lists

PCAPS = Path(__file__).parent.parent.parent / "pcaps"
MINERS = ("xmrig-plain", "cpuminer-sha256d", "cpuminer-realpool-sha256d-vardiff", "bfgminer-sha256d")
OTHERS = ("xmrig-badlogin", "cpuminer-unauthorized", "cpuminer-scrypt-dense", "electrum", "chat")
CAPTURES = [PCAPS / f"{name}.pcap" for name in (*MINERS, *OTHERS)]
# Fifty take three minutes of two cores; a run of all tests has less.
KILLS = int(os.environ.get("POOLWATCH_TEST_KILLS", "16"))
T0 = 1_790_000_000
POOL, PORT = "203.0.113.15", 3354
TABLE = f"""operator,domain,match,ports,coins,tls_ports,kind,status,fp_risk,source,basis
LabPool,{POOL},exact,{PORT},LTC,,pool,active,low,lab,own
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A pool table, and a capture of what a router tells in five hours: who comes every half hour is
    confirmed, who came once is suspected."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "pools.csv").write_text(TABLE)
    sent = []
    for n in range(10):
        first = T0 + n * 1800
        records = [
            record
            for k in range(1, 6 if n == 9 else 4)
            for record in (
                (
                    f"198.51.100.{k}",
                    POOL,
                    40000 + k,
                    PORT,
                    60,
                    6000 + k,
                    first,
                    first + (1795 if k < 4 else 40),
                ),
                (
                    POOL,
                    f"198.51.100.{k}",
                    PORT,
                    40000 + k,
                    60,
                    6100 + k,
                    first,
                    first + (1795 if k < 4 else 40),
                ),
            )
        ]
        sent.append((v5(records, first + 1800, len(sent) * 10), first + 1800))
    (folder / "router.pcap").write_bytes(pcap(sent))
    return folder


def embedded(paths, kind, pools=()):
    """Documents by (file, id) and ids of alerts, judged in this process."""
    config = Config(lists=Lists(pools=tuple(map(str, pools))))
    detector = app.Detector(config, CollectorRegistry())
    alerts = set()

    class Sink:
        def alert(self, made):
            alerts.add(made.id)

        def incident(self, document):
            pass

    documents = {}
    for path in paths:
        replay = app.Replay(detector, str(path), Sink(), kind)
        replay.run(lambda: False, lambda _: None)
        documents |= {(path.name, f.incident.id): fleet.plain(f.incident) for f in replay.found()}
    return documents, alerts


@pytest.fixture(scope="module")
def expected(lab):
    documents, alerts = embedded(CAPTURES, "packets", [lab / "pools.csv"])
    flows, more = embedded([lab / "router.pcap"], "flows", [lab / "pools.csv"])
    assert {d["state"] for d in flows.values()} == {"confirmed", "suspected"}
    assert sum(d["state"] == "confirmed" for d in documents.values()) >= len(MINERS)
    return documents | flows, alerts | more


def told(site):
    latest = {r.key: r.value for r in site.records("incidents")}
    documents = {}
    for key, value in latest.items():
        run, _, number = key.decode().rpartition("/")
        documents[run, number] = json.loads(value)
    return documents, set(site.alerts())


def clash(got, wanted):
    if isinstance(got, list):
        got, wanted = [g for g in got if g not in wanted], [w for w in wanted if w not in got]
    return f"{got} instead of {wanted}"


def differences(found, wanted):
    """What differs, in words short enough to read."""
    (got, alerts), (want, known) = found, wanted
    out = [f"missing {key}" for key in want.keys() - got.keys()]
    out += [f"too many {key}: {got[key]['state']}" for key in got.keys() - want.keys()]
    out += [
        f"{key}.{field}: {clash(got[key][field], value)}"
        for key in got.keys() & want.keys()
        for field, value in want[key].items()
        if got[key][field] != value
    ]
    return out + [f"alerts {sorted(alerts - known)} too many, {sorted(known - alerts)} missing"] * (
        alerts != known
    )


@pytest.fixture
def site(kafka, prefix, lab, monkeypatch):
    monkeypatch.setenv("POOLWATCH_LISTS__POOLS", str(lab / "pools.csv"))
    made = fleet.Site(kafka.address, prefix).create()
    yield made
    made.close()


@pytest.fixture
def detectors(site):
    """Start detectors, and see that none is left."""
    running = []

    def start(port=0):
        running.append(site.start("detect", "--listen", f"127.0.0.1:{port}"))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_one_detector_gives_the_documents_of_the_embedded_bus(site, detectors, expected, lab):
    detector = detectors()
    site.publish(CAPTURES)
    site.publish([lab / "router.pcap"], "flows")
    site.wait_judged(90, [detector])
    assert not differences(told(site), expected)
    assert "stopped" in fleet.stop(detector)


def test_three_detectors_of_which_one_is_killed_and_another_joins(site, detectors, expected, lab):
    first = [detectors() for _ in range(3)]
    site.publish(CAPTURES[:3])
    site.publish([lab / "router.pcap"], "flows")
    site.wait_judged(90, first)
    site.publish(CAPTURES[3:6])
    first[1].kill()
    site.publish(CAPTURES[6:8])
    rest = [first[0], first[2], detectors()]
    site.publish(CAPTURES[8:])
    site.wait_judged(90, rest)
    assert not differences(told(site), expected)
    for process in rest:
        fleet.stop(process)


def test_a_clean_stop_leaves_nothing_to_do_again(site, detectors, expected):
    one = detectors()
    site.publish(CAPTURES[:2])
    site.wait_judged(60, [one])
    fleet.stop(one)
    before = len(site.records("alerts"))
    again = detectors()
    site.publish(CAPTURES[2:3])
    site.wait_judged(60, [again])
    names = {c.name for c in CAPTURES[:3]}
    assert told(site)[0] == {k: d for k, d in expected[0].items() if k[0] in names}
    assert len(site.records("alerts")) == len(set(site.alerts())) > before


ROUND = [*((capture, "packets") for capture in CAPTURES[:6]), (Path("router.pcap"), "flows")]


def play(site, sender, number, lab):
    """The same data once more, as replays of other names."""
    for path, kind in ROUND:
        where = lab / path if kind == "flows" else path
        site.publish_with(sender, where, kind, run=f"{number}/{path.name}")


def die(site, zygote):
    """Until the detector has killed itself; one that had nothing left to do before its time is killed."""
    ends = site.ends()
    while zygote.is_alive():
        committed = site.committed()
        if all(committed[place] >= end for place, end in ends.items()):
            with suppress(ProcessLookupError):
                os.kill(zygote.pid, signal.SIGKILL)
        time.sleep(0.1)
    return zygote.wait()


def kill_over_and_over(site, log, lab, seed):
    """One round undisturbed, then rounds in each of which the detector dies once, at any of its events."""
    rng = random.Random(seed)
    zygote = Zygote(log)
    try:
        with site.sender() as sender:
            play(site, sender, 0, lab)
            zygote.begin(site.environment())
            site.wait_judged(120)
            assert zygote.stop() == 0
            events = int(zygote.said().rpartition("events ")[2])
            for number in range(1, KILLS // 4 + 2):
                play(site, sender, number, lab)
                # It may have fewer events than the first: tidying up may fall into another round.
                zygote.begin(site.environment(), die_at=rng.randint(1, events * 9 // 10))
                assert die(site, zygote) == signal.SIGKILL, zygote.said()
                zygote.begin(site.environment())
                site.wait_judged(120)
                assert zygote.stop() == 0, zygote.said()
    finally:
        zygote.close()


def test_killed_anywhere_and_started_again_it_is_always_the_same(kafka, lab, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWATCH_LISTS__POOLS", str(lab / "pools.csv"))
    sites = [fleet.Site(kafka.address, broker.prefix()).create() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(kill_over_and_over, site, tmp_path / f"{n}.log", lab, 20261122 + n)
            for n, site in enumerate(sites)
        ]:
            done.result(timeout=600)
    names = {path.name for path, _ in ROUND}
    wanted = {key: d for key, d in expected[0].items() if key[0] in names}
    for site in sites:
        by_round = {}
        for (run, number), document in told(site)[0].items():
            at, _, name = run.partition("/")
            by_round.setdefault(at, {})[name, number] = document
        assert len(by_round) == KILLS // 4 + 2
        alerts = {}
        for r in site.records("alerts"):
            run, _, one = r.key.decode().rpartition("/")
            alerts.setdefault(run.partition("/")[0], set()).add(one)
        for at, documents in by_round.items():
            assert not differences((documents, alerts[at]), (wanted, alerts["0"])), f"round {at}"
        site.close()


ANSWER = "51.15.2.9"
LATER = ("198.51.100.80", "198.51.101.9")


def visit(at_ns, subscriber):
    """Data with the address of the answer, by somebody else than who asked."""
    end_ns = at_ns + 60 * SECOND
    return flows(
        {"subscriber": subscriber, "src": subscriber, "dst": ANSWER, "t_first": at_ns, "t_last": end_ns}
    )


def test_what_one_detector_finds_out_of_an_endpoint_all_use(site, detectors, lab, monkeypatch):
    (lab / "names.csv").write_text(
        TABLE.splitlines()[0] + "\nNamePool,pool.supportxmr.com,exact,3333,XMR,,pool,active,low,lab,own\n"
    )
    monkeypatch.setenv("POOLWATCH_LISTS__POOLS", str(lab / "names.csv"))
    monkeypatch.setenv("POOLWATCH_DETECTOR__NAMES__RESOLVERS", "192.0.2.53")
    now = time.time_ns()
    two = [detectors(), detectors()]
    with site.sender() as sender:
        feed = sender.feed()
        answer = names({"t": now, "address": ANSWER})
        feed.publish("names", 0, answer, said("names", answer, now).header)
        assert sender.flush(10) == 0
        site.wait_judged(60, two)
        assert b"resolved/51.15.2.9/3333/6" in {r.key for r in site.records("endpoints")}
        for partition, subscriber in zip((7, 2), LATER, strict=True):
            if partition == 2:  # and whoever comes later reads them all
                for process in two:
                    fleet.stop(process)
                two = [detectors()]
            time.sleep(0.5)  # until it is followed
            rows = visit(now, subscriber)
            feed.publish("flows", partition, rows, said("flows", rows, now + 61 * SECOND).header)
            assert sender.flush(10) == 0
            site.wait_judged(60, two)
            assert subscriber in {d["subscriber"] for d in site.incidents()}
    assert all(d["evidence"][0]["kind"] == "resolved_endpoint" for d in site.incidents())


def poison(stream, whole):
    """Records that no collector of ours sends: (value, headers)."""
    value, headers = whole
    other = [(k, b"9" if k == "version" else v) for k, v in headers]
    return [
        (b"", []),
        (b"", headers),
        (None, headers),
        (b"ARROW1" + bytes(500), headers),
        (value[: len(value) // 2], headers),
        (value, other),
        (value, [("rows", b"\xff")]),
        (b"[1, 2, 3]", headers),
        (os.urandom(300), headers),
        (value, [(k, b"77" if k == "rows" else v) for k, v in headers]),
        (value.replace(stream.encode(), stream.encode()[::-1]), headers),
    ]


def test_poison_is_counted_and_skipped_and_the_rest_goes_on(site, detectors, expected):
    with clients.admin(site.config) as admin:
        for stream in ("flows", "payloads", "names", "endpoints", "state"):
            fleet.allow_large(admin, topics.topic(site.config, stream))
    sample = {}
    site.publish(CAPTURES[:1], spy=lambda *m: m[2].num_rows and sample.setdefault(m[0], m))
    producer = clients.producer(site.config.__class__(**{**fleet.fields(site.config), "compression": "none"}))
    producer.config["max_request_size"] = 20 << 20
    sent = 0
    for stream, (_, _, rows, header) in sample.items():
        for partition in range(site.config.partitions):
            for value, headers in poison(stream, (wire.encode(rows), wire.to_headers(header))):
                producer.send(
                    topics.topic(site.config, stream),
                    key=b"k",
                    value=value,
                    headers=headers,
                    partition=partition,
                )
                sent += 1
    _, _, rows, header = sample["flows"]
    producer.send(
        topics.topic(site.config, "flows"), key=b"k", value=bytes(10 << 20), partition=0,
        headers=wire.to_headers(header),
    )  # fmt: skip
    producer.flush(30)
    sent += 1
    for value in (b"{}", b"[]", b"\xff", b'{"address": "10.0.0.300"}', b"1" * (10 << 20)):
        producer.send(topics.topic(site.config, "endpoints"), key=b"x", value=value, partition=0)
        producer.send(topics.topic(site.config, "state"), key=b"x", value=value, partition=0)
    producer.flush(30)
    producer.close()
    site.publish(CAPTURES[1:3])
    listen = fleet.free_port()
    detector = detectors(listen)
    site.wait_judged(60, [detector])
    names = {c.name for c in CAPTURES[:3]}
    assert told(site)[0] == {k: d for k, d in expected[0].items() if k[0] in names}
    figures = fleet.metrics(listen, "poolwatch_detector_bus_messages_refused_total")
    assert sum(v for k, v in figures.items() if "endpoints" not in k) == sent
    assert sum(v for k, v in figures.items() if "endpoints" in k) == 5
    fleet.stop(detector)


def test_a_topic_with_another_number_of_partitions_is_refused_by_name(site, kafka):
    other = fleet.Site(kafka.address, site.config.topic_prefix, partitions=4)
    process = other.start("detect", "--listen", "127.0.0.1:0")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert topics.topic(site.config, "flows") in said
    assert "8 partitions" in said


def test_a_broker_that_goes_away_and_comes_back(brokers, prefix, lab, expected, monkeypatch):
    monkeypatch.setenv("POOLWATCH_LISTS__POOLS", str(lab / "pools.csv"))
    running = brokers()
    site = fleet.Site(running.address, prefix).create()
    detector = site.start("detect", "--listen", "127.0.0.1:0")
    try:
        site.publish(CAPTURES[:2])
        site.wait_judged(60, [detector])
        running.stop()
        time.sleep(8)
        assert detector.poll() is None, detector.stderr.read()[-4000:]
        running.start()
        site.publish(CAPTURES[2:4])
        site.wait_judged(90, [detector])
        names = {c.name for c in CAPTURES[:4]}
        assert told(site)[0] == {k: d for k, d in expected[0].items() if k[0] in names}
        fleet.stop(detector)
    finally:
        detector.kill()
        detector.communicate()
        site.close()
