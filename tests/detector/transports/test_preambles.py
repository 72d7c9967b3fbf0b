"""Preambles: each is as long as it says and names its target; cut short more is asked for."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.transports import preambles

FOUR, SIX = bytes([203, 0, 113, 9]), bytes.fromhex("20010db8000000000000000000000009")
V2 = preambles.SIGNATURE

CASES = [
    (preambles.proxy_line, b"PROXY TCP4 198.51.100.1 203.0.113.9 40000 3333\r\n", "203.0.113.9:3333"),
    (preambles.proxy_line, b"PROXY TCP6 2001:db8::1 2001:db8::9 40000 3333\r\n", "[2001:db8::9]:3333"),
    (preambles.proxy_line, b"PROXY UNKNOWN\r\n", ""),
    (
        preambles.proxy_header,
        V2 + b"\x21\x11\0\x0c" + bytes(4) + FOUR + struct.pack(">HH", 4, 3333),
        "203.0.113.9:3333",
    ),
    (
        preambles.proxy_header,
        V2 + b"\x21\x21\0\x29" + bytes(16) + SIX + struct.pack(">HH", 4, 3333) + b"\x03\0\x02ab",
        "[2001:db8::9]:3333",
    ),
    (preambles.proxy_header, V2 + b"\x20\0\0\0", ""),
    (preambles.socks4, b"\4\1" + struct.pack(">H", 3333) + FOUR + b"me\0", "203.0.113.9:3333"),
    (
        preambles.socks4,
        b"\4\1" + struct.pack(">H", 3333) + b"\0\0\0\1me\0pool.example\0",
        "pool.example:3333",
    ),
    (preambles.socks4, b"\0\x5a" + bytes(6), ""),
    (preambles.socks5_opening, b"\5\2\0\2", ""),
    (preambles.socks5_opening, b"\5\0", ""),
    (preambles.socks5, b"\1\2me\6secret", ""),
    (preambles.socks5, b"\1\0", ""),
    (preambles.socks5, b"\5\1\0\1" + FOUR + struct.pack(">H", 3333), "203.0.113.9:3333"),
    (preambles.socks5, b"\5\1\0\4" + SIX + struct.pack(">H", 3333), "[2001:db8::9]:3333"),
    (preambles.socks5, b"\5\1\0\3\x0cpool.example" + struct.pack(">H", 3333), "pool.example:3333"),
]


@pytest.mark.parametrize(("reader", "data", "target"), CASES)
def test_a_preamble_is_as_long_as_it_says_and_names_its_target(reader, data, target):
    assert reader(data) == (len(data), target)
    assert reader(data + b'{"id":1}\n') == (len(data), target)


@pytest.mark.parametrize(("reader", "data", "target"), CASES)
def test_cut_short_more_is_asked_for(reader, data, target):
    for n in range(1, len(data)):
        assert reader(data[:n]) is None


@pytest.mark.parametrize(
    ("reader", "data"),
    [
        (preambles.proxy_header, V2 + b"!\n\0\0"),
        (preambles.proxy_header, V2 + b"\x21\x11\xff\xff"),
        (preambles.proxy_header, b"\r\n\r\n{"),
        (preambles.proxy_line, b"PROXY " + b"x" * 200),
        (preambles.socks4, b"\4\7ab"),
        (preambles.socks4, b"\4\1\0\1\1\1\1\1" + b"u" * 400),
        (preambles.socks5_opening, b"\5\xff"),
        (preambles.socks5, b"\5\1\0\7ab"),
        (preambles.socks5, b'{"id":1}'),
    ],
)
def test_what_is_none_is_refused(reader, data):
    with pytest.raises(ValueError):
        reader(data)


READERS = sorted({reader for reader, *_ in CASES}, key=lambda r: r.__name__)


@given(
    st.sampled_from(READERS),
    st.sampled_from([b"", V2, b"PROXY ", b"\5", b"\4\1", b"\1"]),
    st.binary(max_size=300),
)
def test_any_bytes_are_a_preamble_or_refused(reader, head, data):
    try:
        found = reader(head + data)
    except ValueError:
        return
    assert found is None or 0 < found[0] <= len(head + data)
