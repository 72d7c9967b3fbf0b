"""``poolwatch flows``: captures and IPFIX files in; JSON, CSV, a table or totals out."""

import csv
import io
import json
import struct
from ipaddress import ip_address

import pytest
from exported import pcap, v5
from flowmessages import NUMBERS, values_of

from collectors.netflow import jsonlines, records
from detector import cli, flowcli

SENT = 1_700_000_000
LINES = [
    (f"198.51.100.{n}", "203.0.113.9", 40000, 3333, n, 100 * n, SENT - 20, SENT - n) for n in range(1, 6)
]


def template(number, fields):
    body = b"".join(struct.pack(">HH", *f) for f in fields)
    return struct.pack(">HHHH", 2, 8 + len(body), number, len(fields)) + body


def data(number, *found):
    return struct.pack(">HH", number, 4 + len(b"".join(found))) + b"".join(found)


def ipfix(*sets, sequence=0):
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), SENT, sequence, 7) + body


FIELDS = [(8, 4), (12, 4), (1, 4), (2, 4), (150, 4), (151, 4)]
RECORD = (
    ip_address("192.0.2.1").packed
    + ip_address("192.0.2.2").packed
    + struct.pack(">IIII", 99, 3, SENT, SENT + 5)
)
MESSAGES = ipfix(template(300, FIELDS), data(300, RECORD, RECORD)) + ipfix(
    data(300, RECORD), data(301, b"abcd")
)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "v5.pcap").write_bytes(pcap([(v5(LINES, SENT, 0), SENT)]))
    (tmp_path / "bare.ipfix").write_bytes(MESSAGES)
    return str(tmp_path / "v5.pcap"), str(tmp_path / "bare.ipfix")


def shown(capsys, *arguments):
    assert cli.main(["flows", *arguments]) == 0
    return capsys.readouterr().out


def test_records_that_a_program_writes_stand_among_the_others_in_order(files, tmp_path, capsys, monkeypatch):
    text = [b"plain\0", b"a\x1b[2J\0", "\u0085gr\u00fc".encode(), b'"x\\y"', b"\x7f"]
    said = ipfix(template(302, [(82, 6), (1, 2)]), *(data(302, t.ljust(6, b"\0") + b"\0\x07") for t in text))
    (tmp_path / "text.ipfix").write_bytes(said)
    shows = []
    for there in (False, True):
        monkeypatch.setattr(jsonlines, "kept", lambda _kernel, there=there: there)
        shows.append(shown(capsys, "--json", *files, str(tmp_path / "text.ipfix")))
    assert shows[0] == shows[1]
    assert len(shows[0].splitlines()) == 8 + len(text)
    assert not set(shows[0]) & set("\x1b\x7f\u0085")
    written = flowcli.read_for_json([str(tmp_path / "text.ipfix")], {})
    assert [isinstance(row, bytes) for row in written] == [True, False, False, True, False]


def test_json_is_one_object_a_record_of_captures_and_of_ipfix_files(files, capsys):
    rows = [json.loads(line) for line in shown(capsys, "--json", *files).splitlines()]
    assert [row["octetDeltaCount"] for row in rows] == [100, 200, 300, 400, 500, 99, 99, 99]
    assert rows[-1]["exporterIPv6Address"] == "::"
    assert rows[-1]["flowStartSeconds"] == "2023-11-14T22:13:20Z"


def test_csv_has_the_union_of_all_fields(files, capsys):
    rows = list(csv.DictReader(io.StringIO(shown(capsys, "--csv", *files))))
    assert len(rows) == 8
    assert rows[0]["flowStartSeconds"] == ""
    assert rows[7]["sourceIPv4Address"] == "192.0.2.1"
    assert flowcli.MORE not in rows[0]


def test_csv_of_more_than_is_looked_ahead_has_later_fields_in_a_column_more(files, capsys, monkeypatch):
    monkeypatch.setattr(flowcli, "LOOK_AHEAD", 3)
    rows = list(csv.DictReader(io.StringIO(shown(capsys, "--csv", *files))))
    assert len(rows) == 8
    assert [row[flowcli.MORE] for row in rows[:5]] == [""] * 5
    assert json.loads(rows[5][flowcli.MORE])["flowEndSeconds"] == "2023-11-14T22:13:25Z"
    assert rows[5]["octetDeltaCount"] == "99"


def test_totals_are_by_exporter_and_template_and_say_what_no_template_came_for(files, capsys):
    rows = [json.loads(line) for line in shown(capsys, "--count", "--json", *files).splitlines()]
    want = [
        {"exporter": "::", "protocol": "IPFIX", "domain": 7, "template": 300, "kind": "flow", "records": 3,
         "packets": 9, "octets": 297, "first": "2023-11-14T22:13:20.000Z",
         "last": "2023-11-14T22:13:25.000Z"},
        {"exporter": "::", "protocol": "IPFIX", "domain": 7, "template": 301, "kind": "unknown", "records": 1,
         "packets": 0, "octets": 0, "first": "2023-11-14T22:13:20.000Z", "last": "2023-11-14T22:13:20.000Z"},
        {"exporter": "192.0.2.1", "protocol": "NetFlow v5", "domain": 0, "template": 0, "kind": "flow",
         "records": 5, "packets": 15, "octets": 1500, "first": "2023-11-14T22:13:00.000Z",
         "last": "2023-11-14T22:13:19.000Z"},
    ]  # fmt: skip
    assert rows == want
    assert "9 records, 24 packets, 1797 octets" in shown(capsys, "--count", *files)


def test_totals_count_a_set_that_came_before_its_template_once(tmp_path, capsys):
    path = tmp_path / "late.ipfix"
    options = struct.pack(">HHHHHHHHH", 3, 18, 400, 2, 1, 149, 4, 34, 4)
    path.write_bytes(
        ipfix(data(300, RECORD), data(400, bytes(8)))
        + ipfix(template(300, FIELDS), options, data(400, bytes(16)))
    )
    rows = [json.loads(line) for line in shown(capsys, "--count", "--json", str(path)).splitlines()]
    assert [(r["template"], r["kind"], r["records"]) for r in rows] == [(300, "flow", 1), (400, "options", 3)]


def test_what_is_cut_short_is_refused_and_the_rest_is_shown(tmp_path, capsys):
    (tmp_path / "cut.ipfix").write_bytes(MESSAGES[:-3])
    assert cli.main(["flows", "--json", str(tmp_path / "cut.ipfix")]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "refused: 1 length" in err


def test_what_is_neither_a_capture_nor_messages_is_an_input_error(tmp_path, capsys):
    (tmp_path / "x").write_bytes(b"hello, world, this is text")
    assert cli.main(["flows", "--count", str(tmp_path / "x")]) == 1
    assert "no capture file" in capsys.readouterr().err


def test_text_of_an_exporter_gives_the_terminal_no_commands(tmp_path, capsys):
    # OSC, CSI of one octet and of two, DEL; the field stands in the table by the name that it was announced.
    evil = "\x1b]0;x\x07\x1b[31m\x9b5m\x7fé".encode()
    name = b"octetDeltaCount"
    told = struct.pack(">IHBB", 9999, 1, 13, len(name)) + name
    options = struct.pack(">HHHHHHHHHHHHHH", 3, 28, 400, 4, 2, 346, 4, 303, 2, 339, 1, 341, 65535, 0)
    fields = struct.pack(">HHHHHHIHH", 2, 20, 300, 2, 0x8001, 65535, 9999, 82, 65535)
    record = 2 * (bytes([len(evil)]) + evil)
    file = tmp_path / "evil.ipfix"
    file.write_bytes(ipfix(options, data(400, told)) + ipfix(fields, data(300, record)))
    for form in ([], ["--csv"], ["--json"]):
        out = shown(capsys, *form, str(file))
        assert all(part in out for part in ("31m", "5m", "é"))
        assert all(c.isprintable() or c == "\n" for c in out)
    assert json.loads(out.splitlines()[-1])["interfaceName"] == evil.decode()


def test_data_sets_whose_template_never_comes_are_told(files, capsys):
    assert cli.main(["flows", "--json", *files]) == 0
    assert "1 data sets without a template" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"], ["--count"], ["--protobuf"]])
def test_of_a_capture_that_is_cut_it_is_told_and_what_is_whole_is_shown(form, tmp_path, capfdbinary):
    whole = pcap([(v5(LINES, SENT, 0), SENT), (v5(LINES, SENT, 5), SENT)])
    (tmp_path / "cut.pcap").write_bytes(whole[:-7])
    assert cli.main(["flows", *form, str(tmp_path / "cut.pcap")]) == 0
    out, err = capfdbinary.readouterr()
    assert out
    assert err.decode() == "poolwatch: refused: 1 truncated\n"


def messages(data):
    found, refused = values_of(data)
    assert not refused
    return found


def test_protobuf_is_a_message_a_record_as_goflow2_frames_them(files, capfdbinary):
    assert cli.main(["flows", "--protobuf", *files]) == 0
    rows = messages(capfdbinary.readouterr().out)
    assert [row[NUMBERS["bytes"]] for row in rows] == [100, 200, 300, 400, 500, 99, 99, 99]
    assert [row[NUMBERS["type"]] for row in rows] == [2] * 5 + [4] * 3
    assert rows[0][NUMBERS["sampler_address"]][12:] == ip_address("192.0.2.1").packed
    assert rows[5][NUMBERS["time_flow_start_ns"]] == SENT * 10**9
    assert rows[5][NUMBERS["src_addr"]][12:] == RECORD[:4]


def test_protobuf_of_ends_that_are_both_anybodys_is_one_message_a_record(tmp_path, capfdbinary):
    path = tmp_path / "home.ipfix"
    ends = ip_address("10.0.0.1").packed + ip_address("10.0.0.2").packed
    path.write_bytes(ipfix(template(300, FIELDS), data(300, ends + RECORD[8:], RECORD)))
    assert cli.main(["flows", "--protobuf", str(path)]) == 0
    assert len(messages(capfdbinary.readouterr().out)) == 2


def test_protobuf_tells_what_was_refused_and_what_no_template_came_for(tmp_path, capfdbinary):
    path = tmp_path / "late.ipfix"
    cut = ipfix(data(302, b"abcd"))[:-1]
    path.write_bytes(ipfix(data(300, RECORD), data(302, b"abcd")) + MESSAGES + cut)
    assert cli.main(["flows", "--protobuf", str(path)]) == 0
    out, err = capfdbinary.readouterr()
    assert len(messages(out)) == 4
    assert b"refused: 2 data sets without a template, 1 length" in err


def test_protobuf_is_asked_for_alone(files, capsys):
    assert cli.main(["flows", "--protobuf", "--count", *files]) == 2
    with pytest.raises(SystemExit):
        cli.main(["flows", "--protobuf", "--json", *files])
    assert "not allowed with" in capsys.readouterr().err


def test_the_table_shows_when_flows_began_by_the_clock(files, tmp_path, capsys):
    uptime = ipfix(
        template(303, [(8, 4), (158, 4), (2, 4)]),
        data(303, ip_address("192.0.2.7").packed + struct.pack(">II", 1_500_000, 1)),
    )
    (tmp_path / "delta.ipfix").write_bytes(uptime)
    out = shown(capsys, *files, str(tmp_path / "delta.ipfix"))
    lines = out.splitlines()
    assert lines[0].split() == [
        "start",
        "(UTC)",
        "source",
        "port",
        "destination",
        "port",
        "protocol",
        "packets",
        "octets",
    ]
    # NetFlow v5 tells an uptime, IPFIX here seconds and microseconds before the export.
    assert [line.split()[0] for line in lines[1:10]] == [
        *["2023-11-14T22:13:00.000Z"] * 5,
        *["2023-11-14T22:13:20Z"] * 3,
        "2023-11-14T22:13:18.500Z",
    ]
    assert lines[-1] == "9 records"


def test_an_uptime_that_has_wrapped_is_a_time_all_the_same():
    row = {"exportTime": "2023-11-14T22:13:20.000Z", "systemInitTimeMilliseconds": "2023-11-14T22:13:10.000Z"}
    assert flowcli._start(row | {"flowStartSysUpTime": 4000}) == "2023-11-14T22:13:14.000Z"
    assert flowcli._start(row | {"flowStartSysUpTime": 2**32 - 5000}) == "2023-11-14T22:13:05.000Z"
    for odd in ({}, {"flowStartSysUpTime": [1, 2]}, {"flowStartSysUpTime": 1, "exportTime": 5}):
        assert flowcli._start(row | odd) == "-"


def test_records_that_are_no_flows_are_counted_and_not_shown(tmp_path, capsys):
    options = struct.pack(">HHHHHHHHH", 3, 18, 400, 2, 1, 149, 4, 34, 4)
    (tmp_path / "a.ipfix").write_bytes(ipfix(options, data(400, bytes(16))) + MESSAGES)
    out = shown(capsys, str(tmp_path / "a.ipfix"))
    assert len(out.splitlines()) == 1 + 3 + 1
    assert "5 records; 2 of them are no flows and not shown: --json shows all" in out
    (tmp_path / "one.ipfix").write_bytes(ipfix(template(300, FIELDS), data(300, RECORD)))
    assert shown(capsys, str(tmp_path / "one.ipfix")).splitlines()[-1] == "1 record"


def test_long_addresses_are_shown_whole(tmp_path, capsys):
    six = "2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"
    record = b"".join(ip_address(a).packed for a in six)
    (tmp_path / "six.ipfix").write_bytes(ipfix(template(304, [(27, 16), (28, 16)]), data(304, record)))
    out = shown(capsys, str(tmp_path / "six.ipfix"))
    assert all(a in out for a in six)


def test_a_folder_is_the_captures_in_it_and_what_is_not_there_is_named_once(files, tmp_path, capsys):
    folder = str(tmp_path)
    assert len(shown(capsys, "--json", folder).splitlines()) == 5
    assert cli.main(["flows", "--count", str(tmp_path / "none.pcap")]) == 1
    assert capsys.readouterr().err.rstrip() == f"poolwatch: {tmp_path}/none.pcap: No such file or directory"


def test_what_is_ignored_or_finds_no_room_is_told_with_the_refusals(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_TYPES", 0)
    types = ((346, 4), (303, 2), (339, 1), (341, 4))
    body = struct.pack(">HHH", 500, len(types), 2) + b"".join(struct.pack(">HH", *f) for f in types)
    told = struct.pack(">HH", 3, 4 + len(body)) + body + data(500, struct.pack(">IHB", 9, 1, 3) + b"name")
    withdrawal = data(2, struct.pack(">HH", 300, 0))
    packets = ipfix(told, template(300, FIELDS), withdrawal, data(300, RECORD))
    (tmp_path / "types.pcap").write_bytes(pcap([(packets, SENT)]))
    (tmp_path / "types.ipfix").write_bytes(packets)
    refused = {}
    assert len(list(flowcli.read([str(tmp_path / "types.pcap")], refused))) == 2
    assert refused == {flowcli.UNTYPED: 1, flowcli.WITHDRAWN: 1}
    refused.clear()
    assert len(list(flowcli.read([str(tmp_path / "types.ipfix")], refused))) == 1
    assert refused == {flowcli.UNTYPED: 1, flowcli.WITHOUT: 1}
