"""Calls of Chia's pools are told by their paths, their bodies by what they hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.transports import chia

ID = b"launcher_id=0x" + b"7e" * 32
CALLS = {
    (b"GET", b"/pool_info"): "pool_info",
    (b"GET", b"/v1/pool_info"): "pool_info",
    (b"GET", b"/farmer?" + ID + b"&authentication_token=7"): "known",
    (b"GET", b"/farmer?" + ID[:-2] + b"&authentication_token=7"): "",
    (b"GET", b"/farmer"): "",
    (b"POST", b"/farmer"): "farmer",
    (b"PUT", b"/farmer"): "farmer",
    (b"POST", b"/partial"): "partial",
    (b"POST", b"/a/partials"): "partial",
    (b"GET", b"/partial"): "",
    (b"DELETE", b"/farmer"): "",
    (b"POST", b"/partially"): "",
    (b"POST", b"/partial/7"): "",
    (b"POST", b"/login?next=/partial"): "",
    (b"POST", b"*"): "",
}


@pytest.mark.parametrize("asked", CALLS, ids=lambda a: b" ".join(a).decode())
def test_a_call_is_told_by_its_path(asked):
    assert chia.call(*asked) == CALLS[asked]


def named(name, said):
    return [json.loads(one) for one in chia.messages(name, json.dumps(said).encode())]


def test_an_answer_says_what_becomes_of_a_partial_and_what_the_next_is_worth():
    assert named("partial.answer", {"new_difficulty": 7}) == [
        {"chia": "accepted"}, {"difficulty": 7, "chia": "difficulty"},
    ]  # fmt: skip
    assert named("partial.answer", {"error_code": 5, "chia": "accepted"}) == [
        {"error_code": 5, "chia": "error"}
    ]
    assert named("known.answer", {"current_difficulty": 9}) == [{"difficulty": 9, "chia": "difficulty"}]
    assert named("farmer.answer", {"welcome_message": "x"}) == [{"chia": "welcome"}]


@pytest.mark.parametrize(
    "said", [{"a": 1}, {"payload": 7}, {"payload": {"id": "7"}}, {"result": True, "id": 1}]
)
def test_what_is_no_call_of_a_farmers_stays_as_it_is(said):
    assert named("partial", said) == [said]
    assert named("partial.answer", said) == [said]


@given(st.binary(max_size=80), st.sampled_from([b"GET", b"POST", b"PUT"]), st.binary(max_size=80))
def test_any_bytes_are_read(path, method, body):
    name = chia.call(method, b"/" + path)
    assert chia.messages(name or "partial", body) == [body] or b"{" in body
