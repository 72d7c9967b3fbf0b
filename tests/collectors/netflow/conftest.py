"""Exports made by hand, captures read plainly, and a replay that keeps what is published."""

import struct
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings
from prometheus_client import CollectorRegistry

from collectors import subscribers
from collectors.netflow import collector as netflow
from collectors.netflow.datagrams import Datagram
from collectors.netflow.sflow.rows import no_frames

# The first example of a test may load kernels, and the machine may be busy.
settings.register_profile("netflow", deadline=None)
settings.load_profile("netflow")
SECOND = 10**9
CAPTURES = Path(__file__).resolve().parents[4] / "shared/captures/flows"
EVERYWHERE = ("0.0.0.0/0", "::/0")
LINK_BYTES = {1: 14, 0: 4, 113: 16, 276: 20, 101: 0, 12: 0}


def sixteen(text):
    made = ip_address(text)
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


EXPORTER = sixteen("192.0.2.1")


def udp_payloads(path):
    """(payload, source as 16 octets, source port, destination port, time in ns) of each UDP packet."""
    data = Path(path).read_bytes()
    order = "<" if data[:1] in (b"\xd4", b"\x4d") else ">"
    unit = 1 if data[:4] in (b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d") else 1000
    link = struct.unpack(order + "I", data[20:24])[0] & 0xFFFF
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, captured, _ = struct.unpack(order + "IIII", data[at : at + 16])
        frame = data[at + 16 : at + 16 + captured]
        at += 16 + captured
        ip = LINK_BYTES[link]
        while link == 1 and frame[ip - 2 : ip] in (b"\x81\x00", b"\x88\xa8"):
            ip += 4
        if frame[ip] >> 4 == 4:
            protocol, source = frame[ip + 9], sixteen(".".join(map(str, frame[ip + 12 : ip + 16])))
            l4 = ip + 4 * (frame[ip] & 15)
        else:
            protocol, source, l4 = frame[ip + 6], frame[ip + 8 : ip + 24], ip + 40
        if protocol == 17:
            ports = struct.unpack(">HHH", frame[l4 : l4 + 6])
            payload = frame[l4 + 8 : l4 + ports[2]]
            yield payload, source, ports[0], ports[1], seconds * SECOND + fraction * unit


def datagrams(path, exporter=None):
    return [Datagram(p, exporter or source, port, t) for p, source, port, _, t in udp_payloads(path)]


def template(number, fields, version=9, scopes=0):
    """A template or options template set; ``fields`` are (number, width) or (number, width, enterprise)."""
    body = b""
    for element, width, *pen in fields:
        body += struct.pack(">HH", element | (0x8000 if pen else 0), width)
        body += b"".join(struct.pack(">I", p) for p in pen)
    if not scopes:
        head, set_id = struct.pack(">HH", number, len(fields)), 0 if version == 9 else 2
    elif version == 9:
        head, set_id = struct.pack(">HHH", number, 4 * scopes, 4 * (len(fields) - scopes)), 1
    else:
        head, set_id = struct.pack(">HHH", number, len(fields), scopes), 3
    return struct.pack(">HH", set_id, 4 + len(head) + len(body)) + head + body


def data_set(number, *records):
    body = b"".join(records)
    return struct.pack(">HH", number, 4 + len(body)) + body


def v5(records=(), seconds=1_700_000_000, uptime=3_600_000, sequence=0, engine=0, sampling=0, count=None):
    """``records``: (src, dst, sport, dport, packets, octets, first, last) each, addresses as text."""
    head = struct.pack(
        ">HHIIIIHH",
        5,
        len(records) if count is None else count,
        uptime,
        seconds,
        0,
        sequence,
        engine,
        sampling,
    )
    for src, dst, sport, dport, packets, octets, first, last in records:
        head += ip_address(src).packed + ip_address(dst).packed + bytes(4)
        head += struct.pack(">HHIIIIHHBBBBHHBBH", 3, 4, packets, octets, first, last, sport, dport,
                            0, 0x18, 6, 0, 65001, 65002, 24, 24, 0)  # fmt: skip
    return head


def v9(*sets, seconds=1_700_000_000, uptime=3_600_000, sequence=0, domain=7):
    return struct.pack(">HHIIII", 9, len(sets), uptime, seconds, sequence, domain) + b"".join(sets)


def ipfix(*sets, seconds=1_700_000_000, sequence=0, domain=7):
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), seconds, sequence, domain) + body


def gathered(*payloads, exporter=EXPORTER, t=1_700_000_001 * SECOND):
    """Datagrams of one exporter, received one millisecond after another."""
    return [Datagram(p, exporter, 40000, t + i * 1_000_000) for i, p in enumerate(payloads)]


def moved(registry):
    found = {}
    for family in registry.collect():
        for s in family.samples:
            if s.value and not s.name.endswith("_created"):
                name = s.name.removeprefix("poolwatch_collector_netflow_")
                found[(name, *s.labels.values())] = s.value
    return found


def replay(lists, home=EVERYWHERE, partitions=4, saved=None, frames=no_frames, **config):
    """Feed lists of datagrams; what was published, rows as dicts without copies, and what moved."""
    registry = CollectorRegistry()
    batches = []
    collector = netflow.Collector(
        netflow.Config(**config),
        subscribers.home(home),
        partitions,
        lambda *published: batches.append(published),
        netflow.Metrics(registry),
        frames,
    )
    if saved is not None:
        collector.restore(saved)
    for one in lists:
        collector.feed(one)
    collector.finish()
    rows = []
    for _, partition, batch, header in batches:
        batch.validate(full=True)
        assert batch.num_rows == header.rows
        rows += [{**row, "partition": partition} for row in batch.to_pylist()]
    first = [row for row in rows if not row["copy"]]
    return SimpleNamespace(
        batches=batches, every=rows, rows=first, moved=moved(registry), collector=collector
    )  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def compiled():
    netflow.warm()


@pytest.fixture(scope="session")
def captures():
    if not CAPTURES.is_dir():
        pytest.skip("no ../shared/captures/flows here")
    return CAPTURES


@pytest.fixture(scope="session")
def make():
    return SimpleNamespace(
        v5=v5, v9=v9, ipfix=ipfix, template=template, data_set=data_set, gathered=gathered, replay=replay,
        datagrams=datagrams, udp_payloads=udp_payloads, sixteen=sixteen, EXPORTER=EXPORTER, SECOND=SECOND,
        EVERYWHERE=EVERYWHERE, moved=moved,
    )  # fmt: skip
