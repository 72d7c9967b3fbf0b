"""Composition root of the collectors: what knows both packets and exports.

Blocks of frames in; the datagrams of exports that they carry out.
"""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from collectors.netflow import capture
from collectors.netflow.datagrams import Block, Datagram
from collectors.packet import pcapfile
from collectors.packet.frames import FRAME, decode_all

UDP = 17


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
    good = [
        capture.is_export(block.data[a : a + min(s, 64 << 10)].tobytes())
        for a, s in zip(at.tolist(), size.tolist(), strict=True)
    ]
    chosen = chosen[np.array(good, bool)]
    picked = frames[chosen]
    source = np.empty((chosen.size, 2), ">u8")
    source[:, 0], source[:, 1] = picked["src_high"], picked["src_low"]
    return capture.block(
        block.data,
        picked["payload_at"],
        picked["payload"],
        source.view(np.uint8).reshape(-1, 16),
        picked["dst_port"],
        block.t_ns[chosen],
        frozenset(picked["dst_port"].tolist()),
    )


def datagrams(file: BinaryIO) -> Iterator[Datagram]:
    """Every export of a capture, one by one, on whatever port: for people."""
    for block in pcapfile.blocks(file):
        found = exports(block, any_port=True)
        for i in range(len(found)):
            at, size = int(found.at[i]), int(found.size[i])
            exporter = found.addresses[int(found.exporter[i])]
            yield Datagram(found.data[at : at + size].tobytes(), exporter, 0, int(found.t_ns[i]))
