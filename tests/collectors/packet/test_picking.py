"""Candidates over all captures against a plain reading; and what a flood of near misses costs and hides."""

import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import subscribers
from collectors.packet import frames, tokens

CAPTURES = Path(__file__).parents[4] / "shared" / "captures" / "packets"
PCAPS = Path(__file__).parents[3] / "pcaps"
A, B = ("10.0.0.1", 40000), ("93.184.216.34", 80)
MINER = ("10.0.0.2", 40001), ("93.184.216.35", 3333)
LOGIN = b'{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"44Cb","pass":"x","agent":"XMRig"}}\n'
SIZE = 1400
SEGMENTS = 300
# The plain twin's idea of a token: blanks where the table has one.
TOKEN = re.compile(
    b"|".join(rb"[ \t\r\n]*".join(map(re.escape, r.token.encode().split(b" "))) for r in tokens.rows())
)
FLOODS = {
    "pairs": b'"m',
    "near": b'"method":"x",',
    "nearer": b'"method" : "logi"',
    "beginnings": b'"method"',
    "cut": b'_submitWor"client.reconnec',
}


def text(line):
    return (line * (SIZE // len(line) + 1))[:SIZE]


def download(make, lines, src=B, dst=A, step=1_000_000):
    """One direction of a connection that was joined in the middle."""
    out, seq = [], 1
    for k, line in enumerate(lines):
        out.append((k * step, make.tcp(src, dst, seq, 1, make.ACK, line)))
        seq += len(line)
    return out


def replay(make, frames, **config):
    return make.replay(make.read(make.pcap(frames)), **config)


def said(got, port):
    return b"".join(r["data"] for r in got.payloads if r["src_port"] == port)


def steps(got):
    return got.moved.get(("search_steps_total",), 0)


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_near_misses_costs_steps_for_one_in_so_many_octets_and_no_more(make, kind):
    got = replay(make, download(make, [text(FLOODS[kind])] * SEGMENTS))
    octets = SIZE * SEGMENTS
    # The budget; and of what is beyond it one segment in eight, by chance: at most a step in two octets.
    assert steps(got) < 1024 + octets / 8 + octets / 2 / 8 * 2
    assert got.moved["unscanned_total",] > SEGMENTS / 2
    assert got.payloads == []
    plain = replay(make, download(make, [text(b"the quick brown fox ")] * SEGMENTS))
    assert steps(plain) == 0
    assert plain.moved["scanned_bytes_total",] == octets


def test_ordinary_text_is_searched_to_its_end(make):
    """JSON, JSON-RPC and HTML have their budget, however much of it there is."""
    lines = [
        b'{"id":17,"name":"a thing","price":3.5,"status":true,"method":"card","created":"2024-01-01"}\n',
        b'{"jsonrpc":"2.0","id":99,"method":"eth_getBlockByNumber","params":["0x10d4f",false],"x":"'
        + b"y" * 30,
        b'<a href="/mining/news" class="menu" rel="me" target="_self">mining news</a>\n',
    ]
    for line in lines:
        got = replay(make, download(make, [text(line)] * SEGMENTS))
        assert ("unscanned_total",) not in got.moved
        assert got.moved["scanned_bytes_total",] == SIZE * SEGMENTS


@pytest.mark.parametrize("kind", FLOODS)
def test_a_miner_behind_a_flood_of_near_misses_on_his_own_connection_is_found(make, kind):
    flood = [text(FLOODS[kind])] * SEGMENTS
    # His lines are segments of their own, as programs send them: the first is found.
    got = replay(make, download(make, [*flood, b"\n", LOGIN]))
    assert said(got, 80) == LOGIN
    # They hide at the ends of long segments that are full: soon one is searched.
    hidden = flood[0][: SIZE - len(LOGIN) - 1] + b"\n" + LOGIN
    got = replay(make, download(make, [*flood, *[hidden] * 64]))
    assert said(got, 80).endswith(LOGIN)


def test_who_sends_near_misses_cannot_tell_which_segments_are_searched(make):
    """Segments in which the lines are found, by the number of the connection: no two are the same."""
    flood = text(b'"m')
    hidden = flood[: SIZE - len(LOGIN)] + LOGIN
    found = []
    for before in range(12):
        others = [(k, make.udp(("10.0.0.9", 1000 + k), B)) for k in range(before)]
        got = replay(make, [*others, *download(make, [flood] * 60 + [hidden] * 64)])
        found.append(min(r["seq"] for r in got.payloads))
    assert len(set(found)) > 4


def test_a_flood_hides_nobody_elses_lines(make):
    flood = download(make, [text(FLOODS["nearer"])] * SEGMENTS)
    flood += [(t + 500, f) for t, f in download(make, [LOGIN] * 20, *MINER)]
    got = replay(make, sorted(flood))
    assert said(got, MINER[0][1]) == LOGIN * 20


def test_a_flood_of_tokens_passes_on_its_budget_and_hides_nobody(make):
    flood = download(make, [text(b'{"job_id":"x"}\n')] * SEGMENTS)
    flood += [(t + 500, f) for t, f in download(make, [LOGIN] * 20, *MINER)]
    got = replay(make, sorted(flood), candidate_bytes_a_record=65536)
    assert len(said(got, 80)) <= 65536
    assert said(got, MINER[0][1]) == LOGIN * 20
    assert got.moved["withheld_total",] > SEGMENTS / 2


def plainly(blocks):
    """Connections of which a segment, or a segment and the one that goes on where it ends, holds a token."""
    tails, found = {}, set()
    for b in blocks:
        read = np.zeros(b.offset.size, frames.FRAME)
        codes = np.zeros(b.offset.size, np.int64)
        frames.decode_all(*b.columns[:4], b.link, read, codes)
        for f in read[(codes == 0) & (read["tcp"] == 1) & (read["payload"] > 0)]:
            at = int(f["payload_at"])
            payload = b.data[at : at + int(f["payload"])].tobytes()
            ends = [
                tuple(int(f[f"{side}_{part}"]) for part in ("high", "low", "port")) for side in ("src", "dst")
            ]
            wanted, tail = tails.get(tuple(ends), (None, b""))
            seq = (int(f["seq"]) + (int(f["tcp_flags"]) >> 1 & 1)) & 0xFFFFFFFF
            joined = tail + payload if wanted == seq else payload
            if TOKEN.search(joined):
                found.add(frozenset(ends))
            tails[tuple(ends)] = (seq + len(payload)) & 0xFFFFFFFF, joined[-32:]
    return found


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="needs ../shared")
def test_over_all_captures_the_pass_picks_what_a_plain_reading_finds(make):
    everywhere, mining = subscribers.home(["0.0.0.0/0", "::/0"]), 0
    for path in sorted([*CAPTURES.rglob("*.pcap*"), *PCAPS.glob("*.pcap")]):
        data = path.read_bytes()
        try:
            blocks = make.read(data)
        except ValueError:
            continue
        if not TOKEN.search(data) and sum(b.offset.size for b in blocks) > 1000:
            continue  # nothing to find, and much to read
        got = make.replay(blocks, home=everywhere, flow_slots=1 << 14)
        picked = got.moved.get(("candidates_total",), 0)
        plain = plainly(blocks)
        assert picked == len(plain), path.name
        mining += picked
    assert mining > 20


PIECES = st.lists(
    st.sampled_from(
        [
            b'"',
            b'"method"',
            b" : ",
            b'"login"',
            b'"logi',
            b'n"',
            b'"mining',
            b".",
            b"_getWork",
            b'"',
            b"x" * 40,
        ]
    )
    | st.binary(max_size=5),
    max_size=30,
).map(b"".join)


@given(PIECES, st.lists(st.integers(1, 400), max_size=8), st.sampled_from([b"", b"x" * 90]))
def test_a_stream_cut_anywhere_is_picked_as_its_plain_reading_is(make, stream, cuts, before):
    """However segments are cut, as long as no token spans three of them."""
    stream = before + stream
    ends = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    parts = [stream[a:b] for a, b in pairwise(ends)]
    got = replay(make, download(make, [p for p in parts if p]))
    found = ("candidates_total",) in got.moved
    if any(TOKEN.search(p) for p in parts):
        assert found
    if not TOKEN.search(stream):
        assert not found


def test_the_draw_is_one_in_eight(make):
    flood = random.Random(1).randbytes(9) + text(b'"m')
    got = replay(make, download(make, [flood] * 1000))
    searched = got.moved["scanned_bytes_total",] / len(flood)
    assert 80 < searched < 190


def framed(seed):
    """A message of a WebSocket as a server compresses it, or so it seems."""
    size = 20 + seed % 60
    return bytes([0xC1, size]) + random.Random(seed).randbytes(size)


def spread(make, count, packets, start=0):
    """So many connections beside each other, of so many segments from one side."""
    out = []
    for n in range(count):
        at = 1
        for k in range(packets):
            data = framed(n + k)
            src = (f"93.184.{n >> 8}.{n & 255}", 80)
            out.append((start + k * 1_000_000 + n * 100, make.tcp(src, A, at, 1, make.ACK, data)))
            at += len(data)
    return sorted(out)


def test_a_flood_of_single_frames_passes_on_nothing(make):
    got = replay(make, spread(make, 300, 1), flow_slots=1 << 10)
    assert got.payloads == []


def test_a_flood_of_frames_takes_its_ration_and_nobody_elses(make):
    """Of 2,600 connections in a second 2,000 are passed on; who is answered has a ration of his own."""
    flood = spread(make, 2600, 2)
    server, client = ("93.185.0.1", 80), ("10.0.0.3", 4)
    late = 10_000_000
    talk = [
        (late, make.tcp(client, server, 1, 1, make.ACK, framed(1))),
        (late + 1, make.tcp(server, client, 1, 9, make.ACK, framed(2))),
        (late + 2, make.tcp(server, client, 1 + len(framed(2)), 9, make.ACK, framed(3))),
    ]
    got = replay(make, [*flood, *talk], flow_slots=1 << 13)
    assert got.moved["tentative_total",] == 2001 + 1
    assert got.moved["put_off_total",] == 2600 - 2001
    assert len(said(got, 4)) == 0
    assert b"".join(r["data"] for r in got.payloads if bytes(r["src"]).endswith(b"\x5d\xb9\0\1")) != b""
