"""A capture as PAYLOADS rows, read plainly with scapy: for captures in order, without loss."""

from pathlib import Path

import numpy as np

from collectors import wire
from collectors.streams import ACK_ONLY, END, START

MAPPED = bytes(10) + b"\xff\xff"


def row(**given):
    """One row as a dict; what is not given is plain."""
    return {
        "subscriber": MAPPED + bytes([198, 51, 100, 1]), "copy": 0, "src": MAPPED + bytes([198, 51, 100, 1]),
        "dst": MAPPED + bytes([203, 0, 113, 1]), "src_port": 40000, "dst_port": 3333, "protocol": 6,
        "t": 0, "offset": 0, "seq": 0, "ack": 0, "flags": 0, "data": b"", **given,
    }  # fmt: skip


def batch(rows):
    """Rows as a PAYLOADS batch."""
    columns = {"collector": "test"}
    for name in ("subscriber", "src", "dst"):
        flat = b"".join(r[name] for r in rows)
        columns[name] = np.frombuffer(flat, np.uint8).reshape(-1, 16)
    for name in ("copy", "src_port", "dst_port", "protocol", "t", "offset", "seq", "ack", "flags"):
        columns[name] = np.array([r[name] for r in rows], np.int64 if name == "t" else np.uint64)
    ends = np.cumsum([0, *(len(r["data"]) for r in rows)]).astype(np.int32)
    columns["data"] = (ends, np.frombuffer(b"".join(r["data"] for r in rows), np.uint8))
    return wire.batch("payloads", len(rows), columns)


def capture(path: Path):
    """All TCP payload of a capture as rows, with acknowledgements, in order."""
    from scapy.all import IP, TCP, PcapReader

    rows, base, started, acked = [], {}, set(), set()
    with PcapReader(str(path)) as packets:
        for packet in packets:
            if TCP not in packet or IP not in packet:
                continue
            ip, tcp = packet[IP], packet[TCP]
            key = (ip.src, tcp.sport, ip.dst, tcp.dport)
            seq, data = tcp.seq, bytes(tcp.payload)[: ip.len - ip.ihl * 4 - tcp.dataofs * 4]
            if tcp.flags.S:
                base[key], seq = (seq + 1) & 0xFFFFFFFF, (seq + 1) & 0xFFFFFFFF
                started.add(key)
                acked.discard(key)
            base.setdefault(key, seq)
            flags = START if key in started else 0
            if tcp.flags.F or tcp.flags.R:
                flags |= END
            if not data and not flags & END:
                if key in acked or not tcp.flags.A or tcp.flags.S:
                    continue
                flags |= ACK_ONLY
                acked.add(key)
            rows.append(row(
                subscriber=_address(min(ip.src, ip.dst)), src=_address(ip.src), dst=_address(ip.dst),
                src_port=tcp.sport, dst_port=tcp.dport, t=int(packet.time * 1_000_000_000) % 2**62,
                offset=(seq - base[key]) & 0xFFFFFFFF, seq=seq, ack=tcp.ack, flags=flags, data=data,
            ))  # fmt: skip
    return rows


def _address(text):
    return MAPPED + bytes(int(part) for part in text.split("."))
