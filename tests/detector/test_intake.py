"""Records of the bus: whole and checked, or refused."""

from functools import cache

import pytest
from crashes import captured
from flowrows import flows, names
from hypothesis import given
from hypothesis import strategies as st

from collectors import wire
from collectors.wire import Clock, Header
from detector.errors import DecodeError, Reason
from detector.intake import INPUTS, read


@cache
def samples():
    found = {m.stream: m.rows for m in captured("pcaps/cpuminer-sha256d.pcap") if m.rows.num_rows}
    return {"names": names({}), "flows": flows({}, {})} | found


def header(rows, **more):
    return Header(
        version=1, collector="tap1", number=3, rows=rows.num_rows, t_first_ns=1, t_last_ns=2, received_ns=2,
        home="home", clocks=(Clock("tap1", 2, 5),), life="l", turn=7, **more,
    )  # fmt: skip


def refused(stream, value, headers):
    with pytest.raises(DecodeError) as caught:
        read(stream, 0, value, headers)
    return caught.value.reason


@pytest.mark.parametrize("stream", INPUTS)
def test_what_was_sent_is_read(stream):
    rows = samples()[stream]
    told = header(rows, run="a file")
    got = read(stream, 5, wire.encode(rows), wire.to_headers(told))
    assert (got.stream, got.partition, got.header) == (stream, 5, told)
    assert got.rows.equals(rows)


@pytest.mark.parametrize("stream", INPUTS)
def test_an_empty_value_is_a_batch_without_rows_if_the_header_says_so(stream):
    nothing = wire.empty(stream)
    got = read(stream, 0, b"", wire.to_headers(header(nothing)))
    assert got.rows.num_rows == 0
    assert got.rows.schema.equals(nothing.schema)
    assert refused(stream, b"", wire.to_headers(header(samples()[stream]))) == Reason.CORRUPT


@pytest.mark.parametrize("stream", INPUTS)
def test_what_is_wrong_has_a_reason(stream):
    rows = samples()[stream]
    value, headers = wire.encode(rows), wire.to_headers(header(rows))

    def other(name, told):
        return [(k, told if k == name else v) for k, v in headers]

    assert refused(stream, value, []) == Reason.HEADER
    assert refused(stream, value, other("version", b"9")) == Reason.VERSION
    assert refused(stream, value, other("rows", b"77")) == Reason.LENGTH
    assert refused(stream, value, other("turn", b"-1")) == Reason.HEADER
    assert refused(stream, value, other("turn", str(1 << 63).encode())) == Reason.HEADER
    assert refused(stream, value, other("run", b"\xff")) == Reason.HEADER
    assert refused(stream, value, other("run", b"x" * 257)) == Reason.HEADER
    assert refused(stream, value, other("clocks", b"[" * 100_000)) == Reason.HEADER
    assert refused(stream, None, headers) == Reason.SHORT
    assert refused(stream, value[: len(value) // 2], headers) == Reason.CORRUPT
    assert refused(stream, bytes(wire.MAX_MESSAGE_BYTES + 1), headers) == Reason.SIZE
    beside = next(s for s in INPUTS if s != stream)
    assert refused(beside, value, headers) == Reason.SCHEMA


HEADER = st.tuples(st.sampled_from([*Header.__struct_fields__, "x"]), st.none() | st.binary(max_size=40))


@given(st.sampled_from(INPUTS), st.none() | st.binary(max_size=400), st.lists(HEADER))
def test_any_bytes_are_read_or_refused(stream, value, headers):
    try:
        read(stream, 0, value, headers)
    except DecodeError:
        return


@given(st.sampled_from(INPUTS), st.data())
def test_any_changed_octet_is_read_or_refused(stream, data):
    rows = samples()[stream]
    value = bytearray(wire.encode(rows))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = read(stream, 0, bytes(value), wire.to_headers(header(rows)))
    except DecodeError:
        return
    assert got.rows.num_rows == rows.num_rows
