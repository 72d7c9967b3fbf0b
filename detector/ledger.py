"""What one mining connection has told so far: plain values, so that a state record can carry them.

Every list and table has a bound, and what is dropped is counted (``DROPS``).
"""

from typing import Annotated, Any, Final

import msgspec

from detector import algorithms
from detector.dialects import templates
from detector.dialects.messages import ONLY, Difficulty, InForce, Job, Submit
from detector.dialects.table import Reader
from detector.evidence import Shares, Worked
from detector.proof import Proof

MAX_JOBS: Final = 64
MAX_WORKS: Final = 8  # jobs that keep what a header is built from: up to 16 kB each
MAX_CHANNELS: Final = 256
MAX_PENDING: Final = 64
MAX_HELD: Final = 32
MAX_HELD_BYTES: Final = 8 << 10
MAX_NAMES: Final = 64
MAX_SUMS: Final = 8
MAX_TEXT: Final = 128
MAX_KIN_JOBS: Final = 256
MAX_LOGINS: Final = 2
MOST_LEAD: Final = 4
HALF: Final = 1 << 31
FAR_BYTES: Final = 1 << 24
"""No jump in one direction and no acknowledgement goes further: miners say little."""
WRAP: Final = 0xFFFFFFFF
MOST_NS: Final = 1 << 62  # longer than any session, but for a clock that jumps to and fro

Side = Annotated[int, msgspec.Meta(ge=0, le=1)]
Lasted = Annotated[int, msgspec.Meta(ge=0, le=MOST_NS)]
Told = Annotated[list[str], msgspec.Meta(max_length=MAX_NAMES)]


class Sum(msgspec.Struct, array_like=True, gc=False):
    """Accepted shares of one algorithm: ``total`` is of hashes, or of difficulties where only the
    algorithm will tell the hashes."""

    total: Annotated[float, msgspec.Meta(ge=0, le=1e60)] = 0.0
    shares: int = 0


NOTHING: Final = Sum()


class Pending(msgspec.Struct, array_like=True, gc=False):
    """A request that waits for its reply.  ``end`` is the sequence number just behind it, where known.

    ``weak``: its form is no evidence alone, or rests on memory; a submit that is none has no ``dialect``.
    For a submit: worker, job and what was in force for that job when the share was sent.
    ``tabled`` is set in a state record alone: ``known`` is the one of the session's jobs that has its name.
    ``doubtful``: bytes of the other side were lost since, so its reply may have been.
    """

    id: str | int | None
    direction: Side
    kind: str
    end: int | None
    t_ns: int
    dialect: str
    name: str = ""
    weak: bool = False
    job: str = ""
    known: Job | None = None
    share: Submit | None = None
    tabled: bool = False
    doubtful: bool = False


class Held(msgspec.Struct, array_like=True, gc=False):
    """A reply that came before its request: two collectors, one direction each."""

    id: str | int | None
    direction: Side
    ack: int | None
    t_ns: int
    line: bytes


DROPS: Final = (
    "jobs",
    "channels",
    "pending",
    "held",
    "names",
    "sums",
    "kin",
    "unpaired",
    "unanswered",
    "wrong_side",
)
"""Bounds, replies that answer nothing, requests whose reply was lost, a client's words from the server."""


class Kin(msgspec.Struct, array_like=True, gc=False):
    """What the connections of one client with one server over HTTP know of each other (``kinship``).

    ``looks`` is how often one looked for work, ``looked_ns`` when that was counted last; ``job_ns`` since
    when jobs are known whose shares can be counted, ``last_ns`` the time of the latest message.
    ``undecided`` are accepted shares that wait for their algorithm to be proved.
    """

    last_ns: int
    dialect: str = ""
    algorithm: str | None = None
    job_ns: int | None = None
    looks: int = 0
    looked_ns: int = 0
    logins: Annotated[list[str], msgspec.Meta(max_length=MAX_LOGINS)] = []
    undecided: Sum = msgspec.field(default_factory=Sum)
    proof: Proof = msgspec.field(default_factory=Proof)
    jobs: Annotated[dict[str, Job], msgspec.Meta(max_length=MAX_KIN_JOBS)] = {}

    def file(self, job: Job) -> None:
        """Put a job where all find it; the oldest makes room, it is still its own connection's."""
        self.jobs.pop(job.id, None)
        self.jobs[job.id] = job
        if len(self.jobs) > MAX_KIN_JOBS:
            del self.jobs[next(iter(self.jobs))]
        if job.work is not None:
            _bound_works(self.jobs, MAX_WORKS)


class Session(msgspec.Struct, array_like=True, gc=False):
    """All that one connection has told.  ``client`` is the direction whose source is the miner, 0 or 1, and
    ``lead`` how many more messages decide so than the other way, at most MOST_LEAD, 0 where it is a guess;
    ``heard`` counts the client's messages; ``mining`` tells which directions sent a mining method, or
    accepted a login or a share.  ``hardest`` is the most that a share of any job was worth, ``scaled`` where
    that is a difficulty, to be multiplied by the algorithm's factor.  ``let_in`` is the account of a login
    such as any service has, accepted before any job.  ``closed`` tells of each algorithm how long
    (ns) it was done before it changed, and when that was last.  ``kin`` is what it knows of other
    connections; in a state record it stands by itself.

    ``unseen`` is about how many shares are in no sum since ``counted_ns``, when one was last: lost, or of a
    job that was.  What is not counted takes no time: ``blind_ns``.  ``lost`` is of octets of the client."""

    client: Side | None = None
    lead: Annotated[int, msgspec.Meta(ge=0, le=MOST_LEAD)] = 0
    dialect: str = "mining"
    shaped: bool = False
    mining: Annotated[list[bool], msgspec.Meta(min_length=2, max_length=2)] = msgspec.field(
        default_factory=lambda: [False, False]
    )
    logged_in: bool = False
    heard: int = 0
    polls: int = 0
    submits: int = 0
    jobs_seen: int = 0
    from_start: bool = False
    algorithm: str | None = None
    claimed: Difficulty | None = None
    first_job_ns: int | None = None
    reconnects: int = 0
    login: str = ""
    force: InForce = msgspec.field(default_factory=InForce)
    hardest: Difficulty | None = None
    scaled: bool = False
    shares: Shares = msgspec.field(default_factory=Shares)
    sums: Annotated[dict[str, Sum], msgspec.Meta(max_length=MAX_SUMS)] = {}
    proof: Proof = msgspec.field(default_factory=Proof)
    jobs: Annotated[dict[str, Job], msgspec.Meta(max_length=MAX_JOBS)] = {}
    pending: Annotated[list[Pending], msgspec.Meta(max_length=MAX_PENDING)] = []
    held: Annotated[list[Held], msgspec.Meta(max_length=MAX_HELD)] = []
    workers: Told = []
    wallets: Told = []
    agents: Told = []
    let_in: str = ""
    closed: Annotated[dict[str, tuple[Lasted, int]], msgspec.Meta(max_length=MAX_SUMS)] = {}
    unseen: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    counted_ns: int | None = None
    blind_ns: Lasted = 0
    lost: Lasted = 0
    kin: Kin | None = None


def decide(s: Session, client: int) -> None:
    """A message says who the client is.  The majority holds: one forged message must not hide a miner.
    Where it turns, what was pending, held, in force and handed out was told by the wrong side."""
    if s.client == client:
        if s.lead < MOST_LEAD:
            s.lead += 1
    elif s.client is not None and s.lead:
        s.lead -= 1
    else:
        if s.client is not None:
            s.pending = [p for p in s.pending if p.direction == client]
            s.held = [h for h in s.held if h.direction != client]
            s.jobs, s.jobs_seen, s.first_job_ns, s.force = {}, 0, None, InForce()
            s.logged_in = False
            s.unseen, s.counted_ns, s.blind_ns, s.lost = 0.0, None, 0, 0
        s.client, s.lead = client, 1


def key_of(given: object) -> str | int | None:
    """An id as a key: equal only where JSON values are equal, and short.

    No client uses a list or an object; to write one out could go deeper than the interpreter's stack.
    """
    if given is None or (type(given) is int and -(2**63) <= given < 2**63):
        return given
    if isinstance(given, list | dict):
        return f"{type(given).__name__} of {len(given)}"
    told = "s" + given if type(given) is str else repr(given)
    return told if len(told) <= MAX_TEXT else f"{told[:MAX_TEXT]}#{len(told)}"


def text(value: object) -> str:
    """A name as sent, cut; "" for what is no text."""
    if type(value) is str:
        return value[:MAX_TEXT]
    return str(value)[:MAX_TEXT] if type(value) is int else ""


def job_id(reader: Reader, fields: dict[str, Any]) -> str:
    """The id of a job; one that is a header or its hash may come in either case (EthProxy, getwork), and Grin
    numbers the jobs of each height anew (``within``).  A block is of the template with its parent."""
    told = text(fields.get("job", ONLY))
    find = templates.NAMES.get(reader.id)
    if find is not None:
        return find(fields["job"])
    within = fields.get("within")
    if within is not None:
        told = f"{text(within)}/{told}"
    return told.lower() if told.startswith("0x") or reader.dialect == "getwork" else told


def acknowledges(ack: int | None, end: int | None) -> bool:
    """Whether ``ack`` covers all bytes before ``end``, modulo 2^32, and is not far beyond them; True where
    either is not known."""
    return ack is None or end is None or (ack - end) & WRAP <= FAR_BYTES


def named(s: Session, dropped: dict[str, int], login: str, worker: str, fields: dict[str, Any]) -> None:
    """Worker, wallet and agent of a login; ``wallet.worker``, ``+difficulty`` and ``/worker`` are split
    (reference 3.2, 7), the worker is kept as sent."""
    s.login = worker or login
    remember(dropped, s.workers, s.login)
    remember(dropped, s.workers, text(fields.get("rig")))
    wallet = login
    for mark in ".+/":
        wallet = wallet.partition(mark)[0]
    remember(dropped, s.wallets, wallet)
    remember(dropped, s.agents, text(fields.get("agent")))


def asked(s: Session, dropped: dict[str, int], user: str, agent: str) -> None:
    """A request over HTTP names its worker and its software in its head; kept where it mines."""
    s.login = user or s.login
    if s.shaped:
        if user:
            named(s, dropped, user, "", {})
        remember(dropped, s.agents, agent)


def remember(dropped: dict[str, int], names: list[str], name: str) -> None:
    """Keep a name once, within the bound."""
    if not name or name in names:
        return
    if len(names) >= MAX_NAMES:
        dropped["names"] += 1
        return
    names.append(name)


def bound_works(s: Session, keep: int) -> None:
    """Only the newest ``keep`` jobs hold what a header is built from; Stratum V2 bounds its own."""
    if not keep:
        s.force.blocks.clear()
    _bound_works(s.jobs, keep)


def _bound_works(jobs: dict[str, Job], keep: int) -> None:
    works = [job for job in jobs.values() if job.work is not None]
    for job in works[: max(0, len(works) - keep)]:
        job.work = None


def count(s: Session, dropped: dict[str, int], job: Job | None, t_ns: int) -> None:
    """Add a share of ``job`` that was accepted at ``t_ns`` to the sums."""
    value = None if job is None else job.difficulty if job.hashes is None else job.hashes
    if job is None or value is None:
        missed(s, 1.0)
        return
    if s.unseen:
        s.blind_ns = min(s.blind_ns + _unseen_ns(s, t_ns), MOST_NS)
        s.unseen = 0.0
    s.counted_ns = t_ns
    key = job.algorithm or ("" if job.hashes is None else "?")
    if key == "?" and s.kin is not None and s.proof.decided is None:
        s.kin.undecided.total += value
        s.kin.undecided.shares += 1
    else:
        add(s, dropped, key, value, 1)


def add(s: Session, dropped: dict[str, int], key: str, total: float, shares: int) -> None:
    """Add shares to the sum of ``key``, within the bound."""
    held = s.sums.get(key)
    if held is None:
        if len(s.sums) >= MAX_SUMS:
            dropped["sums"] += 1
            return
        held = s.sums[key] = Sum()
    held.total += total
    held.shares += shares


def missed(s: Session, shares: float) -> None:
    """So many shares, about, will be in no sum.  Before the first job nothing is expected."""
    if s.first_job_ns is not None:
        s.unseen = min(s.unseen + shares, 1e9)


def _unseen_ns(s: Session, t_ns: int) -> int:
    """Of the time since a share was counted, up to ``t_ns``, when one is: that of those between them."""
    since = max(s.counted_ns or 0, s.first_job_ns or 0)
    return int(max(0, t_ns - since) * (s.unseen / (s.unseen + 1))) if since else 0


def lost(s: Session, way: int, octets: int, said: int) -> None:
    """``octets`` of a direction were lost, behind ``said`` of it.  Of the client's, shares were among them as
    among the others; the server's may have been replies."""
    if s.client == way:
        if octets:
            heard = said - s.lost
            missed(s, octets * s.submits / heard if s.submits and heard > 0 else 1.0)
            s.lost += octets
        return
    for request in s.pending:
        request.doubtful = request.doubtful or request.direction != way


def harden(s: Session, job: Job) -> None:
    """Note the hardest job that was in force; a change of algorithm begins anew."""
    value = job.difficulty if job.hashes is None else job.hashes
    if job.algorithm is not None and job.algorithm != s.algorithm:
        s.hardest = None
    if value is not None:
        s.hardest = value if s.hardest is None else max(s.hardest, value)
        s.scaled = job.hashes is None


def hashes(s: Session) -> tuple[float | None, int, float | None]:
    """(expected hashes of the accepted shares, how many shares that are, the most that a share was worth).

    Only of the session's present algorithm: hashes of different algorithms are never added.  All None
    and 0 while the algorithm is not known.  The last bounds a silent miner from above: it is of the hardest
    job that was in force.
    """
    if s.algorithm is None:
        return None, 0, None
    held, waiting = s.sums.get(s.algorithm, NOTHING), s.sums.get("", NOTHING)
    if not held.shares and s.proof.decided == s.algorithm:
        held = s.sums.get("?", NOTHING)  # jobs told the target, shares the algorithm
    factor = algorithms.factor(s.algorithm)
    if factor is None:
        if s.scaled:
            return None, 0, None
        waiting, factor = NOTHING, 1.0
    most = None if s.hardest is None else s.hardest * (factor if s.scaled else 1.0)
    return held.total + waiting.total * factor, held.shares + waiting.shares, most


def change(s: Session, dropped: dict[str, int], algorithm: str | None, t_ns: int) -> None:
    """The session's jobs are of another algorithm from now on: close the time of the one before."""
    old = s.algorithm
    if old is None or algorithm is None or algorithm == old:
        return
    if old not in s.closed and len(s.closed) >= MAX_SUMS:
        dropped["sums"] += 1
    elif s.first_job_ns is not None:
        lasted, _ = s.closed.get(old, (0, 0))
        blind = s.blind_ns + _unseen_ns(s, t_ns)
        s.closed[old] = min(lasted + max(0, t_ns - s.first_job_ns - blind), MOST_NS), t_ns
    s.first_job_ns = t_ns
    s.unseen, s.blind_ns = 0.0, 0


def since_ns(s: Session, last_ns: int) -> int | None:
    """The time of the first job of the present algorithm, so much earlier as it was done before, and later as
    was not seen up to ``last_ns``."""
    if s.first_job_ns is None:
        return None
    since = s.first_job_ns + s.blind_ns + _unseen_ns(s, last_ns)
    return since if s.algorithm is None else since - s.closed.get(s.algorithm, (0, 0))[0]


def others(s: Session) -> tuple[Worked, ...]:
    """What was done of algorithms that are done no more."""
    out = []
    for algorithm, (lasted, last) in s.closed.items():
        if algorithm != s.algorithm:
            held = s.sums.get(algorithm, NOTHING)
            out.append(Worked(algorithm, held.total, held.shares, lasted, last))
    return tuple(out)
