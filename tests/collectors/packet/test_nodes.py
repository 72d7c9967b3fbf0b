"""The look at a segment agrees with the reader of the messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from speakers import nodes

from collectors.packet.nodes import is_node
from detector.transports import alephium

SPOKEN = nodes.Node()
JOBS = SPOKEN.job(0, 1e12, True)[0][0][1]
SUBMIT = SPOKEN.share(0)
MESSAGES = (JOBS, SUBMIT, SPOKEN.reply(SUBMIT, "accepted"), SPOKEN.reply(SUBMIT, "rejected"))


def look(data, before=5):
    block = np.frombuffer(b"\1" * before + data + bytes(64), np.uint8)
    return bool(is_node(block, before, before + len(data)))


@pytest.mark.parametrize("message", MESSAGES, ids=["jobs", "submit", "yes", "no"])
def test_every_message_is_seen_by_its_first_segment(message):
    assert look(message[:1400])
    assert not look(message[1:1400])
    assert not look(message[:30])


@given(st.sampled_from(MESSAGES), st.lists(st.tuples(st.integers(0, 47), st.integers(0, 255)), max_size=3))
def test_what_is_seen_is_what_is_read(message, changes):
    data = bytearray(message[:600])
    for at, byte in changes:
        if at < len(data):
            data[at] = byte
    if look(bytes(data)):
        assert alephium.begins(bytes(data), joined=True)


@given(st.binary(max_size=60))
def test_noise_is_not(data):
    assert not look(data)
