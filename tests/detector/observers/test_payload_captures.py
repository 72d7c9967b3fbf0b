"""The real captures: what ``captures.md`` and ``truth.json`` say is in them."""

import json
from pathlib import Path

import pytest
from payload_rows import batch, capture

from detector import algorithms
from detector.observers.payload import PayloadObserver

CAPTURES = Path(__file__).resolve().parents[4] / "shared" / "captures" / "packets"
pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason="the shared captures are not here")
TRUTH = json.loads((CAPTURES / "ours-positive/truth.json").read_text()) if CAPTURES.is_dir() else {}
XMR = "46uvKTaBJDcTestWalletLabOnlyNotARealAddressXmr" + "0" * 47
RATED = {
    "cpuminer-scrypt-dense": ("btc-v1", "scrypt", "bc1qlabonly.worker1"),
    "cpuminer-sha256d": ("btc-v1", "sha256d", "bc1qlabonly.worker1"),
    "xmrig-plain": ("cryptonote", "rx/0", XMR),
    "xmrig-cnpico-dense": ("cryptonote", "cn-pico", XMR),
    "xmrig-argon2": ("cryptonote", "argon2/chukwav2", XMR),
}
# truth.json counts the pool's 71; the recording holds 70 submits and their replies: it ended before the last.
UNRECORDED = {"xmrig-argon2": 1}


def see(folder, name):
    return PayloadObserver().step(batch(capture(CAPTURES / folder / f"{name}.pcap")))


def kinds(seen):
    told = {}
    for e in seen.evidence:
        told[e.kind] = told.get(e.kind, 0) + e.count
    return told


@pytest.mark.parametrize("name", RATED)
def test_shares_and_hashes_are_the_pools(name):
    dialect, algorithm, worker = RATED[name]
    truth = TRUTH[f"{name}.pcap"]
    missing = UNRECORDED.get(name, 0)
    seen = see("ours-positive", name)
    (facts,) = seen.sessions
    assert (facts.dialect, facts.algorithm, facts.workers) == (dialect, algorithm, (worker,))
    accepted = truth["accepted_shares"] - missing
    assert facts.shares.accepted == facts.hashes_shares == accepted
    each = truth["sum_of_accepted_share_difficulty"] / truth["accepted_shares"]
    factor = algorithms.factor(algorithm) if dialect == "btc-v1" else 1
    assert facts.hashes == pytest.approx(each * accepted * factor, rel=1e-9)
    assert kinds(seen)["share_accepted"] == accepted
    assert {"mining_session", "job", "share", "mining_request"} < kinds(seen).keys()
    verified = min(32, accepted) if dialect == "btc-v1" else 0
    assert facts.shares.verified == kinds(seen).get("share_verified", 0) == verified


def test_the_real_pool_with_changing_difficulty():
    rows = capture(CAPTURES / "ours-positive/cpuminer-realpool-sha256d-vardiff.pcap")
    accepted = sum(b'"id": 4, "result": true' in r["data"] for r in rows)
    seen = PayloadObserver().step(batch(rows))
    (facts,) = seen.sessions
    assert facts.shares.accepted == facts.hashes_shares == accepted == 27
    assert facts.shares.rejected == 1
    assert facts.algorithm == "sha256d"
    assert facts.shares.verified == 28
    assert facts.hashes == pytest.approx(sum(d * n for d, n in differing(rows).items()) * 2**32, rel=1e-9)


def differing(rows):
    """Accepted shares by difficulty, counted plainly: jobs in order, one share at a time."""
    now, jobs, waiting, told = None, {}, None, {}
    for r in rows:
        for text in r["data"].splitlines():
            said = json.loads(text)
            if said.get("method") == "mining.set_difficulty":
                now = said["params"][0]
            elif said.get("method") == "mining.notify":
                jobs[said["params"][0]] = now
            elif said.get("method") == "mining.submit":
                waiting = jobs[said["params"][1]]
            elif said.get("id") == 4 and said.get("result") is True:
                told[waiting] = told.get(waiting, 0) + 1
    assert len(told) > 1
    return told


@pytest.mark.parametrize("name", ["cpuminer-idle-highdiff", "bfgminer-sha256d"])
def test_a_session_without_shares_is_a_session(name):
    seen = see("ours-positive", name)
    (facts,) = seen.sessions
    assert facts.dialect == "btc-v1"
    assert (facts.algorithm, facts.hashes, facts.shares.accepted) == (None, None, 0)
    assert kinds(seen).keys() == {"mining_request", "job", "mining_session"}


@pytest.mark.parametrize(("name", "times"), [("xmrig-badlogin", 5), ("cpuminer-unauthorized", 7)])
def test_refused_clients_only_ask(name, times):
    seen = see("ours-positive", name)
    told = kinds(seen)
    assert told.keys() == {"mining_request", "login_refused"}
    assert told["login_refused"] == times
    assert all("refused" in e.why for e in seen.evidence if e.kind == "login_refused")
    assert len(seen.sessions) == times


def test_inside_socks_the_jobs_and_the_share_are_seen():
    seen = see("ours-positive", "xmrig-socks5")
    assert {"job", "share", "share_accepted"} <= kinds(seen).keys()
    assert seen.sessions[0].hashes == 150


def test_what_waits_for_a_later_reader_is_silent():
    seen = see("ours-positive", "xmrig-tls")
    assert (seen.evidence, seen.sessions) == ((), ())


def test_getwork_is_read_in_the_bodies_of_http():
    truth = TRUTH["cpuminer-getwork.pcap"]
    accepted = truth["accepted_shares"]
    seen = see("ours-positive", "cpuminer-getwork")
    (facts,) = [s for s in seen.sessions if s.shares.accepted]
    assert (facts.dialect, facts.algorithm, facts.workers) == ("getwork", "sha256d", ("bc1qlabonly.worker1",))
    assert facts.agents == ("cpuminer/2.5.1",)
    assert facts.shares.accepted == facts.shares.verified == facts.hashes_shares == accepted
    assert facts.hashes == pytest.approx(truth["sum_of_accepted_share_difficulty"] * 2**32, rel=1e-4)
    told = kinds(seen)
    assert (told["share_accepted"], told["share_verified"]) == (accepted, accepted)


@pytest.mark.parametrize("name", ["chat", "mqtt", "rpcapp3333", "electrum", "ethrpc"])
def test_lookalikes_give_no_evidence_at_all(name):
    seen = see("ours-negative", name)
    assert (seen.evidence, seen.sessions) == ((), ())
    vetoes = {"electrum": ["electrum"], "ethrpc": ["ethereum-wallet"]}
    assert sorted({v.rule for v in seen.vetoes}) == vetoes.get(name, [])


PUBLIC = sorted((CAPTURES / "public-pcapplusplus").glob("**/*.pcap*")) if CAPTURES.is_dir() else []


@pytest.mark.parametrize("path", PUBLIC, ids=lambda p: p.name)
def test_public_captures_give_no_evidence(path):
    try:
        rows = capture(path)
    except Exception as error:  # noqa: BLE001  # scapy refuses some on purpose malformed files
        pytest.skip(str(error))
    if rows:
        for i in range(0, len(rows), 5000):
            seen = PayloadObserver().step(batch(rows[i : i + 5000]))
            assert (seen.evidence, seen.sessions) == ((), ())


def test_the_seventy_shares_of_argon2_are_all_that_its_capture_holds():
    """truth.json says 71, of a log of 35.25 s.  Here every octet is there, requests 2 to 71 are shares and
    each has its answer; the last of them comes at 34.48 s."""
    rows = capture(CAPTURES / "ours-positive/xmrig-argon2.pcap")
    reached, said = {}, {}
    for row in rows:
        if row["data"]:
            assert row["seq"] == reached.get(row["src_port"], row["seq"])
            reached[row["src_port"]] = row["seq"] + len(row["data"])
            said.setdefault(row["dst_port"] == 5555, []).extend(map(json.loads, row["data"].splitlines()))
    shares = [line["id"] for line in said[True] if line["method"] == "submit"]
    assert shares == list(range(2, 72))
    accepted = [line["id"] for line in said[False] if line.get("result") == {"status": "OK"}]
    assert accepted == shares
    assert 34.4e9 < rows[-1]["t"] - rows[0]["t"] < 34.5e9
