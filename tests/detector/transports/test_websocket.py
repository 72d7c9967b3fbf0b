"""WebSocket: what an independent sender frames is read, however it is cut; anything else is refused."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrapped import BINARY, MORE, TEXT, Deflater, cut, frame

from detector.transports import websocket
from detector.transports.inflating import MAX_INFLATED
from detector.transports.websocket import MAX_MESSAGE, Frames


def read(parts, frames=None):
    """Messages of a stream that comes in ``parts``; None for one that cannot be read."""
    frames, held, out = frames or Frames(), b"", []
    for part in parts:
        data, at = held + part, 0
        while at < len(data):
            after, whole, message = frames.step(data, at)
            if whole:
                out.append(message)
            elif after == at:
                break
            at = after
        held = data[at:]
        assert len(held) < websocket.MAX_HEADER
    return out


@given(
    st.lists(st.tuples(st.binary(max_size=400), st.booleans(), st.integers(0, 3), st.booleans()), max_size=6),
    st.lists(st.integers(0, 5000), max_size=20),
    st.booleans(),
)
def test_what_was_framed_is_read_however_it_is_cut(said, places, masked):
    stream, pack = b"", Deflater()
    for data, packed, fragments, pinged in said:
        sent = pack(data) if packed else data
        ends = sorted(random.Random(len(data)).randrange(len(sent) + 1) for _ in range(fragments))
        pieces = [sent[a:b] for a, b in zip([0, *ends], [*ends, len(sent)], strict=True)]
        for n, piece in enumerate(pieces):
            stream += frame(
                piece, TEXT if not n else MORE, final=n == fragments, masked=masked, packed=packed and not n
            )
            stream += frame(b"{ping}", 9, masked=masked) if pinged else b""
    assert read(cut(stream, places)) == [data for data, *_ in said]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
@pytest.mark.parametrize("masked", [False, True])
def test_every_length_is_read(size, masked):
    data = os.urandom(size)
    assert read([frame(data, BINARY, masked=masked)]) == [data if size <= MAX_MESSAGE else None]
    assert read([frame(data[:9], masked=masked, room=8)]) == [data[:9]]


def test_a_window_is_kept_over_messages_and_a_new_one_does_no_harm():
    lines = [b'{"id":%d,"method":"mining.submit","params":["worker.name","job","00"]}' % n for n in range(50)]
    for takeover in (True, False):
        pack = Deflater(takeover=takeover)
        assert read([frame(pack(line), packed=True) for line in lines]) == lines


def test_joined_in_the_middle_what_looks_back_is_not_read_and_nothing_false_is():
    pack, lines = Deflater(), [b'{"id":%d,"method":"mining.submit"}' % n for n in range(9)]
    sent = [frame(pack(line), packed=True) for line in lines]
    got = read(sent[3:])
    assert None in got
    assert all(message is None or message in lines for message in got)
    alone = Deflater(takeover=False)
    assert read([frame(alone(line), packed=True) for line in lines][3:]) == lines[3:]


def test_a_bomb_and_a_message_that_is_too_long_are_not_kept():
    frames = Frames()
    bomb = Deflater()(bytes(50_000_000))
    assert len(bomb) < MAX_MESSAGE
    assert read([frame(bomb, packed=True), frame(b"x")], frames) == [None, b"x"]
    long = [frame(bytes(60000), final=False)] + [frame(bytes(60000), MORE, final=False)] * 50
    assert read([*long, frame(b"", MORE), frame(b"y")], frames) == [None, b"y"]
    assert not frames.message
    longest = random.Random(1).randbytes(MAX_INFLATED // 2).hex().encode()
    assert read([frame(Deflater()(longest), packed=True)]) == [longest]
    # What swells as no text of a miner's does costs no more than it takes on the wire.
    assert read([frame(Deflater()(bytes(60_000)), packed=True), frame(b"z")]) == [None, b"z"]
    assert read([frame(Deflater()(b" " * 4000), packed=True)]) == [b" " * 4000]


@pytest.mark.parametrize(
    "bad",
    [b"\x91\x00", b"\xb1\x00", b"\x83\x00", b"\x8b\x00", b"\x09\x00", b"\x89\x7e\x00\x80", b"\xc9\x00",
     b"\x82\x7f" + b"\xff" * 8, b"GET / HTTP/1.1", b'{"id":1}', b"\x16\x03\x01\x02\x00"],
)  # fmt: skip
def test_what_is_no_frame_is_refused(bad):
    with pytest.raises(ValueError):
        read([bad])


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_messages_or_refused(parts):
    frames = Frames()
    try:
        got = read(parts, frames)
    except ValueError:
        return
    assert all(message is None or len(message) <= MAX_INFLATED for message in got)
    assert len(frames.message) <= MAX_MESSAGE


@given(st.binary(max_size=64), st.binary(min_size=4, max_size=4), st.integers(0, 64))
def test_unmasking_begins_anywhere(data, key, at):
    whole = bytes(b ^ key[i & 3] for i, b in enumerate(data))
    at = min(at, len(data))
    assert websocket.unmask(whole[at:], key, at) == data[at:]


def test_frames_are_told_from_the_middle_of_something():
    ours = frame(b'{"id":1}', masked=True) + frame(b"", 9, masked=True) + frame(b"[]", masked=True)
    assert websocket.is_frames(ours)
    assert not websocket.is_frames(ours[:-1])
    assert not websocket.is_frames(ours + b"x")
    assert not websocket.is_frames(frame(b"hello", masked=True))
    assert not websocket.is_frames(b'ed","x"],"id":1}\n')
    assert not websocket.is_frames(b"")


@given(st.binary(max_size=60).filter(lambda b: not set(b) & {1, 2, 0x81, 0x82}), st.booleans())
def test_the_next_message_is_found_behind_anything(before, masked):
    data = before + frame(b'{"id":1,"method":"login"}', masked=masked)
    assert websocket.find(data) == (len(before), True)
    place, sure = websocket.find(data[: len(before) + 9])
    assert (place, sure) in {(len(before), False), (len(before), True)}


@pytest.mark.parametrize(
    "data", [b'{"id":1}', b"\x81\x05hello", b"\xc1\x05{abcd", b"\x81\x83abcdefg", b"\x01\x09{hello..."]
)
def test_words_and_what_is_compressed_are_not_found(data):
    assert websocket.find(data) == (len(data), False)


def test_fragments_that_never_tell_are_given_up():
    """One who sends empty fragments is not held for ever."""
    assert websocket.begins(frame(b"", 1, final=False) + frame(b"", 0, final=False) * 100, 0) is None
    assert websocket.begins(frame(b"", 1, final=False) + frame(b"", 0, final=False) * 1000, 0) is False


@given(st.binary(max_size=400), st.integers(0, 20))
def test_any_bytes_are_searched(data, at):
    place, sure = websocket.find(data, min(at, len(data)))
    assert min(at, len(data)) <= place <= len(data)
    assert not sure or websocket.begins(data, place)
