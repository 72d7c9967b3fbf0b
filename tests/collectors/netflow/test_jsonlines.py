"""JSON written by a template's program against what the reader and an encoder make of the same octets."""

import re
import struct
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.app import datagrams as in_file
from collectors.app import sampled_frames
from collectors.errors import DecodeError
from collectors.jit import kept
from collectors.netflow import elements, jsonlines, records
from collectors.netflow.jsonlines import Lines
from collectors.netflow.jsonwriter import write

CAPTURES = Path(__file__).resolve().parents[4] / "shared/captures/flows"
EXPORTER = bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
FILES = sorted(
    p.relative_to(CAPTURES).as_posix() for p in CAPTURES.rglob("*.*") if p.suffix in (".pcap", ".ipfix")
)
# One element of each type, and those that need care: uptimes, padding, one that nobody knows.
TYPES = [
    *sorted({e.type: n for n in range(500) if (e := elements.element(0, n)).type}.values()),
    21, 22, 152, 210, 32000,
]  # fmt: skip
WIDTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 65535)


def both(payloads, exporter=EXPORTER, t_ns=0, lines=None):
    """What reader and encoder say, what is written, and how many records of it the program wrote."""
    lines = lines or Lines(0)
    slow = records.State(frames=sampled_frames)
    quick = records.State(frames=sampled_frames, lines=lines.written)
    want, got, written = b"", b"", 0
    for payload in payloads:
        try:
            want += msgspec.json.Encoder().encode_lines(records.records(payload, slow, exporter, t_ns))
        except DecodeError as error:
            with pytest.raises(DecodeError, match=re.escape(str(error))):
                records.records(payload, quick, exporter, t_ns)
            continue
        for row in records.records(payload, quick, exporter, t_ns):
            if isinstance(row, bytes):
                got += row
                written += row.count(b"\n")
            else:
                got += msgspec.json.encode(row) + b"\n"
    assert slow.refused == quick.refused
    return want, got, written


def field(make, number, width, *values):
    """The lines of records of one field, and how many the program wrote."""
    said = make.template(300, [(number, width)], 10)
    want, got, written = both([make.ipfix(said, make.data_set(300, *values))])
    assert got == want
    return got.splitlines(), written


@pytest.mark.parametrize("path", FILES)
def test_a_capture_is_written_as_the_reader_and_the_encoder_would_write_it(path):
    with (CAPTURES / path).open("rb") as file:
        found = list(in_file(file))
    want, got, _ = both([d.payload for d in found], found[0].exporter if found else EXPORTER)
    assert got == want


@pytest.mark.skipif(not FILES, reason="no captures here")
def test_most_records_of_the_captures_are_written_by_programs(make):
    every = written = 0
    for path in FILES:
        if path.endswith(".pcap"):
            want, _, quick = both([p for p, *_ in make.udp_payloads(CAPTURES / path)])
            every, written = every + want.count(b"\n"), written + quick
    assert written > every * 0.6, (written, every)


@given(st.data())
def test_records_of_any_template_are_written_as_the_reader_and_the_encoder_would_write_them(make, data):
    version = data.draw(st.sampled_from((9, 10)))
    widths = WIDTHS if version == 10 else WIDTHS[:-1]
    some = st.tuples(st.sampled_from(TYPES), st.sampled_from(widths))
    fields = data.draw(st.lists(some, min_size=1, max_size=6))
    octet = st.sampled_from((0, 1, 2, 3, 31, 32, 34, 65, 92, 127, 128, 255)) | st.integers(0, 255)
    body = bytes(data.draw(st.lists(octet, max_size=120)))
    message = make.ipfix if version == 10 else make.v9
    want, got, _ = both([message(make.template(300, fields, version), make.data_set(300, body))])
    assert got == want


@pytest.mark.parametrize(
    ("number", "width", "values"),
    [
        (1, 8, [0, 1, 9, 10, 99, 100, 10**19 - 1, 10**19, 2**64 - 1]),
        (1, 3, [0, 7, 2**24 - 1]),
        (434, 4, [0, 1, 2**31 - 1, 2**31, 2**32 - 1]),
        (434, 3, [0, 2**23, 2**24 - 1]),
        (8, 4, [0, 2**32 - 1, 0x0A000001, 0xC0000263]),
        (27, 16, [0, 1, 1 << 112, 0x20010DB8 << 96 | 1, 0x20010DB8 << 96 | 1 << 48 | 1, 2**128 - 1, 1 << 64]),
        (56, 6, [0, 0x0123456789AB]),
        (276, 1, [0, 1, 2, 255]),
        (150, 4, [0, 951782400, 951868799, 1_700_000_000, 2**32 - 1]),
        (152, 8, [0, 1, 999, 4107542399999, 253_402_300_799_999]),
        (154, 8, [0, 1_700_000_000_123_456, 2_208_988_800 << 32, (2**32 - 1) << 32 | 0xFFFFFFFF]),
        (156, 8, [0, 1_700_000_000_123_456_789, 2**63, (2_208_988_800 << 32) - 1, 3_900_000_000 << 32 | 9]),
    ],
)  # fmt: skip
def test_values_are_written_by_the_program_itself(make, number, width, values):
    rows, written = field(make, number, width, *(v.to_bytes(width, "big") for v in values))
    assert written == len(rows) == len(values)


@pytest.mark.parametrize(
    ("number", "width", "raw", "quick"),
    [
        (82, 8, b"eth0\0\0\0\0", True),
        (82, 8, b'a"b\\c/\0d', False),
        (82, 8, b'a"b\\c/ d', True),
        (82, 8, "grün €".encode()[:8], False),
        (82, 4, b"\xff\xfe\0\0", False),
        (82, 4, b"a\x1b[m", False),
        (152, 8, b"\xff" * 8, False),
        (27, 16, bytes(10) + b"\xff\xff\x01\x02\x03\x04", False),
        (313, 3, b"\0\x80\xff", True),
        (311, 4, bytes(4), False),
        (320, 8, bytes(8), False),
    ],
)
def test_what_the_program_cannot_say_is_left_to_the_reader(make, number, width, raw, quick):
    _, written = field(make, number, width, raw)
    assert written == quick


def test_fields_of_variable_length_are_written_and_a_set_with_a_record_cut_short_is_left_to_the_reader(make):
    fields = [(82, 65535), (1, 4), (210, 65535), (32000, 65535)]
    one = b"\x02ab" + bytes(4) + b"\x00" + b"\x02\x00\x01"
    two = b"\xff\x00\x03abc" + bytes(4) + b"\x03xyz" + b"\x02ok"
    told = make.template(300, fields, 10)
    want, got, written = both([make.ipfix(told, make.data_set(300, one, two))])
    assert (got, written) == (want, 2)
    for cut in (one[:-1], b"\xff\xff\xff" + bytes(8)):
        want, got, written = both([make.ipfix(told, make.data_set(300, one, two, cut))])
        assert (got, want.count(b"\n"), written) == (want, 2, 0)


@pytest.mark.parametrize("fields", [[(1, 4), (1, 4)], [(149, 4), (1, 4)], [(1, 4), (291, 8)]])
def test_a_field_that_comes_twice_or_is_a_key_of_all_records_or_a_list_is_read(make, fields):
    body = bytes(range(1, 9)) + bytes(4)
    want, got, written = both(
        [make.ipfix(make.template(300, fields, 10), make.data_set(300, body[: sum(w for _, w in fields)]))]
    )
    assert got == want
    assert not written


def test_options_v5_and_data_that_waited_keep_their_order(make):
    said = [(8, 4), (1, 4)]
    payloads = [
        make.v9(make.data_set(300, bytes(8), bytes(range(8)))),
        make.v5([("192.0.2.1", "192.0.2.2", 1, 2, 3, 4, 5, 6)] * 3),
        make.v9(
            make.template(301, [(1, 4), (34, 4)], 9, 1), make.template(300, said),
            make.data_set(301, bytes(8)), make.data_set(300, bytes(8)),
        ),
    ]  # fmt: skip
    want, got, written = both(payloads)
    assert got == want
    assert written == 3 + 2 + 1


def test_without_a_compiled_kernel_the_first_octets_are_left_to_the_reader(make, monkeypatch):
    message = make.ipfix(make.template(300, [(1, 4)], 10), make.data_set(300, bytes(40)))
    for there, slow in ((False, [0, 0, 10]), (True, [10, 10, 10])):
        monkeypatch.setattr(jsonlines, "kept", lambda _kernel, there=there: there)
        lines = Lines(60)
        assert [both([message], lines=lines)[2] for _ in range(3)] == slow


def test_a_kernel_that_ran_is_in_the_cache():
    unknown = SimpleNamespace(py_func=both, stats=write.stats)
    few, some = np.zeros(64, np.uint8), np.frombuffer(bytes(64), np.uint8)
    write(some, 0, 1, np.zeros((1, 4), np.int64), some, some, 0, 0, 0, few)
    assert kept(write)
    assert not kept(unknown)


def times(lines):
    rows = [msgspec.json.decode(line) for line in lines.splitlines()]
    return [(row.get("flowStartMilliseconds"), row.get("flowEndMilliseconds")) for row in rows]


def test_uptimes_are_times_too_and_those_from_before_a_wrap(make):
    fields = [(21, 4), (1, 4), (22, 4)]
    ups = [(10_000, 7_500), (4_000, 2**32 - 1_000), (10_001, 10_000), (2**31 + 9_999, 2**31 + 10_000)]
    body = [struct.pack(">III", last, 1, first) for last, first in ups]
    payload = make.v9(make.template(300, fields), make.data_set(300, *body), uptime=10_000)
    want, got, written = both([payload])
    assert got == want
    assert written == 4
    assert times(got) == [
        ("2023-11-14T22:13:17.500Z", "2023-11-14T22:13:20.000Z"),
        ("2023-11-14T22:13:09.000Z", "2023-11-14T22:13:14.000Z"),
        ("2023-11-14T22:13:20.000Z", "2023-11-14T22:13:20.001Z"),
        ("2023-10-21T01:41:56.352Z", "2023-12-09T18:44:43.647Z"),
    ]
    five = make.v5([("192.0.2.1", "192.0.2.2", 1, 2, 3, 4, 3_599_000, 3_600_000)])
    want, got, written = both([five])
    assert (got, written, times(got)) == (want, 1, [("2023-11-14T22:13:19.000Z", "2023-11-14T22:13:20.000Z")])


@pytest.mark.parametrize(
    "fields", [[(22, 2)], [(22, 4), (22, 4)], [(22, 4), (152, 8)], [(22, 4, 9)], [(82, 65535), (22, 4)]]
)
def test_uptimes_that_are_no_times_or_have_one_already_are_left_as_they_are(make, fields):
    version = 10 if len(fields[0]) == 3 else 9
    body = bytes(1) + bytes(11)
    message = make.ipfix if version == 10 else make.v9
    want, got, written = both([message(make.template(300, fields, version), make.data_set(300, body))])
    assert got == want
    derived = times(got)[0][0]
    if fields[0][0] == 82:
        assert (derived, written) == ("2023-11-14T21:13:20.000Z", 0)
    else:
        assert derived == ("1970-01-01T00:00:00.000Z" if (152, 8) in fields else None)


def test_a_time_before_1970_is_a_number_as_everywhere(make):
    message = make.v9(make.template(300, [(22, 4)]), make.data_set(300, bytes(4)), seconds=1, uptime=2_000)
    want, got, _ = both([message])
    assert got == want
    assert times(got) == [(-1_000_000_000, None)]


def test_very_long_names_of_an_exporter_are_left_to_the_reader(make):
    told = [(346, 4), (303, 2), (339, 1), (341, 65535)]
    name = b"\xff" + struct.pack(">H", 30_000) + b"n" * 30_000
    announced = [struct.pack(">IHB", 65000, number, 3) + name[:-1] + b"%d" % number for number in (1, 2, 3)]
    fields = [(n, 4, 65000) for n in (1, 2, 3)]
    payloads = [
        *(make.ipfix(make.template(300, told, 10, 1), make.data_set(300, one)) for one in announced),
        make.ipfix(make.template(301, fields[:1], 10), make.data_set(301, bytes(4 * 100))),
        make.ipfix(make.template(302, fields, 10), make.data_set(302, bytes(12))),
        make.ipfix(make.template(303, [(1, 1, 65000)], 10), make.data_set(303, bytes(600))),
    ]
    want, got, written = both(payloads)
    assert got == want
    assert written == 100
