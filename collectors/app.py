"""Composition root of the collectors: what knows both packets and exports.

Blocks of frames in, the datagrams of exports that they carry out; and the frames that sFlow samples in, what
the packet decoder reads in them out.
"""

from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np

from collectors.netflow import capture, recognising
from collectors.netflow.columns import Column
from collectors.netflow.datagrams import STREAM, Block, Datagram
from collectors.netflow.datagrams import block as columns_of
from collectors.netflow.sflow.rows import Headers
from collectors.packet import pcapfile
from collectors.packet.frames import FRAME, NO_VLAN, decode_all
from collectors.packet.sampled import TOO_LONG, WITHOUT, decode_sampled
from collectors.reading import PADDING

UDP = 17
# sFlow's header_protocol to the link type of captures: Ethernet, PPP, IPv4, IPv6.
_LINKS: Final = {1: 1, 7: 9, 11: 228, 12: 229}
_NO_LINK: Final = 0xFFFF
# Of an IPFIX file: octets read at once, and of a message's header.
_PIECE: Final = 1 << 20
_HEADER: Final = 16


def exports(block: pcapfile.Block, *, any_port: bool = False) -> Block:
    """Datagrams of a block that are exports by their first octets, on the known ports or on any."""
    n = block.offset.size
    frames, code = np.zeros(n, FRAME), np.zeros(n, np.int64)
    decode_all(*block.columns[:4], block.link, frames, code)
    ports = frames["dst_port"]
    wanted = (code == 0) & (frames["protocol"] == UDP) & (frames["payload"] > 0)
    if not any_port:
        wanted &= np.isin(ports, np.fromiter(capture.PORTS, np.uint16))
    chosen = np.flatnonzero(wanted)
    at, size = frames["payload_at"][chosen], frames["payload"][chosen]
    chosen = chosen[recognising.exports(block.data, at, size)]
    picked = frames[chosen]
    return capture.block(
        block.data,
        picked["payload_at"],
        picked["payload"],
        _addresses(picked, "src"),
        picked["dst_port"],
        block.t_ns[chosen],
        frozenset(picked["dst_port"].tolist()),
    )


def _addresses(frames: np.ndarray, end: str) -> np.ndarray:
    words = np.empty((frames.size, 2), ">u8")
    words[:, 0], words[:, 1] = frames[f"{end}_high"], frames[f"{end}_low"]
    return words.view(np.uint8).reshape(-1, 16)


def sampled_frames(
    data: np.ndarray, at: np.ndarray, size: np.ndarray, wire: np.ndarray, protocol: np.ndarray
) -> Headers:
    """Read sampled headers by the packet decoder: ``netflow.sflow.rows.Frames``.

    One whose IP header was read counts, though what follows it be cut off, a fragment's or damaged: a router
    would have counted it too.  The ports are 0 then.
    """
    link = np.full(at.size, _NO_LINK, np.int64)
    for told, known in _LINKS.items():
        link[protocol == told] = known
    frames, code = np.zeros(at.size, FRAME), np.zeros(at.size, np.int64)
    judged = np.zeros(at.size, np.uint8)
    decode_sampled(data, at, size, wire, link, frames, code, judged)
    tunnelled = frames["tunnel"] > 0
    columns: dict[str, Column] = {
        "src": _addresses(frames, "src"), "dst": _addresses(frames, "dst"),
        "src_port": frames["src_port"], "dst_port": frames["dst_port"],
        "protocol": frames["protocol"], "bytes": frames["octets"].astype(np.uint64),
        "tcp_flags": (frames["tcp_flags"], frames["tcp"] != 0),
        "vlan": (frames["vlan"], frames["vlan"] != NO_VLAN),
        "tunnel": (frames["tunnel"], tunnelled),
        "tunnel_src": (_addresses(frames, "tunnel_src"), tunnelled),
        "tunnel_dst": (_addresses(frames, "tunnel_dst"), tunnelled),
    }  # fmt: skip
    return Headers(frames["octets"] > 0, columns, judged == WITHOUT, judged == TOO_LONG)


def warm() -> None:
    """Call every kernel once with nothing, so that all are compiled."""
    none, data = np.zeros(0, np.int64), np.zeros(PADDING, np.uint8)
    narrow = np.zeros(0, np.uint32)
    exports(pcapfile.Block(data, none, narrow, narrow, none, np.zeros(0, np.uint16)))
    sampled_frames(data, none, none, none, none)


def blocks(file: BinaryIO, refused: dict[str, int] | None = None) -> Iterator[Block]:
    """Every export of a file, on whatever port: of a capture, or of IPFIX messages one after another
    (RFC 5655), which begin with their version.

    Messages in a file came from nobody and at the time of their export: the exporter is ``::``.  ``refused``
    counts what of a capture could not be used, its cut end too, by reason.  Raises DecodeError on what is
    neither.
    """
    again = _Again(file)
    if again.head[:2] == b"\0\x0a":
        yield from _messages(again)
        return
    refused = {} if refused is None else refused
    for block in pcapfile.blocks(again):
        for reason, count in block.refused.items():
            refused[reason] = refused.get(reason, 0) + count
        yield exports(block, any_port=True)


def datagrams(file: BinaryIO, refused: dict[str, int] | None = None) -> Iterator[Datagram]:
    """The same, one by one: for people."""
    for found in blocks(file, refused):
        for i in range(len(found)):
            at, size = int(found.at[i]), int(found.size[i])
            exporter = found.addresses[int(found.exporter[i])]
            port = 0 if found.port is None else int(found.port[i])
            yield Datagram(found.data[at : at + size].tobytes(), exporter, port, int(found.t_ns[i]))


class _Again:
    """A file of which the first octets were looked at, and come again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.head = file.read(2)
        self._left = self.head

    def read(self, n: int) -> bytes:
        """Up to ``n`` octets; none at the end."""
        if self._left:
            given, self._left = self._left[:n], self._left[n:]
            return given
        return self._file.read(n)


def _messages(file: _Again) -> Iterator[Block]:
    """IPFIX messages by their lengths; one that is cut short is handed on as it is, to be refused."""
    found: list[Datagram] = []
    rest, broken = b"", False
    while True:
        piece = file.read(_PIECE)
        rest += piece
        at = 0
        while len(rest) - at >= _HEADER and not broken:
            size = int.from_bytes(rest[at + 2 : at + 4], "big")
            if len(rest) - at < size and piece:
                break
            t_ns = int.from_bytes(rest[at + 4 : at + 8], "big") * 1_000_000_000
            found.append(Datagram(rest[at : at + max(size, _HEADER)], bytes(16), STREAM, t_ns))
            # One that says less than its header has no end that could be found.
            broken = size < _HEADER
            at += size
        rest = rest[at:]
        if rest and not piece and not broken:
            found.append(Datagram(rest, bytes(16), STREAM, 0))
        if found:
            yield columns_of(found)
            found = []
        if not piece or broken:
            return
