"""Incident documents for tests of whoever tells them."""

import msgspec

from detector.attribution import Place
from detector.document import Bytes, EvidenceLine, Incident, Service
from detector.evidence import Shares
from detector.incidents import State

WHY = "monero: pool 203.0.113.5:3333 accepted a share of rig-7"


def line(why: str = WHY, kind: str = "share_accepted") -> EvidenceLine:
    return EvidenceLine(
        kind=kind, group="protocol", rule="monero", first="2026-11-22T10:00:00.000000Z",
        last="2026-11-22T10:05:00.000000Z", count=3, strength=9.2, why=why,
    )  # fmt: skip


def document(number: int = 1, state: State = State.CONFIRMED, **changes: object) -> Incident:
    """The incident of subscriber 198.51.100.``number``."""
    made = Incident(
        id=f"{number:016x}", subscriber=f"198.51.100.{number}", state=state, belief=0.9998,
        first_seen="2026-11-22T10:00:00.000000Z", last_seen="2026-11-22T10:05:00.000000Z", role="miner",
        coins=("XMR",), algorithms=("randomx",), dialects=("monero",),
        services=(Service("203.0.113.5", 3333, "pool.example", "Example"),), workers=("rig-7",),
        agents=("XMRig/6.21",), shares=Shares(accepted=3), hashrate=(), power_watts=None,
        bytes=Bytes(1000, 2000), place=Place("Physics", "university", "Leeds"), evidence=(line(),),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)
