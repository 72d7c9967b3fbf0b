"""Chia's pools: a difficulty in, the one job out; a partial is worth as many points (reference 3.32)."""

from typing import Any

from detector.dialects import difficulty
from detector.dialects.messages import ONLY, InForce, Job


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """Points are no hashes: space, not work, is proved."""
    del force
    return [Job(ONLY, hashes=difficulty.number(fields["difficulty"]))]
