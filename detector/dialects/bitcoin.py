"""Stratum v1 of the Bitcoin family: declared fields in, jobs and shares out (reference 3.1)."""

from typing import Any, Final

from detector.dialects.messages import InForce, Job, Submit, Work

MAX_WORK_BYTES: Final = 16 << 10
"""Coinbase halves and branches of a job that is kept for proof; a job of 16 branches has about 2 kB."""


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job of mining.notify.  Its share's hashes wait for the algorithm, so only the difficulty is set."""
    if "coinbase1" not in fields:
        return [Job(fields["job"], difficulty=force.difficulty)]
    work = None
    size = len(fields["coinbase1"]) + len(fields["coinbase2"]) + 64 * len(fields["branches"])
    if force.extranonce1 is not None and size <= MAX_WORK_BYTES:
        work = Work(
            fields["previous"], fields["coinbase1"], fields["coinbase2"], fields["branches"],
            fields["version"], fields["bits"], force.extranonce1,
        )  # fmt: skip
    return [Job(fields["job"], difficulty=force.difficulty, work=work)]


def share(fields: dict[str, Any], force: InForce) -> Submit | None:
    """The fields of mining.submit from which a header is built; None where they are not all there."""
    if "ntime" not in fields or len(fields["extranonce2"]) > 64:
        return None
    return Submit(
        fields["extranonce2"], fields["ntime"], fields["nonce"], fields.get("version") or "", force.mask
    )


def told(fields: dict[str, Any]) -> str | None:
    """Version bits in a share prove an ASIC of SHA-256d (reference 3.40: BIP 310)."""
    return "sha256d" if fields.get("version") else None
