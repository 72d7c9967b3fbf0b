"""What carries lines without showing them is told by one look; chatter and noise are not."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.packet import carriers, tokens
from collectors.packet.table import NO, PICKED, TENTATIVE

ALL = tokens.compile_tokens(tokens.rows())
SCRATCH = np.zeros(1024, np.uint8)
MINING = b'{"id":4,"method":"mining.submit","params":["w","j","00","6b02def0","541a0000"]}'
LOGIN = b'{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"44","pass":"x"}}'
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: x\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n"


def laid(data, before=7):
    """The data somewhere in a block: where, and the block."""
    block = np.frombuffer(b"\x01" * before + data + b"\x02" * 200, np.uint8)
    return block, before, before + len(data)


def masked(data, first=0x81, key=b"\x37\xfa\x21\x3d"):
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + key + bytes(b ^ key[i & 3] for i, b in enumerate(data))


def frame(data):
    return int(carriers.look_frame(*laid(data), ALL, SCRATCH)[0])


@pytest.mark.parametrize(
    "line", [MINING, LOGIN, b" \r\n" + MINING, b"[" + MINING + b"]", LOGIN + b" " * 3000]
)
def test_a_mining_line_is_seen_through_its_mask(line):
    assert frame(masked(line)) == PICKED
    assert frame(masked(line, 0x82)) == PICKED
    # The rest of the frame is in the next segment, or another frame in this one.
    if len(line) < 3000:
        assert frame(masked(line)[:-5]) == PICKED
        assert frame(masked(line) + masked(b"{}")) == PICKED


@given(st.binary(min_size=4, max_size=4))
def test_whatever_the_mask(key):
    assert frame(masked(MINING, key=key)) == PICKED


@pytest.mark.parametrize(
    "text", [b'{"type":"chat","text":"hello"}', b"hello", b"mining.submit", b"", b"42[1]"]
)
def test_a_chat_is_not_picked(text):
    assert frame(masked(text)) == NO


def test_what_is_compressed_passes_on_a_little():
    pack = zlib.compressobj(wbits=-15)
    sent = (pack.compress(MINING * 9) + pack.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert frame(masked(sent, 0xC1)) == TENTATIVE
    assert frame(bytes([0xC1, len(sent)]) + sent) == TENTATIVE
    assert frame(masked(sent, 0xC1)[:-1]) == NO


OPENINGS = {
    UPGRADE: True,
    UPGRADE.replace(b"WebSocket", b"h2c"): False,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": False,
    b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n": True,
    b"HTTP/1.0 200 Connection established\r\n\r\n": True,
    b"HTTP/1.1 200 OK\r\n\r\n": False,
    b"HTTP/1.1 200 Connection established\r\n\r\nmore": False,
    b"\x05\x01\x00": True,
    b"\x05\x00": True,
    b"\x05\x02\x00": False,
    b"\x04\x01\x0d\x05\xcb\x00\x71\x09me\x00": True,
    b"\x04\x02\x0d\x05\xcb\x00\x71\x09me\x00": False,
    b"\x04": False,
    b"POST": False,
}


def test_openings_are_told_from_what_begins_alike():
    assert {data: bool(carriers.opens(*laid(data))) for data in OPENINGS} == OPENINGS


def judged(data, *, now=NO, seen=2, attempts=0, packets=3):
    block, at, end = laid(data)
    f = SimpleNamespace(payload_at=at, payload=end - at)
    r = SimpleNamespace(candidate=now, seen=[seen, 0], attempts=attempts, life_packets=packets)
    limits = SimpleNamespace(attempts=2048)
    plain = getattr(carriers.judge, "py_func", carriers.judge)
    return int(plain(block, f, r, 0, limits, ALL, SCRATCH)), r.attempts


JUDGED = {
    "a client's frame": (masked(MINING), {}, PICKED),
    "a later one": (masked(MINING), {"seen": 18, "now": TENTATIVE}, PICKED),
    "a budget that is spent": (masked(MINING), {"attempts": 2048}, NO),
    "a chat": (masked(b'{"a":1}'), {"now": TENTATIVE}, TENTATIVE),
    "the server's upgrade": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", {"seen": 18}, TENTATIVE),
    "a head": (b"POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\n\r\n", {"seen": 18}, TENTATIVE),
    "a picture": (b"POST /up HTTP/1.1\r\nContent-Type: image/png\r\n\r\n", {}, NO),
    "a body": (b"POST / HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{}", {}, NO),
    "an upgrade": (UPGRADE, {}, TENTATIVE),
    "not the first": (UPGRADE, {"seen": 18}, NO),
    "TLS in a tunnel": (b"\x16\x03\x01\x02\x00\x01", {"now": TENTATIVE}, NO),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", {}, NO),
    "a brace": (b"{", {"now": TENTATIVE}, TENTATIVE),
    "the middle": (b"\x05\x01\x00", {"seen": 0}, NO),
}


@pytest.mark.parametrize("name", JUDGED)
def test_what_a_segment_makes_of_its_connection(name):
    data, given, wanted = JUDGED[name]
    assert judged(data, **given)[0] == wanted


def test_a_flood_of_frames_uses_up_its_budget():
    attempts, searched = 0, 0
    for _ in range(1000):
        got, after = judged(masked(b'{"a":1}'), attempts=attempts)
        assert got == NO
        searched += after > attempts
        attempts = after
    assert 0 < searched < 200


@given(
    st.binary(min_size=1, max_size=200),
    st.sampled_from([b"", b"\x81", b"\x82\xfe", b"\xc1", b"GET ", b"\x05"]),
)
def test_any_bytes_are_judged(data, head):
    assert judged(head + data)[0] in {NO, TENTATIVE, PICKED}


SETUP = bytes.fromhex("000000200000000200020001000000") + b"\x0cpool.example" + bytes(12)
V2 = {
    "setup": SETUP,
    "setup's success": bytes.fromhex("000001060000020000000000"),
    "share": bytes.fromhex("00801a180000") + bytes(24),
    "share with an extranonce": bytes.fromhex("00801b210000") + bytes(33),
    "shares accepted": bytes.fromhex("00801c140000") + bytes(20),
    "parent": bytes.fromhex("008020300000") + bytes(48),
    "target": bytes.fromhex("008021240000") + bytes(36),
}


@pytest.mark.parametrize("data", V2.values(), ids=V2)
def test_stratum_v2_shows_by_the_heads_of_its_messages(data):
    assert carriers.speaks_stratum2(*laid(data))
    assert not carriers.speaks_stratum2(*laid(data[:11]))
    for at in (0, 1, 2, 5) if data[2] in {0, 0x1B} else (0, 1, 2, 3, 5):  # two may be longer
        spoiled = bytearray(data)
        spoiled[at] ^= 0x10
        assert not carriers.speaks_stratum2(*laid(bytes(spoiled)))


@given(st.sampled_from(list(V2.values())), st.integers(1, 255))
def test_stratum_v2_of_another_protocol_or_zeros_are_not_picked(data, protocol):
    assert not carriers.speaks_stratum2(*laid(SETUP[:6] + bytes([protocol]) + SETUP[7:]))
    assert not carriers.speaks_stratum2(*laid(bytes(len(data))))
    assert not carriers.speaks_stratum2(*laid(data[:3] + bytes(3) + data[6:]))


@pytest.mark.parametrize("data", V2.values(), ids=V2)
def test_a_flood_of_single_packets_of_stratum_v2_is_not_picked(data):
    assert judged(data)[0] == PICKED
    assert judged(data, packets=1)[0] == NO


ALIKE = {
    "NetBIOS before SMB 2": "0000004cfe534d4240000100",
    "DNS over TCP": "00801b2101000001000000000000",
    "PostgreSQL": "00000029000300007573657200",
    "Kafka's Produce of version 2": "0000002000000002000000010004",
    "Kafka's Fetch": "0000002000010002000000010004",
    "the settings of HTTP/2": "000000040000000000000000",
    "settings with members": "000012040000000000000300000064",
    "Thrift in frames": "000000208001000100000004",
    "Modbus": "000000000006010300000001",
    "Oracle": "00800000010000000139012c",
    "RTP in TCP": "00801b8060000100000000",
    "zeros": "00" * 40,
}


@pytest.mark.parametrize("head", ALIKE.values(), ids=ALIKE)
def test_protocols_whose_heads_are_alike_are_not_stratum_v2(head):
    assert not carriers.speaks_stratum2(*laid(bytes.fromhex(head) + bytes(24)))
