"""NetFlow v5 and sFlow datagrams and captures of them, written from their layout alone."""

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


def frames(capture):
    """(seconds, frame, octets on the wire) of each packet of a pcap file in this machine's byte order."""
    at = 24
    while at + 16 <= len(capture):
        seconds, micros, captured, length = struct.unpack("<IIII", capture[at : at + 16])
        yield seconds + micros / 1e6, capture[at + 16 : at + 16 + captured], length
        at += 16 + captured


def sflow(capture, every=1, snap=128, together=5):
    """(payload, seconds) of the sFlow datagrams in which every so many-th Ethernet frame is sampled."""
    chosen = [f for n, f in enumerate(frames(capture), 1) if n % every == 0]
    for sequence, first in enumerate(range(0, len(chosen), together)):
        samples = b""
        for n, (_, frame, length) in enumerate(chosen[first : first + together], first + 1):
            head = frame[:snap]
            record = struct.pack(">IIIIII", 1, 16 + (len(head) + 3) // 4 * 4, 1, length + 4, 4, len(head))
            record += head + bytes(-len(head) % 4)
            body = struct.pack(">IIIIIIII", n, 7, every, n * every, 0, 7, 9, 1) + record
            samples += struct.pack(">II", 1, len(body)) + body
        last_s = chosen[min(first + together, len(chosen)) - 1][0]
        count = len(chosen[first : first + together])
        uptime_ms = int((last_s - chosen[0][0]) * 1000)
        agent = ip_address("192.0.2.1").packed
        yield struct.pack(">II4sIIII", 5, 1, agent, 0, sequence, uptime_ms, count) + samples, last_s


def pcap(datagrams, port=2055):
    """A capture of (payload, seconds) sent by one exporter to a port: raw IP."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
    for payload, at in datagrams:
        udp = struct.pack(">HHHH", 9999, port, 8 + len(payload), 0) + payload
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
        frame = ip + ip_address("192.0.2.1").packed + ip_address("192.0.2.2").packed + udp
        out.append(struct.pack("<IIII", int(at), int(at % 1 * 1e6), len(frame), len(frame)) + frame)
    return b"".join(out)
