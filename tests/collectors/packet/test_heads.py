"""Heads of HTTP are read the same however they are cut into segments, and as a plain reading of them says."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.packet import heads
from collectors.packet.heads import AMPLE, BEGIN, CODED, HEADING, JSON, NONE, OVER, POSTS, STATE, WANTED

METHODS = ("GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "POST")
WORDS = [f"{m} ".encode() for m in METHODS]
ASKS = (b"connect ", b"proxy ", *(b"http/1.%d %s" % (n, s) for n in (0, 1) for s in (b"101 ", b"200 c")))


def read(parts):
    """The word after reading ``parts`` one after another, and how many octets were read."""
    word, done = BEGIN, 0
    for part in parts:
        block = np.frombuffer(b"\1" + part + b"\2" * 20, np.uint8)
        after, word, _ = heads.read_on(block, 1, 1 + len(part), np.int64(word))
        done += int(after) - 1
        if not word & HEADING:
            break
    return int(word), done


def plainly(head):
    """The flags that a whole head gives, by a plain reading; None where it is none."""
    line, *fields = head.lower().split(b"\n")
    if not line.startswith((*(w.lower() for w in WORDS), *ASKS)):
        return None
    flags = WANTED | AMPLE if line.startswith(ASKS) else 0
    flags |= POSTS if line.startswith(b"post ") else 0
    for field in fields:
        if re.match(rb"\r*(transfer|content)-encoding:", field):
            flags |= CODED
        elif re.match(rb"\r*upgrade:.*websocket", field):
            flags |= WANTED | AMPLE
        elif re.match(rb"\r*content-type:.*json", field):
            flags |= JSON
        elif re.match(rb"\r*x-mining-", field):
            flags |= POSTS | JSON
    return flags


HEADS = {
    "upgrade": b"GET /ws HTTP/1.1\r\nHost: x\r\nuPGRADE:\t WebSocket\r\nConnection: Upgrade\r\n\r\n",
    "among others": b"GET /ws HTTP/1.1\nUpgrade: webweb, websocket\n\n",
    "h2c": b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nX: websocket\r\n\r\n",
    "page": b"GET / HTTP/1.1\r\nHost: upgrade: websocket\r\nAccept: application/json\r\n\r\n",
    "json": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n",
    "chunks": b"POST / HTTP/1.1\r\nContent-Type: text/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coded": b"POST / HTTP/1.1\r\ncontent-encoding: gzip\r\ncontent-type: application/json\r\n\r\n",
    "mining": b"GET / HTTP/1.1\r\nX-Mining-Extensions: longpoll\r\n\r\n",
    "tunnel": b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n",
    "proxy": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\r\n",
    "switched": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "connected": b"HTTP/1.0 200 Connection established\r\n\r\n",
    "answer": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n",
    "text": b"GETTING on\r\n\r\n",
    "other": b"HELO x\r\n\r\n",
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_a_head_is_read_as_its_plain_reading_is_however_it_is_cut(name, size):
    head = HEADS[name]
    word, done = read([head[i : i + size] for i in range(0, len(head), size)])
    flags = plainly(head)
    if flags is None:
        assert word & STATE == NONE
    else:
        assert word == flags | OVER
        assert done == len(head)


LINES = st.lists(
    st.sampled_from([b"Upgrade:", b"websocket", b" ", b"\r\n", b"\n", b"Content-", b"Type:", b"Encoding:",
                     b"json", b"webs", b"js", b"Transfer-", b"X-Mining-X:", b"up", b"x" * 9])
    | st.binary(max_size=3),
    max_size=20,
).map(b"".join)  # fmt: skip


@given(st.sampled_from([*WORDS, b"CONNECT ", b"HTTP/1.1 "]), LINES, st.lists(st.integers(1, 99), max_size=6))
def test_any_lines_are_read_as_plainly_and_whatever_was_read_of_them_before(method, lines, cuts):
    head = method + lines + b"\n\n"
    over = re.search(rb"\n\r*\n", head)
    head = head[: over.end()]
    ends = sorted({0, len(head), *(c for c in cuts if c < len(head))})
    word, done = read([head[a:b] for a, b in pairwise(ends)])
    flags = plainly(head[: over.start()])
    assert (word & STATE == NONE) if flags is None else (word, done) == (flags | OVER, len(head))


@given(st.binary(max_size=300), st.integers(0, 0xFFFF))
def test_any_bytes_are_read_from_any_state(data, word):
    states = heads._FOLLOWS.shape[0]
    word = (word & ~STATE) | (word & STATE) % states
    block = np.frombuffer(data + b"\n" * 8, np.uint8)
    after, got, _ = heads.read_on(block, 0, len(data), np.int64(word))
    assert 0 <= after <= len(data)
    assert int(got) & STATE < states
