"""Records without a home end: not in the stream, and handed over where somebody wants every record."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collectors import subscribers, wire
from collectors.netflow import collector as netflow
from collectors.netflow.datagrams import Datagram

HOME = ("10.0.0.0/8",)
ENDS = ("10.0.0.1", "10.9.0.2", "192.0.2.9", "203.0.113.5")
FIELDS = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (22, 4), (21, 4))
PAIRS = st.lists(st.tuples(st.sampled_from(ENDS), st.sampled_from(ENDS)), min_size=1, max_size=40)


def v5(make, pairs):
    return [
        make.v5([(src, dst, 40_000, 3333, 1, 100 + n, 10, 20)], sequence=n)
        for n, (src, dst) in enumerate(pairs)
    ]


def v9(make, pairs):
    records = [
        ip_address(src).packed + ip_address(dst).packed
        + struct.pack(">HHBIIII", 40_000, 3333, 6, 100 + n, 1, 10, 20)
        for n, (src, dst) in enumerate(pairs)
    ]  # fmt: skip
    return [make.v9(make.template(256, FIELDS)), make.v9(make.data_set(256, *records), sequence=1)]


def sflow(_make, pairs):
    """A datagram of samples of sFlow's IPv4 record, octets 100, 101, ..."""
    samples = b""
    for n, (src, dst) in enumerate(pairs):
        ends = ip_address(src).packed + ip_address(dst).packed
        record = struct.pack(">IIII", 3, 32, 100 + n, 6) + ends + struct.pack(">IIII", 40_000, 3333, 0, 0)
        body = struct.pack(">IIIIIIII", n, 7, 1, n, 0, 7, 9, 1) + record
        samples += struct.pack(">II", 1, len(body)) + body
    return [struct.pack(">IIIIIII", 5, 1, 0, 0, 0, 0, len(pairs)) + samples]


def collected(make, payloads, home, transit):
    """What was published and what was handed over: octets of each record, in order, copies left out."""
    registry, published, handed = CollectorRegistry(), [], []
    collector = netflow.Collector(
        netflow.Config(), subscribers.home(home), 4, lambda *given: published.append(given[2]),
        netflow.Metrics(registry), transit=handed.append if transit else None,
    )  # fmt: skip
    for one in make.gathered(*payloads):
        collector.feed([Datagram(one.payload, one.exporter, one.port, one.t_ns)])
    collector.finish()
    octets = [
        sorted(
            octet
            for rows in found
            for octet, copy in zip(wire.values(rows, "bytes"), wire.values(rows, "copy"), strict=True)
            if not copy
        )
        for found in (published, handed)
    ]
    return *octets, make.moved(registry)


@pytest.mark.parametrize("form", [v5, v9, sflow])
@given(pairs=PAIRS)
def test_every_record_is_published_or_handed_over_and_the_stream_is_as_without(make, form, pairs):
    made = form(make, pairs)
    away = [n + 100 for n, ends in enumerate(pairs) if not any(end.startswith("10.") for end in ends)]
    published, handed, moved = collected(make, made, HOME, transit=True)
    assert handed == away
    assert sorted(published + handed) == [100 + n for n in range(len(pairs))]
    assert (published, [], moved) == collected(make, made, HOME, transit=False)
    assert moved.get(("not_home_total",), 0) == len(away)
