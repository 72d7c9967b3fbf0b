"""The schema, and its forms."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import wire
from collectors.errors import DecodeError, Reason
from collectors.streams import STREAMS

GOLDEN = Path(__file__).with_name("schema.golden")
ARROW = [s for s in STREAMS.values() if s.format == "arrow"]


def described():
    return "".join(
        f"{s.topic} {c.name} {c.type} {c.unit or '-'} {'null' if c.nullable else 'set'}\n"
        for s in STREAMS.values()
        for c in s.columns
    )


def test_every_change_of_the_schema_is_deliberate():
    assert described() == GOLDEN.read_text(), "if meant: change the version too, and renew the golden file"


def sample(stream, rows=3, without=()):
    """Columns with a different value in every cell, nulls in every second nullable one, or in all."""
    rng = np.random.default_rng(len(stream))
    columns = {}
    for c in STREAMS[stream].columns:
        if c.name in without:
            continue
        some = np.arange(rows) % 2 == 0
        if c.type == "address":
            value = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
        elif c.type == "text":
            columns[c.name] = [f"é{i}" for i in range(rows)]
            continue
        elif c.type == "bytes":
            columns[c.name] = (np.array([0, *([2] * rows)]), b"\0\xff")
            continue
        elif c.type.startswith("list_"):
            columns[c.name] = (np.arange(rows + 1), np.arange(rows))
            continue
        else:
            value = rng.integers(0, 120, rows)
        columns[c.name] = (value, some) if c.nullable else value
    return wire.batch(stream, rows, columns)


def test_an_encoder_writes_each_batch_anew_into_the_same_memory():
    encoder = wire.Encoder()
    for stream, rows in (("flows", 50), ("names", 3), ("payloads", 5000), ("flows", 8192), ("flows", 1)):
        made = sample(stream, rows)
        assert bytes(encoder.encode(made)) == wire.encode(made)
    assert encoder.encode(made).obj is encoder.encode(made).obj


@pytest.mark.parametrize("stream", [s.name for s in ARROW])
def test_a_part_of_a_batch_is_written_as_arrows_own_writer_does(stream):
    nothing = [c.name for c in STREAMS[stream].columns if c.nullable][:3]
    whole = sample(stream, 40, without=nothing)
    for part in (whole, whole.slice(7, 20), whole.slice(39, 1)):
        filled = [c.name for c in STREAMS[stream].columns if c.name not in nothing]
        plain = part.select(filled).replace_schema_metadata(wire.SCHEMAS[stream].metadata)
        assert bytes(wire.Encoder().encode(part)) == stream_of(plain)


@pytest.mark.parametrize("stream", [s.name for s in ARROW])
def test_a_batch_survives_the_wire(stream):
    rows = sample(stream)
    assert wire.decode(stream, wire.encode(rows)).equals(rows)
    assert wire.empty(stream).num_rows == 0
    assert wire.decode(stream, wire.encode(wire.empty(stream))).num_rows == 0


@pytest.mark.parametrize("stream", [s.name for s in ARROW])
def test_views_of_a_slice_are_views_of_its_rows(stream):
    rows = sample(stream, 5)
    part = rows.slice(2, 2)
    for c in STREAMS[stream].columns:
        if c.type in {"bytes"} or c.type.startswith("list_"):
            offsets, values = wire.lists(part, c.name)
            got = [values[offsets[i] : offsets[i + 1]].tolist() for i in range(2)]
            wanted = [list(v) if v is not None else [] for v in part.column(c.name).to_pylist()]
            assert got == wanted
        elif c.type != "text":
            values, there = wire.values(part, c.name), wire.valid(part, c.name)
            for value, ok, plain in zip(values, there, part.column(c.name).to_pylist(), strict=True):
                assert ok == (plain is not None)
                if ok:
                    assert (value.tobytes() if c.type == "address" else int(value)) == plain


def test_addresses_keep_their_trailing_zero_bytes():
    address = np.zeros((1, 16), np.uint8)
    address[0, 3] = 9
    rows = sample("payloads", 1)
    rows = rows.set_column(2, "src", pa.array([address.tobytes()], pa.binary(16)))
    assert wire.values(rows, "src")[0].tobytes() == address.tobytes()


def test_a_column_that_is_not_declared_is_our_own_mistake():
    with pytest.raises(KeyError, match="colour"):
        wire.batch("payloads", 0, {"colour": []})
    with pytest.raises(KeyError, match="subscriber"):
        wire.batch("payloads", 0, {})


def stream_of(batch):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def refused(stream, message):
    with pytest.raises(DecodeError) as caught:
        wire.decode(stream, message)
    return caught.value.reason


def test_what_is_not_ours_is_refused_by_name():
    rows = sample("payloads")
    assert refused("payloads", b"") is Reason.CORRUPT
    assert refused("payloads", wire.encode(sample("flows"))) is Reason.SCHEMA
    other = rows.replace_schema_metadata({"version": "2"})
    assert refused("payloads", stream_of(other)) is Reason.VERSION
    assert refused("payloads", bytes(wire.MAX_MESSAGE_BYTES + 1)) is Reason.SIZE
    many = sample("payloads", wire.MAX_ROWS + 1)
    assert refused("payloads", wire.encode(many)) is Reason.SIZE
    holes = rows.set_column(
        rows.schema.get_field_index("t"), pa.field("t", pa.int64(), nullable=False), pa.array([1, None, 3])
    )
    assert refused("payloads", stream_of(holes)) is Reason.SCHEMA


@pytest.mark.parametrize("stream", [s.name for s in ARROW])
def test_columns_without_a_value_are_left_out_and_come_back_null(stream):
    full = sample(stream)
    nothing = {c.name for c in STREAMS[stream].columns if c.nullable}
    made = full
    for name in nothing:
        place = made.schema.get_field_index(name)
        made = made.set_column(place, made.schema.field(place), pa.nulls(3, made.schema.field(place).type))
    sent = wire.encode(made)
    assert (len(sent) < len(wire.encode(full))) == bool(nothing)
    with pa.ipc.open_stream(sent) as reader:
        assert not nothing & set(reader.schema.names)
    assert wire.decode(stream, sent).equals(made)


@pytest.mark.parametrize("change", ["missing", "twice", "order", "stranger", "stream"])
def test_a_schema_that_is_not_ours_is_refused(change):
    rows = sample("names")
    fields, arrays, metadata = list(rows.schema), list(rows.columns), dict(rows.schema.metadata)
    if change == "missing":
        del fields[0], arrays[0]
    elif change == "twice":
        fields.append(fields[0])
        arrays.append(arrays[0])
    elif change == "order":
        fields.reverse()
        arrays.reverse()
    elif change == "stranger":
        fields.append(pa.field("other", pa.int8()))
        arrays.append(pa.array([1, 2, 3], pa.int8()))
    else:
        metadata[b"stream"] = b"flows"
    made = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, metadata))
    assert refused("names", wire.encode(made)) is Reason.SCHEMA


WHOLE = {s.name: wire.encode(sample(s.name)) for s in ARROW}


@settings(max_examples=400)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_any_bytes_decode_or_are_refused(stream, data):
    """Real messages with some bytes changed: what crashed pyarrow when it was read unvalidated."""
    message = bytearray(WHOLE[stream])
    for _ in range(data.draw(st.integers(1, 8))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    message = bytes(
        message[: data.draw(st.integers(0, len(message)))] if data.draw(st.booleans()) else message
    )
    try:
        rows = wire.decode(stream, message)
    except DecodeError:
        return
    for c in STREAMS[stream].columns:
        rows.column(c.name).to_pylist()


HEADER = wire.Header(
    version=1, collector="tap-1", number=7, rows=2, t_first_ns=-5, t_last_ns=2**62, received_ns=3, home="ab",
    clocks=(wire.Clock("tap-1", 9, 5),), life="18a", run="a.pcap", turn=2**62, ends=True,
)  # fmt: skip
NAMES = [name for name, _ in wire.to_headers(HEADER)]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=60) | st.none())))
def test_any_headers_are_read_or_refused(changed):
    try:
        wire.from_headers([*wire.to_headers(HEADER), *changed])
    except DecodeError:
        return


@pytest.mark.parametrize("missing", ["version", "collector", "rows", "received_ns"])
def test_a_header_without_what_it_must_say_is_refused(missing):
    with pytest.raises(DecodeError):
        wire.from_headers([(name, value) for name, value in wire.to_headers(HEADER) if name != missing])


@pytest.mark.parametrize(
    ("name", "value"),
    [("number", b"-1"), ("rows", b"1e3"), ("received_ns", str(10**30).encode()), ("home", b"x" * 300)],
)
def test_a_number_out_of_bounds_is_refused(name, value):
    with pytest.raises(DecodeError):
        wire.from_headers([*wire.to_headers(HEADER), (name, value)])


def test_a_header_survives_the_wire():
    strangers = [("traceparent", b"00-ab"), ("home", b"cd")]
    given = wire.from_headers([*strangers, *wire.to_headers(HEADER)])
    assert given == HEADER
