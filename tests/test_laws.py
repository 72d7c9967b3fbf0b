"""Laws of the whole path: batches cut anywhere, subscribers interleaved anyhow, partitions counted anyhow."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import crashes
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collectors import wire
from collectors.bus import Message
from collectors.packet import pcapfile
from collectors.packet.collector import Collector, Config, Metrics
from collectors.subscribers import home
from detector.engine import Config as EngineConfig
from detector.engine import Engine
from detector.incidents import OPEN

PCAPS = Path(__file__).parent.parent / "pcaps"
NAMES = (
    "xmrig-plain", "xmrig-badlogin", "cpuminer-sha256d", "cpuminer-realpool-sha256d-vardiff",
    "bfgminer-sha256d", "cpuminer-unauthorized", "electrum", "chat", "rpcapp3333", "xmrig-argon2",
)  # fmt: skip


def collected(name, partitions=1, piece=1 << 20):
    """The messages that one capture becomes."""
    out = []
    collector = Collector(
        Config(id=name), home(), partitions, lambda *m: out.append(Message(*m)), Metrics(CollectorRegistry())
    )
    with (PCAPS / f"{name}.pcap").open("rb") as file:
        for block in pcapfile.blocks(file, piece):
            collector.feed(block)
    collector.finish()
    return out


@cache
def messages(name):
    return collected(name)


def judged(feed):
    engine = Engine(EngineConfig())
    told = [t for m in feed for t in engine.step(m).transitions]
    engine.finish()
    return sorted(engine.documents(), key=lambda d: (d.subscriber, d.id)), sorted(t.id for t in told)


def without_clock(message):
    """The captures were recorded at different times: one must not age another."""
    return message._replace(header=msgspec.structs.replace(message.header, clocks=()))


@cache
def plain(name):
    """Each capture alone, in the batches it came in, with its clock."""
    return judged(messages(name))


def cut(message, at):
    """One message as several, cut before the rows ``at``."""
    edges = [0, *sorted({a for a in at if 0 < a < message.rows.num_rows}), message.rows.num_rows]
    for a, b in pairwise(edges):
        yield message._replace(rows=message.rows.slice(a, b - a))


cuts = st.lists(st.integers(1, 400), max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_batches_cut_anywhere_and_subscribers_interleaved_anyhow_give_the_same_documents(data):
    queues = {
        name: [without_clock(part) for m in messages(name) for part in cut(m, data.draw(cuts))]
        for name in data.draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique=True))
    }
    expected = sorted((d for n in queues for d in plain(n)[0]), key=lambda d: (d.subscriber, d.id))
    alerts = sorted(a for n in queues for a in plain(n)[1])
    rng = data.draw(st.randoms(use_true_random=False))
    mixed = []
    while queues:
        name = rng.choice(sorted(queues))
        for _ in range(rng.randint(1, 30)):
            mixed.append(queues[name].pop(0))
            if not queues[name]:
                del queues[name]
                break
    assert judged(mixed) == (expected, alerts)


@pytest.mark.parametrize("name", NAMES)
def test_one_row_at_a_time_gives_the_same_with_its_clock(name):
    single = (part for m in messages(name) for part in cut(m, range(m.rows.num_rows)))
    assert judged(single) == plain(name)


@pytest.mark.parametrize("name", NAMES)
def test_over_the_wire_gives_the_same(name):
    carried = (
        m._replace(
            rows=wire.decode(m.stream, wire.encode(m.rows)),
            header=wire.from_headers(wire.to_headers(m.header)),
        )
        for m in messages(name)
    )
    assert judged(carried) == plain(name)


@pytest.mark.parametrize("partitions", [2, 7, 32])
def test_partitions_counted_anyhow_give_the_same(partitions):
    for name in NAMES:
        by_partition = {}
        for m in collected(name, partitions):
            by_partition.setdefault(m.partition, []).append(m)
        documents = [d for part in by_partition.values() for d in judged(part)[0]]
        assert sorted(documents, key=lambda d: (d.subscriber, d.id)) == plain(name)[0]


def test_flows_before_payloads_or_after_give_the_same():
    for name in NAMES:
        given_order = [without_clock(m) for m in messages(name)]
        for first in ("flows", "payloads"):
            assert judged(sorted(given_order, key=lambda m: m.stream != first))[0] == plain(name)[0]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_an_engine_that_dies_anywhere_and_is_restored_gives_the_same(data):
    name = data.draw(st.sampled_from(NAMES))
    parts = [part for m in messages(name) for part in cut(m, data.draw(cuts))]
    deaths = data.draw(st.sets(st.integers(1, len(parts)), max_size=8))
    assert crashes.lived(parts, deaths) == crashes.lived(messages(name))


def test_a_file_read_in_small_pieces_gives_the_same():
    for name in NAMES[:4]:
        assert judged(collected(name, piece=4096)) == plain(name)


@pytest.mark.parametrize("name", NAMES)
def test_documents_that_are_asked_for_at_any_time_are_those_of_now(name):
    engine = Engine(EngineConfig())
    for message in messages(name):
        engine.step(message)
        now = [engine.judge.document(r) for r in engine.judge.store if r.state in OPEN]
        assert [d for d in engine.documents() if d.state in OPEN] == now
