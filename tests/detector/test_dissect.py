"""Our reading beside tshark's: over all captures, and what the command shows and refuses."""

import gc
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from collectors.packet.dissect import Connection, End, Found
from detector import cli, dissectcli, opinion
from detector.errors import ConfigError, InputError

CAPTURES = Path(__file__).parents[3] / "shared" / "captures" / "packets"
PCAPS = Path(__file__).parents[2] / "pcaps"
# tshark is slow to start: an answer's port and flags, a hello's record, a request.
HOLDS = re.compile(rb"\0\x35.{8}[\x80-\x8f]|\x16\x03[\0-\x04]..[\x01\x02]|HTTP/1", re.S)
# One call a capture takes a second or two: seventy of them in turn would be the longest test of all.
PARTS = 4
MINER = Connection(End("10.0.0.1", 40000), End("192.0.2.7", 443), 6)
tools = pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark")


def everything(_):
    return True


@pytest.mark.tools
@tools
@pytest.mark.skipif(not CAPTURES.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_that_tshark_reads_differs_in_any_capture(part):
    """Over all captures that hold a message, in parts that may run beside each other."""
    fields, messages = 0, {}
    paths = [path for path in sorted(CAPTURES.rglob("*.pcap*")) if HOLDS.search(path.read_bytes())]
    assert len(paths) > 70
    for path in paths[part::PARTS]:
        _, lines, _ = dissectcli.compare(str(path), everything)
        differing = [line for line in lines if line.same is False]
        assert not differing, path.name
        for line in lines:
            fields += line.same is True
            if line.same:
                messages[line.message] = messages.get(line.message, 0) + 1
    print(f"{fields} fields are the same, of {messages}")
    assert fields > 80  # all four: 4,875
    assert {"client_hello", "server_hello", "dns", "http"} <= set(messages)


@pytest.mark.tools
@tools
def test_the_command_shows_a_connection_of_a_capture(capsys):
    path = str(PCAPS / "cpuminer-getwork.pcap")
    assert cli.main(["dissect", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (one, *_) = told["fields"]
    assert (one["message"], one["field"], one["same"]) == ("http", "host", True)
    ends = told["connections"][0]["connection"].removeprefix("tcp ").replace(" - ", "-")
    for chosen in (["--connection", ends], ["--subscriber", ends.partition(":")[0]]):
        assert cli.main(["dissect", path, *chosen]) == 0
        shown = capsys.readouterr().out
        assert "tshark" in shown
        assert "0 differ" in shown
    assert cli.main(["dissect", path, "--subscriber", "192.0.2.1"]) == 0
    shown = capsys.readouterr().out
    assert "0 connections" in shown
    assert "nothing in it is as asked" in shown
    assert "HTTP" not in shown


def test_without_tshark_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(opinion.shutil, "which", lambda _: None)
    assert cli.main(["dissect", str(PCAPS / "cpuminer-getwork.pcap")]) == 1
    assert "apt install tshark" in capsys.readouterr().err


def test_what_is_no_connection_address_or_capture_is_refused(capsys, tmp_path):
    for chosen in (
        ["--connection", "10.0.0.1:1"],
        ["--connection", "10.0.0.1:1-x:2"],
        ["--connection", "10.0.0.1:1-10.0.0.2:70000"],
        ["--subscriber", "nobody"],
    ):
        assert cli.main(["dissect", "x.pcap", *chosen]) == 2
        assert chosen[0] in capsys.readouterr().err
    (tmp_path / "x.pcap").write_bytes(b"no capture at all, but some octets")
    for path in (tmp_path / "x.pcap", tmp_path / "none.pcap"):
        assert cli.main(["dissect", str(path)]) == 1
    with pytest.raises(InputError, match="files only"):
        opinion.read("-")


@pytest.mark.tools
@tools
def test_tshark_that_gives_up_is_said_so_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "x.pcap").write_bytes(b"no capture at all, but some octets")
    with pytest.raises(InputError, match="tshark gave up"):
        opinion.read(str(tmp_path / "x.pcap"))
    whole, why = opinion.read(str(PCAPS / "cpuminer-getwork.pcap"))
    assert whole
    assert not why
    # A capture that is still being written, or was cut, is read as far as it goes.
    octets = (PCAPS / "cpuminer-getwork.pcap").read_bytes()
    (tmp_path / "cut.pcap").write_bytes(octets[: len(octets) // 2 + 3])
    some, why = opinion.read(str(tmp_path / "cut.pcap"))
    assert 0 < len(some) < len(whole)
    assert "cut short" in why
    assert "\n" not in why
    gc.collect()  # what warns, warns here


def test_ends_of_a_connection_may_be_given_in_any_order():
    keep = dissectcli.wanted(["[2001:DB8::1]:443-10.0.0.1:40000"], [])
    assert keep(Connection(End("10.0.0.1", 40000), End("2001:db8::1", 443), 6))
    assert not keep(MINER)
    assert dissectcli.wanted([], ["192.0.2.7"])(MINER)
    with pytest.raises(ConfigError, match="port"):
        dissectcli.connection_of("1.2.3.4-5.6.7.8")


def test_messages_are_put_beside_each_other_and_what_differs_is_marked():
    ours = [
        Found(MINER, "client_hello", 1, {"server_name": ["a.b"], "alpn": []}),
        Found(MINER, "server_hello", 2, {"certificate_names": ["a.b"]}),
        Found(MINER, "dns", 3, refused="short: 3 octets"),
    ]
    theirs = [
        Found(MINER, "client_hello", 1, {"server_name": ["a.c"], "alpn": ["h2"]}),
        Found(MINER, "server_hello", 2, {"certificate_names": []}),
        Found(MINER, "certificates", 2, {"certificate_names": ["issuer", "a.b"]}),
    ]
    got = [(x.message, x.field, x.ours, x.theirs, x.same) for x in dissectcli.lines(ours, theirs)]
    assert got == [
        ("client_hello", "server_name", "a.b", "a.c", False),
        ("client_hello", "alpn", "", "h2", None),
        ("server_hello", "certificate_names", "a.b", "issuer, a.b", True),
        ("dns", "refused", "short: 3 octets", "", None),
    ]


class Layer(SimpleNamespace):
    """As pyshark shows one: fields by name."""

    def get_field(self, name):
        values = vars(self).get("fields", {}).get(name)
        return values and SimpleNamespace(
            all_fields=[SimpleNamespace(get_default_value=lambda v=value: v) for value in values]
        )


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("WWW.A.example.:80", "www.a.example"),
        ("a.example:", "a.example"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
    ],
)
def test_of_names_that_tshark_tells_port_and_root_are_left_out(said, name):
    layers = [
        Layer(layer_name="ip", src="10.0.0.1", dst="10.0.0.2"),
        Layer(layer_name="tcp", srcport="999", dstport="80"),
        Layer(layer_name="http", fields={"host": [said]}),
        Layer(
            layer_name="tls",
            fields={"handshake_type": ["1"], "handshake_extensions_server_name": ["Pool.example."]},
        ),
    ]
    http, hello = opinion._found(SimpleNamespace(layers=layers, sniff_timestamp="1.5"))
    assert http.fields["host"] == [name]
    assert hello.fields["server_name"] == ["pool.example"]
