"""Look-alike lines through the payload observer: what it wrongly believes, counted and shown.

    .venv/bin/python tests/bench/negatives.py [--lines 200000] [--seed 1]

Each conversation of ``tests/helpers/lookalikes.py`` is a connection with a subscriber of its own; its lines
come as chunks in batches of the stream ``payloads``, cut wherever a batch is full.  First two recordings of
real miners go the same way: an observer that says nothing about them is not at work (exit status 2).

Exit status 0 when nothing but ``mining_request`` was seen (somebody asked, as scanners do); 1 otherwise.  The
weights of ``detector/tables/weights.toml`` rest on the recorded run with 4,000,000 lines.
"""

import argparse
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "helpers"))

import lookalikes  # noqa: E402
import rewrite_captures  # noqa: E402
from draw import Line  # noqa: E402

from collectors import wire  # noqa: E402
from collectors.streams import ACK_ONLY, END, START  # noqa: E402

PCAPS = HERE.parents[1] / "pcaps"
MINERS = ("xmrig-plain.pcap", "cpuminer-sha256d.pcap")
ALLOWED = {"mining_request"}
SERVER = b"\x00" * 10 + b"\xff\xff" + bytes((203, 0, 113, 7))
START_NS, STEP_NS = 1_795_348_800 * 10**9, 2_000_000
BATCH_ROWS = 4096
# Conversations kept for the examples; evidence comes within a batch of its line.
KEPT = 20_000

Row = tuple[int, bool, int, int, int, int, bytes]


def client(number: int) -> bytes:
    """The address of conversation ``number``, IPv4 mapped: 10.0.0.0/8 in order."""
    return b"\x00" * 10 + b"\xff\xff\x0a" + (number & 0xFFFFFF).to_bytes(3, "big")


def rows(number: int, said: list[Line], t_ns: int) -> Iterator[Row]:
    """(conversation, from client, time, offset, peer's offset, flags, bytes) of each line."""
    offsets = [0, 0]
    # At the end each side acknowledges all that the other said, and closes.
    closing = [(b"", True), (b"", False)]
    for i, (text, side) in enumerate([*said, *closing]):
        flags = (START if offsets[not side] == 0 else 0) | (END | ACK_ONLY if not text else 0)
        yield number, side, t_ns + i * STEP_NS, offsets[not side], offsets[side], flags, text
        offsets[not side] += len(text)


def batch(some: list[Row]) -> wire.Batch:
    """Rows as a batch of ``payloads``."""
    n = len(some)
    from_client = np.array([row[1] for row in some])
    ends = np.frombuffer(b"".join(client(row[0]) for row in some), np.uint8).reshape(n, 16)
    server = np.tile(np.frombuffer(SERVER, np.uint8), (n, 1))
    ports = np.array([20000 + row[0] % 40000 for row in some])
    offset, peer = (np.array([row[i] for row in some], np.uint64) for i in (3, 4))
    columns = {
        "subscriber": ends,
        "copy": np.zeros(n),
        "src": np.where(from_client[:, None], ends, server),
        "dst": np.where(from_client[:, None], server, ends),
        "src_port": np.where(from_client, ports, 3333),
        "dst_port": np.where(from_client, 3333, ports),
        "protocol": np.full(n, 6),
        "t": np.array([row[2] for row in some]),
        "offset": offset,
        "seq": offset + 1001,
        "ack": peer + 1001,
        "flags": np.array([row[5] for row in some]),
        "data": (np.cumsum([0, *(len(row[6]) for row in some)]), b"".join(row[6] for row in some)),
        "collector": "negatives",
    }
    return wire.batch("payloads", n, columns)


def recorded(name: str) -> list[Line]:
    """The segments of a recorded miner's connection as (bytes, from client)."""
    opened, said = None, []
    for _, frame in rewrite_captures.frames((PCAPS / name).read_bytes()):
        source, target, _ = rewrite_captures.ends(frame)
        opened = opened or (source, target)
        size = struct.unpack_from(">H", frame, 16)[0] + 14
        payload = frame[34 + 4 * (frame[46] >> 4) : size]
        if payload:
            said.append((payload, (source, target) == opened))
    return said


class Heard:
    """What the observer said, by kind, rule and family, with the first example of each."""

    def __init__(self) -> None:
        self.said: dict[int, tuple[str, list[Line]]] = {}
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.examples: dict[tuple[str, str, str], tuple[str, list[Line]]] = {}
        self.vetoes: Counter[str] = Counter()
        self.shares: dict[object, int] = {}

    def keep(self, number: int, family: str, said: list[Line]) -> None:
        """Remember a conversation for as long as evidence of it may come."""
        self.said[number] = family, said
        self.said.pop(number - KEPT, None)

    def take(self, seen) -> None:
        """Count what one step gave."""
        for evidence in seen.evidence:
            number = int.from_bytes(evidence.subscriber[13:], "big")
            family, said = self.said[number]
            key = evidence.kind, evidence.rule, family
            self.counts[key] += evidence.count
            self.examples.setdefault(key, (evidence.why, said))
        self.vetoes.update(veto.rule for veto in seen.vetoes)
        self.shares.update((facts.connection, facts.shares.accepted) for facts in seen.sessions)


def show(heard: Heard) -> None:
    """Print each kind and rule with an example."""
    for (kind, rule, family), count in sorted(heard.counts.items()):
        why, said = heard.examples[kind, rule, family]
        print(f"{count:8} {kind} {rule} in {family}: {why}")
        if kind not in ALLOWED:
            for text, side in said[:8]:
                print(f"           {'>' if side else '<'} {text[:300]!r}")
    print(f"vetoes: {dict(heard.vetoes)}")


def run(observer, lines: int, seed: int) -> tuple[Heard, int, int, float]:
    """Feed look-alikes; (what was heard, lines, conversations, seconds of the observer)."""
    heard, waiting, done, number, seconds = Heard(), [], 0, 0, 0.0

    def step(some: list[Row]) -> float:
        given = batch(some)
        began = time.process_time()
        seen = observer.step(given)
        took = time.process_time() - began
        heard.take(seen)
        return took

    for family, said in lookalikes.conversations(seed):
        if done >= lines:
            break
        number += 1
        heard.keep(number, family, said)
        waiting += rows(number, said, START_NS + done * STEP_NS)
        done += len(said)
        while len(waiting) >= BATCH_ROWS:
            seconds += step(waiting[:BATCH_ROWS])
            waiting = waiting[BATCH_ROWS:]
    if waiting:
        seconds += step(waiting)
    return heard, done, number, seconds


def main() -> int:
    """Feed miners, then look-alikes, and say what was seen."""
    parser = argparse.ArgumentParser(description="look-alikes through the payload observer")
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # Imported here so that --help answers without the detector.
    from detector.observers import payload

    for name in MINERS:
        heard, said = Heard(), recorded(name)
        heard.keep(1, name, said)
        observer = payload.PayloadObserver(payload.Config())
        given = list(rows(1, said, START_NS))
        for at in range(0, len(given), 100):
            heard.take(observer.step(batch(given[at : at + 100])))
        kinds = sorted({kind for kind, _, _ in heard.counts})
        print(f"control {name}: {', '.join(kinds) or 'nothing'}")
        if not {"mining_session", "share_accepted"} & set(kinds):
            return 2
    heard, lines, conversations, seconds = run(
        payload.PayloadObserver(payload.Config()), options.lines, options.seed
    )
    show(heard)
    wrong = sum(count for (kind, _, _), count in heard.counts.items() if kind not in ALLOWED)
    print(
        f"{lines} lines, {conversations} conversations, seed {options.seed}: {wrong} wrong, "
        f"{sum(heard.shares.values())} shares accepted; {lines / max(seconds, 1e-9):.0f} lines per CPU second"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
