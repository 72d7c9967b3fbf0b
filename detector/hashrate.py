"""How fast a subscriber hashes, and what that costs: from session facts to rates, watts and their bounds.

Hashes of different algorithms are never added.  Claims of the client are not used here.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from detector.algorithms import energy, unit
from detector.evidence import SessionFacts, Worked

NS_PER_S = 1e9
KWH_PER_DAY_OF_A_WATT = 0.024


class HashRate(msgspec.Struct, frozen=True, kw_only=True):
    """Hashes per second of one algorithm, with the exact 95 % Poisson interval of its ``shares``.

    ``value`` is None where no share was seen: then ``high`` alone speaks.  ``unit`` is what the algorithm
    counts in: solutions, graphs and points are no hashes.
    """

    algorithm: str
    value: float | None
    low: float
    high: float
    unit: str = "H/s"
    shares: int


class Power(msgspec.Struct, frozen=True):
    """Watts, for the best, the typical and the worst device of the table."""

    low: float
    typical: float
    high: float


class DailyEnergy(msgspec.Struct, frozen=True):
    """Kilowatt hours a day, as long as it goes on so; of the same devices."""

    low: float
    typical: float
    high: float


def kwh_per_day(watts: Power | None) -> DailyEnergy | None:
    """A day of that power; None where it is not known."""
    if watts is None:
        return None
    return DailyEnergy(*(getattr(watts, f) * KWH_PER_DAY_OF_A_WATT for f in Power.__struct_fields__))


def garwood(count: int) -> tuple[float, float]:
    """Exact 95 % interval of a Poisson mean given one count (Garwood 1936)."""
    from scipy.special import gammaincinv  # noqa: PLC0415  # 0.2 s that only a miner is worth

    low = float(gammaincinv(count, 0.025)) if count else 0.0
    return low, float(gammaincinv(count + 1, 0.975))


def covered_s(spans: Iterable[tuple[int, int]]) -> float:
    """Seconds covered by the union of [first, last] spans in nanoseconds."""
    total, end = 0, -(1 << 62)
    for first, last in sorted(spans):
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total / NS_PER_S


def _rate(algorithm: str, facts: Sequence[SessionFacts]) -> HashRate | None:
    seconds = covered_s((f.first_job_ns, f.last_ns) for f in facts if f.first_job_ns is not None)
    if seconds <= 0:
        return None
    made = partial(HashRate, algorithm=algorithm, unit=f"{unit(algorithm)}/s")
    shares = sum(f.hashes_shares for f in facts)
    hashes = sum(f.hashes or 0.0 for f in facts)
    low, high = garwood(shares)
    if shares:
        each = hashes / shares / seconds
        return made(value=hashes / seconds, low=low * each, high=high * each, shares=shares)
    # Silence bounds the rate from above; the hardest difficulty that was in force makes the bound safe.
    most = [f.most_hashes_per_share for f in facts if f.most_hashes_per_share]
    if not most:
        return None
    return made(value=None, low=0.0, high=high * max(most) / seconds, shares=0)


def _before(facts: SessionFacts, worked: Worked) -> SessionFacts:
    """What the session did of an algorithm before, as if that were all."""
    return msgspec.structs.replace(
        facts, algorithm=worked.algorithm, hashes=worked.hashes, hashes_shares=worked.shares, others=(),
        most_hashes_per_share=None, first_job_ns=worked.last_ns - worked.lasted_ns, last_ns=worked.last_ns,
    )  # fmt: skip


def rates(sessions: Iterable[SessionFacts]) -> tuple[HashRate, ...]:
    """One rate per algorithm that is known, over the time from first job to last record seen."""
    by: dict[str, list[SessionFacts]] = {}
    for facts in sessions:
        if facts.role == "pool":
            continue
        for one in (facts, *map(partial(_before, facts), facts.others)):
            if one.algorithm is not None:
                by.setdefault(one.algorithm, []).append(one)
    made = (_rate(algorithm, facts) for algorithm, facts in sorted(by.items()))
    return tuple(rate for rate in made if rate is not None)


def power(hash_rates: Iterable[HashRate]) -> Power | None:
    """Watts over all algorithms that have a row in the energy table; None where none has."""
    total = [0.0, 0.0, 0.0]
    known = False
    for rate in hash_rates:
        per_hash = energy(rate.algorithm)
        if per_hash is None or rate.value is None:
            continue
        known = True
        total = [t + rate.value * joules for t, joules in zip(total, per_hash, strict=True)]
    return Power(*total) if known else None


def added(algorithm: str, rates: Sequence[HashRate]) -> HashRate:
    """Rates of independent miners: values add, half-widths add in squares."""
    known = [r for r in rates if r.value is not None]
    value = sum(r.value for r in known if r.value is not None)
    below = sum((r.value - r.low) ** 2 for r in known if r.value is not None) ** 0.5
    above = sum((r.high - r.value) ** 2 for r in known if r.value is not None) ** 0.5
    return HashRate(
        algorithm=algorithm,
        value=value if known else None,
        low=max(0.0, value - below),
        high=value + above if known else sum(r.high for r in rates),
        shares=sum(r.shares for r in rates),
    )
