"""Messages of Alephium's nodes: what is read of them however they are cut, and what is refused."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speakers import nodes

from detector.transports import alephium
from detector.transports.alephium import Node

SPOKEN = nodes.BusyNode()
JOBS = SPOKEN.job(0, 1e12, True)[0][0][1]
SUBMIT = SPOKEN.share(0)
YES, NO = SPOKEN.reply(SUBMIT, "accepted"), SPOKEN.reply(SUBMIT, "rejected")


def read(pieces):
    node, held, out = Node(), b"", []
    for piece in pieces:
        data, at = held + piece, 0
        while at < len(data):
            after, message = node.step(data, at)
            if message is not None:
                out.append(json.loads(message))
            if after == at:
                break
            at = after
        held = data[at:]
        assert len(held) < 2200
    return out


@given(st.lists(st.integers(0, len(JOBS) + 600), max_size=6))
def test_a_stream_reads_the_same_however_it_is_cut(places):
    stream = JOBS + JOBS[:-1] + JOBS[-1:]
    ends = sorted({0, len(stream), *(p for p in places if p < len(stream))})
    got = read([stream[a:b] for a, b in pairwise(ends)])
    assert [(m["fromGroup"], m["toGroup"]) for m in got] == [(g // 4, g % 4) for g in range(16)] * 2
    assert got[:16] == got[16:]


def test_a_block_has_the_name_of_its_job():
    jobs, (submit,) = read([JOBS]), read([SUBMIT])
    assert submit["job"] in {m["jobs"][0]["jobId"] for m in jobs}
    assert [m["succeed"] for m in read([YES + NO])] == [True, False]


@pytest.mark.parametrize("message", [JOBS, SUBMIT, YES, NO], ids=["jobs", "submit", "yes", "no"])
def test_a_message_is_told_by_its_beginning(message):
    assert alephium.begins(message, joined=False) is True
    assert alephium.begins(message[:1400], joined=True) is True
    for size in range(1, 22):
        assert alephium.begins(message[:size], joined=False) is None
        assert alephium.begins(message[:size], joined=True) is False


LOOKALIKES = {
    "another version": YES[:4] + b"\2" + YES[5:],
    "another type": YES[:5] + b"\2" + YES[6:],
    "another length": b"\0\0\0\x2c" + YES[4:],
    "no groups": YES[:6] + b"\0\0\1\0" + YES[10:],
    "no truth": YES[:-1] + b"\7",
    "no jobs": JOBS[:6] + bytes(4) + JOBS[10:],
    "many jobs": JOBS[:6] + b"\0\0\1\0" + JOBS[10:],
    "a short header": JOBS[:18] + b"\0\0\0\7" + JOBS[22:],
    "another block": SUBMIT[:34] + b"\1" + SUBMIT[35:],
    "a TLS record": b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(40),
    "SMB": b"\0\0\0\x45\xffSMB\x72" + bytes(40),
    "a frame of HTTP/2": b"\0\0\x12\4\0\0\0\0\0" + bytes(40),
    "DNS over TCP": b"\0\x1d\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1",
    "a message of Kafka": b"\0\0\0\x2b\0\x12\0\3\0\0\0\1\0\7console" + bytes(40),
    "zeros": bytes(60),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_other_binary_protocols_are_none(name):
    assert alephium.begins(LOOKALIKES[name], joined=False) is False


@given(
    st.binary(max_size=300)
    | st.builds(lambda a, b: a[:40] + b, st.sampled_from([JOBS, SUBMIT, YES]), st.binary(max_size=400))
)
def test_any_bytes_decode_or_are_refused(data):
    assert alephium.begins(data, joined=False) in {None, True, False}
    try:
        read([data])
    except ValueError:
        return
