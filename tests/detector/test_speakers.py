"""Every line dialect, spoken from its specification, through the observer: from the start and joined in the
middle, against the truth.  ``speakers.table`` prints the same as a table."""

import pytest
from payload_rows import batch
from speakers import SPEAKERS, ethereum, mining, table
from spoken import Talk

from detector import fusion
from detector.observers.payload import PayloadObserver


@pytest.mark.parametrize("kind", SPEAKERS, ids=lambda k: k.name)
def test_a_session_from_its_start_tells_dialect_algorithm_shares_and_rate(kind):
    found = table.heard(kind())
    assert found.dialect == kind.dialect
    assert found.algorithm == kind.algorithm
    assert found.counts == found.true_counts
    assert found.worth == pytest.approx(found.true_worth, rel=1e-9)
    assert found.low <= found.true_rate <= found.high
    assert found.value == pytest.approx(found.true_rate, rel=0.02)
    assert found.refused == {}
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
