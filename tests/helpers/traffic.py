"""A draw in, scripts of connections out: what clients and servers say, packet by packet, without addresses.

Sizes and times are those of ordinary home traffic: web pages over TLS and QUIC make most of the bytes, DNS,
HTTP, services that speak JSON, Electrum wallets, SSH, chat and port scans most of the variety.  Bodies of
encrypted records are noise that ``framing`` fills in; everything that can be read is written out here.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import lookalikes
from draw import FROM_CLIENT, Draw, Line

MSS = 1360
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, SERVER = 0, 1
MS = 1_000_000
MIMES = ("image/jpeg", "image/png", "application/octet-stream", "video/mp4")


class Script:
    """One connection: packets as (side, flags, head bytes, length, seq, ack, wait_ns)."""

    def __init__(self, d: Draw, name: str, protocol: int, port: int) -> None:
        self.name, self.protocol, self.port = name, protocol, port
        self.packets: list[tuple[int, int, bytes, int, int, int, int]] = []
        self.round_trip_ns = d.between(8, 90) * MS
        self._draw, self._now, self._next, self._owed = d, 0, [0, 0], [0, 0]

    def __len__(self) -> int:
        return len(self.packets)

    def packet(self, side: int, flags: int, head: bytes = b"", length: int | None = None) -> None:
        """One packet as it is; ``length`` above the head's is noise."""
        size = len(head) if length is None else length
        ack = self._next[1 - side] if flags & ACK else 0
        self.packets.append((side, flags, head, size, self._next[side], ack, self._now))
        self._next[side] += size + (1 if flags & (SYN | FIN) else 0)

    def wait(self, ns: float) -> None:
        """Nothing happens for so long."""
        self._now += int(ns)

    def pause(self, mean_ms: float) -> None:
        """A person or a program thinks: exponential."""
        self.wait(self._draw.random.expovariate(1 / (mean_ms * MS)))

    def open(self) -> "Script":
        """The TCP handshake."""
        self.packet(CLIENT, SYN)
        self.wait(self.round_trip_ns)
        self.packet(SERVER, SYN | ACK)
        self.wait(MS // 5)
        self.packet(CLIENT, ACK)
        return self

    def say(self, side: int, head: bytes, length: int | None = None) -> None:
        """A message over TCP, cut into segments; the other side acknowledges every second one."""
        size = len(head) if length is None else length
        self.wait(self.round_trip_ns // 2)
        for start in range(0, size, MSS):
            end = min(start + MSS, size)
            self.packet(side, ACK | (PSH if end == size else 0), head[start:end], end - start)
            self.wait(self._draw.between(30, 400) * 1000)
            self._owed[1 - side] += 1
            if self._owed[1 - side] >= 2:
                self.packet(1 - side, ACK)
                self._owed[1 - side] = 0

    def close(self) -> "Script":
        """FIN from the client, FIN from the server; now and then a reset instead."""
        if self._draw.one_in(8):
            self.packet(CLIENT, RST | ACK)
            return self
        self.packet(CLIENT, FIN | ACK)
        self.wait(self.round_trip_ns)
        self.packet(SERVER, FIN | ACK)
        self.packet(CLIENT, ACK)
        return self


def host(d: Draw) -> str:
    """A host name."""
    return (
        f"{d.some('www', 'cdn', 'api', 'img', 'mail')}.{d.word()}.{d.some('example', 'test', 'example.org')}"
    )


def extension(kind: int, body: bytes) -> bytes:
    """One TLS extension."""
    return struct.pack(">HH", kind, len(body)) + body


def client_hello(d: Draw, name: str) -> bytes:
    """A TLS 1.3 client hello record with server name and ALPN."""
    sni = struct.pack(">HBH", len(name) + 3, 0, len(name)) + name.encode()
    alpn = b"\x00\x0c\x02h2\x08http/1.1"
    share = struct.pack(">HHH", 36, 29, 32) + d.random.randbytes(32)
    extensions = (
        extension(0, sni) + extension(16, alpn) + extension(10, bytes.fromhex("0006001d00170018"))
        + extension(13, bytes.fromhex("00080403080404010503")) + extension(43, b"\x02\x03\x04")
        + extension(51, share) + extension(21, bytes(d.below(180)))
    )  # fmt: skip
    ciphers = bytes.fromhex("130113021303c02bc02fc02cc030")
    body = b"\x03\x03" + d.random.randbytes(32) + b"\x20" + d.random.randbytes(32)
    body += (
        struct.pack(">H", len(ciphers))
        + ciphers
        + b"\x01\x00"
        + struct.pack(">H", len(extensions))
        + extensions
    )
    body = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(body)) + body


def server_hello(d: Draw) -> bytes:
    """A TLS 1.3 server hello and the change of cipher."""
    extensions = extension(43, b"\x03\x04") + extension(
        51, struct.pack(">HH", 29, 32) + d.random.randbytes(32)
    )
    body = b"\x03\x03" + d.random.randbytes(32) + b"\x20" + d.random.randbytes(32) + b"\x13\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    body = b"\x02" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + struct.pack(">H", len(body)) + body + b"\x14\x03\x03\x00\x01\x01"


def record(size: int) -> tuple[bytes, int]:
    """A TLS application record: its head, and its whole length."""
    return b"\x17\x03\x03" + struct.pack(">H", size), size + 5


def tls(d: Draw, packets: int) -> Script:
    """Requests and answers over TLS until there are so many packets."""
    s = Script(d, "tls", 6, 443).open()
    s.say(CLIENT, client_hello(d, host(d)))
    hello = server_hello(d)
    s.say(SERVER, hello)
    s.say(SERVER, *record(d.between(1800, 3600)))
    s.say(CLIENT, b"\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x35", 6 + 58)
    chatty = d.one_in(2)
    while len(s) < packets - 4:
        s.pause(40 if not d.one_in(6) else 900)
        s.say(CLIENT, *record(d.between(40, 500)))
        for _ in range(1 if chatty else d.between(1, 3)):
            size = d.random.lognormvariate(7.2 if chatty else 8.6, 1.0)
            s.say(SERVER, *record(int(min(16384, max(28, size)))))
    return s.close()


def quic(d: Draw, packets: int) -> Script:
    """Initial, handshake, then short-header packets, most of them from the server."""
    s = Script(d, "quic", 17, 443)
    ours, theirs = d.random.randbytes(8), d.random.randbytes(8)
    initial = b"\xc3\x00\x00\x00\x01\x08" + theirs + b"\x08" + ours + b"\x00\x44\x96"
    s.packet(CLIENT, 0, initial, 1200)
    s.wait(s.round_trip_ns)
    s.packet(SERVER, 0, b"\xc5\x00\x00\x00\x01\x08" + ours + b"\x08" + theirs + b"\x00\x44\x96", 1200)
    s.packet(
        SERVER, 0, b"\xe1\x00\x00\x00\x01\x08" + ours + b"\x08" + theirs + b"\x43\x20", d.between(700, 1200)
    )
    while len(s) < packets:
        s.packet(CLIENT, 0, bytes((0x40 | d.below(32),)) + theirs, d.between(30, 320))
        s.wait(s.round_trip_ns if d.one_in(4) else MS // 2)
        for _ in range(d.between(1, 4)):
            size = d.some(1250, 1250, d.between(60, 1250), d.between(40, 300))
            s.packet(SERVER, 0, bytes((0x40 | d.below(32),)) + ours, size)
            s.wait(MS // 4)
            if d.one_in(2):
                s.packet(CLIENT, 0, bytes((0x40 | d.below(32),)) + theirs, d.between(30, 45))
        s.pause(20)
    return s


def prose(d: Draw, size: int) -> str:
    """Readable text of about this many characters."""
    return " ".join(d.word() for _ in range(size // 9))


def http(d: Draw) -> Script:
    """Web pages, images and, one time in three, services that speak JSON."""
    s, name, service = Script(d, "http", 6, d.some(80, 80, 80, 8080)).open(), host(d), d.one_in(3)
    for _ in range(d.between(1, 5)):
        path = "/".join(d.word() for _ in range(d.between(1, 3)))
        head = f"Host: {name}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0\r\nAccept: */*\r\n"
        if service:
            row = {
                "user": d.word(),
                "id": d.below(999),
                "items": [d.hex(16) for _ in range(d.between(1, 40))],
            }
            body = d.json(row)
            request = f"POST /{path} HTTP/1.1\r\n{head}Content-Type: application/json\r\n"
            s.say(CLIENT, f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = d.json({"status": "OK", "result": [row] * d.between(1, 4)})
            s.say(SERVER, answered("application/json", len(answer)) + answer)
        else:
            s.say(
                CLIENT, f"GET /{path} HTTP/1.1\r\n{head}Cookie: {d.hex(d.between(20, 400))}\r\n\r\n".encode()
            )
            if d.one_in(2):
                size = int(min(40000, d.random.lognormvariate(8.2, 1)))
                head_bytes = answered(d.pick(MIMES), size)
                s.say(SERVER, head_bytes, len(head_bytes) + size)
            else:
                page = (
                    f"<html><body>{prose(d, int(min(15000, d.random.lognormvariate(7.5, 1))))}</body></html>"
                )
                s.say(SERVER, answered("text/html", len(page)) + page.encode())
        s.pause(300)
    return s.close()


def answered(mime: str, size: int) -> bytes:
    """The head of an HTTP reply."""
    return (
        f"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: {mime}\r\nContent-Length: {size}\r\n\r\n".encode()
    )


def dns(d: Draw) -> Script:
    """One question; the answer is an address, at times behind a CNAME, at times none."""
    s, name = Script(d, "dns", 17, 53), host(d)
    labels = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\x00"
    number, kind = d.random.randbytes(2), d.some(1, 1, 28, 65)
    question = labels + struct.pack(">HH", kind, 1)
    s.packet(CLIENT, 0, number + b"\x01\x00\x00\x01" + bytes(6) + question)
    s.wait(s.round_trip_ns // 2)
    address = {1: d.random.randbytes(4), 28: b"\x2a\x00" + d.random.randbytes(14)}.get(kind)
    answers = []
    if d.one_in(3):
        alias = b"\x03cdn" + b"\xc0\x0c"
        answers.append(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x01\x2c" + struct.pack(">H", len(alias)) + alias)
    if address:
        answers.append(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, d.between(20, 900), len(address)) + address
        )
    reply = number + b"\x81\x80\x00\x01" + struct.pack(">HHH", len(answers), 0, 0)
    s.packet(SERVER, 0, reply + question + b"".join(answers))
    return s


def ssh(d: Draw) -> Script:
    """Banners, key exchange, keystrokes and their echo, now and then a screenful."""
    s = Script(d, "ssh", 6, 22).open()
    s.say(SERVER, b"SSH-2.0-OpenSSH_9.6p1 Debian-3\r\n")
    s.say(CLIENT, b"SSH-2.0-OpenSSH_9.2p1\r\n")
    offer = b"curve25519-sha256,ecdh-sha2-nistp256,ssh-ed25519,aes128-ctr,hmac-sha2-256,none" * 8
    for side in (CLIENT, SERVER):
        lists = struct.pack(">I", len(offer)) + offer + bytes(9 * 4 + 5)
        s.say(side, struct.pack(">IBB", len(lists) + 22, 4, 20) + d.random.randbytes(16) + lists + bytes(4))
    s.say(CLIENT, b"\x00\x00\x00\x2c\x06\x1e", 48)
    s.say(SERVER, b"\x00\x00\x00\xbc\x08\x1f", 500)
    for _ in range(d.between(10, 60)):
        s.say(CLIENT, b"", 36)
        s.say(SERVER, b"", d.some(36, 36, 36, d.between(100, 3000)))
        s.pause(250)
    return s.close()


def spoken(
    d: Draw,
    name: str,
    ports: tuple[int, ...],
    families: Sequence[Callable[[Draw], Iterable[Line]]],
    times: int = 4,
) -> Script:
    """One of the look-alikes, up to so many times; lines that follow each other may share a segment."""
    d.begin()
    s, family = Script(d, name, 6, d.pick(ports)).open(), d.pick(families)
    said = [line for _ in range(d.between(1, times)) for line in family(d)]
    joined = b""
    for (text, side), (_, after) in pairwise([*said, (b"", None)]):
        joined += text
        if side == after and side != FROM_CLIENT and d.one_in(3):
            continue
        s.say(CLIENT if side else SERVER, joined)
        joined = b""
        s.pause(120)
    return s.close()


def service(d: Draw) -> Script:
    """Services that speak JSON-RPC in lines or over HTTP, some on ports that pools like."""
    # The wallet's one eth_getWork must stay one: no family that holds it is said several times.
    if d.one_in(5):
        return spoken(d, "service", (8545, 443, 3333), (lookalikes.ethereum, lookalikes.node), 1)
    families = (
        lookalikes.printing, lookalikes.verto, lookalikes.game, lookalikes.queue, lookalikes.exchange,
        lookalikes.telemetry, lookalikes.editor,
    )  # fmt: skip
    return spoken(d, "service", (8545, 3333, 4444, 8332, 9000, 5555, 8081), families)


def electrum(d: Draw) -> Script:
    """A wallet at an Electrum server."""
    return spoken(d, "electrum", (50001, 50001, 51001), (lookalikes.electrum,))


def chatter(d: Draw) -> Script:
    """IRC, MQTT, Redis and web pages in which mining lines are quoted."""
    port, family = d.some((6667, lookalikes.chat), (1883, lookalikes.mqtt), (80, lookalikes.blog))
    return spoken(d, "chatter", (port,), (family,))


def scan(d: Draw) -> Script:
    """One SYN, and at times a refusal."""
    s = Script(d, "scan", 6, d.between(1, 60000))
    s.packet(CLIENT, SYN)
    if d.one_in(2):
        s.wait(s.round_trip_ns)
        s.packet(SERVER, RST | ACK)
    return s


def clock(d: Draw) -> Script:
    """NTP."""
    s = Script(d, "ntp", 17, 123)
    s.packet(CLIENT, 0, b"\x23\x00\x06\xec" + bytes(36) + d.random.randbytes(8))
    s.wait(s.round_trip_ns)
    s.packet(SERVER, 0, b"\x24\x02\x06\xe8" + d.random.randbytes(44))
    return s


# Per kind of fixed size: how many scripts are written, and the kind's share of the connections.
KINDS: dict[Callable[[Draw], Script], tuple[int, float]] = {
    dns: (400, 0.20),
    http: (250, 0.16),
    service: (300, 0.07),
    electrum: (80, 0.02),
    chatter: (80, 0.02),
    ssh: (40, 0.03),
    scan: (20, 0.06),
    clock: (10, 0.04),
}
# The rest of the connections, whose length follows from the packets that are wanted.
BULK: dict[Callable[[Draw, int], Script], tuple[int, float]] = {tls: (500, 0.31), quic: (150, 0.09)}
