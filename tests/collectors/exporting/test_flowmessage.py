"""Columns of ``flows`` into goflow2's protobuf, against the obvious encoder, and back."""

import numpy as np
import pytest
from flowmessages import NUMBERS, field, parse, plain, varint
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import wire
from collectors.exporting.flowmessage import MOST, TYPES, encode
from collectors.importing.flowmessage import Decoder
from collectors.importing.records import MOST_NS

NOW = 1_795_348_800 * 10**9
FOUR = bytes(10) + b"\xff\xff"
V9 = {
    "src": FOUR + bytes((198, 51, 100, 7)), "dst": FOUR + bytes((51, 15, 2, 3)), "copy": 0, "source": 9,
    "src_port": 40_000, "dst_port": 3333, "protocol": 6, "bytes": 1 << 40, "packets": 300,
    "t_received": NOW, "t_first": NOW - 60 * 10**9, "t_last": NOW - 10**9, "sampling_rate": 1000,
    "exporter": FOUR + bytes((192, 0, 2, 1)), "domain": 9, "input_interface": 3, "output_interface": 4,
    "src_as": 64_500, "dst_as": 4_200_000_000, "tos": 8, "tcp_flags": 24, "vlan": 12,
}  # fmt: skip
NULLABLE = {
    "sampling_rate": np.uint32, "exporter": None, "domain": np.uint32, "input_interface": np.uint32,
    "output_interface": np.uint32, "src_as": np.uint32, "dst_as": np.uint32, "tos": np.uint8,
    "tcp_flags": np.uint16, "vlan": np.uint16,
}  # fmt: skip
NEEDED = {
    "src": None, "dst": None, "copy": np.uint8, "source": np.uint8, "src_port": np.uint16,
    "dst_port": np.uint16, "protocol": np.uint8, "bytes": np.uint64, "packets": np.uint64,
    "t_received": np.int64, "t_first": np.int64, "t_last": np.int64,
}  # fmt: skip


def column(found, kind):
    if kind is None:
        return np.frombuffer(b"".join(cell or bytes(16) for cell in found), np.uint8).reshape(-1, 16)
    return np.array([cell or 0 for cell in found], kind)


def batch(*rows):
    """Rows as dicts; None is null."""
    made = {name: column([row[name] for row in rows], kind) for name, kind in NEEDED.items()}
    for name, kind in NULLABLE.items():
        cells = [row.get(name) for row in rows]
        valid = np.array([cell is not None for cell in cells])
        # What is under a null may be anything.
        values = column(cells, kind)
        values = np.where(valid if kind else valid[:, None], values, 77).astype(values.dtype)
        made[name] = (values, valid) if valid.any() else None
    made |= {"subscriber": made["src"], "candidate": np.zeros(len(rows), np.uint8), "collector": "here"}
    return wire.batch("flows", len(rows), made)


def twin(row):
    """The message of a row, without its length, as anyone would write it."""
    four = all(row[end].startswith(FOUR) for end in ("src", "dst"))
    told = {
        "type": {1: 1, 5: 2, 9: 3, 10: 4}.get(row["source"], 0), "sampling_rate": row["sampling_rate"],
        "src_addr": row["src"], "dst_addr": row["dst"], "bytes": row["bytes"], "packets": row["packets"],
        "sampler_address": row["exporter"], "src_as": row["src_as"], "dst_as": row["dst_as"],
        "in_if": row["input_interface"], "out_if": row["output_interface"], "proto": row["protocol"],
        "src_port": row["src_port"], "dst_port": row["dst_port"], "ip_tos": row["tos"],
        "tcp_flags": row["tcp_flags"], "vlan_id": row["vlan"], "etype": 0x0800 if four else 0x86DD,
        "observation_domain_id": row["domain"], "time_received_ns": max(row["t_received"], 0),
        "time_flow_start_ns": max(row["t_first"], 0), "time_flow_end_ns": max(row["t_last"], 0),
    }  # fmt: skip
    return b"".join(
        field(NUMBERS[name], cell.removeprefix(FOUR) if isinstance(cell, bytes) else cell)
        for name, cell in sorted(told.items(), key=lambda item: NUMBERS[item[0]])
        if cell
    )


def messages(rows):
    """Each message of a batch with its length, cut at the offsets."""
    data, offsets = encode(rows)
    assert data.size == offsets[-1]
    return [data[a:b].tobytes() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def test_every_column_goes_into_its_field():
    (one,) = messages(batch(V9))
    assert one[0] == len(one) - 1
    assert parse(one[1:]) == {
        1: 3, 3: 1000, 6: V9["src"], 7: V9["dst"], 9: 1 << 40, 10: 300, 11: V9["exporter"], 14: 64_500,
        15: 4_200_000_000, 18: 3, 19: 4, 20: 6, 21: 40_000, 22: 3333, 23: 8, 26: 24, 29: 12, 30: 0x0800,
        70: 9, 110: NOW, 111: NOW - 60 * 10**9, 112: NOW - 10**9,
    }  # fmt: skip
    # IPv4 addresses are four octets, as goflow2 writes them.
    assert b"\x32\x04" + bytes((198, 51, 100, 7)) in one


def test_zeros_and_nulls_are_left_out():
    bare = V9 | dict.fromkeys(NULLABLE) | dict.fromkeys(("bytes", "packets", "src_port", "t_received"), 0)
    (one,) = messages(batch(bare))
    assert parse(one[1:]).keys() == {1, 6, 7, 20, 22, 30, 111, 112}


def test_a_record_of_which_there_are_two_copies_is_one_message():
    rows = [V9, V9 | {"copy": 1, "packets": 5}, V9 | {"packets": 7}, V9 | {"copy": 1}]
    assert [parse(one[1:])[10] for one in messages(batch(*rows))] == [300, 7]


def test_a_batch_without_rows_or_of_second_copies_alone_is_nothing():
    assert messages(wire.empty("flows")) == messages(batch(V9 | {"copy": 1})) == []


@pytest.mark.parametrize("source", [0, 3, 7, 20])
def test_a_protocol_that_goflow2_does_not_know_is_of_no_type(source):
    assert source not in TYPES
    assert 1 not in parse(messages(batch(V9 | {"source": source}))[0][1:])


def test_the_longest_message_fits_and_its_length_takes_two_octets():
    most = {name: int(np.iinfo(kind).max) for name, kind in (NEEDED | NULLABLE).items() if kind}
    six = dict.fromkeys(("src", "dst", "exporter"), bytes.fromhex("20010db8" + 12 * "ff"))
    row = most | six | {"copy": 0, "source": 10}
    made = messages(batch(row, row))
    assert made == [varint(len(twin(row))) + twin(row)] * 2
    assert len(made[0]) == MOST


def test_a_part_of_a_batch_is_its_own_rows():
    whole = batch(*(V9 | {"packets": n, "vlan": n if n % 2 else None} for n in range(1, 9)))
    assert [parse(one[1:]).get(29) for one in messages(whole.slice(2, 3))] == [3, None, 5]
    assert [parse(one[1:])[10] for one in messages(whole.slice(2, 3))] == [3, 4, 5]


def whole_numbers(kind):
    most = np.iinfo(kind).max
    return st.one_of(st.integers(np.iinfo(kind).min, most), st.integers(0, 300).map(lambda n: min(n, most)))


addresses = st.one_of(
    st.binary(min_size=4, max_size=4).map(lambda a: FOUR + a), st.binary(min_size=16, max_size=16),
    st.sampled_from((bytes(16), bytes(12) + b"\1\2\3\4", FOUR + bytes(4), b"\1" + bytes(9) + b"\xff" * 6)),
)  # fmt: skip
rows_of = st.fixed_dictionaries(
    {name: addresses if kind is None else whole_numbers(kind) for name, kind in NEEDED.items()}
    | {
        name: st.none() | (addresses if kind is None else whole_numbers(kind))
        for name, kind in NULLABLE.items()
    }
    | {"copy": st.integers(0, 1), "source": st.sampled_from((0, 1, 3, 5, 7, 9, 10, 20, 255))}
)


@settings(max_examples=300, deadline=None)
@given(st.lists(rows_of, min_size=1, max_size=5))
def test_it_agrees_with_the_plain_twin(rows):
    want = [twin(row) for row in rows if row["copy"] != 1]
    assert messages(batch(*rows)) == [varint(len(one)) + one for one in want]


def back(row):
    """What the import makes of a row's message: zeros say nothing, and times are in order."""
    received, last, first = (max(row[name], 0) for name in ("t_received", "t_last", "t_first"))
    received, last, first = (t if t <= MOST_NS else 0 for t in (received, last, first))
    received = received or NOW
    last = last or received
    as_it_is = ("src", "dst", "src_port", "dst_port", "protocol", "bytes", "packets")
    nulls = {name: row[name] or None for name in NULLABLE if name != "direction"}
    times = {"t_received": received, "t_last": last, "t_first": min(first or last, last)}
    return {name: row[name] for name in as_it_is} | nulls | times | {"source": 20, "direction": None}


@settings(max_examples=200, deadline=None)
@given(st.lists(rows_of, min_size=1, max_size=5))
def test_the_import_reads_the_same_columns_back(rows):
    decoder = Decoder()
    # All in one value, as a stream.
    data, _ = encode(batch(*rows))
    got = plain(decoder.decode([data.tobytes()], np.array([NOW]))) if data.size else []
    assert got == [back(row) for row in rows if row["copy"] != 1]
    assert not decoder.refused()
