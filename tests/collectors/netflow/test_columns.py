"""Columns of records become rows of their owners, in the order of partitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import subscribers, wire
from collectors.netflow.columns import NEEDED, rows
from collectors.netflow.rows import cut

HOME = subscribers.home(("10.0.0.0/8",))


def address(*octets):
    return np.frombuffer(bytes(10) + b"\xff\xff" + bytes(octets), np.uint8)


def columns(ends, **more):
    """Records of (last octet of src, home or not; the same of dst)."""
    n = len(ends)
    made = {
        "src": np.array([address(10 if a else 9, 0, 0, x) for x, a, _, _ in ends], np.uint8).reshape(n, 16),
        "dst": np.array([address(10 if b else 9, 0, 1, y) for _, _, y, b in ends], np.uint8).reshape(n, 16),
        "src_port": np.arange(n).astype(np.uint16), "dst_port": np.full(n, 3333, np.uint16),
        "protocol": np.full(n, 6, np.uint8), "source": np.full(n, 20, np.uint8),
        "t_first": np.arange(n) * 10, "t_last": np.arange(n) * 10 + 5, "t_received": np.full(n, 9),
        "bytes": np.arange(n).astype(np.uint64), "packets": np.ones(n, np.uint64),
    }  # fmt: skip
    return made | more


ENDS = st.lists(
    st.tuples(st.integers(0, 255), st.booleans(), st.integers(0, 255), st.booleans()), max_size=40
)


@given(ENDS, st.integers(1, 5))
def test_every_home_end_has_its_row_in_its_partition(ends, partitions):
    made = rows(columns(ends), HOME, partitions, "here")
    want = []
    for i, (x, a, y, b) in enumerate(ends):
        want += [(i, bytes(address(10, 0, 0, x)))] * a + [(i, bytes(address(10, 0, 1, y)))] * b
    got = []
    for run, batch in cut(made):
        batch.validate(full=True)
        for row in batch.to_pylist():
            sub = row["subscriber"]
            halves = np.uint64(int.from_bytes(sub[:8], "big")), np.uint64(int.from_bytes(sub[8:], "big"))
            assert subscribers.partition_of(*halves, partitions) == run.partition
            assert run.t_first_ns <= row["t_first"] <= row["t_last"] <= run.t_last_ns
            assert row["collector"] == "here"
            got.append((row["bytes"], sub))
    assert sorted(got) == sorted(want)
    assert made.dropped == sum(not a and not b for _, a, _, b in ends)


def test_nullable_columns_keep_their_nulls_and_the_others_are_null():
    given_ = columns([(1, True, 2, False), (3, True, 4, False)], exporter=np.zeros((2, 16), np.uint8))
    given_["sampling_rate"] = (np.array([1000, 0], np.uint32), np.array([True, False]))
    found = rows(given_, HOME, 1, "here").batch.to_pylist()
    assert [row["sampling_rate"] for row in found] == [1000, None]
    assert [row["exporter"] for row in found] == [bytes(16)] * 2
    assert [row["vlan"] for row in found] == [None, None]


def test_runs_are_no_longer_than_a_message():
    n = wire.MAX_ROWS + 7
    made = rows(columns([(1, True, 2, False)] * n), HOME, 1, "here")
    assert [(run.first, run.last) for run in made.runs] == [(0, wire.MAX_ROWS), (wire.MAX_ROWS, n)]


@pytest.mark.parametrize("name", NEEDED)
def test_what_every_record_has_must_be_given(name):
    given_ = columns([(1, True, 2, False)])
    del given_[name]
    with pytest.raises(KeyError, match=name):
        rows(given_, HOME, 1, "here")
