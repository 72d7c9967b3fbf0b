"""A spoken session as packets, collectors that see parts of it, and a detector that may die between them."""

import struct
from ipaddress import ip_address
from typing import NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry

from collectors import subscribers
from collectors.bus import Message
from collectors.packet.collector import Collector, Config, Metrics
from collectors.packet.pcapfile import Block
from detector.engine import Config as EngineConfig
from detector.engine import Engine
from detector.state import decode, decode_whole, encode, encode_whole

SYN, ACK = 2, 16
MOST = 1400
RAW_IP = 101
METRICS = Metrics(CollectorRegistry())


class Packet(NamedTuple):
    """When, the bytes from the IP header on, who sent it ("c" or "s"), and of which row of the talk it is."""

    t_ns: int
    data: bytes
    who: str
    row: int


def packet(t_ns, ends, who, seq, ack, flags, data=b"", row=-1):
    """One segment; checksums are left out, as on a host that leaves them to its card."""
    (src, sport), (dst, dport) = ends[who], ends["s" if who == "c" else "c"]
    tcp = struct.pack(">HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 8192, 0, 0)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0) + src + dst
    return Packet(t_ns, ip + tcp + data, who, row)


def packets(talk):
    """The connection, its handshake first; what is long in several segments."""
    ends = {"c": talk.client, "s": talk.server}
    ends = {who: (ip_address(a).ipv4_mapped.packed, port) for who, (a, port) in ends.items()}
    c, s = talk.base["c"], talk.base["s"]
    begins = talk.rows[0]["t"] - 3
    out = [
        packet(begins, ends, "c", c - 1, 0, SYN),
        packet(begins + 1, ends, "s", s - 1, c, SYN | ACK),
        packet(begins + 2, ends, "c", c, s, ACK),
    ]
    for n, row in enumerate(talk.rows):
        who = "c" if row["src"] == talk.client[0] else "s"
        for at in range(0, len(row["data"]), MOST):
            part = row["data"][at : at + MOST]
            out.append(packet(row["t"] + at, ends, who, row["seq"] + at, row["ack"], ACK, part, n))
    return out


def block(some, link=RAW_IP):
    """Packets as a collector takes them."""
    sizes = np.array([len(p.data) for p in some], np.int64)
    return Block(
        np.frombuffer(b"".join(p.data for p in some), np.uint8), np.cumsum(sizes) - sizes,
        sizes.astype(np.uint32), sizes.astype(np.uint32), np.array([p.t_ns for p in some], np.int64),
        np.full(sizes.size, link, np.uint16), {},
    )  # fmt: skip


def collected(some, name="packet", *, killed=False, link=RAW_IP):
    """The messages of a collector that was started with the first of these packets.  One that is killed does
    not send what it holds."""
    out = []
    config = Config(id=name, flow_slots=64, lasting_slots=64, hash_seed=7)
    collector = Collector(config, subscribers.home(), 1, lambda *m: out.append(Message(*m)), METRICS)
    if some:
        collector.feed(block(some, link))
    if not killed:
        collector.finish()
    return out


def rows_of(messages):
    """Chunks of payload, each a message of its own."""
    for m in messages:
        if m.stream == "payloads":
            for n in range(m.rows.num_rows):
                yield int(m.rows.column("t")[n].as_py()), m._replace(rows=m.rows.slice(n, 1))


def together(*seen):
    """What several collectors sent, each (messages, delay in ns), as it comes in: chunks only."""
    timed = [(t + delay, n, m) for n, (some, delay) in enumerate(seen) for t, m in rows_of(some)]
    return [m for *_, m in sorted(timed, key=lambda one: one[:2])]


class Detector:
    """An engine, what it told, and a way to die."""

    def __init__(self):
        self.engine = Engine(EngineConfig(), durable=True)
        self.told, self.records = [], {}

    def take(self, messages):
        for m in messages:
            self.told += self.engine.step(m).transitions

    def die(self):
        """Be started again, from the records that were written."""
        for subscriber in self.engine.changed_subscribers():
            state = self.engine.state(subscriber)
            self.records[subscriber] = None if state is None else encode(state)
        whole = decode_whole(encode_whole(self.engine.whole()))
        self.engine = Engine(EngineConfig(), durable=True)
        for subscriber, record in self.records.items():
            if record is not None:
                self.engine.restore(subscriber, decode(record))
        self.engine.resume(whole)

    @property
    def tracks(self):
        return [track for book in self.engine.payload._books.values() for track in book.tracks.values()]

    @property
    def facts(self):
        """Of all sessions."""
        return [facts for record in self.engine.judge.store for facts in record.sessions.values()]
