"""A worker that was started again knows nothing of the connections that go on: miners are found again."""

from pathlib import Path

import msgspec
import pytest
from cutting import records
from prometheus_client import CollectorRegistry

from detector import app
from detector.config import Config

PCAPS = Path(__file__).parents[2] / "pcaps"
SHARES = {
    "xmrig-plain": b'"method":"submit"',
    "cpuminer-sha256d": b'"mining.submit"',
    "xmrig-argon2": b'"method":"submit"',
}


def judged(tmp_path, head, frames):
    path = tmp_path / "rest.pcap"
    path.write_bytes(head + b"".join(frames))
    replay = app.Replay(app.Detector(Config(), CollectorRegistry()), str(path), kind="packets")
    replay.run(lambda: False, lambda _: None)
    return [msgspec.to_builtins(found.incident) for found in replay.found()]


@pytest.mark.parametrize("name", SHARES)
def test_a_miner_is_found_again_by_its_next_share(tmp_path, name):
    """All that was seen of it before is lost, and the detector's state too."""
    raw = (PCAPS / f"{name}.pcap").read_bytes()
    frames = records(raw)
    shares = [n for n, frame in enumerate(frames) if SHARES[name] in frame]
    again, following = shares[len(shares) // 2 - 1] + 1, shares[len(shares) // 2]
    answered = shares[len(shares) // 2 + 1]
    before = judged(tmp_path, raw[:24], frames[again:following])
    assert not any(one["shares"]["accepted"] for one in before)
    (found,) = judged(tmp_path, raw[:24], frames[again:answered])
    (whole,) = judged(tmp_path, raw[:24], frames)
    assert (found["subscriber"], found["state"]) == (whole["subscriber"], "confirmed")
    assert found["shares"]["accepted"] == 1
