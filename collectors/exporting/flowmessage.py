"""goflow2's FlowMessage: a batch of ``flows`` in, the messages that goflow2 would write out.

Protocol Buffers (protobuf.dev, "Encoding"), the message ``flowpb.FlowMessage`` of goflow2 6d92c9e: each
behind its length as a varint, fields in the order of their numbers, zeros left out as proto3 does.  Octets
and packets are as exported, not multiplied by the sampling rate.  ``collectors.importing.flowmessage`` is the
way back.
"""

from typing import Final

import numpy as np

from collectors import wire
from collectors.jit import bare as kernel
from collectors.reading import big

# ``source`` to FlowType; what goflow2 does not know, NetFlow v1 and v7 among it, is 0.
TYPES: Final = {1: 1, 5: 2, 9: 3, 10: 4}
_TYPE_OF: Final = np.zeros(256, np.uint8)
_TYPE_OF[list(TYPES)] = list(TYPES.values())
# Octets that a message takes at most, its length included: every field there, every number its largest.
MOST: Final = 185
_MAPPED_WORD: Final = np.uint64(0xFFFF)
_IPV4, _IPV6 = np.uint64(0x0800), np.uint64(0x86DD)
_ADDRESSES: Final = ("src", "dst", "exporter")
_U8: Final = ("bytes", "packets")
_I8: Final = ("t_received", "t_first", "t_last")
_U4: Final = ("sampling_rate", "src_as", "dst_as", "input_interface", "output_interface", "domain")
_U2: Final = ("src_port", "dst_port", "tcp_flags", "vlan")
_U1: Final = ("source", "copy", "protocol", "tos")


@kernel
def _number(out, at, field, value):
    """Write a field unless it is zero; the place behind it."""
    if value == 0:
        return at
    tag = field << 3
    if tag < 0x80:
        out[at] = tag
        at += 1
    else:
        out[at] = tag & 0x7F | 0x80
        out[at + 1] = tag >> 7
        at += 2
    while value > np.uint64(0x7F):
        out[at] = value & np.uint64(0x7F) | np.uint64(0x80)
        value >>= np.uint64(7)
        at += 1
    out[at] = value
    return at + 1


@kernel
def _address(out, at, field, addresses, row, four):
    """Write an address, of IPv4 its four octets; the place behind it."""
    out[at] = field << 3 | 2
    size = 4 if four else 16
    out[at + 1] = size
    at += 2
    begin = 16 * row + 16 - size
    for i in range(size):
        out[at + i] = addresses[begin + i]
    return at + size


@kernel
def _is_four(addresses, row):
    """Whether an address is an IPv4 one, mapped."""
    low = big(addresses, 16 * row + 8)
    return big(addresses, 16 * row) == np.uint64(0) and low >> np.uint64(32) == _MAPPED_WORD


@kernel
def _positive(value):
    return np.uint64(value) if value > 0 else np.uint64(0)


@kernel
def _encode(addresses, told, u8, i8, u4, u2, u1, types, out, offsets):
    """Write a message for each row that is not a second copy, from ``offsets[0]`` on; how many.  The tuples
    are the columns above; ``told`` (n,) says where there is an exporter."""
    src, dst, exporter = addresses
    octets, packets = u8
    received, first, last = i8
    rate, src_as, dst_as, input_interface, output_interface, domain = u4
    src_port, dst_port, tcp_flags, vlan = u2
    source, copy, protocol, tos = u1
    count = 0
    at = offsets[0]
    for row in range(source.size):
        if copy[row] == 1:
            continue
        # One octet is left for the length.
        begin = at
        at += 1
        src_four, dst_four = _is_four(src, row), _is_four(dst, row)
        at = _number(out, at, 1, np.uint64(types[source[row]]))
        at = _number(out, at, 3, np.uint64(rate[row]))
        at = _address(out, at, 6, src, row, src_four)
        at = _address(out, at, 7, dst, row, dst_four)
        at = _number(out, at, 9, octets[row])
        at = _number(out, at, 10, packets[row])
        if told[row]:
            at = _address(out, at, 11, exporter, row, _is_four(exporter, row))
        at = _number(out, at, 14, np.uint64(src_as[row]))
        at = _number(out, at, 15, np.uint64(dst_as[row]))
        at = _number(out, at, 18, np.uint64(input_interface[row]))
        at = _number(out, at, 19, np.uint64(output_interface[row]))
        at = _number(out, at, 20, np.uint64(protocol[row]))
        at = _number(out, at, 21, np.uint64(src_port[row]))
        at = _number(out, at, 22, np.uint64(dst_port[row]))
        at = _number(out, at, 23, np.uint64(tos[row]))
        at = _number(out, at, 26, np.uint64(tcp_flags[row]))
        at = _number(out, at, 29, np.uint64(vlan[row]))
        at = _number(out, at, 30, _IPV4 if src_four and dst_four else _IPV6)
        at = _number(out, at, 70, np.uint64(domain[row]))
        at = _number(out, at, 110, _positive(received[row]))
        at = _number(out, at, 111, _positive(first[row]))
        at = _number(out, at, 112, _positive(last[row]))
        size = at - begin - 1
        if size < 0x80:
            out[begin] = size
        else:
            for i in range(at, begin + 1, -1):
                out[i] = out[i - 1]
            out[begin] = size & 0x7F | 0x80
            out[begin + 1] = size >> 7
            at += 1
        count += 1
        offsets[count] = at
    return count


def _column(rows: wire.Batch, name: str, kind: type = np.uint8, cells: int = 1) -> np.ndarray:
    """A column's values, flat, zero where it is null.  Not to be written, as those of a batch are: the kernel
    is compiled for that, once."""
    column = rows.column(name)
    if column.null_count == rows.num_rows:
        values = np.zeros(rows.num_rows * cells, kind)
    else:
        values = wire.values(rows, name).reshape(-1)
        if column.null_count and cells == 1:
            values = np.where(wire.valid(rows, name), values, kind(0))
    values.flags.writeable = False
    return values


def encode(rows: wire.Batch) -> tuple[np.ndarray, np.ndarray]:
    """(octets (m,) u1, offsets (n + 1,) i8): message i, with its length before it, is octets[o[i]:o[i + 1]].

    Rows that are the second copy of a record have none, so that a record is one message.
    """
    if not rows.num_rows:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    out = np.empty(rows.num_rows * MOST, np.uint8)
    offsets = np.zeros(rows.num_rows + 1, np.int64)
    count = write(rows, out, offsets)
    return out[: offsets[count]], offsets[: count + 1]


def write(rows: wire.Batch, out: np.ndarray, offsets: np.ndarray) -> int:
    """As ``encode``, into memory that is there: ``out`` (m,) u1 from ``offsets[0]`` on, with room for MOST
    octets a row; ``offsets`` (n + 1,) i8 is filled.  How many messages."""
    if not rows.num_rows:
        return 0
    told = wire.valid(rows, "exporter")
    told.flags.writeable = False
    count: int = _encode(
        tuple(_column(rows, name, cells=16) for name in _ADDRESSES),
        told,
        *(
            tuple(_column(rows, name, kind) for name in names)
            for names, kind in (
                (_U8, np.uint64), (_I8, np.int64), (_U4, np.uint32), (_U2, np.uint16), (_U1, np.uint8),
            )
        ),
        _TYPE_OF, out, offsets,
    )  # fmt: skip
    return count


def warm() -> None:
    """Compile the kernel, by a row that is a second copy."""
    ends = np.zeros((1, 16), np.uint8)
    names = ("src_port", "dst_port", "protocol", *_U8, *_I8, "source", "candidate")
    needed = dict.fromkeys(names, np.zeros(1))
    given = needed | {"subscriber": ends, "src": ends, "dst": ends, "copy": np.ones(1), "collector": ""}
    encode(wire.batch("flows", 1, given))
