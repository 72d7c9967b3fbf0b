"""Lines: cut anywhere, the same; any bytes are read or refused."""

# ruff: noqa: E501  # real lines are long
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.dialects import lines, table
from detector.dialects.lines import MAX_LINE_BYTES, Assembler, LineError, Refusal


def feed(chunks):
    assembler, refused, out = Assembler(), {}, []
    for chunk in chunks:
        out += [line for line, _ in assembler.feed(chunk, refused)]
    return out, refused, assembler


@given(
    st.binary(max_size=300)
    | st.text(max_size=200).map(str.encode)
    | st.from_regex(rb'\{"[a-z]":[0-9]{0,5}\}?')
)
def test_any_bytes_are_read_or_refused(data):
    try:
        said = lines.read(data)
    except LineError:
        return
    assert type(said) is dict


@pytest.mark.parametrize(
    "bad",
    [
        b"[1]", b"7", b'"x"', b"null", b"", b"{", b'{"a":1}x', b"{'a':1}", b'{"a":"\\q\xff"}', b'{"a":NaN',
        b'{"a":nope}', b'{NaN:1}',
    ],
)  # fmt: skip
def test_what_is_not_one_object_is_refused(bad):
    with pytest.raises(LineError):
        lines.read(bad)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"w\xff1", "w\ufffd1"), (b"\xed\xa0\x80", "\ufffd" * 3), (b"w\\ud8001", "w?1"), (b"w\\uDFff", "w?"), (b"w\t1", "w 1"),
        (b"w\0", "w "), (b"w\\u00001", "w?1"), (b"\\\\ud800\xff", "\\ud800\ufffd"), (b"\\\\u0000", "\\u0000"),
        (b"\\u00e9\\n\t", "\xe9\n "), (b"\\ud83d\\ude00", "\U0001f600"),
    ],
)  # fmt: skip
def test_bytes_that_no_json_may_hold_are_replaced(line, text):
    assert lines.read(b'{"a":"' + line + b'"}') == {"a": text}


@pytest.mark.parametrize(
    "value",
    [
        b"NaN",
        b"-NaN",
        b"1e99999",
        b"-1e999",
        b"Infinity",
        b"-Infinity",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"1" + b"0" * 5000,
    ],
)
def test_a_line_loses_no_more_than_the_number_that_nobody_means(value):
    line = b'{"id":7,"x":%s,"l":[1.5,%s,-2e3,"1e999 NaN \\" 01"],"b":"\xff"}' % (value, value)
    read = lines.read(line)
    assert read == {"id": 7, "x": None, "l": [1.5, None, -2000.0, '1e999 NaN " 01'], "b": "\ufffd"}
    assert [lines.read(one) for one in lines.batch(b"[" + line + b"]")] == [read]


@pytest.mark.parametrize("opener", [b"[", b'{"a":'])
def test_deep_nesting_is_refused_not_fatal(opener):
    with pytest.raises(LineError) as error:
        lines.read(b'{"a":' + opener * 60000)
    assert error.value.reason in {Refusal.DEEP, Refusal.JSON}


def test_integers_beyond_doubles_stay_exact():
    assert lines.read(b'{"a":9007199254740993,"b":18446744073709551615}') == {"a": 2**53 + 1, "b": 2**64 - 1}


def test_blanks_crlf_and_empty_lines_are_forgiven():
    got, refused, _ = feed([b' {"a":1}\r\n\r\n\n\t{"b":2} \n'])
    assert [lines.read(line) for line in got] == [{"a": 1}, {"b": 2}]
    assert refused == {}


@given(st.data())
def test_cut_anywhere_the_lines_are_the_same(data):
    stream = b'{"a":1}\nnoise {"x":1}\n{"b":"' + b"y" * 50 + b'"}\r\n\n {"c":3}\n{"unfinished'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, cut = feed([stream]), feed([p for p in parts if p])
    assert [line.strip() for line in whole[0]] == [line.strip() for line in cut[0]]
    assert whole[1:] == cut[1:]


def test_a_line_too_long_is_dropped_and_the_next_is_read():
    got, refused, assembler = feed([b'{"a":"' + b"x" * MAX_LINE_BYTES, b"x" * 10_000_000, b'"}\n{"b":1}\n'])
    assert got == [b'{"b":1}']
    assert refused == {Refusal.LONG: 1}
    assert assembler.tail == b""


def test_a_binary_stream_holds_no_memory():
    _, refused, assembler = feed([b"\x16\x03\x01" + bytes(100_000)])
    assert assembler.tail == b""
    assert refused == {Refusal.TEXT: 1}


def test_a_gap_drops_the_unfinished_line_only():
    assembler, refused = Assembler(), {}
    assert assembler.feed(b'{"a":1}\n{"b"', refused) == [(b'{"a":1}', 8)]
    assert assembler.gap() is Refusal.GAP
    assert [line for line, _ in assembler.feed(b'3}\n{"c":1}\n', refused)] == [b'{"c":1}']


def test_the_offset_behind_each_line_is_told():
    assembler, refused = Assembler(), {}
    assembler.feed(b'{"a"', refused)
    assert assembler.feed(b':1}\n{"b":2}\n', refused) == [(b'{"a":1}', 4), (b'{"b":2}', 12)]


HIDDEN = {
    "bom": b'\xef\xbb\xbf{"a":1}\n\xef\xbb\xbf {"b":2}\r\n',
    "cr": b'{"a":1}\r{"b":{"c":2}}\r',
    "nul": b'{"a":1}\0\0{"b":2}\0',
    "crlf": b'{"a":1}\r\n{"b":2}\r\n',
    "batch": b'[{"a":1},\t{"b":2}]\n',
    "batches": b' [ {"a":1}]\r\n[{"b":2}]\n',
}


@pytest.mark.parametrize("name", HIDDEN)
@given(places=st.lists(st.integers(0, 40), max_size=40))
def test_what_hides_a_line_hides_none_wherever_it_is_cut(name, places):
    stream = HIDDEN[name]
    ends = sorted({0, len(stream), *(p for p in places if p < len(stream))})
    got, refused, assembler = feed([stream[a:b] for a, b in itertools.pairwise(ends)])
    assert [next(iter(lines.read(line))) for line in got] == ["a", "b"]
    assert refused == {}
    assert not assembler.quotes


@pytest.mark.parametrize(
    "text",
    [b"[]", b"[1]", b'[{"a":1},2]', b'[{"a":1}', b"[12:00] net < {}", b'[{"a":1}] x', b"[" * 9999, b'["{}"]'],
)
def test_an_array_of_anything_else_is_prose(text):
    got, refused, assembler = feed([text + b"\n"])
    assert got == []
    assert refused == {Refusal.TEXT: 1}
    assert assembler.quotes == (not text.endswith(b"}"))


def test_a_batch_has_a_bound():
    got, *_ = feed([b"[" + b",".join([b'{"a":1}'] * 5000) + b"]\n"])
    assert len(got) == lines.MAX_BATCH


def test_an_assembler_survives_serialising():
    assembler, refused = Assembler(), {}
    assembler.feed(b'{"a":', refused)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(assembler), type=Assembler)
    assert again.feed(b"1}\n", refused) == [(b'{"a":1}', 3)]


@pytest.mark.parametrize(
    "stream",
    [
        [b"HTTP/1.1 200 OK\r\n", b"A: b\r\n\r\n"],
        [b"$910\r\n"],
        [b"$9", b"10", b"\r", b"\n"],
        [b'{"a":1}\nfirst\nsecond\n'],
        [b":bob PRIVMSG #mine :hello\r\n"],
    ],
)
def test_objects_among_prose_are_quoted(stream):
    assembler = Assembler(read=1 if stream[0].startswith(b"{") else 0)
    for chunk in stream:
        assembler.feed(chunk, {})
    assert assembler.quotes or assembler.web


@pytest.mark.parametrize(
    "stream",
    [
        [b'\x05\x01\x00{"id":1}\n'],
        [b"\x05\x01", b"\x00", b'{"id":1}', b"\r\n"],
        [b"PROXY TCP4 198.51.100.1 203.0.113.1 40000 3333\r\n"],
        [b'ed","x"],"id":1}\n'],
        [b"\x16\x03\x01" + bytes(5000)],
        [b"\n\n\r\n"],
    ],
)
def test_a_preamble_and_the_rest_of_a_line_are_not_prose(stream):
    assembler = Assembler()
    for chunk in stream:
        assembler.feed(chunk, {})
    assert not assembler.quotes


def test_one_odd_line_in_a_long_session_is_forgiven():
    assembler = Assembler(read=2)
    assembler.feed(b"hello\n", {})
    assert not assembler.quotes


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(
        ["mining.notify", "OK", "0x" + "a" * 64, "a" * 64, "6b02def0", "EthereumStratum/1.0.0"]),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(
        st.sampled_from(["id", "login", "pass", "job", "blob", "job_id", "target", "status", "algo", "nonce"]), inner, max_size=5),
    max_leaves=25,
)  # fmt: skip
METHODS = st.sampled_from(sorted({f.method for f in table.load().forms if f.method}))


@given(METHODS, JSONS, JSONS)
def test_any_object_is_a_row_or_none(method, params, result):
    loaded = table.load()
    for said in ({"method": method, "params": params}, {"result": result, "id": params}):
        name = loaded.name(said)
        for request in (None, "subscribe", "configure", "login"):
            found = loaded.replied(said, request) if name is None else loaded.called(name, said)
            if found is not None:
                assert found.fields(said).keys() <= found.row.fields.keys()
