"""goflow2's messages laid out as Kafka stores them: batches of ``flows`` in, sections of records out.

A section is what one record batch of one partition holds before it is compressed: records one after the other
(Kafka's protocol guide, "Record Batch", magic 2), each with one message or several as its value and an
exporter's address as its key.  A compiled pass makes them: to hand the client library one message after the
other takes it tens of microseconds each, by estimate, which is to decode a hundred records.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors import wire
from collectors.exporting import flowmessage
from collectors.jit import bare as kernel

# Messages that are laid out together: a partition gets so many, divided by the number of partitions.
ENOUGH: Final = 16_384
_ROOM: Final = ENOUGH + wire.MAX_ROWS
# Octets of a record beside its value: its length 5, attributes and time 2, number 3, key 17, the value's
# length 4, headers 1.
AROUND: Final = 32
_LOW: Final = np.uint64(0xFFFFFFFF)


class Section(NamedTuple):
    """Records of one partition, their octets good until the next ``take``; how many, and messages in them."""

    partition: int
    octets: memoryview
    records: int
    messages: int


@kernel
def _size(value):
    """Octets of a length as ``_length`` writes it."""
    value <<= 1
    n = 1
    while value > 0x7F:
        value >>= 7
        n += 1
    return n


@kernel
def _length(out, at, value):
    """Write a length or number as records have them: zigzag, a varint; the place behind it."""
    value <<= 1
    while value > 0x7F:
        out[at] = value & 0x7F | 0x80
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@kernel
def murmur2(octets, begin, size):
    """Kafka's hash of a key of 4 n octets (``Utils.murmur2`` of its clients): a producer of the same keys
    finds the same partitions."""
    m = np.uint64(0x5BD1E995)
    h = np.uint64(0x9747B28C) ^ np.uint64(size)
    for i in range(begin, begin + size, 4):
        k = np.uint64(0)
        for j in range(4):
            k |= np.uint64(octets[i + j]) << np.uint64(8 * j)
        k = k * m & _LOW
        k ^= k >> np.uint64(24)
        k = k * m & _LOW
        h = h * m & _LOW
        h ^= k
    h ^= h >> np.uint64(13)
    h = h * m & _LOW
    return np.int64((h ^ (h >> np.uint64(15))) & np.uint64(0x7FFFFFFF))


@kernel
def _key(octets, row):
    """Octets of an exporter's address that are its key: 4 of an IPv4 one, else 16."""
    begin = 16 * row
    for i in range(10):
        if octets[begin + i]:
            return 16
    return 4 if octets[begin + 10] == 0xFF and octets[begin + 11] == 0xFF else 16


@kernel
def _grouped(n, words, slots, seed, group, first, count):
    """Number the exporters in ``words`` (n, 2) u8 in the order of their first message; how many."""
    for i in range(slots.size):
        slots[i] = -1
    mask = np.uint64(slots.size - 1)
    groups = 0
    for m in range(n):
        high, low = words[m, 0], words[m, 1]
        if m and words[m - 1, 0] == high and words[m - 1, 1] == low:
            g = np.int64(group[m - 1])
        else:
            x = (low ^ seed) * np.uint64(0x9E3779B97F4A7C15) ^ high
            x = (x ^ (x >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
            at = np.int64((x ^ (x >> np.uint64(29))) & mask)
            while slots[at] >= 0 and (
                words[first[slots[at]], 0] != high or words[first[slots[at]], 1] != low
            ):
                at = (at + 1) & np.int64(mask)
            if slots[at] < 0:
                slots[at] = groups
                first[groups] = m
                count[groups] = 0
                groups += 1
            g = np.int64(slots[at])
        group[m] = g
        count[g] += 1
    return groups


@kernel
def _ordered(n, groups, group, count, part, starts, order):
    """Put messages in the order of partitions, then of groups; those of a group keep theirs."""
    for p in range(starts.size):
        starts[p] = 0
    for g in range(groups):
        starts[part[g]] += count[g]
    total = 0
    for p in range(starts.size):
        total += starts[p]
        starts[p] = total - starts[p]
    for g in range(groups):
        at = starts[part[g]]
        starts[part[g]] += count[g]
        count[g] = at
    for m in range(n):
        g = group[m]
        order[count[g]] = m
        count[g] += 1


@kernel
def _lay(n, octets, begins, words, addresses, given, scratch, out, sections):
    """Lay ``n`` messages out; how many sections.

    ``given`` (5,) i8: partitions; messages a value; whether records have keys, and the partition of those
    that have none; octets that a section may have.  ``sections`` (s, 5) i8: partition, begin, end, records,
    messages.
    """
    slots, seed, group, first, count, part, starts, order = scratch
    partitions, most_messages, keyed, other, most = given[0], given[1], given[2], given[3], given[4]
    if keyed:
        groups = _grouped(n, words, slots, seed[0], group, first, count)
        for g in range(groups):
            key = _key(addresses, first[g])
            part[g] = murmur2(addresses, 16 * first[g] + 16 - key, key) % partitions
    else:
        groups = 1
        first[0], count[0], part[0] = 0, n, other
        for m in range(n):
            group[m] = 0
    _ordered(n, groups, group, count, part, starts, order)
    at, s, i = 0, -1, 0
    while i < n:
        g = group[order[i]]
        size, j = 0, i
        while j < n and j - i < most_messages and group[order[j]] == g:
            size += begins[order[j] + 1] - begins[order[j]]
            j += 1
        key = _key(addresses, first[g]) if keyed else 0
        # Attributes, the difference of time, the count of headers, and a length for each of key and value.
        rest = 3 + 1 + key + _size(size) + size
        if s < 0 or sections[s, 0] != part[g] or (at - sections[s, 1] + rest + 10 > most):
            s += 1
            sections[s, 0], sections[s, 1], sections[s, 3], sections[s, 4] = part[g], at, 0, 0
        number = sections[s, 3]
        at = _length(out, at, rest + _size(number))
        out[at] = 0
        out[at + 1] = 0
        at = _length(out, at + 2, number)
        if keyed:
            out[at] = key << 1
            end = 16 * first[g] + 16
            for o in range(end - key, end):
                at += 1
                out[at] = addresses[o]
        else:
            out[at] = 1  # -1: there is none
        at = _length(out, at + 1, size)
        for r in range(i, j):
            begin = begins[order[r]]
            length = begins[order[r] + 1] - begin
            for o in range(length):
                out[at + o] = octets[begin + o]
            at += length
        out[at] = 0
        at += 1
        sections[s, 2] = at
        sections[s, 3] += 1
        sections[s, 4] += j - i
        i = j
    return s + 1


class Laying:
    """``add`` batches while there is room, then ``take`` their sections.

    ``most_bytes`` is what a section may have; ``seed`` keeps the table of exporters from being aimed at.
    """

    def __init__(
        self, partitions: int, messages_a_value: int, *, keyed: bool, most_bytes: int, seed: int = 0
    ) -> None:
        self._given = np.array([partitions, messages_a_value, keyed, 0, most_bytes], np.int64)
        self._octets = np.empty(_ROOM * flowmessage.MOST, np.uint8)
        self._begins = np.zeros(_ROOM + 1, np.int64)
        self._exporters = np.zeros((_ROOM, 2), np.uint64)
        self._scratch = (
            np.empty(1 << (2 * _ROOM - 1).bit_length(), np.int32), np.array([seed], np.uint64),
            np.empty(_ROOM, np.int32), np.empty(_ROOM, np.int32), np.empty(_ROOM, np.int64),
            np.empty(_ROOM, np.int64), np.empty(partitions, np.int64), np.empty(_ROOM, np.int32),
        )  # fmt: skip
        self._out = np.empty(_ROOM * (flowmessage.MOST + AROUND), np.uint8)
        self.messages = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to take: there is room for no more than what was added last may have been."""
        return self.messages >= ENOUGH

    def add(self, rows: wire.Batch) -> None:
        """Take the records of a batch of at most wire.MAX_ROWS rows; not while ``is_full``."""
        n = self.messages
        made = flowmessage.write(rows, self._octets, self._begins[n : n + rows.num_rows + 1])
        self._exporters[n : n + made] = _exporters(rows)
        self.messages += made

    def take(self) -> list[Section]:
        """What was added since, by partition, at least a section each that has any."""
        n, self.messages = self.messages, 0
        if not n:
            return []
        used = int(self._begins[n]) + n * AROUND
        sections = np.empty((int(self._given[0]) + 2 * used // int(self._given[4]) + 2, 5), np.int64)
        count = _lay(
            n, self._octets, self._begins, self._exporters, self._exporters.reshape(-1).view(np.uint8),
            self._given, self._scratch, self._out, sections,
        )  # fmt: skip
        # Without keys, one partition after the other.
        self._given[3] = (self._given[3] + 1) % self._given[0]
        data = self._out.data
        return [
            Section(partition, data[begin:end], records, messages)
            for partition, begin, end, records, messages in sections[:count].tolist()
        ]


def _exporters(rows: wire.Batch) -> np.ndarray:
    """(n, 2) u8 as they lie in memory, of the rows that have a message; zeros where it is null."""
    found = wire.values(rows, "exporter").reshape(-1).view(np.uint64).reshape(-1, 2)
    if rows.column("exporter").null_count:
        found = np.where(wire.valid(rows, "exporter")[:, None], found, np.uint64(0))
    copies = wire.values(rows, "copy") == 1
    return found[~copies] if copies.any() else found


def warm() -> None:
    """Compile the kernels, but for those of ``flowmessage``."""
    made = Laying(1, 1, keyed=True, most_bytes=1 << 20)
    made.messages = 1
    made.take()
