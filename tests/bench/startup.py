"""How long the command takes before it works: ``--help``, ``--version``, a scan of a small capture.

    .venv/bin/python tests/bench/startup.py [--runs 7]

Wall time of whole processes, median and worst, kernels compiled beforehand.  ``--cold`` also times the first
scan of all, with an empty cache of kernels.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import processes  # noqa: E402

SMALL = HERE.parents[1] / "pcaps" / "xmrig-plain.pcap"
# What the house promises (architecture, section 9; issue 7): seconds.
PROMISED = {"poolwatch --help": 0.3, "poolwatch scan small.pcap": 2.0}


def timed(name: str, command: Sequence[str | Path], runs: int) -> None:
    """Run it so many times and print a line."""
    done = [processes.run(command) for _ in range(runs)]
    bad = [ran for ran in done if ran.status]
    if bad:
        sys.exit(f"{name}: exit status {bad[0].status}\n{bad[0].error[-2000:]}")
    walls = [ran.wall_s for ran in done]
    cpu = statistics.median(ran.cpu_s for ran in done)
    peak = max(ran.peak_bytes for ran in done) / 1e6
    promised = f"promised {PROMISED[name]:.1f}" if name in PROMISED else ""
    print(f"{name:30}{statistics.median(walls):9.3f}{max(walls):9.3f}{cpu:9.3f}{peak:9.0f}  {promised}")


def main() -> None:
    """Time the three commands."""
    parser = argparse.ArgumentParser(description="start-up times")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--cold", action="store_true", help="also a scan that must compile its kernels")
    options = parser.parse_args()
    poolwatch = processes.POOLWATCH
    print(processes.machine())
    print(f"{'':30}{'median s':>9}{'worst s':>9}{'CPU s':>9}{'peak MB':>9}")
    processes.run([poolwatch, "scan", SMALL])
    timed("poolwatch --help", [poolwatch, "--help"], options.runs)
    timed("poolwatch --version", [poolwatch, "--version"], options.runs)
    timed("poolwatch scan small.pcap", [poolwatch, "scan", SMALL], options.runs)
    if options.cold:
        with tempfile.TemporaryDirectory() as cache:
            command = ["env", f"POOLWATCH_CACHE_DIR={cache}", poolwatch, "scan", SMALL]
            timed("the same, nothing compiled", command, 1)


if __name__ == "__main__":
    main()
