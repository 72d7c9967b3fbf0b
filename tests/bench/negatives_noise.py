"""Encrypted connections that do not mine, by their first sizes: what is taken for Stratum V2, counted.

    .venv/bin/python tests/bench/negatives_noise.py [--connections 200000] [--seed 1]

Equal parts of ``tests/helpers/encrypted.py``: Bitcoin's BIP 324, Lightning's BOLT 8, TLS, SSH, obfs4, Noise
of libp2p and of NX over X25519, messages of few sizes, of any size, and such as begin alike.  None may be
taken for it (exit status 1).  A miner goes first, so that a recogniser that is not at work is noticed (exit
status 2).  The last line is of connections that have the handshake's sizes and then any: nobody is known to
speak so, and they are not among the negatives; it tells what the handshake alone would be worth.
"""

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import encrypted

from detector.dialects import noise


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    if noise.recognise([64, 98, 91, 62, 62, 62], [234, 44, 87, 83, 86]) is None:
        print("a miner is not seen")
        return 2
    wrong, begun = Counter(), 0
    for number in range(given.connections):
        maker = encrypted.MAKERS[number % len(encrypted.MAKERS)]
        client, server = maker(rng)
        wrong[maker.__name__] += noise.recognise(client[:8], server[:8]) is not None
        begun += (client[0], server[0]) in noise.openings()
    print(f"{given.connections:,} connections, {begun:,} with the first sizes of a handshake")
    for name, count in sorted(wrong.items()):
        print(f"  {name:14} {count:8,}{'  WRONG' if count else ''}")
    near = 0
    for _ in range(given.connections // 10):
        client, server = encrypted.any_size(rng)
        near += noise.recognise([64, *client[:7]], [234, *server[:7]]) is not None
    print(f"  handshake, then any sizes: {near:,} of {given.connections // 10:,}")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
