"""A draw in, what brokers, nodes, pages and exporters of metrics say out: protocols that sound like mining.

What section 6 of the dialect reference lists beside services that speak JSON-RPC in lines: Bitcoin's two
transports between nodes, Lightning, brokers whose subjects or bodies are mining's, CometD, OpenTelemetry and
Prometheus, pages of pools; and servers whose error text or error data is a whole mining message.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import nearmisses
from draw import FROM_CLIENT, FROM_SERVER, Draw, Line

MAGIC = bytes.fromhex("f9beb4d9")


def _message(command: str, payload: bytes) -> bytes:
    """A message between Bitcoin's nodes: magic, command, length, checksum."""
    digest = hashlib.sha256(hashlib.sha256(payload).digest()).digest()
    return (
        MAGIC + command.encode().ljust(12, b"\0") + len(payload).to_bytes(4, "little") + digest[:4] + payload
    )


def bitcoin_nodes(d: Draw) -> Iterator[Line]:
    """Nodes that greet and hand over blocks; what a pool wrote into a coinbase may be anything."""
    agent = b"/Satoshi:27.0.0/"
    version = bytes.fromhex("80110100") + d.random.randbytes(76) + bytes((len(agent),)) + agent + bytes(5)
    for side in (FROM_CLIENT, FROM_SERVER):
        yield _message("version", version), side
        yield _message("verack", b""), side
    for _ in range(d.between(1, 5)):
        yield _message("inv", b"\x01\x02\0\0\0" + d.random.randbytes(32)), FROM_SERVER
        yield _message("getdata", b"\x01\x02\0\0\x40" + d.random.randbytes(32)), FROM_CLIENT
        words = nearmisses.quoted(d).encode()[:100] if d.one_in(2) else b"/ViaBTC/Mined by rig1/"
        block = d.random.randbytes(80) + b"\x01\x01\0\0\0" + bytes(36) + bytes((len(words),)) + words
        yield _message(d.some("block", "cmpctblock"), block + d.random.randbytes(200)), FROM_SERVER
    yield _message("ping", d.random.randbytes(8)), FROM_CLIENT


def encrypted_nodes(d: Draw) -> Iterator[Line]:
    """BIP 324: a key of 64 octets and as much garbage as each side likes, then packets of noise."""
    for side in (FROM_CLIENT, FROM_SERVER):
        yield d.random.randbytes(64 + d.some(0, d.below(64), d.below(4096))), side
    for _ in range(d.between(2, 12)):
        yield d.random.randbytes(20 + d.some(0, 13, 36, d.below(1400))), d.one_in(2)


def lightning(d: Draw) -> Iterator[Line]:
    """BOLT 8: acts of 50, 50 and 66 octets that begin with 0, then messages of noise."""
    for size, side in ((50, FROM_CLIENT), (50, FROM_SERVER), (66, FROM_CLIENT)):
        yield b"\0" + d.random.randbytes(size - 1), side
    for _ in range(d.between(2, 8)):
        yield d.random.randbytes(18 + d.between(20, 300)), d.one_in(2)


def nats(d: Draw) -> Iterator[Line]:
    """NATS: subjects are called as methods of mining are, bodies may be whole mining lines."""
    yield (
        b'INFO {"server_id":"%s","version":"2.10.1","max_payload":1048576}\r\n' % d.hex(22).encode(),
        FROM_SERVER,
    )
    yield b'CONNECT {"verbose":false,"user":"%s","pass":"x","lang":"go"}\r\n' % d.word().encode(), FROM_CLIENT
    subject = d.some("mining.notify", "mining.submit", "jobs.rx", "login")
    yield f"SUB {subject} 1\r\n".encode(), FROM_CLIENT
    for _ in range(d.between(1, 6)):
        body = d.some(nearmisses.quoted(d).encode(), d.json({"job_id": d.hex(8), "worker": d.word()}))
        yield b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(body), body), FROM_CLIENT
        yield b"MSG %s 1 %d\r\n%s\r\n" % (subject.encode(), len(body), body), FROM_SERVER


def amqp(d: Draw) -> Iterator[Line]:
    """AMQP 0-9-1: frames with a routing key, and a body that may be a mining line."""
    yield b"AMQP\x00\x00\x09\x01", FROM_CLIENT
    key = b"mining.submit"
    for _ in range(d.between(1, 5)):
        body = nearmisses.quoted(d).encode()
        method = b"\x00\x3c\x00\x28\x00\x00\x00" + bytes((len(key),)) + key + b"\x00"
        for kind, data in ((1, method), (3, body)):
            frame = bytes((kind, 0, 1)) + len(data).to_bytes(4, "big") + data + b"\xce"
            yield frame, FROM_CLIENT
        yield b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50" + bytes(8) + b"\x00\xce", FROM_SERVER


def cometd(d: Draw) -> Iterator[Line]:
    """CometD and chat bots: subscribe, channels, ids, as lists of JSON."""
    channel = d.some("/mining/notify", f"/chat/{d.word()}", "/meta/subscribe")
    who = d.hex(26)
    for name in ("/meta/handshake", "/meta/subscribe", "/meta/connect"):
        number = str(d.next_id())
        asked: dict[str, Any] = {"channel": name, "clientId": who, "id": number}
        if name == "/meta/subscribe":
            asked |= {"subscription": channel}
        yield d.told(d.some([asked], asked), FROM_CLIENT)
        yield d.told([{"channel": name, "id": number, "successful": True, "clientId": who}], FROM_SERVER)
    for _ in range(d.between(1, 5)):
        job = {"job_id": d.hex(8), "target": d.hex(8), "text": nearmisses.quoted(d)}
        yield d.told([{"channel": channel, "data": d.some(job, d.word()), "id": d.hex(4)}], FROM_SERVER)
        yield d.told({"type": "subscribe", "id": d.next_id(), "channel": d.word()}, FROM_CLIENT)


def metrics(d: Draw) -> Iterator[Line]:
    """OpenTelemetry over HTTP and Prometheus' text: hash rates, shares and jobs by name."""
    for _ in range(d.between(1, 4)):
        points = [{"asDouble": d.below(10**6) / 10, "timeUnixNano": str(d.below(2**60))}]
        kept = [
            {"name": name, "gauge": {"dataPoints": points}}
            for name in ("hashrate", "mining.shares.accepted", "pool.difficulty", "job", "mining.submit")
        ]
        sent = d.json({"resourceMetrics": [{"scopeMetrics": [{"metrics": kept}]}]})
        yield d.http(sent, FROM_CLIENT), FROM_CLIENT
        yield d.http(b'{"partialSuccess":{}}', FROM_SERVER), FROM_SERVER
        page = "".join(
            f'miner_{what}{{worker="{d.word()}",pool="stratum+tcp://pool.example:3333"}} {d.below(999)}\n'
            for what in ("hashrate_hs", "shares_accepted_total", "shares_rejected_total", "job_difficulty")
        )
        yield b"GET /metrics HTTP/1.1\r\nHost: 203.0.113.9:9100\r\n\r\n", FROM_CLIENT
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(page)}\r\n\r\n"
        yield (head + page).encode(), FROM_SERVER


def dashboard(d: Draw) -> Iterator[Line]:
    """A pool's page asks its API: workers, shares, jobs and wallets, and no work."""
    for _ in range(d.between(1, 5)):
        path = d.some("api/stats", f"api/miner/{d.wallet()}", f"api/workers?address={d.monero()}")
        yield f"GET /{path} HTTP/1.1\r\nHost: pool.example\r\n\r\n".encode(), FROM_CLIENT
        body = d.json({
            "pool": {"hashrate": d.below(10**12), "miners": d.below(9999), "lastBlock": d.hash()},
            "workers": [{"worker": d.word(), "hashes": d.below(10**9), "lastShare": d.below(2**31),
                         "accepted": d.below(999), "rejected": 0, "difficulty": d.below(10**6)}],
            "job": {"job_id": d.hex(8), "target": d.hex(8), "height": d.height()},
            "config": {"ports": [{"port": 3333, "difficulty": 10000, "desc": "mining.subscribe here"}]},
        })  # fmt: skip
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        yield head.encode() + body, FROM_SERVER


def quoting_errors(d: Draw) -> Iterator[Line]:
    """Any JSON-RPC service whose errors repeat what somebody asked: as text, or as data, whole."""
    for _ in range(d.between(1, 5)):
        said = nearmisses.quoted(d)
        number = d.next_id()
        yield d.ask(d.some("status", "rpc.call", "relay"), [d.word()], number)
        error = d.some(
            {"code": -32600, "message": f"invalid request {said}"},
            {"code": -32601, "message": "Method not found", "data": json.loads(said)},
            {"code": -32601, "message": "Method not found", "data": {"request": json.loads(said)}},
            [20, said, json.loads(said)],
            said,
        )
        yield d.told(d.arranged({"id": number, "error": error}), FROM_SERVER)


FAMILIES = (
    bitcoin_nodes, encrypted_nodes, lightning, nats, amqp, cometd, metrics, dashboard, quoting_errors,
)  # fmt: skip
