"""Segments of a candidate connection made by hand, and a reassembly that tells its chunks at once."""

from typing import NamedTuple

import numpy as np

from collectors.packet import payloads
from collectors.packet.picking import EVENT
from collectors.packet.segments import Segment
from collectors.streams import END, GAP

MS = 10**6
FIN, SYN, RST, ACK = 1, 2, 4, 16


class Chunk(NamedTuple):
    """One row of a page, with its bytes."""

    src_port: int
    dst_port: int
    src: int
    dst: int
    t: int
    offset: int
    seq: int
    ack: int
    flags: int
    data: bytes


class Reassembly(payloads.Reassembly):
    """One segment in, its chunks out: by the compiled pass where that takes it, or never by it."""

    def __init__(self, bounds, compiled=True):
        super().__init__(bounds)
        self.compiled = compiled

    def feed(self, *segments):
        events, data = columns(segments)
        if self.compiled:
            self.run(events, data)
        else:
            for i in range(events.size):
                self.take(events, i, data)
        return self.drained()

    def advance(self, clock):
        super().advance(clock)
        return self.drained()

    def finish(self):
        super().finish()
        return self.drained()

    def drained(self):
        return [
            Chunk(*(int(r[name]) for name in CHUNK_FIELDS), page.data[r["at"] :][: r["size"]].tobytes())
            for page in self.pages.drain()
            for r in page.rows
        ]


CHUNK_FIELDS = ("src_port", "dst_port", "src_low", "dst_low", "t", "offset", "seq", "ack", "flags")


def columns(segments):
    """As the compiled pass writes them."""
    events = np.zeros(len(segments), EVENT)
    data = b"".join(s.data for s in segments)
    at = 0
    for i, s in enumerate(segments):
        events[i] = (*s[:-1], at, len(s.data))
        at += len(s.data)
    return events, np.frombuffer(bytearray(data or b"-"), np.uint8)


def segment(
    seq, data=b"", *, d=0, t=0, ack=0, flags=ACK, conn=1, start=None, fresh=True, picked=1,
    stamp=0, ttl=0, usual_ttl=0, doubt=0,
):  # fmt: skip
    known = (start is not None) | (2 if fresh else 0)
    return Segment(
        conn, 0, 0xFFFF0A000001, 0, 0xFFFF0A000002, 1000, 3333, d, picked, known, flags,
        seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, (start or 0) & 0xFFFFFFFF,
        stamp, ttl, usual_ttl, doubt, t, t, data,
    )  # fmt: skip


def bodies(chunks):
    return [(c.offset, c.flags & (GAP | END), c.data) for c in chunks if c.data or c.flags & END]


def said(chunks, d):
    return b"".join(c.data for c in chunks if c.src_port == (1000, 3333)[d])
