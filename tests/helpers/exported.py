"""NetFlow v5 datagrams and captures of them, written from their layout alone."""

import struct
from ipaddress import ip_address


def v5(records, sent_s, sequence, sampling=0):
    """A NetFlow v5 datagram: (src, dst, sport, dport, packets, octets, first_s, last_s) each."""
    uptime_ms = 30 * 86_400_000 % 2**32
    boot_s = sent_s - uptime_ms / 1000
    head = struct.pack(">HHIIIIBBH", 5, len(records), uptime_ms, sent_s, 0, sequence, 0, 0, sampling)
    body = b"".join(
        struct.pack(
            ">4s4s4sHHIIIIHHBBBBHHBBH", ip_address(src).packed, ip_address(dst).packed, bytes(4), 0, 0,
            packets, octets, int((first - boot_s) * 1000), int((last - boot_s) * 1000), sport, dport, 0, 0x1A,
            6, 0, 0, 0, 24, 24, 0,
        )
        for src, dst, sport, dport, packets, octets, first, last in records
    )  # fmt: skip
    return head + body


def pcap(datagrams):
    """A capture of (payload, seconds) sent by one exporter to port 2055: raw IP."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    for payload, at in datagrams:
        udp = struct.pack(">HHHH", 9999, 2055, 8 + len(payload), 0) + payload
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
        frame = ip + ip_address("192.0.2.1").packed + ip_address("192.0.2.2").packed + udp
        out.append(struct.pack("<IIII", int(at), int(at % 1 * 1e6), len(frame), len(frame)) + frame)
    return b"".join(out)
