"""From flow columns to verdicts of known endpoints: rows per CPU second, at steady state.

    .venv/bin/python tests/bench/endpoints.py [--rows 100000000] [--hits 1e-4] [--repeat 3]

Batches of 8,192 rows of the stream ``flows`` (random hosts, half of the rows each way), with ``--hits`` of
the rows at known endpoints; the same batches are taken again and again.  ``match`` is the index alone;
``verdicts`` are sightings, identity and shape.  CPU time of this process; building the index and the batches
is apart.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from flowrows import HOUR, NOON, SECOND

from collectors import wire
from detector.endpoints import Endpoints, Entry
from detector.observers.endpoints import EndpointObserver
from detector.observers.shape import ShapeObserver
from detector.sightings import Sightings

ROWS, BATCHES = 8192, 64


def hosts(random, n, first=None):
    """(n, 16) u1 IPv4-mapped addresses; ``first`` fixes their first byte."""
    made = np.zeros((n, 16), np.uint8)
    made[:, 10:12] = 255
    made[:, 12:] = random.integers(1, 255, (n, 4))
    if first is not None:
        made[:, 12] = first
    return made


def index(random, n):
    """An index of ``n`` endpoints, and their addresses and ports."""
    addresses, ports = hosts(random, n), random.integers(1024, 20_000, n)
    made = Endpoints()
    for address, port in zip(addresses, ports.tolist(), strict=True):
        made.put(
            Entry(address=address.tobytes(), port=port, protocol=6, origin="resolved", name="pool.example",
                  first_ns=NOON, last_ns=NOON, expires_ns=NOON + 24 * HOUR, why="bench")
        )  # fmt: skip
    return made, addresses, ports


def batch(random, addresses, ports, share):
    """One batch: subscribers in 10/8, servers anywhere, ``share`` of them known."""
    near, far = hosts(random, ROWS, 10), hosts(random, ROWS)
    near_port = random.integers(32_768, 60_999, ROWS)
    far_port = random.choice([443, 80, 53, 8080, 123, 993], ROWS)
    known = np.flatnonzero(random.random(ROWS) < share)
    chosen = random.integers(0, len(addresses), known.size)
    far[known], far_port[known] = addresses[chosen], ports[chosen]
    up = random.random(ROWS) < 0.5
    return wire.batch("flows", ROWS, {
        "subscriber": near, "copy": np.zeros(ROWS), "src": np.where(up[:, None], near, far),
        "dst": np.where(up[:, None], far, near), "src_port": np.where(up, near_port, far_port),
        "dst_port": np.where(up, far_port, near_port), "protocol": np.full(ROWS, 6),
        "t_first": np.full(ROWS, NOON), "t_last": np.full(ROWS, NOON + 60 * SECOND),
        "t_received": np.full(ROWS, NOON + 61 * SECOND), "bytes": random.integers(60, 5000, ROWS),
        "packets": random.integers(1, 20, ROWS), "source": np.full(ROWS, 9), "candidate": np.zeros(ROWS),
        "tcp_flags": (np.full(ROWS, 0x1A), np.ones(ROWS, bool)), "collector": "bench",
    })  # fmt: skip


def rate(batches, total, work):
    """Rows per CPU second of ``work`` over ``total`` rows."""
    work(batches[0])
    done, begin = 0, time.process_time()
    while done < total:
        for rows in batches:
            work(rows)
        done += ROWS * len(batches)
    return done / (time.process_time() - begin)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--hits", type=float, default=1e-4)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    names = ("src", "dst", "src_port", "dst_port", "protocol")
    for n in (2_000, 200_000):
        random = np.random.default_rng(n)
        begin = time.process_time()
        endpoints, addresses, ports = index(random, n)
        built = time.process_time() - begin
        batches = [batch(random, addresses, ports, given.hits) for _ in range(BATCHES)]
        print(f"{n:,} endpoints, built in {built:.2f} s of CPU; {given.hits:g} of rows at one of them")
        sightings, identity, shape = Sightings(endpoints), EndpointObserver(), ShapeObserver()

        def match(rows, endpoints=endpoints):
            endpoints.match(*(wire.values(rows, name) for name in names))

        def verdicts(rows, sightings=sightings, identity=identity, shape=shape):
            seen = sightings.find(rows)
            identity.step(seen)
            shape.step(seen)

        for what, work in (("match", match), ("verdicts", verdicts)):
            rates = [rate(batches, given.rows, work) for _ in range(given.repeat)]
            print(f"  {what:9} {' '.join(f'{r / 1e6:6.1f}' for r in rates)} M rows per CPU second")


if __name__ == "__main__":
    main()
