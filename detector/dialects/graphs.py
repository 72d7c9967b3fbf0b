"""Grin and Beam: declared fields in, jobs out (reference 3.19, 3.20).

Difficulty is a member of the job.  Grin's is of cycles in graphs, Beam's a packed number.
"""

from typing import Any, Final

from detector import algorithms
from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job

_EDGE_BITS: Final = {29: "cuckaroo29", 31: "cuckatoo31", 32: "cuckatoo32"}


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job at its own difficulty."""
    del force
    if "packed" in fields:
        return [Job(fields["job"], hashes=difficulty.beam(fields["packed"]))]
    algorithm = algorithms.canonical(fields.get("algorithm"))
    return [Job(fields["job"], hashes=difficulty.grin(fields.get("difficulty")), algorithm=algorithm)]


def told(fields: dict[str, Any]) -> str | None:
    """The algorithm by the size of a share's graph."""
    bits = fields.get("edge_bits")
    return _EDGE_BITS.get(bits) if type(bits) is int else None
