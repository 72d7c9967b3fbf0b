"""Plain lines that turn to gzip are read, however they are cut; what is no gzip is refused."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrapped import cut

from detector.dialects.lines import Assembler
from detector.transports import unwrapping
from detector.transports.gunzip import MAX_UNFLUSHED, Gunzip

LINES = [b'{"id":%d,"method":"mining.submit","params":["bf%02x","7e"]}' % (n, n) for n in range(9)]


def members():
    return b"".join(gzip.compress(line + b"\n", mtime=0) for line in LINES[2:])


def flushed():
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(pack.compress(line + b"\n") + pack.flush(zlib.Z_SYNC_FLUSH) for line in LINES[2:])


@given(st.sampled_from([members(), flushed(), members().replace(b"\x1f\x8b", b"\n\x1f\x8b")]),
       st.lists(st.integers(0, 2000), max_size=5))  # fmt: skip
def test_lines_behind_the_turn_come_out(packed, places):
    way, lines, refused, out = unwrapping.Wrapping(), Assembler(), {}, []
    begin = b"\n".join(LINES[:2]) + b"\n"
    told = begin + packed
    for piece in cut(told, places):
        out += unwrapping.feed(way, unwrapping.Wrapping(), lines, piece, refused) if piece else []
    assert [line.strip() for line, *_ in out] == LINES
    assert refused == {}


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8b\x08\x08" + bytes(20), b"\x1f\x8b\x08\0" + bytes(6) + b"\xff" * 9, b"plain",
     gzip.compress(bytes(1 << 20)), gzip.compress(b"")[:10] + b"\0\xff\xff\0\0" + bytes(MAX_UNFLUSHED)],
    ids=["a name", "noise", "text", "a bomb", "never flushed"],
)  # fmt: skip
def test_what_is_no_gzip_or_too_much_is_refused(data):
    way = Gunzip()
    with pytest.raises(ValueError):
        way.step(data, way.step(data, 0)[0])


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(data, begun):
    way = Gunzip(open=begun)
    try:
        after, _ = way.step(data, 0)
    except ValueError:
        return
    assert 0 <= after <= len(data)
