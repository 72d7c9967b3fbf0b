"""The look-alikes are reproducible, various, of both sides, and never a whole mining line."""

import itertools

import lookalikes
import nearmisses
from draw import Draw


def test_equal_seeds_give_equal_lines_and_other_seeds_others():
    first = list(lookalikes.lines(7, 2000))
    assert first == list(lookalikes.lines(7, 2000))
    assert len(set(first) & set(lookalikes.lines(8, 2000))) < 600


def test_so_many_lines_as_asked_and_from_both_sides():
    got = list(lookalikes.lines(3, 5000))
    assert len(got) == 5000
    assert 0.3 < sum(side for _, side in got) / 5000 < 0.7


def test_every_family_comes_up_and_says_something():
    got = dict(itertools.islice(lookalikes.conversations(1), 1000))
    assert got.keys() == {family.__name__ for family in lookalikes.FAMILIES}
    assert all(got.values())


def test_a_spoiled_line_is_never_the_whole_one():
    for seed in range(300):
        for name, build in {**nearmisses.REAL_SERVER, **nearmisses.REAL_CLIENT}.items():
            whole, other = build(Draw(seed)), build(Draw(seed))
            assert nearmisses.spoiled(Draw(seed + 1), name, other) != whole


def test_every_family_stands_in_the_table_of_section_6_or_lacks_one_thing_only():
    told = {family for families in lookalikes.SECTION_6.values() for family in families}
    lacking = {nearmisses.spoiled_server, nearmisses.spoiled_client, nearmisses.spoiled_dialect}
    assert told | lacking | {nearmisses.login_without_job} == set(lookalikes.FAMILIES)
