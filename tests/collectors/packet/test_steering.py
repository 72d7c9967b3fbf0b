"""Where the kernel's program sends a frame: by a plain reading of the program, over all tunnels in hand."""

import os
import random
import struct
from pathlib import Path

import netns
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.packet import afpacket, pcapfile, steering
from collectors.packet.frames import FRAGMENT, FRAME, decode_all
from collectors.packet.ring import ETHERNET
from collectors.packet.sources import CaptureConfig

ROOT = Path(__file__).parents[3]
SEED = 0x1234_5678
PROGRAM = steering.instructions(SEED)
CAPTURES = [*sorted((ROOT / "tests" / "cases").glob("*/*.pcap")), *sorted((ROOT / "pcaps").glob("*.pcap"))]
TUNNELS = [p for p in CAPTURES if "-in-" in p.parent.name or "ipv6" in p.parent.name]


LOADS = {0x00: lambda k, _, x: k, 0x60: lambda k, cells, x: cells[k], 0x87: lambda k, _, x: x}
SUMS = {
    0x04: lambda a, b: a + b, 0x24: lambda a, b: a * b, 0x54: lambda a, b: a & b, 0x64: lambda a, b: a << b,
    0x74: lambda a, b: a >> b, 0xA4: lambda a, b: a ^ b,
}  # fmt: skip


def run(code, data, said):
    """What a classic BPF machine answers: ``data`` is what it sees, ``said`` the kernel's word on the frame
    (protocol at 0, kind at 4).  A load outside the data ends it with 0."""
    a = x = at = 0
    cells = {}
    sizes = {0x20: 4, 0x28: 2, 0x30: 1, 0x40: 4, 0x48: 2, 0x50: 1}
    while True:
        op, true, false, k = code[at]
        at += 1
        if op in sizes:
            if k >= 0xFFFFF000:
                a = said[k - 0xFFFFF000]
                continue
            place = k + (x if op >= 0x40 else 0)
            if place + sizes[op] > len(data):
                return 0
            a = int.from_bytes(data[place : place + sizes[op]], "big")
        elif op == 0x16:
            return a
        elif op == 0x05:
            at += k
        elif op in (0x15, 0x45):
            at += true if (a == k if op == 0x15 else a & k) else false
        elif op in (0x02, 0x03):
            cells[k] = a if op == 0x02 else x
        elif op in LOADS:
            a = LOADS[op](k, cells, x)
        elif op in (0x01, 0x61, 0x07):
            x = {0x01: k, 0x61: cells.get(k), 0x07: a}[op]
        else:
            a = SUMS[op & 0xF7](a, x if op & 0x08 else k) & 0xFFFFFFFF


def seen(frame):
    """A frame as the kernel shows it to the program: its outermost tag is off, the link header before it."""
    kind, rest = int.from_bytes(frame[12:14], "big"), frame[14:]
    if kind in (0x8100, 0x88A8):
        kind, rest = int.from_bytes(rest[2:4], "big"), rest[4:]
    return rest, {0: kind, 4: 0}


def chosen(frame, rings):
    return run(PROGRAM, *seen(frame)) % rings


def read(path, most=150):
    """Ethernet frames of a capture, and the addresses of their innermost packets as the decoder has them."""
    with path.open("rb") as file:
        for block in pcapfile.blocks(file):
            n = min(most, block.offset.size)
            out, code = np.zeros(n, FRAME), np.zeros(n, np.int64)
            decode_all(*(c[:n] if c is not block.data else c for c in block.columns[:4]), block.link[:n],
                       out, code)  # fmt: skip
            for i in range(n):
                if block.link[i] in ETHERNET and code[i] in (0, FRAGMENT):
                    at, size = int(block.offset[i]), int(block.captured[i])
                    ends = struct.pack(
                        ">4Q", *(int(out[i][f]) for f in ("src_high", "src_low", "dst_high", "dst_low"))
                    )
                    yield block.data[at : at + size].tobytes(), ends[:16], ends[16:]


def test_it_is_a_program_that_the_kernel_takes():
    assert len(PROGRAM) < 4096
    assert all(true < 256 and false < 256 for _, true, false, _ in PROGRAM)
    assert all(at < at + 1 + k < len(PROGRAM) for at, (op, _, _, k) in enumerate(PROGRAM) if op == 0x05)
    assert len(steering.program(SEED)) == 8 * len(PROGRAM)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_frame_goes_where_the_addresses_say_that_the_decoder_reads_in_it(path):
    for frame, src, dst in read(path):
        assert chosen(frame, 7) == steering.member(src, dst, 7, SEED), frame.hex()


def test_tunnels_of_all_kinds_are_among_them():
    assert {p.parent.name.partition("-in-")[2] for p in TUNNELS} >= {
        "erspan", "geneve", "gre", "gtp", "ip-in-ip", "mpls", "pppoe", "pseudowire", "qinq", "six-in-four",
        "vxlan", "fragments",
    }  # fmt: skip


def test_both_directions_go_to_one_ring_and_many_pairs_to_all():
    draw = random.Random(1)
    pairs = [(bytes(10) + b"\xff\xff" + draw.randbytes(4), draw.randbytes(16)) for _ in range(4000)]
    shares = np.bincount([steering.member(a, b, 4, SEED) for a, b in pairs], minlength=4)
    assert shares.min() > 900
    assert all(steering.member(a, b, 4, SEED) == steering.member(b, a, 4, SEED) for a, b in pairs)
    assert any(steering.member(a, b, 4, SEED) != steering.member(a, b, 4, 1) for a, b in pairs)
    # A server and its customers, one address after the other.
    server = bytes(10) + b"\xff\xff" + bytes((203, 0, 113, 7))
    near = [bytes(10) + b"\xff\xff" + bytes((10, 0, n >> 8, n & 255)) for n in range(4000)]
    assert np.bincount([steering.member(a, server, 4, SEED) for a in near]).min() > 900


@given(st.binary(max_size=200), st.sampled_from([0x0800, 0x86DD, 0x8100, 0x8847, 0x8864, 0x6558, 0x0806]))
def test_any_octets_have_a_ring(data, kind):
    assert 0 <= run(PROGRAM, data, {0: kind, 4: 0}) < 1 << 32


def test_of_what_we_send_ourselves_the_link_header_is_before_it(make):
    packet = make.tcp(("10.0.0.1", 1), ("10.0.0.2", 2))
    frame = bytes(12) + b"\x08\x00" + packet
    there = run(PROGRAM, packet, {0: 0x0800, 4: 0})
    assert run(PROGRAM, frame, {0: 0x0800, 4: 4}) == there
    assert run(steering.instructions(SEED, ethernet=False), packet, {0: 0x0800, 4: 4}) == there


def taken(rings, worker):
    """What a worker makes of its ring: the descriptor is its own."""
    (handed,) = rings.share(worker)
    own = handed._replace(descriptor=os.dup(handed.descriptor))
    return afpacket.Ring(handed.interface, rings.config, handed=own).__enter__()


@pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())
def test_the_kernel_sends_each_frame_where_the_twin_says():
    config = CaptureConfig(
        interface=("pw1",), block_bytes=1 << 17, blocks=8, block_timeout_ms=10, fanout_group=77
    )
    sent = [found for path in TUNNELS for found in list(read(path))[:8]]
    with netns.entered():
        netns.veth("pw0", "pw1")
        with netns.sender("pw0") as wire, afpacket.Rings(config, 3) as rings:
            readers = [taken(rings, n) for n in range(3)]
            for frame, _, _ in sent:
                wire.send(frame)
            got = [[] for _ in readers]
            for mine, one in zip(got, readers, strict=True):
                while (block := one.read(0.2)).offset.size:
                    mine += [
                        block.data[o : o + c].tobytes() for o, c in zip(*block.columns[1:3], strict=True)
                    ]
            for one in readers:
                one.__exit__()
    seed = afpacket.seed_of(77)
    wanted = [[f for f, a, b in sent if steering.member(a, b, 3, seed) == n] for n in range(3)]
    assert got == wanted
    assert all(got)
