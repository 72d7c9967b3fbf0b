"""The walk over a block of the kernel's ring, against the obvious version, and over anything at all."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import Reason
from collectors.packet import ring
from collectors.packet.pcapfile import PADDING

LOOPBACK, ETHERNET, TUN = 772, 1, 65534
HOST, OUTGOING = 0, 4
VALID, TPID = 1 << 4, 1 << 6
SIZE = 4096


def slot(data, t_ns=0, length=None, status=1, tag=(0, 0), kind=ETHERNET, way=HOST, room=4, net=14):
    """struct tpacket3_hdr, struct sockaddr_ll, room for a tag, the frame, up to a multiple of 8."""
    mac = 68 + room
    size = (mac + len(data) + 7) & ~7
    head = struct.pack(
        "=6I2H2IHH8x", size, t_ns // 10**9, t_ns % 10**9, len(data), length or len(data), status,
        mac, mac + net, 0, tag[1], tag[0], 0,
    )  # fmt: skip
    return (head + struct.pack("=HHiHBB8x", 17, 8, 3, kind, way, 6) + bytes(room) + data).ljust(size, b"\0")


def block(slots, size=SIZE):
    """struct tpacket_block_desc and the slots; the last one's offset to the next is 0."""
    if slots:
        slots = [*slots[:-1], bytes(4) + slots[-1][4:]]
    body = b"".join(slots)
    head = struct.pack("=IIIIIIQ4I", 3, 0, 1, len(slots), 48, 48 + len(body), 1, 0, 0, 0, 0)
    return np.frombuffer((head + body).ljust(size, b"\0"), np.uint8)


def walk(raw):
    got = ring.frames(raw, ring.columns(raw.size))
    found = [
        (int(t), bytes(got.data[o : o + c]), int(n), int(link))
        for o, c, n, t, link in zip(got.offset, got.captured, got.length, got.t_ns, got.link, strict=True)
    ]
    return found, sum(got.refused.values())


def twin(raw):
    """What anyone would write first; headers may overlap frames, so frames are cut out at the end."""
    used = max(48, min(struct.unpack_from("=I", raw, 20)[0], len(raw)))
    data, places, refused = bytearray(raw[:used]), [], 0
    count, at = struct.unpack_from("=2I", data, 12)
    for i in range(count):
        if at < 48 or at % 8 or at + 68 > used:
            refused += 1
            break
        step, sec, nsec, kept, wire, status, mac, net = struct.unpack_from("=6I2H", data, at)
        tci, tpid = struct.unpack_from("=IH", data, at + 32)
        kind, way = struct.unpack_from("=HB", data, at + 56)
        ethernet = kind in (1, 6, 772)
        skip = 0 if ethernet else net - mac
        start = at + mac + skip
        if skip < 0 or kept < skip or mac < 68 or start + kept - skip > used:
            refused += 1
        elif not (kind == LOOPBACK and way == OUTGOING):
            kept, wire = kept - skip, wire - skip
            if ethernet and status & VALID and kept >= 12 and mac >= 72:
                tag = struct.pack(">HH", tpid if status & TPID else 0x8100, tci & 0xFFFF)
                data[start - 4 : start + 12] = data[start : start + 12] + tag
                start, kept, wire = start - 4, kept + 4, wire + 4
            places.append((sec * 10**9 + nsec, start, kept, max(wire, kept), 1 if ethernet else 101))
        if step < 68:
            refused += i + 1 < count
            break
        at += step
    return [(t, bytes(data[s : s + k]), n, link) for t, s, k, n, link in places], refused


frames = st.builds(
    slot,
    st.binary(max_size=80),
    t_ns=st.integers(0, 2**32 * 10**9 - 1),
    length=st.integers(0, 70000),
    status=st.integers(0, 127),
    tag=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    kind=st.sampled_from((ETHERNET, LOOPBACK, TUN, 6, 512, 9999)),
    way=st.sampled_from((HOST, OUTGOING)),
    room=st.sampled_from((0, 4, 12)),
    net=st.integers(0, 30),
)


@given(st.lists(frames, max_size=12))
def test_blocks_as_the_kernel_makes_them_read_as_the_twin_reads_them(slots):
    raw = block(slots)
    assert walk(raw) == twin(raw.tobytes())


@given(
    st.lists(frames, max_size=6), st.lists(st.tuples(st.integers(8, 500), st.integers(0, 255)), max_size=8)
)
def test_broken_blocks_too(slots, flips):
    raw = block(slots).copy()
    for at, value in flips:
        raw[at] = value
    assert walk(raw) == twin(raw.tobytes())


@given(st.binary(min_size=48, max_size=600), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_any_bytes_give_frames_within_the_block_or_nothing(body, count, used):
    raw = np.frombuffer(body.ljust(len(body) + 7 & ~7, b"\0"), np.uint8).copy()
    raw[12:16] = np.frombuffer(struct.pack("=I", count), np.uint8)
    raw[20:24] = np.frombuffer(struct.pack("=I", used), np.uint8)
    got = ring.frames(raw, ring.columns(raw.size))
    assert (got.offset >= 48).all()
    assert (got.offset + got.captured <= min(used, raw.size)).all()
    assert got.data.size >= min(used, raw.size) + PADDING
    assert walk(raw) == twin(raw.tobytes())


def test_a_tag_that_was_taken_off_is_put_back():
    data = bytes(range(12)) + b"\x08\x00rest"
    tagged = slot(data, 5, 99, 1 | VALID | TPID, (0x88A8, 0x2007))
    plain = slot(data, 6, status=1 | VALID, tag=(0, 7))
    assert walk(block([tagged, plain])) == (
        [
            (5, bytes(range(12)) + b"\x88\xa8\x20\x07\x08\x00rest", 103, 1),
            (6, bytes(range(12)) + b"\x81\x00\x00\x07\x08\x00rest", 22, 1),
        ],
        0,
    )


def test_what_is_not_ethernet_begins_at_its_network_layer():
    assert walk(block([slot(b"\x02\x00PPP?E...", 1, 90, kind=512, net=6)])) == ([(1, b"E...", 84, 101)], 0)


def test_the_loopback_is_seen_once():
    both = [slot(b"x" * 20, kind=LOOPBACK, way=way) for way in (OUTGOING, HOST)]
    assert len(walk(block(both))[0]) == 1


def test_a_frame_that_leads_out_of_its_block_is_refused_and_counted():
    good, bad = slot(b"good" * 5), bytearray(slot(b"bad!" * 5))
    struct.pack_into("=I", bad, 12, 1 << 20)
    got = ring.frames(block([good, bytes(bad), good]), ring.columns(SIZE))
    assert got.offset.size == 2
    assert got.refused == {Reason.LENGTH: 1}


def test_a_block_outlives_the_rings():
    raw = block([slot(b"kept" * 5)]).copy()
    got = ring.frames(raw, ring.columns(raw.size))
    raw[:] = 255
    assert bytes(got.data[got.offset[0] :][:20]) == b"kept" * 5


@pytest.mark.parametrize(
    ("ours", "numbers", "wanted"),
    [
        ([0, 0, 0, 0], [1, 0, 0, 0], 0),  # fresh: the first is being filled
        ([0, 0, 0, 0], [5, 6, 3, 4], 1),  # all given back: the newest is being filled
        ([1, 1, 0, 0], [1, 2, 3, 0], 0),
        ([1, 0, 1, 1], [9, 10, 7, 8], 2),  # it went round
        ([1, 1, 1, 1], [9, 6, 7, 8], 1),  # full
    ],
)
def test_a_ring_that_somebody_else_read_is_read_on_where_he_stopped(ours, numbers, wanted):
    status = np.array(ours, np.uint32) * (ring.TP_STATUS_USER | 1 << 29)
    assert ring.resumed(status, np.array(numbers, np.uint64)) == wanted
