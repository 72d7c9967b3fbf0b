"""Lines that say what was said before, which nearly all of a miner's and its pool's do: shares, acceptances;
and what other services say, which means nothing here.

What a line of a form (``collectors.masking``) means is found out once, of one of them: which row it is, and
where its id, job and worker stand (``plans``).  Nothing depends on what is known here, so it has no state to
be carried.
"""

import re
from typing import Any, Final

from collectors.masking import FRAME, MAX_FORM
from detector import handing, ledger, vetoes
from detector.dialects import templates
from detector.dialects.lines import LineError
from detector.dialects.lines import read as read_line
from detector.dialects.messages import ONLY
from detector.dialects.replies import ACCEPTED, key, plain, verdict
from detector.dialects.table import Reader
from detector.ledger import Session
from detector.observers.messages import MODES, Messages
from detector.observers.plans import (
    BEGINS,
    NO_PLAN,
    UNUSUAL,
    Accepted,
    Named,
    Plan,
    Plans,
    Posted,
    Submitted,
    Unanswered,
    Unknown,
)
from detector.observers.telling import Step
from detector.sessions import Engine
from detector.tracks import TCP, is_framed, is_packed, is_posted, is_sure, is_usual
from detector.transports import apart
from detector.transports.apart import Apart
from detector.transports.bodies import is_whole
from detector.transports.unwrapping import FRAMES, GZIP, HTTP, PLAIN

MAX_PLANS: Final = 1 << 14
MAX_LEARNED: Final = 64
"""Forms of one batch that are looked into: it takes as long as to read some ten lines."""
MAX_MISSED: Final = 64
"""So many lines of a connection in a row of forms that nobody knows, and no more are looked at in a batch:
what never says the same again is read anew at once."""
_NAMES: Final = (("job", ONLY), ("worker", None), ("within", None))
BINARY: Final = frozenset({0, 0x81, 0x82})
"""Octets with which begins what has no form and may have a plan all the same: messages of Stratum V2 and of
Alephium's nodes, frames of a WebSocket."""
_FRAMES: Final = frozenset({0x81, 0x82})
_BLANK: Final = 32
_MASK: Final = b"\5"
_MAX_TEXTS: Final = 4096
# What holds octets in base64, and is no name of a member.
_TEXT: Final = re.compile(rb'"([A-Za-z0-9+/]{40,}={0,2})"(?!\s*:)')
_PLAIN: Final = re.compile(rb"[\4\5 -~]+")
_REPLY: Final = frozenset({"result", "error", "reject-reason"})
_MAX_TEXT: Final = 100
"""Longer values are cut where they are kept (``ledger.text``, ``ledger.key_of``)."""


def texts(told: bytes, shown: bytes, start: int, end: int) -> bytes:
    """The form of a frame around an object alone, its long texts masked.  Its header is blanks in ``shown``
    where it is whole, as of one that has a form (``collectors.masking``)."""
    if told[start] not in _FRAMES or shown[start] != _BLANK or end - start > _MAX_TEXTS:
        return b""
    size = told[start + 1]
    line = shown[start + 2 + (2 if size & 127 == 126 else 0) + (size >> 7) * 4 : end]
    if line[:1] != b"{" or line[-1:] != b"}" or _MASK in line:
        return b""
    form = bytes([FRAME]) + _TEXT.sub(_MASK, line)
    return form if len(form) <= MAX_FORM else b""


class Repeats:
    """Plans for the forms of lines, found out from the second line of each."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._table = engine, engine.table
        self.apart, self._messages = Apart(), Messages(engine)
        self._plans: dict[tuple[str, int, bool], Plans] = {}
        self._seen: set[bytes] = set()
        self._known = self._left = 0

    def begin(self) -> None:
        """A batch begins."""
        self._left = MAX_LEARNED

    def fit(self, step: Step) -> Plans:
        """Plans for what comes next on a connection; UNUSUAL where its lines are the engine's.  Where nobody
        mines, or it is not known yet, only those of lines that say nothing."""
        track = step.track
        dialect = track.session.dialect
        if step.ends[2] != TCP or not track.both_acked:
            return UNUSUAL
        one, two = track.sides
        mode = one.wrap.mode
        if mode in MODES:
            return self._messages.fit(track)
        silent = dialect in self._table.silent
        if silent and not (mode == FRAMES and _is_clients(track.session)):
            return UNUSUAL
        if mode == FRAMES:
            if not is_framed(track, 0) or not is_framed(track, 1):
                return UNUSUAL
        elif mode == HTTP:
            if not is_posted(track):
                return UNUSUAL
        elif mode == GZIP:
            if not is_packed(one) or not is_packed(two):
                return UNUSUAL
        elif not is_usual(one) or not is_usual(two):
            return UNUSUAL
        idle = track.vetoed is not None or not track.turned or (mode == FRAMES and not track.session.shaped)
        if track.waiting:
            if is_sure(track):
                return UNUSUAL
            idle = True
        if idle and silent:
            return UNUSUAL
        plans = self._plans.get((dialect, mode, idle))
        if plans is None:
            form = texts if silent else None
            plans = self._plans[dialect, mode, idle] = Plans(dialect, mode, idle=idle, form=form)
        return plans

    def learn_texts(self, step: Step, plans: Plans, form: bytes, line: bytes) -> None:
        """As ``learn``, where plans are found by what ``texts`` gives, if that is a form."""
        if plans.form is texts and _PLAIN.fullmatch(form):
            self.learn(
                step, plans, form, line, [at for found in _TEXT.finditer(line) for at in found.span(1)]
            )

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
        if self._left <= 0 or BEGINS.get(form[0], PLAIN) != plans.mode:
            return
        self._left -= 1
        if self._known >= MAX_PLANS:
            for known in self._plans.values():
                known.clear()
            self._known = 0
        try:
            plan = self._plan(plans.dialect, _Probe(line, places), idle=plans.idle)
            plans[form] = plan if plans.mode != HTTP else self._posted(form, line, plan)
        except LineError:
            plans[form] = NO_PLAN
        self._known += 1

    def _posted(self, form: bytes, line: bytes, plan: Plan) -> Plan:
        """The plan of a body's line, of the whole message."""
        said = self.apart.said.get(form[: apart.SIZE])
        asks = isinstance(plan, Submitted)
        if plan is NO_PLAN or said is None or asks is bool(said.status) or not is_whole(line):
            return NO_PLAN
        return Posted(self._engine, said, plan)

    def _plan(self, dialect: str, probe: "_Probe", *, idle: bool) -> Plan:
        table = self._table
        if dialect in table.silent:
            return self._unanswerable(dialect, probe)
        name, reader = table.name(probe.said), None
        if name != table.name(probe.other):
            return NO_PLAN
        if name is not None:
            reader = table.called(name, probe.said, dialect)
            if reader is not table.called(name, probe.other, dialect):
                return NO_PLAN
            if reader is None:
                return _unknown(name)
            if idle or not table.is_of(dialect, reader):
                return NO_PLAN
        if reader is not None and reader.kind == "submit":
            return self._submitted(dialect, reader, probe)
        otherwise = self._unanswered(dialect, probe) if reader is None else NO_PLAN
        return otherwise if idle else self._accepted(dialect, reader, probe, otherwise)

    def _unanswered(self, dialect: str, probe: "_Probe") -> Plan:
        """What a line without a name does where no request waits for it."""
        table, both = self._table, (probe.said, probe.other)
        if not _REPLY.isdisjoint(probe.said) or dialect in table.bare:
            found = probe.find(key(probe.said), key(probe.other))
            if found is None or any(table.replied(one, None) is not None for one in both):
                return NO_PLAN
            return Unanswered(self._engine, found, replies=True)
        return Unanswered(self._engine, Named(None, None), replies=False)

    def _unanswerable(self, dialect: str, probe: "_Probe") -> Plan:
        """A share where no answer accepts, which is what any other message does.  Its texts are masked,
        whatever they are: so the row must ask for texts alone, and name nothing by them."""
        table = self._table
        name = table.name(probe.said)
        reader = None if name is None else table.called(name, probe.said, dialect)
        if reader is None or reader.kind != "submit" or reader.dialect != dialect:
            return NO_PLAN
        rows = [row for row in table.forms if (row.key, row.method) == (reader.row.key, reader.row.method)]
        if {word for row in rows for word in row.shape.values()} != {"text"}:
            return NO_PLAN
        if reader.row.fields or "id" in probe.said:
            return NO_PLAN
        return self._submitted(dialect, reader, probe)

    def _submitted(self, dialect: str, reader: Reader, probe: "_Probe") -> Plan:
        if not reader.client or reader.row.answers:
            return NO_PLAN
        if (reader.weak and dialect != reader.dialect) or reader.dialect == "getwork":
            return NO_PLAN
        row = self._table.dialects.get(dialect)
        one, two = reader.fields(probe.said), reader.fields(probe.other)
        told = [None if row is None else handing.algorithm(row, fields) for fields in (one, two)]
        found = probe.find(probe.said.get("id"), probe.other.get("id"))
        job, worker, within = (probe.name(one.get(k, no), two.get(k, no)) for k, no in _NAMES)
        find = templates.NAMES.get(reader.id)
        if find is not None:
            job = probe.whole(one.get("job"), two.get("job"))
        if told[0] != told[1] or found is None or job is None or worker is None or within is None:
            return NO_PLAN
        plan = Submitted(self._engine, reader, row, found)
        plan.algorithm, plan.find = told[0], find
        plan.job, plan.job_always, _ = job
        plan.worker, plan.worker_always, _ = worker
        plan.within = None if one.get("within") is None else within
        return plan

    def _accepted(self, dialect: str, reader: Reader | None, probe: "_Probe", otherwise: Plan) -> Plan:
        table, said = self._table, [probe.said, probe.other]
        kinds: tuple[str, ...] = ()
        if reader is not None:
            if reader.kind != "answer" or reader.client:
                return otherwise
            said = [plain(reader.fields(one), reader.row.says) for one in said]
            kinds = reader.row.answers
        if kinds and "submit" not in kinds:
            return otherwise
        for one in said:
            bare = reader is not None or dialect in table.bare
            if not bare and _REPLY.isdisjoint(one):
                return otherwise
            if verdict(one, table, dialect) is not ACCEPTED or table.replied(one, "submit") is not None:
                return otherwise
        found = probe.find(key(said[0]), key(said[1]))
        says = reader is not None and not reader.weak
        return otherwise if found is None else Accepted(self._engine, found, otherwise, says=says)


def _unknown(name: str) -> Plan:
    if "\x00" in name or name.startswith("mining."):
        return NO_PLAN
    return Unknown(vetoes=vetoes.find(name) is not None)


def _is_clients(s: Session) -> bool:
    """Whether all that waits is the client's, so that nothing which it says settles anything."""
    return s.client is not None and all(request.direction == s.client for request in s.pending)


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

    def whole(self, one: Any, other: Any) -> Named | None:
        """Where a text is, of any length; None where it is not masked."""
        found = [where for where, was, instead in self._slots if (was, instead) == (one, other)]
        return Named(found[0], None) if len(found) == 1 else None

    def _slot(self, one: str, other: str, *, is_number: bool) -> Named | None:
        found = self.whole(one, other)
        return None if found is None or len(one) > _MAX_TEXT else found._replace(is_number=is_number)


def _instead(was: str, number: int, *, text: bool) -> str:
    """Another value of the same kind and length; of each slot another, where it is long enough."""
    begin = "0x" if was.startswith("0x") else ""
    size = len(was) - len(begin)
    made = f"{number:0{size}x}" if text else str(10 ** (size - 1) + number - (size == 1))
    if len(made) > size:
        made = "1" * size
    return begin + made if begin + made != was else begin + "9" + made[1:]
