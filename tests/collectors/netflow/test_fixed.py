"""NetFlow v1 and v7: layouts without templates, beside tshark's reading of the same octets."""

import shutil
import struct
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import DecodeError
from collectors.netflow import records, v1, v5, v7
from collectors.netflow.messages import Message

SECONDS, UPTIME = 1_700_000_000, 3_600_000
FLOWS = (
    ("10.0.0.1", "192.0.2.9", "192.0.2.254", 3, 4, 10, 1000, 5000, 1000, 40000, 3333, 0x18, 6, 0x20),
    ("10.0.0.2", "192.0.2.8", "0.0.0.0", 65535, 0, 2**32 - 1, 2**32 - 2, 0, 0, 0, 65535, 0xFF, 17, 0xFF),
)
# What tshark calls them, in the order of FLOWS.
FIELDS = (
    "cflow.srcaddr", "cflow.dstaddr", "cflow.nexthop", "cflow.inputint", "cflow.outputint", "cflow.packets",
    "cflow.octets", "cflow.srcport", "cflow.dstport", "cflow.tcpflags", "cflow.protocol", "cflow.tos",
)  # fmt: skip


def old(version, flows=FLOWS, sequence=0, seconds=SECONDS, uptime=UPTIME, count=None):
    """A datagram of v1 or v7."""
    head = struct.pack(
        ">HHIII", version, len(flows) if count is None else count, uptime, seconds, 500_000_000
    )
    made = head if version == 1 else head + struct.pack(">II", sequence, 0)
    for src, dst, hop, i, o, packets, octets, first, last, sport, dport, flags, protocol, tos in flows:
        made += b"".join(ip_address(a).packed for a in (src, dst, hop))
        made += struct.pack(">HHIIII", i, o, packets, octets, uptime - first, uptime - last)
        made += struct.pack(">HH", sport, dport)
        if version == 1:
            made += struct.pack(">HBBB7x", 0, protocol, tos, flags)
        else:
            made += struct.pack(">BBBBHHBBH", 1, flags, protocol, tos, 65001, 65002, 24, 25, 0)
            made += ip_address("192.0.2.77").packed
    return made


def pcap(*payloads):
    """A capture of UDP datagrams to port 2055, link type raw IP."""
    made = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for payload in payloads:
        size = 28 + len(payload)
        packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, 1, 0, 64, 17, 0, b"\xc0\0\2\1", b"\xc0\0\2\2")
        packet += struct.pack(">HHHH", 2055, 2055, 8 + len(payload), 0) + payload
        made += struct.pack("<IIII", SECONDS + 1, 0, size, size) + packet
    return made


@pytest.mark.parametrize("version", [1, 7])
def test_records_are_what_tshark_reads(version, make, tmp_path):
    tshark = shutil.which("tshark")
    if not tshark:
        pytest.skip("no tshark here")
    file = Path(tmp_path / "old.pcap")
    file.write_bytes(pcap(old(version)))
    told = subprocess.run(
        [tshark, "-r", str(file), "-d", "udp.port==2055,cflow", "-T", "fields", "-E", "occurrence=a",
         *(x for f in (*FIELDS, "cflow.routersc") for x in ("-e", f))],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout.rstrip("\n").split("\t")  # fmt: skip
    theirs = [[int(x, 0) if "." not in x else x for x in column.split(",")] for column in told if column]
    rows = make.replay([make.gathered(old(version))], partitions=1).rows
    ours = [
        [str(ip_address(row["src"]).ipv4_mapped) for row in rows],
        [str(ip_address(row["dst"]).ipv4_mapped) for row in rows],
        [flow[2] for flow in FLOWS],
        *([row[name] for row in rows] for name in (
            "input_interface", "output_interface", "packets", "bytes", "src_port", "dst_port", "tcp_flags",
            "protocol", "tos",
        )),
    ]  # fmt: skip
    assert theirs[: len(FIELDS)] == ours
    assert theirs[len(FIELDS) :] == ([["192.0.2.77"] * 2] if version == 7 else [])


@pytest.mark.parametrize(("version", "source"), [(1, 3), (7, 7)])
def test_an_old_record_fills_its_columns(version, source, make):
    first, second = make.replay([make.gathered(old(version))], partitions=1).rows
    assert [ip_address(first[n]).ipv4_mapped for n in ("src", "dst")] == [ip_address(a) for a in FLOWS[0][:2]]
    wanted = {
        "input_interface": 3, "output_interface": 4, "packets": 10, "bytes": 1000, "src_port": 40000,
        "dst_port": 3333, "tcp_flags": 0x18, "protocol": 6, "tos": 0x20, "source": source, "domain": 0,
        "t_first": SECONDS * 10**9 + 500_000_000 - 5 * 10**9, "template": 0, "sampling_rate": None,
        "t_last": SECONDS * 10**9 + 500_000_000 - 10**9, "src_as": 65001 if version == 7 else None,
    }  # fmt: skip
    assert {k: first[k] for k in wanted} == wanted
    assert (second["bytes"], second["protocol"], second["tcp_flags"]) == (2**32 - 2, 17, 255)


def test_an_old_record_has_its_elements_by_name(make):
    one, _ = records.records(old(7), records.State(), make.EXPORTER)
    assert one["exportProtocolVersion"] == 7
    assert one["ipv4RouterSc"] == "192.0.2.77"
    assert one["ipNextHopIPv4Address"] == "192.0.2.254"
    one, _ = records.records(old(1), records.State(), make.EXPORTER)
    assert (one["exportProtocolVersion"], one["tcpControlBits"]) == (1, 0x18)
    assert "bgpSourceAsNumber" not in one


@pytest.mark.parametrize("version", [1, 7])
def test_old_datagrams_cut_short_are_refused(version, make):
    whole = old(version)
    got = make.replay([make.gathered(*(whole[:n] for n in (2, 15, len(whole) - 1)))])
    assert not got.rows
    assert got.moved["refused_total", "short"] + got.moved["refused_total", "length"] == 3
    assert len(make.replay([make.gathered(whole + b"more")]).rows) == 2, "what follows the last is ignored"


@pytest.mark.parametrize("decode", [v1.decode, v5.decode, v7.decode], ids=["v1", "v5", "v7"])
@given(data=st.binary(max_size=1600) | st.binary(max_size=1500).map(lambda b: b"\0" + b))
def test_any_bytes_decode_or_are_refused(decode, data):
    try:
        got = decode(data)
    except DecodeError:
        return
    assert isinstance(got, Message)


@given(version=st.sampled_from([1, 5, 7]), body=st.binary(max_size=400), count=st.integers(0, 8))
def test_the_walk_reads_what_the_plain_decoder_reads(make, version, body, count):
    payload = struct.pack(">HH", version, count) + body
    try:
        plain = len(records.records(payload, records.State(), make.EXPORTER))
    except DecodeError:
        plain = 0
    got = make.replay([make.gathered(payload)])
    assert sum(n for k, n in got.moved.items() if k[0] == "records_total") == plain


def test_v7_counts_flows_and_v1_tells_only_of_restarts(make):
    got = make.replay([make.gathered(old(7, sequence=10), old(7, sequence=15), old(7, sequence=17))])
    assert got.moved["lost_total", "netflow7"] == 3
    got = make.replay([make.gathered(old(1), old(1), old(1, uptime=10_000))])
    assert got.moved["restarts_total", "netflow1"] == 1
    assert ("lost_total", "netflow1") not in got.moved
