"""Mining alone, at a node: declared fields of a template in, jobs out; of a block, whose it is.

bitcoind's getblocktemplate (BIP 22, reference 3.34) and monerod's (3.35).  A share is a block: it is worth
what the network's difficulty says, or BIP 23's target for a share.  A block does not name its template, but
its parent is that of one.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from detector.dialects import difficulty
from detector.dialects.messages import InForce, Job, Submit, turned

_HEADER_DIGITS: Final = 160
# Behind three varints, none longer than 10 octets.
_PARENT: Final = re.compile(r"(?:(?:[^0-7].){0,9}+.{2}){3}(.{0,64})", re.S)


def jobs(fields: dict[str, Any], force: InForce) -> list[Job]:
    """A job named by its parent, at the target or the difficulty in it."""
    del force
    target = fields.get("boundary")
    hashes = difficulty.number(fields.get("difficulty")) if target is None else difficulty.boundary(target)
    return [Job(fields["job"], hashes=hashes)]


def parent(block: str) -> str:
    """The parent's hash as bitcoind writes it, of a block in hex: behind 4 octets of version."""
    try:
        return bytes.fromhex(block[8:72])[::-1].hex()
    except ValueError:
        return ""


def cryptonote_parent(blob: str) -> str:
    """The parent's hash of a CryptoNote block: behind two versions and a time, each a varint."""
    found = _PARENT.match(blob)
    return "" if found is None else found[1].lower()


NAMES: Final[dict[str, Callable[[str], str]]] = {
    "gbt.submit": parent,
    "cryptonote-daemon.submit": cryptonote_parent,
    "cryptonote-daemon.submit2": cryptonote_parent,
    "gbt.template": str.lower,
    "cryptonote-daemon.template": str.lower,
}
"""By row: the name of a job, of the field that holds it."""


def share(fields: dict[str, Any], force: InForce) -> Submit | None:
    """The header of a block, its words turned as getwork's are."""
    del force
    try:
        header = bytes.fromhex(fields["data"][:_HEADER_DIGITS])
    except ValueError:
        return None
    return Submit("", "", "", "", None, turned(header).hex())
