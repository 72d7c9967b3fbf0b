"""What a parser hands to a session: plain values, so that a state record can carry them."""

from typing import Annotated

import msgspec

Difficulty = Annotated[float, msgspec.Meta(ge=1e-31, le=1e40)]
"""As ``difficulty.number`` lets through, and products of it: finite, not 0."""
Hex8 = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{8}$")]
Version = Annotated[str, msgspec.Meta(pattern="^([0-9a-fA-F]{8})?$")]
Mask = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]


class Work(msgspec.Struct, array_like=True, gc=False):
    """What a Bitcoin-family header is built from (mining.notify), hex as sent."""

    previous: str
    coinbase1: str
    coinbase2: str
    branches: list[str]
    version: Hex8
    bits: str
    extranonce1: str


class Job(msgspec.Struct, array_like=True, gc=False):
    """One job.  ``hashes`` is the expected number of hashes of a share of it, where the job itself tells;
    ``difficulty`` is the one in force where it takes the algorithm's factor to know.
    """

    id: str
    difficulty: Difficulty | None = None
    hashes: Difficulty | None = None
    algorithm: str | None = None
    work: Work | None = None


class InForce(msgspec.Struct, array_like=True, gc=False):
    """What the pool set for the jobs to come.  ``mask`` holds at once (BIP 310).

    Of ``difficulty`` and ``hashes`` (what a share of the target that was set is worth) the later one is
    there; ``algorithm`` is the one that was told beside the jobs.
    """

    difficulty: Difficulty | None = None
    extranonce1: str | None = None
    mask: Mask | None = None
    hashes: Difficulty | None = None
    algorithm: str | None = None


class Submit(msgspec.Struct, array_like=True, gc=False):
    """One share as sent: hex fields of a Bitcoin-family submit, empty in the other families.  ``header`` is
    that of getwork, 160 hex digits."""

    extranonce2: str
    ntime: str
    nonce: str
    version: Version
    mask: Mask | None
    header: str = ""
