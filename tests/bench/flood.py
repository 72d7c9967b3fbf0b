"""Text full of tokens and of near misses through the packet path, beside as many octets of plain text.

    .venv/bin/python tests/bench/flood.py [--connections 200] [--segments 5,50,500] [--size 1400,200] [--scan]

Each capture is so many downloads over TCP beside each other, so many segments of so many octets each; what
they hold is a kind of ``KINDS``.  A figure is CPU time over that of ``plain`` of the same shape, in the same
process, by turns, the best of three.  ``--scan`` does the same with ``poolwatch scan`` as a whole.  Exit
status 1 when a kind of near misses costs twice as much as plain text or more.
"""

import argparse
import io
import json
import random
import struct
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers")]

import processes  # noqa: E402

WORDS = "the of and a to in is you that it he was for on are as with his they I at be this have from"
CHOICES = WORDS.split()
SMALL = HERE.parents[1] / "pcaps" / "xmrig-plain.pcap"
TURNS = 3


def prose(r: random.Random) -> bytes:
    """A line of words."""
    return (" ".join(r.choice(CHOICES) for _ in range(12)) + "\n").encode()


def record(r: random.Random) -> bytes:
    """A line of ordinary JSON."""
    names = ("id", "name", "price", "currency", "created", "result", "method", "message", "kind")
    return (json.dumps({n: r.choice(CHOICES) * 3 for n in r.sample(names, 6)}) + "\n").encode()


def call(r: random.Random) -> bytes:
    """A line of JSON-RPC."""
    params = [r.choice(CHOICES) for _ in range(6)]
    return json.dumps({"jsonrpc": "2.0", "id": r.randrange(99), "method": "get", "params": params}).encode()


# What the text of a download is: a line of it; and whether it begins with a brace.
KINDS = {
    "plain": prose,
    "json": record,
    "jsonrpc": call,
    "pairs": lambda _: b'"m' * 20,  # the first pass says yes
    "near": lambda _: b'"method":"x",' * 5,
    "nearer": lambda _: b'"method" : "logi"' * 5,  # the longest way before a no
    "beginnings": lambda _: b'"method"' * 5,
    "heads": lambda _: b"GET upgrad\ncontent-encodin\n",  # of HTTP, without an end: passed on as they come
    "near lines": lambda _: b'{"method":"logi"}\n',  # read for its first bytes
    "tokens": lambda r: b'{"job_id":"%d"}\n' % r.randrange(99),
}
NEAR = ("pairs", "near", "nearer", "beginnings")


def segment(source: tuple[int, int], target: tuple[int, int], seq: int, flags: int, data: bytes) -> bytes:
    """A raw IPv4 packet."""
    head = struct.pack(">BBHHHBBHII", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0, source[0], target[0])
    return head + struct.pack(">HHIIHHHH", source[1], target[1], seq, 1, 0x5000 | flags, 8192, 0, 0) + data


def capture(kind: str, connections: int, segments: int, size: int) -> bytes:
    """A pcap of downloads beside each other, within a minute."""
    r = random.Random(1)
    text = bytearray()
    while len(text) < 40 * size + 65536:
        text += KINDS[kind](r)
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101)]
    for k in range(segments + 1):
        for n in range(connections):
            server, client = (0x5DB8D822, 80), (0x0A000001 + n, 40000)
            at = (n * 97 + k * size) % (len(text) - size) if k > 1 else 0
            data = bytes(text[at : at + size]) if k else b""
            frame = segment(server, client, 1000 + (k > 0) + (k - 1) * size * (k > 0), 16 if k else 18, data)
            t = 1_700_000_000 * 10**9 + (k * connections + n) * 30 * 10**9 // ((segments + 1) * connections)
            out.append(struct.pack("<IIII", t // 10**9, t % 10**9, len(frame), len(frame)) + frame)
    return b"".join(out)


def path_alone(data: bytes) -> tuple[float, int]:
    """CPU seconds of the packet collector over a capture, and rows of payload."""
    from prometheus_client import CollectorRegistry

    from collectors import subscribers
    from collectors.packet import collector, pcapfile

    rows = 0

    def publish(stream: str, _partition: int, batch, _header) -> None:
        nonlocal rows
        rows += batch.num_rows if stream == "payloads" else 0

    whole = collector.Collector(
        collector.Config(), subscribers.home(), 1, publish, collector.Metrics(CollectorRegistry())
    )
    start = time.process_time()
    for block in pcapfile.blocks(io.BytesIO(data)):
        whole.feed(block)
    whole.finish()
    return time.process_time() - start, rows


def scan(data: bytes) -> tuple[float, int]:
    """CPU seconds of ``poolwatch scan``, less those of a small capture, and incidents."""
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(data)
        file.flush()
        start = processes.run([processes.POOLWATCH, "scan", "--json", SMALL]).cpu_s
        ran = processes.run([processes.POOLWATCH, "scan", "--json", file.name])
    return ran.cpu_s - start, len(json.loads(ran.out)["incidents"])


def compared(connections: int, segments: int, size: int, measure) -> dict[str, float]:
    """CPU time of each kind over that of ``plain``."""
    captures = {kind: capture(kind, connections, segments, size) for kind in KINDS}
    best: dict[str, float] = dict.fromkeys(KINDS, 1e9)
    told: dict[str, int] = {}
    for _ in range(TURNS):
        for kind, data in captures.items():
            spent, told[kind] = measure(data)
            best[kind] = min(best[kind], spent)
    packets = connections * (segments + 1)
    print(f"\n{connections} connections of {segments} segments of {size} octets: {measure.__name__}")
    for kind, spent in best.items():
        ratio = spent / best["plain"]
        print(f"  {kind:12}{spent * 1e6 / packets:8.2f} us a packet{ratio:8.2f} x plain{told[kind]:10}")
    return {kind: best[kind] / best["plain"] for kind in KINDS}


def main() -> int:
    """Measure each shape, print, and say whether near misses are cheap."""
    parser = argparse.ArgumentParser(description="what a flood of near misses costs")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--segments", default="5,50,500")
    parser.add_argument("--size", default="1400,200")
    parser.add_argument("--scan", action="store_true", help="poolwatch scan as a whole too")
    options = parser.parse_args()
    path_alone(SMALL.read_bytes())
    print(processes.machine())
    worst = 0.0
    for size in map(int, options.size.split(",")):
        for segments in map(int, options.segments.split(",")):
            ratios = compared(options.connections, segments, size, path_alone)
            worst = max(worst, *(ratios[kind] for kind in NEAR))
            if options.scan:
                compared(options.connections, segments, size, scan)
    print(f"\nworst of near misses: {worst:.2f} x plain")
    return int(worst >= 2)


if __name__ == "__main__":
    sys.exit(main())
