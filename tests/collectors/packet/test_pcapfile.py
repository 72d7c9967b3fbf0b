import gzip
import io
import struct
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import DecodeError, Reason
from collectors.packet import pcapfile

T = 1_700_000_000_123_456_789
FRAMES = [(T, b"a" * 60), (T + 1, b"bc", 1500), (T + 2_000_000_000, b"")]


def frames(blocks):
    return [
        (int(t), bytes(b.data[o : o + c]), int(n), int(link))
        for b in blocks
        for o, c, n, t, link in zip(b.offset, b.captured, b.length, b.t_ns, b.link, strict=True)
    ]


def refused(blocks):
    out = {}
    for b in blocks:
        for reason, n in b.refused.items():
            out[reason] = out.get(reason, 0) + n
    return out


EXPECTED = [(T, b"a" * 60, 60, 1), (T + 1, b"bc", 1500, 1), (T + 2_000_000_000, b"", 0, 1)]


class Trickle:
    """Like a pipe: a few bytes at a time, no seek."""

    def __init__(self, data, step):
        self.file, self.step = io.BytesIO(data), step

    def read(self, n):
        return self.file.read(min(n, self.step))


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_nanoseconds(make, order):
    blocks = make.read(make.pcap(FRAMES, link=1, order=order))
    assert frames(blocks) == EXPECTED
    assert refused(blocks) == {}


@pytest.mark.parametrize("order", ["<", ">"])
def test_microseconds(make, order):
    got = frames(make.read(make.pcap(FRAMES, link=1, order=order, nanoseconds=False)))
    assert [t for t, *_ in got] == [t // 1000 * 1000 for t, *_ in FRAMES]


def test_the_patched_header_of_24_bytes():
    data = struct.pack("<IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    for body in (b"one", b"three"):
        data += struct.pack("<IIIIIHBB", 5, 7, len(body), len(body), 2, 8, 0, 0) + body
    got = frames(pcapfile.blocks(io.BytesIO(data)))
    assert got == [(5_000_007_000, b"one", 3, 1), (5_000_007_000, b"three", 5, 1)]


@pytest.mark.parametrize("step", [1, 7, 65536])
def test_a_pipe_that_trickles_gives_the_same(make, step):
    assert frames(pcapfile.blocks(Trickle(make.pcap(FRAMES, link=1), step))) == EXPECTED


def test_gzip_of_several_members_is_read_as_one(make):
    data = make.pcap(FRAMES, link=1)
    zipped = gzip.compress(data[:50], mtime=0) + gzip.compress(data[50:])
    assert frames(make.read(zipped)) == EXPECTED
    assert frames(pcapfile.blocks(Trickle(zipped, 3))) == EXPECTED


def test_a_truncated_gzip_gives_what_is_whole(make):
    many = [(T + i, bytes([i & 255]) * 50) for i in range(2000)]
    zipped = gzip.compress(make.pcap(many, link=1))
    blocks = make.read(zipped[: len(zipped) // 2])
    assert 0 < len(frames(blocks)) < 2000
    assert refused(blocks)[Reason.TRUNCATED] >= 1


@pytest.mark.parametrize("many", [1, 5000])
def test_a_gzip_with_a_bad_checksum_gives_all_that_is_before_it(make, many):
    zipped = gzip.compress(make.pcap(FRAMES * many, link=1))
    for end in (zipped[:-8] + bytes(8), zipped[:-8], zipped[:-3]):
        blocks = make.read(end)
        assert frames(blocks) == EXPECTED * many
        assert refused(blocks) == {Reason.TRUNCATED: 1}


def test_many_empty_members_are_read_in_a_time_that_grows_with_the_file(make):
    empty = gzip.compress(b"", mtime=0) * 50_000
    assert frames(make.read(empty + gzip.compress(make.pcap(FRAMES, link=1)) + empty)) == EXPECTED


@pytest.mark.parametrize("lost", range(1, 77))
def test_a_truncated_file_gives_what_is_whole(make, lost):
    data = make.pcap(FRAMES[:2], link=1)
    blocks = make.read(data[:-lost])
    whole = 2 if lost == 0 else (1 if lost < 18 else 1 if lost == 18 else 0)
    assert frames(blocks) == EXPECTED[:whole]
    assert refused(blocks) == ({} if lost == 18 else {Reason.TRUNCATED: 1})


def test_a_length_that_cannot_be_ends_the_file(make):
    data = make.pcap(FRAMES[:1], link=1) + struct.pack("<IIII", 0, 0, 1 << 20, 1 << 20) + bytes(100)
    blocks = make.read(data)
    assert frames(blocks) == EXPECTED[:1]
    assert refused(blocks) == {Reason.LENGTH: 1}


@pytest.mark.parametrize(
    "data", [b"", b"\xd4\xc3", b"GET / HTTP/1.1\r\n\r\n" * 9, gzip.compress(b"hello", mtime=0)]
)
def test_what_is_no_capture_is_refused(data):
    with pytest.raises(DecodeError) as told:
        list(pcapfile.blocks(io.BytesIO(data)))
    assert told.value.reason is Reason.FORMAT


def test_another_version_is_refused():
    with pytest.raises(DecodeError) as told:
        list(pcapfile.blocks(io.BytesIO(struct.pack("<IHHiIII", 0xA1B2C3D4, 9, 4, 0, 0, 65535, 1))))
    assert told.value.reason is Reason.VERSION


# -- pcapng


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order):
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order, link, resolution=None, offset=None, snap=0):
    body = struct.pack(order + "HHI", link, 0, snap)
    if resolution is not None:
        body += struct.pack(order + "HHBxxx", 9, 1, resolution)
    if offset is not None:
        body += struct.pack(order + "HHq", 14, 8, offset)
    return block(order, 1, body + struct.pack(order + "HH", 0, 0))


def enhanced(order, which, stamp, data, length=None):
    head = struct.pack(
        order + "IIIII", which, stamp >> 32, stamp & 0xFFFFFFFF, len(data), length or len(data)
    )
    return block(order, 6, head + data + bytes(-len(data) % 4))


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_with_several_interfaces_and_units(make, order):
    half = (5 << 20) | (1 << 19)
    data = section(order) + interface(order, 1) + interface(order, 113, 9, 100) + block(order, 99, b"unknown")
    data += interface(order, 276, 0x80 | 20) + interface(order, 101, 12)
    data += enhanced(order, 0, 1_000_001, b"micro", 99) + enhanced(order, 1, 7, b"nano")
    data += enhanced(order, 2, half, b"binary") + enhanced(order, 3, 3_000_000_004_999, b"pico")
    assert frames(make.read(data)) == [
        (1_000_001_000, b"micro", 99, 1),
        (100_000_000_007, b"nano", 4, 113),
        (5_500_000_000, b"binary", 6, 276),
        (3_000_000_004, b"pico", 4, 101),
    ]


def test_pcapng_sections_may_differ_in_byte_order(make):
    data = b"".join(
        section(o) + interface(o, link) + enhanced(o, 0, 5, b"x") for o, link in (("<", 1), (">", 101))
    )
    assert [link for *_, link in frames(make.read(data))] == [1, 101]


def test_pcapng_simple_and_obsolete_packets(make):
    data = section("<") + interface("<", 1, snap=4)
    data += enhanced("<", 0, 3, b"first")
    data += block("<", 3, struct.pack("<I", 6) + b"simple"[:4])
    data += block("<", 2, struct.pack("<HHIIII", 0, 0, 0, 4, 3, 3) + b"old")
    assert frames(make.read(data)) == [
        (3000, b"first", 5, 1),
        (3000, b"simp", 6, 1),
        (4000, b"old", 3, 1),
    ]


def test_pcapng_packets_that_cannot_be_are_counted(make):
    data = section("<") + interface("<", 1)
    data += enhanced("<", 5, 1, b"no such interface")
    data += block("<", 6, struct.pack("<IIIII", 0, 0, 0, 99, 99) + b"shorter")
    data += enhanced("<", 0, (1 << 64) - 1, b"in the year 586524")
    data += enhanced("<", 0, 9, b"good") + struct.pack("<III", 6, 64, 0)
    blocks = make.read(data)
    assert [f[1] for f in frames(blocks)] == [b"good"]
    assert refused(blocks) == {
        Reason.INTERFACE: 1, Reason.LENGTH: 1, Reason.CORRUPT: 1, Reason.TRUNCATED: 1,
    }  # fmt: skip


def test_a_long_unknown_block_is_stepped_over(make):
    data = section("<") + interface("<", 1) + block("<", 77, bytes(3 << 20)) + enhanced("<", 0, 9, b"good")
    blocks = make.read(data, piece_bytes=1)
    assert [f[1] for f in frames(blocks)] == [b"good"]
    assert refused(blocks) == {}


def test_a_broken_second_section_is_counted_not_raised(make):
    data = section("<") + interface("<", 1) + enhanced("<", 0, 9, b"good") + section("<")[:8] + bytes(40)
    blocks = make.read(data)
    assert [f[1] for f in frames(blocks)] == [b"good"]
    assert refused(blocks) == {Reason.FORMAT: 1}


SIZES = st.lists(st.sampled_from((0, 1, 60, 1500, 65_000, 200_000)), min_size=1, max_size=12)


@settings(max_examples=60)
@given(SIZES, st.booleans(), st.integers(9, 19), st.integers(0, 16), st.integers(-20, 20))
def test_however_much_is_read_at_once_the_frames_are_the_same(make, sizes, newer, power, lost, more):
    bodies = [bytes([i]) * n for i, n in enumerate(sizes)]
    if newer:
        data = section("<") + interface("<", 1) + block("<", 77, bytes(1000))
        data += b"".join(enhanced("<", 0, 9, b) for b in bodies)
        data += section(">") + interface(">", 1) + b"".join(enhanced(">", 0, 9, b) for b in bodies)
        whole = [b for b in bodies if b] * 2
    else:
        data = make.pcap([(T, b) for b in bodies], link=1)
        whole = [b for b in bodies if b]
    cut = data[: len(data) - lost]
    with mock.patch.object(pcapfile, "_STEP", (1 << power) + more):
        got = list(make.read(cut, piece_bytes=1))
    wanted = list(make.read(cut))
    assert frames(got) == frames(wanted)
    assert refused(got) == refused(wanted)
    if not lost:
        assert [f[1] for f in frames(got) if f[1]] == whole


HEADS = (
    b"",
    struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1),
    struct.pack(">IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101),
    section("<"),
    section(">") + interface(">", 1, 0x8A, -5),
    b"\x1f\x8b\x08\x00",
)


@given(st.sampled_from(HEADS), st.binary(max_size=400))
def test_any_bytes_decode_or_are_refused(head, data):
    try:
        for b in pcapfile.blocks(io.BytesIO(head + data)):
            assert ((b.offset >= 0) & (b.offset + b.captured <= b.data.size - pcapfile.PADDING)).all()
    except DecodeError:
        pass


@given(st.lists(st.binary(max_size=90), max_size=12), st.data())
def test_any_flipped_byte_decodes_or_is_refused(bodies, data):
    whole = bytearray(section("<") + interface("<", 1) + b"".join(enhanced("<", 0, 9, b) for b in bodies))
    for _ in range(3):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        for b in pcapfile.blocks(io.BytesIO(bytes(whole))):
            assert ((b.offset >= 0) & (b.offset + b.captured <= b.data.size - pcapfile.PADDING)).all()
    except DecodeError:
        pass
