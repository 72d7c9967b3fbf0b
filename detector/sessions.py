"""Messages of one connection in, what they tell of its miner out.

A session holds plain values only, so that a state record can carry it; every table in it has a bound.
``read`` is its verb: one line of one direction in; sights (what happened, for the observer to word) out.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from detector import algorithms
from detector.dialects import bitcoin, cryptonote, difficulty, ethereum, table
from detector.dialects.lines import read as read_line
from detector.dialects.messages import InForce, Job, Submit
from detector.dialects.replies import Verdict, verdict
from detector.dialects.table import Line, Reader
from detector.evidence import Shares
from detector.proof import Proof

MAX_JOBS: Final = 64
MAX_PENDING: Final = 64
MAX_HELD: Final = 32
MAX_HELD_BYTES: Final = 8 << 10
MAX_NAMES: Final = 64
MAX_TEXT: Final = 128
HALF: Final = 1 << 31
WRAP: Final = 0xFFFFFFFF

Sight = tuple[str, str, int, str]
"""Kind of evidence, rule, time (ns), and a detail: whose share, which job, the pool's words."""


class Sum(msgspec.Struct):
    """Accepted shares of one algorithm: ``total`` is of hashes, or of difficulties where only the
    algorithm will tell the hashes; ``least`` is the smallest of them."""

    total: float = 0.0
    shares: int = 0
    least: float | None = None

    def add(self, value: float) -> None:
        """Count one accepted share worth ``value``."""
        self.total += value
        self.shares += 1
        if self.least is None or value < self.least:
            self.least = value


class Pending(msgspec.Struct):
    """A request that waits for its reply.  ``end`` is the sequence number just behind it, where known.

    For a submit: worker, job and what was in force for that job when the share was sent.
    """

    id: str | int | None
    direction: int
    kind: str
    end: int | None
    t_ns: int
    dialect: str
    name: str = ""
    weak: bool = False
    job: str = ""
    known: Job | None = None
    share: Submit | None = None
    checked: bool = False


class Held(msgspec.Struct):
    """A reply that came before its request: two collectors, one direction each."""

    id: str | int | None
    direction: int
    ack: int | None
    t_ns: int
    line: bytes


class Counts(msgspec.Struct):
    """What the bounds of a session dropped, and what did not fit."""

    jobs: int = 0
    pending: int = 0
    held: int = 0
    names: int = 0
    unpaired: int = 0
    wrong_side: int = 0


class Session(msgspec.Struct):
    """All that one connection has told.  ``client`` is the direction whose source is the miner: 0 or 1;
    ``mining`` tells which directions sent a mining method."""

    client: int | None = None
    dialect: str = "mining"
    shaped: bool = False
    mining: list[bool] = msgspec.field(default_factory=lambda: [False, False])
    logged_in: bool = False
    polls: int = 0
    submits: int = 0
    jobs_seen: int = 0
    from_start: bool = False
    algorithm: str | None = None
    claimed: float | None = None
    first_job_ns: int | None = None
    reconnects: int = 0
    login: str = ""
    force: InForce = msgspec.field(default_factory=InForce)
    job_hashes: float | None = None
    job_difficulty: float | None = None
    shares: Shares = msgspec.field(default_factory=Shares)
    sums: dict[str, Sum] = {}
    proof: Proof = msgspec.field(default_factory=Proof)
    jobs: dict[str, Job] = {}
    pending: list[Pending] = []
    held: list[Held] = []
    workers: list[str] = []
    wallets: list[str] = []
    agents: list[str] = []
    counts: Counts = msgspec.field(default_factory=Counts)


class Arrival(msgspec.Struct, gc=False):
    """Where a line came: direction, time, sequence number behind it, acknowledgement beside it, and the
    next byte expected of the other direction; None where the protocol has no such numbers."""

    direction: int
    t_ns: int
    end: int | None
    ack: int | None
    reached: int | None


def _key(given: object) -> str | int | None:
    """An id as a key: equal only where JSON values are equal, and short."""
    if given is None:
        return None
    if type(given) is int and -(2**63) <= given < 2**63:
        return given
    text = "s" + given if type(given) is str else repr(given)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}#{len(text)}"


def _text(value: object) -> str:
    """A name as sent, cut; "" for what is no text."""
    if type(value) is str:
        return value[:MAX_TEXT]
    return str(value)[:MAX_TEXT] if type(value) is int else ""


def _job_id(reader: Reader, fields: dict[str, Any]) -> str:
    """The id of a job; EthProxy's is the header hash, whose hex may come in either case."""
    told = _text(fields["job"])
    return told.lower() if reader.dialect == "eth-proxy" else told


def acknowledges(ack: int | None, end: int | None) -> bool:
    """Whether ``ack`` covers all bytes before ``end``, modulo 2^32; True where either is not known."""
    return ack is None or end is None or (ack - end) & WRAP < HALF


class Engine:
    """Sessions' rules: the tables they read by, and how many shares of each are hashed (``sample``)."""

    def __init__(self, sample: int = 32) -> None:
        self.sample = sample
        self.table = table.load()
        self._acts: Final[dict[str, Callable[..., None]]] = {
            "subscribe": self._subscribe, "authorize": self._login, "login": self._login,
            "submit": self._submit, "poll": self._poll, "hashrate": self._hashrate,
            "configure": self._ask, "talk": self._talk, "job": self._job,
            "difficulty": self._difficulty, "target": self._talk, "extranonce": self._extranonce,
            "mask": self._mask, "reconnect": self._reconnect, "subscribed": self._extranonce,
            "configured": self._mask,
        }  # fmt: skip

    # -- lines in ----------------------------------------------------------------------------------

    def read(self, s: Session, at: Arrival, line: bytes, out: list[Sight]) -> str | None:
        """Take one line.  Raises LineError on one that cannot be read; gives the name of a message that
        no row knows (for the vetoes), else None."""
        said = read_line(line)
        name = self.table.name(said)
        if name is None:
            if "result" in said or "error" in said or "reject-reason" in said:
                self._reply(s, at, said, line, out)
            return None
        reader = self.table.called(name, said)
        if reader is None:
            return name
        client = at.direction if reader.row.side == "client" else 1 - at.direction
        if s.client is None:
            if not reader.weak:
                s.client = client
        elif s.client != client:
            s.counts.wrong_side += 1
            return None
        if not reader.weak:
            s.mining[at.direction] = True
        self._act(s, at, reader, said, out)
        if s.held and reader.row.side == "client":
            self._release(s, out)
        return None

    def _act(self, s: Session, at: Arrival, reader: Reader, said: Line, out: list[Sight]) -> None:
        if reader.dialect != "mining" and not reader.weak:
            s.dialect = reader.dialect
        if not reader.weak:
            s.shaped = True
        self._acts[reader.kind](s, at, reader, reader.fields(said), said, out)

    # -- the client's messages -----------------------------------------------------------------------

    def _ask(self, s: Session, at: Arrival, reader: Reader, fields: Any, said: Line, out: Any) -> None:
        """A request whose reply matters."""
        del fields, out
        self._wait(s, Pending(_key(said.get("id")), at.direction, reader.kind, at.end, at.t_ns, s.dialect))

    def _wait(self, s: Session, request: Pending) -> None:
        if len(s.pending) >= MAX_PENDING:
            del s.pending[0]
            s.counts.pending += 1
        s.pending.append(request)

    def _subscribe(
        self, s: Session, at: Arrival, reader: Reader, fields: dict[str, Any], said: Line, out: list[Sight]
    ) -> None:
        agent = _text(fields.get("agent"))
        self._remember(s, s.agents, agent)
        self._ask(s, at, reader, fields, said, out)
        out.append(("mining_request", reader.id, at.t_ns, agent))

    def _login(
        self, s: Session, at: Arrival, reader: Reader, fields: dict[str, Any], said: Line, out: list[Sight]
    ) -> None:
        login, worker = _text(fields.get("login")), _text(fields.get("worker"))
        if not reader.weak:
            self._named(s, login, worker, fields)
            out.append(("mining_request", reader.id, at.t_ns, worker or login))
        key = _key(said.get("id"))
        self._wait(
            s, Pending(key, at.direction, "login", at.end, at.t_ns, s.dialect, worker or login, reader.weak)
        )

    def _named(self, s: Session, login: str, worker: str, fields: dict[str, Any]) -> None:
        """Worker, wallet and agent of a login; ``wallet.worker``, ``+difficulty`` and ``/worker`` are split
        (reference 3.2, 7), the worker is kept as sent."""
        s.login = worker or login
        self._remember(s, s.workers, s.login)
        self._remember(s, s.workers, _text(fields.get("rig")))
        wallet = login
        for mark in ".+/":
            wallet = wallet.partition(mark)[0]
        self._remember(s, s.wallets, wallet)
        self._remember(s, s.agents, _text(fields.get("agent")))

    def _remember(self, s: Session, names: list[str], name: str) -> None:
        if not name or name in names:
            return
        if len(names) >= MAX_NAMES:
            s.counts.names += 1
            return
        names.append(name)

    def _submit(
        self, s: Session, at: Arrival, reader: Reader, fields: dict[str, Any], said: Line, out: list[Sight]
    ) -> None:
        s.submits += 1
        worker = _text(fields.get("worker"))
        if worker:
            self._remember(s, s.workers, worker)
        else:
            worker = s.login
        job = _job_id(reader, fields)
        request = Pending(_key(said.get("id")), at.direction, "submit", at.end, at.t_ns, s.dialect, worker)
        request.job, request.known = job, s.jobs.get(job)
        if reader.dialect == "btc-v1" and s.proof.wants(self.sample):
            request.share = bitcoin.share(fields, s.force)
        out.append(("share", reader.id, at.t_ns, worker))
        self._verify(s, request, at.t_ns, out)
        self._wait(s, request)

    def _poll(
        self, s: Session, at: Arrival, reader: Reader, fields: Any, said: Line, out: list[Sight]
    ) -> None:
        """One look for work is a scanner's; two are a miner's (reference section 6)."""
        del fields
        s.polls += 1
        if s.polls >= 2:
            s.shaped, s.dialect = True, reader.dialect
            if s.client is None:
                s.client = at.direction
            out.append(("mining_request", reader.id, at.t_ns, ""))
        self._wait(s, Pending(_key(said.get("id")), at.direction, "poll", at.end, at.t_ns, reader.dialect))

    def _hashrate(self, s: Session, at: Any, reader: Any, fields: dict[str, Any], *rest: Any) -> None:
        del at, reader, rest
        claimed = ethereum.claimed(fields.get("claimed"))
        if claimed is not None:
            s.claimed = claimed

    def _talk(self, *given: Any) -> None:
        """Part of a dialect, nothing to note."""

    # -- the server's messages -----------------------------------------------------------------------

    def _difficulty(self, s: Session, at: Any, reader: Any, fields: dict[str, Any], *rest: Any) -> None:
        del at, reader, rest
        told = difficulty.number(fields.get("difficulty"))
        if told is not None:
            s.force.difficulty = told

    def _extranonce(self, s: Session, at: Any, reader: Any, fields: dict[str, Any], *rest: Any) -> None:
        del at, reader, rest
        given = fields.get("extranonce1")
        if type(given) is str and len(given) <= 64:
            s.force.extranonce1 = given

    def _mask(self, s: Session, at: Any, reader: Any, fields: dict[str, Any], *rest: Any) -> None:
        del at, reader, rest
        s.force.mask = int(fields["mask"], 16)

    def _reconnect(self, s: Session, *given: Any) -> None:
        del given
        s.reconnects += 1

    def _job(
        self, s: Session, at: Arrival, reader: Reader, fields: dict[str, Any], said: Line, out: list[Sight]
    ) -> None:
        del said
        fields["job"] = _job_id(reader, fields)
        if s.force.difficulty is None and s.from_start:
            s.force.difficulty = 1.0  # cpuminer, cgminer and EthereumStratum/1.0.0 begin so
        dialect = self.table.dialects[reader.dialect]
        job = _PARSERS[dialect.parser](fields, s.force)
        if job.algorithm is None:
            job.algorithm = dialect.algorithm
        s.algorithm = job.algorithm or s.algorithm
        s.job_hashes, s.job_difficulty = job.hashes, job.difficulty
        if not s.proof.wants(self.sample):
            job.work = None
        s.jobs.pop(job.id, None)
        s.jobs[job.id] = job
        if len(s.jobs) > MAX_JOBS:
            del s.jobs[next(iter(s.jobs))]
            s.counts.jobs += 1
        s.jobs_seen += 1
        if s.first_job_ns is None:
            s.first_job_ns = at.t_ns
        out.append(("job", reader.id, at.t_ns, job.id))
        if s.logged_in:
            out.append(("mining_session", s.dialect, at.t_ns, s.login))

    # -- replies -------------------------------------------------------------------------------------

    def _reply(self, s: Session, at: Arrival, said: Line, line: bytes, out: list[Sight]) -> None:
        if s.client == at.direction:
            return  # the client answers client.get_version and the like
        key = _key(said.get("id"))
        request = self._pair(s, key, at)
        result = said.get("result")
        reader = None
        if type(result) is list or type(result) is dict:
            reader = self.table.replied(said, None if request is None else request.kind)
        ahead = request is None and self._ahead(at)
        if ahead:
            self._hold(s, Held(key, at.direction, at.ack, at.t_ns, line))
        if reader is not None:
            self._shaped(s, at, reader, said, request, out)
        if request is not None:
            self._answered(s, at, request, said, reader, out)
        elif reader is None and not ahead:
            s.counts.unpaired += 1

    def _shaped(
        self, s: Session, at: Arrival, reader: Reader, said: Line, request: Pending | None, out: list[Sight]
    ) -> None:
        """A reply that its shape alone tells: work, the first job, a subscription."""
        polled = request is not None and request.kind == "poll"
        if polled and s.polls < 2 and not s.logged_in and not s.submits:
            return
        if s.client is None:
            s.client = 1 - at.direction
        self._act(s, at, reader, said, out)

    def _pair(self, s: Session, key: str | int | None, at: Arrival) -> Pending | None:
        """The oldest request of that id, if the reply acknowledges it; ids are reused (reference 1.1)."""
        for i, request in enumerate(s.pending):
            if request.id == key and request.direction != at.direction:
                if not acknowledges(at.ack, request.end):
                    return None
                del s.pending[i]
                return request
        return None

    def _ahead(self, at: Arrival) -> bool:
        """Whether the reply acknowledges bytes that have not come yet, so its request may still."""
        if at.ack is None or at.reached is None:
            return True
        return 0 < (at.ack - at.reached) & WRAP < HALF

    def _hold(self, s: Session, reply: Held) -> None:
        if len(reply.line) > MAX_HELD_BYTES:
            s.counts.held += 1
            return
        if len(s.held) >= MAX_HELD:
            del s.held[0]
            s.counts.held += 1
        s.held.append(reply)

    def _release(self, s: Session, out: list[Sight]) -> None:
        """Pair what was held with the request that has just come."""
        for reply in s.held:
            if reply.direction != s.client:
                at = Arrival(reply.direction, reply.t_ns, None, reply.ack, None)
                request = self._pair(s, reply.id, at)
                if request is not None:
                    s.held.remove(reply)
                    at.t_ns = max(reply.t_ns, request.t_ns)
                    self._answered(s, at, request, read_line(reply.line), None, out)
                    return

    def _answered(
        self,
        s: Session,
        at: Arrival,
        request: Pending,
        said: Line,
        reader: Reader | None,
        out: list[Sight],
    ) -> None:
        told = verdict(said, self.table)
        if request.kind == "submit":
            self._judged(s, at, request, told, out)
        elif request.kind == "login":
            self._let_in(s, at, request, told, said, out)
        elif reader is None and request.kind in {"subscribe", "configure"}:
            late = self.table.replied(said, request.kind)
            if late is not None:
                self._act(s, at, late, said, out)

    def _let_in(
        self, s: Session, at: Arrival, request: Pending, told: Verdict, said: Line, out: list[Sight]
    ) -> None:
        """Errata A7: an accepted login may answer with any token; only false, null or an error refuse."""
        accepted = told.accepted
        if accepted is None and said.get("result") is not None:
            accepted = True
        if accepted:
            s.logged_in = True
            if request.weak and s.jobs_seen:
                self._named(s, request.name, "", {})  # a plain login that got a job is a miner's
            if s.jobs_seen:
                out.append(("mining_session", s.dialect, at.t_ns, request.name))
        elif accepted is False and not request.weak:
            words = told.words or ("" if told.code is None else f"code {told.code}")
            out.append(("login_refused", s.dialect, at.t_ns, f"{request.name}\n{words}"))

    # -- shares --------------------------------------------------------------------------------------

    def _judged(self, s: Session, at: Arrival, request: Pending, told: Verdict, out: list[Sight]) -> None:
        if told.accepted:
            s.shares.accepted += 1
            if request.known is None:
                request.known = s.jobs.get(request.job)
            self._verify(s, request, at.t_ns, out)
            self._count(s, request.known)
            out.append(("share_accepted", request.dialect, at.t_ns, request.name))
        elif told.accepted is False:
            if self.table.stale(told.code, told.words):
                s.shares.stale += 1
            else:
                s.shares.rejected += 1

    def _count(self, s: Session, job: Job | None) -> None:
        if job is None:
            return
        value = job.difficulty if job.hashes is None else job.hashes
        if value is None:
            return
        key = job.algorithm or ("" if job.hashes is None else "?")
        if key not in s.sums and len(s.sums) >= 8:
            s.counts.jobs += 1
            return
        s.sums.setdefault(key, Sum()).add(value)

    def _verify(self, s: Session, request: Pending, t_ns: int, out: list[Sight]) -> None:
        job = request.known
        if request.checked or request.share is None or job is None or job.work is None:
            return
        if job.difficulty is None or not s.proof.wants(self.sample):
            return
        request.checked = True
        before = s.proof.decided
        found = s.proof.check(job.work, request.share, job.difficulty, t_ns)
        s.shares.verified = s.proof.verified
        if s.proof.decided is not None and found == s.proof.decided:
            s.algorithm = found
            new = s.proof.verified if before is None else 1
            detail = f"{request.name}\n{found}\n{job.difficulty:g}\n{new}"
            out.append(("share_verified", request.dialect, t_ns, detail))


_PARSERS: Final[dict[str, Callable[[dict[str, Any], InForce], Job]]] = {
    "bitcoin": bitcoin.job,
    "cryptonote": cryptonote.job,
    "ethereum": ethereum.job,
}


def hashes(s: Session) -> tuple[float | None, int, float | None]:
    """(expected hashes of the accepted shares, how many shares that are, the least of a share).

    Only of the session's present algorithm: hashes of different algorithms are never added.  All None
    and 0 while the algorithm is not known.  Without an accepted share the least is that of the last job.
    """
    if s.algorithm is None:
        return None, 0, None
    held, factor = s.sums.get(s.algorithm), 1.0
    job = s.job_hashes
    if "" in s.sums or s.job_difficulty is not None:
        of = algorithms.factor(s.algorithm)
        if of is None:
            return None, 0, None
        held, factor = s.sums.get(""), of
        job = s.job_difficulty
    if held is None:
        return 0.0, 0, None if job is None else job * factor
    least = None if held.least is None else held.least * factor
    return held.total * factor, held.shares, least
