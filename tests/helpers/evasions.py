"""Sessions of ``pcaps/`` as one would send them who does not want to be found: packets in, packets out."""

import gzip
import re
import socket
import struct
import zlib

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

OUTER = IP(src="192.0.2.1", dst="192.0.2.2")
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def stamped(packet, like):
    """The packet as bytes make it, at the time of another."""
    out = Ether(bytes(packet))
    out.time = like.time
    return out


def payload(packet):
    """The TCP payload, without padding."""
    return bytes(packet[TCP].payload)[: packet[IP].len - 20 - packet[TCP].dataofs * 4]


def segment(packet, data, at=0):
    """The segment with other bytes, ``at`` octets further on."""
    q = packet.copy()
    q[TCP].remove_payload()
    q[TCP].add_payload(data)
    q[TCP].seq = (packet[TCP].seq + at) & 0xFFFFFFFF
    del q[IP].len, q[IP].chksum, q[TCP].chksum
    return stamped(q, packet)


def split_everywhere(packets):
    """The n-th segment with payload is cut behind its n-th octet: lines are split at every place in turn."""
    out, n = [], 0
    for p in packets:
        data = payload(p)
        if len(data) < 2:
            out.append(p)
            continue
        n = n % (len(data) - 1) + 1
        out += [segment(p, data[:n]), segment(p, data[n:], n)]
    return out


def overlapped(packets):
    """Each segment in three that overlap by half and come in the order last, first, middle, first again."""
    out = []
    for p in packets:
        data = payload(p)
        third = len(data) // 3
        if not third:
            out.append(p)
            continue
        parts = [(0, 2 * third), (third // 2, 3 * third), (2 * third, len(data))]
        out += [segment(p, data[a:b], a) for a, b in (parts[k] for k in (2, 0, 1, 0))]
    return out


def port(packets, number, server="203."):
    """The server at another port."""
    out = []
    for p in packets:
        q = p.copy()
        if q[IP].src.startswith(server):
            q[TCP].sport = number
        else:
            q[TCP].dport = number
        del q[TCP].chksum
        out.append(stamped(q, p))
    return out


def reworded(packets, change):
    """``change(data, is first of its direction)`` instead of what was said; sequence numbers follow."""
    shift = {}  # by direction: (sequence number, how much more was said before)
    out = []
    for p in packets:
        way, back = p[IP].src, p[IP].dst
        data = payload(p)
        q = p.copy()
        q[TCP].remove_payload()
        begins = p[TCP].seq
        q[TCP].seq = (begins + shift.get(way, [0, 0])[1]) & 0xFFFFFFFF
        q[TCP].ack = (p[TCP].ack + shift.get(back, [0, 0])[1]) & 0xFFFFFFFF
        if data:
            said = change(data, way not in shift, way.startswith("198."))
            shift.setdefault(way, [begins, 0])[1] += len(said) - len(data)
            q[TCP].add_payload(said)
        del q[IP].len, q[IP].chksum, q[TCP].chksum
        out.append(stamped(q, p))
    return out


def escaped(data, _first, _client):
    """JSON escapes in the names of methods and keys."""
    for name in (b"login", b"submit", b"job", b"keepalived", b"job_id", b"method", b"KEEPALIVED"):
        data = data.replace(b'"%s"' % name, b'"\\u%04x%s"' % (name[0], name[1:]))
    return data


def blanks(data, _first, _client):
    """Blanks before every line and around colons."""
    return b" \t \r\n  " + data.replace(b'":', b'" : ')


def before(client, server=b""):
    """A preamble before the first bytes of each side."""

    def change(data, first, is_client):
        return ((client if is_client else server) if first else b"") + data

    return change


PROXY_V1 = b"PROXY TCP4 198.51.100.11 203.0.113.9 40000 3333\r\n"
PROXY_V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + socket.inet_aton("198.51.100.11")
    + socket.inet_aton("203.0.113.9")
    + struct.pack(">HH", 40000, 3333)
)
CONNECT = b"CONNECT pool.example.net:3333 HTTP/1.1\r\nHost: pool.example.net:3333\r\n\r\n"
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


SOCKS5 = b"\5\2\0\2" + b"\1\2me\6secret" + b"\5\1\0\3\x10pool.example.net" + struct.pack(">H", 3333)
SOCKED = b"\5\2" + b"\1\0" + b"\5\0\0\1" + bytes(6)


def mask(data, first=b"\x81"):
    """One text frame of a WebSocket client (RFC 6455 section 5.3)."""
    key = b"\x37\xfa\x21\x3d"
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
    return first + size + key + bytes(b ^ key[i % 4] for i, b in enumerate(data))


def frame(data, first=b"\x81"):
    """One text frame of a WebSocket server."""
    return first + (bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))) + data


def websocket(data, first, client):
    """The same lines as messages of a WebSocket, after the upgrade."""
    if client:
        head = b"GET /ws HTTP/1.1\r\nHost: x.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    else:
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    return (head if first else b"") + (mask(data) if client else frame(data))


def compressed():
    """The same, compressed, each side's window kept over its messages (RFC 7692)."""
    packers = [zlib.compressobj(9, zlib.DEFLATED, -15) for _ in range(2)]

    def change(data, first, client):
        pack = packers[client]
        sent = (pack.compress(data) + pack.flush(zlib.Z_SYNC_FLUSH))[:-4]
        head = websocket(b"", first, client)[: -6 if client else -2]
        return head + (mask(sent, b"\xc1") if client else frame(sent, b"\xc1"))

    return change


def compressed_alone(data, first, client):
    """Compressed messages that look back at nothing that was sent before ("no_context_takeover")."""
    return compressed()(data, first, client)


def behind_connect(change):
    """The same, behind a proxy's CONNECT; its answer and the first words behind it are one segment."""
    connect = before(CONNECT, CONNECTED)
    return lambda data, first, client: connect(change(data, first, client), first, client)


def behind_socks(data, first, client):
    """All method names and keys escaped, behind SOCKS 5 and CONNECT: nothing shows where it is split."""
    said = SOCKS5 + CONNECT if client else SOCKED + CONNECTED.replace(b"Connection established", b"OK")
    return (said if first else b"") + escaped(data, first, client)


def bodies(change):
    """``change(head without its length, body)`` of each message of HTTP that has a body."""

    def reword(data, _first, _client):
        head, _, body = data.partition(b"\r\n\r\n")
        if not body:
            return data
        fields = [f for f in head.split(b"\r\n") if not f.lower().startswith(b"content-length:")]
        return change(b"\r\n".join(fields), body)

    return reword


def chunked(size):
    """Bodies in chunks of so many octets, each with an extension (RFC 9112 section 7.1)."""

    def change(head, body):
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts)
        return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    return bodies(change)


def zipped(head, body):
    """A body in gzip, both sides (RFC 9110 section 8.4)."""
    body = gzip.compress(body, mtime=0)
    return head + b"\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def escaped_body(head, body):
    """Every character of every string of a body as a JSON escape."""
    body = re.sub(rb'"([^"\\]*)"', lambda m: b'"%s"' % b"".join(b"\\u%04x" % ch for ch in m[1]), body)
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def cut_frames(data, first, client):
    """Messages of a WebSocket in frames of eleven octets, with a ping and a pong behind each of them."""
    make = mask if client else frame
    out = websocket(b"", first, client)[: -6 if client else -2]
    for at in range(0, len(data), 11):
        head = (at == 0) | (0x80 if at + 11 >= len(data) else 0)
        out += make(data[at : at + 11], bytes([head])) + make(b"hi", b"\x89") + make(b"", b"\x8a")
    return out


def wrapping(packets, before=100):
    """Sequence numbers of both sides pass 2**32 so many octets after they begin (RFC 9293 section 3.4)."""
    begins = {p[IP].src: p[TCP].seq for p in packets if p[TCP].flags.S}
    out = []
    for p in packets:
        q = p.copy()
        q[TCP].seq = (p[TCP].seq - begins[p[IP].src] - before) & 0xFFFFFFFF
        if p[TCP].flags.A:
            q[TCP].ack = (p[TCP].ack - begins[p[IP].dst] - before) & 0xFFFFFFFF
        del q[TCP].chksum
        out.append(stamped(q, p))
    return out


def forged(packet, flags, seq=0, data=b"", *, ack=0, ttl=64, options=(), checksum=None):
    """A segment beside ``packet``, ``seq`` octets from where that begins, as anybody may send it."""
    q = packet.copy()
    q[TCP].remove_payload()
    q[TCP].options, q[TCP].flags, q[IP].ttl = list(options), flags, ttl
    q[TCP].seq, q[TCP].ack = (packet[TCP].seq + seq) & 0xFFFFFFFF, (packet[TCP].ack + ack) & 0xFFFFFFFF
    q[TCP].add_payload(data)
    del q[IP].len, q[IP].chksum, q[TCP].chksum, q[TCP].dataofs
    if checksum is not None:
        q[TCP].chksum = checksum
    return stamped(q, packet)


def among(packets, forgers):
    """Before each segment with payload what each of ``forgers`` makes of it, and behind it too."""
    out = []
    for p in packets:
        more = [make(p) for make in forgers] if payload(p) else []
        out += [*more, p, *more]
    return out


def _fill(p):
    return b"A" * len(payload(p))


RESETS = tuple(
    lambda p, flags=flags, seq=seq: forged(p, flags, seq)
    for flags in ("R", "RA")
    for seq in (0, 1, 40_000, -500, 123_456_789)
)
OPENINGS = (
    lambda p: forged(p, "S", 55_555),
    lambda p: forged(p, "SA", 777),
    lambda p: forged(p, "S", 99_999, b"GET / HTTP/1.1\r\n"),
    lambda p: forged(p, "S", 2_000_000_000),
    lambda p: forged(p, "A", 2_000_000_001),
)
CLOSINGS = (
    lambda p: forged(p, "FA"),
    lambda p: forged(p, "FA", 987_654_321),
    lambda p: forged(p, "FPA", 5000, b"zzzz"),
    lambda p: forged(p, "FSRPAUEC", 0, b"A"),
)
# What the tap sees and the peer never, or what the peer drops.
DECOYS = (
    lambda p: forged(p, "PA", 0, _fill(p), checksum=0x1234),
    lambda p: forged(p, "PA", 0, _fill(p), checksum=0),
    lambda p: forged(p, "PA", -20, b"B" * 20 + 2 * _fill(p), ttl=5),
    lambda p: forged(p, "PA", 0, _fill(p), options=[(19, bytes(16))]),
    lambda p: forged(p, "PA", 0, _fill(p), ack=0x40000000),
    lambda p: forged(p, "P", 0, _fill(p)),
    lambda p: forged(p, "", 0, _fill(p)),
    lambda p: forged(p, "PA", 60, b"C" * 40, ttl=20),
)


def lied_about(packets, lines):
    """Before each segment with payload one of a wrong checksum, and one without ACK, that say ``lines`` in
    turn: nobody takes these."""
    out, n = [], 0
    for p in packets:
        if payload(p):
            line = lines[n % len(lines)]
            out += [forged(p, "PA", 0, line, checksum=0x1234), forged(p, "P", 0, line)]
            n += 1
        out.append(p)
    return out


def in_reverse(packets):
    """Every segment in segments of one octet, the last first."""
    out = []
    for p in packets:
        data = payload(p)
        parts = [segment(p, data[k : k + 1], k) for k in range(len(data) - 1, -1, -1)]
        out += parts if len(data) > 1 else [p]
    return out


def contradicted(packets, size=64):
    """IPv4 fragments, last first, behind each one of the same place that says something else."""
    out = []
    for p in in_fragments(packets, size):
        out.append(p)
        if p[IP].frag or p[IP].flags.MF:
            q = p.copy()
            q[IP].remove_payload()
            q[IP].add_payload(Raw(b"B" * size))
            del q[IP].chksum, q[IP].len
            out.append(stamped(q, p))
    return out


def again(packets, seconds=60, by=0x12345678):
    """The same once more on the same ports, from other sequence numbers on."""
    out = list(packets)
    for p in packets:
        q = p.copy()
        q[TCP].seq = (p[TCP].seq + by) & 0xFFFFFFFF
        q[TCP].ack = (p[TCP].ack + by) & 0xFFFFFFFF if p[TCP].flags.A else 0
        del q[TCP].chksum
        q = stamped(q, p)
        q.time = p.time + seconds
        out.append(q)
    return out


def in_tunnel(packets, kind):
    """Every frame in a tunnel of this kind."""
    make = TUNNELS[kind]
    return [stamped(make(p), p) for p in packets]


def _geneve(p):
    return ETHER / OUTER / UDP(sport=50000, dport=6081) / Raw(b"\x02\0\x65\x58" + bytes(12)) / p


def _gtp(p):
    head = b"\x34\xff" + (len(p[IP]) + 8).to_bytes(2, "big") + bytes(7) + b"\x85\x01\x10\x09\0"
    return ETHER / OUTER / UDP(sport=2152, dport=2152) / Raw(head) / p[IP]


def _erspan(p):
    return ETHER / OUTER / GRE(proto=0x88BE, seqnum_present=1) / Raw(b"\x10\x01" + bytes(6)) / p


TUNNELS = {
    "qinq": lambda p: Ether(type=0x88A8) / Dot1Q(vlan=7, type=0x8100) / Dot1Q(vlan=42) / p[IP],
    "mpls": lambda p: ETHER / MPLS(label=17, s=0) / MPLS(label=99, s=1) / p[IP],
    "pseudowire": lambda p: ETHER / MPLS(label=99, s=1) / Raw(bytes(4)) / p,
    "pppoe": lambda p: ETHER / PPPoE(sessionid=5) / PPP() / p[IP],
    "gre": lambda p: ETHER / OUTER / GRE(key_present=1, key=7, chksum_present=1) / p[IP],
    "ip-in-ip": lambda p: ETHER / OUTER / p[IP],
    "six-in-four": lambda p: ETHER / OUTER / p,
    "vxlan": lambda p: ETHER / OUTER / UDP(sport=50000, dport=4789) / VXLAN(vni=5, flags="Instance") / p,
    "geneve": _geneve,
    "gtp": _gtp,
    "erspan": _erspan,
}


def as_six(packets):
    """IPv6 without tags; the addresses keep their last octet."""
    out = []
    for p in packets:
        tcp = p[TCP].copy()
        del tcp.chksum
        ends = [
            ("2001:db8:0:1::" if a.startswith("198") else "2606:4700::") + a.rsplit(".")[-1]
            for a in (p[IP].src, p[IP].dst)
        ]
        tcp.remove_payload()
        out.append(stamped(ETHER / IPv6(src=ends[0], dst=ends[1]) / tcp / Raw(payload(p)), p))
    return out


def six_in_four(packets):
    """IPv6 in IPv4."""
    return [stamped(ETHER / OUTER / p[IPv6], p) for p in as_six(packets)]


def in_fragments(packets, size=32):
    """Every packet with payload in fragments, in the order last, first, and so on."""
    out = []
    for n, p in enumerate(packets):
        data = payload(p)
        if not data:
            out.append(p)
            continue
        q = p.copy()
        q[TCP].remove_payload()
        q[TCP].add_payload(data)
        q[IP].id, q[IP].flags = n + 1, 0
        del q[IP].len, q[IP].chksum, q[TCP].chksum
        parts = fragment(IP(bytes(q[IP])), fragsize=size)
        out += [stamped(ETHER / part, p) for part in (parts[-1], *parts[:-1])]
    return out


def six_in_fragments(packets, size=32):
    """The same over IPv6."""
    out = []
    for n, p in enumerate(as_six(packets)):
        body = bytes(p[TCP])
        if len(body) <= 64:
            out.append(p)
            continue
        for at in range(0, len(body), size):
            head = IPv6ExtHdrFragment(nh=6, offset=at // 8, m=int(at + size < len(body)), id=n)
            part = ETHER / IPv6(src=p[IPv6].src, dst=p[IPv6].dst, nh=44) / head / Raw(body[at : at + size])
            out.append(stamped(part, p))
    return out
