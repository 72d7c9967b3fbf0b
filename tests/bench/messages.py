# ruff: noqa: E402, RUF100, I001  # a path first
"""How many messages of each dialect the payload observer reads in a CPU second, full parse and pairing on.

    .venv/bin/python tests/bench/messages.py [--seconds 1] [--profile]

Each speaker of ``tests/helpers/speakers`` mines on a connection of its own; then all at once in equal parts,
message by message in turn.  A message is a line, a body, a frame, request or reply, once for the rate however
many things it tells; the rows come as batches of 4,096 that were made beforehand.  Every pass begins with an
empty observer; the first, which loads tables and kernels, is not counted, of the others the best is, by the
process's own CPU time.  The exit status is 1 when a pass counts other messages than the speakers say
(``Speaker.messages``: what only carries messages is none, what tells two things is two), counts other shares,
accepted, rejected or late, or refuses or passes over a line.
"""

import argparse
import cProfile
import gc
import pstats
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "helpers"), str(TESTS / "detector" / "speech")]

from payload_rows import batch
from speakers import SPEAKERS
from speakers.conversing import converse
from speakers.speaking import Speaker
from spoken import Talk

from detector.observers.payload import PayloadObserver

BATCH_ROWS = 4096
WANTED = 200_000  # issue 8


class Spoken(NamedTuple):
    """A session, or several: rows, how many of them are messages, and what is to be counted of them."""

    rows: list[dict[str, Any]]
    messages: int
    told: int
    shares: Counter[str]


def spoken(number: int, kind: type[Speaker], shares: int) -> Spoken:
    """One speaker's session; a row without octets, of who says nothing, is left out."""
    speaker, talk = kind(), Talk(miner=number + 1, port=40000 + number)
    truth = converse(speaker, talk, shares=shares)
    rows = [row for row in talk.rows if row["data"]]
    told = [speaker.messages(row["data"]) for row in rows]
    return Spoken(rows, sum(map(bool, told)), sum(told), Counter(truth.counts()))


def in_turns(given: list[Spoken]) -> Spoken:
    """All of them, row by row in turn."""
    longest = max(len(one.rows) for one in given)
    rows = [one.rows[at] for at in range(longest) for one in given if at < len(one.rows)]
    shares = sum((one.shares for one in given), Counter())
    return Spoken(rows, sum(one.messages for one in given), sum(one.told for one in given), shares)


def batches(rows: list[dict[str, Any]]) -> list[Any]:
    """The rows as the observer gets them."""
    return [batch(rows[at : at + BATCH_ROWS]) for at in range(0, len(rows), BATCH_ROWS)]


def once(given: list[Any], true: Spoken) -> float:
    """CPU seconds of one pass.  Exits where not all was read."""
    observer = PayloadObserver()
    shares: dict[Any, Any] = {}
    began = time.process_time()
    for rows in given:
        for facts in observer.step(rows).sessions:
            shares[facts.connection] = facts.shares
    took = time.process_time() - began
    stats, counts = observer.stats, Counter[str]()
    for one in shares.values():
        counts.update({fate: getattr(one, fate) for fate in true.shares})
    if stats.lines != true.told or counts != true.shares or stats.refused or stats.quoted:
        print(f"messages: {stats.lines} of {true.told}; quoted {stats.quoted}, refused {stats.refused}")
        sys.exit(f"shares: {dict(counts)} of {dict(true.shares)}")
    return took


def measure(name: str, true: Spoken, seconds: float) -> float:
    """Print and give the best pass's messages per CPU second."""
    given, best = batches(true.rows), float("inf")
    gc.collect()
    gc.freeze()  # the rows that the batches were made of are the bench's own
    print(f"{name:40}", end="", flush=True)
    once(given, true)
    until = time.process_time() + seconds
    while time.process_time() < until or best == float("inf"):
        best = min(best, once(given, true))
    rate, accepted = true.messages / best, true.shares["accepted"]
    print(f"{true.messages:9,}{accepted:9,}{rate:12,.0f}{1e6 / rate:9.1f}", flush=True)
    return rate


def main() -> None:
    """Every dialect, then all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds for each")
    parser.add_argument("--shares", type=int, default=50, help="accepted shares of each of eight jobs")
    parser.add_argument("--profile", action="store_true", help="where the time of all of them goes")
    wanted = parser.parse_args()
    print(f"{'session':40}{'messages':>9}{'shares':>9}{'per CPU s':>12}{'us each':>9}")
    given, rates = [], []
    for number, kind in enumerate(SPEAKERS):
        given.append(spoken(number, kind, wanted.shares))
        rates.append((measure(kind.name, given[-1], wanted.seconds), kind.name))
    for word, (rate, name) in (("slowest", min(rates)), ("fastest", max(rates))):
        print(f"{word} {rate:,.0f}, {name}")
    turns = in_turns(given)
    rate = measure("all in equal parts", turns, wanted.seconds * 5)
    print(f"wanted {WANTED:,}: {rate / WANTED:.2f} of it")
    if wanted.profile:
        rows = batches(turns.rows)
        with cProfile.Profile() as profile:
            once(rows, turns)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
