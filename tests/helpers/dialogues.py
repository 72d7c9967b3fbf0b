"""What two said, in; the packets of their connection, out."""

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether


def connection(host, port, said, start_s=1_700_000_000):
    """Packets of a connection of 198.51.100.``host``: what was said, and the acknowledgements of it."""
    client, server = ("198.51.100." + str(host), 40000), ("203.0.113.9", port)
    seq, out, now = {True: 1000, False: 9000}, [], start_s

    def put(from_client, flags, data=b""):
        nonlocal now
        (src, sport), (dst, dport) = (client, server) if from_client else (server, client)
        now += 0.05
        packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=src, dst=dst) / TCP(
            sport=sport, dport=dport, seq=seq[from_client], ack=seq[not from_client], flags=flags
        ) / data  # fmt: skip
        packet.time = now
        out.append(packet)
        seq[from_client] += len(data) + ("S" in flags)

    put(True, "S")
    put(False, "SA")
    put(True, "A")
    for data, from_client in said:
        for at in range(0, len(data), 1400):
            put(from_client, "PA", data[at : at + 1400])
            put(not from_client, "A")
    return out
