"""Streams of IPFIX messages, cut anywhere."""

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import Reason
from collectors.netflow.framing import Framer


def message(body=b""):
    return struct.pack(">HHIII", 10, 16 + len(body), 0, 0, 0) + body


def cut(stream, places):
    edges = [0, *sorted(p % (len(stream) + 1) for p in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def messages(framer, parts):
    out = []
    for part in parts:
        region, sizes = framer.feed(part)
        assert sum(sizes) == len(region)
        at = 0
        for size in sizes:
            out.append(region[at : at + size])
            at += size
    return out


@given(st.lists(st.binary(max_size=40).map(message), max_size=8), st.lists(st.integers(0), max_size=8))
def test_however_a_stream_is_cut_its_messages_are_the_same(sent, places):
    framer = Framer()
    assert messages(framer, cut(b"".join(sent), places)) == sent
    assert framer.unfinished == 0
    assert framer.broken is None


@given(
    st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: message(b"x") + b),
    st.lists(st.integers(0)),
)
def test_any_bytes_are_messages_or_break_the_stream_wherever_they_are_cut(stream, places):
    whole, parted = Framer(), Framer()
    assert messages(whole, [stream]) == messages(parted, cut(stream, places))
    assert (whole.broken, whole.unfinished) == (parted.broken, parted.unfinished)
    assert whole.unfinished < 65536


def test_what_comes_before_a_break_is_good_and_nothing_after_it():
    for bad, why in (
        (b"\0\5" + bytes(60), Reason.VERSION),
        (struct.pack(">HH", 10, 15) + bytes(60), Reason.LENGTH),
        (struct.pack(">HH", 10, 0) + bytes(60), Reason.LENGTH),
    ):
        framer = Framer()
        assert messages(framer, [message(b"a") + bad, message(b"b")]) == [message(b"a")]
        assert framer.broken is why
        assert framer.unfinished == 0


def test_the_longest_message_is_waited_for():
    framer = Framer()
    longest = message(bytes(65535 - 16))
    assert messages(framer, [longest[:-1]]) == []
    assert framer.unfinished == 65534
    assert messages(framer, [longest[-1:]]) == [longest]
