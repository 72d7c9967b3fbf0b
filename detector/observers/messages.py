"""What binary messages do to a session that come one by one, each in a row by itself, as most do: shares, and
what accepts them.  Of all others, and of whatever is not plainly so, nothing is done: the engine reads it.
"""

import struct
from functools import lru_cache
from typing import Any, Final

import msgspec

from detector import ledger
from detector.dialects.lines import LineError
from detector.dialects.lines import read as read_line
from detector.dialects.table import Reader
from detector.observers.plans import NO_PLAN, UNUSUAL, Accepted, Named, Plans, Slots, Submitted
from detector.observers.telling import Step
from detector.sessions import Engine
from detector.tracks import Direction, Track
from detector.transports import alephium, stratum2
from detector.transports.unwrapping import NODE, STRATUM2

MODES: Final = frozenset({STRATUM2, NODE})
STRATUM2_DIALECT: Final = "sv2-plain"
NODE_DIALECT: Final = "alephium-node"
MAX_EXTENSIONS: Final = 512
"""Octets behind a share that are remembered, with the worker that they name."""

_UNNAMED: Final = Named(None, None)
# The header of a frame (extension type, message type, 24 bits of length), then numbers (sv2-spec 05).
_SHARE: Final = struct.Struct("<HBHBIII")
_SHARE_BYTES: Final = stratum2.HEADER + 24
_SUCCESS: Final = struct.Struct("<HBHBIIIQ")
_OF_CHANNEL: Final = 0x8000
_MAX_EXTRANONCE: Final = 32
# Length, version, type; of a result two groups (errata B5).
_RESULT: Final = struct.Struct(">IBBII")
_BLOCK: Final = struct.Struct(">IBBI")


class Share(Submitted):
    """SubmitSharesStandard."""

    __slots__ = ()

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``; the slot is the message."""
        s, (at, behind) = step.track.session, slots
        if s.client != way or s.held or behind - at < _SHARE_BYTES or s.proof.wants(self.engine.sample):
            return False
        extension, _, low, high, channel, number, job = _SHARE.unpack_from(told, at)
        if extension != _OF_CHANNEL or behind - at != stratum2.HEADER + (low | high << 16):
            return False
        worker = self.named(told, at + _SHARE_BYTES, behind)
        if worker is None:
            return False
        return self.hand_in(step, way, t_ns, end, f"s{channel}/{number}", worker, f"{channel}/{job}")

    def named(self, told: bytes, at: int, behind: int) -> str | None:
        """The worker, "" for none, that what is behind the share's numbers tells; None where that is not
        the message's."""
        del told
        return None if at != behind else ""


class ExtendedShare(Share):
    """SubmitSharesExtended: behind its numbers an extranonce, and a worker's name among extensions."""

    __slots__ = ()

    def named(self, told: bytes, at: int, behind: int) -> str | None:
        """See ``Share``."""
        if at >= behind or told[at] > _MAX_EXTRANONCE:
            return None
        at += 1 + told[at]
        if not 0 <= behind - at <= MAX_EXTENSIONS:
            return None
        return "" if at == behind else _worker(told[at:behind])


@lru_cache(maxsize=1024)
def _worker(extensions: bytes) -> str | None:
    """The worker as the engine reads it, None where it does not."""
    try:
        said = read_line(msgspec.json.encode({"worker": stratum2.worker(extensions)}))
    except LineError:
        return None
    return ledger.text(said["worker"])


class Success(Accepted):
    """SubmitShares.Success of one share."""

    __slots__ = ()

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``; the slot is the message."""
        s, (at, behind) = step.track.session, slots
        if s.client != 1 - way or not s.pending or behind - at != _SUCCESS.size:
            return False
        extension, _, low, high, channel, last, count, total = _SUCCESS.unpack_from(told, at)
        if extension != _OF_CHANNEL or stratum2.HEADER + (low | high << 16) != _SUCCESS.size or count != 1:
            return False
        number = f"s{channel}/{last}"
        for index, request in enumerate(s.pending):
            if request.kind == "submit":
                # The oldest of all channels: whatever waits before it is no share.
                if request.id != number or request.direction == way or request.doubtful:
                    return False
                if total > 1 and (request.known is None or request.known.hashes is None):
                    return False
                return self.count(step, way, t_ns, index)
        return False


class Block(Submitted):
    """What a miner hands in to Alephium's node."""

    __slots__ = ()

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``; the slot is the message."""
        s, (at, behind) = step.track.session, slots
        if s.client != way or s.held or behind - at < alephium.LEAST_BLOCK:
            return False
        size, version, _, octets = _BLOCK.unpack_from(told, at)
        if behind - at != 4 + size or version != 1 or octets != size - 6:
            return False
        header = at + alephium.BLOCK
        if told[header : header + 2] != alephium.FOUR_GROUPS:
            return False
        # It is told where its header ends at the latest.
        after = at + min(4 + size, alephium.BLOCK + alephium.HEADERS.stop)
        end = (end - (behind - after)) & ledger.WRAP
        name = _name(told[header : min(after, header + alephium.FOUR_GROUPS_BYTES)])
        return self.hand_in(step, way, t_ns, end, None, "", name)


_name: Final = lru_cache(maxsize=1024)(alephium.name)
"""A job is worked on again and again."""


class Result(Accepted):
    """What became of a block: it was taken."""

    __slots__ = ()

    def take(
        self, step: Step, way: int, t_ns: int, ack: int, end: int, told: bytes, slots: Slots, first: int
    ) -> Any:
        """See ``Plan``; the slot is the message."""
        s, (at, behind) = step.track.session, slots
        if s.client != 1 - way or not s.pending or behind - at != 4 + alephium.RESULT:
            return False
        size, version, _, origin, chain = _RESULT.unpack_from(told, at)
        if size != alephium.RESULT or version != 1 or max(origin, chain) >= alephium.MOST_GROUPS:
            return False
        return told[behind - 1] == 1 and self.accept(step, way, t_ns, ack, None)


def _of_stratum2(told: bytes, shown: bytes, start: int, end: int) -> bytes:
    """The type of a frame."""
    del shown, end
    return told[start + 2 : start + 3]


def _of_node(told: bytes, shown: bytes, start: int, end: int) -> bytes:
    """The type of a message."""
    del shown, end
    return told[start + 5 : start + 6]


class Messages:
    """Plans for the messages of sessions whose both directions are binary."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._plans: Final = {STRATUM2: self._stratum2(), NODE: self._node()}

    def fit(self, track: Track) -> Plans:
        """Plans for what comes next; UNUSUAL where it is the engine's.  The connection is acknowledged."""
        one, two = track.sides
        session = track.session
        plans = self._plans.get(one.wrap.mode, UNUSUAL)
        if session.dialect != plans.dialect or not session.shaped or one.wrap.mode != two.wrap.mode:
            return UNUSUAL
        if track.vetoed is not None or track.waiting or not track.turned:
            return UNUSUAL
        return plans if _rests(one) and _rests(two) else UNUSUAL

    def _stratum2(self) -> Plans:
        engine, row = self._engine, self._engine.table.dialects[STRATUM2_DIALECT]
        plans = Plans(STRATUM2_DIALECT, form=_of_stratum2)
        kinds = {message.name: bytes([number]) for number, message in stratum2.load().items()}
        for name, share in (("SubmitSharesStandard", Share), ("SubmitSharesExtended", ExtendedShare)):
            plans[kinds[name]] = share(engine, self._reader(f"sv2.{name}"), row, _UNNAMED)
        plans[kinds["SubmitShares.Success"]] = Success(engine, _UNNAMED, NO_PLAN, says=False)
        return plans

    def _node(self) -> Plans:
        engine, row = self._engine, self._engine.table.dialects[NODE_DIALECT]
        plans = Plans(NODE_DIALECT, form=_of_node)
        plans[b"\0"] = Block(engine, self._reader("alephium-node.submit"), row, _UNNAMED)
        plans[b"\1"] = Result(engine, _UNNAMED, NO_PLAN, says=True)
        return plans

    def _reader(self, name: str) -> Reader:
        return Reader(next(form for form in self._engine.table.forms if form.id == name))


def _rests(side: Direction) -> bool:
    """Whether a direction's next octet begins a message, and nothing else is to be noted of it."""
    wrap = side.wrap
    if side.first is None or side.ended or wrap.held or wrap.http is not None:
        return False
    return wrap.mode != NODE or (wrap.node is not None and wrap.node.rests())
