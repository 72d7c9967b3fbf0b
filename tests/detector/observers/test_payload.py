"""The payload observer: evidence, facts, vetoes, roles, bounds, state."""

from itertools import islice

import msgspec
import pytest
import spoken
from hypothesis import given
from hypothesis import strategies as st
from payload_rows import MAPPED, batch, row
from spoken import ETH, HASH, Talk

from detector.evidence import Seen
from detector.observers import words
from detector.observers.payload import Config, PayloadObserver, State

WHO = MAPPED + bytes([198, 51, 100, 1])


def see(rows, observer=None):
    """All rows in one step."""
    return (observer or PayloadObserver()).step(batch(rows))


def counts(seen: Seen):
    told = {}
    for e in seen.evidence:
        told[e.kind] = told.get(e.kind, 0) + e.count
    return told


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
def test_a_session_gives_all_kinds_and_true_facts(make):
    talk = Talk()
    truth = make(talk)
    seen = see(talk.rows)
    (facts,) = seen.sessions
    assert (facts.dialect, facts.algorithm) == (truth.dialect, truth.algorithm)
    assert (facts.shares.accepted, facts.shares.rejected) == (truth.accepted, truth.rejected)
    assert set(facts.workers) == truth.workers
    assert (facts.client, facts.server, facts.role) == (talk.client, talk.server, "miner")
    assert (facts.first_ns, facts.last_ns) == (talk.rows[0]["t"], talk.rows[-1]["t"])
    if truth.algorithm:
        assert facts.hashes == pytest.approx(truth.hashes, rel=1e-12)
        assert facts.hashes_shares == truth.accepted
    got = counts(seen)
    assert got["share_accepted"] == truth.accepted
    assert got["share"] == truth.accepted + truth.rejected
    assert {"mining_request", "job", "mining_session"} < got.keys()
    assert seen.vetoes == ()
    for e in seen.evidence:
        assert e.subscriber == WHO
        assert e.first_ns // 60_000_000_000 <= e.last_ns // 60_000_000_000
        assert e.why.isprintable()
        assert e.why.startswith((truth.dialect, "mining: "))


def test_the_reason_names_who_and_what():
    talk = Talk()
    spoken.btc(talk)
    (why,) = {e.why for e in see(talk.rows).evidence if e.kind == "share_accepted"}
    assert why == "btc-v1: pool 203.0.113.1:3333 accepted a share, of bc1qlabonly.rig"


def test_a_refusal_says_refused_and_the_pools_words():
    talk = Talk()
    talk.c({"id": 2, "method": "mining.authorize", "params": ["w\u202e\n", "x"]})
    talk.s({"id": 2, "result": None, "error": [24, "Unauthorized " + "w" * 1000, None]})
    (e,) = [e for e in see(talk.rows).evidence if e.kind == "login_refused"]
    assert "refused" in e.why
    assert "Unauthorized w" in e.why
    assert e.why.isprintable()
    assert len(e.why) < 300


def test_a_lone_subscribe_is_a_probe():
    talk = Talk()
    talk.c({"id": 1, "method": "mining.subscribe", "params": ["zgrab"]})
    assert counts(see(talk.rows)) == {"mining_request": 1}


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("side", ["c", "s"])
def test_one_direction_alone_confirms_nothing(make, side):
    talk = Talk()
    make(talk)
    source = talk.client if side == "c" else talk.server
    got = counts(see([r for r in talk.rows if r["src"] == source[0]]))
    assert got
    assert not got.keys() & {"mining_session", "share_accepted", "share_verified"}


def test_what_is_not_acknowledged_is_not_confirmed_and_is_once_it_is():
    talk = Talk()
    spoken.btc(talk, shares=2, reject=0)
    deaf = [dict(r, ack=talk.base["s"]) if r["src"] == talk.client[0] else r for r in talk.rows]
    observer = PayloadObserver()
    got = counts(see(deaf, observer))
    assert "share_accepted" not in got
    ack = dict(talk.rows[0], seq=talk.seq["c"], offset=5000, ack=talk.seq["s"], flags=8, data=b"")
    late = counts(see([ack], observer))
    assert late["share_accepted"] == 5
    assert late["mining_session"] >= 1


def test_udp_confirms_nothing():
    talk = Talk(protocol=17)
    spoken.btc(talk)
    got = counts(see(talk.rows))
    assert "share" in got
    assert not got.keys() & {"mining_session", "share_accepted"}


# -- look-alikes ---------------------------------------------------------------------------------------


def test_an_electrum_connection_is_vetoed_and_gives_nothing():
    talk = Talk()
    talk.c({"jsonrpc": "2.0", "method": "server.version", "id": 0, "params": ["electrum/4", "1.4"]})
    talk.s({"jsonrpc": "2.0", "id": 1, "error": {"message": 'unknown method "mining.subscribe"'}})
    talk.s({"id": 1, "result": [["mining.notify", "ae"], "08000002", 4], "error": None})
    seen = see(talk.rows)
    assert (seen.evidence, seen.sessions) == ((), ())
    (veto,) = seen.vetoes
    assert veto.rule == "electrum"
    assert "server.version" in veto.why


def test_one_electrum_line_does_not_hide_a_miner():
    talk = Talk()
    talk.c({"method": "server.version", "id": 0, "params": []})
    truth = spoken.btc(talk)
    seen = see(talk.rows)
    (facts,) = seen.sessions
    assert facts.shares.accepted == truth.accepted
    assert {e.connection.opened for e in seen.evidence} == {1}
    assert {v.connection.opened for v in seen.vetoes} == {0}


def test_a_miner_that_was_seen_first_is_not_vetoed():
    talk = Talk()
    spoken.btc(talk)
    talk.c({"method": "server.ping", "id": 0})
    assert see(talk.rows).vetoes == ()


def test_a_wallet_that_looks_for_work_is_vetoed():
    talk = Talk()
    talk.c({"id": 1, "method": "eth_getWork", "params": []})
    talk.c({"id": 2, "method": "eth_chainId", "params": []})
    seen = see(talk.rows)
    assert seen.evidence == ()
    assert [v.rule for v in seen.vetoes] == ["ethereum-wallet"]


def test_a_page_about_stratum_is_no_miner():
    page = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nDate: y\r\n\r\nHow to mine\r\n"
    page += b'{"id":null,"method":"mining.notify","params":["bf04","%s","%s",true]}\n' % (
        (HASH.encode(),) * 2
    )
    page += b'{"id":40,"method":"mining.submit","params":["w","bf04","1f0a063cfd83"]}\n'
    talk = Talk()
    talk.s(page)
    assert see(talk.rows).evidence == ()


def test_a_gateway_with_logins_and_work_arrays_is_no_miner():
    talk = Talk()
    talk.c({"id": 29, "method": "login", "params": {"login": "amber", "pass": "x"}})
    talk.s({"id": 29, "result": {"id": "31", "status": "OK"}})
    talk.c({"id": 31, "method": "state.read", "params": []})
    talk.s({"id": 31, "result": ["0x" + HASH, "0x" + HASH, "0x" + HASH, "0x12"]})
    seen = see(talk.rows)
    assert (seen.evidence, seen.sessions) == ((), ())


def test_work_pushed_in_the_middle_of_a_session_is_a_job():
    talk = Talk(begun=False)
    talk.s({"id": 0, "jsonrpc": "2.0", "result": ["0x" + HASH, "0x" + HASH, "0x" + HASH, "0x12"]})
    assert counts(see(talk.rows)) == {"job": 1}


def test_a_queue_that_carries_mining_lines_is_no_miner():
    line = b'{"id":null,"method":"mining.notify","params":["bf04","%s","%s",true]}' % ((HASH.encode(),) * 2)
    talk = Talk()
    for _ in range(5):
        talk.c(b"*3\r\n$5\r\nLPUSH\r\n$1\r\nj\r\n$%d\r\n%s\r" % (len(line), line))
        talk.s(b"$%d\r\n%s\r" % (len(line), line))
    assert see(talk.rows).evidence == ()


def test_no_generated_lookalike_is_believed():
    lookalikes = pytest.importorskip("lookalikes")
    for n, (family, told) in enumerate(islice(lookalikes.conversations(7), 600)):
        talk = Talk(port=1024 + n)
        for line, from_client in told:
            talk.say("c" if from_client else "s", line if line.endswith(b"\n") else line + b"\n")
        assert counts(see(talk.rows)).keys() <= {"mining_request"}, family


def test_an_echo_does_not_make_its_server_a_miner():
    talk = Talk()
    for _ in range(3):
        message = {"id": 1, "method": "mining.subscribe", "params": []}
        talk.c(message)
        talk.s(message)
    seen = see(talk.rows)
    assert counts(seen) == {"mining_request": 3}
    assert seen.sessions[0].client == talk.client


# -- connections ---------------------------------------------------------------------------------------


def test_a_port_used_again_is_a_new_opening():
    first, second = Talk(start=100), Talk(start=7_000_000)
    spoken.btc(first)
    spoken.cryptonote(second)
    seen = see(first.rows + second.rows)
    assert [(f.connection.opened, f.dialect) for f in seen.sessions] == [(0, "btc-v1"), (1, "cryptonote")]


def test_a_repeated_chunk_adds_nothing():
    talk = Talk()
    truth = spoken.btc(talk)
    twice = [r for r in talk.rows for _ in range(2)]
    observer = PayloadObserver()
    (facts,) = see(twice, observer).sessions
    assert facts.shares.accepted == truth.accepted
    assert observer.stats.repeated_bytes == sum(len(r["data"]) for r in talk.rows)


def test_the_server_end_of_a_home_connection_is_a_pool():
    talk = Talk()
    truth = spoken.btc(talk)
    copies = [dict(r, subscriber=talk.server[0], copy=1) for r in talk.rows]
    seen = see([r for pair in zip(talk.rows, copies, strict=True) for r in pair])
    told = {f.subscriber: (f.role, f.copy, f.shares.accepted) for f in seen.sessions}
    assert told == {
        talk.client[0]: ("miner", False, truth.accepted),
        talk.server[0]: ("pool", True, truth.accepted),
    }
    assert {(e.subscriber, e.role) for e in seen.evidence} == {(k, v[0]) for k, v in told.items()}


def test_an_ipv6_subscriber_is_a_prefix():
    prefix = bytes.fromhex("20010db8000000010000000000000000")
    host = prefix[:15] + b"\x07"
    ends = (host, 40000), (bytes.fromhex("20010db8000000020000000000000001"), 3333), 6, 0
    assert words.role(prefix, ends, 0) == "miner"
    assert words.role(prefix, ends, 1) == "pool"
    assert words.end(ends[0]) == "[2001:db8:0:1::7]:40000"


def test_idle_connections_are_forgotten_and_their_numbers_are_not():
    observer = PayloadObserver(Config(idle_s=10, remembered_s=1000))
    talk = Talk()
    talk.c({"id": 1, "method": "mining.subscribe", "params": []})
    see(talk.rows, observer)
    observer.expire(talk.now + 11 * 10**9)
    assert observer.state(WHO).tracks == []
    (e,) = see(talk.rows, observer).evidence
    assert e.connection.opened == 1
    observer.expire(talk.now + 2000 * 10**9)
    assert observer.state(WHO) == State()


def test_what_makes_room_within_a_step_is_as_gone_as_between_steps():
    bounds = Config(max_connections=2, max_subscribers=2)
    talks = [Talk(miner=1 + port % 3, port=port) for port in range(40000, 40009)]
    for talk in talks:
        spoken.btc(talk)
    whole, single = PayloadObserver(bounds), PayloadObserver(bounds)
    # Some rows twice in a row, so that a route is found again; then another's.
    rows = [one for turn in zip(*(talk.rows for talk in talks), strict=True) for one in (*turn, turn[-1])]
    rows += talks[0].rows + [{**one, "seq": (one["seq"] + 10**9) & 0xFFFFFFFF} for one in talks[0].rows]
    see(rows, whole)
    for one in rows:
        see([one], single)
    assert whole.stats == single.stats
    assert whole.stats.evicted > 100
    assert whole.stats.opened > 100
    for who in {one["subscriber"] for one in rows}:
        assert whole.state(who) == single.state(who)


def test_connections_of_a_subscriber_are_bounded():
    observer = PayloadObserver(Config(max_connections=3, max_remembered=5))
    for port in range(40000, 40020):
        talk = Talk(port=port)
        talk.c({"id": 1, "method": "mining.subscribe", "params": []})
        see(talk.rows, observer)
    assert len(observer.state(WHO).tracks) == 3
    assert len(observer.state(WHO).opened) == 5
    assert (observer.stats.evicted, observer.stats.forgotten) == (17, 15)


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
def test_state_carries_a_session_over_a_restart(make):
    talk = Talk()
    make(talk)
    whole = see(talk.rows)
    for cut in range(0, len(talk.rows), 5):
        first, second = PayloadObserver(), PayloadObserver()
        if cut:
            see(talk.rows[:cut], first)
        data = msgspec.msgpack.encode(first.state(WHO))
        second.restore(WHO, msgspec.msgpack.decode(data, type=State))
        assert see(talk.rows[cut:], second).sessions == whole.sessions


@pytest.mark.parametrize("make", spoken.MAKERS, ids=lambda m: m.__name__)
def test_lines_split_at_every_byte_are_the_same(make):
    talk = Talk()
    make(talk, shares=1)
    whole = see(talk.rows)
    pieces = [
        dict(r, data=r["data"][i : i + 1], seq=(r["seq"] + i) & 0xFFFFFFFF, offset=r["offset"] + i)
        for r in talk.rows
        for i in range(len(r["data"]))
    ]
    seen = see(pieces)
    assert seen.sessions == whole.sessions
    assert counts(seen) == counts(whole)


@pytest.mark.parametrize("lost", range(2, 20))
def test_a_gap_loses_its_lines_only(lost):
    talk = Talk()
    spoken.eth_nicehash(talk)
    rows = [dict(r) for r in talk.rows]
    gone = rows.pop(lost)
    after = next(r for r in rows[lost:] if r["src"] == gone["src"])
    after["flags"] |= 1
    (facts,) = see(rows).sessions
    (whole,) = see(talk.rows).sessions
    assert 0 <= whole.shares.accepted - facts.shares.accepted <= 1


def test_hostile_lines_leave_bounded_state():
    observer, talk = PayloadObserver(), Talk()
    talk.c(b'{"id":"' + b"9" * 10_000_000 + b'","method":"mining.subscribe","params":[]}')
    talk.c(b'{"id":1,"method":"mining.authorize","params":["' + b"w" * 60_000 + b'"]}')
    talk.s(b'{"id":null,"method":"mining.set_difficulty","params":[1e999]}')
    talk.s(b'{"id":null,"method":"mining.set_difficulty","params":[-5]}')
    talk.s(b'{"a":' + b"[" * 60_000)
    talk.c({"id": 2, "method": "mining.authorize", "params": [ETH, "x"]})
    seen = see(talk.rows, observer)
    assert len(msgspec.msgpack.encode(observer.state(WHO))) < 100_000
    assert seen.sessions[0].workers[-1] == ETH
    assert observer.stats.refused == {"long": 1, "json": 2} or observer.stats.refused["long"] == 1


ROWS = st.builds(
    row,
    src=st.sampled_from([WHO, MAPPED + bytes([203, 0, 113, 1])]),
    dst=st.sampled_from([WHO, MAPPED + bytes([203, 0, 113, 1])]),
    src_port=st.sampled_from([40000, 3333]), dst_port=st.sampled_from([40000, 3333]),
    t=st.integers(-(2**62), 2**62), offset=st.integers(0, 2**64 - 1), seq=st.integers(0, 2**32 - 1),
    ack=st.integers(0, 2**32 - 1), flags=st.integers(0, 255), protocol=st.sampled_from([6, 17, 0]),
    copy=st.integers(0, 1), data=st.binary(max_size=60) | st.just(b'{"id":1,"result":true}\n')
    | st.just(b'{"id":1,"method":"mining.submit","params":["w","j","00"]}\n'),
)  # fmt: skip


@given(st.lists(ROWS, min_size=1, max_size=30))
def test_any_rows_are_taken(rows):
    observer = PayloadObserver()
    see(rows, observer)
    observer.expire(2**62)
    msgspec.msgpack.decode(msgspec.msgpack.encode(observer.state(WHO)), type=State)
