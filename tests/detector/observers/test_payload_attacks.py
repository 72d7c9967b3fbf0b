"""What forges a miner and what hides one: reproductions of attacks on the payload observer."""

import pytest
import spoken
from payload_rows import batch
from spoken import Talk

from detector.observers.payload import PayloadObserver

CONFIRMS = {"mining_session", "share_accepted", "share_verified"}
NONCE = "0013187c"
SUBMIT = {"id": 1, "method": "mining.submit", "params": ["w", "j", "00", "106e226b", "00000000"]}


def see(rows, observer=None):
    """All rows in one step."""
    return (observer or PayloadObserver()).step(batch(rows))


def kinds(seen):
    """Kinds of evidence."""
    return {e.kind for e in seen.evidence}


# -- forged ----------------------------------------------------------------------------------------------


def proven():
    """A share of 1.2 million hashes, cheap to forge: its nonce was searched for this test."""
    talk = Talk(start=10**9)
    talk.s({"id": 1, "result": [[["mining.notify", "6b"]], "7db3b4d0", 4], "error": None})
    talk.s({"id": None, "method": "mining.set_difficulty", "params": [0.00025]})
    talk.s({"id": None, "method": "mining.notify", "params": [
        "j", "0" * 64, "01000000", "02000000", [], "20000000", "1702905c", "106e226b", True]})  # fmt: skip
    talk.c({**SUBMIT, "params": ["w", "j", "00000000", "106e226b", NONCE]})
    return talk


def test_a_verified_share_that_nobody_acknowledged_confirms_nothing():
    deaf = [dict(r, ack=1) for r in proven().rows]
    seen = see(deaf)
    assert kinds(seen) == {"job", "share"}
    assert seen.sessions[0].algorithm == "sha256d"


def test_a_verified_share_confirms_once_both_acknowledged():
    talk, observer = proven(), PayloadObserver()
    assert "share_verified" not in kinds(see(talk.rows, observer))
    talk.rows.clear()
    talk.say("s", b"", flags=8)
    (e,) = [e for e in see(talk.rows, observer).evidence if e.kind == "share_verified"]
    assert e.count == 1


@pytest.mark.parametrize("ahead", [2**31 - 2, 2**24 + 200])
def test_an_absurd_acknowledgement_covers_nothing(ahead):
    talk = Talk(start=1)
    talk.c(SUBMIT)
    talk.s({"id": 1, "result": True})
    rows = [dict(r, ack=(r["ack"] + ahead) & 0xFFFFFFFF) for r in talk.rows]
    assert kinds(see(rows)) == {"share"}


def test_an_absurd_acknowledgement_does_not_hide_the_true_ones():
    talk = Talk()
    talk.say("c", b"", flags=8)
    talk.rows[0]["ack"] += 10**9
    spoken.btc(talk)
    assert "share_accepted" in kinds(see(talk.rows))


def test_a_reply_that_acknowledges_far_beyond_its_request_is_not_its():
    talk = Talk(start=1)
    talk.c({"id": 5, "method": "mining.subscribe", "params": []})
    talk.s({"id": 5, "result": [[["mining.notify", "6b"]], "7db3b4d0", 4], "error": None})
    talk.c(SUBMIT)
    talk.s({"id": 1, "result": True})
    talk.rows[-1]["ack"] += 2**24 + 1
    assert "share_accepted" not in kinds(see(talk.rows))
