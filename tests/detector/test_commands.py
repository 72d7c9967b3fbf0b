"""What the commands say to whoever gave them something odd: a line, and never a traceback."""

import argparse
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from detector import app, links
from detector.arguments import parser
from detector.cli import main
from detector.config import Config
from detector.errors import ConfigError
from detector.exporters import report
from detector.exporters.jsonl import JsonLines
from detector.hashrate import HashRate
from detector.metrics import Deliveries

ROOT = Path(__file__).parents[2]
MINER = ROOT / "pcaps" / "xmrig-plain.pcap"
POOLWATCH = (
    f"{sys.executable} -c 'import sys; from detector.cli import main; raise SystemExit(main(sys.argv[1:]))'"
)


def shell(line, **environment):
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False, env=os.environ | environment,
    )  # fmt: skip


def commands(of, path=()):
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                yield (*path, name), one
                yield from commands(one, (*path, name))


@pytest.mark.parametrize(("path", "one"), [pytest.param(p, o, id=" ".join(p)) for p, o in commands(parser())])
def test_every_command_and_every_option_says_what_it_is_for(path, one):
    assert one.description, path
    silent = [a.dest for a in one._actions if not a.help and not isinstance(a, argparse._SubParsersAction)]
    assert not silent


def test_outputs_that_are_closed_or_full_are_no_crash():
    for line in (
        f"{POOLWATCH} --version >&-",
        f"{POOLWATCH} --version 2>&-",
        f"{POOLWATCH} --version >&- 2>&-",
        f"{POOLWATCH} pools list | head -1",
    ):
        done = shell(line)
        assert (done.returncode, done.stderr) == (0, ""), line
    full = shell(f"{POOLWATCH} --version > /dev/full")
    assert full.returncode == 1
    assert full.stderr == "poolwatch: cannot write: [Errno 28] No space left on device\n"


def test_a_table_is_printed_also_where_the_encoding_knows_less_and_who_reads_it_has_enough():
    done = shell(f"{POOLWATCH} scan {MINER} | head -2", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 file, 34 packets")
    whole = shell(f"{POOLWATCH} scan {MINER}", PYTHONIOENCODING="ascii")
    assert "46uvKTaBJDcTestWall?" in whole.stdout


def test_a_named_pipe_that_nobody_writes_to_is_waited_for_until_a_signal(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    process = subprocess.Popen(
        ["bash", "-c", f"exec {POOLWATCH} scan {tmp_path / 'pipe'}"], cwd=ROOT, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert b"no mining found" not in out


def test_what_is_written_into_a_named_pipe_is_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    detector = app.Detector(Config(), CollectorRegistry())
    replay = app.Replay(detector, str(path))
    writer = subprocess.Popen(["bash", "-c", f"sleep 0.3; cat {MINER} > {path}"])
    told = replay.run(lambda: False, lambda _: None)
    assert writer.wait(30) == 0
    assert (told.packets, len(replay.found())) == (34, 1)


def snapped(data, most):
    """A capture in little-endian pcap whose frames were cut at ``most`` octets."""
    out, at = data[:24], 24
    while at < len(data):
        captured = struct.unpack_from("<I", data, at + 8)[0]
        kept = min(captured, most)
        out += data[at : at + 8] + struct.pack("<I", kept) + data[at + 12 : at + 16]
        out += data[at + 16 : at + 16 + kept]
        at += 16 + captured
    return out


def test_packets_that_a_snap_length_cut_are_told(tmp_path):
    path = tmp_path / "cut.pcap"
    path.write_bytes(snapped(MINER.read_bytes(), 64))
    told = app.Replay(app.Detector(Config(), CollectorRegistry()), str(path)).run(
        lambda: False, lambda _: None
    )
    assert (told.packets, told.cut) == (34, 34)
    whole = app.Replay(app.Detector(Config(), CollectorRegistry()), str(MINER)).run(
        lambda: False, lambda _: None
    )
    assert whole.cut == 0


def test_that_nothing_was_found_is_only_said_of_what_was_read(tmp_path):
    assert app.captures([str(tmp_path)]) == [str(tmp_path)]  # whoever opens it is told that it is empty
    good, bad = (
        report.FileReport(path="x", packets=1, flows=0, bytes=1, refused={}, error=error)
        for error in (None, "x: no capture file")
    )
    assert report.nothing([good]) == "no mining found"
    assert report.nothing([bad]) == report.nothing([]) == "nothing was read"
    assert report.nothing([good, bad]) == "no mining found; 1 of 2 files could not be read"


def test_power_that_is_not_counted_is_said_to_be_missing():
    rates = tuple(
        HashRate(algorithm=name, value=1000.0, low=900.0, high=1100.0, shares=100)
        for name in ("argon2/chukwav2", "rx/0")
    )
    total = report.Summary(
        confirmed=1, suspected=0, resolved=0, bytes=report.Bytes(0, 0), mbps=0.0, hashrate=rates,
        power_watts=None, kwh_per_day=None,
    )  # fmt: skip
    assert report.summary_lines(total)[-1] == (
        "  power of argon2/chukwav2 is not counted: no device is in the table"
    )


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_time_that_cannot_be_is_refused(seconds, capsys):
    assert main(["collect", "flows", "--seconds", seconds]) == 2
    assert "--seconds must be more than 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["packets", "x.pcap", "--interface", "eth0", "--filter", "tcp"], "--interface, --filter: "),
        (["packets", "--follow", "x", "--seconds", "5"], "--seconds: "),
        (["flows", "x.pcap", "--ports", "2055"], "--ports: "),
    ],
)
def test_what_files_do_not_heed_is_refused_beside_them(arguments, names, capsys):
    assert main(["collect", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"poolwatch: {names}of what is live")


def test_ports_count_once_and_none_at_all_is_refused():
    options = parser().parse_args(["collect", "flows", "--ports", "2055,2055,4739"])
    assert links.inputs(Config(), options).ports == (2055, 4739)
    netflow = Config().collectors.netflow.__class__(ports=())
    config = Config(collectors=Config().collectors.__class__(netflow=netflow))
    with pytest.raises(ConfigError, match="nowhere to receive"):
        links.inputs(config, parser().parse_args(["collect", "flows"]))


def test_a_full_disk_is_counted_and_does_not_end_the_work(tmp_path):
    for name in ("alerts", "incidents"):
        (tmp_path / f"{name}.jsonl").symlink_to("/dev/full")
    registry = CollectorRegistry()
    with JsonLines(tmp_path, Deliveries(registry)) as lines:
        lines.alert(report.Bytes(1, 2))
    labels = {"sink": "jsonl", "result": "failed"}
    assert sum(
        s.value
        for family in registry.collect()
        for s in family.samples
        if set(labels.values()) <= set(s.labels.values()) and s.name.endswith("_total")
    ) == 1  # fmt: skip


def test_while_kernels_compile_a_signal_ends_the_process_at_once():
    def handler(*_):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with app._signals_end():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_narrow_terminal_is_shown_fewer_columns_and_told_which():
    detector = app.Detector(Config(), CollectorRegistry())
    replay = app.Replay(detector, str(MINER))
    replay.run(lambda: False, lambda _: None)
    found = replay.found()
    whole = [column.header for column in report.table(found, width=200).columns]
    assert whole == [name for name, _ in report.COLUMNS]
    assert whole == [column.header for column in report.table(found).columns]
    narrow = report.table(found, width=90)
    assert [column.header for column in narrow.columns] == [
        "subscriber", "state", "algorithm", "hash rate (95 %)", "shares", "service",
    ]  # fmt: skip
    assert str(narrow.caption) == "not shown, the terminal is narrow: worker, belief, bytes, dialect"
    assert len(report.table([], width=10).columns) == 3
