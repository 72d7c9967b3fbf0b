"""What lines of one form do to a session, the same as ``sessions.Engine`` would, at a quarter of the cost.

``repeats`` finds them out; of binary messages ``messages`` knows them.  Each leaves to the engine whatever is
not plainly so.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from collectors.masking import FRAME
from detector import handing, kinship, ledger, pairing
from detector.clock import MINUTE_NS
from detector.dialects.table import Dialect, Reader
from detector.ledger import HALF, MOST_LEAD, WRAP, Pending
from detector.observers.telling import Step
from detector.sessions import Engine, kind_of
from detector.transports.apart import MARK, PACKED
from detector.transports.heads import Head
from detector.transports.unwrapping import FRAMES, GZIP, HTTP, PLAIN

Form = Callable[[bytes, bytes, int, int], bytes]
"""Of octets as they came, the same with frames unmasked, and where of them a row begins and ends: what it
goes by, nothing where it is to be read."""
Where = int | None
"""Where among a line's slots a value begins; None where it is the same in all lines of the form."""

Slots = Sequence[int]
Id = str | int | None


class Plan:
    """What lines of one form do."""

    __slots__ = ()

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """Do it, of the line that ends at the sequence number ``end``: its values are in ``told`` where
        ``slots`` say from ``first`` on.  The sight that it is, or True for none; False where nothing was done
        and the engine is to read it."""
        del step, way, t_ns, ack, end, told, slots, first
        return False


class Plans(dict[bytes, Plan]):
    """Plans by form, for sessions of one dialect whose lines come in one ``mode`` of ``unwrapping``;
    ``idle``: only of such as say nothing.  ``form`` gives what a row goes by where that is not the form that
    ``collectors.masking`` made."""

    __slots__ = ("dialect", "form", "idle", "mode")

    def __init__(
        self, dialect: str, mode: int = PLAIN, *, idle: bool = False, form: Form | None = None
    ) -> None:
        super().__init__()
        self.dialect, self.mode, self.idle, self.form = dialect, mode, idle, form


BEGINS: Final = {FRAME: FRAMES, MARK: HTTP, PACKED: GZIP}
"""The modes of forms by what they begin with; of all others PLAIN."""
NO_PLAN: Final = Plan()
UNUSUAL: Final = Plans("")
"""Of a connection whose lines are the engine's."""


class Named(NamedTuple):
    """An id or a name: at a slot, or ``always`` the same; an id is a number or, marked "s", a text."""

    where: Where
    always: Any
    is_number: bool = False


class Submitted(Plan):
    """A share is handed in, as ``Engine.read`` takes it where none is to be hashed."""

    __slots__ = (
        "algorithm", "always", "dialect", "engine", "find", "id", "is_number", "job", "job_always", "kind",
        "reader", "rule", "samples", "within", "worker", "worker_always",
    )  # fmt: skip

    def __init__(self, engine: Engine, reader: Reader, dialect: Dialect | None, named: Named) -> None:
        self.engine, self.reader, self.dialect = engine, reader, dialect
        self.id, self.always, self.is_number = named
        self.kind, self.rule = kind_of("share", reader.unverified), reader.id
        self.samples = reader.dialect in handing.SHARES
        self.algorithm: str | None = None
        self.job: Where = None
        self.worker: Where = None
        self.job_always = self.worker_always = ""
        self.within: Named | None = None
        self.find: Callable[[str], str] | None = None

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``."""
        s, job, worker = step.track.session, self.job, self.worker
        if s.client != way or s.held or (self.samples and s.proof.wants(self.engine.sample)):
            return False
        name = self.always
        if self.id is not None:
            at = first + self.id
            value = told[slots[at] : slots[at + 1]]
            name = int(value) if self.is_number else "s" + value.decode()
        whose = self.worker_always
        if worker is not None:
            whose = told[slots[first + worker] : slots[first + worker + 1]].decode()
        which = self.job_always
        if job is not None:
            which = told[slots[first + job] : slots[first + job + 1]].decode()
        if self.within is not None:
            where, before, _ = self.within
            if where is not None:
                before = told[slots[first + where] : slots[first + where + 1]].decode()
            which = f"{before}/{which}"
        if self.find is not None:
            which = self.find(which)
        elif which[:2] == "0x":
            which = which.lower()
        return self.hand_in(step, way, t_ns, end, name, whose, which)

    def hand_in(self, step: Step, way: int, t_ns: int, end: int, name: Id, whose: str, which: str) -> Any:
        """A share of that id, worker ("" for none) and job, of a session that ``take`` does not leave to the
        engine."""
        s, reader, engine = step.track.session, self.reader, self.engine
        if not whose:
            whose = s.login
        elif whose not in s.workers:
            ledger.remember(engine.dropped, s.workers, whose)
        known = handing.find(s, self.dialect, which)
        request = Pending(name, way, "submit", end, t_ns, s.dialect, whose, reader.unverified, which, known)
        if self.algorithm is not None and self.dialect is not None:
            handing.takes(s, self.dialect, self.algorithm, request)
        if not reader.weak:
            s.mining[way] = s.shaped = True
            if s.lead < MOST_LEAD:
                s.lead += 1
        s.submits += 1
        s.heard += 1
        pairing.wait(s, engine.dropped, request)
        fresh = step.now.fresh.get((self.kind, self.rule, t_ns // MINUTE_NS))
        if fresh is None:
            return self.kind, self.rule, t_ns, (whose,)
        fresh.again(t_ns)
        step.missed = 0
        return True


class Accepted(Plan):
    """The pool accepts the share that has waited longest; ``says``: by a message that has a name.  Where none
    waits it is ``otherwise``."""

    __slots__ = ("always", "engine", "id", "is_number", "otherwise", "says")

    def __init__(self, engine: Engine, named: Named, otherwise: Plan, *, says: bool) -> None:
        self.engine, self.otherwise, self.says = engine, otherwise, says
        self.id, self.always, self.is_number = named

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``."""
        s = step.track.session
        if s.client != 1 - way or not s.pending:
            return self.otherwise.take(step, way, t_ns, ack, end, told, slots, first)
        name = self.always
        if self.id is not None:
            at = first + self.id
            value = told[slots[at] : slots[at + 1]]
            name = int(value) if self.is_number else "s" + value.decode()
        return self.accept(step, way, t_ns, ack, name)

    def accept(self, step: Step, way: int, t_ns: int, ack: int, name: Id) -> Any:
        """The request that has waited longest, if that is its id."""
        s = step.track.session
        request = s.pending[0]
        if request.id != name or request.direction == way or request.kind != "submit":
            return False
        if request.doubtful or not ledger.acknowledges(ack, request.end):
            return False
        return self.count(step, way, t_ns, 0)

    def count(self, step: Step, way: int, t_ns: int, index: int) -> Any:
        """The share that waits there is accepted; where it is to be hashed nothing is done."""
        s = step.track.session
        request = s.pending[index]
        if request.share is not None:
            return False
        del s.pending[index]
        if self.says:
            s.mining[way] = s.shaped = True
        s.shares.accepted += 1
        if request.known is None:
            request.known = handing.find(s, None, request.job)
        ledger.count(s, self.engine.dropped, request.known, t_ns)
        if not request.dialect:
            return True
        s.mining[way] = True
        kind = "unverified" if request.weak else "share_accepted"
        fresh = step.now.fresh.get((kind, request.dialect, t_ns // MINUTE_NS))
        if fresh is None:
            return kind, request.dialect, t_ns, (request.name,)
        fresh.again(t_ns)
        step.missed = 0
        return True


class Unknown(Plan):
    """A message that no row knows; ``vetoes``: some row says what the connection is instead."""

    __slots__ = ("vetoes",)

    def __init__(self, *, vetoes: bool) -> None:
        self.vetoes = vetoes

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``."""
        track = step.track
        if self.vetoes and track.vetoed is None and not track.session.mining[way]:
            return False
        step.missed = 0
        return True


class Unanswered(Plan):
    """A reply (``replies``) to a request that did not come and will not; or what is neither message nor
    reply, wherever it comes."""

    __slots__ = ("always", "engine", "id", "is_number", "replies")

    def __init__(self, engine: Engine, named: Named, *, replies: bool) -> None:
        self.engine, self.replies = engine, replies
        self.id, self.always, self.is_number = named

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``."""
        track = step.track
        s = track.session
        if track.vetoed is not None and s.mining[track.vetoed]:
            return False  # which lifts the veto
        step.missed = 0
        if not self.replies or (s.client == way and s.lead):
            return True
        reached = track.sides[1 - way].reached
        if reached is None or 0 < (ack - reached) & WRAP < HALF:
            return False
        if s.pending:
            name = self.always
            if self.id is not None:
                at = first + self.id
                value = told[slots[at] : slots[at + 1]]
                name = int(value) if self.is_number else "s" + value.decode()
            for request in s.pending:
                if request.id == name and request.direction != way:
                    return False
        self.engine.dropped["unpaired"] += 1
        return True


class Posted(Plan):
    """A message of HTTP, whose body is as ``plan`` takes it: of a connection that is ``tracks.is_posted``."""

    __slots__ = ("engine", "plan", "said")

    def __init__(self, engine: Engine, said: Head, plan: Plan) -> None:
        self.engine, self.said, self.plan = engine, said, plan

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``."""
        track, said = step.track, self.said
        s, own, peer = track.session, track.sides[way].wrap.http, track.sides[1 - way].wrap.http
        kin = s.kin
        if kin is None or own is None or peer is None or not own.passes(said, peer):
            return False
        if not kinship.is_met(s, kin):
            return False
        asks = peer if said.status else said
        if asks.user or (asks.agent and asks.agent not in s.agents):
            return False  # which names somebody
        sight = self.plan.take(step, way, t_ns, ack, end, told, slots, first)
        if sight is not False:
            own.whole(said, peer)
            kin.last_ns = max(kin.last_ns, t_ns)
            kinship.tell(s, kin, kinship.NOBODY, self.engine.dropped)
        return sight
