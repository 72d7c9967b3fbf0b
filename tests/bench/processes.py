"""A command in, what it cost out: CPU time and peak memory of a child process, from the kernel's account."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POOLWATCH = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "poolwatch"


@dataclass(frozen=True)
class Ran:
    """``cpu_s`` is user and system time of the child and its own children that it waited for."""

    status: int
    cpu_s: float
    wall_s: float
    peak_bytes: int
    out: bytes
    error: str


def run(command: Sequence[str | Path]) -> Ran:
    """Run to the end.  Output goes to files, so that reading it costs the child nothing."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        began = time.perf_counter()
        child = subprocess.Popen([str(part) for part in command], stdout=out, stderr=error)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        error.seek(0)
        return Ran(
            child.returncode, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024, out.read(),
            error.read().decode(errors="replace"),
        )  # fmt: skip


def machine() -> str:
    """The processor's name and the number of cores, for the table's head."""
    name = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} cores, Linux {os.uname().release}"
