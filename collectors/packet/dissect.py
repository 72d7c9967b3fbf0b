"""Packets of a capture in; what our readers make of them, message by message, out.  For people.

Plain Python over the frames that ``decode_all`` took apart: nothing is filtered, budgeted or picked, and any
resolver is believed.  Time and order are the capture's.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final, NamedTuple

import numpy as np

from collectors.errors import DecodeError
from collectors.packet import answers, flights, hellos, quic, requests
from collectors.packet.frames import FRAME, RST, SYN, decode_all
from collectors.packet.pcapfile import Block

# Of one direction of one connection, and connections: the rest is left out, and counted.
MAX_STREAM: Final = 1 << 20
MAX_CONNECTIONS: Final = 10_000
_TCP: Final = 6
_UDP: Final = 17
_DNS: Final = 53


class End(NamedTuple):
    """An address as text, and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Connection(NamedTuple):
    """Its ends in order, and its IP protocol."""

    low: End
    high: End
    protocol: int

    def __str__(self) -> str:
        return f"{'tcp' if self.protocol == _TCP else 'udp'} {self.low} - {self.high}"


@dataclass(frozen=True, slots=True)
class Found:
    """One message: ``what`` is client_hello, server_hello, http, dns or quic; ``fields`` are lists of texts,
    and ``refused`` says why it could not be read."""

    connection: Connection
    what: str
    t_ns: int
    fields: dict[str, list[str]] = field(default_factory=dict)
    refused: str = ""


class _Side:
    """One direction: its segments or datagrams."""

    __slots__ = ("pieces", "size", "start")

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes, int]] = []
        self.size = 0
        self.start: int | None = None


class Reading:
    """``packets`` of what is kept, ``left_out`` of which there was too much, and what was ``found``."""

    def __init__(self) -> None:
        self.packets: dict[Connection, int] = {}
        self.left_out = 0
        self.found: list[Found] = []


def read(blocks: Iterable[Block], keep: Callable[[Connection], bool]) -> Reading:
    """Read what ``keep`` wants of a capture."""
    out = Reading()
    sides: dict[tuple[Connection, bool], _Side] = {}
    for block in blocks:
        frames = np.zeros(block.offset.size, FRAME)
        codes = np.zeros(block.offset.size, np.int64)
        decode_all(block.data, block.offset, block.captured, block.length, block.link, frames, codes)
        for i in np.flatnonzero((codes == 0) & np.isin(frames["protocol"], (_TCP, _UDP))).tolist():
            _add(out, sides, frames[i], block, i, keep)
    for (connection, _), side in sides.items():
        out.found += (
            _datagrams(connection, side) if connection.protocol == _UDP else _stream(connection, side)
        )
    out.found.sort(key=lambda found: found.t_ns)
    return out


def _add(
    out: Reading,
    sides: dict[tuple[Connection, bool], _Side],
    frame: np.void,
    block: Block,
    i: int,
    keep: Callable[[Connection], bool],
) -> None:
    src, dst = _end(frame, "src"), _end(frame, "dst")
    connection = Connection(min(src, dst), max(src, dst), int(frame["protocol"]))
    if connection not in out.packets:
        if not keep(connection):
            return
        if len(out.packets) >= MAX_CONNECTIONS:
            out.left_out += 1
            return
        out.packets[connection] = 0
    out.packets[connection] += 1
    side = sides.setdefault((connection, src <= dst), _Side())
    seq = int(frame["seq"])
    if int(frame["tcp_flags"]) & (SYN | RST) == SYN and frame["tcp"]:
        seq = (seq + 1) & 0xFFFFFFFF
        side.start = seq if side.start is None else side.start
    at, size = int(frame["payload_at"]), int(frame["payload"])
    if size <= 0 or (connection.protocol == _TCP and not frame["tcp"]):
        return
    if side.size + size > MAX_STREAM:
        out.left_out += 1
        return
    side.size += size
    side.pieces.append((seq, block.data[at : at + size].tobytes(), int(block.t_ns[i])))


def _end(frame: np.void, side: str) -> End:
    address = IPv6Address(int(frame[f"{side}_high"]) << 64 | int(frame[f"{side}_low"]))
    return End(str(address.ipv4_mapped or address), int(frame[f"{side}_port"]))


def _runs(side: _Side) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
    """Bytes without a hole, each with where its segments begin: (offset, time)."""
    if not side.pieces:
        return
    base = side.pieces[0][0] if side.start is None else side.start
    # Signed, so that what came out of order before the first one seen is before it.
    placed = sorted(
        (((seq - base + (1 << 31)) & 0xFFFFFFFF) - (1 << 31), t, data) for seq, data, t in side.pieces
    )
    begins: list[tuple[int, int]] = []
    run, first = bytearray(), placed[0][0]
    for offset, t, data in placed:
        if offset > first + len(run):
            yield bytes(run), begins
            run, begins, first = bytearray(), [], offset
        if offset + len(data) > first + len(run):
            begins.append((max(0, offset - first), t))
            run += data[first + len(run) - offset :]
    yield bytes(run), begins


def _stream(connection: Connection, side: _Side) -> Iterator[Found]:
    for data, begins in _runs(side):
        if _DNS in (connection.low.port, connection.high.port):
            yield from _messages(connection, data, begins[0][1])
            continue
        done = 0
        for at, t in begins:
            what = _what(data, at)
            if what and at >= done:
                part = data[at : at + hellos.MAX_OCTETS]
                found = _attempt(connection, what, t, _READERS[what], part)
                if found is not None:
                    yield found
                    done = at + 1


def _what(data: bytes, at: int) -> str:
    if data[at] == 22 and data[at + 1 : at + 2] == b"\3" and len(data) > at + 5:
        return {1: "client_hello", 2: "server_hello"}.get(data[at + 5], "")
    word = data[at : at + 8].partition(b" ")
    return "http" if word[1] and word[0].decode("latin-1") in requests.METHODS else ""


def _attempt(
    connection: Connection,
    what: str,
    t: int,
    reader: Callable[[bytes], dict[str, list[str]] | None],
    data: bytes,
) -> Found | None:
    try:
        fields = reader(data)
    except DecodeError as error:
        return Found(connection, what, t, refused=str(error))
    return None if fields is None else Found(connection, what, t, fields)


def _hello_fields(hello: hellos.Hello | None) -> dict[str, list[str]] | None:
    if hello is None:
        return None
    return {
        "server_name": [hello.server_name] if hello.server_name else [],
        "alpn": [hello.alpn] if hello.alpn else [],
        "versions": [f"{v:#06x}" for v in hello.versions],
        "cipher_count": [str(len(hello.ciphers))],
        "ja4": [hello.ja4] if hello.ja4 else [],
    }


def _client_hello(data: bytes) -> dict[str, list[str]] | None:
    return _hello_fields(hellos.read(data, rest_is_lost=True))


def _server_hello(data: bytes) -> dict[str, list[str]] | None:
    flight = flights.read(data, rest_is_lost=True)
    if flight is None:
        return None
    return {
        "versions": [f"{flight.version:#06x}"],
        "cipher": [f"{flight.cipher:#06x}"],
        "alpn": [flight.alpn] if flight.alpn else [],
        "certificate_names": list(flight.names),
    }


def _http(data: bytes) -> dict[str, list[str]] | None:
    request = requests.read(data, rest_is_lost=True)
    return None if request is None else {"host": [request.host]}


_READERS: Final = {"client_hello": _client_hello, "server_hello": _server_hello, "http": _http}


def _dns(data: bytes) -> dict[str, list[str]] | None:
    if len(data) > 2 and not data[2] & 0x80:
        return None  # a query
    answer = answers.read(data)
    if answer is None:
        return None
    return {
        "name": [answer.chain[0]],
        "aliases": list(answer.chain[1:]),
        "addresses": sorted(_text(a.address) for a in answer.addresses),
    }


def _text(packed: bytes) -> str:
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _messages(connection: Connection, data: bytes, t: int) -> Iterator[Found]:
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        found = _attempt(connection, "dns", t, _dns, data[at + 2 : at + 2 + size])
        if found is not None:
            yield found
        at += 2 + size


def _datagrams(connection: Connection, side: _Side) -> Iterator[Found]:
    opened: bytes | None = None
    pieces: list[tuple[int, bytes]] = []
    for _, data, t in side.pieces:
        if _DNS in (connection.low.port, connection.high.port):
            found = _attempt(connection, "dns", t, _dns, data)
            if found is not None:
                yield found
        elif data[0] & 0xC0 == 0xC0 and len(data) >= quic.MIN_DATAGRAM and pieces is not None:
            try:
                opened, more = quic.crypto(data, opened)
                pieces = sorted({*pieces, *((p.offset, p.data) for p in more)})
                stream = bytearray()
                for offset, octets in pieces:
                    stream += octets[len(stream) - offset :] if offset <= len(stream) else b""
                fields = _hello_fields(hellos.read_message(bytes(stream)))
            except DecodeError:
                continue  # the server's, or another protocol
            if fields is not None:
                yield Found(connection, "quic", t, fields)
                return
