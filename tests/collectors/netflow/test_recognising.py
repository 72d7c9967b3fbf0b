"""Exports known by their first octets; the kernel against a plain reading."""

import struct
from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectors.netflow.messages import u2, u4
from collectors.netflow.recognising import exports
from collectors.reading import PADDING


def known(payload):
    """What the kernel says of one payload, with something else behind it."""
    data = np.frombuffer(bytearray(b"\xff" * 3 + payload + b"\xff" * PADDING), np.uint8)
    return bool(exports(data, np.array([3]), np.array([len(payload)]))[0])


def plainly(payload):
    """The specification: the kernel's twin."""
    if len(payload) < 20:
        return False
    version = u2(payload, 0)
    if version == 0:
        kind = u4(payload, 4)
        if u4(payload, 0) != 5 or kind > 2:
            return False
        at = 8 + (0, 4, 16)[kind]
        if len(payload) < at + 16:
            return False
        return u4(payload, at + 12) == 0 or u4(payload, at + 20) <= len(payload) - at - 24
    if version in (1, 7):
        count, head, record = u2(payload, 2), *((16, 48) if version == 1 else (24, 52))
        plausible = len(payload) == head + record * count and u4(payload, 12) < 1_000_000_000
        return 1 <= count <= 30 and plausible and u4(payload, 8) >= 631_152_000
    if version == 5:
        count = u2(payload, 2)
        return 1 <= count <= 30 and len(payload) >= 24 + 48 * count and u4(payload, 12) < 1_000_000_000
    if version == 9:
        first, length = (u2(payload, 20), u2(payload, 22)) if len(payload) >= 24 else (0, 0)
        return u2(payload, 2) >= 1 and (first in (0, 1) or first >= 256) and 4 <= length <= len(payload) - 20
    if version == 10:
        first, length = u2(payload, 16), u2(payload, 18)
        fits = u2(payload, 2) <= len(payload) and 4 <= length <= u2(payload, 2) - 16
        return fits and (first in (2, 3) or first >= 256)
    return False


NEAR = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 9, 10, 16, 20, 24, 30, 31, 48, 255, 256, 640_000_000, 10**9])


@given(
    st.binary(max_size=80)
    | st.builds(
        lambda version, words, tail: version + b"".join(words) + tail,
        st.sampled_from([b"\0\1", b"\0\5", b"\0\7", b"\0\x09", b"\0\x0a", b"\0\0\0\5\0\0"]),
        st.lists(
            (NEAR.map(lambda n: struct.pack(">H", n & 0xFFFF))) | NEAR.map(lambda n: struct.pack(">I", n))
        ),
        st.binary(max_size=120),
    )
)
def test_the_kernel_knows_what_a_plain_reading_knows(payload):
    assert known(payload) == bool(plainly(payload))


def test_exports_are_known_by_their_first_octets(captures, make):
    seen = 0
    for path in sorted(captures.rglob("*.pcap")):
        for payload, *_ in islice(make.udp_payloads(path), 20):
            assert known(payload) == bool(plainly(payload)), path.name
            expected = "sflow" not in str(path) and "invalid" not in str(path)
            if expected and len(payload) >= 24:
                assert known(payload), path.name
                seen += 1
            if "sflow" in str(path):
                # One of them is cut short after eight octets.
                assert known(payload) == (len(payload) > 8)
    assert seen > 90
    for other in (b"", b"\0\5" * 40, b"GET / HTTP/1.1\r\n\r\n" * 3, bytes(100), b"\0\x0a" + bytes(60)):
        assert not known(other)


def old(version, count=1, seconds=1_700_000_000, size=None):
    head, record = (16, 48) if version == 1 else (24, 52)
    made = struct.pack(">HHIII", version, count, 1000, seconds, 0)
    return made.ljust(head + record * (count if size is None else size), b"\0")


def test_old_exports_are_known_by_their_length_and_time():
    assert known(old(1))
    assert known(old(7))
    assert not known(old(1) + b"x")
    assert not known(old(7, count=9, size=1))
    assert not known(old(7, seconds=5))
