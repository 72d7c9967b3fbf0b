"""Equihash (ZIP 301) and Zhash: declared fields in, jobs out (reference 3.10, errata A1).

A share is worth 2^256 / target solutions.  Which Equihash it is stands in the tenth member of Zhash's
notify, else in the size of the first solution.
"""

from typing import Any, Final

from detector import algorithms
from detector.dialects.messages import InForce, Job

_SIZES: Final = {
    2694: "equihash/200,9",
    806: "equihash/192,7",
    202: "equihash/144,5",
    106: "equihash/125,4",
    138: "equihash/96,5",
    208: "beamhash3",
}
"""Algorithm by hex digits of the solution with its length before it (BeamHash has none)."""


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job at the target in force."""
    named = fields.get("parameters")
    algorithm = None
    if type(named) is str and len(named) < 16:
        algorithm = algorithms.canonical("equihash/" + named.replace("_", ","))
    elif type(named) is str and named.strip("0"):
        algorithm = "verushash"  # a template for the solution: its bytes are filler of the header (A1)
    return [Job(fields["job"], hashes=force.hashes, algorithm=algorithm)]


def told(fields: dict[str, Any]) -> str | None:
    """The algorithm by the size of a share's solution; a share of another dialect has none."""
    return _SIZES.get(len(fields.get("solution", "")))
