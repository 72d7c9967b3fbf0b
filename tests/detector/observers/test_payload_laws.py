"""Batches cut anywhere, subscribers interleaved anyhow: the same evidence and the same facts."""

import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import spoken
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_rows import batch, capture
from spoken import Talk

from detector.observers.payload import PayloadObserver

CAPTURES = Path(__file__).resolve().parents[4] / "shared" / "captures" / "packets"


def gather(batches):
    """What all steps told: evidence by its name with counts summed, last facts, vetoes."""
    observer, evidence, facts, vetoes = PayloadObserver(), {}, {}, set()
    for rows in batches:
        seen = observer.step(batch(rows))
        for e in seen.evidence:
            key = (e.subscriber, e.kind, e.rule, e.connection, e.last_ns // 60_000_000_000)
            old = evidence.get(key)
            first = (e.first_ns, e.last_ns, e.count, e.role, e.why)
            evidence[key] = first if old is None else (
                min(old[0], e.first_ns), max(old[1], e.last_ns), old[2] + e.count, old[3], old[4]
            )  # fmt: skip
        for f in seen.sessions:
            facts[f.subscriber, f.connection, f.copy] = f
        vetoes |= {(v.subscriber, v.connection, v.rule, v.at_ns, v.why) for v in seen.vetoes}
    return evidence, facts, vetoes


@cache
def talks():
    """Each dialect spoken by a miner of its own, an Electrum client, a scanner, a refused miner."""
    made = []
    for n, make in enumerate(spoken.MAKERS):
        talk = Talk(miner=n + 1, port=40000 + n)
        make(talk)
        made.append(tuple(talk.rows))
    odd = Talk(miner=20)
    odd.c({"method": "server.version", "id": 0})
    odd.c({"id": 2, "method": "mining.authorize", "params": ["w", "x"]})
    odd.s({"id": 2, "result": False})
    made.append(tuple(odd.rows))
    return tuple(made)


def interleave(streams, seed):
    pick, left, out = random.Random(seed), [list(s) for s in streams], []
    while any(left):
        stream = pick.choice([s for s in left if s])
        out.append(stream.pop(0))
    return out


def cut(rows, at):
    edges = [0, *sorted(at), len(rows)]
    return [rows[a:b] for a, b in pairwise(edges) if a < b]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 200), max_size=20))
def test_any_interleaving_and_any_cut_tell_the_same(seed, at):
    straight = [r for talk in talks() for r in talk]
    rows = interleave(talks(), seed)
    assert gather(cut(rows, [min(a, len(rows)) for a in at])) == gather([straight])


def test_row_by_row_tells_the_same():
    straight = [r for talk in talks() for r in talk]
    assert gather([[r] for r in straight]) == gather([straight])


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the shared captures are not here")
@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize(
    "name", ["cpuminer-scrypt-dense", "cpuminer-realpool-sha256d-vardiff", "xmrig-argon2", "xmrig-badlogin"]
)
def test_real_captures_in_batches_tell_the_same(name, size):
    rows = capture(CAPTURES / "ours-positive" / f"{name}.pcap")
    assert gather([rows[i : i + size] for i in range(0, len(rows), size)]) == gather([rows])
