"""Messages of Stratum V2 without Noise: read whole, at any cut, or refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from speakers.stratum2 import SPEAKERS

from detector.transports import stratum2


def stream(kind, side):
    """What one side says, some shares in."""
    speaker = kind()
    said = [*speaker.open(), *speaker.job(0, 1e12, True)[0]]
    for fate in ("accepted", "rejected", "stale"):
        request = speaker.share(0)
        said += [("c", request), ("s", speaker.reply(request, fate))]
    return [message for who, message in said if who == side]


@pytest.mark.parametrize("side", ["c", "s"])
@pytest.mark.parametrize("kind", SPEAKERS, ids=lambda k: k.name)
def test_every_message_is_read_and_of_its_side(kind, side):
    said = stream(kind, side)
    data, at, read = b"".join(said), 0, []
    while at < len(data):
        at, message = stratum2.step(data, at)
        if message is not None:
            read.append(msgspec.json.decode(message)["stratum2"])
    assert len(read) == len([m for m in said if m[0] == 0]), "those of extensions are passed over"
    sides = {m.name: m.side for m in stratum2.load().values()}
    assert {sides[name] for name in read} == {"client" if side == "c" else "server"}


@pytest.mark.parametrize("kind", SPEAKERS, ids=lambda k: k.name)
def test_a_message_that_is_cut_waits_and_one_that_is_longer_is_refused(kind):
    for message in stream(kind, "c") + stream(kind, "s"):
        assert stratum2.step(message[:-1], 0) == (0, None)
        if message[2] != 0x1B and message[0] == 0:  # whose end is extensions; what is of one
            grown = message[:3] + (len(message) - 6 + 9).to_bytes(3, "little") + message[6:] + bytes(9)
            with pytest.raises(ValueError, match="length"):
                stratum2.step(grown, 0)


def test_a_stream_begins_with_its_setup_one_that_was_joined_with_any_whole_message():
    share = stream(SPEAKERS[0], "c")[-1]
    setup = stream(SPEAKERS[0], "c")[0]
    assert stratum2.begins(setup, joined=False)
    assert stratum2.begins(setup[:7], joined=False) is None
    assert stratum2.begins(share, joined=False) is False
    assert stratum2.begins(share, joined=True)
    assert stratum2.begins(share[:20], joined=True) is False
    assert stratum2.begins(bytes(64), joined=True) is False


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_messages_or_refused(data, joined):
    assert stratum2.begins(data, joined=joined) in {True, False, None}
    try:
        at, message = stratum2.step(data, 0)
    except ValueError:
        return
    assert 0 <= at <= len(data)
    assert message is None or "stratum2" in msgspec.json.decode(message)


@pytest.mark.parametrize(
    "extensions",
    ["000201" + "0004", "020001" + "0400", "000201" + "0400", "000301" + "0001" + "aa" + "000201" + "0004"],
)
def test_a_worker_is_named_behind_a_share_however_its_numbers_are_written(extensions):
    share = stream(SPEAKERS[0], "c")[-1][6:] + b"\0" + bytes.fromhex(extensions) + b"rig7"
    assert stratum2.read(0x1B, share)["worker"] == "rig7"
    assert stratum2.read(0x1B, share[:25])["worker"] == ""


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (lambda s: s, 0),
        (lambda s: s[7:] + s, 23),
        (lambda s: b"\0\x80" + s, 2),
        (lambda s: s[7:] + s + s[:9], 23),
        (lambda s: s[7:] + s[:20], -1),
        (lambda s: s[7:] + s + b"\1" * 9, -1),
        (lambda s: bytes(400), -1),
    ],
)
def test_frames_are_found_within_a_stream_where_all_that_follows_can_be_read(data, at):
    assert stratum2.find(data(stream(SPEAKERS[0], "c")[-1])) == at
