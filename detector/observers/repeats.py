"""Lines that say what was said before, which nearly all of a miner's and its pool's do: shares, acceptances.

What a line of a form (``collectors.masking``) means is found out once, of one of them: which row it is, and
where its id, job and worker stand.  Another of that form changes a session just as ``sessions.Engine`` would,
at a quarter of the cost.  Whatever is not plainly so is left to the engine: nothing depends on what is known
here, so it has no state to be carried.
"""

from typing import Any, Final, NamedTuple

from detector import handing, ledger, pairing
from detector.clock import MINUTE_NS
from detector.dialects import templates
from detector.dialects.lines import LineError
from detector.dialects.lines import read as read_line
from detector.dialects.replies import ACCEPTED, key, plain, verdict
from detector.dialects.table import Dialect, Reader
from detector.ledger import MOST_LEAD, Pending
from detector.observers.telling import Step
from detector.sessions import Engine, kind_of
from detector.tracks import TCP, is_sure, is_usual

MAX_PLANS: Final = 4096
MAX_LEARNED: Final = 64
"""Forms of one batch that are looked into: it takes as long as to read some ten lines."""
MAX_MISSED: Final = 64
"""So many lines of a connection in a row of forms that nobody knows, and no more are looked at in a batch:
what never says the same again is read anew at once."""
_NAMES: Final = ("job", "worker", "within")
_MAX_TEXT: Final = 100
"""Longer values are cut where they are kept (``ledger.text``, ``ledger.key_of``)."""

Where = int | None
"""Where among a line's slots a value begins; None where it is the same in all lines of the form."""


class Plan:
    """What lines of one form do."""

    __slots__ = ()

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: list[int], first: int
    ) -> Any:
        """Do it, of the line that ends at the sequence number ``end``: its values are in ``told`` where
        ``slots`` say from ``first`` on.  The sight that it is, or True for none; False where nothing was done
        and the engine is to read it."""
        del step, way, t_ns, ack, end, told, slots, first
        return False


class Plans(dict[bytes, Plan]):
    """Plans by form, for sessions of one dialect."""

    __slots__ = ("dialect",)

    def __init__(self, dialect: str) -> None:
        super().__init__()
        self.dialect = dialect


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
        "algorithm", "always", "dialect", "engine", "id", "is_number", "job", "job_always", "kind", "reader",
        "rule", "samples", "within", "worker", "worker_always",
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

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: list[int], first: int
    ) -> Any:
        """See ``Plan``."""
        s, reader, engine, job, worker = step.track.session, self.reader, self.engine, self.job, self.worker
        if s.client != way or s.held or (self.samples and s.proof.wants(engine.sample)):
            return False
        name = self.always
        if self.id is not None:
            at = first + self.id
            value = told[slots[at] : slots[at + 1]]
            name = int(value) if self.is_number else "s" + value.decode()
        whose = self.worker_always
        if worker is not None:
            whose = told[slots[first + worker] : slots[first + worker + 1]].decode()
        if not whose:
            whose = s.login
        elif whose not in s.workers:
            ledger.remember(engine.dropped, s.workers, whose)
        which = self.job_always
        if job is not None:
            which = told[slots[first + job] : slots[first + job + 1]].decode()
        if self.within is not None:
            where, before, _ = self.within
            if where is not None:
                before = told[slots[first + where] : slots[first + where + 1]].decode()
            which = f"{before}/{which}"
        if which[:2] == "0x":
            which = which.lower()
        known = s.jobs.get(which) or handing.find(s, self.dialect, which)
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
    """The pool accepts the share that has waited longest; ``says``: by a message that has a name."""

    __slots__ = ("always", "engine", "id", "is_number", "says")

    def __init__(self, engine: Engine, named: Named, *, says: bool) -> None:
        self.engine, self.says = engine, says
        self.id, self.always, self.is_number = named

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: list[int], first: int
    ) -> Any:
        """See ``Plan``."""
        s = step.track.session
        if s.client != 1 - way or not s.pending:
            return False
        request, name = s.pending[0], self.always
        if self.id is not None:
            at = first + self.id
            value = told[slots[at] : slots[at + 1]]
            name = int(value) if self.is_number else "s" + value.decode()
        if request.id != name or request.direction == way or request.kind != "submit":
            return False
        if request.share is not None or request.doubtful or not ledger.acknowledges(ack, request.end):
            return False
        del s.pending[0]
        if self.says:
            s.mining[way] = s.shaped = True
        s.shares.accepted += 1
        if request.known is None:
            request.known = s.jobs.get(request.job)
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


class Repeats:
    """Plans for the forms of lines, found out from the second line of each."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._table = engine, engine.table
        self._plans: dict[str, Plans] = {}
        self._seen: set[bytes] = set()
        self._known = self._left = 0

    def begin(self) -> None:
        """A batch begins."""
        self._left = MAX_LEARNED

    def fit(self, step: Step) -> Plans:
        """Plans for what comes next on a connection; UNUSUAL where its lines are the engine's."""
        track = step.track
        if step.ends[2] != TCP or track.waiting or track.vetoed is not None or not track.turned:
            return UNUSUAL
        if not is_sure(track) or not is_usual(track.sides[0]) or not is_usual(track.sides[1]):
            return UNUSUAL
        dialect = track.session.dialect
        plans = self._plans.get(dialect)
        if plans is None:
            plans = self._plans[dialect] = Plans(dialect)
        return plans

    def learn(self, step: Step, plans: Plans, form: bytes, line: bytes, places: list[int]) -> None:
        """Find out what lines of a form do, the second time that there is one: ``line``, its slots at
        ``places`` in it."""
        step.missed += 1
        if step.missed >= MAX_MISSED:
            step.plans = UNUSUAL
        if form not in self._seen:
            if len(self._seen) >= MAX_PLANS:
                self._seen.clear()
            self._seen.add(form)
            return
        if self._left <= 0:
            return
        self._left -= 1
        if self._known >= MAX_PLANS:
            for known in self._plans.values():
                known.clear()
            self._known = 0
        try:
            plans[form] = self._plan(plans.dialect, _Probe(line, places))
        except LineError:
            plans[form] = NO_PLAN
        self._known += 1

    def _plan(self, dialect: str, probe: "_Probe") -> Plan:
        table = self._table
        name, reader = table.name(probe.said), None
        if name != table.name(probe.other):
            return NO_PLAN
        if name is not None:
            reader = table.called(name, probe.said, dialect)
            if reader is None or reader is not table.called(name, probe.other, dialect):
                return NO_PLAN
            if not table.is_of(dialect, reader):
                return NO_PLAN
        if reader is not None and reader.kind == "submit":
            return self._submitted(dialect, reader, probe)
        return self._accepted(dialect, reader, probe)

    def _submitted(self, dialect: str, reader: Reader, probe: "_Probe") -> Plan:
        if not reader.client or reader.row.answers or reader.id in templates.NAMES:
            return NO_PLAN
        if (reader.weak and dialect != reader.dialect) or reader.dialect == "getwork":
            return NO_PLAN
        row = self._table.dialects.get(dialect)
        one, two = reader.fields(probe.said), reader.fields(probe.other)
        if "job" not in one:
            return NO_PLAN
        told = [None if row is None else handing.algorithm(row, fields) for fields in (one, two)]
        found = probe.find(probe.said.get("id"), probe.other.get("id"))
        job, worker, within = (probe.name(one.get(field), two.get(field)) for field in _NAMES)
        if told[0] != told[1] or found is None or job is None or worker is None or within is None:
            return NO_PLAN
        plan = Submitted(self._engine, reader, row, found)
        plan.algorithm = told[0]
        plan.job, plan.job_always, _ = job
        plan.worker, plan.worker_always, _ = worker
        plan.within = None if one.get("within") is None else within
        return plan

    def _accepted(self, dialect: str, reader: Reader | None, probe: "_Probe") -> Plan:
        table, said = self._table, [probe.said, probe.other]
        kinds: tuple[str, ...] = ()
        if reader is not None:
            if reader.kind != "answer" or reader.client:
                return NO_PLAN
            said = [plain(reader.fields(one), reader.row.says) for one in said]
            kinds = reader.row.answers
        if kinds and "submit" not in kinds:
            return NO_PLAN
        for one in said:
            bare = reader is not None or dialect in table.bare
            if not bare and not ("result" in one or "error" in one or "reject-reason" in one):
                return NO_PLAN
            if verdict(one, table, dialect) is not ACCEPTED or table.replied(one, "submit") is not None:
                return NO_PLAN
        found = probe.find(key(said[0]), key(said[1]))
        says = reader is not None and not reader.weak
        return NO_PLAN if found is None else Accepted(self._engine, found, says=says)


class _Probe:
    """A line, and another of its form in which the values at all slots are others.  Raises LineError."""

    def __init__(self, line: bytes, places: list[int]) -> None:
        other = bytearray(line)
        self._slots: list[tuple[int, str, str]] = []
        for number, (at, end) in enumerate(zip(places[::2], places[1::2], strict=True)):
            was = line[at:end].decode()
            instead = _instead(was, number + 1, text=line[at - 1 : at] == b'"')
            other[at:end] = instead.encode()
            self._slots.append((2 * number, was, instead))
        self.said, self.other = read_line(line), read_line(bytes(other))

    def name(self, one: Any, other: Any) -> Named | None:
        """Where a name is, of its values in both lines."""
        one, other = ledger.text(one), ledger.text(other)
        if one == other:
            return Named(None, one)
        return self._slot(one, other, is_number=False)

    def find(self, one: Any, other: Any) -> Named | None:
        """Where an id is."""
        known = ledger.key_of(one)
        if known == ledger.key_of(other):
            return Named(None, known)
        if type(one) is int:
            return self._slot(str(one), str(other), is_number=True)
        return self._slot(one, other, is_number=False) if type(one) is str else None

    def _slot(self, one: str, other: str, *, is_number: bool) -> Named | None:
        found = [where for where, was, instead in self._slots if (was, instead) == (one, other)]
        if len(found) != 1 or len(one) > _MAX_TEXT:
            return None
        return Named(found[0], None, is_number=is_number)


def _instead(was: str, number: int, *, text: bool) -> str:
    """Another value of the same kind and length; of each slot another, where it is long enough."""
    begin = "0x" if was.startswith("0x") else ""
    size = len(was) - len(begin)
    made = f"{number:0{size}x}" if text else str(10 ** (size - 1) + number - (size == 1))
    if len(made) > size:
        made = "1" * size
    return begin + made if begin + made != was else begin + "9" + made[1:]
