"""Rows of the streams ``flows`` and ``names``, from plain dicts."""

from ipaddress import ip_address

import numpy as np

from collectors import wire
from collectors.streams import FLOWS

SECOND = 10**9
HOUR = 3600 * SECOND
NOON = 1_795_348_800 * SECOND
"""2026-11-22 12:00 UTC."""
MINER, POOL, BROWSER = "198.51.100.7", "51.15.2.3", "198.51.100.8"
DATA, ATTEMPT = 0x1A, 0x02


def packed(text):
    made = ip_address(text)
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


BASE = {
    "subscriber": MINER, "copy": 0, "src": MINER, "dst": POOL, "src_port": 40_000, "dst_port": 3333,
    "protocol": 6, "t_first": NOON, "t_last": NOON + 60 * SECOND, "t_received": None, "bytes": 1200,
    "packets": 10, "reverse_bytes": 2500, "reverse_packets": 10, "tcp_flags": DATA, "reverse_tcp_flags": DATA,
    "sampling_rate": None, "source": 0, "exporter": None, "candidate": 0, "collector": "tap1",
}  # fmt: skip


def flows(*changes):
    """A ``flows`` batch: each of ``changes`` is laid over BASE; None is null."""
    names = dict.fromkeys((*BASE, *(name for change in changes for name in change)))
    rows = [dict.fromkeys(names) | BASE | change for change in changes]
    for row in rows:
        if row["t_received"] is None:
            row["t_received"] = row["t_last"]
    columns = {}
    kinds = {c.name: c for c in FLOWS}
    for name in names:
        cells = [row[name] for row in rows]
        column = kinds[name]
        if column.type == "text":
            columns[name] = cells
        elif column.type == "address":
            data = b"".join(packed(c) if c is not None else bytes(16) for c in cells)
            values = np.frombuffer(data, np.uint8).reshape(-1, 16)
            columns[name] = (values, [c is not None for c in cells]) if column.nullable else values
        elif column.type.startswith("list_"):
            offsets = np.cumsum([0, *(len(c or ()) for c in cells)], dtype=np.int32)
            values = np.array([v for c in cells for v in c or ()], np.int64)
            columns[name] = (offsets, values, np.array([c is not None for c in cells]))
        elif column.nullable:
            columns[name] = (np.array([c or 0 for c in cells], np.int64), [c is not None for c in cells])
        else:
            columns[name] = np.array(cells)
    return wire.batch("flows", len(rows), columns)


NAME = {
    "subscriber": MINER, "copy": 0, "t": NOON, "kind": 0, "name": "pool.supportxmr.com", "alias": None,
    "address": POOL, "port": None, "protocol": None, "ttl": 300, "resolver": "192.0.2.53", "alpn": None,
    "ja4": None, "collector": "tap1",
}  # fmt: skip


def names(*changes):
    """A ``names`` batch, each of ``changes`` laid over NAME."""
    import pyarrow as pa

    rows = [NAME | change for change in changes]
    for row in rows:
        for column in ("subscriber", "address", "resolver"):
            row[column] = None if row[column] is None else packed(row[column])
    made = pa.RecordBatch.from_pylist(rows, schema=wire.SCHEMAS["names"])
    return wire.decode("names", wire.encode(made))
