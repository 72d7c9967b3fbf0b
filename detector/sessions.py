"""Messages of one connection in, what they tell of its miner out.

``Engine.read`` is the verb: one line of one direction into the ledger of its session; sights (what happened,
for the observer to word) out.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from detector import algorithms, handing, kinship, ledger, pairing
from detector.dialects import difficulty, ethereum, shapes, table
from detector.dialects.lines import LineError
from detector.dialects.lines import read as read_line
from detector.dialects.replies import ACCEPTED, Verdict, key, plain, verdict
from detector.dialects.table import Line, Reader
from detector.kinship import NOBODY, Asker
from detector.ledger import DROPS, Held, Pending, Session
from detector.pairing import Arrival

Sight = tuple[str, str, int, tuple[str, ...]]
"""Kind of evidence, rule, time (ns), and details: whose share, which job, the pool's words."""


_MINER: Final = shapes.word("agent")


class Engine:
    """Sessions' rules: the tables they read by, how many shares of each are hashed (``sample``), and what
    was dropped over all sessions, by ``ledger.DROPS``."""

    def __init__(self, sample: int = 32) -> None:
        self.sample = sample
        self.dropped: Final = dict.fromkeys(DROPS, 0)
        self.table, self._agent = table.load(), ""
        self._acts: Final[dict[str, Callable[..., None]]] = {
            "subscribe": self._subscribe, "authorize": self._login, "login": self._login,
            "submit": self._submit, "poll": self._poll, "hashrate": self._hashrate,
            "configure": self._ask, "talk": self._talk, "job": self._job,
            "difficulty": self._difficulty, "target": self._target, "extranonce": self._extranonce,
            "mask": self._mask, "reconnect": self._reconnect, "subscribed": self._extranonce,
            "configured": self._mask, "admitted": self._admitted, "answer": self._talk,
            "batch": self._batch,
        }  # fmt: skip

    # -- lines in ----------------------------------------------------------------------------------

    def read(
        self, s: Session, at: Arrival, line: bytes, out: list[Sight], asker: Asker = NOBODY
    ) -> str | None:
        """Take one line.  Raises LineError on one that cannot be read; gives the name of a message that no
        row knows (for the vetoes), else None.  ``asker``: of the HTTP request around it."""
        said, polls, self._agent = read_line(line), s.polls, asker.agent
        if asker is NOBODY:
            return self._read(s, at, line, said, out)
        kinship.meet(s, at.t_ns, asker)
        ledger.asked(s, self.dropped, asker.user, asker.agent)
        name = self._read(s, at, line, said, out)
        kinship.part(s, at.t_ns, asker, polls, self.dropped)
        return name

    def _read(self, s: Session, at: Arrival, line: bytes, said: Line, out: list[Sight]) -> str | None:
        for share in pairing.settled(s, at) if s.dialect in self.table.silent else ():
            self._judged(s, at, share, ACCEPTED, out)
        name = self.table.name(said)
        reader = None if name is None else self.table.called(name, said, s.dialect)
        if reader is None:
            if name is not None and "\x00" not in name:
                return name
            if "result" in said or "error" in said or "reject-reason" in said or s.dialect in self.table.bare:
                self._reply(s, at, said, line, out)
            return None
        client = at.direction if reader.client else 1 - at.direction
        if reader.decides:
            ledger.decide(s, client)
        if s.client is not None and s.client != client:
            self.dropped["wrong_side"] += 1
            return None
        if not reader.weak:
            s.mining[at.direction] = True
        self._act(s, at, reader, said, out)
        if reader.kind == "answer":
            reply = plain(reader.fields(said), reader.row.says)
            self._reply(s, at, reply, msgspec.json.encode(reply), out, reader.row.answers)
        elif reader.row.answers and (request := pairing.pair(s, self.dropped, None, at, reader.row.answers)):
            self._let_in(s, at, request, ACCEPTED, said, True, out)
        if reader.client:
            s.heard += 1
            if s.held:
                self._release(s, out)
        return None

    def mines(self, line: bytes) -> bool:
        """Whether a quoted line is a mining message or a reply."""
        try:
            said = read_line(line)
        except LineError:
            return False
        name = self.table.name(said)
        if name is None:
            return "id" in said and ("result" in said or "error" in said)
        return self.table.called(name, said) is not None

    def _act(self, s: Session, at: Arrival, reader: Reader, said: Line, out: list[Sight]) -> None:
        if not reader.weak:
            s.shaped = True
            if not self.table.is_of(s.dialect, reader):
                handing.turned(s, reader.dialect)
        self._acts[reader.kind](s, at, reader, reader.fields(said), said, out)

    # -- the client's messages -----------------------------------------------------------------------

    def _ask(self, s: Session, at: Arrival, reader: Reader, fields: Any, said: Line, out: Any) -> None:
        """A request whose reply matters."""
        del fields, out
        name = ledger.key_of(said.get("id"))
        self._wait(s, Pending(name, at.direction, reader.kind, at.end, at.t_ns, s.dialect))

    def _wait(self, s: Session, request: Pending) -> None:
        pairing.wait(s, self.dropped, request)

    def _subscribe(self, s: Session, at: Arrival, reader: Reader, fields: Any, said: Line, out: Any) -> None:
        agent = ledger.text(fields.get("agent"))
        ledger.remember(self.dropped, s.agents, agent)
        self._ask(s, at, reader, fields, said, out)
        out.append((kind_of("mining_request", reader.unverified), reader.id, at.t_ns, (agent,)))

    def _login(
        self, s: Session, at: Arrival, reader: Reader, fields: dict[str, Any], said: Line, out: list[Sight]
    ) -> None:
        login, worker = ledger.text(fields.get("login")), ledger.text(fields.get("worker"))
        if not reader.weak:
            ledger.named(s, self.dropped, login, worker, fields)
            kind = kind_of("mining_request", reader.unverified)
            out.append((kind, reader.id, at.t_ns, (worker or login,)))
        if "claimed" in fields:
            self._hashrate(s, at, reader, fields)
        name = ledger.key_of(said.get("id"))
        self._wait(
            s, Pending(name, at.direction, "login", at.end, at.t_ns, s.dialect, worker or login, reader.weak)
        )

    def _submit(self, s: Session, at: Arrival, reader: Reader, fields: Any, said: Line, out: Any) -> None:
        s.submits += 1
        worker = ledger.text(fields.get("worker"))
        if not worker:
            worker = s.login
        elif worker not in s.workers:
            ledger.remember(self.dropped, s.workers, worker)
        job = ledger.job_id(reader, fields)
        mute = reader.weak and s.dialect != reader.dialect
        dialect = self.table.dialects.get(s.dialect)
        request = Pending(
            ledger.key_of(said.get("id")), at.direction, "submit", at.end, at.t_ns,
            "" if mute else s.dialect, worker, reader.unverified, job,
            handing.find(s, dialect, job),
        )  # fmt: skip
        if dialect is not None:
            handing.told(s, dialect, fields, request)
        share = handing.SHARES.get(reader.dialect)
        if share is not None and s.proof.wants(self.sample):
            request.share = share(fields, s.force)
        if not mute:
            out.append((kind_of("share", reader.unverified), reader.id, at.t_ns, (worker,)))
        if request.share is not None:
            self._verify(s, request, at.t_ns, out)
        self._wait(s, request)

    def _poll(self, s: Session, at: Arrival, reader: Reader, fields: Any, said: Line, out: Any) -> None:
        """One look for work is a scanner's, two are a miner's (reference section 6); explorers look often."""
        s.polls += reader.row.polls > 0
        if reader.row.software and _MINER(self._agent):
            s.polls = max(s.polls, 2)
        if s.polls >= 2:
            s.shaped, s.dialect = True, reader.dialect
            ledger.named(s, self.dropped, ledger.text(fields.get("login")) or s.login, "", {})
            s.client = at.direction if s.client is None else s.client
            out.append(("mining_request", reader.id, at.t_ns, ("",)))
        name = ledger.key_of(said.get("id"))
        self._wait(s, Pending(name, at.direction, "poll", at.end, at.t_ns, reader.dialect))

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
            s.force.difficulty, s.force.hashes = told, None

    def _target(self, s: Session, at: Any, reader: Any, fields: dict[str, Any], *rest: Any) -> None:
        """A target, as hexadecimal number or (Aleo) as what a share is worth; EIP-1571 tells more with it."""
        told = fields.get("boundary")
        worth = difficulty.boundary(told) if type(told) is str else difficulty.number(told)
        if worth is not None:
            s.force.difficulty, s.force.hashes = None, worth
        self._extranonce(s, at, reader, fields, *rest)

    def _extranonce(self, s: Session, at: Any, reader: Any, fields: dict[str, Any], *rest: Any) -> None:
        del at, reader, rest
        given = fields.get("extranonce1")
        if type(given) is str and len(given) <= 64:
            s.force.extranonce1 = given
        algorithm = algorithms.canonical(fields.get("algorithm"))
        if algorithm is not None:
            s.force.algorithm = algorithm

    def _mask(self, s: Session, at: Any, reader: Any, fields: dict[str, Any], *rest: Any) -> None:
        del at, reader, rest
        s.force.mask = int(fields["mask"], 16)

    def _reconnect(self, s: Session, *given: Any) -> None:
        del given
        s.reconnects += 1

    def _admitted(self, s: Session, at: Arrival, reader: Any, fields: dict[str, Any], *rest: Any) -> None:
        """The pool lets its client in by a message of its own (Iron Fish)."""
        self._extranonce(s, at, reader, fields, *rest)
        s.logged_in = True

    def _job(
        self, s: Session, at: Arrival, reader: Reader, fields: dict[str, Any], said: Line, out: list[Sight]
    ) -> None:
        del said
        if "job" in fields:
            fields["job"] = ledger.job_id(reader, fields)
        name = s.dialect if self.table.bases.get(s.dialect) == reader.dialect else reader.dialect
        made = handing.jobs(s, self.table, self.table.dialects[name], fields)
        for job in made:
            handing.file(s, self.dropped, job, at.t_ns)
            # What a share of this job is worth must be known: else its shares are not counted, nor its time.
            if s.first_job_ns is None and (job.hashes is not None or job.difficulty is not None):
                s.first_job_ns = at.t_ns
        ledger.bound_works(s, ledger.MAX_WORKS if s.proof.wants(self.sample) else 0)
        s.jobs_seen += 1
        if s.let_in and not s.logged_in:
            s.logged_in = True
            ledger.named(s, self.dropped, s.let_in, "", {})
        if not made or (reader.weak and s.dialect != reader.dialect):
            return
        out.append((kind_of("job", reader.unverified), reader.id, at.t_ns, (made[0].id,)))
        if s.logged_in and not reader.unverified:
            out.append(("mining_session", s.dialect, at.t_ns, (s.login,)))

    # -- replies -------------------------------------------------------------------------------------

    def _reply(
        self, s: Session, at: Arrival, said: Line, line: bytes, out: list[Sight], kinds: Any = ()
    ) -> None:
        if s.client == at.direction and s.lead:
            return  # the client answers client.get_version and the like
        name = ledger.key_of(key(said))
        request = pairing.pair(s, self.dropped, name, at, kinds)
        result = said.get("result")
        if result is True and request is not None and request.kind == "submit":
            self._judged(s, at, request, ACCEPTED, out)
            return
        reader = None
        if type(result) is list or type(result) is dict:
            reader = self.table.replied(said, None if request is None else request.kind)
        ahead = request is None and pairing.is_ahead(at)
        if ahead and (reader is None or type(result) is dict or reader.kind != "job"):
            pairing.hold(s, self.dropped, Held(name, at.direction, at.ack, at.t_ns, line))
        if reader is not None:
            self._shaped(s, at, reader, said, request, out)
        if request is not None:
            self._answered(s, at, request, said, reader, out)
        elif reader is None and not ahead:
            self.dropped["unpaired"] += 1

    def _shaped(
        self, s: Session, at: Arrival, reader: Reader, said: Line, request: Pending | None, out: list[Sight]
    ) -> None:
        """A reply that its shape alone tells: work, the first job, a subscription."""
        if reader.row.context and s.dialect != reader.dialect and s.polls < 2:
            pushed = request is None and said.get("id") == 0
            if not pushed:
                return
        if request is not None and reader.kind == "job":
            ledger.decide(s, request.direction)
        elif s.client is None:
            s.client = 1 - at.direction
        if s.client == at.direction:
            return
        self._act(s, at, reader, said, out)

    def _release(self, s: Session, out: list[Sight]) -> None:
        """Pair what was held with the request that has just come."""
        for reply in s.held:
            if reply.direction != s.client:
                at = Arrival(reply.direction, reply.t_ns, None, reply.ack, None)
                request = pairing.pair(s, self.dropped, reply.id, at)
                if request is not None:
                    s.held.remove(reply)
                    at.t_ns = max(reply.t_ns, request.t_ns)
                    self._late(s, at, request, read_line(reply.line), out)
                    return

    def _late(self, s: Session, at: Arrival, request: Pending, said: Line, out: list[Sight]) -> None:
        reader = self.table.replied(said, request.kind)
        if reader is not None and reader.kind in {"subscribed", "configured"}:
            self._act(s, at, reader, said, out)
        self._answered(s, at, request, said, reader, out)

    def _answered(
        self, s: Session, at: Arrival, request: Pending, said: Line, reader: Reader | None, out: list[Sight]
    ) -> None:
        told = verdict(said, self.table, s.dialect)
        if request.kind == "submit":
            self._judged(s, at, request, told, out)
        elif request.kind == "login":
            first_job = reader is not None and reader.kind == "job"
            self._let_in(s, at, request, told, said, first_job, out)

    def _let_in(
        self,
        s: Session,
        at: Arrival,
        request: Pending,
        told: Verdict,
        said: Line,
        first_job: bool,
        out: list[Sight],
    ) -> None:
        """Errata A7: an accepted login may answer with any token; only false, null or an error refuse.

        A plain login, as any service has it, was a miner's only if the first job came with the reply.
        """
        if request.weak and not first_job:
            if told.accepted is not False and not s.jobs_seen:
                s.let_in = request.name  # a job may come by itself
            return
        if told.accepted is None and said.get("result") is None:
            return
        if told.accepted is False:
            words = told.words or ("" if told.code is None else f"code {told.code}")
            out.append(("login_refused", s.dialect, at.t_ns, (request.name, words)))
            return
        s.logged_in = s.mining[at.direction] = True
        if request.weak:
            ledger.named(s, self.dropped, request.name, "", {})
        if s.jobs_seen:
            out.append(("mining_session", s.dialect, at.t_ns, (request.name,)))

    # -- shares --------------------------------------------------------------------------------------

    def _judged(self, s: Session, at: Arrival, request: Pending, told: Verdict, out: list[Sight]) -> None:
        if told.accepted:
            if request.dialect:
                s.mining[at.direction] = True
            s.shares.accepted += 1
            if request.known is None:
                request.known = handing.find(s, None, request.job)
            if request.share is not None:
                self._verify(s, request, at.t_ns, out)
            ledger.count(s, self.dropped, request.known, at.t_ns)
            if request.dialect:
                kind = kind_of("share_accepted", request.weak)
                out.append((kind, request.dialect, at.t_ns, (request.name,)))
        elif told.accepted is False:
            if self.table.stale(told.code, told.words, s.dialect):
                s.shares.stale += 1
            else:
                s.shares.rejected += 1

    def _batch(self, s: Session, at: Arrival, reader: Any, fields: Any, said: Any, out: list[Sight]) -> None:
        for request in pairing.batch(s, at, fields):
            self._judged(s, at, request, ACCEPTED, out)

    def _verify(self, s: Session, request: Pending, t_ns: int, out: list[Sight]) -> None:
        job, share = request.known, request.share
        if share is None or job is None or not s.proof.wants(self.sample):
            return
        if job.hashes is None if share.header else job.work is None or job.difficulty is None:
            return
        request.share, request.known = None, msgspec.structs.replace(job, work=None)
        before = s.proof.decided
        found = s.proof.check(job.work, share, job.difficulty, t_ns, job.hashes)
        if s.proof.decided is not None and found == s.proof.decided:
            s.algorithm = found
            new = s.proof.verified if before is None else 1
            s.shares.verified += new
            told = job.difficulty or (job.hashes or 0.0) / (algorithms.factor(found) or 1.0)
            details = (request.name, found, f"{told:g}", str(new))
            out.append(("share_verified", request.dialect, t_ns, details))


def kind_of(kind: str, unverified: bool) -> str:
    """The kind of evidence: a form that rests on memory weighs less, whatever it tells."""
    return "unverified" if unverified else kind
