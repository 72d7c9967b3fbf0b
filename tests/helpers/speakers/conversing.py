"""A speaker that mines at a known rate: a whole connection, and the truth about it.

Shares come as they would: the waits are those of an exponential distribution, each quantile once, in random
order, so that the rate over the session is the rate to within a few per cent and a wrong formula cannot hide
behind chance.
"""

import math
import random
from dataclasses import dataclass, field
from typing import Any

from speakers.speaking import ACCEPTED, REJECTED, STALE, Speaker


@dataclass
class Share:
    """One share: the row of its request, the row from which its worth could be known, its fate and worth."""

    row: int
    known: int
    fate: str
    hashes: float


@dataclass
class Truth:
    """What a connection told.  ``rate`` is in hashes per second."""

    rate: float
    shares: list[Share] = field(default_factory=list)

    def counts(self, since: int = 0) -> dict[str, int]:
        """Shares by fate of who sees the rows from ``since`` on."""
        fates = [s.fate for s in self.shares if s.row >= since]
        return {fate: fates.count(fate) for fate in (ACCEPTED, REJECTED, STALE)}

    def worth(self, since: int = 0) -> tuple[float, int]:
        """Hashes of accepted shares whose worth such a one can know, and their number."""
        known = [s.hashes for s in self.shares if s.fate == ACCEPTED and min(s.row, s.known) >= since]
        return math.fsum(known), len(known)


def waits(count: int, seed: int) -> list[float]:
    """Quantiles of the exponential distribution, in random order, of mean 1."""
    out = [-math.log1p(-(n + 0.5) / count) for n in range(count)]
    random.Random(seed).shuffle(out)
    return [wait * count / math.fsum(out) for wait in out]


def converse(
    speaker: Speaker, talk: Any, jobs: int = 8, shares: int = 12, share_s: float = 8.0, seed: int = 1
) -> Truth:
    """Let the speaker talk: ``jobs`` jobs of ``shares`` accepted shares; every other job is of another worth.
    One share a job is bad, one of every other job late."""
    for side, message in speaker.open():
        talk.say(side, speaker.dump(message))
        talk.wait(0.05)
    rate = speaker.hashes / share_s
    truth, known = Truth(rate), 0
    for number in range(jobs):
        changed = number % 2 == 0
        first = len(talk.rows)
        said, worth = speaker.job(number, speaker.hashes * (1 + (number // 2) % 3), changed)
        for side, message in said:
            talk.say(side, speaker.dump(message))
        known = first if changed or speaker.in_job else known
        for k, pause in enumerate(waits(shares, seed + number)):
            talk.wait(pause * worth / rate)
            _share(speaker, talk, truth, number, ACCEPTED, known, worth)
            known = len(talk.rows) - 1 if getattr(speaker, "tells_next", False) else known
            if k == 2:
                _share(speaker, talk, truth, number, REJECTED, known, worth)
            if k == 4 and number % 2 and STALE in speaker.fates:
                _share(speaker, talk, truth, number - 1, STALE, known, worth)
    talk.wait(10)
    for side, message in getattr(speaker, "close", list)():
        talk.say(side, speaker.dump(message))
    return truth


def _share(
    speaker: Speaker, talk: Any, truth: Truth, number: int, fate: str, known: int, worth: float
) -> None:
    request = speaker.share(number) if fate == ACCEPTED else speaker.bad(number)
    known = len(talk.rows) if speaker.in_reply else known
    truth.shares.append(Share(len(talk.rows), known, fate, worth))
    talk.say("c", speaker.dump(request))
    reply = speaker.reply(request, fate)
    talk.say("s", speaker.dump(reply))
