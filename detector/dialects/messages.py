"""What a parser hands to a session: plain values, so that a state record can carry them."""

from array import array
from typing import Annotated

import msgspec

Difficulty = Annotated[float, msgspec.Meta(ge=1e-31, le=1e40)]
"""As ``difficulty.number`` lets through, and products of it: finite, not 0."""
Hex8 = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{8}$")]
Version = Annotated[str, msgspec.Meta(pattern="^([0-9a-fA-F]{8})?$")]
Mask = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Hex64 = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
Octets = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$", max_length=1 << 15)]
Name = Annotated[str, msgspec.Meta(max_length=128)]

ONLY = "current"
"""The name of a job where there is one at a time and no share names it."""


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


class Channel(msgspec.Struct, array_like=True, gc=False):
    """One channel of Stratum V2, or a group: what a share of its next job is worth, its group, the beginning
    of its extranonces, the parent of its jobs (most significant digit first) and nBits."""

    hashes: Difficulty | None = None
    group: Name = ""
    prefix: Octets = ""
    previous: Hex64 = ""
    bits: Mask = 0


class Block(msgspec.Struct, array_like=True, gc=False):
    """What a header of Stratum V2 is built from: the merkle root (most significant digit first), or the
    coinbase before and after its extranonce and the path; the parent once it is known."""

    root: Hex64 = ""
    before: Octets = ""
    after: Octets = ""
    path: Annotated[list[Hex64], msgspec.Meta(max_length=255)] = []
    previous: Hex64 = ""
    bits: Mask = 0


class InForce(msgspec.Struct, array_like=True, gc=False):
    """What the pool set for the jobs to come.  ``mask`` holds at once (BIP 310).

    Of ``difficulty`` and ``hashes`` (what a share of the target that was set is worth) the later one is
    there; ``algorithm`` is the one that was told beside the jobs.  ``channels`` and ``blocks`` are of Stratum
    V2, by channel and by "channel/job".
    """

    difficulty: Difficulty | None = None
    extranonce1: str | None = None
    mask: Mask | None = None
    hashes: Difficulty | None = None
    algorithm: str | None = None
    channels: dict[str, Channel] = {}
    blocks: dict[str, Block] = {}


class Submit(msgspec.Struct, array_like=True, gc=False):
    """One share as sent: hex fields of a Bitcoin-family submit, empty in the other families.  ``header`` is
    that of getwork, 160 hex digits."""

    extranonce2: str
    ntime: str
    nonce: str
    version: Version
    mask: Mask | None
    header: str = ""


def turned(data: bytes) -> bytes:
    """Each 4-byte word reversed: so getwork sends a header, and notify the previous hash."""
    words = array("I", data[: len(data) & ~3])
    words.byteswap()
    return words.tobytes() + data[len(words) * 4 :][::-1]
