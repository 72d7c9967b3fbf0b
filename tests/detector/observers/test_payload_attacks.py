"""What forges a miner and what hides one: reproductions of attacks on the payload observer."""

import pytest
import spoken
from payload_rows import batch
from spoken import HASH, Talk

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


# -- who is the client -----------------------------------------------------------------------------------

MISLEADING = {
    "the client pings": ("c", {"id": 1, "method": "mining.ping"}),
    "the client sets a difficulty": ("c", {"id": None, "method": "mining.set_difficulty", "params": [1]}),
    "the client hands out a job": ("c", {"method": "mining.notify", "params": ["z", HASH, HASH, True]}),
    "the client pushes work": ("c", {"id": 0, "result": ["0x" + HASH, "0x" + HASH, "0xff"]}),
    "the server suggests": ("s", {"id": 9, "method": "mining.suggest_difficulty", "params": [1]}),
    "the server configures": ("s", {"id": 9, "method": "mining.configure", "params": [[], {}]}),
}


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("said", MISLEADING)
def test_one_message_of_the_other_sides_hides_no_miner(make, said):
    talk, plain = Talk(), Talk()
    side, message = MISLEADING[said]
    (talk.c if side == "c" else talk.s)(message)
    make(talk)
    make(plain)
    seen = see(talk.rows)
    (facts,) = seen.sessions
    (truth,) = see(plain.rows).sessions
    assert "share_accepted" in kinds(seen)
    assert (facts.client, facts.dialect) == (talk.client, truth.dialect)
    lost = truth.shares.accepted - facts.shares.accepted
    assert 0 <= lost <= ("job" in said or "pushes" in said)


def test_a_side_that_turned_keeps_nothing_of_the_wrong_one():
    talk = Talk()
    talk.s({"id": 7, "method": "mining.authorize", "params": ["forged", "x"]})
    for _ in range(2):
        talk.c(SUBMIT)
    seen = see(talk.rows)
    assert seen.sessions[0].client == talk.client
    talk.c({"id": 7, "result": True})
    assert not kinds(see(talk.rows)) & CONFIRMS


# -- prose and the web -----------------------------------------------------------------------------------

CONNECT = b"CONNECT p:3333 HTTP/1.1\r\nHost: p:3333\r\nProxy-Connection: keep-alive\r\n\r"


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("prose", [b"x", b"{}\nx\nx", b"hello world\n" * 20, b"\r\n\r\n\0\r\nQUIT\n!"])
@pytest.mark.parametrize("sides", ["c", "s", "cs"])
def test_prose_first_hides_no_miner(make, prose, sides):
    talk = Talk()
    for side in sides:
        talk.say(side, prose + b"\n")
    make(talk)
    assert "share_accepted" in kinds(see(talk.rows))


def test_prose_in_the_middle_hides_no_miner():
    talk = Talk()
    talk.c({"id": 0, "method": "mining.subscribe", "params": []})
    talk.c(b"x\nx\nx")
    spoken.btc(talk)
    assert "share_accepted" in kinds(see(talk.rows))


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
def test_a_tunnel_is_no_web_page(make):
    talk = Talk()
    talk.c(CONNECT)
    talk.s(b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r")
    truth = make(talk)
    assert see(talk.rows).sessions[0].shares.accepted == truth.accepted


def form(rows_before, lines, skip=0):
    """A browser's POST whose body holds shares, answered raw."""
    talk = Talk()
    for data in rows_before:
        talk.c(data)
    talk.c(b"\n" * 100 + b"\n".join(spoken.dump({**SUBMIT, "id": n}) for n in range(lines)))
    for n in range(lines):
        talk.s({"id": n, "result": True})
    talk.say("c", b"", flags=8)
    return talk.rows[skip:]


POST = b"POST /x HTTP/1.1\r\nHost: evil.example\r\nContent-Type: text/plain\r\n\r"


@pytest.mark.parametrize("lines", [1, 2, 60])
def test_a_form_with_shares_in_it_is_no_miner(lines):
    assert kinds(see(form([POST], lines))) == set()
    whole = form([], lines)
    whole[0]["data"] = POST + b"\n" + whole[0]["data"]
    assert kinds(see(whole)) == set()


@pytest.mark.parametrize("lines", [1, 2, 20])
def test_a_form_whose_header_was_not_seen_confirms_nothing(lines):
    rows = form([POST], lines, skip=1)
    assert kinds(see(rows)) <= {"share"}
    again = form([POST, POST], lines, skip=1)
    assert kinds(see(again)) == set()


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
def test_a_miner_whose_first_bytes_were_not_seen_is_confirmed(make):
    talk = Talk()
    talk.say("c", b"\x05\x01\x00")
    talk.say("s", b"\x05\x00")
    make(talk)
    assert "share_accepted" in kinds(see(talk.rows[2:]))


def test_a_log_that_is_downloaded_is_no_miner():
    talk = Talk()
    talk.c(b"GET /stratum.log HTTP/1.1\r\nHost: docs.example\r\n\r")
    talk.s(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9000\r\n\r")
    log = Talk()
    spoken.btc(log)
    for r in log.rows:
        talk.say("s", r["data"])
    assert kinds(see(talk.rows)) == set()
