"""Every line dialect, spoken from its specification, through the observer: from the start and joined in the
middle, against the truth.  ``speakers.table`` prints the same as a table."""

from pathlib import Path

import msgspec
import pytest
from payload_rows import batch
from speakers import SPEAKERS, browsers, ethereum, grounds, mining, nodes, noise, solo, stratum2, table
from spoken import Talk

from detector import fusion, hashrate
from detector.dialects.table import load
from detector.observers.payload import PayloadObserver


@pytest.mark.parametrize("kind", SPEAKERS, ids=lambda k: k.name)
def test_a_session_from_its_start_tells_dialect_algorithm_shares_and_rate(kind):
    found = table.heard(kind())
    assert found.dialect == kind.dialect
    assert found.algorithm == kind.algorithm
    assert found.counts == found.true_counts
    assert found.messages == found.true_messages
    assert found.refused == {}
    if kind.algorithm is None:
        assert found.value is None
        assert found.confirmed
        return
    assert found.worth == pytest.approx(found.true_worth, rel=1e-9)
    assert found.low <= found.true_rate <= found.high
    assert found.value == pytest.approx(found.true_rate, rel=0.02)
    assert found.confirmed
    assert {"submit"}.isdisjoint(found.pending)


@pytest.mark.parametrize("kind", SPEAKERS, ids=lambda k: k.name)
def test_joined_in_the_middle_it_tells_the_same_of_what_was_heard(kind):
    speaker = kind()
    found = table.heard(speaker, part=0.4)
    assert found.dialect == speaker.late_dialect
    assert found.algorithm == speaker.late_algorithm
    if speaker.silent:
        found.counts, found.true_counts = map(table.without_reason, (found.counts, found.true_counts))
    assert found.counts == found.true_counts
    if speaker.late_algorithm is None:
        assert found.value is None
        return
    assert found.worth == pytest.approx(found.true_worth, rel=1e-9)
    assert found.low <= found.true_rate <= found.high


def test_a_form_that_is_not_verified_weighs_less_and_confirms_nothing():
    kinds = table.heard(mining.Aeternity()).kinds
    assert "unverified" in kinds
    assert not {"share", "share_accepted"} & kinds
    assert not fusion.WEIGHTS["unverified"].confirms
    assert fusion.WEIGHTS["unverified"].log_odds < fusion.WEIGHTS["share"].log_odds
    assert {"share", "share_accepted"} < table.heard(mining.Ckb()).kinds


def test_claims_are_kept_apart_from_what_is_measured():
    (facts,) = table.sessions(ethereum.EthProxy())
    assert facts.claimed == 777
    assert facts.hashes > 1e9


def test_a_service_that_refuses_an_api_key_is_no_pool():
    talk = Talk()
    talk.c({"id": "1", "method": "login", "api_key": "94" * 32})
    talk.s({"id": "1", "method": "result", "code": 7, "description": "wrong key"})
    talk.c({"id": "2", "jsonrpc": "2.0", "method": "login", "api_key": "94" * 32})
    talk.s(
        {
            "id": "2",
            "jsonrpc": "2.0",
            "method": "login",
            "result": None,
            "error": {"code": 1, "message": "no"},
        }
    )
    talk.c({"id": "3", "jsonrpc": "2.0", "method": "login", "api_key": "94" * 32})
    talk.s({"id": "3", "jsonrpc": "2.0", "method": "login", "result": "ok"})
    assert PayloadObserver().step(batch(talk.rows)).evidence == ()


def _asked(kind, asks, times):
    """Evidence of so many looks for a template, each answered."""
    speaker, talk = kind(), Talk()
    for number in range(times):
        said, _ = speaker.job(number, speaker.hashes, True)
        talk.say("c", speaker.dump(("c", asks)))
        talk.say("s", speaker.dump(("s", {**said[1][1][1], "id": asks["id"]})))
        talk.wait(60)
    return PayloadObserver().step(batch(talk.rows)).evidence


class _Explorer(solo.BlockTemplate):
    agent = "explorer/3.1"


class _Wallet(solo.MoneroDaemon):
    agent = "wallet/1.0"


def test_explorers_ask_for_templates_as_often_as_they_like():
    asks = {"id": 1, "method": "getblocktemplate", "params": [{"rules": ["segwit"]}]}
    assert _asked(_Explorer, asks, 6) == ()
    long = {"id": 1, "method": "getblocktemplate", "params": [{"rules": ["segwit"], "longpollid": "7"}]}
    assert _asked(_Explorer, long, 1) == ()
    assert {e.kind for e in _asked(_Explorer, long, 3)} == {"mining_request", "job"}
    assert {e.kind for e in _asked(solo.BlockTemplate, asks, 1)} == {"mining_request", "job"}


def test_one_look_at_monerod_for_a_template_is_no_miners_unless_its_program_is():
    asks = {"id": 1, "method": "get_block_template", "params": {"wallet_address": solo.XMR}}
    assert _asked(_Wallet, asks, 1) == ()
    assert {e.kind for e in _asked(_Wallet, asks, 2)} == {"mining_request", "job"}
    assert _asked(_Wallet, {"id": 1, "method": "get_block_template", "params": {}}, 9) == ()
    assert {e.kind for e in _asked(solo.MoneroDaemon, asks, 1)} == {"mining_request", "job"}


def test_a_captcha_with_a_site_key_is_no_browser_miner():
    speaker, talk = browsers.Coinhive(), Talk()
    for side, message in speaker.open():
        talk.say(side, speaker.dump(message))
    error = {"type": "error", "params": {"error": "invalid"}}
    talk.say("s", speaker.dump(("s", error)))
    assert PayloadObserver().step(batch(talk.rows)).evidence == ()


def test_a_share_of_nimiqs_is_accepted_by_a_silence_that_its_server_is_heard_in():
    speaker, talk = browsers.Nimiq(), Talk()
    for side, message in (*speaker.open(), *speaker.job(0, 1e6, True)[0], ("c", speaker.share(0))):
        talk.say(side, speaker.dump(message))
    talk.wait(4)
    ((_, balance),) = speaker.close()
    talk.say("s", speaker.dump(balance))
    talk.wait(2)
    talk.say("c", speaker.dump(speaker.share(0)))
    assert PayloadObserver().step(batch(talk.rows)).sessions[0].shares.accepted == 0
    talk.say("s", speaker.dump(balance))
    seen = PayloadObserver().step(batch(talk.rows))
    assert seen.sessions[0].shares.accepted == 1
    assert "share_accepted" in {e.kind for e in seen.evidence}


def test_what_only_shares_registers_and_errs_is_no_miner_of_nimiqs():
    speaker, talk = browsers.Nimiq(), Talk()
    for side, message in (
        *speaker.upgrade(),
        ("c", ("c", {"message": "register", "name": "bob", "address": "Elm Street 7", "deviceId": 7})),
        ("s", ("s", {"message": "registered"})),
        ("c", ("c", {"message": "share", "block": "AAGw8X0="})),
        ("s", ("s", {"message": "settings", "address": "x", "extraData": "", "target": 1, "nonce": 1})),
        ("s", ("s", {"message": "error", "reason": "invalid share"})),
        ("s", ("s", {"message": "balance", "balance": 3})),
    ):
        talk.say(side, speaker.dump(message))
    assert PayloadObserver().step(batch(talk.rows)).evidence == ()


def test_lines_that_turn_to_one_member_of_gzip_are_read_from_the_start():
    found = table.heard(ethereum.EthStratum2Stream())
    assert (found.dialect, found.counts, found.refused) == ("eth-stratum2", found.true_counts, {})
    assert found.value == pytest.approx(found.true_rate, rel=0.02)
    # Who joins later misses what the rest looks back at.
    assert table.heard(ethereum.EthStratum2Stream(), part=0.4).dialect is None


def test_a_service_whose_paths_are_those_of_chias_pools_is_none():
    speaker, talk = nodes.Farmer(), Talk()
    for side, message in (
        speaker.asks("GET /pool_info"),
        speaker.says({"name": "swimming", "minimum_difficulty": 1}),
        speaker.asks("POST /farmer", {"payload": {"name": "bob", "cows": 7}, "signature": "0x7e"}),
        speaker.says({"welcome_message": "hello"}),
        speaker.asks("POST /partial", {"payload": {"launcher_id": "7", "proof_of_space": {}}, "part": 1}),
        speaker.says({"new_difficulty": 3}),
        speaker.says({"error_code": 5, "error_message": "no"}),
    ):
        talk.say(side, message)
    assert {e.kind for e in PayloadObserver().step(batch(talk.rows)).evidence} == set()


def test_points_of_chias_are_no_hashes():
    found = table.heard(nodes.Farmer())
    (facts,) = table.sessions(nodes.Farmer())
    (rate,) = hashrate.rates([facts])
    assert (rate.unit, rate.algorithm, found.coin) == ("point/s", "proof-of-space/chia", "XCH")
    # 10,000 points a day are about 100 TiB, and disks of 100 TiB take 30 to 100 W.
    day = msgspec.structs.replace(rate, value=1e4 / 86400, low=0.0, high=0.0)
    watts = hashrate.power([day])
    assert 29 < watts.low < watts.typical < watts.high < 101


def test_one_message_of_stratum_v2_accepts_many_shares_of_its_channel_alone():
    one, two, talk = stratum2.Standard(), stratum2.Standard(), Talk()
    two.channel = 8
    for speaker, hashes in ((one, 1e12), (two, 4e12)):
        for side, message in (*speaker.open(), *speaker.job(1, hashes, True)[0]):
            talk.say(side, message)
    for _ in range(10):
        for speaker in (one, two):
            talk.wait(1)
            talk.say("c", speaker.share(1))
    talk.say("s", stratum2.frame(0x1C, stratum2.struct.pack("<IIIQ", 7, 9, 8, 8), of_channel=True))
    talk.say("s", stratum2.frame(0x1C, stratum2.struct.pack("<IIIQ", 8, 3, 3, 3), of_channel=True))
    (facts,) = PayloadObserver().step(batch(talk.rows)).sessions
    assert facts.shares.accepted == 11
    assert facts.hashes == pytest.approx(8e12 + 12e12, rel=1e-6)
    assert facts.claimed == pytest.approx(1e12, rel=1e-6)
    assert facts.workers == ("bc1qlabonly.rig",)


@pytest.mark.parametrize("kind", stratum2.SPEAKERS, ids=lambda k: k.name)
def test_messages_of_stratum_v2_are_read_however_they_are_cut(kind):
    speaker, talk = kind(), Talk()
    said = [*speaker.open(), *speaker.job(0, 1e12, True)[0], ("c", speaker.share(0))]
    said.append(("s", speaker.reply(said[-1][1], "accepted")))
    for side, message in said:
        for at in range(0, len(message), 5):
            talk.say(side, message[at : at + 5])
    seen = PayloadObserver().step(batch(talk.rows))
    assert (seen.sessions[0].dialect, seen.sessions[0].shares.accepted) == ("sv2-plain", 1)
    assert "share_accepted" in {e.kind for e in seen.evidence}


@pytest.mark.parametrize("protocol", [1, 2])
def test_stratum_v2_of_another_protocol_than_mining_is_no_miners(protocol):
    speaker, talk = stratum2.Standard(), Talk()
    (_, asks), (_, yes) = speaker.setup()
    talk.say("c", asks[:6] + bytes([protocol]) + asks[7:])
    talk.say("s", yes)
    assert PayloadObserver().step(batch(talk.rows)).evidence == ()


def test_the_table_of_grounds_is_the_one_that_is_printed():
    page = (Path(__file__).parent / "README.md").read_text()
    grounds_of, _, heard = page.partition("## Sessions")
    assert "\n".join(table.grounds_table()) in grounds_of
    named = [line.split(" | ")[0].removeprefix("| ") for line in heard.splitlines() if line.startswith("| ")]
    assert named[1:] == [kind.name for kind in (*SPEAKERS, *noise.SPEAKERS)]


def test_every_dialect_has_its_own_rows_and_somebody_who_speaks_it():
    spoken = {kind.dialect for kind in (*SPEAKERS, *noise.SPEAKERS)} | set(grounds.captured())
    spoken |= {kind.name.partition(" (")[0] for kind in SPEAKERS}
    known = set(load().dialects)
    assert known - spoken == set()
    assert {name for name in known if 0 in grounds.hits(name)} == {"sv2"}  # sizes have no words
    assert set(grounds.PUBLISHED) <= known
