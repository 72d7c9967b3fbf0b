"""scapy's reader of capture files is the twin of the compiled walkers."""

import gzip
import io
import logging
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import DecodeError
from collectors.packet import pcapfile

logging.getLogger("scapy").setLevel(logging.CRITICAL)
from scapy.utils import RawPcapNgReader, RawPcapReader  # noqa: E402

ROOT = Path(__file__).parents[3]
SHARED = Path("/work/shared/captures/packets")
FOLDERS = {"pcaps": "*.pcap", "tests/cases": "*/capture.pcap*", str(SHARED): "*/*.pcap*"}
BILLION = 10**9
NG = b"\x0a\x0d\x0d\x0a"


def ours(data):
    """(octets, length on the wire, stamp in ns, link type) of each frame; how many were refused."""
    blocks = list(pcapfile.blocks(io.BytesIO(data)))
    frames = [
        (b.data[o : o + c].tobytes(), int(n), int(t), int(link))
        for b in blocks
        for o, c, n, t, link in zip(b.offset, b.captured, b.length, b.t_ns, b.link, strict=True)
    ]
    return frames, sum(sum(b.refused.values()) for b in blocks)


def scapys(data):
    """The same by scapy.  A simple packet of pcapng has no stamp: None."""
    if data.startswith(NG):
        reader = RawPcapNgReader(io.BytesIO(data))
        return [
            (
                raw,
                told.wirelen,
                None if told.tshigh is None else ((told.tshigh << 32) + told.tslow) * BILLION // told.tsresol,
                told.linktype,
            )
            for raw, told in reader
        ]
    reader = RawPcapReader(io.BytesIO(data))
    unit = 1 if reader.nano else 1000
    return [
        (raw, told.wirelen, told.sec * BILLION + told.usec * unit, reader.linktype) for raw, told in reader
    ]


def agree(data):
    frames, _ = ours(data)
    theirs = scapys(data)
    assert len(frames) == len(theirs)
    for mine, other in zip(frames, theirs, strict=True):
        stamp = mine[2] if other[2] is None else other[2]
        assert mine == (other[0], other[1], stamp, other[3])
    return len(frames)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_record_of_every_capture_is_read_as_scapy_reads_it(folder):
    found = sorted((ROOT / folder).glob(FOLDERS[folder]))
    if not found:
        pytest.skip("no captures there")
    read = 0
    for path in found:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        try:
            refused = ours(data)[1]
        except DecodeError:
            continue
        if not refused:
            read += agree(data)
    assert read > 1000


def block(order, kind, body):
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


@st.composite
def sections(draw):
    """A pcapng file: interfaces with units of their own, enhanced packets on them, simple ones, others."""
    order = draw(st.sampled_from("<>"))
    out = [block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))]
    digits = draw(st.lists(st.sampled_from([0, 3, 6, 9, 0x80 | 20]), min_size=1, max_size=3))
    for n, unit in enumerate(digits):
        option = struct.pack(order + "HHB3xHH", 9, 1, unit, 0, 0)
        out.append(block(order, 1, struct.pack(order + "HHI", (1, 101, 113)[n], 0, 262144) + option))
    for _ in range(draw(st.integers(0, 12))):
        raw = draw(st.binary(max_size=70))
        padded = raw + bytes(-len(raw) % 4)
        kind = draw(st.sampled_from([6, 6, 6, 3, 5, 0x0BAD]))
        which = draw(st.integers(0, len(digits) - 1))
        stamp = draw(st.integers(0, 2**33))
        wire = len(raw) + draw(st.integers(0, 1500))
        head = struct.pack(order + "IIIII", which, stamp >> 32, stamp & 0xFFFFFFFF, len(raw), wire)
        simple = struct.pack(order + "I", len(raw))
        out.append(block(order, kind, {6: head, 3: simple}.get(kind, b"") + padded))
    return b"".join(out)


@given(sections())
@settings(max_examples=150)
def test_sections_made_at_random_are_read_as_scapy_reads_them(data):
    agree(data)


STAMPED = st.tuples(st.integers(0, 2**32 * BILLION - 1), st.binary(max_size=80), st.integers(0, 9000))


@given(st.lists(STAMPED, max_size=12), st.sampled_from("<>"), st.booleans())
@settings(max_examples=150)
def test_files_made_at_random_are_read_as_scapy_reads_them(make, frames, order, nanoseconds):
    frames = [(t, raw, len(raw) + more) for t, raw, more in frames]
    agree(make.pcap(frames, link=1, order=order, nanoseconds=nanoseconds))
