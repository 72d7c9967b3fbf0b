"""What identity and behaviour weigh together, with the rows proposed for ``tables/weights.toml``."""

import pytest
from flowrows import HOUR

from detector import fusion
from detector.evidence import Group
from detector.fusion import Weight, confirms, log_odds, probability

IDENTITY, BEHAVIOUR = Group.IDENTITY, Group.BEHAVIOUR
PROPOSED = {
    "listed_endpoint": (IDENTITY, 9.5),
    "resolved_endpoint": (IDENTITY, 9.5),
    "learned_endpoint": (IDENTITY, 9.5),
    "tls_name": (IDENTITY, 9.5),
    "certificate_name": (IDENTITY, 9.5),
    "http_name": (IDENTITY, 7.0),
    "shared_endpoint": (IDENTITY, 7.0),
    "shared_name": (IDENTITY, 6.0),
    "browser_miner_name": (IDENTITY, 6.0),
    "persistence": (BEHAVIOUR, 6.0),
    "mining_shape": (BEHAVIOUR, 5.0),
}


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    for kind, (group, odds) in PROPOSED.items():
        row = Weight(
            id=kind, group=group, log_odds=odds, confirms=False, reason="", tested="", negatives=120_000
        )
        monkeypatch.setitem(fusion.WEIGHTS, kind, row)


def belief(*kinds):
    return probability(log_odds(((k, HOUR) for k in kinds), now_ns=HOUR, half_life_ns=HOUR))


@pytest.mark.parametrize("kind", PROPOSED)
def test_no_kind_alone_confirms_and_none_of_behaviour_alone_is_suspected(kind):
    group, odds = PROPOSED[kind]
    assert not confirms([kind])
    assert (belief(kind) >= 0.5) == (group is IDENTITY and odds > 9.3)


@pytest.mark.parametrize("kind", [k for k, (g, _) in PROPOSED.items() if g is IDENTITY])
@pytest.mark.parametrize("behaviour", ["persistence", "mining_shape"])
def test_identity_and_behaviour_confirm(kind, behaviour):
    assert belief(kind, behaviour) >= 0.5
    assert confirms([kind, behaviour])


def test_any_number_of_names_of_one_visit_is_no_more_than_its_strongest():
    weak = [k for k, (g, odds) in PROPOSED.items() if g is IDENTITY and odds < 9]
    assert belief(*weak) < 0.5
    assert not confirms([k for k, (g, _) in PROPOSED.items() if g is IDENTITY])
