"""A folder of rotated captures is one run: where files are cut changes nothing."""

import shutil
from pathlib import Path

import msgspec
import pytest
from cutting import WHOLE, parts
from prometheus_client import CollectorRegistry

from detector import app
from detector.config import Config
from detector.errors import InputError


def rotated(folder, files):
    """The capture in so many files, named in order."""
    for n, part in enumerate(parts(files)):
        (folder / f"tap-{n:03}.pcap").write_bytes(part)


def judged(path, held=None):
    detector = app.Detector(Config(), CollectorRegistry())
    replay = app.Replay(detector, str(path), kind="packets", held=held)
    report = replay.run(lambda: False, lambda _: None)
    return report, [msgspec.to_builtins(f.incident) for f in replay.found()], replay.errors


@pytest.mark.parametrize("files", [1, 2, 7])
def test_a_session_cut_by_the_ends_of_files_is_one_session(tmp_path, files):
    rotated(tmp_path, files)
    report, told, errors = judged(tmp_path)
    wanted_report, wanted, _ = judged(WHOLE)
    assert not errors
    assert (report.packets, report.bytes, report.flows) == (
        wanted_report.packets, wanted_report.bytes, wanted_report.flows,
    )  # fmt: skip
    assert told == wanted
    assert told[0]["state"] == "confirmed"


def test_a_file_that_is_no_capture_is_told_and_the_others_are_read(tmp_path):
    rotated(tmp_path, 3)
    (tmp_path / "tap-001b.pcap").write_bytes(b"no capture at all, but long enough")
    _, told, errors = judged(tmp_path)
    assert told == judged(WHOLE)[1]
    assert len(errors) == 1
    assert "tap-001b" in errors[0]


def test_a_folder_without_captures_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no captures"):
        judged(tmp_path)


def test_a_folder_that_is_out_of_reach_by_then_is_read_all_the_same(tmp_path):
    folder = tmp_path / "tap"
    folder.mkdir()
    rotated(folder, 3)
    held = app.Held([str(folder)])
    shutil.rmtree(folder)
    assert judged(folder, held)[1] == judged(WHOLE)[1]


def test_where_we_may_not_look_is_left_to_who_opens_it(tmp_path, monkeypatch):
    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    assert app.captures([str(tmp_path)]) == [str(tmp_path)]
