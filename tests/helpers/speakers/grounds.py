"""What our knowledge of each dialect rests on beside its speaker: real captures, and published examples.

A published example is a message that a specification prints.  Its text is its author's and is not kept here:
what stands here is where it is, how many messages were put together from it and read (each as a line of its
side, in the document's order), and what came of them, on 2026-11-23.  A reading that found something else
than the document says would stand here as well.
"""

import tomllib
from pathlib import Path
from typing import NamedTuple

from detector.dialects import table

MANIFEST = Path(__file__).resolve().parents[3] / "pcaps" / "manifest.toml"


class Published(NamedTuple):
    """``said`` messages of ``where`` (a document of a repository, at a commit) read; ``found`` in words."""

    where: str
    said: int
    found: str


NICEHASH = "nicehash/Specifications"
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "eth-nicehash": (
        Published(
            f"{NICEHASH}: EthereumStratum_NiceHash_v1.0.0 @1ce4d89", 11, "session, 1 accepted, 1 stale"
        ),
    ),
    "eth-stratum2": (
        Published(
            "ethereum/EIPs: eip-1571 @0bd1812", 22,
            "session, 2 accepted (one by code 202), 1 refused, 1 stale",
        ),
    ),
    "cryptonote": (
        Published("xmrig/xmrig-proxy: doc/STRATUM @799a4f0", 9, "session, 1 accepted, 1 refused"),
    ),
    "grin": (
        Published("mimblewimble/grin: doc/stratum @26e332f", 15, "session, 2 accepted, 1 refused, 1 stale"),
        Published(f"{NICEHASH}: Grin_NiceHash_v1.0 @0104b03", 1, "job"),
    ),
    "conflux": (
        Published(
            "Conflux-Chain/conflux-doc: docs/stratum @a3fa5c8", 7,
            "job, 1 accepted, 1 refused; a login with an empty secret is read as a plain subscribe",
        ),
        Published(f"{NICEHASH}: Octopus_NiceHash_v1.0 @3300440", 1, "job"),
    ),
    "ckb-spark": (Published("yulidai/ckb_stratum: README", 5, "session, jobs"),),
    "cyber-ws": (Published("CyberChainXyz/stratum-jsonrpc2-ws: README", 5, "session, 1 accepted"),),
    "beam": (Published(f"{NICEHASH}: Beam_NiceHash_v1.0 @1d4d3da", 1, "job"),),
    "equihash": (
        Published(f"{NICEHASH}: Zhash_NiceHash_v1.0 @a6a0cd4", 1, "job, its placeholders filled in"),
    ),
    "ironfish": (Published(f"{NICEHASH}: FishHash_v1.0 @a9e8107", 2, "login alone"),),
    "kaspa": (
        Published(f"{NICEHASH}: KHeavyHash_NiceHash_v1.0 @c72d6ea", 2, "handshake alone"),
        Published("Kaspa Common Stratum Protocol, IceRiver", 6, "handshake alone"),
    ),
    "kawpow": (Published(f"{NICEHASH}: KawPow_NiceHash_v1.0 @8571c12", 2, "handshake alone"),),
    "kadena": (Published(f"{NICEHASH}: Kadena_NiceHash_v1.0 @bf1ae84", 2, "handshake alone"),),
    "alephium": (Published(f"{NICEHASH}: Alephium_NiceHash_v1.0 @9d280ec", 1, "extranonce alone"),),
    "xelis": (
        Published(f"{NICEHASH}: XelisHashV2_NiceHash_v1.0 @28d19f1", 4, "handshake and shares"),
        Published(
            "vipor-net/xelis-stratum-protocol: README @338c051", 10,
            "handshake; job and share hold words in place of hex and are not read",
        ),
    ),
    "aeternity": (
        Published(
            "aeternity/protocol: STRATUM @6260614", 8,
            "session, 1 accepted; its job has three members where its text has four, its share an empty "
            "solution",
        ),
    ),
}  # fmt: skip


def captured() -> dict[str, list[str]]:
    """Captures of real miners, by dialect."""
    out: dict[str, list[str]] = {}
    for row in tomllib.loads(MANIFEST.read_text())["capture"]:
        # What a capture holds inside of TLS cannot be read.
        if "truth" in row and row["expected"] != "none":
            out.setdefault(row["truth"]["dialect"], []).append(Path(row["file"]).stem)
    return out


def rests_on(dialect: str) -> str:
    """In words, for a row of the table."""
    real = captured().get(dialect, [])
    told = [
        f"published: {one.where} ({one.said} messages: {one.found})" for one in PUBLISHED.get(dialect, ())
    ]
    if real:
        told.insert(0, f"captures of real miners: {', '.join(real)}")
    return "; ".join(told) or "nothing"


def hits(dialect: str) -> tuple[int, int]:
    """How many hits and misses its own rows have."""
    own = [form for form in table.load().forms if form.dialect == dialect]
    return sum(len(form.hits) for form in own), sum(len(form.misses) for form in own)
