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


# -- vetoes, spoiled lines, depth ------------------------------------------------------------------------

STRANGE = {"electrum": "server.version", "node-rpc": "get_info"}


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("rule", STRANGE)
@pytest.mark.parametrize("often", [1, 3])
def test_a_strange_line_of_the_server_hides_no_miner(make, rule, often):
    talk = Talk()
    for _ in range(often):
        talk.s({"id": 0, "method": STRANGE[rule], "params": []})
    truth = make(talk)
    talk.s({"id": 0, "method": STRANGE[rule], "params": []})
    seen = see(talk.rows)
    (facts,) = seen.sessions
    assert facts.shares.accepted == truth.accepted
    assert kinds(seen) >= {"share_accepted", "job"}
    assert {v.connection.opened for v in seen.vetoes} == {0}
    assert {e.connection.opened for e in seen.evidence} == {1}


def test_an_electrum_session_stays_vetoed_whatever_the_client_asks():
    talk = Talk()
    talk.s({"id": 0, "method": "server.version", "params": []})
    for n, method in enumerate(("server.version", "blockchain.headers.subscribe", "server.ping")):
        talk.c({"id": n, "method": method, "params": []})
        talk.s({"id": n, "result": True})
    seen = see(talk.rows)
    assert (seen.evidence, seen.sessions, len(seen.vetoes)) == ((), (), 1)
    talk.c({"id": 9, "method": "mining.authorize", "params": ["w", "x"]})
    talk.s({"id": 9, "error": {"code": -32601, "message": "unknown method"}})
    assert see(talk.rows).evidence == ()


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("spoil", [b"\xff", b"\\ud800", b"\t", b"\0", b"\\u0000"])
def test_a_spoiled_name_hides_no_share(make, spoil):
    talk = Talk()
    truth = make(talk)
    again = Talk()
    for r in talk.rows:
        data = r["data"]
        if r["src"] == talk.client[0]:
            data = data.replace(b".rig", b".r" + spoil + b"ig").replace(b'"rig3', b'"r' + spoil)
            data = data.replace(b"{", b'{"z": "' + spoil + b'", ', 1)
        again.say("c" if r["src"] == talk.client[0] else "s", data)
    seen = see(again.rows)
    assert seen.sessions[0].shares.accepted == truth.accepted
    assert all(e.why.isprintable() for e in seen.evidence)


@pytest.mark.parametrize(("opener", "closer"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("where", [b'"id":%s', b'"id":1,"error":%s', b'"id":1,"z":"\xff","result":%s'])
def test_no_depth_of_nesting_is_fatal(opener, closer, where):
    observer = PayloadObserver()
    for depth in (*range(900, 1101), 5000):
        nest = opener * depth + b"1" + closer * depth
        told = where % nest
        talk = Talk()
        talk.c(b"{" + told + b',"method":"mining.subscribe","params":[]}')
        talk.c(b'{"id":1,"method":"mining.authorize","params":["w","x"]}')
        talk.s(b"{" + told + b"}")
        talk.s(b"{" + told + b',"result":true}')
        see(talk.rows, observer)


@pytest.mark.parametrize("digits", [20, 309, 4301, 60000])
def test_no_length_of_an_id_is_fatal(digits):
    talk = Talk()
    talk.c(b'{"id":%s,"method":"mining.submit","params":["w","j","00"]}' % (b"9" * digits))
    talk.s(b'{"id":%s,"result":true}' % (b"9" * digits))
    assert kinds(see(talk.rows)) <= {"share", "share_accepted"}
