"""CryptoNote login / job / submit: declared fields in, jobs out (reference 3.2)."""

from typing import Any

from detector import algorithms
from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job of a push, a login reply or a getjob reply: target and algorithm are its own."""
    algorithm = algorithms.canonical(fields.get("algorithm")) or force.algorithm
    hashes = difficulty.cryptonote(fields.get("target"), big_endian=algorithm == "rx/yada")
    return [Job(fields["job"], hashes=hashes, algorithm=algorithm)]


def told(fields: dict[str, Any]) -> str | None:
    """The algorithm that a share names."""
    return algorithms.canonical(fields.get("algorithm"))
