"""The Ethereum families: declared fields in, jobs out (reference 3.4, 3.5, 3.6)."""

from typing import Any, Final

from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job

NICEHASH: Final = 2**32 * 65536 / 65535
"""Hashes per share at difficulty 1 of EthereumStratum/1.0.0: its target is 0x00000000ffff0000.. / d."""


def job(fields: dict[str, Any], force: InForce) -> Job:
    """A job with its boundary in it, else (EthereumStratum/1.0.0) at the difficulty in force."""
    if "boundary" in fields:
        hashes = difficulty.boundary(fields["boundary"])
    else:
        hashes = None if force.difficulty is None else force.difficulty * NICEHASH
    return Job(fields["job"], hashes=hashes)


def claimed(text: object) -> float | None:
    """H/s of eth_submitHashrate: 32 bytes of hex."""
    if type(text) is not str or not 0 < len(text) <= 66:
        return None
    try:
        return difficulty.number(int(text, 16))
    except ValueError:
        return None
