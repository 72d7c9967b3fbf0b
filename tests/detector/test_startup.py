"""What a command leaves alone until it is needed: importing it is most of what a short run costs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from detector import loading

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from detector.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
print(status, *sorted(sys.modules))
"""
OF_OTHERS = {
    "kafka",
    "scapy",
    "pyshark",
    "dns",
    "scipy.special",
    "scipy.linalg",
    "pyarrow.compute",
    "rich.progress",
    "Crypto",
}


def loaded(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip
    status, *modules = done.stdout.splitlines()[-1].split()
    assert status == "0", done.stderr
    return set(modules)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_word_about_itself_needs_nothing_that_calculates(option):
    heavy = {"numpy", "numba", "pyarrow", "msgspec", "prometheus_client", "rich"}
    assert sorted(loaded(option) & heavy) == []


def test_a_scan_without_a_miner_leaves_alone_what_it_does_not_need():
    assert sorted(loaded("scan", "pcaps/chat.pcap") & OF_OTHERS) == []


def test_who_gives_up_privileges_has_imported_all_before():
    """Where they are given up, what is not imported yet may not be readable any more."""
    of_people = {"pyshark", "rich.console", "rich.progress"}  # of commands that stay who they are
    found = set()
    for path in (ROOT / "detector").rglob("*.py"):
        for left, right in re.findall(
            r"^ +(?:from (\S+) )?import (\S+) .*# noqa: PLC0415", path.read_text(), re.M
        ):
            found |= {name for name in loading.LATE if name in (left or right, f"{left}.{right}")} or {
                left or right
            }
    assert found - of_people == set(loading.LATE)
