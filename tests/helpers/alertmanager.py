"""A real Alertmanager (Debian's) on loopback in a temporary folder, and somebody it notifies, for tests.

with Receiver() as receiver, Alertmanager(receiver.url) as server:
    ...                         # config: alertmanager.urls = [server.url]
    receiver.wait(lambda: receiver.count("page", "firing") == 1)
"""

import json
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

COMMAND = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
AMTOOL = shutil.which("amtool")
FOLDER = Path(__file__).parent.parent.parent / "deploy" / "alertmanager"
# The kernel kills what was started by a thread that ends: this one ends with the process.
STARTER = ThreadPoolExecutor(1)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Notification(NamedTuple):
    """One POST to a webhook: when, to which path, and what."""

    at: float
    receiver: str
    body: dict[str, Any]


class Receiver:
    """A webhook that keeps what it is told; the path is the receiver's name."""

    def __init__(self) -> None:
        self.got: list[Notification] = []
        self._news = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._news:
                    outer.got.append(Notification(time.time(), self.path.strip("/"), body))
                    outer._news.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def notifications(self, receiver: str, status: str | None = None) -> list[Notification]:
        """What one receiver was told, of a status ("firing" or "resolved") or of any."""
        with self._news:
            return [
                n for n in self.got if n.receiver == receiver and status in (None, n.body["status"])
            ]  # fmt: skip

    def count(self, receiver: str, status: str | None = None) -> int:
        return len(self.notifications(receiver, status))

    def wait(self, until: Callable[[], Any], seconds: float = 20) -> None:
        """Until ``until()`` is true.  Raises AssertionError with all that came."""
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            assert left > 0, f"never came; got {[(n.receiver, n.body['status']) for n in self.got]}"
            with self._news:
                self._news.wait(min(left, 0.05))


def quick(text: str, webhooks: str) -> str:
    """The shipped configuration, made quick, its webhooks led to a receiver of the test."""
    return (
        text.replace("group_wait: 10s", "group_wait: 300ms")
        .replace("group_wait: 30s", "group_wait: 300ms")
        .replace("group_interval: 5m", "group_interval: 500ms")
        .replace("http://127.0.0.1:9095", webhooks)
        .replace("templates/*.tmpl", f"{FOLDER}/templates/*.tmpl")
    )


class Alertmanager:
    """One process.  ``stop`` and ``start`` it, ``pause`` and ``resume`` it; it is gone at the end."""

    def __init__(self, webhooks: str, config: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="poolwatch-alertmanager-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        text = quick((FOLDER / "alertmanager.yml").read_text(), webhooks) if config is None else config
        (self.folder / "alertmanager.yml").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start, and return when it is ready."""
        assert COMMAND is not None
        command = [
            COMMAND, f"--config.file={self.folder}/alertmanager.yml", f"--storage.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address=",
        ]  # fmt: skip
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]

        def spawn() -> subprocess.Popen[bytes]:
            with (self.folder / "log").open("ab") as log:
                return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

        self._process = STARTER.submit(spawn).result()
        end = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Alertmanager did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop as an operator would: what it notified of is kept on disk, what fires is not."""
        if self._process is not None:
            self.resume()
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """Let it answer nothing while its connections stay open."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._folder.cleanup()

    def firing(self) -> list[dict[str, Any]]:
        """What fires there, as its API lists it."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=5) as answer:
            return json.loads(answer.read())
