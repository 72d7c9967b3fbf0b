"""HTTP: bodies of JSON come out whole, by either side's rules; what is no HTTP is refused."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrapped import JSON, LINE, chunked, post, reply

from detector.dialects.lines import Assembler
from detector.transports import excerpts, http, unwrapping
from detector.transports.http import Http
from detector.transports.inflating import InflateError


def bodies(parts, way=None, peer=None):
    """Bodies of a stream that comes in ``parts``; "?" for one that cannot be read; what came last."""
    way, held, out, what = way or Http(), b"", [], ""
    for part in parts:
        data, at = held + part, 0
        while at < len(data):
            after, what = way.step(data, at, peer)
            if what == http.BODY:
                try:
                    out.append(way.take())
                except InflateError:
                    out.append("?")
            elif what in {http.TUNNEL, http.FRAMES} or after == at:
                return (out, what) if what != http.MORE else (out, data[after:])
            at = after
        held = b""
    if way.ends():
        out.append(way.take())
    return out, what


def asked(*requests):
    way = Http()
    for request in requests:
        bodies([request], way)
    return way


def test_bodies_of_posts_come_out_and_others_do_not():
    stream = post() + b"\r\n" + post(b"a=1", b"") + b"GET /LP HTTP/1.1\r\nHost: x\r\n\r\n"
    stream += chunked(b"POST / HTTP/1.1", [LINE[:5], LINE[5:]], b"X: y\r\n") + post(b"")
    assert bodies([stream])[0] == [LINE, None, LINE]


def test_a_response_is_read_by_its_request():
    requests = post() + b"GET /a HTTP/1.1\r\n\r\nHEAD /b HTTP/1.1\r\n\r\n" + post()
    stream = reply() + reply(b'{"page":1}') + b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + reply(b"{}")
    assert bodies([stream], peer=asked(requests))[0] == [LINE, None, b"{}"]


def test_a_miners_long_poll_is_read_though_it_is_a_get():
    poll = b"GET /LP HTTP/1.1\r\nX-Mining-Extensions: midstate\r\nAuthorization: Basic bWU6eA==\r\n\r\n"
    way = asked(poll)
    assert way.user == "me"
    assert bodies([b"HTTP/1.1 100 Continue\r\n\r\n", reply()], peer=way)[0] == [LINE]


PROGRAM = b"User-Agent: curl/8.5.0\r\n"
OTHERS = [b"text/plain", b"application/x-www-form-urlencoded", b"text/html; charset=utf-8"]


@pytest.mark.parametrize("called", OTHERS)
def test_what_a_program_posts_is_read_whatever_it_is_called(called):
    kind = b"Content-Type: " + called + b"\r\n"
    assert bodies([post(extra=kind + PROGRAM), post(extra=PROGRAM)])[0] == [LINE, LINE]
    for page in (b"", b"User-Agent: Mozilla/5.0\r\n", PROGRAM + b"Origin: http://evil.example\r\n"):
        assert bodies([post(extra=kind + page)])[0] == [None]


@pytest.mark.parametrize("called", OTHERS)
def test_what_answers_json_is_read_whatever_it_is_called(called):
    kind = b"Content-Type: " + called + b"\r\n"
    assert bodies([reply(extra=kind)], peer=asked(post()))[0] == [LINE]
    for requests in (b"GET / HTTP/1.1\r\n\r\n", post(extra=b"Content-Type: text/plain\r\n")):
        assert bodies([reply(extra=kind)], peer=asked(requests))[0] == [None]
    assert bodies([reply(extra=kind)])[0] == [None]


def test_what_is_not_called_json_is_read_as_a_whole_or_not_at_all():
    page = b"<p>so it begins:\n" + LINE + b"\n" + LINE + b"\n</p>"
    for body, lines in ((page, 0), (LINE + b"\n" + LINE, 0), (b"\n" + LINE + b"\r\n", 1)):
        told = post(body, PROGRAM + b"Content-Type: text/plain\r\n")
        out = unwrapping.feed(unwrapping.Wrapping(), unwrapping.Wrapping(), Assembler(), told, {})
        assert [line for line, *_ in out] == [LINE] * lines


@pytest.mark.parametrize(
    "odd",
    [
        b"Content-Length : 39\r\n", b"content-length:39\r\n", b"CONTENT-LENGTH:\t39  \r\n",
        b"Content-Length: 39, 39\r\n", b"Content-Length: 39\r\nContent-Length: 39\r\n",
        b"Content-Length: 390\r\nContent-Length: 39\r\n", b"Content-Length: 39\r\nContent-Length: 390\r\n",
        b"X-Long: a\r\n Content-Length: 7\r\nContent-Length: 39\r\n",
    ],
    ids=range(8),
)  # fmt: skip
def test_odd_heads_are_read(odd):
    stream = b"POST / HTTP/1.1\r\n" + JSON + odd + b"\r\n" + LINE
    assert bodies([stream + post()])[0] == [LINE, LINE]


def test_all_members_of_gzip_are_read_within_a_bound():
    coded = JSON + b"Content-Encoding: gzip\r\n"
    two = gzip.compress(LINE[:9], mtime=0) + gzip.compress(LINE[9:], mtime=0)
    many = gzip.compress(b" ", mtime=0) * 3000
    bombs = gzip.compress(bytes(60_000), mtime=0) * 2
    assert bodies([post(body, coded) for body in (two, many, bombs, two)])[0] == [LINE, "?", "?", LINE]


def test_a_body_may_end_with_its_connection():
    head = b"HTTP/1.0 200 OK\r\n" + JSON + b"\r\n"
    assert bodies([head, LINE[:9], LINE[9:]], peer=asked(post()))[0] == [LINE]


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", gzip.compress(LINE, mtime=0)),
        (b"deflate", zlib.compress(LINE)),
        (b"deflate", zlib.compressobj(wbits=-15).compress(LINE) + b""),
        (b"gzip", gzip.compress(bytes(10_000_000), mtime=0)),
        (b"gzip", b"no gzip"),
        (b"br", LINE),
    ],
    ids=["gzip", "deflate", "raw deflate", "bomb", "no gzip", "unknown"],
)
def test_codings_are_inflated_within_a_bound(coding, packed):
    if coding == b"deflate" and not packed.startswith(b"\x78"):
        raw = zlib.compressobj(wbits=-15)
        packed = raw.compress(LINE) + raw.flush()
    (got,) = bodies([post(packed, JSON + b"Content-Encoding: " + coding + b"\r\n")])[0]
    wanted = {b"br": None}.get(coding, "?" if packed == b"no gzip" or len(packed) > 5000 else LINE)
    assert got == wanted


def test_a_body_that_is_too_long_is_told_not_kept():
    way = Http()
    assert bodies([post(b"x" * 70000), post()], way)[0] == ["?", LINE]
    assert not way.body


TEMPLATE = {
    "result": {
        "version": 536870912, "previousblockhash": "ab" * 32,
        "transactions": [{"data": "00" * 9000, "txid": "7e" * 32, "fee": 7} for _ in range(9)],
        "coinbasevalue": 312500000, "target": "00" * 8 + "ff" * 24, "bits": "1702905c", "height": 905000,
    },
    "error": None, "id": 3,
}  # fmt: skip
BLOB = {"id": 1, "jsonrpc": "2.0", "result": {
    "blockhashing_blob": "10" * 76, "blocktemplate_blob": "10" * 50000, "difficulty": 512000000000,
    "height": 7, "prev_hash": "cd" * 32, "status": "OK"}}  # fmt: skip


@pytest.mark.parametrize("room", [1400, 65536, 1 << 20])
@pytest.mark.parametrize("told", [TEMPLATE, BLOB], ids=["bitcoind", "monerod"])
def test_of_a_template_that_is_too_long_its_members_are_read(told, room):
    stream = reply(json.dumps(told).encode())
    (body,), _ = bodies([stream[at : at + room] for at in range(0, len(stream), room)])
    read = json.loads(body)
    assert len(body) < 2000
    assert read["id"] == told["id"]
    assert told["result"].items() >= {k: v for k, v in read["result"].items() if k[-5:] != "_blob"}.items()
    assert {"height", "previousblockhash", "target", "bits"} <= set(read["result"]) or "prev_hash" in read[
        "result"
    ]


def test_of_a_block_that_is_too_long_its_header_is_read():
    told = {"id": 7, "method": "submitblock", "params": ["20" * 60000]}
    (body,), _ = bodies([post(json.dumps(told).encode())])
    assert json.loads(body) == {**told, "params": ["20" * 256]}


@pytest.mark.parametrize(
    "told", [{"result": {"logs": ["x" * 70000]}}, {"method": "log", "params": ["0" * 70000]}]
)
def test_of_other_long_bodies_nothing_is(told):
    assert bodies([post(json.dumps(told).encode())])[0] == ["?"]


@pytest.mark.parametrize(("lost", "found"), [(9000, 1), (60000, 1), (170000, 0)])
def test_what_is_lost_in_the_middle_of_a_template_does_not_hide_it(lost, found):
    stream = reply(json.dumps(TEMPLATE).encode())
    way, lines, refused = unwrapping.Wrapping(), Assembler(), {}
    out = unwrapping.feed(way, unwrapping.Wrapping(), lines, stream[:3000], refused)
    unwrapping.lost(way, lost)
    for at in range(3000 + lost, len(stream), 1400):
        out += unwrapping.feed(way, unwrapping.Wrapping(), lines, stream[at : at + 1400], refused)
    assert [json.loads(line)["result"]["bits"] for line, *_ in out] == ["1702905c"] * found


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_octets_have_an_excerpt_or_none(first, last):
    for a, b in ((first, last), (json.dumps(TEMPLATE).encode()[:200] + first, last)):
        got = excerpts.excerpt(a, b)
        assert got is None or json.loads(got)


def test_a_tunnel_begins_behind_connect_and_its_answer():
    connect = asked(b"CONNECT pool.example:3333 HTTP/1.1\r\nHost: pool.example:3333\r\n\r\n")
    assert connect.target == "pool.example:3333"
    yes = b"HTTP/1.1 200 OK\r\n\r\n"
    assert bodies([yes], peer=connect)[1] == http.TUNNEL
    assert bodies([b"HTTP/1.1 200 Connection established\r\n\r\n"])[1] == http.TUNNEL
    refused = asked(b"CONNECT p:1 HTTP/1.1\r\n\r\n")
    no = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nnope"
    assert bodies([no], peer=refused) == ([None], http.BODY)
    assert bodies([yes])[1] != http.TUNNEL


def test_a_websocket_begins_behind_an_upgrade():
    upgrade = b"Upgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n"
    assert bodies([b"GET /ws?pool=x:1 HTTP/1.1\r\nHost: h\r\n" + upgrade])[1] == http.FRAMES
    assert bodies([b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade])[1] == http.FRAMES
    with pytest.raises(ValueError):
        bodies([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"])


@pytest.mark.parametrize(
    "bad",
    [
        b'{"id":1}', b"GET /\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"HTTP/1.1 999 x\r\n\r\n",
        post(extra=b"Transfer-Encoding: gzip\r\n"), b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        chunked(b"POST / HTTP/1.1", []).replace(b"0\r\n", b"zz\r\n"), b"GET " + b"x" * 20000,
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_http_is_refused(bad):
    with pytest.raises(ValueError):
        bodies([bad])


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([post(), reply(), b"POST / HTTP/1.1\r\n"]), max_size=6)
)
def test_any_bytes_are_read_or_refused(parts):
    way = Http()
    try:
        got, _ = bodies([b"".join(parts)], way)
    except (ValueError, InflateError):
        return
    assert all(body is None or len(body) <= http.MAX_BODY for body in got)
    assert len(way.asked) <= http.MAX_ASKED
