"""Detectors that start at once and die at a chosen moment.

    python tests/helpers/zygote.py

Everything is imported once; each line on standard input, a JSON object ``{"environment": {…}, "die_at": N}``,
forks a detector, and a line with its process number and one with its exit status come back.  A detector
counts its events (an arrival judged, a record handed over) and kills itself, SIGKILL, at event ``die_at``;
without it, it runs until SIGTERM, and writes the number of its events to standard error.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

HELPERS = Path(__file__).parent


def count_events(die_at):
    from collectors.kafka.sender import Sender
    from detector.parts import Part

    seen = [0]

    def counted(method):
        def call(*given, **named):
            seen[0] += 1
            if seen[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*given, **named)

        return call

    Sender.send = counted(Sender.send)
    Part.step = counted(Part.step)
    return seen


def child(order):
    from detector.cli import main

    os.environ.update(order["environment"])
    seen = count_events(order.get("die_at"))
    status = main(["detect", "--listen", "127.0.0.1:0"])
    print(f"events {seen[0]}", file=sys.stderr, flush=True)
    return status


def serve():
    import detector.cli
    import detector.member  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            sys.stdin.close()
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


class Zygote:
    """The process, and one detector of it at a time."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("w+")
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, cwd=HELPERS.parent.parent,
        )  # fmt: skip
        self.pid = 0

    def begin(self, environment, die_at=None) -> None:
        self._process.stdin.write(json.dumps({"environment": environment, "die_at": die_at}) + "\n")
        self._process.stdin.flush()
        self.pid = int(self._process.stdout.readline())

    def is_alive(self) -> bool:
        """Whether the detector runs; it is reaped as soon as it ends."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def wait(self) -> int:
        """The wait status of the detector: the number of the signal, or its exit status times 256."""
        return int(self._process.stdout.readline())

    def stop(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return self.wait()

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._log.close()


if __name__ == "__main__":
    serve()
