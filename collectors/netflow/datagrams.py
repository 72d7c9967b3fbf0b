"""Datagrams of exports, as they come: one by one, or many as columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from collectors.reading import PADDING

# In a port: it came over a stream (TCP, TLS, a file), in order and with nothing lost.
STREAM: Final = 1 << 16


class Datagram(NamedTuple):
    """``exporter`` 16 octets (IPv4 mapped), ``port`` the UDP port it sent from, or STREAM and its TCP port;
    ``t_ns`` receive time."""

    payload: bytes
    exporter: bytes
    port: int
    t_ns: int


@dataclass(frozen=True, slots=True)
class Block:
    """Datagram i is ``data[at[i] : at[i] + size[i]]``, from ``addresses[exporter[i]]``.

    ``data`` u1, readable for PADDING octets past the last; ``at``, ``size``, ``exporter``, ``t_ns`` (n,) i8;
    ``port`` (n,) i8, the UDP port each was sent from, or STREAM and a TCP port; None where nobody kept it.
    """

    data: np.ndarray
    at: np.ndarray
    size: np.ndarray
    exporter: np.ndarray
    t_ns: np.ndarray
    addresses: Sequence[bytes]
    port: np.ndarray | None = None

    def __len__(self) -> int:
        return self.at.size

    def part(self, first: int, last: int) -> "Block":
        """Datagrams ``first`` up to ``last``."""
        at, size, exporter, t_ns = (c[first:last] for c in (self.at, self.size, self.exporter, self.t_ns))
        port = None if self.port is None else self.port[first:last]
        return Block(self.data, at, size, exporter, t_ns, self.addresses, port)

    def chosen(self, keep: np.ndarray) -> "Block":
        """The datagrams where ``keep`` (n,) bool is set, in their order."""
        at, size, exporter, t_ns = (c[keep] for c in (self.at, self.size, self.exporter, self.t_ns))
        port = None if self.port is None else self.port[keep]
        return Block(self.data, at, size, exporter, t_ns, self.addresses, port)


def block(datagrams: Iterable[Datagram]) -> Block:
    """Datagrams as columns."""
    many = list(datagrams)
    numbers: dict[bytes, int] = {}
    exporter = [numbers.setdefault(d.exporter, len(numbers)) for d in many]
    size = np.array([len(d.payload) for d in many], np.int64)
    ends = np.cumsum(size)
    # A bytearray, because a kernel is compiled once more for arrays that are read-only.
    data = np.frombuffer(bytearray().join([*(d.payload for d in many), bytes(PADDING)]), np.uint8)
    return Block(
        data,
        ends - size,
        size,
        np.array(exporter, np.int64),
        np.array([d.t_ns for d in many], np.int64),
        list(numbers),
        np.array([d.port for d in many], np.int64),
    )


def by_port(given: Block) -> Block:
    """The same, where each UDP port of an address is an exporter of its own: 16 octets and 2 of the port."""
    if given.port is None or not len(given):
        return given
    pairs, exporter = np.unique(given.exporter << 16 | (given.port & 0xFFFF), return_inverse=True)
    named = [given.addresses[p >> 16] + (p & 0xFFFF).to_bytes(2, "big") for p in pairs.tolist()]
    return replace(given, exporter=exporter.astype(np.int64), addresses=named)


def joined(blocks: Sequence[Block]) -> Block:
    """Several blocks as one, in order."""
    if len(blocks) == 1:
        return blocks[0]
    if (near := _neighbours(blocks)) is not None:
        return near
    numbers: dict[bytes, int] = {}
    columns: list[list[np.ndarray]] = [[], [], [], []]
    octets: list[np.ndarray] = []
    ports: list[np.ndarray] | None = []
    first = 0
    for each in blocks:
        if not len(each):
            continue
        a, b = int(each.at[0]), int(each.at[-1] + each.size[-1])
        octets.append(each.data[a:b])
        number = [numbers.setdefault(address, len(numbers)) for address in each.addresses]
        renamed = np.array(number, np.int64)[each.exporter]
        for column, values in zip(
            columns, (each.at + (first - a), each.size, renamed, each.t_ns), strict=True
        ):
            column.append(values)
        ports = None if ports is None or each.port is None else [*ports, each.port]
        first += b - a
    data = np.concatenate([*octets, np.zeros(PADDING, np.uint8)])
    at, size, exporter, t_ns = (np.concatenate([*c, np.zeros(0, np.int64)]) for c in columns)
    port = None if ports is None else np.concatenate([*ports, np.zeros(0, np.int64)])
    return Block(data, at, size, exporter, t_ns, list(numbers), port)


def _neighbours(blocks: Sequence[Block]) -> Block | None:
    """The same without a copy of octets, where the blocks share them and the numbers of exporters."""
    if not blocks:
        return None
    first, last = blocks[0], blocks[-1]
    names = last.addresses
    for each in blocks:
        if each.data is not last.data or (each.port is None) != (first.port is None):
            return None
        if each.addresses is not names and each.addresses != names[: len(each.addresses)]:
            return None
    at, size, exporter, t_ns = (
        np.concatenate(c) for c in zip(*((b.at, b.size, b.exporter, b.t_ns) for b in blocks), strict=True)
    )
    ports = [b.port for b in blocks if b.port is not None]
    return Block(last.data, at, size, exporter, t_ns, names, np.concatenate(ports) if ports else None)
