"""From table rows, chunks and sightings to batches of the streams: columns oriented, owned and cut.

A connection's record runs from its initiator, where that is known, else from the sender of its first
packet.  All functions are pure; rows of one partition keep their order.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from collectors import wire
from collectors.jit import bare as kernel
from collectors.packet import lasting
from collectors.packet.frames import NO_VLAN
from collectors.packet.names import Sighting
from collectors.packet.pages import Page
from collectors.packet.table import PICKED
from collectors.packet.vias import Columns, Vias, columns
from collectors.subscribers import Owned

_TCP: Final = 6
# Two names, each up to a kilobyte when every octet is escaped, and two copies of each row.
MAX_NAMES: Final = 1024
Span = tuple[int, int]


class Left(NamedTuple):
    """Rows that left the table, as ``ageing.Outputs`` has them: exports, exported and lasted."""

    rows: np.ndarray
    t: np.ndarray
    lasted: np.ndarray


def together(parts: Sequence[Left]) -> Left:
    """All of several, in their order."""
    return Left(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True)
class FlowColumns:
    """``rows`` (n,) ROW, ``t`` (n,) i8 when each left the table, ``lasted`` (n,) LASTING what was kept of it
    (where ``rows`` say so); ``d`` (n,) the direction that is forward; the oriented 5-tuple; how they came."""

    rows: np.ndarray
    t: np.ndarray
    lasted: np.ndarray
    d: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    src_port: np.ndarray
    dst_port: np.ndarray
    via: Columns


def _addresses(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """(n, 16) u1 from the two halves."""
    return np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(-1, 16)


def flow_columns(left: Left, known: Vias) -> FlowColumns:
    """Orient exported rows: ROW records, as the table holds them; ``known`` tells how they came."""
    rows = left.rows
    d = np.where(rows["initiator"] > 0, rows["initiator"].astype(np.int64) - 1, rows["sender"])
    a = _addresses(rows["a_high"], rows["a_low"])
    b = _addresses(rows["b_high"], rows["b_low"])
    back = d == 1
    return FlowColumns(
        rows,
        left.t,
        left.lasted,
        d,
        np.where(back[:, None], b, a),
        np.where(back[:, None], a, b),
        np.where(back, rows["b_port"], rows["a_port"]),
        np.where(back, rows["a_port"], rows["b_port"]),
        columns(known, rows, d),
    )


def _order(owned: Owned) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Places in ``owned`` by partition, each in its order; and (partition, first, last) of the messages."""
    places = np.argsort(owned.partition, kind="stable")
    parts, first = np.unique(owned.partition[places], return_index=True)
    runs: list[tuple[int, int, int]] = []
    if not places.size:
        return places, runs
    for part, a, b in zip(parts.tolist(), first.tolist(), [*first[1:].tolist(), places.size], strict=True):
        runs += [(part, at, min(at + wire.MAX_ROWS, b)) for at in range(a, b, wire.MAX_ROWS)]
    return places, runs


def _sizes(sizes: np.ndarray, sized: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 8) and how many of each row count, as an Arrow list column."""
    offsets = np.zeros(sized.size + 1, np.int32)
    np.cumsum(sized, out=offsets[1:])
    return offsets, sizes[np.arange(8) < sized[:, None]]


def _lasting(lasted: np.ndarray, forward: np.ndarray, have: np.ndarray) -> dict[str, object]:
    """Columns of what was kept of connections that lasted; none where that is nobody here."""
    if not have.any():
        return {}
    return {
        "pushes": lasting.pushes(lasted),
        "record_sizes": lasting.records(lasted, forward, have),
        "reverse_record_sizes": lasting.records(lasted, 1 - forward, have),
    }


def flow_batches(
    given: FlowColumns, owned: Owned, collector: str, received_ns: int | None
) -> Iterator[tuple[int, wire.Batch, Span]]:
    """(partition, batch, (t_first, t_last)) of ``flows``.  Without ``received_ns``, the data's own time.

    One batch is built and cut by partition: to build forty columns costs more than to fill them.
    """
    places, runs = _order(owned)
    i = owned.row[places]
    r, f = given.rows[i], given.d[i]
    n = np.arange(i.size)
    tcp = r["protocol"] == _TCP
    via = Columns(*(column[i] for column in given.via))
    received = given.t[i] if received_ns is None else np.full(i.size, received_ns)
    lasted, have = given.lasted[i], r["lasting"] > 0
    lasted["pushes"][~have] = 0
    batch = wire.batch(
        "flows",
        i.size,
        {
            "subscriber": owned.subscriber[places],
            "copy": owned.copy[places],
            "src": given.src[i],
            "dst": given.dst[i],
            "src_port": given.src_port[i],
            "dst_port": given.dst_port[i],
            "protocol": r["protocol"],
            "t_first": r["t_first"],
            "t_last": r["t_last"],
            "t_received": received,
            "bytes": r["octets"][n, f],
            "packets": r["packets"][n, f],
            "reverse_bytes": r["octets"][n, 1 - f],
            "reverse_packets": r["packets"][n, 1 - f],
            "tcp_flags": (r["tcp_flags"][n, f], tcp),
            "reverse_tcp_flags": (r["tcp_flags"][n, 1 - f], tcp),
            "sampling_rate": np.ones(i.size, np.uint32),
            "source": np.zeros(i.size, np.uint8),
            "vlan": (via.vlan, via.vlan != NO_VLAN),
            "end_reason": r["end_reason"],
            "t_open": r["t_open"],
            "initiator": np.where(r["initiator"] > 0, 1, 0),
            "payload_packets": r["payload_packets"][n, f],
            "reverse_payload_packets": r["payload_packets"][n, 1 - f],
            "payload_bytes": r["payload_octets"][n, f],
            "reverse_payload_bytes": r["payload_octets"][n, 1 - f],
            "first_sizes": _sizes(r["sizes"][n, f], r["sized"][n, f]),
            "reverse_first_sizes": _sizes(r["sizes"][n, 1 - f], r["sized"][n, 1 - f]),
            **_lasting(lasted, f, have),
            "tunnel": (via.tunnel, via.tunnel > 0),
            "tunnel_src": (via.src, via.tunnel > 0),
            "tunnel_dst": (via.dst, via.tunnel > 0),
            "candidate": (r["candidate"] == PICKED) | (r["passed_on"] > 0),
            "collector": collector,
        },
    )
    for part, a, b in runs:
        yield part, batch.slice(a, b - a), (int(r["t_first"][a:b].min()), int(r["t_last"][a:b].max()))


@dataclass(frozen=True, slots=True)
class ChunkRun:
    """Chunks that fit into one message: their page, and their 5-tuples as columns."""

    page: Page
    src: np.ndarray
    dst: np.ndarray
    src_port: np.ndarray
    dst_port: np.ndarray


def chunk_run(page: Page) -> ChunkRun:
    """The chunks of a page."""
    r = page.rows
    src, dst = _addresses(r["src_high"], r["src_low"]), _addresses(r["dst_high"], r["dst_low"])
    # A column of a record array is no plain array: a kernel would be compiled once more for it.
    return ChunkRun(page, src, dst, r["src_port"].copy(), r["dst_port"].copy())


@kernel
def _gather(data, at, offsets, out):
    for i in range(at.size):
        for k in range(offsets[i + 1] - offsets[i]):
            out[offsets[i] + k] = data[at[i] + k]


def payload_batches(
    run: ChunkRun, owned: Owned, collector: str
) -> Iterator[tuple[int, wire.Batch, Span, int]]:
    """(partition, batch, (first t, last t), octets of payload) of ``payloads``."""
    places, runs = _order(owned)
    i = owned.row[places]
    r = run.page.rows[i]
    offsets = np.zeros(i.size + 1, np.int32)
    np.cumsum(r["size"], out=offsets[1:])
    data = np.empty(int(offsets[-1]), np.uint8)
    _gather(run.page.data, r["at"].copy(), offsets, data)
    t = r["t"].copy()
    batch = wire.batch(
        "payloads",
        i.size,
        {
            "subscriber": owned.subscriber[places],
            "copy": owned.copy[places],
            "src": run.src[i],
            "dst": run.dst[i],
            "src_port": run.src_port[i],
            "dst_port": run.dst_port[i],
            "protocol": np.full(i.size, _TCP, np.uint8),
            "t": t,
            "offset": r["offset"],
            "seq": r["seq"],
            "ack": r["ack"],
            "flags": r["flags"],
            "data": (offsets, data),
            "collector": collector,
        },
    )
    for part, a, b in runs:
        span = int(t[a:b].min()), int(t[a:b].max())
        yield part, batch.slice(a, b - a), span, int(offsets[b] - offsets[a])


def _packed(addresses: Iterable[bytes]) -> np.ndarray:
    # A bytearray, because a kernel is compiled once more for arrays that are read-only.
    return np.frombuffer(bytearray().join(addresses), np.uint8).reshape(-1, 16)


@dataclass(frozen=True, slots=True)
class NameRun:
    """Sightings that fit into one message, and the ends whose rows they may be, as columns."""

    sightings: list[Sighting]
    src: np.ndarray
    dst: np.ndarray
    src_port: np.ndarray
    dst_port: np.ndarray


def name_runs(sightings: list[Sighting]) -> Iterator[NameRun]:
    """Cut sightings, in order, so that a message holds no more than its limits."""
    for at in range(0, len(sightings), MAX_NAMES):
        run = sightings[at : at + MAX_NAMES]
        yield NameRun(
            run,
            _packed(s.src for s in run),
            _packed(s.dst for s in run),
            np.array([s.src_port for s in run], np.uint16),
            np.array([s.dst_port for s in run], np.uint16),
        )


def _numbers(given: list[int | None]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([v or 0 for v in given], np.int64), np.array([v is not None for v in given], bool)


def name_batches(run: NameRun, owned: Owned, collector: str) -> Iterator[tuple[int, wire.Batch, Span]]:
    """(partition, batch, (first t, last t)) of ``names``."""
    places, runs = _order(owned)
    rows = [run.sightings[k] for k in owned.row[places].tolist()]
    t = np.array([s.t for s in rows], np.int64)
    batch = wire.batch(
        "names",
        len(rows),
        {
            "subscriber": owned.subscriber[places],
            "copy": owned.copy[places],
            "t": t,
            "kind": np.array([s.kind for s in rows], np.uint8),
            "name": [s.name for s in rows],
            "alias": [s.alias for s in rows],
            "address": (
                _packed(s.address or bytes(16) for s in rows),
                np.array([s.address is not None for s in rows], bool),
            ),
            "port": _numbers([s.port for s in rows]),
            "protocol": _numbers([s.protocol for s in rows]),
            "ttl": _numbers([s.ttl for s in rows]),
            "resolver": (
                _packed(s.resolver or bytes(16) for s in rows),
                np.array([s.resolver is not None for s in rows], bool),
            ),
            "alpn": [s.alpn for s in rows],
            "ja4": [s.ja4 for s in rows],
            "collector": collector,
        },
    )
    for part, a, b in runs:
        yield part, batch.slice(a, b - a), (int(t[a:b].min()), int(t[a:b].max()))
