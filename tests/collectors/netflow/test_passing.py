"""Datagrams that are passed over hold nothing that ``totals`` would count of them."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectors.netflow import passing
from collectors.netflow.datagrams import Datagram, block
from collectors.netflow.totals import Totals

SENT = 1_700_000_000
FLOW = ((8, 4), (12, 4), (1, 4))
OTHER = ((1, 4), (2, 4))
WHO = [bytes(10) + b"\xff\xff\xc0\0\2" + bytes([n]) for n in (1, 2)]


def a_set(number, body):
    return struct.pack(">HH", number, 4 + len(body)) + body


def template(version, number, fields):
    body = struct.pack(">HH", number, len(fields)) + b"".join(struct.pack(">HH", *f) for f in fields)
    return a_set(0 if version == 9 else 2, body)


def options(version, number):
    if version == 9:
        return a_set(1, struct.pack(">HHHHHHH", number, 4, 4, 1, 4, 34, 4))
    return a_set(3, struct.pack(">HHHHHHH", number, 2, 1, 149, 4, 34, 4))


def message(version, domain, sets):
    body = b"".join(sets)
    if version == 9:
        return struct.pack(">HHIIII", 9, len(sets), 0, SENT, 0, domain) + body
    return struct.pack(">HHIII", 10, 16 + len(body), SENT, 0, domain) + body


def sflow(kinds):
    samples = b"".join(struct.pack(">II", kind, 44) + bytes(44) for kind in kinds)
    return struct.pack(">7I", 5, 1, 0, 0, 0, 0, len(kinds)) + samples


NUMBERS = st.integers(256, 258)


@st.composite
def messages(draw):
    version = draw(st.sampled_from([9, 10]))
    data = st.builds(lambda n, size: a_set(n, bytes(size)), NUMBERS, st.integers(0, 40))
    told = st.builds(
        lambda n, fields: template(version, n, fields), NUMBERS, st.sampled_from([FLOW, OTHER, FLOW[::-1]])
    )
    gone = NUMBERS.map(lambda n: template(10, n, ()) if version == 10 else b"\0\0\0\0")
    found = draw(st.lists(data | data | told | NUMBERS.map(lambda n: options(version, n)) | gone, max_size=4))
    made = message(version, draw(st.integers(0, 1)), found)
    return made[: len(made) - draw(st.sampled_from([0, 0, 0, 0, 1, 5]))]


DATAGRAMS = messages() | st.lists(st.integers(1, 6), max_size=4).map(sflow) | st.binary(max_size=60)


def counted(blocks):
    made = Totals()
    for one in blocks:
        made.sets(one)
    made.finish()
    return made.groups


def blocks_of(given_):
    """Blocks of three."""
    found = [Datagram(p, WHO[w], 0, SENT * 10**9 + i) for i, (p, w) in enumerate(given_)]
    return [block(found[at : at + 3]) for at in range(0, len(found), 3)]


@given(st.lists(st.tuples(DATAGRAMS, st.integers(0, 1)), max_size=30), st.sampled_from([1, 1 << 14]))
def test_totals_are_those_of_looking_at_every_datagram(given_, room):
    blocks, whole = blocks_of(given_), passing.following
    most, passing._ROOM = passing._ROOM, room
    try:
        got = counted(blocks)
        passing.following = lambda _data, at, *rest: min(rest[3], at.size)
        assert counted(blocks) == got
    finally:
        passing.following, passing._ROOM = whole, most


def test_records_of_a_known_template_are_passed_over_and_what_is_not_known_is_not():
    learn = message(9, 0, [template(9, 256, FLOW), a_set(256, bytes(24))])
    more, other = message(9, 0, [a_set(256, bytes(24))] * 2), message(9, 1, [a_set(256, bytes(24))])
    made = Totals()
    (one,) = blocks_of([(learn, 0), (learn, 0), (more, 0)])
    made.sets(one)
    (next_,) = blocks_of([(more, 0), (other, 0), (more, 1)])
    words = struct.unpack("=4Q", b"".join(WHO))
    found = []
    at = -1
    keyed = np.array(words, np.uint64).reshape(-1, 2)
    while (
        at := passing.following(
            next_.data, next_.at, next_.size, next_.exporter, keyed, at + 1, made._known.keys
        )
    ) < 3:
        found.append(at)
    assert found == [1, 2]
