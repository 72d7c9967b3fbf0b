"""Alephium: a list of up to 16 job objects in, jobs out (reference 3.14, errata A5)."""

from typing import Any, Final

from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job

MOST_JOBS: Final = 16
"""One for each chain; a longer list is cut."""


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """The jobs of one notify that have an id."""
    out = []
    for told in fields["jobs"][:MOST_JOBS]:
        name = told.get("jobId")
        if type(name) is str or type(name) is int:
            hashes = difficulty.alephium(told.get("targetBlob"), force.difficulty)
            out.append(Job(str(name), hashes=hashes))
    return out
