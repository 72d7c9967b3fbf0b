"""Full records: structured data, announced types, and the traps that real exporters set, in made-up bytes."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import DecodeError, Reason
from collectors.netflow import elements, records
from collectors.netflow.lists import MAX_DEPTH
from collectors.netflow.readers import Reader, cut
from collectors.netflow.records import State
from collectors.netflow.templates import VARIABLE, Field, Template
from collectors.netflow.values import rfc3339, value

PEN = 63000  # of nobody whose elements we have
V4 = bytes((192, 0, 2, 1))


def read_all(make, *payloads, state=None, exporter=None):
    state = state or State()
    found = []
    for payload in payloads:
        found += records.records(payload, state, exporter or make.EXPORTER, 0)
    return found


def one(make, fields, raw, version=10, scopes=0):
    """The only record of a data set of octets ``raw`` under a template of ``fields``."""
    message = make.ipfix if version == 10 else make.v9
    sets = make.template(300, fields, version, scopes), make.data_set(300, raw)
    (row,) = read_all(make, message(*sets))
    return row


# -- structured data (RFC 6313) ---------------------------------------------------------------------


def basic(field, *values, semantic=3, width=None, enterprise=None):
    width = len(values[0]) if width is None else width
    head = struct.pack(">BHH", semantic, field | (0x8000 if enterprise else 0), width)
    return head + (struct.pack(">I", enterprise) if enterprise else b"") + b"".join(values)


def varying(raw):
    """A field of variable length, by the long form of its length."""
    return b"\xff" + struct.pack(">H", len(raw)) + raw


def test_a_basic_list_has_the_values_of_its_element(make):
    row = one(make, [(291, VARIABLE)], varying(basic(10, bytes(4), b"\0\0\0\7")))
    want = {"type": "basicList", "semantic": "allOf", "element": "ingressInterface", "values": [0, 7]}
    assert row["basicList"] == want


def test_a_basic_list_may_be_of_a_vendors_element_and_of_values_that_vary(make):
    raw = basic(5, b"\2hi", b"\0", b"\3you", width=VARIABLE, semantic=4, enterprise=PEN)
    row = one(make, [(291, VARIABLE)], varying(raw))
    assert row["basicList"]["element"] == f"enterprise{PEN}_5"
    assert row["basicList"]["semantic"] == "ordered"
    assert row["basicList"]["values"] == ["hi", "", "you"]


def test_an_empty_basic_list_has_no_values(make):
    assert one(make, [(291, VARIABLE)], varying(basic(8, width=4)))["basicList"]["values"] == []


def test_a_sub_template_list_has_the_records_of_its_template(make):
    inner = make.template(400, [(8, 4), (7, 2)], 10)
    raw = varying(struct.pack(">BH", 255, 400) + V4 + b"\0\x50" + V4 + b"\1\xbb")
    outer = make.template(300, [(292, VARIABLE), (4, 1)], 10)
    (row,) = read_all(make, make.ipfix(inner, outer, make.data_set(300, raw + b"\6")))
    assert row["subTemplateList"] == {
        "type": "subTemplateList", "semantic": "undefined", "templateId": 400,
        "records": [{"sourceIPv4Address": "192.0.2.1", "sourceTransportPort": p} for p in (80, 443)],
    }  # fmt: skip
    assert row["protocolIdentifier"] == 6


def test_a_sub_template_multi_list_has_records_of_several_templates(make):
    first, second = make.template(400, [(7, 2)], 10), make.template(401, [(82, VARIABLE)], 10)
    parts = struct.pack(">HHH", 400, 6, 80) + struct.pack(">HH", 401, 4 + 6) + b"\2lo\2en"
    outer = make.template(300, [(293, VARIABLE)], 10)
    (row,) = read_all(make, make.ipfix(first, second, outer, make.data_set(300, varying(b"\0" + parts))))
    assert row["subTemplateMultiList"]["semantic"] == "noneOf"
    assert row["subTemplateMultiList"]["lists"] == [
        {"templateId": 400, "records": [{"sourceTransportPort": 80}]},
        {"templateId": 401, "records": [{"interfaceName": "lo"}, {"interfaceName": "en"}]},
    ]


def test_lists_nest(make):
    inner = basic(7, b"\0\1", b"\0\2")
    outer = basic(291, varying(inner), width=VARIABLE)
    row = one(make, [(291, VARIABLE)], varying(outer))
    assert [v["values"] for v in row["basicList"]["values"]] == [[1, 2]]


def test_lists_that_nest_too_deep_end_in_octets(make):
    raw = basic(7, b"\0\1")
    for _ in range(MAX_DEPTH + 3):
        raw = basic(291, varying(raw), width=VARIABLE)
    found = one(make, [(291, VARIABLE)], varying(raw))["basicList"]
    depth = 0
    while "values" in found:
        (found,) = found["values"]
        depth += 1
    assert depth == MAX_DEPTH
    assert bytes.fromhex(found["octets"])


def test_a_list_of_a_template_that_is_not_known_keeps_its_octets(make):
    row = one(make, [(292, VARIABLE)], varying(struct.pack(">BH", 3, 999) + b"\1\2"))
    assert row["subTemplateList"]["octets"] == "0102"
    assert row["subTemplateList"]["templateId"] == 999


@pytest.mark.parametrize(
    ("element", "raw"),
    [(291, b"\3\0"), (291, b"\3\x80\5\0\4\0"), (292, b"\3\1"), (293, b"\3\1\x90\0\3"),
     (293, b"\3\1\x90\0\x20\0"), (291, b"\3\0\7\0\0abc")],
    ids=["short", "enterprise", "no-template", "length-below-4", "length-beyond", "values-of-nothing"],
)  # fmt: skip
def test_a_list_that_does_not_fit_keeps_its_octets(make, element, raw):
    (got,) = [v for v in one(make, [(element, VARIABLE)], varying(raw)).values() if isinstance(v, dict)]
    assert got["octets"] == raw.hex()


def test_two_lists_in_a_record_are_both_kept(make):
    raw = varying(basic(7, b"\0\1")) + varying(basic(11, b"\0\2"))
    row = one(make, [(291, VARIABLE), (291, VARIABLE)], raw)
    assert [v["element"] for v in row["basicList"]] == ["sourceTransportPort", "destinationTransportPort"]


# -- type information (RFC 5610) --------------------------------------------------------------------

TYPES = ((346, 4), (303, 2), (339, 1), (344, 1), (341, VARIABLE))


def announced(make, number, kind, name, template=500):
    raw = struct.pack(">IHBB", PEN, number, kind, 0) + bytes([len(name)]) + name
    return make.template(template, TYPES, 10, 2), make.data_set(template, raw)


def test_a_vendors_element_is_called_and_read_as_its_exporter_announces(make):
    mine = make.template(300, [(1, 4, PEN), (2, VARIABLE, PEN)], 10)
    data = make.data_set(300, V4 + b"\2hi")
    state = State()
    (before,) = read_all(make, make.ipfix(mine, data), state=state)
    assert before[f"enterprise{PEN}_1"] == int.from_bytes(V4, "big")
    read_all(make, make.ipfix(*announced(make, 1, 18, b"probeAddress")), state=state)
    read_all(make, make.ipfix(*announced(make, 2, 13, b"probeName")), state=state)
    (after,) = read_all(make, make.ipfix(data), state=state)
    assert (after["probeAddress"], after["probeName"]) == ("192.0.2.1", "hi")
    (other,) = read_all(make, make.ipfix(mine, data), state=state, exporter=bytes(16))
    assert f"enterprise{PEN}_1" in other


@pytest.mark.parametrize(("kind", "name"), [(99, b"x"), (3, b"a\x07b")])
def test_announcements_of_no_type_or_no_name_are_not_believed(make, kind, name):
    state = State()
    read_all(make, make.ipfix(*announced(make, 1, kind, name)), state=state)
    assert not state.types


def test_announcements_are_bounded(make, monkeypatch):
    monkeypatch.setattr(records, "_TYPES", 2)
    state = State()
    for number in range(4):
        read_all(make, make.ipfix(*announced(make, number, 3, b"x%d" % number)), state=state)
    assert (len(state.types), state.types_dropped) == (2, 2)


# -- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "raw", "want"),
    [
        ((56, 6), bytes.fromhex("0a0b0c0d0e0f"), "0a:0b:0c:0d:0e:0f"),
        ((276, 1), b"\1", True),
        ((276, 1), b"\2", False),
        ((320, 8), struct.pack(">d", 2.5), 2.5),
        ((320, 4), struct.pack(">f", 2.5), 2.5),
        ((82, 6), b"e\xff0\0\0\0", "e\ufffd0"),
        ((95, 4), b"\3\0\0\x50", "03000050"),
        ((150, 4), struct.pack(">I", 1_700_000_000), "2023-11-14T22:13:20Z"),
        ((152, 8), struct.pack(">Q", 1_700_000_000_123), "2023-11-14T22:13:20.123Z"),
        ((154, 8), struct.pack(">II", 3_908_988_800, 1 << 31), "2023-11-14T22:13:20.500000Z"),
        ((156, 8), struct.pack(">II", 3_908_988_800, 1 << 31), "2023-11-14T22:13:20.500000000Z"),
        ((1, 3), b"\1\0\0", 65536),
        ((1, 5), b"\1\0\0\0\0", 2**32),
        ((434, 2), b"\xff\xfe", -2),
        ((31999, 2), b"\1\0", 256),
        ((31999, 9), bytes(9), "00" * 9),
        ((27, 16), bytes(15) + b"\1", "::1"),
    ],
    ids=str,
)  # fmt: skip
def test_each_type_is_shown_as_people_write_it(make, field, raw, want):
    row = one(make, [field], raw)
    assert row[elements.element(0, field[0]).name] == want


def test_elements_that_nobody_names_are_shown_by_number(make):
    row = one(make, [(31999, 2), (77, 2, PEN)], bytes(4))
    assert {"element31999", f"enterprise{PEN}_77"} <= row.keys()


def test_the_reverse_of_an_element_has_its_name(make):
    assert one(make, [(1, 4, 29305)], b"\0\0\0\5")["reverseOctetDeltaCount"] == 5


def test_numbers_that_are_none_are_shown_as_they_come():
    assert math.isnan(value("float64", struct.pack(">d", math.nan), False))
    assert rfc3339(10**22, 3) == 10**22


KINDS = sorted({e.type for e in elements.table().values()})
FIELDS = st.lists(
    st.tuples(st.sampled_from([1, 2, 4, 7, 8, 12, 27, 56, 82, 95, 150, 152, 154, 210, 276, 320, 434, 31999]),
              st.sampled_from([0, 1, 2, 3, 4, 6, 8, 16, 4, 4, VARIABLE])),
    min_size=1, max_size=8,
)  # fmt: skip


@given(FIELDS, st.binary(max_size=300))
def test_a_reader_says_what_the_fields_say_one_by_one(fields, body):
    template = Template(10, 300, tuple(Field(*f) for f in fields))
    named = [elements.element(0, number) for number, _ in fields]
    want = []
    for found in cut(template, body):
        row = {}
        for told, element, raw in zip(template.fields, named, found, strict=True):
            if told.width and told.number != 210:
                row.setdefault(element.name, []).append(value(element.type, raw, told.width == VARIABLE))
        want.append({k: v if len(v) > 1 else v[0] for k, v in row.items()})
    got = list(Reader(template, named, lambda kind, raw: raw.hex()).read(body))
    assert str(got) == str(want)  # as text, for NaN is not itself


# -- traps ------------------------------------------------------------------------------------------

FLOW = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4)]
BODY = V4 + bytes((203, 0, 113, 9)) + struct.pack(">HHBII", 1000, 80, 6, 500, 5)
LINE = ("192.0.2.1", "203.0.113.9", 1000, 80, 500, 5, 1, 2)


def test_a_v5_count_smaller_than_the_room_is_trusted(make):
    payload = make.v5([LINE, LINE], count=1)
    assert len(read_all(make, payload)) == 1
    assert len(make.replay([make.gathered(payload)]).rows) == 1


def test_a_v5_count_larger_than_the_room_is_refused(make):
    payload = make.v5([LINE], count=9)
    with pytest.raises(DecodeError):
        read_all(make, payload)
    got = make.replay([make.gathered(payload)])
    assert got.moved["refused_total", "length"] == 1
    assert not got.rows


@pytest.mark.parametrize("count", [0, 1, 77, 65535])
def test_a_v9_count_is_not_believed(make, count):
    made = bytearray(make.v9(make.template(300, FLOW), make.data_set(300, BODY, BODY)))
    made[2:4] = struct.pack(">H", count)
    assert len(read_all(make, bytes(made))) == 2
    assert len(make.replay([make.gathered(bytes(made))]).rows) == 2


def test_a_width_of_65535_in_v9_is_a_field_of_variable_length(make):
    fields = [*FLOW, (82, VARIABLE), (5, 1)]
    payload = make.v9(make.template(300, fields), make.data_set(300, BODY + b"\3eth\x20", BODY + b"\0\x21"))
    assert [(r["interfaceName"], r["ipClassOfService"]) for r in read_all(make, payload)] == [
        ("eth", 32),
        ("", 33),
    ]
    assert [row["tos"] for row in make.replay([make.gathered(payload)]).rows] == [32, 33]


def test_fields_of_no_octets_are_left_out(make):
    fields = [(10, 0), *FLOW, (82, 0)]
    payload = make.v9(make.template(300, fields), make.data_set(300, BODY))
    (row,) = read_all(make, payload)
    assert not {"ingressInterface", "interfaceName"} & row.keys()
    (got,) = make.replay([make.gathered(payload)]).rows
    assert (got["bytes"], got["input_interface"]) == (500, None)


def test_scopes_of_no_octets_are_left_out(make):
    options = make.template(300, [(1, 0), (34, 4)], 9, 1)
    (row,) = read_all(make, make.v9(options, make.data_set(300, struct.pack(">I", 64))))
    assert row["samplingInterval"] == 64
    assert "scopeSystem" not in row


def test_an_options_template_may_come_under_another_meaning(make):
    first = make.template(300, [(1, 4), (34, 4)], 9, 1)
    second = make.template(300, FLOW)
    payload = make.v9(
        first, make.data_set(300, bytes(4) + struct.pack(">I", 64)), second, make.data_set(300, BODY)
    )
    told, flow = read_all(make, payload)
    assert (told["samplingInterval"], flow["octetDeltaCount"]) == (64, 500)
    (row,) = make.replay([make.gathered(payload)]).rows
    assert (row["bytes"], row["sampling_rate"]) == (500, 64)


@pytest.mark.parametrize("octets", [1, 2, 3, 4, 7, 40])
def test_zeros_after_the_last_set_are_padding(make, octets):
    payload = make.v9(make.template(300, FLOW), make.data_set(300, BODY)) + bytes(octets)
    state = State()
    assert len(read_all(make, payload, state=state)) == 1
    assert not state.refused
    got = make.replay([make.gathered(payload)])
    assert len(got.rows) == 1
    assert not [k for k in got.moved if k[0] == "refused_total"]


def test_zeros_after_the_last_record_of_a_set_are_padding(make):
    payload = make.ipfix(make.template(300, FLOW, 10), make.data_set(300, BODY + bytes(3)))
    assert len(read_all(make, payload)) == 1


def test_exporters_that_take_turns_keep_their_own_templates(make):
    other = make.sixteen("2001:db8::99")
    swapped = [FLOW[1], FLOW[0], *FLOW[2:]]
    first, second = make.v9(make.template(300, FLOW)), make.v9(make.template(300, swapped))
    data = make.v9(make.data_set(300, BODY), sequence=1)
    state = State()
    read_all(make, first, state=state)
    read_all(make, second, state=state, exporter=other)
    (a,) = read_all(make, data, state=state)
    (b,) = read_all(make, data, state=state, exporter=other)
    assert (a["sourceIPv4Address"], b["sourceIPv4Address"]) == ("192.0.2.1", "203.0.113.9")
    assert b["exporterIPv6Address"] == "2001:db8::99"
    sent = [make.gathered(p, exporter=e) for p, e in ((first, make.EXPORTER), (second, other))]
    sent += [make.gathered(data, exporter=e, t=1_700_000_002 * make.SECOND) for e in (make.EXPORTER, other)]
    rows = make.replay(sent).rows
    assert {(r["exporter"], r["src"]) for r in rows} == {
        (make.EXPORTER, make.sixteen("192.0.2.1")), (other, make.sixteen("203.0.113.9")),
    }  # fmt: skip


def test_data_before_their_template_are_read_when_it_comes_and_without_one_never(make):
    early = make.ipfix(make.data_set(300, BODY), make.data_set(301, BODY))
    late = make.ipfix(make.template(300, FLOW, 10), sequence=2)
    state = State()
    assert read_all(make, early, state=state) == []
    assert len(read_all(make, late, state=state)) == 1
    assert len(state.waiting) == 1
    got = make.replay([make.gathered(early, late)])
    assert len(got.rows) == 1
    assert got.moved["decoded_late_total",] == 1


def test_a_withdrawn_template_reads_nothing_more(make):
    state = State()
    withdrawal = struct.pack(">HHHH", 2, 8, 300, 0)
    told, data = make.ipfix(make.template(300, FLOW, 10), withdrawal), make.ipfix(make.data_set(300, BODY))
    records.records(told, state, make.EXPORTER, 0, withdraws=True)
    assert read_all(make, data, state=state) == []
    # Over UDP it is ignored.
    assert len(read_all(make, told, data, state=state)) == 2
    assert state.withdrawals_ignored == 1


def test_numbers_in_fewer_octets_are_the_same_numbers(make):
    fields = [(8, 4), (12, 4), (1, 3), (2, 1), (10, 1), (16, 2), (7, 1)]
    raw = V4 + V4 + b"\1\0\0" + b"\5" + b"\7" + b"\xfd\xe8" + b"\x50"
    payload = make.ipfix(make.template(300, fields, 10), make.data_set(300, raw))
    (row,) = read_all(make, payload)
    want = {
        "octetDeltaCount": 65536,
        "packetDeltaCount": 5,
        "ingressInterface": 7,
        "bgpSourceAsNumber": 65000,
    }
    assert {k: row[k] for k in want} == want
    (got,) = make.replay([make.gathered(payload)]).rows
    assert (got["bytes"], got["packets"], got["input_interface"], got["src_as"]) == (65536, 5, 7, 65000)
    assert got["src_port"] == 80


TIMES = {
    "seconds": ([(150, 4), (151, 4)], struct.pack(">II", 1_699_999_990, 1_699_999_999)),
    "milliseconds": ([(152, 8), (153, 8)], struct.pack(">QQ", 1_699_999_990_000, 1_699_999_999_000)),
    "deltas": ([(158, 4), (159, 4)], struct.pack(">II", 10_000_000, 1_000_000)),
    "mixed": ([(150, 4), (153, 8)], struct.pack(">IQ", 1_699_999_990, 1_699_999_999_000)),
    "duration": ([(152, 8), (161, 4)], struct.pack(">QI", 1_699_999_990_000, 9000)),
}


@pytest.mark.parametrize("form", TIMES)
def test_times_of_every_form_are_the_same_times(make, form):
    fields, raw = TIMES[form]
    payload = make.ipfix(make.template(300, [*FLOW, *fields], 10), make.data_set(300, BODY + raw))
    (got,) = make.replay([make.gathered(payload)]).rows
    assert (got["t_first"], got["t_last"]) == (1_699_999_990 * make.SECOND, 1_699_999_999 * make.SECOND)


def test_six_labels_of_mpls_are_all_kept(make):
    fields = [*FLOW, *((70 + i, 3) for i in range(6))]
    payload = make.v9(make.template(300, fields), make.data_set(300, BODY + bytes(range(18))))
    (row,) = read_all(make, payload)
    labels = [v for k, v in row.items() if k.startswith("mpls")]
    assert labels == [bytes(range(i, i + 3)).hex() for i in range(0, 18, 3)]
    assert len(make.replay([make.gathered(payload)]).rows) == 1


def test_a_field_that_comes_twice_is_a_list(make):
    payload = make.v9(make.template(300, [*FLOW, (10, 2), (10, 2)]), make.data_set(300, BODY + b"\0\1\0\2"))
    (row,) = read_all(make, payload)
    assert row["ingressInterface"] == [1, 2]
    assert make.replay([make.gathered(payload)]).rows[0]["input_interface"] == 1


def test_records_of_translations_keep_both_addresses_and_those_without_addresses_are_no_flows(make):
    fields = [(8, 4), (225, 4), (12, 4), (226, 4), (227, 2), (228, 2), (230, 1), (323, 8)]
    raw = V4 * 4 + struct.pack(">HHBQ", 5, 6, 1, 1_700_000_000_000)
    event = make.template(301, [(230, 1), (323, 8)], 10)
    payload = make.ipfix(
        make.template(300, fields, 10), make.data_set(300, raw), event,
        make.data_set(301, struct.pack(">BQ", 1, 1_700_000_000_000)),
    )  # fmt: skip
    nat, bare = read_all(make, payload)
    assert nat["postNATSourceIPv4Address"] == nat["postNATDestinationIPv4Address"] == "192.0.2.1"
    assert (nat["postNAPTSourceTransportPort"], nat["natEvent"]) == (5, 1)
    assert bare["observationTimeMilliseconds"] == "2023-11-14T22:13:20.000Z"
    got = make.replay([make.gathered(payload)])
    assert len(got.rows) == 1
    assert got.moved["records_total", "ipfix", "other"] == 1


def test_a_set_that_runs_over_the_end_is_counted_and_those_before_it_stand(make):
    payload = (
        make.v9(make.template(300, FLOW), make.data_set(300, BODY)) + struct.pack(">HH", 300, 900) + b"\1"
    )
    state = State()
    assert len(read_all(make, payload, state=state)) == 1
    assert state.refused == {Reason.LENGTH: 1}


@given(st.lists(st.integers(291, 293), min_size=1, max_size=3), st.binary(max_size=200))
def test_any_list_is_read_or_kept_as_octets(make, kinds, raw):
    payload = make.ipfix(
        make.template(300, [(k, VARIABLE) for k in kinds], 10), make.template(400, [(7, 2)], 10),
        make.data_set(300, b"".join(varying(raw) for _ in kinds)),
    )  # fmt: skip
    (row,) = read_all(make, payload)
    assert any(isinstance(v, dict | list) for v in row.values())


def test_fields_of_no_octets_cost_nothing_in_a_record():
    class Counted(bytes):
        taken = 0

        def __getitem__(self, what):
            Counted.taken += 1
            return super().__getitem__(what)

    fields = (*(Field(900 + i, 0) for i in range(2000)), Field(34, 1), Field(901, 0))
    found = list(cut(Template(10, 300, fields, True, 1, b""), Counted(b"abc")))
    assert [len(record) for record in found] == [2002] * 3
    assert [(record[2000], record[0], record[-1]) for record in found] == [
        (b, b"", b"") for b in (b"a", b"b", b"c")
    ]
    assert Counted.taken == 3


def test_data_sets_of_no_octets_do_not_wait_without_bound(make):
    state = State(most_waiting_bytes=10_000)
    read_all(make, make.ipfix(*(make.data_set(300 + i, b"") for i in range(200))), state=state)
    waiting = sum(map(len, state.waiting.values()))
    assert 0 < waiting < 100
    assert state.dropped == 200 - waiting
