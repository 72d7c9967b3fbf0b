"""What a detector keeps through a crash: the state of one subscriber, and of an engine as a whole, as bytes.

State in, bytes out, and back.  Any bytes decode or are refused with DecodeError.  A record begins with what
it is and the version of its form; one that is not known is refused, for a field that is read as another would
be worse than none.  What is kept shares its values with the engine: encode it before the next step.
"""

from typing import Any, Final, TypeVar

import msgspec

from collectors import wire
from detector.arrivals import Expected
from detector.clock import Heard
from detector.document import Incident
from detector.errors import DecodeError, Reason
from detector.evidence import Connection
from detector.measures import Ends, Link
from detector.observers.shape import State as ShapeState
from detector.store import Kept
from detector.tracks import Purses
from detector.tracks import State as PayloadState

VERSION: Final = 5
"""Of both forms.  A test pins the fields: it changes when they do."""
READ: Final = (1, 2, 3, 4, 5)
"""Versions that are read.  Fields that came later are the last of their struct: Link.points with 2,
Direction.wrap, Submit.header, InForce.hashes and algorithm, Session.let_in and closed, and
SessionFacts.others with 3; InForce.channels and blocks, Http.call and last, Wrapping.node and gunzip with 4;
Pending.doubtful, Session.unseen, counted_ns, blind_ns and lost, Http.strict and asks, both
purses, Session.kin and tracks.State.kin with 5.
A document is a map: fields that it lacks have their defaults."""
MAX_STATE_BYTES: Final = wire.MAX_MESSAGE_BYTES - 65_536
"""The room that a message leaves for a record."""
INT64: Final = 1 << 63

Said = tuple[Connection, str, int]
"""What an observer of flows has told: connection, kind, minute."""
Named = tuple[Connection, str, str, int]
"""What the observer of names has told: connection, kind, domain, minute."""


class SubscriberState(msgspec.Struct, array_like=True, kw_only=True):
    """All that one engine keeps of one subscriber.

    ``links`` are its connections' bytes; ``record`` its evidence, sessions and incident; ``resolved`` its
    closed incidents and when they were; the three ``_told`` what observers said lately and are not to say
    again.  ``cut`` is how many items had to be left out, for a record that was too large.
    """

    payload: PayloadState
    shape: ShapeState
    links: list[tuple[Ends, Link]]
    record: Kept | None
    resolved: list[tuple[int, Incident]]
    endpoints_told: list[Said]
    shape_told: list[Said]
    names_told: list[Named]
    cut: int = 0

    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        parts = (self.payload.tracks, self.payload.opened, self.shape.pairs, self.links, self.resolved)
        told = (self.endpoints_told, self.shape_told, self.names_told)
        return self.record is None and not any(parts) and not any(told)


class EngineState(msgspec.Struct, array_like=True, kw_only=True):
    """What one engine keeps that is of no subscriber: ``closed`` is its latest closed minute, ``ticked_ns``
    and ``advanced_ns`` when it last looked for what has faded, and for how far time has come; ``purses`` are
    what is left for connections that begin."""

    heard: Heard
    arrivals: Expected
    closed: int | None
    ticked_ns: int
    advanced_ns: int
    purses: Purses | None = None


S = TypeVar("S", SubscriberState, EngineState)
_HEADS: Final[dict[type, bytes]] = {
    SubscriberState: b"S" + bytes([VERSION]),
    EngineState: b"E" + bytes([VERSION]),
}
_PACK: Final = msgspec.msgpack.Encoder()
_READERS: Final[dict[type, Any]] = {t: msgspec.msgpack.Decoder(t) for t in _HEADS}


def encode(state: SubscriberState) -> bytes:
    """The record of a subscriber.  Where it would be larger than MAX_STATE_BYTES, the oldest half of its
    largest table is left out, until it fits."""
    made = _packed(state)
    if len(made) <= MAX_STATE_BYTES:
        return made
    tables = {name: list(table) for name, table in _tables(state).items()}
    cut = 0
    while len(made) > MAX_STATE_BYTES:
        sizes = {name: len(_packed(table)) for name, table in tables.items() if table}
        largest = tables[max(sizes, key=lambda name: sizes[name])]
        gone = (len(largest) + 1) // 2
        del largest[:gone]
        cut += gone
        made = _packed(_without(state, tables, cut))
    return made


def encode_whole(state: EngineState) -> bytes:
    """The record of an engine as a whole.  Where it would be larger than MAX_STATE_BYTES, the older half of
    what is known of senders and sources is left out, until it fits."""
    made = _packed(state)
    while len(made) > MAX_STATE_BYTES:
        heard, arrivals = state.heard, state.arrivals
        replace = msgspec.structs.replace
        state = replace(
            state,
            heard=replace(heard, sources=heard.sources[(len(heard.sources) + 1) // 2 :]),
            arrivals=replace(arrivals, next=arrivals.next[(len(arrivals.next) + 1) // 2 :]),
        )
        made = _packed(state)
    return made


def _packed(given: Any) -> bytes:
    head = _HEADS.get(type(given), b"")
    try:
        return head + _PACK.encode(given)
    except OverflowError:  # more than 64 bits: no traffic has such numbers
        return head + _PACK.encode(_bounded(msgspec.to_builtins(given, builtin_types=(bytes,))))


def _bounded(given: Any) -> Any:
    if isinstance(given, tuple):
        return tuple(map(_bounded, given))
    if isinstance(given, list):
        return [*map(_bounded, given)]
    if isinstance(given, dict):
        return {_bounded(name): _bounded(value) for name, value in given.items()}
    return max(-INT64, min(given, INT64 - 1)) if type(given) is int else given


def _tables(state: SubscriberState) -> dict[str, list[Any]]:
    """The tables that may be long, by name, the oldest first."""
    out: dict[str, list[Any]] = {
        "tracks": sorted(state.payload.tracks, key=lambda t: t[1].touched), "opened": state.payload.opened,
        "kin": sorted(state.payload.kin, key=lambda k: k[1].last_ns),
        "pairs": state.shape.pairs, "links": state.links, "resolved": state.resolved,
        "endpoints_told": state.endpoints_told, "shape_told": state.shape_told,
        "names_told": state.names_told,
    }  # fmt: skip
    if state.record is not None:
        for name in ("traces", "vetoed", "sessions", "folded", "contacts", "told", "told_bytes"):
            out[f"record.{name}"] = getattr(state.record, name)
    return out


def _without(state: SubscriberState, tables: dict[str, list[Any]], cut: int) -> SubscriberState:
    record = state.record and msgspec.structs.replace(
        state.record, **{k.removeprefix("record."): v for k, v in tables.items() if k.startswith("record.")}
    )
    names = ("links", "resolved", "endpoints_told", "shape_told", "names_told")
    return msgspec.structs.replace(
        state, payload=PayloadState(tables["tracks"], tables["opened"], state.payload.purses, tables["kin"]),
        shape=ShapeState(tables["pairs"]),
        record=record, cut=cut, **{name: tables[name] for name in names},
    )  # fmt: skip


def decode(record: bytes) -> SubscriberState:
    """The state of a subscriber.  Raises DecodeError, and nothing else, on bad bytes."""
    return _decoded(record, SubscriberState)


def decode_whole(record: bytes) -> EngineState:
    """The state of an engine as a whole.  Raises DecodeError, and nothing else, on bad bytes."""
    return _decoded(record, EngineState)


def _decoded(record: bytes, kind: type[S]) -> S:
    head = _HEADS[kind]
    if len(record) > wire.MAX_MESSAGE_BYTES:
        raise DecodeError(Reason.SIZE, f"{len(record)} bytes, limit {wire.MAX_MESSAGE_BYTES}")
    if record[:1] != head[:1]:
        raise DecodeError(Reason.FORMAT, "not the state of such a thing")
    if record[1:2] not in {bytes([version]) for version in READ}:
        raise DecodeError(Reason.VERSION, f"a state of version {record[1:2].hex()}")
    try:
        made: S = _READERS[kind].decode(memoryview(record)[2:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise DecodeError(Reason.SCHEMA, str(error)[:200]) from None
    return made
