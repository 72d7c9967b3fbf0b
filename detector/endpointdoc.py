"""What is known of one endpoint as the ``endpoints`` stream carries it: an entry in, JSON out, and back.

See ENDPOINTS in ``collectors/streams.py`` for the meaning of each field.  The bus may be hostile: any bytes
are an entry within these bounds, or are refused with DecodeError.  Times are RFC 3339 in UTC with nine digits
of a second, always, so that nanoseconds survive and text sorts as time does.
"""

import re
from datetime import date, timedelta
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from detector.attribution import text
from detector.endpoints import Entry, Origin, Period, packed
from detector.errors import DecodeError, Reason

MOST_BYTES: Final = 65_536
MOST_ONLY: Final = 128
MOST_HISTORY: Final = 32
MOST_WHY: Final = 500

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)\.(\d{9})Z", re.ASCII
)  # fmt: skip
_EPOCH: Final = date(1970, 1, 1)
_LATEST_NS: Final = (1 << 63) - 1  # in the year 2262: what 64 bits of nanoseconds can say

Address = Annotated[str, msgspec.Meta(min_length=2, max_length=45, pattern="^[0-9a-fA-F.:]+$")]
Time = Annotated[str, msgspec.Meta(min_length=30, max_length=30)]
Name = Annotated[str, msgspec.Meta(max_length=255)]
Word = Annotated[str, msgspec.Meta(max_length=16)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class PeriodDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A time in which the endpoint was known, and is no more."""

    name: Name | None
    first: Time
    last: Time


class EndpointDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message; every field is always there."""

    address: Address
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    protocol: Annotated[int, msgspec.Meta(ge=0, le=255)]
    origin: Origin
    name: Name | None
    operator: Name | None
    coins: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]
    tls: Word
    kind: Word
    weak: Annotated[int, msgspec.Meta(ge=0, le=1)]
    ports: Annotated[tuple[Port, ...], msgspec.Meta(max_length=1024)]
    only: Annotated[tuple[Address, ...], msgspec.Meta(max_length=MOST_ONLY)]
    first: Time
    last: Time
    expires: Time | None
    generation: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    history: Annotated[tuple[PeriodDocument, ...], msgspec.Meta(max_length=MOST_HISTORY)]
    why: Annotated[str, msgspec.Meta(max_length=MOST_WHY)]


_DECODER: Final = msgspec.json.Decoder(EndpointDocument)
_ENCODER: Final = msgspec.json.Encoder()


def key(entry: Entry) -> bytes:
    """The message's key: of one key the last message stays when the topic is compacted."""
    return f"{entry.origin}/{text(entry.address)}/{entry.port}/{entry.protocol}".encode()


def encode(entry: Entry) -> bytes:
    """One entry as JSON: no longer than peers accept, of its history the newest."""
    told: dict[str, Any] = {
        "address": text(entry.address),
        "port": entry.port,
        "protocol": entry.protocol,
        "origin": entry.origin,
        "name": _cut(entry.name),
        "operator": _cut(entry.operator),
        "coins": entry.coins,
        "tls": entry.tls,
        "kind": entry.kind,
        "weak": int(entry.weak),
        "ports": entry.ports,
        "only": [text(a) for a in entry.only[:MOST_ONLY]],
        "first": _time(entry.first_ns),
        "last": _time(entry.last_ns),
        "expires": None if entry.expires_ns is None else _time(entry.expires_ns),
        "generation": entry.generation,
        "history": [
            {"name": _cut(p.name), "first": _time(p.first_ns), "last": _time(p.last_ns)}
            for p in entry.history[-MOST_HISTORY:]
        ],
        "why": entry.why[:MOST_WHY],
    }
    return _ENCODER.encode(told)


def decode(data: bytes) -> Entry:
    """The entry of one message.  Raises DecodeError, and nothing else, on bad bytes."""
    if len(data) > MOST_BYTES:
        raise DecodeError(Reason.SIZE, f"{len(data)} bytes of an endpoint, at most {MOST_BYTES}")
    try:
        told = _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise DecodeError(Reason.SCHEMA, f"endpoint: {str(error)[:200]}") from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(Reason.FORMAT, f"endpoint: {str(error)[:200]}") from None
    try:
        return _entry(told)
    except ValueError as error:
        raise DecodeError(Reason.SCHEMA, f"endpoint: {str(error)[:200]}") from None


def _entry(told: EndpointDocument) -> Entry:
    """Raises ValueError on what the types cannot say."""
    entry = Entry(
        address=packed(told.address), port=told.port, protocol=told.protocol, origin=told.origin,
        name=_name(told.name), operator=_name(told.operator), coins=tuple(map(_plain, told.coins)),
        tls=_plain(told.tls), kind=_plain(told.kind), weak=bool(told.weak), ports=told.ports,
        only=tuple(map(packed, told.only)), first_ns=_ns(told.first), last_ns=_ns(told.last),
        expires_ns=None if told.expires is None else _ns(told.expires), why=_plain(told.why),
        generation=told.generation,
        history=tuple(Period(_name(p.name), _ns(p.first), _ns(p.last)) for p in told.history),
    )  # fmt: skip
    times = (entry.first_ns, entry.last_ns, _LATEST_NS if entry.expires_ns is None else entry.expires_ns)
    if list(times) != sorted(times) or any(p.first_ns > p.last_ns for p in entry.history):
        raise ValueError("it ends before it begins")
    if not entry.port and not entry.ports:
        raise ValueError("port 0 without ports")
    return entry


def _plain(told: str) -> str:
    """Texts are shown to people: no control characters."""
    if not told.isprintable():
        raise ValueError(f"{told[:40]!r} is no plain text")
    return told


def _name(told: str | None) -> str | None:
    return told if told is None else _plain(told)


def _cut(told: str | None, most: int = 255) -> str | None:
    return told if told is None else told[:most]


@lru_cache(4096)
def _day(days: int) -> str:
    return (_EPOCH + timedelta(days=days)).isoformat()


@lru_cache(4096)
def _days(day: str) -> int:
    """Raises ValueError on a day that never was."""
    return (date.fromisoformat(day) - _EPOCH).days


def _time(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    days, seconds = divmod(seconds, 86_400)
    return f"{_day(days)}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:09}Z"


def _ns(told: str) -> int:
    """Raises ValueError on another form of time, and on years that 64 bits of nanoseconds cannot say."""
    parts = _TIME.fullmatch(told)
    if parts is None:
        raise ValueError(f"{told!r} is no time in UTC with nine digits of a second")
    day, hours, minutes, seconds, rest = parts.groups()
    ns = (_days(day) * 86_400 + int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 10**9 + int(rest)
    if not 0 <= ns <= _LATEST_NS:
        raise ValueError(f"{told!r} is not between 1970 and 2262")
    return ns
