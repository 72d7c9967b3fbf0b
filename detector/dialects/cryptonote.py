"""CryptoNote login / job / submit: declared fields in, jobs out (reference 3.2)."""

from typing import Any

from detector import algorithms
from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job


def job(fields: dict[str, Any], force: InForce) -> Job:
    """A job of a push, a login reply or a getjob reply: target and algorithm are its own."""
    del force
    algorithm = algorithms.canonical(fields.get("algorithm"))
    hashes = difficulty.cryptonote(fields.get("target"), big_endian=algorithm == "rx/yada")
    return Job(fields["job"], hashes=hashes, algorithm=algorithm)
