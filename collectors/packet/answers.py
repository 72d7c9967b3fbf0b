"""A DNS message in; the chain of names that was asked for, and the addresses at its end, out.

RFC 1035, only responses to a standard query.  Read are A, AAAA, CNAME, and the address hints of SVCB and
HTTPS (RFC 9460), of the Internet class; all else is stepped over, EDNS (RFC 6891) too.  Whoever answers is
not believed here: that is the caller's business.
"""

import re
import struct
from typing import Final, NamedTuple

from collectors.errors import DecodeError, Reason

# RFC 1035 section 2.3.4, and bounds of our own: no resolver that means well sends more.
MAX_NAME: Final = 255
MAX_HOPS: Final = 32
MAX_ALIASES: Final = 16
MAX_ADDRESSES: Final = 64

_HEADER: Final = struct.Struct(">HHHHHH")
_FIXED: Final = struct.Struct(">HHIH")
_MAPPED: Final = bytes(10) + b"\xff\xff"
_A: Final = 1
_CNAME: Final = 5
_AAAA: Final = 28
_SERVICES: Final = frozenset((64, 65))  # SVCB, HTTPS
_MAX_PARAMETERS: Final = 32
_IN: Final = 1
_ODD: Final = re.compile(r"[^!-\[\]-~]|\.")


class Address(NamedTuple):
    """One address: 16 bytes (IPv4 mapped), time to live in s, and whose it is: an index into the chain.

    Of a service's hint also the name that serves (its target), where it is another, its port and the first
    of its ALPN protocols, where they are given.
    """

    address: bytes
    ttl: int
    depth: int
    target: str | None = None
    port: int | None = None
    alpn: str | None = None


class Answer(NamedTuple):
    """``chain``: the name that was asked for, then each that it is an alias of, in turn."""

    chain: tuple[str, ...]
    addresses: tuple[Address, ...]


def escaped(label: bytes) -> str:
    """A label as text: lower case, everything but visible ASCII as ``\\DDD`` (RFC 1035 section 5.1)."""
    return _ODD.sub(lambda m: f"\\{ord(m[0]):03d}", label.lower().decode("latin-1"))


def escaped_protocol(protocol: bytes) -> str:
    """An ALPN protocol as text: ASCII as it is, other octets as ``\\DDD``."""
    return "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x5C else f"\\{b:03d}" for b in protocol)


def unpack(message: bytes, at: int) -> tuple[str, int]:
    """The name at ``at`` and the index after it.  Raises DecodeError.

    A pointer must lead to before the labels that it follows: so there are neither loops nor forward jumps.
    """
    labels: list[str] = []
    after, floor, size, hops = -1, at, 1, 0
    while True:
        if at >= len(message):
            raise DecodeError(Reason.SHORT, "the message ends in a name")
        n = message[at]
        if n == 0:
            return ".".join(labels), at + 1 if after < 0 else after
        if n >= 0xC0:
            if at + 2 > len(message):
                raise DecodeError(Reason.SHORT, "the message ends in a pointer")
            target = (n & 0x3F) << 8 | message[at + 1]
            after = at + 2 if after < 0 else after
            hops += 1
            if not _HEADER.size <= target < floor or hops > MAX_HOPS:
                raise DecodeError(Reason.CORRUPT, f"a pointer from {at} to {target}")
            floor = at = target
            continue
        size += n + 1
        if n >= 0x40 or size > MAX_NAME:
            raise DecodeError(Reason.CORRUPT, f"a label of {n}, a name of {size} octets")
        if at + 1 + n > len(message):
            raise DecodeError(Reason.SHORT, "the message ends in a label")
        labels.append(escaped(message[at + 1 : at + 1 + n]))
        at += 1 + n


def _skip(message: bytes, at: int) -> int:
    """The index after the name at ``at``, which is not read."""
    while at < len(message):
        n = message[at]
        if n >= 0xC0:
            return at + 2
        if n >= 0x40:
            raise DecodeError(Reason.CORRUPT, f"a label of {n} octets")
        at += 1 + n
        if n == 0:
            return at
    raise DecodeError(Reason.SHORT, "the message ends in a name")


class _Records:
    """What the answer section holds: targets by owner, addresses with their owners."""

    def __init__(self) -> None:
        self.aliases: dict[str, tuple[str, int]] = {}
        self.addresses: list[tuple[str, Address]] = []
        self.alias_count = 0

    def take(self, message: bytes, at: int) -> int:
        """Read the record at ``at``; returns the index after it."""
        start, (at, kind, ttl, size) = at, _record(message, at)
        data, at = at, at + size
        if kind == _CNAME:
            target, end = unpack(message, data)
            if end != at:
                raise DecodeError(Reason.LENGTH, "an alias that does not fill its record")
            self.alias_count += 1
            self.aliases.setdefault(unpack(message, start)[0], (target, ttl))
        elif kind in (_A, _AAAA):
            if size != (4 if kind == _A else 16):
                raise DecodeError(Reason.LENGTH, f"an address of {size} octets")
            address = message[data:at]
            mapped = _MAPPED + address if kind == _A else address
            self.addresses.append((unpack(message, start)[0], Address(mapped, ttl, 0)))
        elif kind in _SERVICES and size > 2:
            self.alias_count += 1
            owner = unpack(message, start)[0]
            self.addresses += [(owner, hint._replace(ttl=ttl)) for hint in _hints(message, data, at, owner)]
        if self.alias_count > MAX_ALIASES or len(self.addresses) > MAX_ADDRESSES:
            raise DecodeError(Reason.SIZE, "more records than anybody needs")
        return at


def _hints(message: bytes, at: int, end: int, owner: str) -> list[Address]:
    """The hints of a service in message[at:end] (RFC 9460 sections 2.2 and 7)."""
    priority = int.from_bytes(message[at : at + 2], "big")
    name, at = unpack(message, at + 2)
    parameters: dict[int, bytes] = {}
    while at < end:
        if at + 4 > end or len(parameters) >= _MAX_PARAMETERS:
            raise DecodeError(Reason.LENGTH, "parameters that do not fill their record")
        key, size = struct.unpack_from(">HH", message, at)
        parameters.setdefault(key, message[at + 4 : at + 4 + size])
        at += 4 + size
    if at != end:
        raise DecodeError(Reason.LENGTH, "parameters that do not fill their record")
    if priority == 0:
        return []  # an alias, which has no parameters
    alpn, port = parameters.get(1, b""), parameters.get(3, b"")
    v4, v6 = parameters.get(4, b""), parameters.get(6, b"")
    if len(v4) % 4 or len(v6) % 16:
        raise DecodeError(Reason.LENGTH, f"hints of {len(v4)} and {len(v6)} octets")
    hints = [_MAPPED + v4[i : i + 4] for i in range(0, len(v4), 4)]
    hints += [v6[i : i + 16] for i in range(0, len(v6), 16)]
    target = name if name and name != owner else None
    number = int.from_bytes(port, "big") if len(port) == 2 else None
    protocol = escaped_protocol(alpn[1 : 1 + alpn[0]]) if alpn else None
    return [Address(hint, 0, 0, target, number, protocol) for hint in hints]


def _record(message: bytes, at: int) -> tuple[int, int, int, int]:
    """Of the record at ``at``: (index of its data, type or 0 if not of the Internet, ttl, size)."""
    at = _skip(message, at)
    if at + _FIXED.size > len(message):
        raise DecodeError(Reason.SHORT, "the message ends in a record")
    kind, cls, ttl, size = _FIXED.unpack_from(message, at)
    at += _FIXED.size
    if at + size > len(message):
        raise DecodeError(Reason.SHORT, "the message ends in a record's data")
    # RFC 2181 section 8: with the top bit set it is 0.
    return at, kind if cls == _IN else 0, ttl if ttl < 1 << 31 else 0, size


def read(message: bytes) -> Answer | None:
    """Read one message; None where it tells of no name (an error, no question).  Raises DecodeError."""
    if len(message) < _HEADER.size:
        raise DecodeError(Reason.SHORT, f"{len(message)} octets, a header is {_HEADER.size}")
    _, flags, questions, answers, authorities, more = _HEADER.unpack_from(message)
    # QR, then OPCODE; RFC 9619: a query has one question at most.
    if flags & 0xF800 != 0x8000 or questions > 1:
        raise DecodeError(Reason.FORMAT, f"flags {flags:#06x}, {questions} questions")
    if flags & 0x0200:
        raise DecodeError(Reason.TRUNCATED, "the resolver cut it: the client will ask over TCP")
    at, asked = _HEADER.size, None
    if questions:
        asked, at = unpack(message, at)
        at += 4
    records = _Records()
    for _ in range(answers):
        at = records.take(message, at)
    for _ in range(authorities + more):
        at, _, _, size = _record(message, at)
        at += size
    if at != len(message):
        raise DecodeError(Reason.SHORT if at > len(message) else Reason.LENGTH, "its counts do not fit")
    return None if asked is None or flags & 0x000F else _follow(asked, records)


def _follow(asked: str, records: _Records) -> Answer:
    depth, lives = {asked: 0}, [1 << 31]
    name = asked
    while name in records.aliases:
        name, ttl = records.aliases[name]
        if name in depth:
            raise DecodeError(Reason.CORRUPT, "aliases in a circle")
        depth[name] = len(depth)
        lives.append(min(lives[-1], ttl))
    # An answer lives no longer than the aliases that led to it.
    found = [
        found._replace(ttl=min(found.ttl, lives[depth[owner]]), depth=depth[owner])
        for owner, found in records.addresses
        if owner in depth
    ]
    return Answer(tuple(depth), tuple(found))
