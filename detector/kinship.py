"""What connections of one client with one server over HTTP tell each other: jobs, names, and how long it is
done.

A miner over HTTP has many of them: one waits for the answer to a long poll while shares are handed in on
another, and some miners open one for each message (reference 3.8, 3.33 to 3.35).  Each keeps its own counts,
which are added elsewhere.  What a share's job is worth, what its hash has proved and since when it is mined
here, all know.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from detector import ledger
from detector.clock import SECOND_NS
from detector.evidence import Address, End
from detector.ledger import Kin, Session
from detector.transports.http import Http
from detector.transports.unwrapping import HTTP

if TYPE_CHECKING:
    from detector.observers.telling import Step

MAX_KIN: Final = 64
"""Servers that one subscriber mines at over HTTP; the one that was silent longest goes."""
LAPSE_NS: Final = 15 * 60 * SECOND_NS
"""Nothing said for so long, on no connection: then nothing was done in between."""
LOOKS: Final = 3
LOOK_NS: Final = 20 * SECOND_NS
"""So many looks for work, so far apart, are as good as one on the same connection: a scanner tries the paths
of a server in one go."""
UNNAMED: Final = "mining"

Key = tuple[Address, End, int]
"""The client's address, the server, and which copy."""


class Asker(NamedTuple):
    """Who asks over HTTP: user and agent of the latest request, and of a body between whom it is."""

    user: str
    agent: str
    key: Key | None = None
    kin: dict[Key, Kin] | None = None
    began_ns: int = 0


NOBODY: Final = Asker("", "")
"""Of a message that no request of HTTP is around."""


def asks(http: Http | None) -> tuple[str, str]:
    """User and agent of the latest request of a direction; nothing where there is none."""
    return ("", "") if http is None else (http.user, http.agent)


def asker(step: "Step", way: int, *, body: bool) -> Asker:
    """Who asks, of a line of the direction."""
    sides = step.track.sides
    own = sides[way].wrap
    if own.http is None:
        return NOBODY
    if not body or own.mode != HTTP:
        return Asker(*asks(own.http))
    client = way if own.http.asks else 1 - way
    low, high, _, copy = step.ends
    (address, _), server = (high, low) if client else (low, high)
    key = address, server, copy
    return Asker(*asks(sides[client].wrap.http), key, step.book.kin, step.track.first_ns)


def meet(s: Session, t_ns: int, who: Asker) -> None:
    """Before a message is read: what the others know, the session knows."""
    if who.kin is None or who.key is None:
        return
    kin = s.kin or who.kin.get(who.key)
    if kin is None:
        return
    if s.kin is None:
        _join(s, kin)
    # Anew each time: who joins again behind a restart must not know more.
    s.polls = max(s.polls, int(kin.looks >= LOOKS))
    if s.dialect == UNNAMED and kin.dialect:
        s.dialect = kin.dialect
    if s.algorithm is None:
        s.algorithm = kin.algorithm
    if s.first_job_ns is None and kin.job_ns is not None:
        before = kin.last_ns
        s.first_job_ns = min(
            t_ns, before if max(t_ns - LAPSE_NS, who.began_ns - LAPSE_NS) <= before else t_ns
        )


def is_met(s: Session, kin: Kin) -> bool:
    """Whether a session knows already what the others do: ``meet`` would change nothing."""
    return (
        (s.polls > 0 or kin.looks < LOOKS)
        and (s.dialect != UNNAMED or not kin.dialect)
        and (s.algorithm is not None or kin.algorithm is None)
        and (s.first_job_ns is not None or kin.job_ns is None)
    )


def part(s: Session, t_ns: int, who: Asker, polls: int, dropped: dict[str, int]) -> None:
    """Behind a message, before which the session had so many ``polls``: what it knows, the others do."""
    if who.kin is None or who.key is None or not (s.shaped or s.polls):
        return
    kin = s.kin
    if kin is None:
        kin = who.kin.get(who.key) or _begin(who.kin, who.key, t_ns, dropped)
        _join(s, kin)
    if s.polls > polls and (not kin.looks or t_ns - kin.looked_ns >= LOOK_NS):
        kin.looks, kin.looked_ns = kin.looks + 1, t_ns
    kin.last_ns = max(kin.last_ns, t_ns)
    if s.shaped:
        tell(s, kin, who, dropped)


def tell(s: Session, kin: Kin, who: Asker, dropped: dict[str, int]) -> None:
    """What a session that mines knows, the others do."""
    kin.dialect = kin.dialect if s.dialect == UNNAMED else s.dialect
    _name(s, kin, who, dropped)
    kin.algorithm = s.algorithm or kin.algorithm
    if kin.job_ns is None:
        kin.job_ns = s.first_job_ns
    if kin.undecided.shares and s.proof.decided is not None:
        ledger.add(s, dropped, "?", kin.undecided.total, kin.undecided.shares)
        kin.undecided = ledger.Sum()
        if s.first_job_ns is not None and kin.job_ns is not None:  # so was the time that it took
            s.first_job_ns = min(s.first_job_ns, kin.job_ns)


def forget(kin: dict[Key, Kin], before_ns: int) -> None:
    """Forget servers at which nothing was said since then."""
    for key in [key for key, one in kin.items() if one.last_ns < before_ns]:
        del kin[key]


def _begin(known: dict[Key, Kin], key: Key, t_ns: int, dropped: dict[str, int]) -> Kin:
    if len(known) >= MAX_KIN:
        del known[min(known, key=lambda k: known[k].last_ns)]
        dropped["kin"] += 1
    known[key] = Kin(last_ns=t_ns)
    return known[key]


def _join(s: Session, kin: Kin) -> None:
    s.kin = kin
    for job in s.jobs.values():
        if job.id not in kin.jobs:  # else it is as new, or newer: of who was restored, too
            kin.file(job)
    if s.proof.checked <= kin.proof.checked:
        s.proof = kin.proof
    else:
        kin.proof = s.proof


def _name(s: Session, kin: Kin, who: Asker, dropped: dict[str, int]) -> None:
    """Whose it is, where the message does not tell and only one was told of."""
    if who.user or (who.agent and who.agent not in s.agents):
        ledger.asked(s, dropped, who.user, who.agent)
    if s.login and s.login not in kin.logins and len(kin.logins) < ledger.MAX_LOGINS:
        kin.logins.append(s.login)
    if not s.login and len(kin.logins) == 1:
        ledger.named(s, dropped, kin.logins[0], "", {})
