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
from collectors.packet import lasting, laying
from collectors.packet.anchors import copy_octets
from collectors.packet.frames import NO_VLAN
from collectors.packet.names import Sighting
from collectors.packet.pages import Page
from collectors.packet.vias import Columns, Vias, columns
from collectors.subscribers import Owned

_TCP: Final = 6
# Two names, each up to a kilobyte when every octet is escaped, and two copies of each row.
MAX_NAMES: Final = 1024
Span = tuple[int, int]
Ends = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Left(NamedTuple):
    """Rows that left the table, as ``ageing.Outputs`` has them: exports, exported and lasted."""

    rows: np.ndarray
    t: np.ndarray
    lasted: np.ndarray


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """As np.concatenate, which asks for each field of a record what the types have in common."""
    return np.concatenate([part.view(np.uint8) for part in parts]).view(parts[0].dtype)


def taken(rows: np.ndarray, t: np.ndarray, lasted: np.ndarray, n: int) -> Left:
    """A copy of the first ``n`` of each.  As octets: numpy copies records field by field."""
    return Left(*(part[:n].view(np.uint8).copy().view(part.dtype) for part in (rows, t, lasted)))


def together(parts: Sequence[Left]) -> Left:
    """All of several, in their order."""
    return parts[0] if len(parts) == 1 else Left(*(_joined(column) for column in zip(*parts, strict=True)))


def _ends_of(laid: laying.Laid) -> Ends:
    src, dst = (end.view(np.uint8).reshape(-1, 16) for end in (laid.src, laid.dst))
    return src, dst, laid.twos[laying.SRC_PORT], laid.twos[laying.DST_PORT]


@dataclass(frozen=True, slots=True)
class FlowColumns:
    """``laid`` the columns of what left the table, ``t`` (n,) i8 when; ``lasted`` (n,) LASTING what was kept
    of it, where ``laid`` say so; ``via`` how they came."""

    laid: laying.Laid
    t: np.ndarray
    lasted: np.ndarray
    via: Columns

    @property
    def ends(self) -> Ends:
        """As ``subscribers.assign`` wants them."""
        return _ends_of(self.laid)


def flow_columns(left: Left, known: Vias) -> FlowColumns:
    """Orient exported rows: ROW records, as the table holds them; ``known`` tells how they came."""
    laid = laying.lay_flows(left.rows)
    ones = laid.ones
    via = columns(known, laid.twos[laying.VIA], ones[laying.SENDER], ones[laying.FORWARD])
    return FlowColumns(laid, left.t, left.lasted, via)


def _order(owned: Owned) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Places in ``owned`` by partition, each in its order; and (partition, first, last) of the messages."""
    partition = owned.partition
    if partition.size and partition.min() == partition.max():
        starts = range(0, partition.size, wire.MAX_ROWS)
        part = int(partition[0])
        return np.arange(partition.size), [(part, a, min(a + wire.MAX_ROWS, partition.size)) for a in starts]
    places = np.argsort(owned.partition, kind="stable")
    parts, first = np.unique(owned.partition[places], return_index=True)
    runs: list[tuple[int, int, int]] = []
    if not places.size:
        return places, runs
    for part, a, b in zip(parts.tolist(), first.tolist(), [*first[1:].tolist(), places.size], strict=True):
        runs += [(part, at, min(at + wire.MAX_ROWS, b)) for at in range(a, b, wire.MAX_ROWS)]
    return places, runs


def _spans(runs: list[tuple[int, int, int]], first: np.ndarray, last: np.ndarray) -> list[Span]:
    """The earliest ``first`` and the latest ``last`` of each run; the runs follow one another."""
    if not runs:
        return []
    starts = np.array([a for _, a, _ in runs])
    earliest, latest = np.minimum.reduceat(first, starts), np.maximum.reduceat(last, starts)
    return list(zip(earliest.tolist(), latest.tolist(), strict=True))


def _sizes(sizes: np.ndarray, sized: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 8) and how many of each row count, as an Arrow list column."""
    offsets = np.zeros(sized.size + 1, np.int32)
    np.cumsum(sized, out=offsets[1:])
    return offsets, sizes[np.arange(8) < sized[:, None]]


def _lasting(lasted: np.ndarray, i: np.ndarray, ones: np.ndarray) -> dict[str, object]:
    """Columns of what was kept of connections that lasted; null for others."""
    have = ones[laying.LASTED] > 0
    if not have.any():
        return {}
    kept, forward = lasted[i], ones[laying.FORWARD].astype(np.int64)
    kept["pushes"][~have] = 0
    return {
        "pushes": (*lasting.pushes(kept), have),
        "record_sizes": (*lasting.records(kept, forward, have), have),
        "reverse_record_sizes": (*lasting.records(kept, 1 - forward, have), have),
    }


def _came(via: Columns, i: np.ndarray) -> dict[str, object]:
    """Columns of VLAN and tunnel; none where nobody has any."""
    told: dict[str, object] = {}
    vlan = via.vlan[i]
    if (vlan != NO_VLAN).any():
        told["vlan"] = vlan, vlan != NO_VLAN
    tunnel = via.tunnel[i]
    if tunnel.any():
        told["tunnel"] = tunnel, tunnel > 0
        told["tunnel_src"] = via.src[i], tunnel > 0
        told["tunnel_dst"] = via.dst[i], tunnel > 0
    return told


def flow_batches(
    given: FlowColumns, owned: Owned, collector: str, received_ns: int | None
) -> Iterator[tuple[int, wire.Batch, Span]]:
    """(partition, batch, (t_first, t_last)) of ``flows``.  Without ``received_ns``, the data's own time.

    One batch is built and cut by partition: to build forty columns costs more than to fill them.
    """
    places, runs = _order(owned)
    i = owned.row[places]
    c = given.laid.taken(i)
    eights, fours, twos, ones = c.eights, c.fours, c.twos, c.ones
    counts = eights.view(np.uint64)
    tcp = ones[laying.PROTOCOL] == _TCP
    received = given.t[i] if received_ns is None else np.full(i.size, received_ns)
    batch = wire.batch(
        "flows",
        i.size,
        {
            "subscriber": owned.subscriber[places],
            "copy": owned.copy[places],
            "src": c.src.view(np.uint8),
            "dst": c.dst.view(np.uint8),
            "src_port": twos[laying.SRC_PORT],
            "dst_port": twos[laying.DST_PORT],
            "protocol": ones[laying.PROTOCOL],
            "t_first": eights[laying.T_FIRST],
            "t_last": eights[laying.T_LAST],
            "t_received": received,
            "bytes": counts[laying.OCTETS],
            "packets": counts[laying.PACKETS],
            "reverse_bytes": counts[laying.OCTETS + 1],
            "reverse_packets": counts[laying.PACKETS + 1],
            "tcp_flags": (twos[laying.TCP_FLAGS], tcp),
            "reverse_tcp_flags": (twos[laying.TCP_FLAGS + 1], tcp),
            "sampling_rate": np.ones(i.size, np.uint32),
            "source": np.zeros(i.size, np.uint8),
            "end_reason": ones[laying.END_REASON],
            "t_open": eights[laying.T_OPEN],
            "initiator": ones[laying.INITIATOR],
            "payload_packets": fours[laying.PAYLOAD_PACKETS],
            "reverse_payload_packets": fours[laying.PAYLOAD_PACKETS + 1],
            "payload_bytes": counts[laying.PAYLOAD_OCTETS],
            "reverse_payload_bytes": counts[laying.PAYLOAD_OCTETS + 1],
            "first_sizes": _sizes(c.sizes[0], ones[laying.SIZED]),
            "reverse_first_sizes": _sizes(c.sizes[1], ones[laying.SIZED + 1]),
            "candidate": ones[laying.CANDIDATE],
            "collector": collector,
            **_lasting(given.lasted, i, ones),
            **_came(given.via, i),
        },
    )
    spans = _spans(runs, eights[laying.T_FIRST], eights[laying.T_LAST])
    for (part, a, b), span in zip(runs, spans, strict=True):
        yield part, batch.slice(a, b - a), span


@dataclass(frozen=True, slots=True)
class ChunkRun:
    """Chunks that fit into one message: their page, and their columns."""

    page: Page
    laid: laying.Laid

    @property
    def ends(self) -> Ends:
        """As ``subscribers.assign`` wants them."""
        return _ends_of(self.laid)


def chunk_run(page: Page) -> ChunkRun:
    """The chunks of a page."""
    return ChunkRun(page, laying.lay_chunks(page.rows))


@kernel
def _gather(data, at, offsets, out):
    for i in range(at.size):
        copy_octets(out, np.int64(offsets[i]), data, at[i], np.int64(offsets[i + 1] - offsets[i]))


def payload_batches(
    run: ChunkRun, owned: Owned, collector: str
) -> Iterator[tuple[int, wire.Batch, Span, int]]:
    """(partition, batch, (first t, last t), octets of payload) of ``payloads``."""
    places, runs = _order(owned)
    i = owned.row[places]
    c = run.laid.taken(i)
    offsets = np.zeros(i.size + 1, np.int32)
    np.cumsum(c.eights[laying.SIZE], out=offsets[1:])
    data = np.empty(int(offsets[-1]), np.uint8)
    _gather(run.page.data, c.eights[laying.AT], offsets, data)
    t = c.eights[laying.T]
    batch = wire.batch(
        "payloads",
        i.size,
        {
            "subscriber": owned.subscriber[places],
            "copy": owned.copy[places],
            "src": c.src.view(np.uint8),
            "dst": c.dst.view(np.uint8),
            "src_port": c.twos[laying.SRC_PORT],
            "dst_port": c.twos[laying.DST_PORT],
            "protocol": np.full(i.size, _TCP, np.uint8),
            "t": t,
            "offset": c.eights[laying.OFFSET].view(np.uint64),
            "seq": c.fours[laying.SEQ],
            "ack": c.fours[laying.ACK],
            "flags": c.ones[laying.FLAGS],
            "data": (offsets, data),
            "collector": collector,
        },
    )
    for (part, a, b), span in zip(runs, _spans(runs, t, t), strict=True):
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

    @property
    def ends(self) -> Ends:
        """As ``subscribers.assign`` wants them."""
        return self.src, self.dst, self.src_port, self.dst_port


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
    for (part, a, b), span in zip(runs, _spans(runs, t, t), strict=True):
        yield part, batch.slice(a, b - a), span
