"""The Ethereum families: declared fields in, jobs out (reference 3.4 to 3.7)."""

from typing import Any, Final

from detector import algorithms
from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job

NICEHASH: Final = 2**32 * 65536 / 65535
"""Hashes per share at difficulty 1 of EthereumStratum/1.0.0: its target is 0x00000000ffff0000.. / d."""


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job with its boundary in it, else at the target (EthereumStratum/2.0.0) or the difficulty
    (EthereumStratum/1.0.0) in force."""
    if "boundary" in fields:
        hashes = difficulty.boundary(fields["boundary"])
    elif force.hashes is not None:
        hashes = force.hashes
    else:
        hashes = difficulty.product(force.difficulty, NICEHASH)
    return [Job(fields["job"], hashes=hashes, algorithm=algorithms.canonical(fields.get("algorithm")))]


def claimed(text: object) -> float | None:
    """H/s that a client says it makes: hex of up to 32 bytes, with 0x or without; Xelis sends a number."""
    if type(text) is int or type(text) is float:
        return difficulty.number(text)
    if type(text) is not str or not 0 < len(text) <= 66:
        return None
    try:
        return difficulty.number(int(text, 16))
    except ValueError:
        return None
