"""Benign host names through the pool table: every match is printed, a strong one is a failure.

    .venv/bin/python tests/bench/negatives_names.py [--names 200000] [--seed 1]

Names are made from words, among them those that pools use (pool, mine, xmr, eth, hash), under common
endings; and near misses of listed names: a listed name as a label of another's domain, with a letter more
before it, with another ending.  This tests the match, not whether the list is right.
"""

import argparse
import random
import sys

from detector import poolfiles

WORDS = (
    "pool", "carpool", "mine", "minecraft", "determine", "mining", "hash", "hashtag", "xmr", "eth",
    "ethernet",
    "btc", "coin", "coins", "block", "proxy", "node", "cloud", "mail", "news", "shop", "cdn", "static", "img",
    "api", "login", "www", "data", "time", "ntp", "video", "music", "games", "bank", "photo", "travel",
    "maps",
    "play", "store", "docs", "drive", "meet", "team", "work", "home", "city", "sport", "auto", "food",
    "health",
)  # fmt: skip
ENDINGS = (
    "com",
    "net",
    "org",
    "io",
    "de",
    "cn",
    "co.uk",
    "dev",
    "app",
    "info",
    "pool.ntp.org",
    "example.com",
)


def names(seed, count, listed):
    rng = random.Random(seed)
    for n in range(count):
        if n % 3:
            labels = [
                rng.choice(WORDS) + rng.choice(("", "", str(rng.randint(1, 99))))
                for _ in range(rng.randint(1, 4))
            ]
            yield ".".join([*labels, rng.choice(ENDINGS)])
            continue
        near = rng.choice(listed)
        yield rng.choice(
            (
                f"{near}.{rng.choice(WORDS)}.{rng.choice(ENDINGS)}",
                f"x{near}",
                f"{near.rsplit('.', 1)[0]}.invalid",
            )
        )


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--names", type=int, default=200_000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    pools = poolfiles.load()
    listed = sorted({row.domain for row in pools.rows})
    strong = weak = 0
    for name in names(given.seed, given.names, listed):
        row = pools.find(name)
        if row is None or name in listed:
            continue
        if row.weak or row.match == "suffix":
            weak += 1
        else:
            strong += 1
            print(f"strong: {name} as {row.domain}")
    print(f"{given.names} names, seed {given.seed}: {strong} strong, {weak} weak matches")
    return 1 if strong else 0


if __name__ == "__main__":
    sys.exit(main())
