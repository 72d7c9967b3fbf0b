"""Batches of records: packed for a broker; and as they come from one, unpacked within bounds, or told where
they cannot be."""

import asyncio
import gzip
import random

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import encode_varint

from collectors.kafka import clients, packing, reader
from collectors.kafka.clients import CorruptBatchError, Fetcher, TopicPartition, errors

PLACE = TopicPartition("flows", 3)
CODECS = {"lz4": DefaultRecordBatch.CODEC_LZ4, "zstd": DefaultRecordBatch.CODEC_ZSTD, "none": 0}
# The library's, and ours.
BUILDERS = (DefaultRecordBatchBuilder, memory_records.DefaultRecordBatchBuilder)


def batch(codec, values, headers=()):
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=False, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1 << 30,
    )  # fmt: skip
    for n, value in enumerate(values):
        builder.append(n, 0, None, value, list(headers))
    return bytearray(builder.build())


def fetched(data, offset=0):
    """As the client makes them."""
    return Fetcher.PartitionRecords(offset, PLACE, MemoryRecords(bytes(data)), check_crcs=False).take(None)


def unpacked(data, offset=0):
    return [record.value for record in fetched(data, offset)]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_what_was_packed_is_unpacked(codec):
    values = [b"a" * 1000, b"", b"bc" * 70_000]
    assert unpacked(batch(codec, values, [("run", b"x")])) == values


def replaced(packed, codec):
    """A batch whose records are these octets, packed."""
    data = batch(codec, [b"a" * 5000])
    head = DefaultRecordBatchBuilder.HEADER_STRUCT.size
    data[head:] = packed
    data[8:12] = (len(data) - 12).to_bytes(4, "big")
    return data


def records(size):
    """Records of one value of zeros, as they lie in a batch that is not packed."""
    return bytes(batch(0, [bytes(size)])[DefaultRecordBatchBuilder.HEADER_STRUCT.size :])


@pytest.mark.parametrize("told", [True, False], ids=["size told", "size not told"])
def test_zstd_of_other_clients_is_unpacked_and_a_bomb_refused(told):
    packer = zstandard.ZstdCompressor(write_content_size=told)
    small = packer.compress(records(100_000)) if told else packed_unsized(records(100_000))
    assert unpacked(replaced(small, DefaultRecordBatch.CODEC_ZSTD)) == [bytes(100_000)]
    zeros = bytes(clients.MAX_BATCH_BYTES + 1)
    bomb = packer.compress(zeros) if told else packed_unsized(zeros)
    assert len(bomb) < 10_000
    with pytest.raises(CorruptBatchError, match="more than"):
        unpacked(replaced(bomb, DefaultRecordBatch.CODEC_ZSTD))


def packed_unsized(data):
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return packer.compress(data) + packer.flush()


def test_a_bomb_of_lz4_and_other_compressions_are_refused():
    bomb = lz4.frame.compress(bytes(clients.MAX_BATCH_BYTES + 1))
    with pytest.raises(CorruptBatchError, match="more than"):
        unpacked(replaced(bomb, DefaultRecordBatch.CODEC_LZ4))
    with pytest.raises(CorruptBatchError, match="nobody here"):
        unpacked(gzipped())


def gzipped():
    data = replaced(gzip.compress(records(10)), DefaultRecordBatch.CODEC_LZ4)
    data[22] = DefaultRecordBatch.CODEC_GZIP
    return data


def test_a_header_whose_name_is_no_text_is_told_with_its_place():
    data = batch(0, [b"x"], [("run", b"y")])
    data[data.index(b"run")] = 0xFF
    with pytest.raises(CorruptBatchError) as caught:
        unpacked(data, offset=0)
    assert (caught.value.place, caught.value.offset) == (PLACE, 0)


@given(st.data())
def test_any_changed_octet_unpacks_or_is_told(data):
    codec = data.draw(st.sampled_from(sorted(CODECS.values())))
    made = batch(codec, [b"a" * 300, b"b"], [("run", b"x")])
    head = DefaultRecordBatchBuilder.HEADER_STRUCT.size
    for _ in range(data.draw(st.integers(1, 3))):
        made[data.draw(st.integers(head, len(made) - 1))] = data.draw(st.integers(0, 255))
    try:
        unpacked(made)
    except CorruptBatchError:
        return


class Consumer:
    """As much of a consumer as a reader needs."""

    def __init__(self, answers):
        self.answers, self.places = answers, {PLACE: 40, TopicPartition("names", 3): 7}
        self.closed = 0

    def subscribe(self, topics, listener):
        self.listener = listener

    def poll(self, timeout_ms, max_records):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer()
            return {}
        return answer

    def assignment(self):
        return set(self.places)

    def position(self, place):
        return self.places[place]

    def seek(self, place, offset):
        self.places[place] = offset

    def close(self, **_):
        self.closed += 1
        self.revoke()

    def revoke(self):
        asyncio.run(self.listener.on_partitions_revoked({PLACE}))


def group(consumer, leave=lambda: None):
    return reader.GroupReader(consumer, {"flows": "flows", "names": "names"}, leave, lambda: None)


def test_a_corrupt_batch_costs_its_own_partition_one_record_at_a_time():
    consumer = Consumer([CorruptBatchError(PLACE, at, ValueError("x")) for at in (40, 40, 45)])
    made = group(consumer)
    for place in (41, 42, 46):
        assert made.poll(0.1, 10) == []
        assert consumer.places == {PLACE: place, TopicPartition("names", 3): 7}
    assert made.corrupt == 3


def test_what_comes_with_an_assignment_is_told_after_it():
    class Joining(Consumer):
        def poll(self, timeout_ms, max_records):
            """As the client: it joins and fetches in one call, and goes past what it hands over."""
            if self.answers.pop():
                asyncio.run(self.listener.on_partitions_assigned(set(self.places)))
            found = fetched(batch(0, [b"x"] * 42), self.places[PLACE])
            self.places[PLACE] = 42
            return {PLACE: found} if found else {}

    made = group(Joining([False, False, True]))
    assert made.poll(0.1, 10) == []
    assert made.assigned() == {3}
    assert [r.offset for r in made.poll(0.1, 10)] == [40, 41]
    assert made.poll(0.1, 10) == []


def test_brokers_that_refuse_us_are_told_in_our_words():
    made = group(Consumer([errors.TopicAuthorizationFailedError({"flows"})]))
    with pytest.raises(reader.InputError, match="reading the group's topics"):
        made.poll(0.1, 10)


def test_what_a_rebalance_raises_is_raised_where_it_ends_the_process():
    def leave():
        raise RuntimeError("a bug")

    consumer = Consumer([])
    consumer.answers.append(consumer.revoke)
    made = group(consumer, leave)
    with pytest.raises(RuntimeError, match="a bug"):
        made.poll(0.1, 10)


def test_who_abandons_the_group_writes_nothing_and_closes_once():
    left = []
    consumer = Consumer([])
    made = group(consumer, lambda: left.append(1))
    made.abandon()
    made.abandon()
    assert (consumer.closed, left) == (1, [])
    consumer = Consumer([])
    made = group(consumer, lambda: left.append(1))
    made.close()
    made.abandon()
    assert (consumer.closed, left) == (1, [1])


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize(
    "value", [b"bc" * 70_000, random.Random(1).randbytes(70_000)], ids=["shrinks", "does not"]
)
@pytest.mark.parametrize("key", [None, b"k" * 200], ids=["no key", "key"])
def test_a_large_record_is_what_the_library_makes_of_it_and_its_octets_are_the_senders_again(
    codec, value, key
):
    headers, lent = [("run", b"x" * 300), ("é", b"")], bytearray(value)
    plain, large = (kind(2, codec, False, -1, -1, -1, 1 << 20) for kind in BUILDERS)
    for builder, octets in ((plain, value), (large, memoryview(lent))):
        assert builder.append(0, 1234, key, octets, headers).offset == 0
    lent[:] = bytes(len(lent))
    made = [MemoryRecords(bytes(b.build())).next_batch() for b in (plain, large)]
    assert made[1].validate_crc()
    assert made[0].first_timestamp == made[1].first_timestamp == made[1].max_timestamp == 1234
    assert made[0].compression_type == made[1].compression_type
    got = [[(r.offset, r.timestamp, r.key, r.value, r.headers) for r in one] for one in made]
    assert got[0] == got[1] == [(0, 1234, key, value, headers)]


def test_a_large_record_goes_alone_and_behind_small_ones_with_them():
    large, small = b"a" * 100_000, b"b"
    first = BUILDERS[1](2, CODECS["zstd"], False, -1, -1, -1, 1 << 20)
    assert first.append(0, None, None, large, [])
    assert first.append(1, None, None, small, []) is None
    assert first.size() < 1000
    assert unpacked(first.build()) == [large]
    second = BUILDERS[1](2, CODECS["zstd"], False, -1, -1, -1, 1 << 20)
    assert second.append(0, None, None, small, [])
    assert second.append(1, None, None, large, [])
    assert unpacked(second.build()) == [small, large]


@given(st.integers(0, 1 << 40))
def test_a_length_is_written_as_the_library_writes_it(value):
    out = bytearray()
    encode_varint(value, out.append)
    assert packing.varint(value) == out
