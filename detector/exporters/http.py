"""``/metrics``, ``/livez`` and ``/readyz`` over HTTP, on a thread of its own."""

import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from threading import Thread
from types import TracebackType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from detector.errors import ConfigError, InputError


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    """A scrape every few seconds is no news; a slow client may not hold a thread for ever."""

    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass


def split_address(listen: str) -> tuple[str, int]:
    """``127.0.0.1:9464`` or ``[::1]:9464``; raises ConfigError on anything else."""
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ConfigError(f"http.listen: {listen!r} is not ADDRESS:PORT")
    return host.strip("[]"), int(port)


class Http:
    """The listener; ``live`` and ``ready`` answer for the loop that it reports on."""

    def __init__(
        self,
        listen: str,
        registry: CollectorRegistry,
        live: Callable[[], bool],
        ready: Callable[[], bool],
    ) -> None:
        self._address = split_address(listen)
        self._metrics = make_wsgi_app(registry)
        self._checks = {"/livez": live, "/readyz": ready}
        self._server: WSGIServer | None = None

    @property
    def port(self) -> int:
        """The port that is really bound (of use with port 0)."""
        return self._server.server_port if self._server else self._address[1]

    def app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The WSGI application."""
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        plain = [("Content-Type", "text/plain; charset=utf-8")]
        if path in self._checks:
            good = self._checks[path]()
            start_response("200 OK" if good else "503 Service Unavailable", plain)
            return [b"ok\n" if good else b"not yet\n"]
        start_response("404 Not Found", plain)
        return [b"try /metrics, /livez or /readyz\n"]

    def __enter__(self) -> "Http":
        try:
            kind = _Server6 if ":" in self._address[0] else _Server
            self._server = make_server(*self._address, self.app, kind, _Quiet)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot listen on {self._address[0]}:{self._address[1]}: {error}") from None
        Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
