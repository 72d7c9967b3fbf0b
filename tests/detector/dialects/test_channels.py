"""Channels of Stratum V2: which target holds for which share, groups, sums, headers that are hashed."""

import hashlib
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_rows import batch
from speakers.stratum2 import Standard, frame, text
from spoken import Talk

from detector.observers.payload import PayloadObserver
from detector.tracks import State

ALL = 1 << 256
EASY = 2048.0


def u32(*numbers):
    return struct.pack(f"<{len(numbers)}I", *numbers)


def target(hashes):
    return int(ALL / hashes).to_bytes(32, "little")


def opened(channel, hashes, group=0, prefix=b"abcd"):
    said = u32(1, channel) + target(hashes) + bytes([len(prefix)]) + prefix + u32(group)
    return frame(0x11, said)


def set_target(channel, hashes):
    return frame(0x21, u32(channel) + target(hashes), True)


def job(channel, number, active=False, root=bytes(32)):
    said = u32(channel, number) + (b"\1" + u32(7) if active else b"\0") + u32(0x20000000) + root
    return frame(0x15, said, True)


def parent(channel, number, previous=bytes(32), bits=0x1702905C):
    return frame(0x20, u32(channel, number) + previous + u32(7, bits), True)


def share(channel, sequence, number, nonce=1, version=0x20000000):
    return frame(0x1A, u32(channel, sequence, number, nonce, 7, version), True)


def accepted(channel, last, count=1, total=1):
    return frame(0x1C, struct.pack("<IIIQ", channel, last, count, total), True)


ASKS = frame(0x10, u32(1) + text("bc1qlabonly.rig") + struct.pack("<f", 1e12) + b"\xff" * 32)


def begin(begun=True):
    """A connection, its setup said where its beginning is seen."""
    talk = Talk(begun=begun)
    for side, message in Standard().setup() if begun else ():
        talk.say(side, message)
    return talk


def facts(*said, begun=True):
    """What a conversation tells: octets of the client where they are a share or ask for a channel."""
    talk = begin(begun)
    for message in said:
        talk.say("c" if message[2] in {0x10, 0x1A, 0x1B, 0x16, 0x18} else "s", message)
        talk.wait(1)
    observer = PayloadObserver()
    seen = observer.step(batch(talk.rows))
    state = observer.state(talk.client[0])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State) == state
    return seen.sessions[-1] if seen.sessions else None


def test_a_groups_target_reaches_all_its_channels():
    told = facts(
        ASKS, opened(7, 1e12, 1), ASKS, opened(8, 1e12, 1), job(7, 3), job(8, 3), set_target(1, 4e12),
        parent(1, 3), share(7, 1, 3), accepted(7, 1), share(8, 1, 3), accepted(8, 1),
    )  # fmt: skip
    assert (told.shares.accepted, told.hashes) == (2, pytest.approx(8e12, rel=1e-6))


def test_channels_join_a_group_later_and_another_groups_target_is_not_theirs():
    said = [ASKS, opened(7, 1e12, 1), frame(0x25, u32(2) + struct.pack("<HI", 1, 7)), job(7, 3)]
    for group, worth in ((1, 1e12), (2, 4e12)):
        told = facts(*said, set_target(group, 4e12), parent(2, 3), share(7, 1, 3), accepted(7, 1))
        assert told.hashes == pytest.approx(worth, rel=1e-6)


def test_a_target_is_for_jobs_to_come_and_for_those_that_wait():
    begins = [ASKS, opened(7, 1e12), job(7, 1), parent(7, 1), job(7, 2), set_target(7, 4e12)]
    now = facts(*begins, share(7, 1, 1), accepted(7, 1))
    assert now.hashes == pytest.approx(1e12, rel=1e-6)
    waited = facts(*begins, parent(7, 2), share(7, 1, 2), accepted(7, 1))
    assert waited.hashes == pytest.approx(4e12, rel=1e-6)
    came = facts(*begins, job(7, 3, active=True), share(7, 1, 3), accepted(7, 1))
    assert came.hashes == pytest.approx(4e12, rel=1e-6)


def test_sums_of_difficulties_tell_what_shares_are_worth_where_no_target_was_seen():
    said = [m for n in range(5) for m in (share(7, n, 9),)]
    told = facts(*said, accepted(7, 4, 5, 5 * 1000), begun=False)
    assert (told.shares.accepted, told.hashes) == (5, 5000 * 2.0**32)
    counted = facts(*said, accepted(7, 4, 5, 5), begun=False)
    assert (counted.shares.accepted, counted.hashes_shares) == (5, 0)
    known = facts(ASKS, opened(7, 1e12), job(7, 9), parent(7, 9), *said, accepted(7, 4, 5, 5 * 1000))
    assert known.hashes == pytest.approx(5e12, rel=1e-6)


def test_what_is_claimed_is_kept_apart():
    update = frame(0x16, u32(7) + struct.pack("<f", 5e12) + b"\xff" * 32, True)
    told = facts(ASKS, opened(7, 1e12), job(7, 1), parent(7, 1), update, share(7, 1, 1), accepted(7, 1))
    assert told.claimed == pytest.approx(5e12, rel=1e-6)
    assert told.hashes == pytest.approx(1e12, rel=1e-6)


def sha256d(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def mined(root, previous, bits, version=0x20000000):
    """A nonce whose hash meets the target of EASY."""
    for nonce in range(1 << 20):
        header = u32(version) + previous + root + u32(7, bits, nonce)
        if int.from_bytes(sha256d(header), "little") <= ALL / EASY:
            return nonce
    raise AssertionError


def test_a_standard_channels_share_is_hashed():
    root, previous, bits = bytes(range(32)), bytes(range(32, 64)), 0x1702905C
    said = [ASKS, opened(7, EASY), job(7, 1, root=root), parent(7, 1, previous, bits)]
    for number in range(3):
        version = 0x20000000 + (number << 13)
        nonce = mined(root, previous, bits, version)
        said += [share(7, number, 1, nonce, version), accepted(7, number)]
    told = facts(*said)
    assert (told.algorithm, told.shares.verified, told.shares.accepted) == ("sha256d", 3, 3)
    spoiled = [m[:22] + b"\0\0\0\0" + m[26:] if m[2] == 0x1A else m for m in said]
    assert facts(*spoiled).shares.verified == 0


@pytest.mark.parametrize("own", [300, 1], ids=["its own job", "its group's"])
def test_an_extended_channels_share_is_hashed(own):
    before, after, leaf, previous = b"\1" * 40, b"\2" * 60, b"\3" * 32, bytes(range(32))
    whole = u32(own, 5) + b"\0" + u32(0x20000000) + b"\1\1" + leaf
    whole += struct.pack("<H", 40) + before + struct.pack("<H", 60) + after
    asks = frame(0x13, ASKS[6:] + b"\4\0")
    yes = u32(1, 300) + target(EASY) + b"\4\0" + b"\2pp" + u32(1)
    moved = frame(0x19, u32(300) + b"\2qq", True)
    said = [asks, frame(0x14, yes), moved, frame(0x1F, whole, True), parent(own, 5, previous)]
    said[0] = b"\0\0\x13" + said[0][3:]
    talk = begin()
    for side, message in zip("csss" + "s", said, strict=True):
        talk.say(side, message)
    for number in range(3):
        extra = u32(number)
        root = sha256d(sha256d(before + b"qq" + extra + after) + leaf)
        nonce = mined(root, previous, 0x1702905C)
        fields = u32(300, number, 5, nonce, 7, 0x20000000) + b"\4" + extra + b"\0\2\1\0\4rig3"
        talk.say("c", frame(0x1B, fields, True))
        talk.say("s", accepted(300, number))
        talk.wait(1)
    (told,) = PayloadObserver().step(batch(talk.rows)).sessions
    assert told.shares.verified == 3
    assert "rig3" in told.workers


def test_frames_are_found_again_within_a_stream_and_behind_a_loss():
    said = [share(7, n, 9) for n in range(4)]
    talk = Talk(begun=False)
    talk.say("c", said[0][11:])
    talk.say("c", said[1][9:] + said[2])
    talk.say("s", accepted(7, 2, 1, 1000))
    talk.say("c", b"")
    talk.seq["c"] += 500  # lost
    talk.say("c", said[1][5:] + said[3], flags=1)
    talk.say("s", accepted(7, 3, 1, 1000))
    (told,) = PayloadObserver().step(batch(talk.rows)).sessions
    assert told.shares.accepted == 2


def test_so_many_channels_are_kept():
    talk = begin()
    for channel in range(300):
        talk.say("c", ASKS)
        talk.say("s", opened(channel, 1e12))
    observer = PayloadObserver()
    observer.step(batch(talk.rows))
    ((_, track),) = observer.state(talk.client[0]).tracks
    assert len(track.session.force.channels) == 256
    assert observer.stats.dropped["channels"] == 44


NUMBERS = st.integers(0, 3) | st.integers(0, 2**32 - 1)
HASHES = st.sampled_from([1.5, 1e6, 1e12, 1e29])
MESSAGES = st.one_of(
    st.just(ASKS),
    st.builds(opened, NUMBERS, HASHES, NUMBERS, st.binary(max_size=32)),
    st.builds(set_target, NUMBERS, HASHES),
    st.builds(job, NUMBERS, NUMBERS, st.booleans(), st.binary(min_size=32, max_size=32)),
    st.builds(parent, NUMBERS, NUMBERS, st.binary(min_size=32, max_size=32), NUMBERS),
    st.builds(share, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(accepted, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2**64 - 1)),
    st.builds(lambda g, some: frame(0x25, u32(g) + struct.pack("<H", len(some)) + u32(*some)), NUMBERS,
              st.lists(NUMBERS, max_size=4)),
    st.builds(lambda c, p: frame(0x19, u32(c) + bytes([len(p)]) + p, True), NUMBERS, st.binary(max_size=32)),
    st.builds(lambda k, b: frame(k, b, True), st.integers(0, 0x26), st.binary(max_size=80)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGES, max_size=12), st.booleans())
def test_whatever_is_said_in_whatever_order_is_kept_within_its_bounds(said, begun):
    told = facts(*said, begun=begun)
    assert told is None or told.shares.accepted <= len(said)


ODD = {
    "channel_id": st.sampled_from([7, -1, 1 << 62]),
    "job_id": st.just(1),
    "group_channel_id": st.sampled_from([7, "x", None]),
    "extranonce_prefix": st.sampled_from(["", "A", "aB", "zz"]),
    "target": st.just("F" * 64),
    "merkle_root": st.just("AB" * 32),
    "coinbase_prefix": st.sampled_from(["ABC", "AB"]),
    "coinbase_suffix": st.just(""),
    "merkle_path": st.just(["CD" * 32]),
    "channel_ids": st.sampled_from([[7], ["7"], [[7]]]),
}
NAMES = ["NewMiningJob", "OpenStandardMiningChannel.Success", "NewExtendedMiningJob", "SetGroupChannel"]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES), st.fixed_dictionaries({}, optional=ODD))
def test_lines_of_text_that_look_like_its_messages_do_no_harm(name, members):
    talk = Talk()
    told = {
        "stratum2": "SetNewPrevHash",
        "channel_id": 7,
        "job_id": 1,
        "prev_hash": "AB" * 32,
        "bits": 1 << 40,
    }
    sent = {"stratum2": "SubmitSharesStandard", "channel_id": 7, "job_id": 1, "id": "7/1", "nonce": -1}
    talk.s({"stratum2": name, **members})
    talk.s(told)
    talk.c(sent | {"ntime": 0, "version": 1})
    observer = PayloadObserver()
    observer.step(batch(talk.rows))
    state = observer.state(talk.client[0])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State) == state
