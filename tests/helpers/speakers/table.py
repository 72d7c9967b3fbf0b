# ruff: noqa: E402, RUF100, I001  # a path first
"""What the payload observer makes of each speaker, and the table of it.

PYTHONPATH=.:tests/helpers:tests/detector/speech .venv/bin/python -m speakers.table > tests/detector/README.md
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "detector" / "speech"))

from metering import metered
from payload_rows import batch
from speakers import SPEAKERS, grounds, noise
from speakers.conversing import converse
from speakers.speaking import Speaker
from spoken import Talk

from detector import hashrate
from detector.dialects.table import load
from detector.evidence import SessionFacts
from detector.observers.noise import NoiseObserver
from detector.observers.payload import PayloadObserver
from detector.sightings import Recent

CONFIRMING = {"mining_session", "share_accepted", "share_verified"}


@dataclass
class Heard:
    """What was found, and what is true; ``worth`` is (hashes, shares), ``messages`` how many were read."""

    true_counts: dict[str, int]
    true_worth: tuple[float, int]
    true_rate: float
    true_messages: int
    messages: int = 0
    dialect: str | None = None
    algorithm: str | None = None
    coin: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    worth: tuple[float | None, int] = (None, 0)
    value: float | None = None
    low: float = 0.0
    high: float = 0.0
    confirmed: bool = False
    kinds: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)


def heard(speaker: Speaker, part: float = 0.0) -> Heard:
    """Let the speaker mine, hear it from ``part`` of its rows on."""
    talk = Talk(begun=not part)
    truth = converse(speaker, talk)
    since = int(len(talk.rows) * part)
    observer = PayloadObserver()
    seen = observer.step(batch(talk.rows[since:]))
    counts = truth.counts(since)
    said = sum(speaker.messages(row["data"]) for row in talk.rows[since:])
    found = Heard(counts, truth.worth(since), truth.rate, said, refused=observer.stats.refused)
    found.messages = observer.stats.lines - observer.stats.quoted
    found.kinds = {e.kind for e in seen.evidence}
    found.confirmed = bool(found.kinds & CONFIRMING)
    for facts in seen.sessions:
        found.dialect, found.algorithm, found.coin = facts.dialect, facts.algorithm, facts.coin
        found.counts = {name: getattr(facts.shares, name) for name in counts}
        found.worth = facts.hashes, facts.hashes_shares
    for rate in hashrate.rates(seen.sessions):
        found.value, found.low, found.high = rate.value, rate.low, rate.high
    for _, track in observer.state(talk.client[0]).tracks:
        found.pending += [request.kind for request in track.session.pending]
    return found


def sessions(speaker: Speaker) -> tuple[SessionFacts, ...]:
    """The facts of a session from its start."""
    talk = Talk()
    converse(speaker, talk)
    return PayloadObserver().step(batch(talk.rows)).sessions


def without_reason(counts: dict[str, int]) -> dict[str, int]:
    """The same counts with late shares among the refused."""
    return {"accepted": counts["accepted"], "refused": counts["rejected"] + counts["stale"]}


def _cell(found: Heard, dialect: str, algorithm: Any) -> str:
    if found.dialect is None:
        return "no"
    named = "" if found.dialect == dialect else f" as {found.dialect}"
    shares = "exact" if found.counts == found.true_counts else "late told as refused"
    if without_reason(found.counts) != without_reason(found.true_counts):
        shares = "WRONG"
    if found.value is None:
        return f"yes{named}; shares {shares}; no rate"
    holds = "holds" if found.low <= found.true_rate <= found.high else "MISSES"
    wrong = "" if found.algorithm == algorithm else f" ({found.algorithm})"
    return (
        f"yes{named}; shares {shares}; {found.value / found.true_rate:.3f} of true, interval {holds}{wrong}"
    )


def encrypted(speaker: Any, part: float = 0.0) -> str:
    """What flow rows tell of a speaker whose words are encrypted: shares by their size, no rate."""
    talk = Talk(begun=not part)
    truth = converse(speaker, talk)
    since = int(len(talk.rows) * part)
    observer = NoiseObserver(Recent(1 << 16))
    seen = observer.step(observer.find(metered(talk, talk.rows[since:])))
    if not seen.sessions:
        return "no"
    shares = sum(e.count for e in seen.evidence if e.kind == "noise_shares")
    true = len([share for share in truth.shares if share.row >= since])
    return f"yes, by sizes; shares {'exact' if shares == true else f'{shares} of {true}'}; no rate"


HEAD = """# What each dialect rests on

Printed by `PYTHONPATH=.:tests/helpers:tests/detector/speech .venv/bin/python -m speakers.table`.

Every dialect of `detector/tables/dialects.toml` has `hits` and `misses` in its own rows
(`dialects/test_table.py`); `sv2`, Stratum V2 inside of Noise, is known by sizes alone
(`observers/test_noise.py`).
A session is one of a speaker in `tests/helpers/speakers`, written from the specification, that mines at a
known rate; `test_speakers.py` holds what stands here. A rate of `1.000 of true` is the measured one over that
of the speaker; *joined in the middle* is from 40 % of its messages on. Published examples are not kept here:
`tests/helpers/speakers/grounds.py` says which were read, and what of them was not understood.
"""


def grounds_table() -> list[str]:
    """A line for each dialect."""
    out = [
        "## Grounds",
        "",
        "| dialect | sessions | hits, misses | rests on beside its speaker |",
        "|---|---|---|---|",
    ]
    for dialect in load().dialects:
        sessions = sum(
            kind.dialect == dialect or kind.name.startswith(f"{dialect} (")
            for kind in (*SPEAKERS, *noise.SPEAKERS)
        )
        hit, miss = grounds.hits(dialect)
        out.append(f"| {dialect} | {sessions or 'none'} | {hit}, {miss} | {grounds.rests_on(dialect)} |")
    return out


def main() -> None:
    """Print both tables."""
    print(HEAD)
    print("\n".join(grounds_table()))
    print("\n## Sessions\n")
    print("| session | dialect | algorithm | coin by it | from the start | joined in the middle |")
    print("|---|---|---|---|---|---|")
    for kind in SPEAKERS:
        first, late = heard(kind()), heard(kind(), 0.4)
        print(
            f"| {kind.name} | {first.dialect} | {first.algorithm} | {first.coin or 'unknown'} "
            f"| {_cell(first, kind.dialect, kind.algorithm)} | {_cell(late, kind.dialect, kind.algorithm)} |"
        )
    for kind in noise.SPEAKERS:
        told = f"{encrypted(kind())} | {encrypted(kind(), 0.4)}"
        print(f"| {kind.name} | {kind.dialect} | {kind.algorithm} | unknown | {told} |")


if __name__ == "__main__":
    main()
