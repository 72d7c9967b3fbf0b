"""What a parser hands to a session: plain values, so that a state record can carry them."""

import msgspec


class Work(msgspec.Struct):
    """What a Bitcoin-family header is built from (mining.notify), hex as sent."""

    previous: str
    coinbase1: str
    coinbase2: str
    branches: list[str]
    version: str
    bits: str
    extranonce1: str


class Job(msgspec.Struct):
    """One job.  ``hashes`` is the expected number of hashes of a share of it, where the job itself tells;
    ``difficulty`` is the one in force where it takes the algorithm's factor to know.
    """

    id: str
    difficulty: float | None = None
    hashes: float | None = None
    algorithm: str | None = None
    work: Work | None = None


class InForce(msgspec.Struct):
    """What the pool set for the jobs to come.  ``mask`` holds at once (BIP 310)."""

    difficulty: float | None = None
    extranonce1: str | None = None
    mask: int | None = None


class Submit(msgspec.Struct):
    """One share as sent: hex fields of a Bitcoin-family submit, empty in the other families."""

    extranonce2: str
    ntime: str
    nonce: str
    version: str
    mask: int | None
