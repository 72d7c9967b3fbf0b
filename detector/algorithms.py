"""Proof-of-work algorithms: names, hashes per unit of difficulty, joules per hash.

All from ``tables/algorithms.toml``; an algorithm without a row has no hash rate and no power.
"""

from functools import cache
from typing import Literal

import msgspec

from detector import tables


class Energy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Joules per hash of an efficient, a usual and a wasteful device in use in ``year``."""

    low: float
    typical: float
    high: float
    year: int
    source: str
    status: Literal["sourced", "UNVERIFIED"]


class Algorithm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One algorithm.  ``factor`` is the expected hashes of a share at set_difficulty 1, None where pools
    send targets or disagree; ``coin`` is set only where one coin alone uses it; ``unit`` is what a hash
    is called.
    """

    id: str
    aliases: tuple[str, ...] = ()
    coin: str | None = None
    unit: str = "H"
    factor: float | None = None
    energy: Energy | None = None
    note: str = ""


@cache
def load() -> dict[str, Algorithm]:
    """All rows by id."""
    return {a.id: a for a in tables.rows("algorithms", "algorithm", Algorithm)}


@cache
def _names() -> dict[str, str]:
    return {name: a.id for a in load().values() for name in (a.id, *a.aliases)}


def canonical(name: object) -> str | None:
    """The id of the algorithm that a peer calls ``name``, None where no row knows it."""
    return _names().get(name.lower()) if type(name) is str and len(name) < 64 else None


def coin(algorithm: str) -> str | None:
    """The ticker of the only coin that uses it."""
    row = load().get(algorithm)
    return None if row is None else row.coin


def factor(algorithm: str) -> float | None:
    """Expected hashes of a share at difficulty 1 (reference section 2)."""
    row = load().get(algorithm)
    return None if row is None else row.factor


def unit(algorithm: str) -> str:
    """What a hash of it is called."""
    row = load().get(algorithm)
    return "H" if row is None else row.unit


def energy(algorithm: str) -> tuple[float, float, float] | None:
    """Joules per hash (low, typical, high), None where no row tells."""
    row = load().get(algorithm)
    if row is None or row.energy is None:
        return None
    return row.energy.low, row.energy.typical, row.energy.high
