"""getwork over HTTP: declared fields in, jobs and shares out (reference 3.33).

A share is the job's data with another nonce; the two have their version, their previous hash and most of
their merkle root in common, and are known by that.
"""

from typing import Any

from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job, Submit

HEADER_DIGITS = 160


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job of a reply or a long poll.  Its target is a little-endian number, whatever the algorithm."""
    del force
    target = int.from_bytes(bytes.fromhex(fields["target"]), "little")
    return [Job(fields["job"], hashes=difficulty.number(2**256 / target) if target else None)]


def share(fields: dict[str, Any], force: InForce) -> Submit | None:
    """The header as it was hashed, its words yet to be turned."""
    del force
    return Submit("", "", "", "", None, fields["data"][:HEADER_DIGITS])
