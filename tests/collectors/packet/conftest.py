"""Captures made by hand: frames in, a file's bytes out; and a replay that keeps what is published."""

import io
import struct
from ipaddress import ip_address
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import settings
from prometheus_client import CollectorRegistry

from collectors import subscribers
from collectors.packet import collector as packet_collector
from collectors.packet import pcapfile

# The first example of a test may load kernels, and the machine may be busy.
settings.register_profile("packet", deadline=None)
settings.load_profile("packet")
SECOND = 10**9
FIN, SYN, RST, ACK = 1, 2, 4, 16


def tcp(src, dst, seq=0, ack=0, flags=ACK, data=b""):
    """A raw IPv4 packet; ``src`` and ``dst`` are (address, port)."""
    l4 = struct.pack(
        ">HHIIBBHHH", src[1], dst[1], seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 8192, 0, 0
    )
    return ipv4(src[0], dst[0], 6, l4 + data)


def udp(src, dst, data=b""):
    return ipv4(src[0], dst[0], 17, struct.pack(">HHHH", src[1], dst[1], 8 + len(data), 0) + data)


def ipv4(src, dst, protocol, rest):
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(rest), 0, 0, 64, protocol, 0)
    return head + ip_address(src).packed + ip_address(dst).packed + rest


def pcap(frames, link=101, order="<", nanoseconds=True):
    """``frames`` are (t_ns, bytes) or (t_ns, bytes, length on the wire)."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for t, data, *length in frames:
        fraction = t % SECOND if nanoseconds else t % SECOND // 1000
        wire = length[0] if length else len(data)
        out.append(struct.pack(order + "IIII", t // SECOND, fraction, len(data), wire) + data)
    return b"".join(out)


def read(data, **options):
    """All blocks of a capture that is given as bytes."""
    return list(pcapfile.blocks(io.BytesIO(data), **options))


def cut(block, places):
    """The same frames in several blocks."""
    ends = sorted({0, block.offset.size, *(p for p in places if p < block.offset.size)})
    for i, (a, b) in enumerate(pairwise(ends)):
        yield pcapfile.Block(
            block.data, block.offset[a:b], block.captured[a:b], block.length[a:b], block.t_ns[a:b],
            block.link[a:b], block.refused if i == 0 else {},
        )  # fmt: skip


def replay(blocks, home=None, partitions=4, wanted=None, **config):
    """Feed blocks; returns what was published, rows as dicts, and the metrics that moved."""
    registry = CollectorRegistry()
    batches = []
    config.setdefault("flow_slots", 64)
    config.setdefault("lasting_slots", 64)
    collector = packet_collector.Collector(
        packet_collector.Config(**config),
        home or subscribers.home(),
        partitions,
        lambda *published: batches.append(published),
        packet_collector.Metrics(registry),
        wanted,
    )
    for block in blocks:
        collector.feed(block)
    collector.finish()
    rows = {"flows": [], "payloads": [], "names": []}
    for stream, partition, batch, _ in batches:
        batch.validate(full=True)
        rows[stream] += [{**row, "partition": partition} for row in batch.to_pylist()]
    moved = {}
    for family in registry.collect():
        for s in family.samples:
            if s.value and not s.name.endswith("_created"):
                name = s.name.removeprefix("poolwatch_collector_packet_")
                moved[(name, *s.labels.values())] = s.value
    return SimpleNamespace(batches=batches, moved=moved, **rows)


@pytest.fixture(scope="session", autouse=True)
def compiled():
    packet_collector.warm()


@pytest.fixture(scope="session")
def make():
    return SimpleNamespace(
        tcp=tcp, udp=udp, ipv4=ipv4, pcap=pcap, read=read, cut=cut, replay=replay,
        FIN=FIN, SYN=SYN, RST=RST, ACK=ACK, SECOND=SECOND,
    )  # fmt: skip
