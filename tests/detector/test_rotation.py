"""A rotating folder that is followed, and captures from a pipe: one run, as they are written."""

import argparse
import gzip
import io
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from cutting import WHOLE, parts, records
from prometheus_client import CollectorRegistry

from detector import app, collect
from detector.config import Config
from detector.errors import ConfigError, InputError
from detector.rotation import Growing, Rotation, mark_of

PATIENCE_S = 20


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr("detector.rotation.LOOK_S", 0.01)


def changed(path, second):
    os.utime(path, ns=(0, 10**18 + second * 10**9))


def until(holds):
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.01)


class Following:
    """A rotation that is read by a thread: what came of each file, in order."""

    def __init__(self, folder, state=""):
        self.stopping = threading.Event()
        self.idled = 0
        self.got = []
        rotation = Rotation(str(folder), str(state), self.stopping.is_set, self.idle)
        self.thread = threading.Thread(target=self.run, args=(rotation,))

    def idle(self):
        self.idled += 1

    def run(self, rotation):
        for path, growing, _ in rotation.files():
            self.got.append([Path(path).name, b""])
            while piece := growing.read(100):
                self.got[-1][1] += piece

    @property
    def names(self):
        return [name for name, _ in self.got]

    def has(self, *wanted):
        until(lambda: [tuple(one) for one in self.got] == list(wanted))

    def rests(self):
        """Until it has nothing to do."""
        before = self.idled
        until(lambda: self.idled > before + 3)


@contextmanager
def following(folder, state=""):
    one = Following(folder, state)
    one.thread.start()
    try:
        yield one
    finally:
        one.stopping.set()
        one.thread.join(PATIENCE_S)
    assert not one.thread.is_alive()


def test_files_come_in_the_order_of_their_last_change_and_the_newest_as_it_grows(tmp_path):
    for second, name in enumerate(("b.pcap", "a.pcap", "c.pcap1")):
        (tmp_path / name).write_bytes(name.encode())
        changed(tmp_path / name, second)
    (tmp_path / "notes.txt").write_bytes(b"no")
    with following(tmp_path) as one:
        one.has(("b.pcap", b"b.pcap"), ("a.pcap", b"a.pcap"), ("c.pcap1", b"c.pcap1"))
        with (tmp_path / "c.pcap1").open("ab") as file:
            file.write(b" more")
        until(lambda: one.got[-1][1] == b"c.pcap1 more")
        one.rests()
        (tmp_path / "d.pcap").write_bytes(b"next")
        until(lambda: one.got[-1] == ["d.pcap", b"next"])
    assert one.names == ["b.pcap", "a.pcap", "c.pcap1", "d.pcap"]


def test_names_of_one_time_come_by_their_numbers(tmp_path):
    for number in ("", 1, 2, 10):
        (tmp_path / f"x.pcap{number}").write_bytes(b"-")
        changed(tmp_path / f"x.pcap{number}", 7)
    with following(tmp_path) as one:
        until(lambda: len(one.got) == 4)
    assert one.names == ["x.pcap", "x.pcap1", "x.pcap2", "x.pcap10"]


def test_what_is_deleted_compressed_or_renamed_does_no_harm(tmp_path):
    for second, name in enumerate(("a.pcap", "b.pcap", "c.pcap")):
        (tmp_path / name).write_bytes(name.encode())
        changed(tmp_path / name, second)
    with following(tmp_path) as one:
        until(lambda: len(one.got) == 3)
        (tmp_path / "a.pcap").unlink()
        (tmp_path / "b.pcap.gz").write_bytes(gzip.compress(b"b.pcap"))
        (tmp_path / "b.pcap").unlink()
        # Read and held open: what is renamed grows on, what is deleted has ended.
        (tmp_path / "c.pcap").rename(tmp_path / "old.pcap")
        with (tmp_path / "old.pcap").open("ab") as file:
            file.write(b"+")
        until(lambda: one.got[-1] == ["c.pcap", b"c.pcap+"])
        (tmp_path / "old.pcap").unlink()
        one.rests()
        (tmp_path / "d.pcap").write_bytes(b"d")
        until(lambda: one.got[-1] == ["d.pcap", b"d"])
        one.rests()
    assert one.names == ["a.pcap", "b.pcap", "c.pcap", "d.pcap"]


def test_a_name_that_is_written_anew_is_another_file(tmp_path):
    """tcpdump -W goes round."""
    for second, name in enumerate(("x0.pcap", "x1.pcap")):
        (tmp_path / name).write_bytes(b"long and old")
        changed(tmp_path / name, second)
    with following(tmp_path) as one:
        until(lambda: len(one.got) == 2 and one.got[1][1])
        one.rests()
        (tmp_path / "x0.pcap").write_bytes(b"new")
        one.has(("x0.pcap", b"long and old"), ("x1.pcap", b"long and old"), ("x0.pcap", b"new"))
        (tmp_path / "x0.pcap").write_bytes(b"")  # under our hands
        one.rests()
        (tmp_path / "x0.pcap").write_bytes(b"newer still")
        until(lambda: one.got[-1] == ["x0.pcap", b"newer still"])


def test_what_was_read_is_remembered_over_a_restart_and_what_was_not_is_read_again(tmp_path):
    state = tmp_path / "state.json"
    folder = tmp_path / "tap"
    folder.mkdir()
    for second, name in enumerate(("a.pcap", "b.pcap", "c.pcap")):
        (folder / name).write_bytes(b"-")
        changed(folder / name, second)
    with following(folder, state) as one:
        until(lambda: one.names == ["a.pcap", "b.pcap", "c.pcap"])
    assert json.loads(state.read_bytes())["names"] == ["b.pcap"]
    with following(folder, state) as one:
        until(lambda: one.names == ["c.pcap"])
    assert mark_of(str(tmp_path / "none")).changed_ns == 0
    state.write_text("{")
    with pytest.raises(ConfigError, match="state"):
        Rotation(str(folder), str(state), lambda: True, lambda: None)


def test_what_is_no_folder_is_refused_and_one_that_goes_away_may_come_back(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        Rotation(str(tmp_path / "none"), "", lambda: True, lambda: None)
    folder = tmp_path / "tap"
    folder.mkdir()
    with following(folder) as one:
        one.rests()
        folder.rmdir()
        one.rests()
        folder.mkdir()
        (folder / "a.pcap").write_bytes(b"a")
        one.has(("a.pcap", b"a"))


def test_a_growing_file_is_read_to_its_last_octet(tmp_path):
    """What is written between the last look and the end of it is not lost."""
    path = tmp_path / "x.pcap"
    path.write_bytes(b"one")
    with path.open("rb", buffering=0) as file, path.open("ab", buffering=0) as writer:

        def over():
            writer.write(b" two")
            return True

        growing = Growing(file, over, lambda: pytest.fail("nothing to wait for"))
        assert growing.read(100) == b"one"
        assert growing.read(100) == b" two"
        assert growing.read(100) == b""


def judged(path, stop=lambda *_: False, **options):
    detector = app.Detector(Config(), CollectorRegistry())
    replay = app.Replay(detector, str(path), kind="packets", **options)
    report = replay.run(lambda: stop(detector, replay), lambda _: None)
    return report, [msgspec.to_builtins(f.incident) for f in replay.found()], replay.errors


def facts(told):
    return [
        (d["subscriber"], d["state"], d["shares"], d["bytes"], d["first_seen"], d["last_seen"]) for d in told
    ]


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_session_over_files_that_are_being_written_is_one_session(tmp_path, form):
    whole, wanted, _ = judged(WHOLE)
    written = [parts(3), [as_pcapng(one) for one in parts(3)]][form == "pcapng"]

    def write():
        for n, part in enumerate(written):
            with (tmp_path / f"tap-{n}.{form}").open("wb", buffering=0) as file:
                for at in range(0, len(part), 20_000):
                    file.write(part[at : at + 20_000])
                    time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    report, told, errors = judged(
        tmp_path, lambda _, replay: replay._reading.tally.frames == whole.packets, follow=""
    )
    writer.join()
    assert not errors
    assert (report.packets, report.bytes, report.flows) == (whole.packets, whole.bytes, whole.flows)
    assert facts(told) == facts(wanted)
    assert told[0]["state"] == "confirmed"


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_file_that_was_read_half_is_not_counted_again_after_a_restart(tmp_path, form):
    first, second = parts(2)
    frames = len(records(first)), len(records(second))
    state, folder = tmp_path / "state.json", tmp_path / "tap"
    folder.mkdir()
    file = folder / f"tap.{form}"

    def write(raw):
        file.write_bytes(as_pcapng(raw) if form == "pcapng" else raw)

    def read(want):
        return judged(folder, lambda _, replay: replay._reading.tally.frames >= want, follow=str(state))[0]

    write(first)
    before = read(frames[0])
    assert mark_of(str(state)).half.frames == frames[0]
    write(first + second[24:])
    after = read(frames[1])
    assert (before.packets, after.packets) == frames
    assert mark_of(str(state)).half.frames == sum(frames)
    # Another capture under the same name, as tcpdump -W writes it, is read from its beginning.
    write(second)
    assert read(frames[1]).packets == frames[1]


def as_pcapng(raw):
    """The same capture as dumpcap writes it."""
    out = block(0x0A0D0D0A, b"\x4d\x3c\x2b\x1a\1\0\0\0" + b"\xff" * 8)
    link = raw[20:22]
    out += block(1, link + b"\0\0" + bytes(4))
    for record in records(raw):
        second, fraction, kept, wire = (int.from_bytes(record[i : i + 4], "little") for i in (0, 4, 8, 12))
        assert raw[:4] == b"\xd4\xc3\xb2\xa1"
        t = second * 10**6 + fraction
        head = b"".join(n.to_bytes(4, "little") for n in (0, t >> 32, t & 0xFFFFFFFF, kept, wire))
        out += block(6, head + record[16:] + bytes(-kept % 4))
    return out


def block(kind, body):
    size = (12 + len(body)).to_bytes(4, "little")
    return kind.to_bytes(4, "little") + size + body + size


def test_a_file_that_is_no_capture_is_passed_over_once_there_is_a_newer_one(tmp_path, caplog):
    whole, wanted, _ = judged(WHOLE)
    for second, part in enumerate((b"no capture at all, but long enough", *parts(2))):
        (tmp_path / f"tap-{second}.pcap").write_bytes(part)
        changed(tmp_path / f"tap-{second}.pcap", second)
    with caplog.at_level("WARNING", "poolwatch"):
        _, told, _ = judged(
            tmp_path, lambda _, replay: replay._reading.tally.frames == whole.packets, follow=""
        )
    assert facts(told) == facts(wanted)
    assert [r.getMessage() for r in caplog.records if "tap-0" in r.getMessage()]


@pytest.fixture
def piped(monkeypatch):
    """A writer whose pipe is our standard input."""
    ends, into = os.pipe()

    class Standard(io.StringIO):
        def fileno(self):
            return ends

    monkeypatch.setattr(sys, "__stdin__", Standard())
    with os.fdopen(into, "wb", buffering=0) as writer:
        yield writer
    os.close(ends)


def sending(writer, pieces, pause_s=0.0):
    def send():
        for piece in pieces:
            writer.write(piece)
            time.sleep(pause_s)
        writer.close()

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("buffered", [True, False], ids=["in blocks", "packet by packet"])
def test_standard_input_is_read_as_the_file_is(piped, buffered):
    raw = WHOLE.read_bytes()
    pieces = (
        [raw[at : at + 4096] for at in range(0, len(raw), 4096)] if buffered else [raw[:24], *records(raw)]
    )
    thread = sending(piped, pieces)
    report, told, errors = judged("-")
    thread.join()
    whole, wanted, _ = judged(WHOLE)
    assert errors == []
    assert (report.packets, report.flows) == (whole.packets, whole.flows)
    assert facts(told) == facts(wanted)


def test_what_waits_is_judged_though_standard_input_is_silent(piped):
    raw = WHOLE.read_bytes()
    piped.write(raw)

    def found(detector, replay):
        return any(i.incident.state == "confirmed" for i in replay.found())

    ends = time.monotonic() + PATIENCE_S
    _, told, errors = judged("-", lambda *at: time.monotonic() > ends or found(*at))
    assert told[0]["state"] == "confirmed"
    assert errors == []
    assert not piped.closed


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda raw: raw[:-7], "within a record"),
        (lambda raw: raw[:-7] + b"\xff" * 400, "length that cannot be"),
        (lambda raw: as_pcapng(raw)[:-7], "within a record"),
    ],
    ids=["cut", "broken", "cut pcapng"],
)
def test_a_stream_that_is_cut_or_broken_is_told_and_the_rest_is_judged(piped, spoil, why):
    thread = sending(piped, [spoil(WHOLE.read_bytes())])
    _, told, errors = judged("-")
    thread.join()
    assert told[0]["state"] == "confirmed"
    assert len(errors) == 1
    assert why in errors[0]
    assert errors[0].startswith("-: ")


@pytest.mark.parametrize("raw", [b"", b"tcpdump: no such device\n", b"\xd4\xc3\xb2\xa1\2\0"])
def test_what_is_no_capture_at_all_is_refused(piped, raw):
    thread = sending(piped, [raw])
    with pytest.raises(InputError, match=r"^-: "):
        judged("-")
    thread.join()


def asked(config=None, **given):
    options = argparse.Namespace(
        **{"kind": "packets", "follow": None, "replay": [], "interface": None, **given}
    )
    capture = msgspec.convert({"collectors": {"capture": config or {}}}, Config)
    return collect._following(capture, options), options.replay


def test_a_folder_is_followed_alone_and_where_nothing_else_was_named():
    kept = {"follow": "tap", "follow_state": "state.json"}
    assert asked(follow="here") == ("", ["here"])
    assert asked(kept) == ("state.json", ["tap"])
    assert asked(kept, follow="here") == ("state.json", ["here"])
    assert asked(kept, replay=["x.pcap"]) == (None, ["x.pcap"])
    assert asked(kept, interface=["lo"]) == (None, [])
    assert asked(kept, kind="flows", follow="") == (None, [])
    for other in ({"replay": ["x.pcap"]}, {"interface": ["lo"]}):
        with pytest.raises(ConfigError, match="--follow reads one folder"):
            asked(follow="here", **other)
