"""Reassembly against a plain twin, and each of its bounds."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reassembling import ACK, FIN, MS, RST, SYN, Reassembly, bodies, said, segment

from collectors.packet import payloads
from collectors.packet.segments import AGED, BEFORE, BOUNDS, EVICTED, GIVEN_UP, REPEATED, STRANGE
from collectors.streams import ACK_ONLY, END, GAP, START


def run(segments, **bounds):
    r = Reassembly(payloads.Bounds(**bounds))
    out = [c for s in segments for c in r.feed(s)]
    return r, out + r.finish()


@given(st.data(), st.binary(min_size=1, max_size=120), st.integers(0, 2**32 - 1))
def test_any_order_repetition_and_overlap_gives_the_stream(data, stream, start):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream)), max_size=10)) | {0, len(stream)})
    pieces = [(a, b) for a, b in pairwise(cuts) if a < b]
    more = data.draw(
        st.lists(st.tuples(st.integers(0, len(stream)), st.integers(0, len(stream))).map(sorted), max_size=8)
    )
    order = data.draw(st.permutations(pieces + [tuple(m) for m in more if m[0] < m[1]]))
    r, out = run([segment(start + a, stream[a:b], start=start) for a, b in order])
    assert b"".join(c.data for c in out) == stream
    at = 0
    for c in out:
        assert c.offset == at
        assert c.seq == (start + at) & 0xFFFFFFFF
        assert c.flags == START
        at += len(c.data)
    assert r.held_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=12)), min_size=1, max_size=12))
def test_the_first_copy_in_order_wins_and_holes_are_gaps(given_segments):
    """The twin is a dictionary of octets: whoever came first stays, but what comes in order displaces what
    came too early."""
    octets, to_come = {}, 0
    for at, data in given_segments:
        for k, byte in enumerate(data):
            if at <= to_come <= at + k:
                octets[at + k] = byte
            octets.setdefault(at + k, byte)
        while to_come in octets:
            to_come += 1
    _, out = run([segment(at, data, start=0) for at, data in given_segments], hole_ms=10**6)
    got = {}
    end = 0
    for c in out:
        assert bool(c.flags & GAP) == (c.offset > end)
        got.update({c.offset + k: byte for k, byte in enumerate(c.data)})
        end = c.offset + len(c.data)
    assert got == octets


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 70000), min_size=1, max_size=5))
def test_sequence_numbers_wrap(start, sizes):
    at, segments = start, []
    for n in sizes:
        segments.append(segment(at, b"x" * n, start=start))
        at += n
    _, out = run(segments)
    assert sum(len(c.data) for c in out) == sum(sizes)
    assert all(not c.flags & GAP for c in out)


def test_a_connection_joined_in_the_middle_starts_where_it_starts():
    _, out = run([segment(5000, b"abc"), segment(5003, b"def"), segment(4000, b"old")])
    assert [(c.offset, c.seq, c.flags, c.data) for c in out] == [(0, 5000, 0, b"abc"), (3, 5003, 0, b"def")]


def test_a_connection_picked_late_has_its_true_offset_and_a_gap():
    _, out = run([segment(5100, b"abc", start=5000, fresh=False)])
    assert [(c.offset, c.flags, c.data) for c in out] == [(100, START | GAP, b"abc")]


def test_a_hole_is_given_up_after_two_seconds_of_any_connections_time():
    r = Reassembly(payloads.Bounds())
    assert r.feed(segment(0, b"a", start=0))
    assert r.feed(segment(2, b"c", t=100 * MS, start=0)) == []
    assert r.advance(2099 * MS) == []
    (c,) = r.advance(2100 * MS)
    assert (c.offset, c.flags, c.data, c.t) == (2, START | GAP, b"c", 100 * MS)
    assert r.drops[GIVEN_UP] == 1


def test_a_hole_that_the_other_side_acknowledged_is_given_up_soon():
    r = Reassembly(payloads.Bounds())
    r.feed(segment(0, b"a", start=0))
    r.feed(segment(2, b"c", t=100 * MS, start=0))
    r.feed(segment(900, d=1, ack=3, t=150 * MS))
    assert r.advance(349 * MS) == []
    assert [c.data for c in r.advance(350 * MS)] == [b"c"]


def test_a_hole_that_fills_in_time_is_none():
    r = Reassembly(payloads.Bounds())
    r.feed(segment(0, b"a", start=0))
    r.feed(segment(2, b"c", start=0))
    (c,) = r.feed(segment(1, b"b", t=1999 * MS, ack=77, start=0))
    assert (c.data, c.t, c.ack, c.flags) == (b"bc", 1999 * MS, 77, START)
    assert r.advance(9999 * MS) == []


def test_held_segments_and_octets_are_bounded():
    r, out = run([segment(2 * k, b"x", start=0) for k in range(1, 10)], max_segments=3)
    assert r.drops[BOUNDS] == 6
    assert len(out) == 9
    r = Reassembly(payloads.Bounds(max_bytes=1000))
    for k in range(1, 100):
        r.feed(segment(300 * k, b"x" * 200, start=0))
        assert r.held_bytes <= 1000
    r = Reassembly(payloads.Bounds(max_bytes_in_all=1000))
    for k in range(1, 100):
        r.feed(segment(300, b"x" * 200, start=0, conn=k))
        assert r.held_bytes <= 1000


def test_a_flood_of_tentative_connections_pushes_out_no_picked_one():
    r = Reassembly(payloads.Bounds(max_connections=8))
    r.feed(segment(0, b"a", start=0, conn=1))
    for k in range(2, 100):
        r.feed(segment(0, b"{", start=0, conn=k, picked=0))
        assert len(r) <= 8
    (c,) = r.feed(segment(1, b"b", start=0, conn=1))
    assert (c.offset, c.data) == (1, b"b")
    assert r.drops[EVICTED] == 91


def test_a_silent_connection_is_forgotten():
    r = Reassembly(payloads.Bounds(idle_s=10))
    r.feed(segment(0, b"a", start=0))
    r.advance(10_000 * MS)
    assert len(r) == 0
    assert r.drops[AGED] == 1


def test_a_segment_whose_own_time_ages_its_connection_away_begins_it_again():
    r = Reassembly(payloads.Bounds(idle_s=10))
    segments = [segment(0, b"a", start=0, ack=900), segment(900, b"b", d=1, start=900, ack=1)]
    segments += [segment(1, b"c", start=0, ack=901), segment(2, b"d", start=0, fresh=False, t=99_000 * MS)]
    assert bodies(r.feed(*segments)) == [(0, 0, b"a"), (0, 0, b"b"), (1, 0, b"c"), (2, GAP, b"d")]
    assert r.drops[AGED] == 1


def test_the_first_acknowledgement_of_published_bytes_is_told_once():
    _, out = run(
        [
            segment(100, d=0, start=100, ack=500),
            segment(100, b"login", d=0, start=100, ack=500),
            segment(500, d=1, start=500, ack=100),
            segment(500, d=1, start=500, ack=105),
            segment(500, d=1, start=500, ack=105),
            segment(500, b"ok", d=1, start=500, ack=105),
            segment(105, d=0, start=100, ack=502),
        ]
    )
    told = [(c.src_port, c.seq, c.ack, c.flags, c.data) for c in out]
    assert told == [
        (1000, 100, 500, START, b"login"),
        (3333, 500, 105, START | ACK_ONLY, b""),
        (3333, 500, 105, START, b"ok"),
        (1000, 105, 502, START | ACK_ONLY, b""),
    ]


def test_an_acknowledgement_beside_bytes_needs_no_row_of_its_own():
    _, out = run([segment(100, b"login"), segment(500, b"ok", d=1, ack=105), segment(500, d=1, ack=105)])
    assert [c.flags for c in out] == [0, 0]


def test_the_end_comes_with_the_last_bytes_or_alone_and_once():
    _, out = run([segment(0, b"ab", start=0, flags=ACK | FIN), segment(2, start=0, flags=ACK | FIN)])
    assert bodies(out) == [(0, END, b"ab")]
    _, out = run([segment(0, b"ab", start=0), segment(2, start=0, flags=ACK | FIN), segment(3, flags=RST)])
    assert bodies(out) == [(0, 0, b"ab"), (2, END, b"")]


def test_an_end_before_its_bytes_waits_for_them():
    _, out = run([segment(2, start=0, flags=ACK | FIN), segment(0, b"ab", start=0)])
    assert bodies(out) == [(0, END, b"ab")]


def test_a_reset_gives_up_the_holes_and_ends():
    _, out = run([segment(0, b"a", start=0), segment(2, b"c", start=0), segment(1, start=0, flags=RST)])
    assert bodies(out) == [(0, 0, b"a"), (2, GAP, b"c"), (3, END, b"")]


def test_bytes_after_a_forged_reset_are_still_read():
    _, out = run([segment(0, b"a", start=0), segment(1, start=0, flags=RST), segment(1, b"b", start=0)])
    assert bodies(out) == [(0, 0, b"a"), (1, END, b""), (1, 0, b"b")]


def conversation(lines, starts=(1000, 9000), known=True):
    """Both sides in turn, ten seconds apart, each line acknowledged at once."""
    seq, out = list(starts), []
    for k in range(lines):
        for d in (0, 1):
            line = b"%d line %d\n" % (d, k)
            start = starts[d] if known else None
            t = (10 * k + 5 * d) * 1000 * MS
            out.append(segment(seq[d], line, d=d, t=t, ack=seq[1 - d], start=start, fresh=known and k == 0))
            seq[d] += len(line)
            out.append(segment(seq[1 - d], d=1 - d, t=t + MS, ack=seq[d], start=starts[1 - d]))
    return out


def lines_of(segments, d):
    return [s.data for s in segments if s.data and s.direction == d]


@pytest.mark.parametrize("ahead", [40, 10_000, 500_000, 3_000_000, 10**9, 2**31 - 1, 2**31 + 5, -2000])
@pytest.mark.parametrize("where", [0, 1, 4, 12])
@pytest.mark.parametrize("flags", [ACK, ACK | FIN, RST])
@pytest.mark.parametrize("known", [True, False])
def test_segments_no_receiver_takes_hide_no_line_that_follows(ahead, where, flags, known):
    segments = conversation(30, known=known)
    t = segments[where].t
    garbage = [
        segment(1000 * (1, 9)[d] + where + ahead, b"#", d=d, t=t, ack=1000 * (9, 1)[d], start=(1000, 9000)[d])
        for d in (0, 1)
    ]
    if flags == RST:
        garbage = [s for g in garbage for s in (g, g._replace(data=b"", tcp_flags=RST))]
    else:
        garbage = [s._replace(tcp_flags=flags) for s in garbage]
    if not known:
        garbage = [s._replace(known=0) for s in garbage]
    _, out = run([*segments[:where], *garbage, *segments[where:]])
    for d in (0, 1):
        got = said(out, d)
        missing = [line for line in lines_of(segments, d) if line not in got]
        assert len(missing) <= (1 if abs(ahead) < 3000 else 0)
        ends = [c.offset + len(c.data) for c in out if c.src_port == (1000, 3333)[d] and c.data]
        assert ends == sorted(ends)


def test_many_forged_places_hide_no_line_either():
    segments, forged = conversation(60), []
    for k, s in enumerate(segments):
        forged.append(s)
        if k < 120 and s.data:
            forged.append(s._replace(seq=(s.seq + 900_000 + 3000 * k) & 0xFFFFFFFF, data=b"#"))
    _, out = run(forged)
    for d in (0, 1):
        assert [line for line in lines_of(segments, d)[-20:] if line not in said(out, d)] == []


@pytest.mark.parametrize("lost", [1, 100])
@pytest.mark.parametrize("heard", [True, False])
def test_what_was_lost_on_the_way_to_us_is_given_up_however_much_it_is(lost, heard):
    size = 60_000
    segments = [segment(size * k, b"%05d" % k * (size // 5), t=k * 10 * MS, start=0) for k in range(130)]
    kept = segments[:5] + segments[5 + lost :]
    if heard:
        kept = [x for s in kept for x in (s, segment(7, d=1, t=s.t, ack=s.seq + size, start=7))]
    _, out = run(kept, max_bytes=1 << 18)
    assert said(out, 0) == b"".join(s.data for s in kept)
    assert [c.offset for c in out if c.flags & GAP] == [size * (5 + lost)]


def test_a_hole_the_receiver_still_asks_for_is_waited_for_longer():
    r = Reassembly(payloads.Bounds())
    r.feed(segment(0, b"a", start=0))
    r.feed(segment(2, b"c", t=100 * MS, start=0))
    r.feed(segment(900, d=1, ack=1, t=150 * MS))
    assert r.advance(9000 * MS) == []
    (c,) = r.feed(segment(1, b"b", t=9001 * MS, start=0))
    assert (c.data, c.flags) == (b"bc", START)


def test_what_is_sent_again_from_further_back_is_not_read_twice():
    segments = [segment(10 * k, b"%010d" % k, t=k * MS, start=0) for k in range(40)]
    lost, acks = segments[3:5], [segment(7, d=1, t=40 * MS, ack=10 * k) for k in range(41)]
    again = [s for pair in zip(segments[20:], acks[20:], strict=False) for s in pair]
    _, out = run([*segments[:3], *segments[5:], acks[40], segment(7, d=1, t=999 * MS, ack=400), *again])
    assert said(out, 0) == b"".join(s.data for s in segments if s not in lost)


EVENTS = st.lists(
    st.builds(
        segment,
        st.integers(-20, 60),
        st.binary(max_size=12),
        d=st.integers(0, 1),
        t=st.integers(0, 3000).map(lambda ms: ms * MS),
        ack=st.integers(-20, 60),
        flags=st.sampled_from([0, ACK, ACK, ACK | FIN, RST]),
        conn=st.integers(1, 3),
        start=st.sampled_from([None, 0]),
        fresh=st.booleans(),
        picked=st.integers(0, 1),
        stamp=st.sampled_from([0, 0, 7, 2**32 - 1]),
        ttl=st.sampled_from([0, 60, 60, 64]),
        usual_ttl=st.sampled_from([0, 64]),
        doubt=st.sampled_from([0, 0, 0, 1, 2, 4, 8]),
    ),
    max_size=40,
)


def watched(segments, places, bounds, compiled):
    """The segments in pieces that end at ``places``, time told between them; the chunks and the drops."""
    r, out = Reassembly(bounds, compiled), []
    ends = [0, *sorted(p for p in places if 0 < p < len(segments)), len(segments)]
    for a, b in pairwise(ends):
        out += r.feed(*segments[a:b])
        if segments[a:b]:
            out += r.advance(segments[b - 1].clock)
        assert len(r) <= bounds.max_connections
        assert 0 <= r.held_bytes <= bounds.max_connections * 2 * bounds.max_bytes
    return out + r.finish(), r.drops


def timed(segments):
    """With the newest stamp so far as the clock, as in a capture."""
    clock, out = 0, []
    for s in segments:
        clock = max(clock, s.clock)
        out.append(s._replace(clock=clock))
    return out


@given(EVENTS, st.sets(st.integers(0, 40)))
def test_any_segments_keep_the_bounds_and_time_may_pass_anywhere(segments, places):
    bounds = payloads.Bounds(max_connections=2, max_segments=3, max_bytes=30, idle_s=1)
    segments = timed(segments)
    one_by_one = watched(segments, range(40), bounds, compiled=False)
    for compiled in (False, True):
        assert watched(segments, places, bounds, compiled) == one_by_one


@st.composite
def sessions(draw):
    """Connections that go on in order, mostly: lines and acknowledgements, some of them twice, late, lost or
    elsewhere, far ahead or behind, with openings, ends, resets and silences."""
    out, t = [], 0
    ways = {}
    for _ in range(draw(st.integers(1, 80))):
        conn, d = draw(st.sampled_from([1, 1, 1, 2, 3, 4])), draw(st.integers(0, 1))
        seqs = ways.setdefault(conn, [1000, 2**32 - 20, draw(st.booleans()), 0])
        what = draw(st.integers(0, 35))
        t += draw(st.sampled_from([0, 1, 1, 1, 50, 900, 2500, 12_000])) * MS
        size = draw(st.integers(0, 9))
        flags = {25: ACK | FIN, 26: RST, 27: SYN, 28: RST | ACK}.get(what, ACK)
        jump = {20: -size, 21: 7, 22: -3, 23: 2 << 20, 24: 10_000, 30: 10_000, 31: -(2 << 20)}.get(what, 0)
        s = segment(
            seqs[d] + jump, bytes([65 + d]) * size, d=d, t=t, ack=seqs[1 - d], flags=flags, conn=conn,
            start=(1000, 2**32 - 20)[d] if seqs[2] else None, fresh=not seqs[3] >> d & 1,
            picked=draw(st.integers(0, 1)),
        )  # fmt: skip
        if size:
            seqs[3] |= 1 << d
        if not jump:
            seqs[d] += size
        out.append(s)
    return out


@given(sessions(), st.sets(st.integers(0, 60)), st.integers(1, 5), st.sampled_from([1, 10, 900]))
def test_the_compiled_pass_says_what_the_plain_reading_says(segments, places, connections, idle_s):
    bounds = payloads.Bounds(max_connections=connections, max_segments=3, max_bytes=30, idle_s=idle_s)
    segments = timed(segments)
    plain = watched(segments, places, bounds, compiled=False)
    assert watched(segments, places, bounds, compiled=True) == plain
    assert watched(segments, (), bounds, compiled=True) == plain


def test_what_is_in_order_is_left_to_the_compiled_pass(monkeypatch):
    r, asked = Reassembly(payloads.Bounds()), []
    monkeypatch.setattr(r, "take", lambda events, i, _: asked.append(events[i]))
    lines = conversation(30)
    ends = [s._replace(data=b"", seq=s.seq + len(s.data), tcp_flags=ACK | FIN) for s in lines[-2:]]
    out = r.feed(*lines, lines[-1], lines[9], *ends)
    assert asked == []
    assert said(out, 0) == b"".join(lines_of(lines, 0))


def test_more_chunks_than_a_page_holds_are_on_several():
    lines = [segment(7 * k, b"%07d" % k, start=0) for k in range(20_000)]
    big = [segment(7 * 20_000 + 60_000 * k, bytes(60_000), start=0) for k in range(120)]
    for compiled in (True, False):
        r = Reassembly(payloads.Bounds(), compiled)
        out = r.feed(*lines, *big)
        assert b"".join(c.data for c in out) == b"".join(s.data for s in lines + big)
        assert r.pages.waiting == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60), st.booleans(), st.booleans()), max_size=60))
def test_what_was_counted_is_never_taken_back(steps):
    """Segments near the stream and far from it, some in order, some acknowledged: strange or not, it is for
    ever, and in the end every octet was published, or counted once."""
    r = Reassembly(payloads.Bounds(max_bytes=600, max_bytes_in_all=900))
    before, near, far, given_octets, out = dict(r.drops), 0, 5 << 20, 0, []
    for t, (jump, size, is_far, acknowledged) in enumerate(steps):
        at = far + (jump if jump > 25 else 0) if is_far else near
        out += r.feed(segment(at, b"x" * size, start=0, t=t * MS))
        given_octets += size
        if is_far:
            far = at + size
        else:
            near = at + size
        if acknowledged:
            out += r.feed(segment(0, d=1, ack=at + size, t=t * MS))
        assert all(r.drops[why] >= n for why, n in before.items())
        before = dict(r.drops)
    out += r.finish()
    assert all(r.drops[why] >= n for why, n in before.items())
    dropped = sum(r.drops[why] for why in (REPEATED, BEFORE, STRANGE))
    assert sum(len(c.data) for c in out) + dropped == given_octets
    assert r.held_bytes == 0


def test_segments_that_may_be_the_stream_are_held_within_bounds():
    r = Reassembly(payloads.Bounds(max_bytes=4000, max_bytes_in_all=20_000))
    for conn in range(100):
        r.feed(segment(0, b"x", start=0, conn=conn))
        r.feed(segment(0, d=1, ack=1, start=0, conn=conn))
        for k in range(12):
            r.feed(segment((5 << 20) + 500 * k, bytes(500), start=0, conn=conn))
            assert r.held_bytes <= 20_500
    r.finish()
    assert r.held_bytes == 0
    assert r.drops[STRANGE] == 100 * 12 * 500
