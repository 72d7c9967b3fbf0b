"""Every folder of ``tests/cases/``: a capture, and what must be told of it.  Adding one needs no Python.

``case.toml``: ``capture`` (default capture.pcap, relative to the folder), ``config``, and an ``[[incident]]``
for each incident that must be there, no more and no fewer.  Fields are matched partly: an object by the keys
that are given, a list by its length and each item partly.
"""

import tomllib
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from detector import app
from detector.config import Config

CASES = sorted(p.parent for p in Path(__file__).parent.glob("cases/*/case.toml"))


def matches(wanted, got):
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(k in got and matches(v, got[k]) for k, v in wanted.items())
    if isinstance(wanted, list):
        return len(wanted) == len(got) and all(matches(w, g) for w, g in zip(wanted, got, strict=True))
    return wanted == got


@pytest.mark.parametrize("folder", CASES, ids=lambda p: p.name)
def test_case(folder):
    case = tomllib.loads((folder / "case.toml").read_text())
    assert set(case) <= {"capture", "config", "incident"}
    assert (folder / "README.md").is_file()
    detector = app.Detector(msgspec.convert(case.get("config", {}), Config), CollectorRegistry())
    replay = app.Replay(detector, str(folder / case.get("capture", "capture.pcap")))
    assert replay.run(lambda: False, lambda _: None).packets
    told = [msgspec.to_builtins(f.incident) for f in replay.found()]
    wanted = case.get("incident", [])
    assert sorted(d["subscriber"] for d in told) == sorted(w["subscriber"] for w in wanted)
    for w in wanted:
        (d,) = [d for d in told if d["subscriber"] == w["subscriber"]]
        assert matches(w, d), {k: d.get(k) for k in w}


def test_there_is_a_quiet_case_for_every_two_loud_ones():
    quiet = sum("[[incident]]" not in (c / "case.toml").read_text() for c in CASES)
    assert 2 * quiet >= len(CASES) - quiet
