"""Whatever carries them, the same lines come out: cut anywhere, kept in a record anywhere, or refused."""

import gzip

import msgspec
import pytest
import spoken
import wrapped
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_rows import batch
from spoken import Talk

from detector.dialects.lines import MAX_LINE_BYTES, Assembler
from detector.observers.payload import PayloadObserver
from detector.transports import preambles, unwrapping
from detector.transports.unwrapping import MAX_HELD, Wrapping

LINES = [
    b'{"id":%d,"method":"mining.submit","params":["w","j","00","6b02def0","541a0000"]}' % n for n in range(5)
]
SOCKS = (b"\5\1\0" + b"\5\1\0\3\x0cpool.example\x0d\x05", b"\5\0" + b"\5\0\0\1" + bytes(6))
SECRET = (
    b"\5\2\0\2" + b"\1\2me\6secret" + b"\5\1\0\1\xcb\0\x71\x09\x0d\x05",
    b"\5\2\1\0" + b"\5\0\0\1" + bytes(6),
)
SOCKS4 = (b"\4\1\x0d\x05\0\0\0\1me\0pool.example\0", b"\0\x5a" + bytes(6))
PROXY2 = (preambles.SIGNATURE + b"\x21\x11\0\x0c" + bytes(4) + b"\xcb\0\x71\x09\0\4\x0d\x05", b"")
PROXY1 = (b"PROXY TCP4 198.51.100.1 203.0.113.9 40000 3333\r\n", b"")
CONNECT = (
    b"CONNECT pool.example:3333 HTTP/1.1\r\nHost: pool.example:3333\r\n\r\n",
    b"HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\n\r\n",
)
REFUSED = (
    b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n" + CONNECT[0],
    b"HTTP/1.1 407 Who?\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n{}\n" + CONNECT[1],
)
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
)
BEFORE = {
    "nothing": (b"", b""), "blanks": (b"\r\n \n", b"\n"), "socks5": SOCKS, "socks5-secret": SECRET,
    "socks4a": SOCKS4,
    "proxy1": PROXY1, "proxy2": PROXY2, "connect": CONNECT, "connect-refused-first": REFUSED,
    "all": tuple(map(b"".join, zip(PROXY2, SOCKS, CONNECT, strict=True))),
}  # fmt: skip


class Framed:
    """What one side says as messages of a WebSocket."""

    def __init__(self, masked, *, packed=False):
        self.masked, self.pack = masked, wrapped.Deflater() if packed else None

    def __call__(self, data):
        sent = self.pack(data) if self.pack else data
        half = len(sent) // 2
        first = wrapped.frame(sent[:half], final=False, masked=self.masked, packed=self.pack is not None)
        ping = wrapped.frame(b"hi", 9, masked=self.masked)
        return first + ping + wrapped.frame(sent[half:], wrapped.MORE, masked=self.masked)


def fed(parts, *, restart=False, peer=None, **given):
    side, lines, refused, out, total = Wrapping(), Assembler(), {}, [], 0
    for part in parts:
        if restart:
            side = msgspec.msgpack.decode(msgspec.msgpack.encode(side), type=Wrapping)
        for line, end, _ in unwrapping.feed(side, peer or Wrapping(), lines, part, refused, **given):
            assert 0 <= end <= len(part)
            out.append(line.strip())
        assert len(side.held) <= MAX_HELD
        total += len(part)
    return out, refused, side


def stream_of(name, way=0):
    head = BEFORE[name][way]
    return head + b"".join(line + b"\n" for line in LINES)


def streams():
    made = {name: stream_of(name) for name in BEFORE}
    for packed in (False, True):
        framed = Framed(True, packed=packed)
        made[f"websocket-{packed}"] = UPGRADE[0] + b"".join(map(framed, LINES))
    made["http"] = b"".join(map(wrapped.post, LINES))
    pieces = [[line[:7], line[7:]] for line in LINES]
    made["http-chunked"] = b"".join(wrapped.chunked(b"POST / HTTP/1.1", p) for p in pieces)
    packed = [
        wrapped.post(gzip.compress(line), wrapped.JSON + b"Content-Encoding: gzip\r\n") for line in LINES
    ]
    made["http-gzip"] = b"".join(packed)
    made["http-batch"] = wrapped.post(b"[" + b",".join(LINES) + b"]")
    made["http-in-a-tunnel"] = CONNECT[0] + made["http"]
    made["websocket-in-a-tunnel"] = SOCKS[0] + made["websocket-True"]
    return made


STREAMS = streams()


@pytest.mark.parametrize("name", STREAMS)
def test_the_lines_come_out(name):
    got, refused, side = fed([STREAMS[name]])
    assert got == LINES
    assert refused == {}
    told = {"nothing", "blanks"} | {name for name in STREAMS if name.startswith(("http", "websocket"))}
    through = name in {"http-in-a-tunnel", "websocket-in-a-tunnel"} or name not in told
    assert any(target.endswith(":3333") for target in side.targets) == through


@pytest.mark.parametrize("name", STREAMS)
def test_octet_by_octet_and_through_records_the_same(name):
    stream = STREAMS[name]
    assert fed([stream[i : i + 1] for i in range(len(stream))], restart=True)[0] == LINES


@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(0, 4000), max_size=8))
def test_cut_anywhere_the_same(name, places):
    assert fed([p for p in wrapped.cut(STREAMS[name], places) if p])[0] == LINES


@pytest.mark.parametrize("name", BEFORE)
def test_the_servers_side_too(name):
    asks = Wrapping()
    if BEFORE[name][0].startswith(b"CONNECT"):
        unwrapping.feed(asks, Wrapping(), Assembler(), BEFORE[name][0], {})
    assert fed([stream_of(name, 1)], peer=asks)[0] == LINES
    assert (
        fed([BEFORE[name][1], stream_of("nothing")] if BEFORE[name][1] else [stream_of("nothing")])[0]
        == LINES
    )


@pytest.mark.parametrize("masked", [False, True])
def test_a_websocket_is_joined_in_the_middle(masked):
    framed = [wrapped.frame(line, masked=masked) for line in LINES]
    assert fed(framed[2:], joined=True)[0] == LINES[2:]
    # Inside of a frame: what it goes on with is no line, the next one is found.
    got, *_ = fed([framed[0][9:], *framed[1:]], joined=True)
    assert got == LINES[1:]


@pytest.mark.parametrize("size", [1, 2, 7, 90])
@pytest.mark.parametrize("fragment", [1, 20, 1000])
@pytest.mark.parametrize("masked", [False, True])
def test_a_websocket_is_joined_anywhere_and_cut_anywhere(size, fragment, masked):
    """From inside of a frame the next message is found, however segments and fragments are cut."""
    stream = b""
    for line in LINES:
        pieces = [line[at : at + fragment] for at in range(0, len(line), fragment)]
        for n, piece in enumerate(pieces):
            first, last = not n, n == len(pieces) - 1
            stream += wrapped.frame(piece, 1 if first else 0, final=last, masked=masked)
    stream = stream[5:]
    got, *_ = fed([stream[at : at + size] for at in range(0, len(stream), size)], joined=True)
    assert got[-4:] == LINES[1:]


@pytest.mark.parametrize("masked", [False, True])
def test_compressed_messages_that_look_back_at_nothing_are_read_from_the_middle(masked):
    alone = [wrapped.frame(wrapped.Deflater()(line), masked=masked, packed=True) for line in LINES]
    assert fed(alone[2:], joined=True)[0] == LINES[2:]
    pack = wrapped.Deflater()
    kept = [wrapped.frame(pack(line), masked=masked, packed=True) for line in LINES]
    assert fed(kept[2:], joined=True)[0] == []  # what these look back at was not seen


@pytest.mark.parametrize("masked", [False, True])
def test_the_rest_of_a_frame_may_be_a_whole_line(masked):
    framed = [wrapped.frame(line + b"\n", masked=masked) for line in LINES[1:]]
    got, *_ = fed([LINES[0] + b"\n", *(part for f in framed for part in (f[:9], f[9:]))], joined=True)
    assert got == LINES


def test_frames_without_an_upgrade_are_read():
    assert fed([wrapped.frame(line, masked=True) for line in LINES])[0] == LINES


def test_after_a_hole_frames_and_messages_are_found_again():
    for parts in (
        [wrapped.frame(line, masked=True) for line in LINES],
        [wrapped.post(line) for line in LINES],
    ):
        side, lines, out = Wrapping(), Assembler(), []
        head = UPGRADE[0] if parts[0][0] == 0x81 else b""
        for part in (head + parts[0], parts[1][:20], None, parts[2][-9:], *parts[3:]):
            if part is None:
                unwrapping.lost(side)
                lines.gap()
            else:
                out += [line.strip() for line, *_ in unwrapping.feed(side, Wrapping(), lines, part, {})]
        assert out == [LINES[0], *LINES[3:]]


def test_bodies_whose_head_was_not_seen_are_lines_until_a_head_comes():
    got, *_ = fed([LINES[0], wrapped.post(LINES[1]), wrapped.post(LINES[2])], joined=True)
    assert got == LINES[:3]


ODD = [*(s[:40] for s in STREAMS.values()), b"\x81\x05hello", b"\x05\x01", b"HTTP/1.1 ", b"\r\n\r\n\0"]


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=50) | st.sampled_from(ODD), max_size=8), st.booleans(), st.booleans())
def test_any_bytes_give_lines_or_nothing(parts, joined, ends):
    out, _, side = fed(parts, joined=joined, ends=ends, restart=True)
    assert all(len(line) <= MAX_LINE_BYTES for line in out)
    assert len(side.targets) <= unwrapping.MAX_TARGETS


# -- the whole of the observer ---------------------------------------------------------------------------


def carried(make, kind, cut=None):
    """A spoken session in a carrier; ``kind`` names a preamble or a WebSocket."""
    plain = Talk()
    truth = make(plain)
    talk = Talk()
    head = UPGRADE if kind.startswith("websocket") else BEFORE[kind]
    packed = kind == "websocket-packed"
    ways = {"c": Framed(True, packed=packed), "s": Framed(False, packed=packed)}
    for side, said in zip("cs", head, strict=True):
        if said:
            talk.say(side, said)
    for row in plain.rows:
        side = "c" if row["src"] == talk.client[0] else "s"
        data = ways[side](row["data"]) if kind.startswith("websocket") else row["data"]
        talk.now = row["t"]
        for at in range(0, len(data), cut or len(data) or 1):
            talk.say(side, data[at : at + (cut or len(data))])
    return talk, truth


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("kind", [*BEFORE, "websocket", "websocket-packed"])
def test_a_miner_is_measured_through_it(make, kind):
    talk, truth = carried(make, kind)
    observer = PayloadObserver()
    seen = observer.step(batch(talk.rows))
    (facts,) = seen.sessions
    assert "share_accepted" in {e.kind for e in seen.evidence}
    assert (facts.shares.accepted, facts.dialect) == (truth.accepted, truth.dialect)
    assert set(facts.workers) == truth.workers
    if "3333" in "".join(map(str, observer.state(talk.client[0]).tracks)) and kind == "connect":
        assert any("a proxy to pool.example:3333" in e.why for e in seen.evidence)


@pytest.mark.parametrize("kind", ["socks5-secret", "websocket-packed", "connect"])
def test_a_miner_in_small_pieces_is_measured_through_it(kind):
    talk, truth = carried(spoken.cryptonote, kind, cut=5)
    observer, last = PayloadObserver(), None
    for row in talk.rows:
        seen = observer.step(batch([row]))
        last = seen.sessions[0] if seen.sessions else last
    assert last.shares.accepted == truth.accepted


def test_services_that_speak_json_over_a_websocket_are_silent():
    talk = Talk()
    for side, said in zip("cs", UPGRADE, strict=True):
        talk.say(side, said)
    masked, bare = Framed(True), Framed(False)
    for n in range(6):
        talk.say("c", masked(b'{"id":%d,"method":"login","params":{"login":"bob","pass":"x"}}' % n))
        talk.say("s", bare(b'{"id":%d,"result":{"status":"OK","session":"77"}}' % n))
        talk.say("c", masked(b'{"id":9,"method":"job","params":{"job_id":"7","state":"done"}}'))
        talk.say("s", bare(b'{"type":"message","text":"{\\"method\\":\\"mining.notify\\",\\"params\\":[]}"}'))
        talk.say("s", bare(b"[12:00] alice: try this"))
        talk.say("s", bare(b"bob: " + LINES[0]))
    seen = PayloadObserver().step(batch(talk.rows))
    assert (seen.evidence, seen.sessions) == ((), ())


def test_a_form_in_plain_text_is_no_miners_whatever_its_length():
    talk = Talk()
    body = b"\n".join(LINES)
    talk.say("c", wrapped.post(body, b"Content-Type: text/plain\r\n"))
    for n in range(5):
        talk.say("s", wrapped.reply(b'{"id":%d,"result":true}' % n))
    assert PayloadObserver().step(batch(talk.rows)).evidence == ()


def test_behind_what_is_no_http_the_next_message_is_read():
    bad = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + LINES[0] + b"\n"
    way, lines, refused = unwrapping.Wrapping(), Assembler(), {}
    out = []
    for data in (bad, LINES[0] + b"\n", wrapped.post(), wrapped.post()):
        out += unwrapping.feed(way, unwrapping.Wrapping(), lines, data, refused)
    assert [line for line, *_ in out] == [wrapped.LINE] * 2
    assert refused == {"http": 1}


def test_what_looks_like_frames_and_is_none_is_not_looked_for_there_without_end():
    talk = Talk()
    talk.c(b'{"ts": 1}', end=b"")
    talk.seq["s"] += 7
    talk.say("s", b'\x01\x00\x00({"ts": 620586499, orker9326", "result": tr', flags=1)
    observer = PayloadObserver()
    assert observer.step(batch(talk.rows)).evidence == ()
    assert observer.stats.refused["frame"] >= 1
