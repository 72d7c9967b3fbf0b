"""The real Prometheus on loopback with its data in a temporary folder, for tests.

With ``Prometheus(targets)`` as a context manager it scrapes what ``targets`` names, by the configuration and
the rules of deploy/prometheus at a second's pace; alerts wait for a second only.  ``history`` is OpenMetrics
text of what it has known before.
"""

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from broker import STARTER
from fleet import free_port

DEPLOY = Path(__file__).parent.parent.parent / "deploy" / "prometheus"
BINARY = shutil.which("prometheus")
START_SECONDS = 30


class Prometheus:
    """``targets`` are ``{"run": ["127.0.0.1:9464"], …}``, by the files of deploy/prometheus/targets."""

    def __init__(self, targets: Mapping[str, Sequence[str]], history: str = "") -> None:
        self._targets = targets
        self._history = history
        self._folder = tempfile.TemporaryDirectory(prefix="poolwatch-prometheus-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and remove its data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._folder.cleanup()

    def _start(self) -> None:
        folder = Path(self._folder.name)
        if self._history:
            (folder / "history").write_text(self._history)
            backfill = [
                "promtool",
                "tsdb",
                "create-blocks-from",
                "openmetrics",
                folder / "history",
                folder / "data",
            ]
            subprocess.run(backfill, check=True, capture_output=True, timeout=60)
        command = [
            BINARY or "prometheus", f"--config.file={self._configure(folder)}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self.address}",
        ]  # fmt: skip
        if setpriv := shutil.which("setpriv"):  # the kernel ends it with the thread that started it
            command = [setpriv, "--pdeathsig", "KILL", *command]
        self._process = STARTER.submit(self._spawn, command, folder / "log").result()
        end = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"prometheus did not start:\n{(folder / 'log').read_text()[-4000:]}")
            time.sleep(0.05)

    def _configure(self, folder: Path) -> Path:
        """A copy of what is deployed, at a second's pace and with other targets."""
        (folder / "rules").mkdir()
        for path in (DEPLOY / "rules").glob("*.yml"):
            text = re.sub(r"^( +for:) .*", r"\1 1s", path.read_text(), flags=re.M)
            (folder / "rules" / path.name).write_text(text)
        (folder / "targets").mkdir()
        for path in (DEPLOY / "targets").glob("*.yml"):
            found = [{"targets": list(self._targets.get(path.stem, ()))}]
            (folder / "targets" / path.name).write_text(json.dumps(found))
        text = (DEPLOY / "prometheus.yml").read_text().replace("127.0.0.1:9090", self.address)
        text = re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \d+s", r"\1: 1s", text)
        config = folder / "prometheus.yml"
        config.write_text(text)
        return config

    @staticmethod
    def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as said:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5),
        ):
            return True
        return False

    def get(self, path: str, **arguments: str) -> Any:
        """The ``data`` of an answer of the HTTP API.  Raises ValueError with what Prometheus says."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The samples of an expression now, NaN as it is."""
        found = self.get("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in found]

    def wait(self, expression: str, is_right: Callable[[list], bool] = bool, timeout_s: float = 60) -> list:
        """Ask until the answer is right, by default until there is one."""
        end = time.monotonic() + timeout_s
        while not is_right(found := self.query(expression)):
            assert time.monotonic() < end, f"{expression}: {found}"
            time.sleep(0.2)
        return found

    def rules(self) -> list[dict[str, Any]]:
        """All rules as Prometheus has read them, each with the name of its group."""
        groups = self.get("rules")["groups"]
        return [rule | {"group": group["name"]} for group in groups for rule in group["rules"]]
