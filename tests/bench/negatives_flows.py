"""Hosts that do not mine, through the flow observers: what is wrongly seen, counted.

    .venv/bin/python tests/bench/negatives_flows.py [--hosts 120000] [--seed 1]

Every pool name of the shipped table with a port resolves to an address of its own.  Each host has one day of
hourly records, of one of these lives: a dashboard of a pool left open; other services at a pool's address
(mail, MQTT, games); scans of pool ports; backscatter forged in a pool's name; a monitor that connects and
closes; ordinary servers elsewhere at pool ports; one page of a pool's site.  None may give strong identity or
behaviour (exit status 1); ``shared_endpoint`` is expected of the dashboards.  A miner goes first, so that an
observer that is not at work is noticed (exit status 2).
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from flowrows import DATA, HOUR, NOON, SECOND, flows, packed

from collectors import wire
from detector import networks, pools
from detector.endpoints import Endpoints
from detector.observers.endpoints import EndpointObserver
from detector.observers.shape import ShapeObserver
from detector.poolnames import WEB_PORTS
from detector.pools import Pools
from detector.resolutions import Resolutions
from detector.sightings import Sightings

LIVES = ("dashboard", "other service", "scan", "backscatter", "monitor", "elsewhere", "one page")
STRONG = {"listed_endpoint", "resolved_endpoint", "learned_endpoint", "persistence", "mining_shape"}
PER_BATCH = 300


def known():
    """The index, and (addresses (n, 16) u1, a listed port that is no web port) of its pools."""
    table, index = Pools(pools.shipped()), Endpoints()
    resolutions = Resolutions(table.find, networks.shipped(), index)
    addresses, ports = [], []
    for row in table.rows:
        quiet = [p for p in row.all_ports if p not in WEB_PORTS]
        if quiet and row.match == "exact":
            number = len(addresses)
            address = packed(f"51.15.{number >> 8}.{number & 255}")
            resolutions.take(row.domain, None, address, 72 * 3600, NOON, "bench")
            addresses.append(np.frombuffer(address, np.uint8))
            ports.append(quiet[0])
    return index, np.array(addresses), np.array(ports)


def batch(random, first, life, hour, addresses, ports):
    """One hour of ``PER_BATCH`` hosts of one life."""
    n = PER_BATCH
    near = np.zeros((n, 16), np.uint8)
    near[:, 10:12] = 255
    number = first + np.arange(n)
    near[:, 12:] = np.stack([np.full(n, 10), number >> 16 & 255, number >> 8 & 255, number & 255], 1)
    pool = (number * 7919) % len(addresses)
    far, port = addresses[pool].copy(), ports[pool].copy()
    flags, back, octets = np.full(n, DATA), np.full(n, DATA), random.integers(80, 400, n) * 20
    if life in {"dashboard", "one page"}:
        port = random.choice([443, 80, 8080, 8443], n)
    elif life == "other service":
        port = random.choice([22, 993, 1883, 5222, 27_015, 64_738], n)
    elif life == "scan":
        flags, back = np.full(n, 0x02), random.choice([0x12, 0x14], n)
    elif life == "backscatter":
        flags, back = np.zeros(n, int), random.choice([0x12, 0x14, 0x04], n)
    elif life == "monitor":
        flags, back = np.full(n, 0x13), np.full(n, 0x13)
    elif life == "elsewhere":
        far[:, 12] = 81
    t = NOON + hour * HOUR + 1800 * SECOND
    full = np.full(n, t)
    return wire.batch("flows", n, {
        "subscriber": near, "copy": np.zeros(n), "src": near, "dst": far,
        "src_port": 32_768 + number % 20_000, "dst_port": port, "protocol": np.full(n, 6),
        "t_first": full - 1200 * SECOND, "t_last": full, "t_received": full, "bytes": octets,
        "packets": np.full(n, 20), "reverse_bytes": (octets, np.ones(n, bool)),
        "reverse_packets": (np.full(n, 20), np.ones(n, bool)), "tcp_flags": (flags, flags > 0),
        "reverse_tcp_flags": (back, np.ones(n, bool)), "source": np.full(n, 9),
        "candidate": np.zeros(n), "collector": "bench",
    })  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=120_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    index, addresses, ports = known()
    sightings, observers = Sightings(index), (EndpointObserver(), ShapeObserver())

    def see(rows):
        found = sightings.find(rows)
        return [e for observer in observers for e in observer.step(found).evidence]

    pool = ".".join(map(str, addresses[0][12:]))
    talk = [{"dst": pool, "dst_port": int(ports[0]), "t_first": NOON + h * HOUR,
             "t_last": NOON + h * HOUR + 1200 * SECOND, "bytes": 12_000, "packets": 100}
            for h in range(4)]  # fmt: skip
    mined = {e.kind for row in talk for e in see(flows(row))}
    if not {"persistence", "mining_shape"} <= mined:
        print(f"a miner is not seen: {mined}")
        return 2
    wrong, rows = Counter(), 0
    for first in range(0, given.hosts, PER_BATCH):
        life = LIVES[first // PER_BATCH % len(LIVES)]
        for hour in range(1 if life == "one page" else 24):
            rows += PER_BATCH
            wrong.update((life, e.kind) for e in see(batch(random, first, life, hour, addresses, ports)))
    print(f"{given.hosts:,} hosts, {rows:,} records, {len(addresses)} pools")
    for (life, kind), n in sorted(wrong.items()):
        print(f"  {life:14} {kind:18} {n:8,}{'  WRONG' if kind in STRONG else ''}")
    return int(any(kind in STRONG for _, kind in wrong))


if __name__ == "__main__":
    sys.exit(main())
