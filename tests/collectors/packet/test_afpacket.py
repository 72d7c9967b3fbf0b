"""The ring on real interfaces: a veth pair in a network namespace of the test's own."""

import fcntl
import os
import struct
import threading
import time
from collections import defaultdict
from pathlib import Path

import netns
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from collectors.errors import ConfigError, InputError
from collectors.packet import afpacket, pcapfile, ring, tap
from collectors.packet.frames import FRAME, decode_all
from collectors.packet.sources import CaptureConfig

PCAPS = Path(__file__).parents[3] / "pcaps"
pytestmark = pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())
PLAIN = bytes(range(12)) + b"\x08\x00"
TAGGED = bytes(range(12)) + b"\x81\x00\x60\x07\x08\x00"
DOUBLE = bytes(range(12)) + b"\x88\xa8\x00\x05\x81\x00\x60\x07\x08\x00"


@pytest.fixture
def wire():
    """Send here; capture at pw1."""
    ring.warm()  # loading the kernel takes longer than some tests wait
    with netns.entered():
        netns.veth("pw0", "pw1")
        with netns.sender("pw0") as opened:
            yield opened


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(afpacket, "LOOK_S", 0.05)


def config(**options):
    return CaptureConfig(**{"block_bytes": 1 << 17, "blocks": 8, "block_timeout_ms": 10, **options})


def frames(block):
    return [bytes(block.data[o : o + c]) for o, c in zip(block.offset, block.captured, strict=True)]


def take(source, count, within_s=5.0):
    """Blocks until ``count`` frames were seen, or the time is over."""
    found, ends = [], time.monotonic() + within_s
    while sum(b.offset.size for b in found) < count and time.monotonic() < ends:
        found.append(source.read(0.05))
    return found


def seen(source, count=1, within_s=5.0):
    return [f for block in take(source, count, within_s) for f in frames(block)]


def until(source, what, within_s=5.0):
    ends = time.monotonic() + within_s
    while not what() and time.monotonic() < ends:
        assert source.read(0.02).offset.size == 0
    assert what()


def capture(name):
    with (PCAPS / name).open("rb") as file:
        return list(pcapfile.blocks(file))


@pytest.mark.parametrize("name", ["xmrig-plain.pcap", "cpuminer-scrypt-dense.pcap"])
def test_what_was_sent_is_what_comes_in_its_order(wire, name):
    sent = [f for block in capture(name) for f in frames(block)]
    begun = time.time_ns()
    with afpacket.Ring("pw1", config()) as source:
        for frame in sent:
            wire.send(frame)
        blocks = take(source, len(sent))
        drops = source.statistics()
    assert [f for block in blocks for f in frames(block)] == sent
    times = [int(t) for block in blocks for t in block.t_ns]
    assert times == sorted(times)
    assert begun <= times[0] <= times[-1] <= time.time_ns()
    assert drops == (len(sent), 0, 0)


@pytest.mark.parametrize("name", ["xmrig-plain.pcap", "cpuminer-sha256d.pcap"])
def test_the_collector_reads_the_ring_as_it_reads_the_file(wire, make, name):
    def rows(blocks):
        got = make.replay(blocks)
        said, counted = defaultdict(bytes), defaultdict(int)
        for row in got.payloads:
            said[row["src"], row["src_port"], row["dst"], row["dst_port"]] += row["data"]
        for row in got.flows:
            counted[row["src"], row["src_port"], row["dst"], row["dst_port"]] += row["packets"]
        return dict(said), dict(counted)

    file = capture(name)
    with afpacket.Ring("pw1", config()) as source:
        for block in file:
            for frame in frames(block):
                wire.send(frame)
        live = take(source, sum(b.offset.size for b in file))
    assert rows(live) == rows(file)
    assert rows(file)[0]


def test_vlan_tags_are_as_they_were_on_the_wire(wire):
    sent = [head + b"x" * 60 for head in (TAGGED, PLAIN, DOUBLE)]
    with afpacket.Ring("pw1", config()) as source:
        for frame in sent:
            wire.send(frame)
        assert seen(source, 3) == sent


def test_the_vlan_column_sees_the_tag(wire, make):
    packet = make.udp(("10.0.0.1", 1), ("10.0.0.2", 2), b"hello")
    with afpacket.Ring("pw1", config()) as source:
        wire.send(TAGGED + packet)
        (block,) = (b for b in take(source, 1) if b.offset.size)
    out, code = np.zeros(1, FRAME), np.zeros(1, np.int64)
    decode_all(*block.columns[:4], block.link, out, code)
    assert code[0] == 0
    assert out["vlan"][0] == 7


def test_a_merged_frame_of_64_kib_comes_whole(wire):
    long = PLAIN + os.urandom(65000)
    with afpacket.Ring("pw1", config()) as source:
        wire.send(long)
        assert seen(source) == [long]


def test_a_snap_length_cuts_and_tells_the_length(wire):
    with afpacket.Ring("pw1", config(snap_length=64)) as source:
        wire.send(PLAIN + b"x" * 500)
        (block,) = (b for b in take(source, 1) if b.offset.size)
    assert block.captured.tolist() == [64]
    assert block.length.tolist() == [514]


def test_silence_is_an_empty_block_after_the_wait(wire):
    with afpacket.Ring("pw1", config()) as source:
        begun = time.monotonic()
        assert source.read(0.05).offset.size == 0
        assert 0.04 < time.monotonic() - begun < 2


def test_what_finds_the_ring_full_is_counted(wire):
    with afpacket.Ring("pw1", config(blocks=2)) as source:
        for _ in range(1000):
            wire.send(PLAIN + bytes(1000))
        before = source.statistics()
        kept = len(seen(source, 1000, 0.5))
        assert 0 < kept < 1000
        assert before.packets == 1000
        assert before.drops == 1000 - kept
        assert before.freezes >= 1
        wire.send(PLAIN + bytes(1000))
        assert seen(source)
        assert source.statistics() == (1001, before.drops, before.freezes)  # sums, though the kernel forgets


def test_a_filter_is_the_kernels(wire, make):
    near = PLAIN + make.tcp(("10.0.0.1", 1), ("10.0.0.2", 3333), data=b"yes")
    far = PLAIN + make.tcp(("10.0.0.1", 1), ("10.0.0.2", 80), data=b"no")
    with afpacket.Ring("pw1", config(filter="tcp port 3333")) as source:
        wire.send(far)
        wire.send(near)
        assert seen(source) == [near]
        assert source.statistics().packets == 1
    with afpacket.Ring("pw1", config(filter="vlan 7")) as source:
        wire.send(near)
        wire.send(TAGGED + near[14:])
        assert seen(source) == [TAGGED + near[14:]]


def test_no_frame_gets_in_before_the_filter(wire):
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            wire.send(PLAIN + bytes(60))

    sending = threading.Thread(target=flood)
    sending.start()
    try:
        for _ in range(5):
            with afpacket.Ring("pw1", config(filter="udp port 1")) as source:
                assert seen(source, 1, 0.1) == []
                assert source.statistics().packets == 0
    finally:
        stop.set()
        sending.join()


def test_what_cannot_be_opened_is_told(wire):
    with pytest.raises(ConfigError, match=r"capture filter 'tcp prot': .*syntax error"):
        afpacket.Ring("pw1", config(filter="tcp prot")).__enter__()
    with pytest.raises(InputError, match=r"interface pw9: there is none .*lo.*pw0"):
        afpacket.Ring("pw9", config()).__enter__()


def test_an_interface_that_goes_down_and_up_is_read_on(wire, often):
    with afpacket.Ring("pw1", config()) as source:
        assert source.up
        netns.down("pw1")
        until(source, lambda: not source.up)
        assert source.problem
        time.sleep(0.1)
        until(source, lambda: source.problem == "down")
        netns.up("pw1")
        until(source, lambda: source.up)
        wire.send(PLAIN + b"back" * 20)
        assert seen(source) == [PLAIN + b"back" * 20]
        assert source.reopened == 1


def test_an_interface_may_be_down_at_first(wire, often):
    netns.down("pw1")
    with afpacket.Ring("pw1", config()) as source:
        assert not source.up
        netns.up("pw1")
        until(source, lambda: source.up)
        # A look in the middle of the change may have found it unfit.
        assert source.reopened <= 1


def test_an_interface_that_is_deleted_and_made_again_is_read_on(wire, often):
    with afpacket.Ring("pw1", config(filter="ip", snap_length=128)) as source:
        wire.send(PLAIN + b"one" * 30)
        assert seen(source) == [PLAIN + b"one" * 30]
        netns.delete("pw1")
        until(source, lambda: source.problem == "there is none")
        assert not source.up
        netns.veth("pw0", "pw1")
        until(source, lambda: source.up)
        with netns.sender("pw0") as again:
            again.send(bytes(12) + b"\x08\x06" + bytes(60))
            again.send(PLAIN + b"two" * 30)
            assert seen(source) == [PLAIN + b"two" * 30]
        assert source.reopened == 1
        assert source.statistics() == (2, 0, 0)


def test_the_name_is_followed_when_another_bears_it(wire, often):
    with afpacket.Ring("pw1", config()) as source:
        netns.down("pw1")
        netns.ip("link", "set", "pw1", "name", "old")
        until(source, lambda: source.problem == "there is none")
        netns.veth("pw2", "pw1")
        until(source, lambda: source.up)
        with netns.sender("pw2") as other:
            other.send(PLAIN + b"new" * 30)
            assert seen(source) == [PLAIN + b"new" * 30]


def test_the_loopback_and_a_tunnel_are_read(wire, make):
    packet = make.udp(("127.0.0.1", 1), ("127.0.0.1", 9), b"hello")
    with netns.sender("lo") as lo, afpacket.Ring("lo", config()) as source:
        lo.send(bytes(12) + b"\x08\x00" + packet)
        (block,) = (b for b in take(source, 2, 0.5) if b.offset.size)
        # Once, though it was sent and received; and the answer, that nobody listens.
        assert frames(block)[0] == bytes(12) + b"\x08\x00" + packet
        assert frames(block).count(frames(block)[0]) == 1
    if not Path("/dev/net/tun").exists():
        return
    with Path("/dev/net/tun").open("r+b", buffering=0) as tun:
        # TUNSETIFF, IFF_TUN | IFF_NO_PI
        fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"pwt", 0x1001))
        netns.up("pwt")
        with afpacket.Ring("pwt", config(filter="udp")) as source:
            tun.write(packet)
            (block,) = (b for b in take(source, 1) if b.offset.size)
    assert frames(block) == [packet]
    assert block.link.tolist() == [101]


def test_two_rings_of_a_group_share_connections_whole(wire, make):
    def ends(k):
        return (f"10.0.{k}.1", 1000 + k), ("93.184.216.34", 3333)

    wanted = config(fanout_group=77)
    with afpacket.Ring("pw1", wanted) as one, afpacket.Ring("pw1", wanted) as other:
        for k in range(64):
            a, b = ends(k)
            wire.send(PLAIN + make.tcp(a, b, data=b"%03d" % k + bytes(20)))
            wire.send(PLAIN + make.tcp(b, a, data=b"%03d" % k + bytes(20)))
        time.sleep(0.05)
        shares = [[f[54:57] for f in seen(one_of, 128, 0.3)] for one_of in (one, other)]
    assert sum(map(len, shares)) == 128
    assert all(shares)
    assert not set(shares[0]) & set(shares[1])


def taken(rings, worker):
    """What a worker makes of its ring: the descriptor is its own."""
    (handed,) = rings.share(worker)
    own = handed._replace(descriptor=os.dup(handed.descriptor))
    return afpacket.Ring(handed.interface, rings.config, handed=own)


def test_a_ring_for_a_worker_is_shut_until_the_worker_is_there(wire):
    with afpacket.Rings(config(interface=("pw1",)), 1) as rings:
        wire.send(PLAIN + b"early" * 20)
        time.sleep(0.05)
        with taken(rings, 0) as source:
            wire.send(PLAIN + b"late" * 20)
            assert seen(source) == [PLAIN + b"late" * 20]
            assert source.statistics() == (1, 0, 0)


def test_what_comes_while_a_worker_is_away_waits_and_its_ring_goes_on_where_it_was(wire):
    sent = [PLAIN + b"%04d" % n + bytes(1000) for n in range(600)]
    with afpacket.Rings(config(interface=("pw1",)), 1) as rings:
        got = []
        # Each time some of the ring's eight blocks are filled, and some of them read.
        for part in range(6):
            with taken(rings, 0) as source:
                wanted = 50 if part else 0
                got += seen(source, wanted) if wanted else []
            for frame in sent[part * 100 : part * 100 + 100]:
                wire.send(frame)
        with taken(rings, 0) as source:
            got += seen(source, len(sent) - len(got))
            assert source.statistics().drops == 0
    assert got == sent[len(sent) - len(got) :]
    assert len(got) >= 500


def test_rings_of_workers_are_opened_again_together_on_an_interface_that_comes_back(wire, often):
    with afpacket.Rings(config(interface=("pw1",)), 2) as rings:
        with taken(rings, 0) as one, taken(rings, 1) as other:
            netns.delete("pw1")
            for source in (one, other):
                until(source, lambda source=source: source.problem == "there is none")
            netns.veth("pw0", "pw1")
            for source in (one, other):
                until(source, lambda source=source: source.up)
            with netns.sender("pw0") as again:
                for k in range(64):
                    again.send(PLAIN + bytes((0x45, *bytes(11), 10, 0, 0, k, 10, 0, 0, 200)) + bytes(20))
            shares = [len(seen(source, 64, 0.3)) for source in (one, other)]
        # Who was away meanwhile finds a ring that is nobody's any more.
        with taken(rings, 0) as source:
            assert source.up
            assert source._opened.index != rings.share(0)[0].number
    assert sum(shares) == 64
    assert all(shares)


def test_workers_need_rings_that_can_be_opened(wire):
    with pytest.raises(InputError, match="pw9"):
        afpacket.Rings(config(interface=("pw1", "pw9")), 2).__enter__()
    with pytest.raises(ConfigError, match=r"capture\.workers"):
        afpacket.Rings(config(interface=("pw1",), source="scapy"), 2)


def moved(registry):
    return {
        (s.name.removeprefix("poolwatch_collector_packet_"), s.labels["interface"]): s.value
        for family in registry.collect()
        for s in family.samples
        if s.value and not s.name.endswith("_created")
    }


def test_a_tap_reads_all_its_interfaces_and_moves_their_metrics(wire, often):
    registry, now = CollectorRegistry(), [0.0]
    options = config(interface=("pw0", "pw1"), blocks=2)
    with tap.Tap(options, tap.Metrics(registry), lambda: now[0]) as both:
        assert moved(registry) == {("interface_up", "pw0"): 1, ("interface_up", "pw1"): 1}
        for _ in range(600):
            wire.send(PLAIN + bytes(1000))
        kept = len(seen(both, 1200, 0.5))
        now[0] += 2
        both.read(0.0)
        got = moved(registry)
        assert got["kernel_packets_total", "pw0"] == got["kernel_packets_total", "pw1"] == 600
        assert got["kernel_drops_total", "pw0"] + got["kernel_drops_total", "pw1"] == 1200 - kept > 0
        assert got["kernel_freezes_total", "pw1"] >= 1
        netns.down("pw1")
        until(both, lambda: not any(s.up for s in both.sources))
        now[0] += 2
        both.read(0.0)
        assert ("interface_up", "pw1") not in moved(registry)
        netns.up("pw1")
        until(both, lambda: all(s.up for s in both.sources))
    assert moved(registry)["interface_reopened_total", "pw1"] == 1


def test_a_tap_closes_what_it_opened_when_one_is_missing(wire):
    both = tap.Tap(config(interface=("pw1", "pw9")), tap.Metrics(CollectorRegistry()))
    with pytest.raises(InputError, match="pw9"):
        both.__enter__()
    assert [s.fileno() for s in both.sources] == [-1, -1]


def test_no_interface_is_a_mistake():
    with pytest.raises(ConfigError, match="no interface"):
        tap.Tap(CaptureConfig(), tap.Metrics(CollectorRegistry()))
