"""What a decoded datagram is before its records are read: a header and sets.

``v1``, ``v5``, ``v7``, ``v9`` and ``ipfix`` make one from bytes, or raise DecodeError.
"""

from typing import NamedTuple

from collectors.errors import DecodeError, Reason

SECOND_NS = 1_000_000_000


class Set(NamedTuple):
    """One set: its id and the octets after its header.  v1, v5 and v7 have one, of id 0."""

    id: int
    body: bytes


class Clock(NamedTuple):
    """When a datagram was exported: Unix time, and the exporter's uptime then, which wraps after 49 days."""

    export_ms: int
    uptime_ms: int

    def at(self, uptime_ms: int) -> int:
        """What time (Unix ms) another uptime is: the nearest to the export that it can be."""
        ahead = (uptime_ms - self.uptime_ms) & 0xFFFFFFFF
        return self.export_ms + (ahead - (1 << 32) if ahead >> 31 else ahead)


class Message(NamedTuple):
    """``export_ns`` Unix time; ``uptime_ms`` of the exporter, -1 in IPFIX; ``domain`` is the observation
    domain, source id, or engine type and id; ``sampling`` is v5's rate, 0 where it does not say.

    ``broken``: a set that does not fit ended the datagram early; those before it stand.
    """

    version: int
    domain: int
    sequence: int
    export_ns: int
    uptime_ms: int
    sampling: int
    sets: tuple[Set, ...]
    broken: Reason | None = None

    @property
    def clock(self) -> Clock | None:
        """What the times of its records count from; None in IPFIX."""
        return Clock(self.export_ns // 1_000_000, self.uptime_ms) if self.uptime_ms >= 0 else None


def u2(data: bytes, at: int) -> int:
    """Two octets, most significant first."""
    return int.from_bytes(data[at : at + 2], "big")


def u4(data: bytes, at: int) -> int:
    """Four octets, most significant first."""
    return int.from_bytes(data[at : at + 4], "big")


def header(data: bytes, version: int, size: int) -> None:
    """Raise DecodeError unless ``data`` has room for the header and is of the version."""
    if len(data) < size:
        raise DecodeError(Reason.SHORT, f"{len(data)} bytes, a header is {size}")
    if u2(data, 0) != version:
        raise DecodeError(Reason.VERSION, f"version {u2(data, 0)}")


def fixed(datagram: bytes, version: int, head: int, record: int) -> Message:
    """A datagram of a fixed layout, of ``head`` and ``record`` octets: v1, v5, v7.  Raises DecodeError.

    The count is trusted before the room: what follows the last record is ignored.  A count larger than the
    room is refused, for then it is not known where a record begins that matters.
    """
    header(datagram, version, head)
    count = u2(datagram, 2)
    end = head + count * record
    if end > len(datagram):
        raise DecodeError(Reason.LENGTH, f"{count} records in {len(datagram)} bytes")
    return Message(
        version=version,
        domain=0,
        sequence=0,
        export_ns=u4(datagram, 8) * SECOND_NS + min(u4(datagram, 12), SECOND_NS - 1),
        uptime_ms=u4(datagram, 4),
        sampling=0,
        sets=(Set(0, datagram[head:end]),),
    )


def sets(data: bytes, at: int, end: int) -> tuple[tuple[Set, ...], Reason | None]:
    """The sets that begin in ``data[at:end]``; up to three octets after the last are padding.

    The last may end after ``end``, but not after the datagram: lengths in headers that leave padding out were
    seen (telegraf #14370).
    """
    found: list[Set] = []
    while end - at >= 4:
        size = u2(data, at + 2)
        if size < 4 or at + size > len(data):
            # Zeros to the end are padding too: seen from exporters that round datagrams up.
            broken = Reason.LENGTH if any(data[at:end]) else None
            return tuple(found), broken
        found.append(Set(u2(data, at), data[at + 4 : at + size]))
        at += size
    return tuple(found), None
