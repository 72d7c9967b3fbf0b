"""Rooms that rows are written into: enough of them, used again, never while somebody reads."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectors.netflow.staging import LARGEST, Pool

COLUMNS = (("a", 16), ("b", 8), ("c", 1))


@given(st.integers(1, 300_000), st.integers(1, 1024))
def test_an_empty_room_holds_any_one_block_whoever_owns_its_rows(records, partitions):
    room = Pool(COLUMNS, partitions).take(records)
    most = 2 * min(records, LARGEST)
    # All of one partition, or a row of each and the rest of one.
    assert -(-most // room.rows) <= room.slots
    assert min(partitions, most) + most // room.rows <= room.slots
    assert room.arena.column(0).shape == (room.slots * room.rows, 16)


def test_columns_do_not_overlap():
    room = Pool(COLUMNS, 4).take(1000)
    for i in range(3):
        room.arena.column(i)[:] = i + 1
    assert [int(room.arena.column(i).min()) for i in range(3)] == [1, 2, 3]
    assert [int(room.arena.column(i).max()) for i in range(3)] == [1, 2, 3]


def test_memory_is_used_again_when_nobody_reads_it():
    pool = Pool(COLUMNS, 4)
    first = pool.take(1000)
    view, place = first.arena.column(1)[5:9], first.arena.u8.ctypes.data
    del first
    second = pool.take(1000)
    assert second.arena.u8.ctypes.data != place
    assert not np.shares_memory(second.arena.u8, view)
    del view
    assert pool.take(1000).arena.u8.ctypes.data == place


def _busy(make, one, count, seed):
    """Datagrams of v5 with flows of few or many hosts, and of v9 that lack some columns."""
    random.seed(seed)
    hosts = [f"10.0.{i // 250}.{i % 250 + 1}" for i in range(one)]
    fields = [(8, 4), (12, 4), (7, 2), (11, 2), (1, 4)]
    made = [make.v9(make.template(300, fields))]
    for n in range(count):
        if n % 3:
            records = [(random.choice(hosts), "203.0.113.9", r, 3333, n, 100 * n, 0, 1) for r in range(30)]
            made.append(make.v5(records, sequence=30 * n))
        else:
            body = [
                make.sixteen(random.choice(hosts))[12:] + make.sixteen("203.0.113.8")[12:]
                + r.to_bytes(2, "big") + (4444).to_bytes(2, "big") + n.to_bytes(4, "big")
                for r in range(20)
            ]  # fmt: skip
            made.append(make.v9(make.data_set(300, *body), sequence=n))
    return made


def test_rows_of_one_host_or_of_many_all_come_in_the_order_they_were_sent(make):
    for hosts in (1, 3, 2000):
        sent = _busy(make, hosts, 3000, hosts)
        found = make.replay([make.gathered(*sent, t=1_700_000_001 * make.SECOND)])
        assert len(found.rows) == sum(30 if n % 3 else 20 for n in range(3000))
        for row in found.rows:
            v5 = row["source"] == 5
            assert row["packets"] == (row["bytes"] // 100 if v5 else 0)
            assert (row["tcp_flags"] is not None) == v5
            assert row["dst_port"] == (3333 if v5 else 4444)
        for part in range(4):
            told = [r for r in found.rows if r["partition"] == part]
            received = [r["t_received"] for r in told]
            assert received == sorted(received)
            assert len({r["subscriber"] for r in told} & {r["subscriber"] for r in found.rows
                       if r["partition"] != part}) == 0  # fmt: skip
        assert max(batch.num_rows for _, _, batch, _ in found.batches) <= 8192
