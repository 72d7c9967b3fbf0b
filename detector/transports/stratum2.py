"""Octets of one direction of Stratum V2 without Noise in, its messages out, each as a JSON object.

A frame is an extension type of 2 octets, its top bit set where the message is of a channel, a type of one and
a length of 3, least octet first (sv2-spec 03-Protocol-Overview.md).  Messages are rows of
``tables/stratum2.toml``; a message of another type is passed over.
"""

import math
import struct
from functools import cache
from typing import Any, Final, Literal

import msgspec

from detector import tables

HEADER: Final = 6
MAX_FRAME: Final = 8 << 10
"""The longest message that is waited for: NewExtendedMiningJob with a coinbase of a few thousand octets."""

_FIRST: Final = frozenset({0, 1, 2})
_MOST_EXTENSION: Final = 0xFF
_OTHER: Final = -1
"""The type of a message of an extension, such as those that agree on extensions: it is passed over."""
_ORDERS: Final[tuple[Literal["big", "little"], ...]] = ("big", "little")
_OF_CHANNEL: Final = b"\0\x80"
"""The extension type of a channel's message, of which those that come often are."""
_NUMBERS: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
_BLOBS: Final = {"str": (1, 255), "b32": (1, 32), "b255": (1, 255), "b64k": (2, 65535)}
_WORKER: Final = frozenset({b"\0\2\1", b"\2\0\1"})
"""Before the length and the text of a worker's name (extension 2), as printed, and as other numbers are."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row: who sends it, and its members in order, ``name:type``."""

    id: int
    name: str
    side: Literal["client", "server"]
    members: tuple[str, ...]
    channel: Literal["no", "yes", "any"] = "no"


@cache
def load() -> dict[int, Message]:
    """The rows by id."""
    return {m.id: m for m in tables.rows("stratum2", "message", Message)}


def header(data: bytes, at: int) -> tuple[int, int] | None:
    """Type and length of the frame at ``at``, None where it is cut.  Raises ValueError on what is none."""
    if len(data) < at + HEADER:
        return None
    extension = int.from_bytes(data[at : at + 2], "little")
    kind, size = data[at + 2], int.from_bytes(data[at + 3 : at + 6], "little")
    if 0 < extension <= _MOST_EXTENSION and size <= MAX_FRAME:
        return _OTHER, size
    row = load().get(kind)
    of_channel = extension >> 15
    if row is not None and row.channel != "any" and of_channel != (row.channel == "yes"):
        raise ValueError("a channel's message without a channel, or the other way")
    if extension & 0x7FFF or size > MAX_FRAME or (row is None and kind > 0x25):
        raise ValueError("no message of mining")
    return kind, size


def begins(data: bytes, *, joined: bool) -> bool | None:
    """Whether frames begin here; None while they could.  A stream begins with its setup; one that was joined
    with any message that is whole."""
    if data[:1] != b"\0" or (len(data) > 1 and data[1] & 0x7F):
        return False
    try:
        found = header(data, 0)
        if found is None:
            return None
        kind, size = found
        if not joined and kind not in _FIRST:
            return False
        if len(data) < HEADER + size:
            return False if joined else None
        return load().get(kind) is not None and bool(read(kind, data[HEADER : HEADER + size]))
    except ValueError:
        return False


def find(data: bytes) -> int:
    """Where frames go on in a stream that was joined within one, -1 where none do: the first from which every
    frame that is whole can be read, and whatever is cut at the end begins as one."""
    if begins(data, joined=True):
        return 0
    at = data.find(_OF_CHANNEL, 1)
    while 0 < at < MAX_FRAME:
        if _goes_on(data, at):
            return at
        at = data.find(_OF_CHANNEL, at + 1)
    return -1


def _goes_on(data: bytes, at: int) -> bool:
    read_some = False
    try:
        while at < len(data):
            after, message = step(data, at)
            if after == at:
                return read_some
            if message is None:
                return False
            read_some, at = True, after
    except ValueError:
        return False
    return read_some


def step(data: bytes, at: int) -> tuple[int, bytes | None]:
    """Read the frame at ``at``: where it ends, its object; ``at`` itself where it is not whole.  Raises
    ValueError on what is no frame."""
    found = header(data, at)
    if found is None or len(data) < at + HEADER + found[1]:
        return at, None
    kind, size = found
    end = at + HEADER + size
    if kind not in load():
        return end, None
    return end, msgspec.json.encode(read(kind, data[at + HEADER : end]))


def read(kind: int, payload: bytes) -> dict[str, Any]:
    """The message's members; hashes and targets in hex, most significant digit first, those of a merkle path
    as sent; the id of a share is its channel and its number.  Raises ValueError where they do not fill the
    payload."""
    row = load()[kind]
    said: dict[str, Any] = {"stratum2": row.name}
    at = 0
    for member in row.members:
        if member == "extensions":
            said["worker"], at = worker(payload[at:]), len(payload)
            break
        if member.endswith("?") and at == len(payload):
            break
        name, _, form = member.removesuffix("?").partition(":")
        said[name], at = _value(form, payload, at)
    if at != len(payload):
        raise ValueError("a message of another length")
    if said.get("protocol"):
        raise ValueError("another protocol than mining's")
    if "sequence_number" in said:
        said["id"] = f"{said['channel_id']}/{said['sequence_number']}"
    return said


def worker(extensions: bytes) -> str:
    """The worker's name among extensions, "" where there is none."""
    at = 5
    while at <= len(extensions):
        end = at + min(int.from_bytes(extensions[at - 2 : at], order) for order in _ORDERS)
        if extensions[at - 5 : at - 2] in _WORKER:
            return extensions[at:end].decode("utf-8", "replace")
        at = end + 5
    return ""


def _value(form: str, data: bytes, at: int) -> tuple[Any, int]:
    """One member, and where it ends.  Raises ValueError."""
    if form in _NUMBERS:
        end = at + _NUMBERS[form]
        return int.from_bytes(_cut(data, at, end), "little"), end
    if form == "u256":
        return f"{int.from_bytes(_cut(data, at, at + 32), 'little'):064x}", at + 32
    if form == "f32":
        told = struct.unpack("<f", _cut(data, at, at + 4))[0]
        return (told if math.isfinite(told) else None), at + 4
    if form == "option_u32":
        return _value("u32", data, at + 1) if _cut(data, at, at + 1)[0] else (None, at + 1)
    if form == "hashes":
        end = at + 1 + 32 * _cut(data, at, at + 1)[0]
        told = _cut(data, at + 1, end).hex()
        return [told[k : k + 64] for k in range(0, len(told), 64)], end
    if form == "numbers":
        count, at = _value("u16", data, at)
        return list(struct.unpack(f"<{count}I", _cut(data, at, at + 4 * count))), at + 4 * count
    before, most = _BLOBS[form]
    size, at = _value("u8" if before == 1 else "u16", data, at)
    if size > most:
        raise ValueError("longer than it may be")
    octets = _cut(data, at, at + size)
    return (octets.decode("utf-8", "replace") if form == "str" else octets.hex()), at + size


def _cut(data: bytes, at: int, end: int) -> bytes:
    if end > len(data):
        raise ValueError("the message ends before its members")
    return data[at:end]
