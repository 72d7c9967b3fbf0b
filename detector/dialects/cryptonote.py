"""CryptoNote login / job / submit: declared fields in, jobs out (reference 3.2)."""

from typing import Any, Final

from detector import algorithms
from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job

_VARIANTS: Final = {0: "cn/0", 1: "cn/1", 2: "cn/2", 4: "cn/r"}
"""webminerpool's "cn" (reference 3.37): Monero's CryptoNight of each fork."""


def _named(fields: dict[str, Any]) -> Any:
    """What the job calls its algorithm."""
    variant = fields.get("variant")
    if fields.get("algorithm") == "cn" and type(variant) is int:
        return _VARIANTS.get(variant)
    return fields.get("algorithm")


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job of a push, a login reply or a getjob reply: target and algorithm are its own."""
    algorithm = algorithms.canonical(_named(fields)) or force.algorithm
    hashes = difficulty.cryptonote(fields.get("target"), big_endian=algorithm == "rx/yada")
    return [Job(fields["job"], hashes=hashes, algorithm=algorithm)]


def told(fields: dict[str, Any]) -> str | None:
    """The algorithm that a share names."""
    return algorithms.canonical(fields.get("algorithm"))
