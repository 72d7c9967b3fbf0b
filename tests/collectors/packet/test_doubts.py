"""What a tap sees and the peer does not take: checksums against scapy's, and each way a doubt ends."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reassembling import ACK, FIN, MS, RST, Reassembly, bodies, said, segment

from collectors.packet import checksums, frames, payloads, segments
from collectors.packet.checksums import ODD, PIECE, RIGHT, UNFILLED, WRONG

logging.getLogger("scapy").setLevel(logging.CRITICAL)
from scapy.layers import inet, inet6  # noqa: E402

CLIENT, SERVER = ("198.51.100.7", 40000), ("203.0.113.9", 3333)


def judged(make, raw, *, syn=False, was_right=False):
    """(what ``judged`` says, what ``doubt_of`` says) of a raw IP packet."""
    (b,) = make.read(make.pcap([(0, raw)]))
    out = np.zeros(1, frames.FRAME)
    frames.decode_all(*b.columns[:4], b.link, out, np.zeros(1, np.int64))
    return checksums.judged(b.data, out[0]), int(checksums.doubt_of(b.data, out[0], syn, was_right))


@given(st.binary(max_size=80), st.booleans(), st.integers(0, 10), st.integers(1, 0xFFFF))
def test_checksums_are_judged_as_scapy_computes_them(make, data, six, options, other):
    ends = {"src": "2001:db8::1", "dst": "2001:db8::2"} if six else {"src": "10.0.0.1", "dst": "10.0.0.2"}
    tcp = inet.TCP(sport=1, dport=2, flags="PA", seq=7, ack=9, options=[("NOP", None)] * 4 * options)
    ip = inet6.IPv6 if six else inet.IP
    raw = bytes(ip(**ends) / tcp / data)
    assert judged(make, raw)[0] == RIGHT
    at = (40 if six else 20) + 16
    told = int.from_bytes(raw[at : at + 2], "big")
    for value in (0, told ^ other):
        changed = raw[:at] + value.to_bytes(2, "big") + raw[at + 2 :]
        right = bytes(ip(raw))  # scapy leaves what it was given
        assert right == raw
        expected = {UNFILLED} if value == 0 else {WRONG}
        if told in (0, 0xFFFF) or value == 0xFFFF:
            expected |= {RIGHT, WRONG, UNFILLED}  # two ways to write the same number
        assert judged(make, changed)[0] in expected | ({UNFILLED} if value else set())


def test_an_option_that_a_peer_may_refuse_is_odd(make):
    def sent(options, flags="PA"):
        return bytes(inet.IP(src="10.0.0.1", dst="10.0.0.2") / inet.TCP(flags=flags, options=options) / b"x")

    assert judged(make, sent([(19, bytes(16))]))[1] == RIGHT | ODD
    assert judged(make, sent([("NOP", None), ("Timestamp", (1, 2))]))[1] == RIGHT
    assert judged(make, sent([], "S"), syn=True)[1] == RIGHT | ODD


def test_a_checksum_left_out_is_wrong_where_the_handshakes_was_right(make):
    raw = make.tcp(CLIENT, SERVER, 1, 1, ACK, b"x")
    assert judged(make, raw)[1] == UNFILLED
    assert judged(make, raw, was_right=True)[1] == WRONG


def fed(*given, **bounds):
    r = Reassembly(payloads.Bounds(**bounds))
    return r, [c for s in given for c in r.feed(s)]


def answer(ack, t=0, **how):
    return segment(900, d=1, start=900, ack=ack, t=t, **how)


@pytest.mark.parametrize(
    "doubt",
    [{"doubt": WRONG}, {"doubt": ODD}, {"doubt": PIECE}, {"ttl": 5, "usual_ttl": 60}],
    ids=["checksum", "option", "fragment", "ttl"],
)
@pytest.mark.parametrize("known", [0, None])
def test_another_copy_takes_the_place_of_one_that_is_doubted(doubt, known):
    usual = {"ttl": 60, "usual_ttl": 60}
    given = []
    for k in range(4):
        given += [segment(2 * k, b"##", start=known, **{**usual, **doubt})]
        given += [segment(2 * k, b"%02d" % k, start=known, **usual), answer(2 * k + 2)]
    r, out = fed(*given)
    assert said(out, 0) == b"00010203"
    assert r.drops[segments.DOUBTED] == 8
    assert r.held_bytes == 0


def test_what_is_doubted_is_good_once_its_receiver_has_it_and_then_nobody_doubts_it_again():
    _, out = fed(segment(0, b"ab", start=0, doubt=WRONG))
    assert bodies(out) == []
    _, out = fed(
        segment(0, b"ab", start=0, doubt=WRONG), answer(2), segment(2, b"cd", start=0, doubt=WRONG),
        segment(4, b"ef", start=0, ttl=60, usual_ttl=64), answer(6), segment(6, b"gh", start=0, ttl=60),
    )  # fmt: skip
    assert said(out, 0) == b"abcdefgh"
    assert [c.offset for c in out if c.data] == [0, 2, 4, 6]


def test_of_several_doubted_copies_the_one_that_gets_furthest_is_taken():
    copies = [segment(0, b"%d" % (ttl // 10), start=0, ttl=ttl, usual_ttl=64) for ttl in (7, 60, 18)]
    _, out = fed(*copies, segment(0, b"#", start=0, ttl=63, usual_ttl=64, doubt=WRONG), answer(1))
    assert said(out, 0) == b"6"


def test_a_request_comes_before_the_answer_that_makes_it_good():
    asked = segment(0, b"ask", start=0, doubt=WRONG)
    told = segment(900, b"tell", d=1, start=900, ack=3, doubt=WRONG)
    _, out = fed(asked, told, segment(3, start=0, ack=904))
    assert [c.data for c in out if c.data] == [b"ask", b"tell"]


def test_a_receiver_that_is_heard_and_does_not_acknowledge_did_not_take_it():
    r, out = fed(segment(0, b"ab", start=0), answer(2), segment(2, b"##", start=0, doubt=WRONG), answer(2))
    out += r.advance(2000 * MS)
    assert said(out, 0) == b"ab"
    assert r.drops[segments.DOUBTED] == 2


def test_one_that_is_not_heard_is_believed_after_a_while():
    r, _ = fed(segment(0, b"ab", start=0, doubt=WRONG))
    assert r.advance(1999 * MS) == []
    assert said(r.advance(2000 * MS), 0) == b"ab"


def test_where_both_sides_are_doubted_each_is_believed_after_a_while_in_the_order_of_time():
    """A route that changes, addresses that were altered: then no word is beyond doubt."""
    for odd in ({"doubt": WRONG}, {"ttl": 50, "usual_ttl": 60}):
        given = [
            segment(0, b"ask", start=0, **odd), segment(900, b"tell", d=1, start=900, ack=3, t=1, **odd),
            segment(903, b"#", d=1, start=900, ack=3, t=2, **odd),
            segment(904, b"more", d=1, start=900, ack=3, t=3, **odd),
            segment(3, start=0, ack=908, t=4, **odd),
            segment(3, b"thanks", start=0, ack=908, t=5, **odd),
            segment(908, start=900, d=1, ack=9, t=6, **odd),
        ]  # fmt: skip
        r, out = fed(*given)
        assert bodies(out) == []
        out = r.advance(2000 * MS)
        assert [c.data for c in out if c.data] == [b"ask", b"tell", b"more", b"thanks"]
        assert r.held_bytes == 0


def test_so_many_wait_and_no_more():
    r, _ = fed(*(segment(10 * k, b"x" * 10, start=0, doubt=ODD) for k in range(500)), max_bytes=300)
    assert r.held_bytes <= 310
    r.finish()
    assert r.held_bytes == 0


def test_an_old_stamp_and_an_acknowledgement_of_nothing_are_doubted():
    line = segment(0, b"ab", start=0, stamp=1000, ack=900)
    for forged in ({"stamp": 999}, {"stamp": 1001, "ack": 900 + (1 << 30)}):
        given = [segment(900, b"x", d=1, start=900, ack=0), line, segment(2, b"##", start=0, **forged)]
        _, out = fed(*given, segment(2, b"cd", start=0, stamp=1001, ack=901))
        assert said(out, 0) == b"abcd"


def test_octets_in_order_win_over_what_came_early_and_differences_are_counted():
    r, out = fed(segment(2, b"##EF##", start=0), segment(0, b"abcdEFgh", start=0), segment(8, b"i", start=0))
    assert said(out, 0) == b"abcdEFghi"
    assert r.drops[segments.DIFFERED] == 4
    assert r.drops[segments.REPEATED] == 2


def test_a_line_in_octets_in_reverse_order_is_whole():
    line = bytes(range(256)) * 2
    _, out = fed(*(segment(k, line[k : k + 1], start=0) for k in range(511, -1, -1)))
    assert bodies(out) == [(0, 0, line)]


@pytest.mark.parametrize("flags", [RST, RST | ACK, FIN | ACK])
@pytest.mark.parametrize("at", [5, -1, 10**7, 2**31])
def test_an_end_at_a_number_that_nobody_expects_is_none(flags, at):
    r, out = fed(
        segment(0, b"ab", start=0), segment(2 + at, start=0, flags=flags), segment(2, b"cd", start=0)
    )
    assert bodies(out + r.finish())[:2] == [(0, 0, b"ab"), (2, 0, b"cd")]
    if flags & RST:
        assert r.drops[segments.ENDS] == 1
        assert not any(c.flags & 4 for c in out)


def test_a_reset_that_the_receiver_expects_by_its_own_word_counts():
    given = [segment(0, b"a", start=0), segment(2, b"c", start=0), answer(3), segment(3, start=0, flags=RST)]
    _, out = fed(*given)
    assert bodies(out) == [(0, 0, b"a"), (2, 1, b"c"), (3, 4, b"")]


def test_a_hole_that_the_receiver_asks_for_is_never_given_up():
    r, out = fed(segment(0, b"a", start=0), segment(500_000, b"#", start=0), answer(1))
    out += r.advance(600_000 * MS)
    out += r.feed(*(segment(1 + k, b"x", start=0, t=600_001 * MS) for k in range(9)))
    assert said(out, 0) == b"a" + b"x" * 9
