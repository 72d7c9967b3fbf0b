"""pcaps/ is what its manifest says, and the recordings differ from it in addresses and checksums only."""

import hashlib
import json
import shutil
import struct
import subprocess
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import rewrite_captures

ROOT = Path(__file__).parents[2]
PCAPS = ROOT / "pcaps"
RECORDINGS = ROOT.parent / "shared" / "captures" / "packets"
MANIFEST = tomllib.loads((PCAPS / "manifest.toml").read_text())["capture"]
each_capture = pytest.mark.parametrize("row", MANIFEST, ids=lambda row: row["file"])


def segments(path):
    """(time stamp, source, destination, ports, rest of TCP without checksum) of each packet."""
    for header, frame in rewrite_captures.frames(path.read_bytes()):
        size = struct.unpack_from(">H", frame, 16)[0]
        tcp = 14 + 4 * (frame[14] & 15)
        rest = frame[tcp + 4 : tcp + 16] + frame[tcp + 18 : 14 + size]
        addresses = ip_address(frame[26:30]), ip_address(frame[30:34])
        yield header[:8], addresses, frame[tcp : tcp + 4], rest, frame[14 + size :]


def lines(path):
    """(from the client, JSON object) of each line, for a capture of one connection without loss."""
    opened = None
    for _, _, ports, rest, _ in segments(path):
        opened = opened or ports
        for line in rest[(rest[8] >> 4) * 4 - 6 :].split(b"\n"):
            if line.startswith(b"{"):
                yield ports == opened, json.loads(line)


def test_every_file_is_listed_and_every_row_has_its_file():
    assert sorted(row["file"] for row in MANIFEST) == sorted(p.name for p in PCAPS.glob("*.pcap*"))
    assert {p.name for p in PCAPS.iterdir() if ".pcap" not in p.name} == {"README.md", "manifest.toml"}


@each_capture
def test_file_has_the_sum_that_the_manifest_says(row):
    assert hashlib.sha256((PCAPS / row["file"]).read_bytes()).hexdigest() == row["sha256"]


@each_capture
def test_row_says_where_it_is_from_and_what_is_expected(row):
    assert row["licence"]
    assert row["shows"]
    assert row["expected"] in {"confirmed", "suspected", "none"}
    assert row["expected"] == "none" or row["truth"]["dialect"]
    assert "later" not in row or row["later"].keys() == {"expected", "waits"}


def test_every_subscriber_is_its_own():
    subscribers = [row["subscriber"] for row in MANIFEST]
    assert len(set(subscribers)) == len(subscribers)
    assert all(ip_address(a) in ip_network("198.51.100.0/24") for a in subscribers)
    assert all(ip_address(row["server"]) in ip_network("203.0.113.0/24") for row in MANIFEST)


@each_capture
def test_packets_run_between_the_subscriber_and_the_server_and_the_subscriber_opens(row):
    ours, theirs = ip_address(row["subscriber"]), ip_address(row["server"])
    got = list(segments(PCAPS / row["file"]))
    assert {addresses for _, addresses, *_ in got} == {(ours, theirs), (theirs, ours)}
    assert got[0][1] == (ours, theirs)


@each_capture
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not beside this checkout")
def test_only_addresses_and_checksums_differ_from_the_recording(row):
    new, old = list(segments(PCAPS / row["file"])), list(segments(RECORDINGS / row["origin"]))
    assert [(s[0], *s[2:]) for s in new] == [(s[0], *s[2:]) for s in old]
    written = rewrite_captures.rewrite(
        (RECORDINGS / row["origin"]).read_bytes(), ip_address(row["subscriber"]), ip_address(row["server"])
    )
    assert written == (PCAPS / row["file"]).read_bytes()


@pytest.mark.tools
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@each_capture
def test_checksums_are_right(row):
    told = subprocess.run(
        ["tshark", "-r", PCAPS / row["file"], "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
         "-T", "fields", "-e", "ip.checksum.status", "-e", "tcp.checksum.status"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert set(told.stdout.split("\n")) == {"1\t1", ""}  # 1 is good; the last line is empty


def test_shares_of_the_real_pool_are_as_counted_from_the_capture():
    row = next(r for r in MANIFEST if r["file"] == "cpuminer-realpool-sha256d-vardiff.pcap")
    in_force, jobs, pending, accepted, rejected = 0.0, {}, [], [], 0
    for from_client, message in lines(PCAPS / row["file"]):
        params = message.get("params")
        if message.get("method") == "mining.set_difficulty":
            in_force = params[0]
        elif message.get("method") == "mining.notify":
            jobs[params[0]] = in_force
        elif message.get("method") == "mining.submit":
            pending.append(jobs[params[1]])
        elif not from_client and message["id"] == 4:
            share = pending.pop(0)
            if message["result"] is True:
                accepted.append(share)
            else:
                rejected += 1
    truth = row["truth"]
    assert (len(accepted), rejected) == (truth["accepted_shares"], truth["rejected_shares"])
    assert sum(accepted) == pytest.approx(truth["sum_of_share_difficulty"])


@each_capture
def test_a_share_is_accepted_as_often_as_the_truth_says(row):
    if "accepted_shares" not in row.get("truth", {}) or row["expected"] != "confirmed":
        pytest.skip("no truth, or not in plain text")
    submits, accepted = [], 0
    for from_client, message in lines(PCAPS / row["file"]):
        if from_client:
            # A share of getwork is a getwork that brings something.
            brings = "submit" in message["method"] or (message["method"] == "getwork" and message["params"])
            submits.append(message["id"]) if brings else None
        elif message.get("id") in submits and not message.get("error") and message["result"]:
            submits.remove(message["id"])
            accepted += 1
    assert accepted == row["truth"]["accepted_shares"]
