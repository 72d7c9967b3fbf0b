"""goflow2's FlowMessage: values of its topic in, columns of ``flows`` out.

Protocol Buffers (protobuf.dev, "Encoding"), the message ``flowpb.FlowMessage`` of goflow2 and, with other
numbers for a few fields, ``flowprotob.FlowMessage`` of cloudflare/goflow, which is older.  goflow2 writes one
message a value behind its length as a varint; without the length, and several of them in a value, are read
too.  A whole poll of values is decoded by one compiled call.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, Literal

import numpy as np

from collectors.errors import Reason
from collectors.importing.records import IMPORTED, MOST_NS, Columns, Stamps
from collectors.jit import bare as kernel

Framing = Literal["auto", "delimited", "plain"]
_FRAMINGS: Final[dict[str, int]] = {"auto": 0, "delimited": 1, "plain": 2}


class Slot(IntEnum):
    """Where the kernel puts a field: addresses first, then numbers."""

    SRC = 0
    DST = 1
    SAMPLER = 2
    RATE = 3
    BYTES = 4
    PACKETS = 5
    PROTOCOL = 6
    SRC_PORT = 7
    DST_PORT = 8
    TOS = 9
    TCP_FLAGS = 10
    INPUT = 11
    OUTPUT = 12
    SRC_AS = 13
    DST_AS = 14
    VLAN = 15
    DOMAIN = 16
    DIRECTION = 17
    RECEIVED = 18
    FIRST = 19
    LAST = 20


_SHARED: Final = {
    Slot.SRC: 6, Slot.DST: 7, Slot.SAMPLER: 11, Slot.RATE: 3, Slot.BYTES: 9, Slot.PACKETS: 10,
    Slot.PROTOCOL: 20, Slot.SRC_PORT: 21, Slot.DST_PORT: 22, Slot.TOS: 23, Slot.TCP_FLAGS: 26,
    Slot.INPUT: 18, Slot.OUTPUT: 19, Slot.SRC_AS: 14, Slot.DST_AS: 15, Slot.VLAN: 29, Slot.DIRECTION: 42,
}  # fmt: skip
# Field numbers of pb/flow.proto of goflow2 6d92c9e and of cloudflare/goflow v3.4.4.  goflow2 sends 42 where
# its mapping adds it; its times are nanoseconds, goflow's are seconds.
FIELDS: Final[dict[str, dict[Slot, int]]] = {
    "goflow2": _SHARED | {Slot.DOMAIN: 70, Slot.RECEIVED: 110, Slot.FIRST: 111, Slot.LAST: 112},
    "goflow": _SHARED | {Slot.RECEIVED: 2, Slot.FIRST: 38, Slot.LAST: 5},
}
_UNIT_NS: Final = {"goflow2": 1, "goflow": 1_000_000_000}
_ADDRESSES: Final = 3
_NUMBERS: Final = len(Slot) - _ADDRESSES
_KNOWN: Final = 128

REFUSALS: Final = (
    Reason.TRUNCATED, Reason.FORMAT, Reason.LENGTH, Reason.NOT_IP, Reason.SIZE, Reason.SHORT,
)  # fmt: skip
_TRUNCATED, _FORMAT, _LENGTH, _NOT_IP, _SIZE, _SHORT = -1, -2, -3, -4, -5, -6
# Rows that one call of the kernel fills.
_ROOM: Final = 1 << 16


# What a number may be at most, where more would be another flow.
_BOUNDS: Final = (
    (int(Slot.PROTOCOL) - _ADDRESSES, 0xFF),
    (int(Slot.SRC_PORT) - _ADDRESSES, 0xFFFF),
    (int(Slot.DST_PORT) - _ADDRESSES, 0xFFFF),
)


@kernel
def _varint(data, at, end):
    """(value, place behind it); the place is negative where there is none: _TRUNCATED or _FORMAT."""
    value = np.uint64(0)
    shift = 0
    while at < end:
        octet = data[at]
        at += 1
        value |= np.uint64(octet & 0x7F) << np.uint64(shift)
        if octet < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            return value, _FORMAT
    return value, _TRUNCATED


@kernel
def _message(data, at, end, slots, row, addresses, numbers, present):
    """Read one message into a row; 0, or why not.  The last of a field's occurrences counts."""
    seen = np.int64(0)
    while at < end:
        # Tags of one and two octets here, for all known fields have such, and a call is dear.
        if data[at] < 0x80:
            tag = np.int64(data[at])
            at += 1
        elif at + 1 < end and data[at + 1] < 0x80:
            tag = np.int64(data[at] & 0x7F) | np.int64(data[at + 1]) << 7
            at += 2
        else:
            told, at = _varint(data, at, end)
            if at < 0:
                return at
            if told >> np.uint64(32):
                return _FORMAT
            tag = np.int64(told)
        field = tag >> 3
        kind = tag & 7
        if field == 0:
            return _FORMAT
        slot = np.int64(slots[field]) if field < slots.size else np.int64(-1)
        if kind == 0:
            value = np.uint64(0)
            shift = np.uint64(0)
            while True:
                if at >= end:
                    return _TRUNCATED
                if shift > np.uint64(63):
                    return _FORMAT
                octet = data[at]
                at += 1
                value |= np.uint64(octet & 0x7F) << shift
                if octet < 0x80:
                    break
                shift += np.uint64(7)
            if slot >= _ADDRESSES:
                numbers[slot - _ADDRESSES, row] = value
                seen |= 1 << slot
        elif kind == 2:
            size, at = _varint(data, at, end)
            if at < 0:
                return at
            if size > np.uint64(end - at):
                return _TRUNCATED
            n = np.int64(size)
            if 0 <= slot < _ADDRESSES and n:
                if n not in (4, 16):
                    return _NOT_IP
                if n == 4:
                    addresses[slot, row, :10] = 0
                    addresses[slot, row, 10:12] = 255
                for i in range(n):
                    addresses[slot, row, 16 - n + i] = data[at + i]
                seen |= 1 << slot
            at += n
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
            if at > end:
                return _TRUNCATED
        else:  # groups are older than FlowMessage
            return _FORMAT
    for absent in range(_ADDRESSES):
        if not seen >> absent & 1:
            addresses[absent, row, :] = 0
    for absent in range(_ADDRESSES, _ADDRESSES + _NUMBERS):
        if not seen >> absent & 1:
            numbers[absent - _ADDRESSES, row] = 0
    present[row] = seen
    if seen & 3 != 3:
        return _NOT_IP
    for number, most in _BOUNDS:
        if numbers[number, row] > np.uint64(most):
            return _FORMAT
    return 0


@kernel
def _decode(data, at, size, framing, most, slots, cursor, addresses, numbers, present, owner, refused):
    """Decode values from ``cursor`` (value, place in it) on, until they are over or the rows are full; how
    many rows.  ``owner`` is each row's value."""
    rows = 0
    room = owner.size
    while cursor[0] < at.size:
        value = cursor[0]
        begin, end = at[value], at[value] + size[value]
        place = begin + cursor[1]
        if cursor[1] == 0 and (begin == end or size[value] > most):
            refused[-_SHORT - 1 if begin == end else -_SIZE - 1] += 1
            cursor[0] += 1
            continue
        if rows == room:
            return rows
        length, inner = _varint(data, place, end)
        fits = inner >= 0 and length <= np.uint64(end - inner)
        plain = framing == 2
        if framing == 0 and cursor[1] == 0 and not (fits and length == np.uint64(end - inner)):
            # Not one message behind its length: one without, or several.
            plain = _message(data, begin, end, slots, rows, addresses, numbers, present) == 0
        if plain:
            code = _message(data, begin, end, slots, rows, addresses, numbers, present)
            cursor[1] = size[value]
        elif not fits:
            code = _LENGTH
            cursor[1] = size[value]
        else:
            code = _message(data, inner, inner + np.int64(length), slots, rows, addresses, numbers, present)
            cursor[1] = inner + np.int64(length) - begin
        if code == 0:
            owner[rows] = value
            rows += 1
        else:
            refused[-code - 1] += 1
        if cursor[1] >= size[value]:
            cursor[0] += 1
            cursor[1] = 0
    return rows


class Decoder:
    """Decodes values of one topic.  ``decode`` is its verb."""

    def __init__(self, kind: str = "goflow2", framing: Framing = "auto", most_bytes: int = 1 << 20) -> None:
        """``kind`` is a key of FIELDS; a value larger than ``most_bytes`` is refused."""
        self._unit_ns = _UNIT_NS[kind]
        self._framing = _FRAMINGS[framing]
        self._most = most_bytes
        self._slots = np.full(_KNOWN, -1, np.int8)
        for slot, field in FIELDS[kind].items():
            self._slots[field] = slot
        self._addresses = np.zeros((_ADDRESSES, _ROOM, 16), np.uint8)
        self._numbers = np.zeros((_NUMBERS, _ROOM), np.uint64)
        self._present = np.zeros(_ROOM, np.int64)
        self._owner = np.zeros(_ROOM, np.int64)
        self._refused = np.zeros(len(REFUSALS), np.int64)

    def decode(self, values: Sequence[bytes | None], stamps: Stamps) -> list[Columns]:
        """Records of ``values`` as columns, in their order; ``stamps`` (n,) i8 is when Kafka had each, Unix
        ns, for records that do not say when they were received.  What could not be read is in ``refused``."""
        given: Any = [value or b"" for value in values] if None in values else values
        size = np.fromiter(map(len, given), np.int64, len(given))
        at = np.cumsum(size) - size
        data = np.frombuffer(b"".join(given) or b"\0", np.uint8)
        cursor = np.zeros(2, np.int64)
        out: list[Columns] = []
        while cursor[0] < size.size:
            rows = _decode(
                data, at, size, self._framing, self._most, self._slots, cursor, self._addresses,
                self._numbers, self._present, self._owner, self._refused,
            )  # fmt: skip
            if rows:
                out.append(self._columns(rows, stamps))
        return out

    def refused(self) -> dict[Reason, int]:
        """What was refused since the last call, by reason."""
        told = dict(zip(REFUSALS, self._refused.tolist(), strict=True))
        self._refused[:] = 0
        return {reason: n for reason, n in told.items() if n}

    def _columns(self, rows: int, stamps: Stamps) -> Columns:
        def number(slot: Slot) -> np.ndarray:
            return self._numbers[slot - _ADDRESSES, :rows]

        def told(slot: Slot, kind: type) -> tuple[np.ndarray, np.ndarray]:
            """proto3 leaves out zeros: of these columns zero says nothing."""
            most = np.uint64(np.iinfo(kind).max)
            values = number(slot)
            return values.astype(kind), (values > 0) & (values <= most)

        def time(slot: Slot) -> np.ndarray:
            values = number(slot)
            return np.where(values <= MOST_NS // self._unit_ns, values, 0).astype(np.int64) * self._unit_ns

        received = time(Slot.RECEIVED)
        received = np.where(received > 0, received, stamps[self._owner[:rows]])
        last = np.where(time(Slot.LAST) > 0, time(Slot.LAST), received)
        first = np.where(time(Slot.FIRST) > 0, np.minimum(time(Slot.FIRST), last), last)
        present = self._present[:rows]
        return {
            "src": self._addresses[Slot.SRC, :rows].copy(), "dst": self._addresses[Slot.DST, :rows].copy(),
            "src_port": number(Slot.SRC_PORT).astype(np.uint16),
            "dst_port": number(Slot.DST_PORT).astype(np.uint16),
            "protocol": number(Slot.PROTOCOL).astype(np.uint8),
            "t_first": first, "t_last": last, "t_received": received,
            "bytes": number(Slot.BYTES).copy(), "packets": number(Slot.PACKETS).copy(),
            "source": np.full(rows, IMPORTED, np.uint8),
            "sampling_rate": told(Slot.RATE, np.uint32),
            "exporter": (self._addresses[Slot.SAMPLER, :rows].copy(), present >> Slot.SAMPLER & 1 > 0),
            "domain": (number(Slot.DOMAIN).astype(np.uint32), present >> Slot.DOMAIN & 1 > 0),
            "input_interface": told(Slot.INPUT, np.uint32), "output_interface": told(Slot.OUTPUT, np.uint32),
            "direction": (
                number(Slot.DIRECTION).astype(np.uint8),
                (present >> Slot.DIRECTION & 1 > 0) & (number(Slot.DIRECTION) < np.uint64(2)),
            ),
            "src_as": told(Slot.SRC_AS, np.uint32), "dst_as": told(Slot.DST_AS, np.uint32),
            "tos": told(Slot.TOS, np.uint8), "tcp_flags": told(Slot.TCP_FLAGS, np.uint16),
            "vlan": told(Slot.VLAN, np.uint16),
        }  # fmt: skip
