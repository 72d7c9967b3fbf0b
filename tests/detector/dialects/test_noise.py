"""Encrypted Stratum V2 by its sizes: every row tests itself; nothing else that is encrypted is it."""

import encrypted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.dialects import noise

HITS = [(era, told) for era in noise.eras() for told in era.hits]
MISSES = [(era, told) for era in noise.eras() for told in era.misses]
SIZES = st.lists(st.integers(0, 65535), max_size=8)


def sizes(told):
    return [[int(word) for word in side.split()] for side in told.split("/")]


def ids(rows):
    return [f"{era.id}-{n}" for n, (era, _) in enumerate(rows)]


@pytest.mark.parametrize(("era", "told"), HITS, ids=ids(HITS))
def test_every_hit_is_of_its_era(era, told):
    assert noise.recognise(*sizes(told)).era is era


@pytest.mark.parametrize(("era", "told"), MISSES, ids=ids(MISSES))
def test_every_miss_is_of_none(era, told):
    assert noise.recognise(*sizes(told)) is None


def test_one_octet_more_or_less_in_what_is_fixed_is_another_protocol():
    client, server = [64, 98, 91, 62, 62, 62], [234, 44, 87, 83]
    for step in (-1, 1):
        for side, at in ((0, 0), (1, 0), (1, 1)):
            changed = [list(client), list(server)]
            changed[side][at] += step
            assert noise.recognise(*changed) is None


@pytest.mark.parametrize(
    ("after", "share", "count"),
    [
        ([], None, 0),
        ([62, 62, 62], 62, 3),
        ([71, 142, 71], 71, 4),
        ([62, 78, 62], 62, 2),
        ([78, 78, 78], 78, 3),
        ([62, 63], None, 0),
        ([40, 40], None, 0),
        ([22, 40, 22, 40], 62, 2),
        ([71, 22], 71, 1),
    ],
    ids=str,
)
def test_shares_are_records_of_one_size(after, share, count):
    found = noise.recognise([64, 98, 91, *after], [234, 44, 87])
    assert (found.share, found.shares, found.spent) == (share, count, 64 + 98 + 91)


@pytest.mark.parametrize("maker", encrypted.MAKERS, ids=lambda m: m.__name__)
def test_other_encrypted_protocols_are_not_stratum_v2(maker):
    """``tests/bench/negatives_noise.py`` asks more of them."""
    for number in range(300):
        assert noise.recognise(*encrypted.seeded(maker, number)) is None


def test_some_of_them_begin_as_it_does_so_that_the_rest_is_tried():
    client = {encrypted.seeded(encrypted.bip324, number)[0][0] for number in range(300)}
    assert 64 in client


@given(SIZES, SIZES, st.sampled_from(noise.eras()))
def test_any_sizes_are_judged(client, server, era):
    client = [some[0] for some in era.client] + client
    server = [some[0] for some in era.server] + server
    found = noise.recognise(client[:8], server[:8])
    assert found is None or found.spent <= sum(client)


@given(SIZES, SIZES)
def test_any_sizes_of_no_handshake_are_nothing(client, server):
    found = noise.recognise(client, server)
    assert found is None or (client[0], server[0]) in noise.openings()
