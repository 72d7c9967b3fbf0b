"""Nimiq's pools: declared fields of settings and blocks in, jobs out (reference 3.31, developer reference).

There is one job at a time, which no share names; what a share is worth is told by settings alone.
"""

from typing import Any

from detector.dialects import difficulty
from detector.dialects.messages import ONLY, InForce, Job


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """The job of settings, at their target (a number, else compact bits); of a block, at the target in
    force."""
    if "body" not in fields:
        force.hashes = difficulty.target(fields.get("target")) or difficulty.compact(fields.get("compact"))
    return [Job(ONLY, hashes=force.hashes)]
