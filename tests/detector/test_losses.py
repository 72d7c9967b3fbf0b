"""Collectors and detectors that are lost in the middle of a session, and connections that move between
collectors: the incident stays one, nothing is counted twice, and the rate is the miner's."""

from functools import cache
from pathlib import Path

import pytest
import spoken
from cutting import records
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_rows import batch
from restarting import Detector, Packet, collected, packets, together
from speakers import SPEAKERS
from speakers.conversing import converse
from spoken import Talk

from collectors.packet import collector as packet_collector
from detector.observers.payload import PayloadObserver

SECOND = 10**9
# The first reply that no token shows, and a frame before the one that a collector knows by.
BLIND = 2
A_JOB = 7
# What a share is worth is told apart from the jobs: a collector may know the connection too late for it.
APART = ("sv2-plain (standard)",)
# Each of their jobs tells what a share is worth.
TELLING = ("cryptonote", "eth-proxy", "kawpow", "socks5")
KINDS = (*TELLING, "btc-v1 (sha256d)", "coinhive", "sv2-plain (standard)", "alephium-node")
SOCKS5 = (
    ("c", b"\5\2\0\2"), ("s", b"\5\2"), ("c", b"\1\2me\6secret"), ("s", b"\1\0"),
    ("c", b"\5\1\0\3\x10pool.example.net\x0d\x05"), ("s", b"\5\0\0\1" + bytes(6)),
)  # fmt: skip
PCAPS = Path(__file__).parents[2] / "pcaps"


@pytest.fixture(scope="module", autouse=True)
def compiled():
    packet_collector.warm()


@cache
def session(name, jobs=4, shares=5):
    """Its packets, and the truth about it."""
    talk = Talk()
    if name == "socks5":
        for who, said in SOCKS5:
            talk.say(who, said)
    kind = next(k for k in SPEAKERS if k.name == ("cryptonote" if name == "socks5" else name))
    truth = converse(kind(), talk, jobs=jobs, shares=shares)
    return packets(talk), truth


def split(seen, at, count):
    """Where the second collector begins: what is said at one time is lost or heard as a whole, for a
    difficulty that is lost without the job that goes with it nobody can know."""
    to = min(at + count, len(seen) - 1)
    while (
        count
        and 0 < to < len(seen) - 1
        and seen[to].who == "s"
        and seen[to].t_ns - seen[to - 1].t_ns < SECOND
    ):
        to += 1
    return to


def counted(detector):
    """Shares by fate."""
    (facts,) = detector.facts
    return {fate: getattr(facts.shares, fate) for fate in ("accepted", "rejected", "stale")}


def is_one_miner(detector):
    """One connection, one incident, told of once, that is confirmed; no veto."""
    (document,) = detector.engine.documents()
    assert document.state == "confirmed"
    assert [t.to for t in detector.told] in (["suspected", "confirmed"], ["confirmed"])
    assert [track.opened for track in detector.tracks] == [0]
    assert detector.engine.payload.stats.vetoes == 0
    return document


def holds(document, truth):
    """The interval holds the true rate."""
    (rate,) = document.hashrate
    assert rate.low <= truth.rate <= rate.high
    return rate.value / truth.rate


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_collector_or_a_detector_or_both_may_be_lost_anywhere(data):
    name = data.draw(st.sampled_from(KINDS))
    seen, truth = session(name)
    at = data.draw(st.integers(3, len(seen) - 2))
    lost = data.draw(st.sampled_from([0, 0, 1, 2, 7, 15]))
    to = split(seen, at, lost)
    again = 0 if lost else data.draw(st.integers(0, 4))
    before = collected(seen[:at], killed=data.draw(st.booleans()))
    # What it had not sent is lost with it.
    sent = max((m.header.t_last_ns for m in before if m.stream == "payloads" and m.rows.num_rows), default=0)
    at = next((n for n, p in enumerate(seen[:at]) if p.t_ns > sent), at)
    detector = Detector()
    detector.take(before)
    if data.draw(st.booleans()):
        detector.die()
    detector.take(collected(seen[max(0, to - again) :]))
    document = is_one_miner(detector)
    first, last = seen[at].row, seen[to].row
    gone = [s for s in truth.shares if s.row + 1 >= first and s.row < last]
    found = counted(detector)
    assert all(found[fate] <= true for fate, true in truth.counts().items())
    assert sum(found.values()) >= len(truth.shares) - len(gone) - BLIND
    if name in APART:
        return
    ratio = holds(document, truth)
    (facts,) = detector.facts
    whole, shares = truth.worth()
    assert facts.hashes <= whole * (1 + 1e-9)
    if to == at and seen[at].row > seen[at - 1].row:
        assert 0.85 < ratio < 1.15
        # All that was accepted counts, with the difficulty that was in force.
        missing = shares - facts.hashes_shares
        assert missing == truth.counts()["accepted"] - found["accepted"]
        worths = {s.hashes for s in truth.shares}
        assert missing * min(worths) <= (whole - facts.hashes) + whole * 1e-6
        assert whole - facts.hashes <= missing * max(worths) + whole * 1e-6


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_each_direction_may_move_to_another_collector_when_it_likes(data):
    name = data.draw(st.sampled_from(TELLING))
    seen, truth = session(name)
    moves = {who: data.draw(st.integers(0, len(seen))) for who in "cs"}
    # What comes from one after the other has gone on is behind, and not read.
    stays = [p for n, p in enumerate(seen) if n < moves[p.who]]
    goes = [p for n, p in enumerate(seen) if n >= moves[p.who]]
    delays = [data.draw(st.sampled_from([0, SECOND // 5, SECOND])) for _ in range(2)]
    detector = Detector()
    detector.take(together((collected(stays, "a"), delays[0]), (collected(goes, "b"), delays[1])))
    document = is_one_miner(detector)
    found = counted(detector)
    assert all(found[fate] <= true for fate, true in truth.counts().items())
    # A server alone is known by its next job: its replies have no token.
    assert sum(found.values()) >= len(truth.shares) - 3 * BLIND - A_JOB
    holds(document, truth)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_two_taps_of_one_connection_count_once_whichever_began_late_or_lost_some(data):
    name = data.draw(st.sampled_from(TELLING))
    seen, truth = session(name)
    begins = data.draw(st.integers(0, len(seen) - 10))
    lost = data.draw(st.sets(st.integers(3, len(seen) - 1), max_size=8))
    one = [p for n, p in enumerate(seen) if n not in lost]
    two = [p for n, p in enumerate(seen) if n >= begins and n - 1 not in lost]
    delays = [data.draw(st.sampled_from([0, SECOND // 5, SECOND, 30 * SECOND])) for _ in range(2)]
    detector = Detector()
    detector.take(together((collected(one, "a"), delays[0]), (collected(two, "b"), delays[1])))
    document = is_one_miner(detector)
    assert all(counted(detector)[fate] <= true for fate, true in truth.counts().items())
    holds(document, truth)


@pytest.mark.parametrize("name", ["cryptonote", "eth-proxy"])
def test_an_outage_takes_no_time_of_the_rate(name):
    seen, truth = session(name, jobs=12, shares=12)
    at, to = len(seen) // 4, split(seen, len(seen) // 4, len(seen) // 2)
    detector = Detector()
    detector.take(collected(seen[:at]))
    detector.take(collected(seen[to:]))
    assert 0.9 < holds(is_one_miner(detector), truth) < 1.1


def test_getwork_goes_on_with_another_collector():
    """A miner of ours, over HTTP; each share is a request of its own."""
    raw = (PCAPS / "cpuminer-getwork.pcap").read_bytes()
    link = int.from_bytes(raw[20:24], "little")
    frames = [
        Packet(
            int.from_bytes(r[:4], "little") * SECOND + int.from_bytes(r[4:8], "little") * 1000, r[16:], "", 0
        )
        for r in records(raw)
    ]

    def accepted(*cuts):
        detector = Detector()
        for a, b in zip((0, *cuts), (*cuts, len(frames)), strict=True):
            detector.take(collected(frames[a:b], link=link))
        (document,) = detector.engine.documents()
        assert document.state == "confirmed"
        return sum(facts.shares.accepted for facts in detector.facts)

    whole = accepted()
    for at in range(10, len(frames) - 10, 12):
        assert whole - BLIND <= accepted(at) <= whole


# -- rows: what a collector says, by hand --------------------------------------------------------------


def observed(*batches):
    observer, facts = PayloadObserver(), {}
    for rows in batches:
        for one in observer.step(batch(rows)).sessions:
            facts[one.connection] = one
    return observer, list(facts.values())


def joined(talk, since):
    """As who begins there says the rest: offsets count from there."""
    base = {}
    return [
        dict(r, flags=0, offset=(r["seq"] - base.setdefault(r["src"], r["seq"])) & 0xFFFFFFFF)
        for r in talk.rows[since:]
    ]


@pytest.mark.parametrize("ahead", [-(1 << 30), -70_000, 70_000, 1 << 25, 1 << 30])
@pytest.mark.parametrize("begun", [True, False])
def test_a_new_connection_on_the_same_ports_is_another_wherever_its_numbers_begin(ahead, begun):
    """The first has ended.  Of the second the handshake is seen, or was lost with a collector."""
    one = Talk(start=1 << 31)
    spoken.btc(one)
    for who in "cs":
        one.say(who, b"", flags=4)
    two = Talk(start=1 << 31, begun=begun)
    for who in "cs":
        two.base[who] = two.seq[who] = (one.seq[who] + ahead) & 0xFFFFFFFF
    two.now = one.now + SECOND
    truth = spoken.btc(two)
    _, facts = observed(one.rows, two.rows)
    if not begun and ahead == -70_000:
        # As near as that it may be what was said before, again.
        assert [f.shares.accepted for f in facts] == [truth.accepted]
        return
    assert [f.shares.accepted for f in facts] == [truth.accepted] * 2
    assert [f.connection.opened for f in facts] == [0, 1]


@pytest.mark.parametrize("since", [0, 3, 8, 12])
@pytest.mark.parametrize("lag", [0, 1, 5, 100])
def test_a_tap_that_saw_the_start_and_one_that_began_later_are_one_connection(since, lag):
    """The one that began later is ahead of the other by so many rows."""
    talk = Talk()
    truth = spoken.btc(talk, shares=5, reject=0)
    late = joined(talk, since)
    merged = late[: lag + 1]
    for n, one in enumerate(talk.rows):
        merged += [one, *late[lag + 1 + n : lag + 2 + n]]
    observer, facts = observed(*([r] for r in merged))
    assert observer.stats.opened == 1
    assert facts[0].shares.accepted <= truth.accepted
    # The difficulty that holds before any was set is not the one of a session that was joined.
    assert facts[0].hashes is None or facts[0].hashes <= truth.hashes * 2**32
    (_, track), *_ = observer.state(talk.client[0]).tracks
    assert all(job.difficulty in (512, 1024, None) for job in track.session.jobs.values())


def test_what_one_tap_has_lost_and_another_told_is_not_lost():
    talk = Talk()
    truth = spoken.btc(talk)
    half = [dict(r) for r in talk.rows]
    at = next(n for n, r in enumerate(half) if b"mining.submit" in r["data"])
    whole = half[at]
    first = dict(whole, data=whole["data"][:20])
    rest = dict(whole, seq=whole["seq"] + 20, offset=whole["offset"] + 20, data=whole["data"][20:], flags=3)
    observer, (facts,) = observed([*half[:at], first, rest, *half[at + 1 :]])
    assert observer.stats.refused == {}
    assert (facts.shares.accepted, facts.shares.rejected) == (truth.accepted, truth.rejected)


def test_a_lost_reply_is_not_made_up_for_by_the_next_of_the_same_id():
    """CPU Miner gives all shares one id: each reply would be taken for that to the share before, for good."""
    talk = Talk()
    spoken.btc(talk, difficulties=(512, 1024), shares=4, reject=0)
    replies = [n for n, r in enumerate(talk.rows) if r["data"].startswith(b'{"id": 4, "result"')]
    del talk.rows[replies[1]]
    observer, (facts,) = observed(talk.rows)
    (_, track), *_ = observer.state(talk.client[0]).tracks
    # Four of 512, one of them the last before the change, and one lost; four of 1024.
    assert facts.shares.accepted == 8
    assert track.session.sums[""].total == 4 * 512 + 4 * 1024
    assert track.session.pending == []
    assert observer.stats.dropped["unanswered"] == 1


def test_shares_that_could_not_be_counted_take_no_time():
    """Half of them are of a job that was lost: the rate is that of the others, over their time."""
    seen, truth = session("cryptonote", jobs=2, shares=20)
    second = max(p.row for p in seen if b'"method":"job"' in p.data)
    detector = Detector()
    detector.take(collected([p for p in seen if p.row != second]))
    (facts,) = detector.facts
    assert (facts.shares.accepted, facts.hashes_shares) == (40, 20)
    assert 0.85 < holds(is_one_miner(detector), truth) < 1.15
