"""What carries lines without showing them is told by one look; chatter and noise are not."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.packet import carriers, tokens
from collectors.packet.heads import AMPLE
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


def frames(data, room=True):
    return int(carriers.look_frames(*laid(data), room, ALL, SCRATCH)[0])


@pytest.mark.parametrize(
    "line", [MINING, LOGIN, b" \r\n" + MINING, b"[" + MINING + b"]", LOGIN + b" " * 3000]
)
def test_a_mining_line_is_seen_through_its_mask(line):
    assert frames(masked(line)) == PICKED
    assert frames(masked(line, 0x82)) == PICKED
    # The rest of the frame is in the next segment, or another frame in this one.
    if len(line) < 3000:
        assert frames(masked(line)[:-5]) == PICKED
        assert frames(masked(line) + masked(b"{}")) == PICKED


@given(st.binary(min_size=4, max_size=4))
def test_whatever_the_mask(key):
    assert frames(masked(MINING, key=key)) == PICKED


@pytest.mark.parametrize(
    "text", [b'{"type":"chat","text":"hello"}', b"hello", b"mining.submit", b"", b"42[1]"]
)
def test_a_chat_is_not_picked(text):
    assert frames(masked(text)) == NO


def squeezed(data):
    pack = zlib.compressobj(wbits=-15)
    return (pack.compress(data) + pack.flush(zlib.Z_SYNC_FLUSH))[:-4]


def plain(data, first=0x81):
    return bytes([first, len(data)]) + data


PING = masked(b"hi", 0x89)
SENT = squeezed(MINING * 9)
WHOLE = {
    "a client's": masked(SENT, 0xC1),
    "a server's": plain(SENT, 0xC2),
    "with 64 bits of length": b"\xc1\x7f" + len(SENT).to_bytes(8, "big") + SENT,
    "behind a ping": PING + masked(SENT, 0xC1),
    "in fragments": masked(SENT[:9], 0x41) + PING + masked(SENT[9:], 0x80),
    "text in fragments": b"".join(
        masked(b"%c" % ch, 0) if n else masked(b"{", 1) for n, ch in enumerate(LOGIN)
    ),
    "a server's text in fragments": plain(MINING[:9], 1) + plain(MINING[9:], 0x80),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_segment_of_nothing_but_frames_that_show_no_token_is_noted(name):
    data = WHOLE[name]
    assert frames(data) == TENTATIVE
    if "text" not in name:
        assert frames(data, room=False) == TENTATIVE
        assert frames(data[:-1]) == NO
        assert frames(data + b"\x81") == NO


OTHERS = {
    "two messages": plain(b'{"a":1}') * 2,
    "words": plain(b"hello", 1) + plain(b"you", 0x80),
    "reserved bits": plain(SENT, 0xE1),
    "an opcode": plain(SENT, 0xC3),
    "a long ping": plain(b"x" * 126, 0x89) + plain(SENT, 0xC1),
    "a length of more than is sent": b"\xc1\x7f" + b"\x7f" * 8 + SENT,
    "a continuation alone": plain(b"{", 0x80),
    "one octet": b"\xc1",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_frames_and_what_is_none_are_not_noted(name):
    assert frames(OTHERS[name]) == NO


def test_without_room_no_frame_is_searched():
    assert frames(masked(MINING), room=False) == NO
    assert frames(masked(MINING)) == PICKED


OPENINGS = {
    b"\x05\x01\x00": True,
    b"\x05\x00": True,
    b"\x05": True,
    b"\x05\x02\x00": True,
    b"\x05\x01\x00\x05\x01\x00\x03": True,
    b"\x05\x02\x01\x00": True,
    b"\x05\x09\x00": False,
    b"\x05\x01\x00\x07": False,
    b"\x04\x01\x0d\x05\xcb\x00\x71\x09me\x00": True,
    b"\x04\x01\x0d": True,
    b"\x04": True,
    b"\x04\x02\x0d\x05\xcb\x00\x71\x09me\x00": False,
    b"\r\n\r\n\x00\r\nQUIT\n\x21": True,
    b"\r\n\r\n\x01": False,
    b"\r\n": False,
    b"GET / HTTP/1.1\r\n\r\n": False,
}


def test_openings_are_told_from_what_begins_alike():
    assert {data: bool(carriers.opens(*laid(data))) for data in OPENINGS} == OPENINGS


class Row:
    """What ``judge`` reads of a connection, and writes."""

    def __init__(self, now=NO, seen=2, attempts=0, packets=3, carried=(0, 0)):
        self.candidate, self.seen, self.attempts = now, [seen, 0], attempts
        self.life_packets, self.carried = packets, list(carried)

    def take(self, data, d=0, *, follows=True):
        block, at, end = laid(data)
        f = SimpleNamespace(payload_at=at, payload=end - at)
        limits = SimpleNamespace(attempts=2048)
        self.candidate = int(judge(block, f, self, d, follows, limits, ALL, SCRATCH))
        self.seen[d] |= 24  # HAS_PAYLOAD and DECIDED
        return self.candidate


def interpreted(name):
    """The kernel as Python, with those that it calls which take rows."""
    found = getattr(carriers, name)
    return getattr(found, "py_func", found)


@pytest.fixture(autouse=True)
def _rows_in_python(monkeypatch):
    for name in ("_read_head", "_heads", "_is_braced", "carries"):
        monkeypatch.setattr(carriers, name, interpreted(name))


def judge(*given):
    return interpreted("judge")(*given)


def judged(data, **row):
    r = Row(**row)
    return r.take(data), r.attempts


POST = b"POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\n\r\n"
CHUNKS = POST.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n")
JUDGED = {
    "a client's frame": (masked(MINING), {}, PICKED),
    "a later one": (masked(MINING), {"seen": 18, "now": TENTATIVE}, PICKED),
    "a budget that is spent": (masked(MINING), {"attempts": 2048}, NO),
    "a chat": (masked(b'{"a":1}'), {"now": TENTATIVE}, TENTATIVE),
    "the server's upgrade": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", {"seen": 18}, TENTATIVE),
    "behind a proxy's leave": (
        b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n",
        {"seen": 18},
        TENTATIVE,
    ),
    "a head": (POST, {"seen": 18}, TENTATIVE),
    "half a head": (POST[:30], {"seen": 18}, TENTATIVE),
    "a picture": (b"POST /up HTTP/1.1\r\nContent-Type: image/png\r\n\r\n", {"seen": 10}, NO),
    "a body": (POST + b"{}", {"seen": 10}, NO),
    "a body that is cut": (POST + b'{"a":', {"seen": 10}, TENTATIVE),
    "a body with escapes": (POST + b'{"\\u0061":1}', {"seen": 10}, TENTATIVE),
    "a body in chunks": (CHUNKS + b"2\r\n{}\r\n0\r\n\r\n", {"seen": 10}, TENTATIVE),
    "an upgrade": (UPGRADE, {"seen": 10}, TENTATIVE),
    "not the first": (UPGRADE, {"seen": 26}, TENTATIVE),
    "behind a page": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + UPGRADE, {"seen": 26}, TENTATIVE),
    "behind blanks": (b"\r\n" + UPGRADE, {"seen": 26}, TENTATIVE),
    "a page": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", {"seen": 26}, NO),
    "another upgrade": (UPGRADE.replace(b"WebSocket", b"h2c"), {"seen": 26}, NO),
    "a head that there is no room to read": (UPGRADE, {"seen": 26, "attempts": 2048}, TENTATIVE),
    "a text that there is no room to read": (b"GETTING on\n", {"seen": 26, "attempts": 2048}, NO),
    "TLS in a tunnel": (b"\x16\x03\x01\x02\x00\x01", {"now": TENTATIVE}, NO),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", {}, NO),
    "a brace": (b"{", {"now": TENTATIVE}, TENTATIVE),
    "the middle": (b"\x05\x01\x00", {"seen": 0}, NO),
}


@pytest.mark.parametrize("name", JUDGED)
def test_what_a_segment_makes_of_its_connection(name):
    data, given, wanted = JUDGED[name]
    assert judged(data, **given)[0] == wanted


@pytest.mark.parametrize("size", [1, 2, 5, 11, 60])
def test_a_head_is_waited_for_and_let_go_where_nothing_comes_of_it(size):
    for head, wanted in ((UPGRADE, TENTATIVE), (UPGRADE.replace(b"WebSocket", b"h2c"), NO)):
        r = Row(seen=26)
        for at in range(0, len(head), size):
            got = r.take(head[at : at + size])
            assert got == TENTATIVE or at + size >= len(head)
        assert got == wanted


def test_a_part_of_a_head_out_of_order_is_passed_on():
    r = Row(seen=26)
    r.take(UPGRADE[:10])
    assert r.take(UPGRADE[30:], follows=False) == TENTATIVE
    assert r.take(b"whatever") == TENTATIVE


def test_frames_that_show_nothing_need_a_second_one():
    """Chance makes one of them; where the upgrade was seen none is needed."""
    r = Row(seen=0)
    assert [r.take(WHOLE["a client's"]), r.take(b"noise"), r.take(WHOLE["in fragments"])] == [
        NO,
        NO,
        TENTATIVE,
    ]
    r = Row(seen=0)
    assert [r.take(WHOLE["a client's"]), r.take(WHOLE["a server's"], 1)] == [NO, TENTATIVE]


def test_what_a_tunnel_carries_is_passed_on_until_it_is_tls():
    r = Row()
    assert r.take(b"CONNECT pool.example:443 HTTP/1.1\r\n\r\n") == TENTATIVE
    assert r.take(b"HTTP/1.1 200 OK\r\n\r\n", 1) == TENTATIVE
    assert r.take(b"anything") == TENTATIVE
    assert r.take(b"\x16\x03\x01\x02\x00\x01") == NO
    assert r.take(b"anything") == NO


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


@pytest.mark.parametrize("text", [b'{"\\u0061":1}', b'{"a":1}'])
def test_lines_with_escapes_are_passed_on_for_as_long_as_they_last(text):
    r = Row(now=TENTATIVE, seen=34)
    assert r.take(text) == TENTATIVE
    assert (carriers.carries(r) & AMPLE != 0) == (b"\\" in text)
