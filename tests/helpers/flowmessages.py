"""FlowMessage by hand, from its published field numbers: encoding, and decoding as anyone would write it."""

from ipaddress import ip_address

import numpy as np

NUMBERS = {
    "type": 1, "sampling_rate": 3, "sequence_num": 4, "src_addr": 6, "dst_addr": 7, "bytes": 9, "packets": 10,
    "sampler_address": 11, "src_as": 14, "dst_as": 15, "src_net": 16, "in_if": 18, "out_if": 19, "proto": 20,
    "src_port": 21, "dst_port": 22, "ip_tos": 23, "tcp_flags": 26, "vlan_id": 29, "etype": 30,
    "flow_direction": 42, "observation_domain_id": 70, "time_received_ns": 110, "time_flow_start_ns": 111,
    "time_flow_end_ns": 112,
}  # fmt: skip


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def packed(text):
    return ip_address(text).packed


def message(**fields):
    """One message without its length; addresses as text."""
    return b"".join(
        field(NUMBERS[name], packed(value) if isinstance(value, str) else value)
        for name, value in fields.items()
    )


def delimited(*messages):
    return b"".join(varint(len(m)) + m for m in messages)


class BadError(Exception):
    pass


def _read_varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data):
            raise BadError("truncated")
        if shift > 63:
            raise BadError("format")
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value & (1 << 64) - 1, at


def parse(data):
    """{field number: value}, the last of each that has the type that FlowMessage gives it."""
    out, at = {}, 0
    addresses = {6, 7, 11}
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if tag >> 32 or number == 0:
            raise BadError("format")
        if kind == 0:
            value, at = _read_varint(data, at)
            if number not in addresses:
                out[number] = value
        elif kind == 2:
            size, at = _read_varint(data, at)
            if size > len(data) - at:
                raise BadError("truncated")
            value, at = data[at : at + size], at + size
            if number in addresses and value:
                if size not in (4, 16):
                    raise BadError("not_ip")
                out[number] = value if size == 16 else bytes(10) + b"\xff\xff" + value
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
            if at > len(data):
                raise BadError("truncated")
        else:
            raise BadError("format")
    if 6 not in out or 7 not in out:
        raise BadError("not_ip")
    if out.get(21, 0) > 65535 or out.get(22, 0) > 65535 or out.get(20, 0) > 255:
        raise BadError("format")
    return out


def values_of(data):
    """Of one value the messages that can be read, and why others cannot: ``framing`` auto."""
    if not data:
        return [], ["short"]
    good, bad = [], []

    def take(part):
        try:
            good.append(parse(part))
        except BadError as error:
            bad.append(str(error))

    at = 0
    while at < len(data):
        try:
            size, inner = _read_varint(data, at)
        except BadError:
            size, inner = 1 << 70, at
        fits = size <= len(data) - inner
        if at == 0 and not (fits and inner + size == len(data)):
            try:
                return [parse(data)], []
            except BadError:
                pass
        if not fits:
            return good, [*bad, "length"]
        take(data[inner : inner + size])
        at = inner + size
    return good, bad


def plain(columns):
    """Rows of a decoder's columns as dicts; None is null."""
    out = []
    for part in columns:
        rows = [{} for _ in part["src"]]
        for name, column in part.items():
            cells, valid = column if isinstance(column, tuple) else (column, np.ones(len(rows), bool))
            for row, cell, ok in zip(rows, cells, valid, strict=True):
                row[name] = (cell.tobytes() if cell.ndim else int(cell)) if ok else None
        out += rows
    return out
