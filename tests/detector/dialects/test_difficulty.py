"""The worked examples of the reference, section 2; nothing infinite, ever."""

# real lines are long
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.dialects import difficulty, ethereum
from detector.dialects.messages import InForce


@pytest.mark.parametrize(
    ("target", "expected"),
    [("37120500", 12923), ("5b1f9a4407190000", 670327), ("ffffffff", 1), ("1be8b401", 150)],
)
def test_cryptonote_targets_are_little_endian(target, expected):
    assert difficulty.cryptonote(target) == pytest.approx(expected, rel=1e-4)


def test_the_yadacoin_target_is_big_endian():
    assert difficulty.cryptonote("00000001" + "0" * 8, big_endian=True) == 2**32


@pytest.mark.parametrize("text", ["00000001a3f7c2" + "0" * 50, "0x1a3f7c2" + "0" * 50])
def test_a_boundary_may_have_lost_its_leading_zeros(text):
    assert difficulty.boundary(text) == 2**256 / int(text.removeprefix("0x"), 16)


def test_nicehash_difficulty_has_the_base_ffff():
    (job,) = ethereum.jobs({"job": "a"}, InForce(difficulty=1.86264514923))
    assert job.hashes == pytest.approx(1.86264514923 * 2**256 / (0xFFFF << 208), rel=1e-12)
    assert job.hashes == pytest.approx(8.00012e9, rel=1e-5)


@pytest.mark.parametrize(
    "bad", [0, -1, 0.0, -0.0, math.inf, -math.inf, math.nan, 1e300, 10**400, 5e-324, True, "1", None, [], {}]
)
def test_what_cannot_be_a_difficulty_is_none(bad):
    assert difficulty.number(bad) is None


@pytest.mark.parametrize("bad", ["", "0x", "0" * 64, "zz", "f" * 65, "-1", "+1", None, 7, " 1", "00000000"])
def test_what_cannot_be_a_target_is_none(bad):
    for got in (difficulty.boundary(bad), difficulty.cryptonote(bad), ethereum.claimed(bad)):
        assert got is None or math.isfinite(got)
    assert difficulty.cryptonote(bad) is None


@given(st.text(max_size=70) | st.from_regex("(0x)?[0-9a-f]{0,70}", fullmatch=True))
def test_any_text_gives_a_finite_positive_number_or_none(text):
    for got in (difficulty.boundary(text), difficulty.cryptonote(text), ethereum.claimed(text)):
        assert got is None or (math.isfinite(got) and got > 0)
