"""The table of algorithms: names, factors, energy."""

import pytest

from detector import algorithms, vetoes


def test_ids_and_aliases_are_unique():
    names = [name for a in algorithms.load().values() for name in (a.id, *a.aliases)]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)


def test_energy_is_ordered_and_positive():
    for row in algorithms.load().values():
        if row.energy is not None:
            assert 0 < row.energy.low <= row.energy.typical <= row.energy.high, row.id


@pytest.mark.parametrize(
    ("name", "per_hash"),
    [
        ("sha256d", (14e-12, 19e-12, 24e-12)),
        ("scrypt", (0.2e-6, 0.25e-6, 0.45e-6)),
        ("rx/0", (5.5e-3, 8e-3, 40e-3)),
        ("cn-pico", None),
        ("no such", None),
    ],
)
def test_energy_is_joules_per_hash(name, per_hash):
    assert algorithms.energy(name) == per_hash


def test_names_are_known_by_alias_and_unknown_ones_are_none():
    assert algorithms.canonical("RandomX") == "rx/0"
    assert algorithms.canonical("cn-pico/trtl") == "cn-pico"
    assert algorithms.canonical("x" * 10_000_000) is None
    assert algorithms.canonical(7) is None


def test_a_coin_is_named_only_where_it_is_the_only_one():
    assert algorithms.coin("rx/wow") == "WOW"
    assert algorithms.coin("rx/0") is None
    assert algorithms.coin("sha256d") is None


def test_factors_are_hashes_at_difficulty_one():
    assert algorithms.factor("sha256d") == 2**32
    assert algorithms.factor("scrypt") == 65536
    assert algorithms.factor("ethash") is None


@pytest.mark.parametrize("row", vetoes.load(), ids=lambda r: r.id)
def test_every_veto_carries_its_own_test(row):
    assert row.hits
    assert row.misses
    for method in row.hits:
        assert vetoes.find(method) is row
    for method in row.misses:
        assert vetoes.find(method) is not row


def test_no_mining_method_is_a_veto():
    from detector.dialects import table

    # A form that tells a miner's from a wallet's by its parameters comes first: no veto is asked.
    both = {"cyber-ws.subscribe"}
    for form in table.load().forms:
        if form.method:
            assert (vetoes.find(form.method) is not None) == (form.id in both), form.id
