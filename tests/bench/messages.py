# ruff: noqa: E402, RUF100, I001  # a path first
"""How many messages of each dialect the payload observer reads in a CPU second, full parse and pairing on.

    .venv/bin/python tests/bench/messages.py [--seconds 1] [--profile]

Each speaker of ``tests/helpers/speakers`` mines on a connection of its own; then all at once in equal parts,
message by message in turn.  A message is a line, a body, a frame, request or reply; the rows come as batches
of 4,096 that were made beforehand.  Every pass begins with an empty observer; the best pass counts, by the
process's own CPU time.  The exit status is 1 when a pass misses a share or refuses a line; what of binary
protocols has no row is passed over, which tells nothing.
"""

import argparse
import cProfile
import gc
import pstats
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "helpers"), str(TESTS / "detector" / "speech")]

from payload_rows import batch
from speakers import SPEAKERS
from speakers.conversing import converse
from spoken import Talk

from detector.observers.payload import PayloadObserver

BATCH_ROWS = 4096
WANTED = 200_000  # issue 8
HEADS = (b"GET ", b"HTTP/1.1 101 ")
"""How a row begins that asks for a WebSocket, or gives one: no message of a dialect."""


def batches(rows: list[dict[str, Any]]) -> list[Any]:
    """The rows as the observer gets them."""
    return [batch(rows[at : at + BATCH_ROWS]) for at in range(0, len(rows), BATCH_ROWS)]


def once(given: list[Any], messages: int, accepted: int) -> float:
    """CPU seconds of one pass.  Exits where not all was read."""
    observer = PayloadObserver()
    shares: dict[Any, int] = {}
    began = time.process_time()
    for rows in given:
        for facts in observer.step(rows).sessions:
            shares[facts.connection] = facts.shares.accepted
    took = time.process_time() - began
    if sum(shares.values()) != accepted or observer.stats.refused:
        sys.exit(f"{observer.stats.lines} of {messages} messages, {shares} of {accepted} shares")
    return took


def measure(name: str, rows: list[dict[str, Any]], accepted: int, seconds: float) -> float:
    """Print and give the best pass's messages per CPU second."""
    given, best = batches(rows), float("inf")
    messages = sum(not row["data"].startswith(HEADS) for row in rows)
    gc.collect()
    gc.freeze()  # the rows that the batches were made of are the bench's own
    until = time.process_time() + seconds
    while time.process_time() < until or best == float("inf"):
        best = min(best, once(given, messages, accepted))
    print(
        f"{name:28}{messages:9,}{accepted:9,}{messages / best:12,.0f}{best / messages * 1e6:9.1f}",
        flush=True,
    )
    return messages / best


def main() -> None:
    """Every dialect, then all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds for each")
    parser.add_argument("--shares", type=int, default=50, help="accepted shares of each of eight jobs")
    parser.add_argument("--profile", action="store_true", help="where the time of all of them goes")
    wanted = parser.parse_args()
    print(f"{'session':28}{'messages':>9}{'shares':>9}{'per CPU s':>12}{'us each':>9}")
    talks, accepted, rates = [], 0, []
    for number, kind in enumerate(SPEAKERS):
        talk = Talk(miner=number + 1, port=40000 + number)
        truth = converse(kind(), talk, shares=wanted.shares)
        talks.append(talk.rows)
        accepted += truth.counts()["accepted"]
        rates.append(measure(kind.name, talk.rows, truth.counts()["accepted"], wanted.seconds))
    longest = max(map(len, talks))
    turns = [rows[at] for at in range(longest) for rows in talks if at < len(rows)]
    print(f"slowest {min(rates):,.0f}, fastest {max(rates):,.0f}")
    rate = measure("all in equal parts", turns, accepted, wanted.seconds * 5)
    print(f"wanted {WANTED:,}: {rate / WANTED:.2f} of it")
    if wanted.profile:
        given = batches(turns)
        with cProfile.Profile() as profile:
            once(given, sum(not row["data"].startswith(HEADS) for row in turns), accepted)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
