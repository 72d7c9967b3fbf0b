"""A miner over HTTP that has a connection for each request, or one for long polls and one for shares, is one
miner: the same shares and the same rate as on one connection."""

import json
import random

import msgspec
import pytest
from payload_rows import batch
from speakers import nodes, solo
from speakers.conversing import converse
from spoken import SECOND, Talk

from detector import hashrate, kinship, ledger
from detector.dialects.messages import Job, Work
from detector.kinship import Asker
from detector.ledger import DROPS, MAX_KIN_JOBS, MAX_SUMS, MAX_WORKS, Kin, Session, Sum
from detector.observers.payload import PayloadObserver
from detector.tracks import State

ACK_ONLY = 8
WORK = Work("00", "01", "02", [], "20000000", "1d00ffff", "03")
HTTP = [*solo.SPEAKERS, *(kind for kind in nodes.SPEAKERS if "chia" in kind.dialect)]


class Apart:
    """Each request on a connection of its own, which ends with the answer."""

    def __init__(self):
        self.rows, self.port, self.talk = [], 40000, None
        self.now = 1_700_000_000 * SECOND

    def wait(self, seconds):
        self.now += int(seconds * SECOND)

    def on(self, data):
        self.port += 1
        return Talk(port=self.port)

    def say(self, who, data):
        if who == "c":
            self.talk = self.on(data)
        talk = self.talk
        talk.now = self.now
        talk.say(who, data)
        if who == "s":
            talk.say("c", b"", flags=ACK_ONLY)
        self.rows += talk.rows
        talk.rows = []


class Parted(Apart):
    """What is asked for waits on one connection, what is handed in goes over another."""

    def __init__(self):
        super().__init__()
        self.talks = {way: Talk(port=port) for way, port in ((True, 40001), (False, 40002))}

    def on(self, data):
        return self.talks[b"submit" in data or b"partial" in data]


class Turns(Apart):
    """Connections that stay open, whichever is free."""

    def __init__(self):
        super().__init__()
        self.talks, self.free = [Talk(port=port) for port in range(40001, 40009)], random.Random(1)

    def on(self, data):
        return self.free.choice(self.talks)


def told(rows, observer=None, step=None):
    """Facts of all connections, the latest of each, of rows that come in batches of ``step``."""
    observer, facts = observer or PayloadObserver(), {}
    for at in range(0, len(rows), step or len(rows)):
        for one in observer.step(batch(rows[at : at + (step or len(rows))])).sessions:
            facts[one.connection] = one
    return list(facts.values())


@pytest.mark.parametrize("part", [0, 0.4])
@pytest.mark.parametrize("way", [Apart, Parted, Turns])
@pytest.mark.parametrize("kind", HTTP, ids=lambda k: k.name)
def test_shares_and_rate_are_those_of_one_connection(kind, way, part):
    talk = way()
    truth = converse(kind(), talk)
    since = int(len(talk.rows) * part) // 3 * 3
    facts = told(talk.rows[since:], step=7)
    counts, (worth, known) = truth.counts(since), truth.worth(since)
    assert {name: sum(getattr(f.shares, name) for f in facts) for name in counts} == counts
    assert {f.dialect for f in facts} == {kind.dialect}
    (rate,) = hashrate.rates(facts)
    assert rate.algorithm == kind.algorithm
    assert rate.shares >= known
    assert rate.low <= truth.rate <= rate.high
    if not part:
        assert len({f.workers for f in facts}) == 1 or kind.name.startswith("chia")
        assert sum(f.hashes or 0 for f in facts) == pytest.approx(worth, rel=1e-9)
        assert rate.value == pytest.approx(truth.rate, rel=0.03)
    if kind is solo.BlockTemplate:
        assert sum(f.shares.verified for f in facts) > 24


def work(talk, number, answered=True):
    """One look for work at a node of Ethereum."""
    talk.say("c", _post({"id": 1, "jsonrpc": "2.0", "method": "eth_getWork", "params": []}))
    if answered:
        result = [f"0x{number:064x}", "0x" + "22" * 32, "0x" + "00" * 4 + "ff" * 28]
        talk.say("s", _reply({"id": 1, "jsonrpc": "2.0", "result": result}))


def _post(told):
    body = json.dumps(told).encode()
    return (
        b"POST / HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


def _reply(told):
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps(told).encode() + b"\n"


def looked(times, apart_s, answered=True):
    talk = Apart()
    for number in range(times):
        work(talk, number, answered)
        if answered:
            talk.talk.say("s", b"", flags=4)  # FIN
            talk.rows += talk.talk.rows
        talk.wait(apart_s)
    return PayloadObserver().step(batch(talk.rows))


def test_who_looks_for_work_again_and_again_is_a_miner_and_a_scanner_is_not():
    assert {e.kind for e in looked(5, 21).evidence} >= {"mining_request"}
    assert {e.kind for e in looked(200, 0.5).evidence} >= {"mining_request"}
    assert looked(3, 60).evidence == ()
    assert looked(30, 0.5).evidence == ()
    assert looked(30, 0.5, answered=False).evidence == ()


def test_what_an_explorer_asks_on_many_connections_is_nothing():
    talk, speaker = Apart(), solo.BlockTemplate()
    speaker.agent = "explorer/3.1"
    for number in range(9):
        said, _ = speaker.job(number, speaker.hashes, True)
        asks = {"id": 1, "method": "getblocktemplate", "params": [{"rules": ["segwit"]}]}
        talk.say("c", speaker.dump(("c", asks)))
        talk.say("s", speaker.dump(("s", {**said[1][1][1], "id": 1})))
        talk.wait(60)
    seen = PayloadObserver().step(batch(talk.rows))
    assert (seen.evidence, seen.sessions) == ((), ())


def mined(talk, speaker, number, shares=1):
    """A job of bitcoind's and shares of it."""
    for side, message in speaker.job(number, speaker.hashes, False)[0]:
        talk.say(side, speaker.dump(message))
    for _ in range(shares):
        talk.wait(5)
        request = speaker.share(number)
        talk.say("c", speaker.dump(request))
        talk.say("s", speaker.dump(speaker.reply(request, "accepted")))


def test_a_restart_between_a_job_and_its_share_loses_nothing():
    talk, speaker = Apart(), solo.BlockTemplate()
    mined(talk, speaker, 0, shares=9)
    cut = len(talk.rows) - 3 * 4
    first, second = PayloadObserver(), PayloadObserver()
    facts = told(talk.rows[:cut], first)
    subscriber = talk.rows[0]["subscriber"]
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state(subscriber)), type=State)
    assert all(track.session.kin is None for _, track in again.tracks)
    second.restore(subscriber, again)
    facts += told(talk.rows[cut:], second)
    assert sum(f.shares.accepted for f in facts) == 9
    assert sum(f.hashes_shares for f in facts) == 9
    assert sum(f.shares.verified for f in facts) == 9


@pytest.mark.parametrize("kind", [solo.MoneroDaemon, nodes.Farmer])
def test_who_restarts_again_and_again_sees_the_same(kind):
    talk, observer = Turns(), PayloadObserver()
    truth = converse(kind(), talk, jobs=6, shares=5)
    once, subscriber, facts = told(talk.rows), talk.rows[0]["subscriber"], {}
    for at in range(0, len(talk.rows), 5):
        facts |= {f.connection: f for f in told(talk.rows[at : at + 5], observer)}
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(observer.state(subscriber)), type=State)
        observer = PayloadObserver()
        observer.restore(subscriber, state)
    assert facts == {f.connection: f for f in once}
    assert sum(f.hashes for f in once) == pytest.approx(truth.worth()[0], rel=1e-9)


def test_what_is_told_of_is_bounded_so_that_it_can_be_kept():
    """Shares that waited for their algorithm where there are sums enough; a clock that jumps to and fro."""
    session, dropped = Session(shaped=True, polls=1, first_job_ns=5), dict.fromkeys(DROPS, 0)
    key, session.kin = (bytes(16), (bytes(16), 80), 0), Kin(last_ns=0, undecided=Sum(5.0, 5))
    session.sums, session.proof.decided = {str(n): Sum(1.0, 1) for n in range(MAX_SUMS)}, "sha256d"
    kinship.part(session, 1, Asker("", "", key, {key: session.kin}), 1, dropped)
    for _ in range(3):
        for t_ns in (5, 1 << 62):
            session.unseen = 1e9
            ledger.count(session, dropped, Job("1", hashes=1.0, algorithm="0"), t_ns)
    session.kin = None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(session), type=Session) == session
    assert dropped["sums"] == 1


def test_two_clients_of_one_server_tell_each_other_nothing():
    talk, other, speaker = Apart(), Apart(), solo.MoneroDaemon()
    other.on = lambda data: Talk(miner=2, port=41000)
    for side, message in speaker.job(0, speaker.hashes, False)[0]:
        talk.say(side, speaker.dump(message))
    request = speaker.share(0)
    other.say("c", speaker.dump(request))
    other.say("s", speaker.dump(speaker.reply(request, "accepted")))
    facts = told(talk.rows + other.rows)
    assert sorted((f.shares.accepted, f.hashes_shares) for f in facts) == [(0, 0), (1, 0)]


@pytest.mark.parametrize(("silent_s", "counted_s"), [(600, 600), (7000, 0)])
def test_a_long_silence_is_not_mined_through(silent_s, counted_s):
    talk, speaker = Apart(), solo.MoneroDaemon()
    mined(talk, speaker, 0, shares=4)
    talk.wait(silent_s)
    mined(talk, speaker, 1, shares=4)
    facts = told(talk.rows)
    seconds = hashrate.covered_s((f.first_job_ns, f.last_ns) for f in facts)
    assert seconds == pytest.approx(40 + counted_s, abs=1)


def test_what_is_known_is_bounded():
    observer, speaker = PayloadObserver(), solo.MoneroDaemon()
    talk = Apart()
    for number in range(kinship.MAX_KIN + 3):
        talk.on = lambda data, number=number: Talk(port=42000, pool=number + 1)
        mined(talk, speaker, number)
    told(talk.rows, observer)
    assert observer.stats.dropped["kin"] == 3
    assert len(observer.state(talk.rows[0]["subscriber"]).kin) == kinship.MAX_KIN
    observer.expire(talk.now + 2 * 3600 * SECOND)
    assert observer.state(talk.rows[0]["subscriber"]).kin == []
    talk, observer = Apart(), PayloadObserver()
    for number in range(MAX_KIN_JOBS + 9):
        mined(talk, speaker, kinship.MAX_KIN + 3 + number, shares=0)
    told(talk.rows, observer)
    ((_, kin),) = observer.state(talk.rows[0]["subscriber"]).kin
    assert len(kin.jobs) == MAX_KIN_JOBS


def test_only_the_newest_jobs_hold_what_a_header_is_built_from():
    kin = Kin(last_ns=0)
    for n in range(3 * MAX_WORKS):
        kin.file(Job(str(n), work=WORK))
    assert [job.work for job in kin.jobs.values()] == [None] * 2 * MAX_WORKS + [WORK] * MAX_WORKS
