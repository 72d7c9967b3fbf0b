"""Replies paired, difficulty in force, shares by their fate: against sessions spoken from the specification."""

# ruff: noqa: E501  # real lines are long
import math

import msgspec
import pytest
import spoken
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_rows import batch
from spoken import HASH, Talk

from detector import hashrate, ledger
from detector.dialects import table
from detector.dialects.lines import LineError
from detector.ledger import Session, hashes
from detector.observers.payload import PayloadObserver
from detector.sessions import Arrival, Engine
from detector.store import merged, since

ENGINE = Engine()


def listen(talk, session=None, skip=0, reached=None, engine=ENGINE):
    """Feed the lines of a talk that has one message a row; gives session and sights."""
    session, sights = session or Session(from_start=talk.begun and not skip), []
    reached = {} if reached is None else reached
    for row in talk.rows[skip:]:
        way = 0 if row["src"] == talk.client[0] else 1
        end = (row["seq"] + len(row["data"])) & 0xFFFFFFFF
        at = Arrival(way, row["t"], end, row["ack"], reached.get(1 - way))
        reached[way] = end
        engine.read(session, at, row["data"], sights)
    return session, sights


def kinds(sights):
    return [kind for kind, *_ in sights]


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
def test_a_session_from_its_start_tells_the_truth(make):
    talk = Talk()
    truth = make(talk)
    engine = Engine()
    s, sights = listen(talk, engine=engine)
    assert (s.dialect, s.shares.accepted, s.shares.rejected) == (
        truth.dialect,
        truth.accepted,
        truth.rejected,
    )
    assert set(s.workers) == truth.workers
    assert s.logged_in
    assert not s.pending or s.pending[0].kind != "submit"
    assert set(engine.dropped.values()) == {0}
    if truth.dialect == "btc-v1":
        assert hashes(s) == (None, 0, None)
        assert s.sums[""].total == truth.hashes
        s.algorithm = "scrypt"
        assert hashes(s) == (truth.hashes * 65536, truth.accepted, 1024 * 65536)
    else:
        assert s.algorithm == truth.algorithm
        total, counted, most = hashes(s)
        assert total == pytest.approx(truth.hashes, rel=1e-12)
        assert counted == truth.accepted
        assert most >= total / counted > 0
    assert kinds(sights).count("share_accepted") == truth.accepted
    assert {"mining_request", "job", "share", "mining_session", "share_accepted"} == set(kinds(sights))


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("skip", range(1, 24))
def test_joined_in_the_middle_counts_what_it_saw(make, skip):
    talk = Talk(begun=False)
    make(talk)
    s, _ = listen(talk, skip=skip)
    requests = sum(b"ubmit" in r["data"] and b"Login" not in r["data"] for r in talk.rows[skip:])
    assert s.shares.accepted + s.shares.rejected == requests
    assert hashes(s)[1] <= s.shares.accepted


def test_a_reply_that_does_not_acknowledge_the_request_is_another_ones():
    talk = Talk(begun=False)
    talk.c({"id": 4, "method": "mining.submit", "params": ["w", "j", "00", "6b02def0", "541a0000"]})
    early = dict(talk.rows[0])
    talk.s({"id": 4, "result": True})
    reply = dict(talk.rows[1], ack=early["seq"])  # acknowledges nothing of the request: an older one's
    talk.rows[1] = reply
    s, _ = listen(talk)
    assert s.shares.accepted == 0
    assert len(s.pending) == 1


def test_a_reply_before_its_request_waits_for_it():
    talk = Talk(begun=False)
    spoken.btc(talk)
    clients = [r for r in talk.rows if r["src"] == talk.client[0]]
    servers = [r for r in talk.rows if r["src"] != talk.client[0]]
    straight, _ = listen(talk)
    talk.rows = servers + clients
    late, sights = listen(talk)
    assert late.shares == straight.shares
    assert late.logged_in
    assert late.sums[""].shares == straight.sums[""].shares
    assert kinds(sights).count("share_accepted") == straight.shares.accepted


def test_constant_and_odd_ids_are_paired_in_order():
    talk = Talk()
    for id_ in (4, 4, None, "a", 1.5, [1], {"x": 1}, "4" * 10_000, 2**70):
        talk.c({"id": id_, "method": "mining.submit", "params": ["w", "j", "00", "6b02def0", "541a0000"]})
    for id_ in (4, None, "a", 4, 1.5, [1], {"x": 1}, "4" * 10_000, 2**70):
        talk.s({"id": id_, "result": id_ != "a"})
    s, _ = listen(talk)
    assert (s.shares.accepted, s.shares.rejected, s.pending) == (8, 1, [])


def test_a_number_and_its_text_are_different_ids():
    talk = Talk()
    talk.c({"id": 4, "method": "mining.submit", "params": ["w", "j", "00", "6b02def0", "541a0000"]})
    talk.s({"id": "4", "result": True})
    talk.s({"id": True, "result": True})
    s, _ = listen(talk)
    assert s.shares.accepted == 0


@pytest.mark.parametrize(
    ("reply", "accepted", "rejected", "stale"),
    [
        ({"result": True, "error": None}, 1, 0, 0),
        ({"result": True}, 1, 0, 0),
        ({"reject-reason": "Above target 2", "result": False, "error": None}, 0, 1, 0),
        ({"result": None, "error": [21, "job not found"]}, 0, 0, 1),
        ({"result": None, "error": [23, "low", ""]}, 0, 1, 0),
        ({"result": False, "error": {"code": 21, "message": "late", "data": None}}, 0, 0, 1),
        ({"result": False, "error": {"code": 20, "message": "stale share", "data": None}}, 0, 0, 1),
        ({"result": {"status": "KEEPALIVED"}}, 0, 0, 0),
    ],
)
def test_each_form_of_errata_a6(reply, accepted, rejected, stale):
    talk = Talk()
    talk.c({"id": 7, "method": "mining.submit", "params": ["w", "j", "00", "6b02def0", "541a0000"]})
    talk.s({"id": 7, **reply})
    s, _ = listen(talk)
    assert (s.shares.accepted, s.shares.rejected, s.shares.stale) == (accepted, rejected, stale)


def test_many_workers_on_one_connection_are_all_named_and_bounded():
    talk = Talk()
    for n in range(100):
        talk.c({"id": n, "method": "mining.authorize", "params": [f"wallet.rig{n}", "x"]})
        talk.s({"id": n, "result": True})
    engine = Engine()
    s, _ = listen(talk, engine=engine)
    assert s.workers == [f"wallet.rig{n}" for n in range(ledger.MAX_NAMES)]
    assert s.wallets == ["wallet"]
    assert engine.dropped["names"] == 100 - ledger.MAX_NAMES


def test_a_refused_login_is_told_in_the_pools_words():
    talk = Talk()
    talk.c({"id": 2, "method": "mining.authorize", "params": ["w", "x"]})
    talk.s({"id": 2, "result": None, "error": [24, "Unauthorized worker", None]})
    s, sights = listen(talk)
    assert kinds(sights) == ["mining_request", "login_refused"]
    assert sights[1][3] == ("w", "Unauthorized worker")
    assert not s.logged_in


def test_an_authorize_may_be_answered_with_a_token():  # errata A7
    talk = Talk()
    talk.c({"id": 2, "method": "mining.authorize", "params": ["w", "x"]})
    talk.s({"id": 2, "result": "w-123"})
    assert listen(talk)[0].logged_in


@pytest.mark.parametrize("reply", [{}, {"error": None}])
def test_a_reply_that_says_nothing_neither_lets_in_nor_refuses(reply):
    talk = Talk()
    talk.c({"id": 2, "method": "mining.authorize", "params": ["w", "x"]})
    talk.s({"id": 2, **reply})
    s, sights = listen(talk)
    assert (s.logged_in, kinds(sights)) == (False, ["mining_request"])


def test_extranonce_and_difficulty_hold_from_the_next_job_the_mask_at_once():
    talk = Talk()
    spoken.btc(talk, difficulties=(8,), shares=0, reject=0)
    talk.s({"id": None, "method": "mining.set_extranonce", "params": ["ffff", 4]})
    talk.s({"id": None, "method": "mining.set_difficulty", "params": [16]})
    talk.s({"id": None, "method": "mining.set_version_mask", "params": ["00ffe000"]})
    s, _ = listen(talk)
    job = s.jobs["j0"]
    assert (job.difficulty, job.work.extranonce1, s.force.mask) == (8, "08000002", 0xFFE000)
    talk = Talk()
    talk.s({"id": None, "method": "mining.notify", "params": ["j1", HASH, "01", "", [], "20000000", "1702905c", "6b02def0", True]})  # fmt: skip
    s, _ = listen(talk, s)
    assert (s.jobs["j1"].difficulty, s.jobs["j1"].work.extranonce1) == (16, "ffff")


def test_the_mask_comes_with_the_reply_to_configure():
    talk = Talk()
    talk.c({"id": 1, "method": "mining.configure", "params": [["version-rolling"], {"version-rolling.mask": "ffffffff"}]})  # fmt: skip
    talk.s({"id": 1, "error": None, "result": {"version-rolling": True, "version-rolling.mask": "1fffe000"}})
    assert listen(talk)[0].force.mask == 0x1FFFE000


def test_jobs_pending_and_held_are_bounded():
    talk = Talk()
    for n in range(300):
        talk.s({"id": None, "method": "mining.notify", "params": [f"j{n}", HASH, HASH, True]})
        talk.c({"id": n, "method": "mining.submit", "params": ["w", f"j{n}", "00"]})
    engine = Engine()
    s, _ = listen(talk, engine=engine)
    assert (len(s.jobs), len(s.pending)) == (ledger.MAX_JOBS, ledger.MAX_PENDING)
    assert "j299" in s.jobs
    assert (engine.dropped["jobs"], engine.dropped["pending"]) == (
        300 - ledger.MAX_JOBS,
        300 - ledger.MAX_PENDING,
    )
    lone = Session()
    for n in range(300):
        ENGINE.read(lone, Arrival(1, n, None, None, None), b'{"id":%d,"result":true}' % n, [])
    assert len(lone.held) == ledger.MAX_HELD


def test_a_claimed_hash_rate_is_kept_apart():
    talk = Talk()
    spoken.eth_proxy(talk, shares=0, reject=0)
    talk.c({"id": 9, "method": "eth_submitHashrate", "params": ["0x" + f"{182_000_000:064x}", "0x" + HASH]})
    s, _ = listen(talk)
    assert s.claimed == 182e6
    assert hashes(s)[:2] == (0.0, 0)


def test_a_single_look_for_work_is_no_evidence_and_two_are_a_request():
    talk = Talk()
    work = {"jsonrpc": "2.0", "result": ["0x" + HASH, "0x" + HASH, "0x" + "0" * 8 + "f" * 56]}
    talk.c({"id": 1, "method": "eth_getWork", "params": []})
    talk.s({"id": 1, **work})
    s, sights = listen(talk)
    assert (sights, s.shaped) == ([], False)
    talk.rows.clear()
    talk.c({"id": 1, "method": "eth_getWork", "params": []})
    talk.s({"id": 1, **work})
    s, sights = listen(talk, s)
    assert kinds(sights) == ["mining_request", "job"]
    assert s.shaped


def test_a_plain_login_is_nothing_until_a_job_comes_back():
    login = {"id": 1, "method": "login", "params": {"login": "user", "pass": "x", "agent": "print/1"}}
    talk = Talk()
    talk.c(login)
    talk.s({"id": 1, "error": None, "result": {"id": "s", "status": "OK"}})
    s, sights = listen(talk)
    assert (sights, s.shaped, s.workers) == ([], False, [])
    job = {"blob": spoken.BLOB, "job_id": "a", "target": "37120500", "algo": "rx/0"}
    talk = Talk()
    talk.c(login)
    talk.s({"id": 1, "error": None, "result": {"id": "s", "status": "OK", "job": job}})
    s, sights = listen(talk)
    assert kinds(sights) == ["job", "mining_session"]
    assert s.workers == ["user"]


def test_the_algorithm_may_change_in_mid_session_and_sums_stay_apart():
    talk = Talk()
    spoken.cryptonote(talk, targets=("37120500",), shares=2, reject=0)
    talk.s(
        {
            "method": "job",
            "params": {"blob": spoken.BLOB, "job_id": "z", "target": "ffffff00", "algo": "cn/r"},
        }
    )
    talk.c({"id": 9, "method": "submit", "params": {"job_id": "z", "nonce": "d0379ce3", "result": HASH}})
    talk.s({"id": 9, "result": {"status": "OK"}})
    s, _ = listen(talk)
    assert (s.algorithm, hashes(s)) == ("cn/r", (256.0, 1, 256.0))
    assert s.sums["rx/0"].shares == 2


def test_each_algorithm_of_a_session_keeps_its_shares_and_its_time():
    """rx/0 for 100 s, cn/r for 50 s, rx/0 again for 30 s: two rates, none of them over all the time."""
    talk = Talk()

    def mine(name, algorithm, target, shares, each_s):
        job = {"blob": spoken.BLOB, "job_id": name, "target": target, "algo": algorithm}
        talk.s({"method": "job", "params": job})
        for n in range(shares):
            talk.wait(each_s)
            talk.c({"id": n, "method": "submit", "params": {"job_id": name, "nonce": "d0379ce3", "result": HASH}})  # fmt: skip
            talk.s({"id": n, "result": {"status": "OK"}})

    mine("a", "rx/0", "37120500", 10, 10)
    mine("b", "cn/r", "ffffff00", 5, 10)
    seen = PayloadObserver().step(batch(talk.rows))
    told = {r.algorithm: (r.value, r.shares) for r in hashrate.rates(seen.sessions)}
    assert told == {"rx/0": (pytest.approx(1292.3), 10), "cn/r": (pytest.approx(25.6), 5)}
    mine("c", "rx/0", "37120500", 3, 10)
    (facts,) = PayloadObserver().step(batch(talk.rows)).sessions
    told = {r.algorithm: (r.value, r.shares) for r in hashrate.rates([facts])}
    assert told == {"rx/0": (pytest.approx(1292.3), 13), "cn/r": (pytest.approx(25.6), 5)}
    new = since(facts, seen.sessions[0])
    told = {r.algorithm: (r.value, r.shares) for r in hashrate.rates([new]) if r.value}
    assert told == {"rx/0": (pytest.approx(1292.3), 3)}
    twice = hashrate.rates([merged(facts, facts)])
    assert {r.algorithm: r.shares for r in twice} == {"rx/0": 26, "cn/r": 10}


@pytest.mark.parametrize("bad", [0, -1, 1e308, 10**400, "8", None, True])
def test_an_impossible_difficulty_changes_nothing(bad):
    talk = Talk()
    talk.s({"id": None, "method": "mining.set_difficulty", "params": [16]})
    talk.s({"id": None, "method": "mining.set_difficulty", "params": [bad]})
    assert listen(talk)[0].force.difficulty == 16


@pytest.mark.parametrize("target", ["00000000", "0" * 16])
def test_an_impossible_target_leaves_the_hashes_unknown(target):
    talk = Talk()
    spoken.cryptonote(talk, targets=("37120500",), shares=0, reject=0)
    talk.s(
        {"method": "job", "params": {"blob": spoken.BLOB, "job_id": "z", "target": target, "algo": "rx/0"}}
    )
    talk.c({"id": 9, "method": "submit", "params": {"job_id": "z", "nonce": "d0379ce3", "result": HASH}})
    talk.s({"id": 9, "result": {"status": "OK"}})
    s, _ = listen(talk)
    assert (s.shares.accepted, hashes(s)) == (1, (0.0, 0, 12923.0))


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("cut", range(0, 30, 3))
def test_a_session_survives_serialising_anywhere(make, cut):
    talk = Talk()
    make(talk)
    whole, _ = listen(talk)
    first, rest = Talk(), Talk()
    first.rows, rest.rows = talk.rows[:cut], talk.rows[cut:]
    reached = {}
    s, _ = listen(first, reached=reached)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(s), type=Session)
    assert again == s
    end, _ = listen(rest, again, reached=reached)
    assert end == whole


LINES = [line.encode() for form in table.load().forms for line in (*form.hits, *form.misses)]


@st.composite
def mutated(draw):
    line = bytearray(draw(st.sampled_from(LINES)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(line)))
        line[at : at + draw(st.integers(0, 4))] = draw(
            st.sampled_from(
                [b"", b'"', b"[", b"]", b"0", b"null", b"-1", b"1e999", b"{}", b"9" * 400, b"\xff", b"true"]
            )
        )
    return bytes(line)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), mutated(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        max_size=40,
    )
)
def test_any_conversation_is_taken_within_bounds(told):
    s = Session()
    for way, line, end, ack in told:
        sights = []
        try:
            ENGINE.read(s, Arrival(way, 0, end, ack, end), line, sights)
        except LineError:
            continue
        assert all(len(part) <= 128 for *_, details in sights for part in details)
    total, counted, most = hashes(s)
    for number in (total, most, s.claimed, s.force.difficulty):
        assert number is None or math.isfinite(number)
    assert counted <= s.shares.accepted
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(s), type=Session) == s


def test_a_request_without_a_user_leaves_the_login_as_it_is():
    s = ledger.Session(shaped=True, login="worker")
    ledger.asked(s, dict.fromkeys(ledger.DROPS, 0), "", "browser")
    assert (s.login, s.agents, s.workers) == ("worker", ["browser"], [])
    ledger.asked(s, dict.fromkeys(ledger.DROPS, 0), "another", "browser")
    assert (s.login, s.agents, s.workers) == ("another", ["browser"], ["another"])


@pytest.mark.parametrize("dialect", ["mining", *table.load().dialects])
def test_any_message_may_come_in_a_session_of_any_dialect(dialect):
    engine, read = Engine(), 0
    for line in {hit for form in engine.table.forms for hit in form.hits}:
        for way in (0, 1):
            session = Session(dialect=dialect, shaped=True, client=0, polls=2)
            engine.read(session, Arrival(way, 1, None, None, None), line.encode(), [])
            read += 1
    assert read > 200
