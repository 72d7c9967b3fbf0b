"""Requests and replies of one session in, pairs out: by id, oldest first, as acknowledgements allow.

Ids are reused and not always numbers (reference 1.1), and a reply may come before its request where each
direction has a collector of its own.
"""

from typing import Any

import msgspec

from detector import ledger
from detector.dialects import difficulty
from detector.dialects.messages import Job
from detector.ledger import HALF, WRAP, Held, Pending, Session

SETTLED_NS = 5 * 10**9
"""No refusal takes longer: a round trip and one hash."""


class Arrival(msgspec.Struct, gc=False):
    """Where a line came: direction, time, sequence number behind it, acknowledgement beside it, and the
    next byte expected of the other direction; None where the protocol has no such numbers."""

    direction: int
    t_ns: int
    end: int | None
    ack: int | None
    reached: int | None


def wait(s: Session, dropped: dict[str, int], request: Pending) -> None:
    """Keep a request until its reply comes; the oldest makes room."""
    if len(s.pending) >= ledger.MAX_PENDING:
        del s.pending[0]
        dropped["pending"] += 1
    s.pending.append(request)


def pair(
    s: Session, dropped: dict[str, int], key: str | int | None, at: Arrival, kinds: tuple[str, ...] = ()
) -> Pending | None:
    """Take the oldest request of that id, and of one of these kinds, if the reply acknowledges it.

    Where replies may have been lost the newest is taken that it acknowledges, and those before it have had
    theirs: who gives all shares one id would otherwise have each reply taken for an older share's for good.
    """
    found = -1
    for i, request in enumerate(s.pending):
        if kinds and request.kind not in kinds:
            continue
        if request.id == key and request.direction != at.direction:
            if not ledger.acknowledges(at.ack, request.end):
                break
            found = i
            if not request.doubtful:
                break
    if found < 0:
        return None
    taken = s.pending.pop(found)
    if found:
        _unanswered(s, dropped, s.pending[:found], taken)
    return taken


def _unanswered(s: Session, dropped: dict[str, int], before: list[Pending], taken: Pending) -> None:
    """A request has its reply: those ``before`` it have had theirs, in what was lost."""
    gone = [
        p
        for p in before
        if p.doubtful and p.direction == taken.direction and (p.id == taken.id or not taken.doubtful)
    ]
    if gone:
        dropped["unanswered"] += len(gone)
        ledger.missed(s, float(sum(p.kind == "submit" for p in gone)))
        _forget(s, gone)


def batch(s: Session, at: Arrival, fields: dict[str, Any]) -> list[Pending]:
    """Take the shares of a channel that one message of Stratum V2 accepts: at most ``count``, the oldest
    first, none numbered beyond ``last``.  ``sum`` is that of their difficulties: it tells what they are worth
    where their target was not seen (errata B14).  Some servers count shares there: one a share says nothing.
    """
    channel, last, count, total = (fields.get(name) for name in ("channel", "last", "count", "sum"))
    if type(last) is not int or type(count) is not int:
        return []
    own = f"s{channel}/"
    found = [
        p
        for p in s.pending
        if p.kind == "submit" and str(p.id).startswith(own) and p.direction != at.direction
        and number(p.id) <= last
    ]  # fmt: skip
    if any(p.doubtful for p in found):
        found.sort(key=lambda p: p.doubtful)  # what accepted the older ones may have been lost
    found = found[: max(0, count)]
    if type(total) is int and total > count > 0:
        worth = difficulty.number(total / count * 2**32)
        for request in found:
            _told(s, request, worth)
    _forget(s, found)
    return found


def _forget(s: Session, found: list[Pending]) -> None:
    """Requests that wait no longer.  By which they are: two may say the same."""
    gone = set(map(id, found))
    s.pending = [p for p in s.pending if id(p) not in gone]


def _told(s: Session, request: Pending, worth: float | None) -> None:
    job = request.known or Job(request.job, algorithm=s.algorithm)
    if worth is None or job.hashes is not None:
        return
    request.known = msgspec.structs.replace(job, hashes=worth, algorithm=job.algorithm or "sha256d")
    s.algorithm = s.algorithm or "sha256d"
    if s.first_job_ns is None:
        s.first_job_ns = request.t_ns


def settled(s: Session, at: Arrival) -> list[Pending]:
    """Take the shares that the server got a while before this message of its, and did not refuse.

    What a share of no known job was worth is not told by a later one.
    """
    before = at.t_ns - SETTLED_NS
    found = [
        p
        for p in s.pending
        if p.kind == "submit" and p.direction != at.direction and p.t_ns <= before
        and ledger.acknowledges(at.ack, p.end)
    ]  # fmt: skip
    if found:
        _forget(s, found)
    for p in found:
        p.job = "" if p.known is None else p.job
    return found


def number(key: str | int | None) -> int:
    """The number of a share, of its id as ``transports.stratum2`` writes it; -1 of another."""
    told = key.rpartition("/")[2] if type(key) is str else ""
    return int(told) if told.isascii() and told.isdigit() else -1


def is_ahead(at: Arrival) -> bool:
    """Whether the reply acknowledges bytes that have not come yet, so its request may still."""
    if at.ack is None or at.reached is None:
        return True
    return 0 < (at.ack - at.reached) & WRAP < HALF


def hold(s: Session, dropped: dict[str, int], reply: Held) -> None:
    """Keep a reply that came before its request; one that is long is dropped, the oldest makes room."""
    if len(reply.line) > ledger.MAX_HELD_BYTES:
        dropped["held"] += 1
        return
    if len(s.held) >= ledger.MAX_HELD:
        del s.held[0]
        dropped["held"] += 1
    s.held.append(reply)
