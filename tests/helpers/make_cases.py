"""Write the captures of ``tests/cases/`` from those of ``pcaps/``: deterministic, so that running it again
gives the same bytes.

    .venv/bin/python tests/helpers/make_cases.py
"""

import gzip
import random
import struct
import sys
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import rdpcap, wrpcap

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import encrypted  # noqa: E402
import evasions  # noqa: E402
from speakers import noise, stratum2  # noqa: E402

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"


def read(name):
    return list(rdpcap(str(ROOT / "pcaps" / f"{name}.pcap")))


def write(case, packets):
    (CASES / case).mkdir(exist_ok=True)
    wrpcap(str(CASES / case / "capture.pcap"), packets)


def joined(packets, skip):
    """Without the first ``skip`` packets: handshake and login."""
    return packets[skip:]


def one_way(packets, prefix):
    """Only what comes from addresses that start with ``prefix``."""
    return [p for p in packets if p[IP].src.startswith(prefix)]


def rough(packets, seed, lost=()):
    """Neighbours swapped, segments repeated, the packets numbered in ``lost`` left out."""
    rng = random.Random(seed)
    out = [p for i, p in enumerate(packets) if i not in lost]
    stamps = [p.time for p in out]
    at = 3
    while at + 1 < len(out):
        if rng.random() < 0.3:
            out[at], out[at + 1] = out[at + 1], out[at]
            at += 1
        at += 1
    for p, stamp in zip(out, stamps, strict=True):
        p.time = stamp
    repeated = []
    for p in out:
        repeated.append(p)
        if rng.random() < 0.1:
            twin = p.copy()
            twin.time = p.time
            repeated.append(twin)
    return repeated


def in_pieces(packets, size):
    """Every segment cut into segments of ``size`` octets."""
    out = []
    for p in packets:
        data = bytes(p[TCP].payload)[: p[IP].len - 20 - p[TCP].dataofs * 4]
        if len(data) <= size:
            out.append(p)
            continue
        for at in range(0, len(data), size):
            q = p.copy()
            q[TCP].remove_payload()
            q[TCP].add_payload(data[at : at + size])
            q[TCP].seq = (p[TCP].seq + at) & 0xFFFFFFFF
            del q[IP].len, q[IP].chksum, q[TCP].chksum
            q = Ether(bytes(q))
            q.time = p.time
            out.append(q)
    return out


def six_in_vlans(packets):
    """IPv6 in two VLAN tags; the addresses keep their last octet."""
    out = []
    for p in packets:
        tcp = p[TCP].copy()
        del tcp.chksum
        ends = [("2001:db8:0:1::" if a.startswith("198") else "2606:4700::") + a.rsplit(".")[-1]
                for a in (p[IP].src, p[IP].dst)]  # fmt: skip
        q = (
            Ether(type=0x88A8)
            / Dot1Q(vlan=7, type=0x8100)
            / Dot1Q(vlan=42)
            / IPv6(src=ends[0], dst=ends[1])
            / tcp
        )
        q = Ether(bytes(q))
        q.time = p.time
        out.append(q)
    return out


def as_pcapng(packets):
    """Big-endian pcapng with nanosecond stamps, two interfaces (the second raw IP), the odd packets on it."""

    def block(kind, body):
        body += bytes(-len(body) % 4)
        return struct.pack(">II", kind, len(body) + 12) + body + struct.pack(">I", len(body) + 12)

    resolution = struct.pack(">HHB3xHH", 9, 1, 9, 0, 0)
    out = [block(0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1))]
    out += [block(1, struct.pack(">HHI", link, 0, 0) + resolution) for link in (1, 101)]
    for i, p in enumerate(packets):
        data = bytes(p) if i % 2 == 0 else bytes(p[IP])
        ns = int(p.time * 1_000_000) * 1000
        head = struct.pack(">IIIII", i % 2, ns >> 32, ns & 0xFFFFFFFF, len(data), len(data))
        out.append(block(6, head + data))
    return b"".join(out)


def spoken(speaker, jobs=3, shares=4):
    """A connection of a speaker's, from its handshake on."""
    said = list(speaker.open())
    for number in range(jobs):
        said += speaker.job(number, speaker.hashes, number == 0)[0]
        for _ in range(shares):
            request = speaker.share(number)
            said += [("c", request), ("s", speaker.reply(request, "accepted"))]
    return connection((side, speaker.dump(message)) for side, message in said)


def turns(sizes, port):
    """A connection of two sides that take turns and say random octets, so many each time."""
    rng = random.Random(port)
    said = [
        (side, rng.randbytes(size))
        for both in zip(*sizes, strict=False)
        for side, size in zip("cs", both, strict=True)
    ]
    return connection(said, port)


def connection(said, port=3336):
    """Packets, two seconds apart, of what the sides say: (side, octets)."""
    at = {"c": 1000, "s": 5000}
    ends = {"c": ("198.51.100.23", 40001), "s": ("203.0.113.10", port)}
    out = []

    def send(side, flags, data=b""):
        other = "s" if side == "c" else "c"
        tcp = TCP(sport=ends[side][1], dport=ends[other][1], flags=flags, seq=at[side], ack=at[other])
        p = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / IP(
            src=ends[side][0], dst=ends[other][0]
        )
        p = p / tcp / data
        p.time = 1_795_000_000 + 2 * len(out)
        out.append(Ether(bytes(p)))
        out[-1].time = p.time
        at[side] += len(data) + ("S" in flags)

    send("c", "S")
    send("s", "SA")
    send("c", "A")
    for side, data in said:
        send(side, "PA", data)
    send("c", "A")
    return out


def evade():
    """What ``evasions`` makes of a short session, and of look-alikes."""
    xmrig, rpc, wallet = read("xmrig-plain"), read("rpcapp3333")[:400], read("electrum")
    both = {"cryptonote": xmrig, "rpc-service": rpc}
    for name, packets in both.items():
        write(f"{name}-split-everywhere", evasions.split_everywhere(packets))
        write(f"{name}-in-fragments", evasions.in_fragments(packets))
        write(f"{name}-over-websocket", evasions.reworded(packets, evasions.websocket))
        write(f"{name}-with-json-escapes", evasions.reworded(packets, evasions.escaped))
        write(f"{name}-in-vxlan", evasions.in_tunnel(packets, "vxlan"))
    write("cryptonote-in-segments-of-one-octet", in_pieces(xmrig[:60], 1))
    write("cryptonote-overlapped", evasions.overlapped(xmrig))
    write("electrum-overlapped", evasions.overlapped(wallet[:200]))
    write("cryptonote-behind-blanks", evasions.reworded(xmrig, evasions.blanks))
    write("cryptonote-over-ipv6-in-fragments", evasions.six_in_fragments(xmrig))
    for number in (25, 53, 443):
        write(f"cryptonote-on-port-{number}", evasions.port(xmrig, number))
    write("rpc-service-on-port-443", evasions.port(rpc, 443))
    for name, said, answer in (
        ("proxy-v1", evasions.PROXY_V1, b""),
        ("proxy-v2", evasions.PROXY_V2, b""),
        ("connect", evasions.CONNECT, evasions.CONNECTED),
    ):
        write(f"cryptonote-after-{name}", evasions.reworded(xmrig, evasions.before(said, answer)))
    connect = evasions.before(evasions.CONNECT, evasions.CONNECTED)
    write("rpc-service-after-connect", evasions.reworded(rpc, connect))
    socks = evasions.before(evasions.SOCKS5, evasions.SOCKED)
    write("cryptonote-after-socks5", evasions.reworded(xmrig, socks))
    write("rpc-service-after-socks5", evasions.reworded(rpc, socks))
    write("btc-v1-over-websocket", evasions.reworded(read("cpuminer-sha256d"), evasions.websocket))
    write("chat-over-websocket", evasions.reworded(read("chat"), evasions.websocket))
    write("cryptonote-over-compressed-websocket", evasions.reworded(xmrig, evasions.compressed()))
    write("wallet-over-compressed-websocket", evasions.reworded(wallet[:200], evasions.compressed()))
    write("rpc-service-over-cut-websocket-frames", evasions.reworded(rpc, evasions.cut_frames))
    write("cryptonote-past-the-last-number", evasions.overlapped(evasions.wrapping(xmrig)))
    nested = evasions.before(evasions.SOCKS5 + evasions.CONNECT * 2, evasions.SOCKED + evasions.CONNECTED * 2)
    write("cryptonote-after-nested-proxies", evasions.reworded(xmrig, nested))
    write("rpc-service-after-nested-proxies", evasions.reworded(rpc, nested))
    write("getwork-in-small-segments", in_pieces(read("cpuminer-getwork")[:120], 90))
    carry(xmrig, rpc)
    for kind in ("qinq", "mpls", "pseudowire", "pppoe", "gre", "ip-in-ip", "geneve", "gtp", "erspan"):
        write(f"cryptonote-in-{kind}", evasions.in_tunnel(xmrig, kind))
    for kind in ("gre", "gtp", "mpls", "pppoe"):
        write(f"wallet-in-{kind}", evasions.in_tunnel(wallet[:200], kind))
    write("cryptonote-in-six-in-four", evasions.six_in_four(xmrig))
    write("wallet-in-six-in-four", evasions.six_in_four(wallet[:200]))
    write("wallet-over-ipv6-in-fragments", evasions.six_in_fragments(wallet[:200]))


def carry(xmrig, rpc):
    """Carriers whose lines show no token in any one segment, and look-alikes in the same."""
    split, reworded = evasions.split_everywhere, evasions.reworded
    socket = reworded(xmrig, evasions.websocket)
    write("cryptonote-over-websocket-split-everywhere", split(socket))
    write("cryptonote-over-websocket-split-and-joined-in-the-middle", split(joined(socket, 6)))
    write("cryptonote-over-cut-websocket-frames", reworded(xmrig, evasions.cut_frames))
    alone = reworded(xmrig, evasions.compressed_alone)
    write("cryptonote-over-compressed-websocket-joined-in-the-middle", joined(alone, 6))
    write(
        "cryptonote-over-compressed-websocket-split-everywhere", split(reworded(xmrig, evasions.compressed()))
    )
    behind = evasions.behind_connect(evasions.compressed())
    write("cryptonote-over-compressed-websocket-after-connect", reworded(xmrig, behind))
    write("cryptonote-after-nested-proxies-split-everywhere", split(reworded(xmrig, evasions.behind_socks)))
    work, calls = read("cpuminer-getwork")[:120], read("ethrpc")[:120]
    for name, change in (
        ("in-chunks", evasions.chunked(3)),
        ("compressed", evasions.bodies(evasions.zipped)),
        ("with-json-escapes", evasions.bodies(evasions.escaped_body)),
    ):
        write(f"getwork-{name}", reworded(work, change))
        write(f"wallet-rpc-{name}", reworded(calls, change))
    write("rpc-service-over-compressed-websocket-split-everywhere",
          split(reworded(rpc[:100], evasions.compressed())))  # fmt: skip
    write("rpc-service-over-websocket-split-and-joined-in-the-middle",
          split(joined(reworded(rpc[:100], evasions.websocket), 6)))  # fmt: skip


def forge():
    """What others, or the miner himself, put between the segments of a session."""
    xmrig, rpc, chat = read("xmrig-plain"), read("rpcapp3333")[:120], read("chat")
    write("cryptonote-among-forged-resets", evasions.among(xmrig, evasions.RESETS))
    write("cryptonote-among-forged-openings", evasions.among(xmrig, evasions.OPENINGS))
    write("cryptonote-among-forged-closings", evasions.among(xmrig, evasions.CLOSINGS))
    write("cryptonote-behind-decoys", evasions.among(xmrig, evasions.DECOYS))
    write("cryptonote-in-octets-in-reverse", evasions.in_reverse(xmrig))
    write("cryptonote-in-contradicted-fragments", evasions.contradicted(xmrig))
    write("cryptonote-again-on-the-same-ports", evasions.again(xmrig))
    everything = evasions.RESETS[:2] + evasions.OPENINGS[:2] + evasions.CLOSINGS[:1] + evasions.DECOYS
    write("rpc-service-behind-decoys", evasions.among(rpc, everything))
    lines = [evasions.payload(p) for p in xmrig if evasions.payload(p)]
    write("chat-behind-forged-mining-lines", evasions.lied_about(chat, lines))


def main():
    version2 = spoken(stratum2.Extended())
    write("stratum-v2-plain", version2)
    write("stratum-v2-plain-joined-in-the-middle", version2[14:])
    write("stratum-v2-encrypted", spoken(noise.Extended()))
    client, (_, *server) = encrypted.bip324(random.Random(2))
    write("bitcoin-v2-transport", turns((client, [234, *server]), 8333))  # 134 octets of garbage
    write("lightning", turns(encrypted.bolt8(random.Random(1)), 9735))
    write("cryptonote-joined-in-the-middle", joined(read("xmrig-plain"), 6))
    write("btc-v1-server-side-only", one_way(read("cpuminer-sha256d"), "203."))
    write("btc-v1-client-side-only", one_way(read("cpuminer-sha256d"), "198."))
    write("btc-v1-rough-road", rough(read("cpuminer-scrypt-dense"), 1))
    write("btc-v1-bytes-lost", rough(read("cpuminer-realpool-sha256d-vardiff"), 2, lost={30, 31, 60}))
    write("cryptonote-in-tiny-segments", in_pieces(read("xmrig-plain"), 7))
    write("btc-v1-ipv6-in-vlans", six_in_vlans(read("cpuminer-sha256d")))
    write("electrum-rough-road", rough(read("electrum"), 3))
    write("rpc-service-in-tiny-segments", in_pieces(read("rpcapp3333"), 5))
    write("wallet-rpc-ipv6-in-vlans", six_in_vlans(read("ethrpc")))
    write("chat-joined-in-the-middle", joined(read("chat"), 5))
    write("rpc-service-server-side-only", one_way(read("rpcapp3333"), "203."))
    evade()
    forge()
    packed = gzip.compress(as_pcapng(read("xmrig-plain")), mtime=0)
    (CASES / "cryptonote-pcapng-two-links-gz" / "capture.pcapng.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
