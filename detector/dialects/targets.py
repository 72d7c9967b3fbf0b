"""Dialects whose share is worth what its target or the difficulty says: declared fields in, jobs out.

KawPow, Kadena, CKB, Conflux, Iron Fish, Aeternity and Zano by a target (reference 3.9 to 3.28), Kaspa,
Xelis, Warthog, Nexa and Handshake by a difficulty whose factor is the algorithm's.
"""

from typing import Any

from detector import algorithms
from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job with its target in it, else at the target or the difficulty in force."""
    boundary = fields.get("boundary")
    hashes = force.hashes if boundary is None else difficulty.boundary(boundary)
    told = force.difficulty if hashes is None else None
    algorithm = algorithms.canonical(fields.get("algorithm"))
    return [Job(fields["job"], difficulty=told, hashes=hashes, algorithm=algorithm)]
