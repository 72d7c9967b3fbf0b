"""The same answers through scapy as from the ring."""

import subprocess
import sys
import time
from pathlib import Path

import netns
import pytest
from prometheus_client import CollectorRegistry

from collectors.errors import ConfigError, InputError
from collectors.packet import afpacket, pcapfile, scapysource, tap
from collectors.packet.sources import CaptureConfig

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())
PLAIN = bytes(range(12)) + b"\x08\x00"
TAGGED = bytes(range(12)) + b"\x81\x00\x60\x07\x08\x00"


@pytest.fixture
def wire(monkeypatch):
    """Send here; capture at pw1."""
    monkeypatch.setattr(scapysource, "LOOK_S", 0.05)
    with netns.entered():
        netns.veth("pw0", "pw1")
        with netns.sender("pw0") as opened:
            yield opened


def frames(blocks):
    return [
        (bytes(b.data[o : o + c]), int(n), int(link))
        for b in blocks
        for o, c, n, link in zip(b.offset, b.captured, b.length, b.link, strict=True)
    ]


def take(source, count=1, within_s=5.0):
    found, ends = [], time.monotonic() + within_s
    while sum(b.offset.size for b in found) < count and time.monotonic() < ends:
        found.append(source.read(0.05))
    return found


def until(source, what, within_s=5.0):
    ends = time.monotonic() + within_s
    while not what() and time.monotonic() < ends:
        source.read(0.02)
    assert what()


def test_it_reads_what_the_ring_reads(wire):
    with (ROOT / "pcaps" / "xmrig-plain.pcap").open("rb") as file:
        sent = [f for f, *_ in frames(pcapfile.blocks(file))]
    sent += [TAGGED + b"tag" * 30, PLAIN + bytes(60000)]
    options = CaptureConfig(snap_length=1000, block_timeout_ms=10, blocks=4)
    begun = time.time_ns()
    with scapysource.ScapySource("pw1", options) as slow, afpacket.Ring("pw1", options) as fast:
        for frame in sent:
            wire.send(frame)
        blocks, twins = take(slow, len(sent)), take(fast, len(sent))
        assert slow.statistics() is None
    # The ring cuts before it puts a tag back, scapy after.
    assert frames(blocks) == frames(twins)
    times = [int(t) for b in blocks for t in b.t_ns]
    assert times == sorted(times)
    assert begun - 1000 <= times[0] <= times[-1] <= time.time_ns()
    assert all((b.offset + b.captured <= b.data.size - pcapfile.PADDING).all() for b in blocks)


def test_a_filter_works_and_a_bad_one_is_a_mistake(wire, make):
    near = PLAIN + make.tcp(("10.0.0.1", 1), ("10.0.0.2", 3333), data=b"yes")
    with scapysource.ScapySource("pw1", CaptureConfig(filter="tcp port 3333")) as source:
        wire.send(PLAIN + make.tcp(("10.0.0.1", 1), ("10.0.0.2", 80), data=b"no"))
        wire.send(near)
        assert frames(take(source)) == [(near, len(near), 1)]
    with pytest.raises(ConfigError, match="capture filter 'tcp prot'"):
        scapysource.ScapySource("pw1", CaptureConfig(filter="tcp prot")).__enter__()


def test_a_missing_interface_is_told(wire):
    with pytest.raises(InputError, match="interface pw9"):
        scapysource.ScapySource("pw9", CaptureConfig()).__enter__()


def test_an_interface_that_goes_and_comes_back_is_read_on(wire):
    with scapysource.ScapySource("pw1", CaptureConfig()) as source:
        netns.delete("pw1")
        until(source, lambda: not source.up)
        assert source.problem
        assert source.fileno() == -1
        assert source.read(0.0).offset.size == 0
        netns.veth("pw0", "pw1")
        until(source, lambda: source.up)
        with netns.sender("pw0") as again:
            again.send(PLAIN + b"back" * 20)
            assert frames(take(source)) == [(PLAIN + b"back" * 20, 94, 1)]
        assert source.reopened == 1


def test_it_is_taken_on_request_and_where_there_is_no_ring(wire, monkeypatch):
    assert isinstance(tap.source("pw1", CaptureConfig()), afpacket.Ring)
    assert isinstance(tap.source("pw1", CaptureConfig(source="scapy")), scapysource.ScapySource)
    monkeypatch.setattr(afpacket, "available", lambda: False)
    assert isinstance(tap.source("pw1", CaptureConfig()), scapysource.ScapySource)
    with pytest.raises(ConfigError, match="no AF_PACKET"):
        tap.source("pw1", CaptureConfig(source="afpacket"))


def test_its_drops_are_unknown_and_no_metric_tells_of_them(wire):
    registry = CollectorRegistry()
    with tap.Tap(CaptureConfig(source="scapy", interface=("pw1",)), tap.Metrics(registry)) as one:
        wire.send(PLAIN + bytes(60))
        assert len(frames(take(one))) == 1
    told = {s.name for family in registry.collect() for s in family.samples if s.labels}
    assert not [name for name in told if "kernel" in name]


def test_importing_the_package_does_not_load_scapy():
    code = "import sys, collectors.packet.tap; sys.exit('scapy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
