"""Messages laid out as Kafka stores them, read back by the client library, against the obvious way."""

from ipaddress import ip_address

import numpy as np
import pytest
from flowrows import flows
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafkas_murmur2
from kafka.record import memory_records

from collectors.exporting import laying
from collectors.exporting.flowmessage import MOST, encode
from collectors.exporting.laying import AROUND, Laying, murmur2
from collectors.kafka import clients, packing

FOUR = ("192.0.2.1", "192.0.2.2", "203.0.113.77")
SIX = ("2001:db8::1", "::", "fe80::2")
CODECS = {"none": 0, "lz4": 3, "zstd": 4}


def rows(*exporters, **more):
    """A flow of each exporter, told apart by its octets."""
    return flows(*({"exporter": e, "bytes": n + 1, "source": 9} | more for n, e in enumerate(exporters)))


def alone(batch):
    """The messages of a batch one by one."""
    data, offsets = encode(batch)
    return [data[a:b].tobytes() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def key(exporter):
    return ip_address(exporter).packed


def batches(sections, codec="none"):
    """Each section as the client sends it, its records as another reads them: (partition, messages, [(key,
    value)])."""
    out = []
    for partition, octets, records, messages in sections:
        builder = clients._Counted(2, CODECS[codec], 1 << 20)
        assert builder.append(1000, None, octets, packing.Laid(records)) is not None
        assert builder.append(1000, None, b"another", []) is None
        assert builder.next_offset() == records
        builder.close()
        (batch,) = list(memory_records.MemoryRecords(bytes(builder.buffer())))
        assert batch.validate_crc()
        found = list(batch)
        assert [r.offset for r in found] == list(range(records))
        assert {(r.timestamp, *r.headers) for r in found} == {(1000,)}
        out.append((partition, messages, [(r.key, r.value) for r in found]))
    return out


def obvious(exporters, batch, partitions, a_value):
    """{partition: [(key, value)]}, in whatever order of keys."""
    by_key = {}
    for exporter, message in zip(exporters, alone(batch), strict=True):
        by_key.setdefault(key(exporter), []).append(message)
    out = {}
    for k, found in by_key.items():
        values = [b"".join(found[i : i + a_value]) for i in range(0, len(found), a_value)]
        out.setdefault((kafkas_murmur2(k) & 0x7FFFFFFF) % partitions, []).extend((k, v) for v in values)
    return {p: sorted(v) for p, v in out.items()}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(FOUR + SIX), min_size=1, max_size=40), st.integers(1, 7), st.integers(1, 5),
    st.sampled_from(sorted(CODECS)),
)  # fmt: skip
def test_records_are_what_anyone_would_send_by_exporter(exporters, partitions, a_value, codec):
    batch = rows(*exporters)
    made = Laying(partitions, a_value, keyed=True, most_bytes=1 << 20, seed=7)
    made.add(batch)
    got = batches(made.take(), codec)
    assert {p: sorted(found) for p, _, found in got} == obvious(exporters, batch, partitions, a_value)
    assert sum(messages for _, messages, _ in got) == len(exporters)
    for exporter in set(exporters):  # in the order in which they came
        mine = b"".join(v for _, _, found in got for k, v in found if k == key(exporter))
        told = zip(exporters, alone(batch), strict=True)
        assert mine == b"".join(m for e, m in told if e == exporter)
    assert made.take() == []


def test_a_large_batch_is_cut_and_numbered_anew_and_nothing_is_longer_than_it_may_be():
    many = 3000
    batch = rows(*(FOUR[n % 2] for n in range(many)), bytes=1 << 62, t_first=1 << 60)
    made = Laying(1, 1, keyed=True, most_bytes=20_000)
    made.add(batch)
    made.add(batch)
    got = made.take()
    assert len(got) > 10
    assert all(len(s.octets) <= 20_000 for s in got)
    values = sorted(value for _, _, found in batches(got, "zstd") for _, value in found)
    assert values == sorted(2 * alone(batch))


def test_without_keys_one_partition_follows_the_other_and_values_mix_exporters():
    made = Laying(3, 4, keyed=False, most_bytes=1 << 20)
    batch = rows(*FOUR, *SIX)
    partitions = []
    for _ in range(4):
        made.add(batch)
        ((partition, messages, found),) = batches(made.take())
        partitions.append(partition)
        assert messages == 6
        assert found == [(None, b"".join(alone(batch)[:4])), (None, b"".join(alone(batch)[4:]))]
    assert partitions == [0, 1, 2, 0]


def test_second_copies_have_no_message_and_rows_without_an_exporter_share_a_key():
    made = Laying(1, 1, keyed=True, most_bytes=1 << 20)
    made.add(flows({"exporter": FOUR[0], "copy": 0}, {"exporter": FOUR[1], "copy": 1}, {"exporter": None}))
    ((_, messages, found),) = batches(made.take())
    assert messages == 2
    assert sorted(k for k, _ in found) == sorted([key(FOUR[0]), bytes(16)])


@pytest.mark.parametrize("exporter", [*FOUR, *SIX])
def test_a_key_is_hashed_as_kafkas_clients_do(exporter):
    octets = np.frombuffer(key(exporter), np.uint8)
    assert murmur2(octets, 0, octets.size) == kafkas_murmur2(octets.tobytes()) & 0x7FFFFFFF


def test_it_is_full_while_there_still_is_room_for_a_batch():
    made = Laying(2, 4096, keyed=True, most_bytes=1 << 20)
    large = rows(*["2001:db8::1"] * 8192)
    while not made.is_full:
        made.add(large)
    assert made.messages == laying.ENOUGH
    assert sum(s.messages for s in made.take()) == laying.ENOUGH
    assert made._out.size >= made._exporters.shape[0] * (MOST + AROUND)
