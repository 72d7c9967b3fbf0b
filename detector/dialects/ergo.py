"""Autolykos 2 (Ergo): declared fields in, jobs out (reference 3.11, errata A2)."""

from typing import Any

from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job: its own b, by the difficulty in force."""
    base = difficulty.boundary_decimal(fields["boundary"])
    return [Job(fields["job"], hashes=difficulty.autolykos(base, force.difficulty))]
