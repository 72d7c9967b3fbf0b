"""The worked examples of the reference, section 2; nothing infinite, ever."""

# real lines are long
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.dialects import difficulty, equihash, ethereum
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


def test_the_worked_examples_of_the_reference_and_its_errata():
    assert difficulty.boundary("000003ff" + "f" * 56) == pytest.approx(4194304, rel=1e-6)
    assert difficulty.beam(486539264) == 536870912
    assert difficulty.alephium(None, 64) == pytest.approx(1.0995e12, rel=1e-4)
    # A5: the reference pool strips leading zero bytes, 2^220 is difficulty 64.
    assert difficulty.alephium(f"{2**220:056x}", None) == difficulty.alephium(None, 64)
    b = "28948022309329048855892746252171976963209391069768726095651290785379"
    assert difficulty.boundary_decimal(b) == pytest.approx(4.000e9, rel=1e-4)
    assert difficulty.grin(128) == 128 * 42


@pytest.mark.parametrize(
    ("base", "told", "expected"),
    [(4e9, 1, 4e9), (4e9, 4.01e9, 4e9), (1e15, 1e15 / 4.3e7, 4.3e7), (2e15, 2e6, 1e9), (None, 1, None)],
)
def test_ergo_divides_by_the_difficulty_unless_the_job_has_it_already(base, told, expected):  # errata A2
    got = difficulty.autolykos(base, told)
    assert got == (None if expected is None else pytest.approx(expected))
    assert difficulty.autolykos(base, None) is None


@pytest.mark.parametrize("bad", [None, -1, 2**32, "1", True, 1.5, 0xFFFFFFFF])
def test_a_packed_difficulty_that_cannot_be_is_none(bad):
    assert difficulty.beam(bad) is None


@given(st.text(max_size=80) | st.from_regex("[0-9]{0,80}", fullmatch=True))
def test_any_text_is_a_decimal_boundary_or_none(text):
    got = difficulty.boundary_decimal(text)
    assert got is None or (math.isfinite(got) and got > 0)


@pytest.mark.parametrize(
    ("digits", "algorithm"),
    [(2694, "equihash/200,9"), (806, "equihash/192,7"), (202, "equihash/144,5"), (106, "equihash/125,4")],
)  # fmt: skip
def test_the_size_of_a_solution_tells_which_equihash(digits, algorithm):
    assert equihash.told({"solution": "0" * digits}) == algorithm


@pytest.mark.parametrize(
    ("parameters", "algorithm"),
    [("144_5", "equihash/144,5"), ("0" * 200, None), ("fd4005" + "07" * 90, "verushash"), (None, None)],
)  # fmt: skip
def test_the_ninth_member_of_an_equihash_job_tells_more(parameters, algorithm):
    (job,) = equihash.jobs({"job": "a", "parameters": parameters}, InForce(hashes=4.0))
    assert (job.algorithm, job.hashes) == (algorithm, 4.0)
