"""IPFIX over TCP and TLS: listening sockets and connections in; blocks of whole messages out.

No connection can hold up another: none blocks, each gives a bounded number of octets in its turn; what it may
keep, how many there are, how long a handshake, a message and a silence may take are all bounded.  Templates
belong to the exporter's address, as they do over UDP, and outlive a session: RFC 7011 8.1 has them forgotten,
but an exporter sends them again at the head of each session anyway, and those then hold.
"""

import errno
import selectors
import socket
import ssl
import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterator
from typing import Final

import numpy as np
import prometheus_client
from prometheus_client import CollectorRegistry

from collectors.netflow.certificates import Certificates
from collectors.netflow.datagrams import STREAM, Block
from collectors.netflow.framing import Framer
from collectors.netflow.listening import Tcp
from collectors.netflow.udp import address_of
from collectors.reading import PADDING

_CHUNK: Final = 65536
_CHUNKS: Final = 16
_ACCEPTS: Final = 16
_BACKLOG: Final = 128
# Accepting fails for want of means: of descriptors (ours, the system's), buffers, memory.
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REST_S: Final = 1.0
TRANSPORTS: Final = ("tcp", "tls")
# Why a session ended: the exporter closed it, or died in the middle of a message; it sent what is no IPFIX,
# or nothing, or a message too slowly; no TLS came about; an error of the network; it was not let in; we end.
CLOSED: Final = (
    "peer", "cut", "framing", "idle", "slow", "handshake", "error", "no_room", "not_listed", "stopped",
)  # fmt: skip


class Metrics:
    """Everything that moves in this file."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "poolwatch_collector_netflow_sessions"
        self.now = prometheus_client.Gauge(
            name, "Connections of exporters that stand.", ["transport"], registry=registry
        )
        self.accepted = prometheus_client.Counter(
            f"{name}_accepted", "Connections accepted.", ["transport"], registry=registry
        )
        self.closed = prometheus_client.Counter(
            f"{name}_closed", "Connections that ended, by reason.", ["transport", "reason"], registry=registry
        )
        self.exhausted = prometheus_client.Counter(
            f"{name}_exhausted",
            "Times that no connection could be accepted for want of descriptors or memory; it is tried again"
            " after a second.",
            ["transport"],
            registry=registry,
        )
        for transport in TRANSPORTS:  # a series exists, at zero, before its first event
            self.now.labels(transport)
            self.accepted.labels(transport)
            self.exhausted.labels(transport)
            for reason in CLOSED:
                self.closed.labels(transport, reason)


class _Session:
    """One connection.  ``at_s`` are monotonic seconds: when it began, when it last sent, when the message
    that is not yet whole began."""

    def __init__(
        self, opened: socket.socket, address: bytes, port: int, transport: str, now_s: float
    ) -> None:
        self.socket = opened
        self.address = address
        self.port = port
        self.transport = transport
        self.framer = Framer()
        self.is_open = transport == "tcp"
        self.began_s = self.heard_s = self.message_s = now_s
        self.events = selectors.EVENT_READ

    def late(self, config: Tcp, now_s: float) -> str:
        """What it has taken too long for, "" for nothing."""
        if not self.is_open:
            return "handshake" if now_s - self.began_s > config.handshake_s else ""
        if self.framer.unfinished and now_s - self.message_s > config.message_s:
            return "slow"
        return "idle" if now_s - self.heard_s > config.idle_s else ""


class Sessions:
    """The connections of one worker.  ``listen`` to sockets, ``ready`` what a selector says, ``sweep`` now
    and then, ``close`` at the end.  ``allowed`` are the addresses that may connect, empty for any."""

    def __init__(
        self,
        config: Tcp,
        certificates: Certificates,
        allowed: Collection[bytes],
        selector: selectors.BaseSelector,
        metrics: Metrics,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config
        self._certificates = certificates
        self._allowed = allowed
        self._selector = selector
        self._metrics = metrics
        self._now_s = now_s
        self._now_ns = now_ns
        self._sessions: set[_Session] = set()
        self._of_address: Tally[bytes] = Tally()
        # Sessions that have more to give, though the selector may not know: TLS holds it already.
        self._more: dict[_Session, None] = {}
        # Listeners that are let be for a while, and until when.
        self._resting: list[tuple[socket.socket, str, float]] = []

    @property
    def waiting(self) -> bool:
        """Whether some have more to give at once."""
        return bool(self._more)

    def listen(self, listener: socket.socket, transport: str) -> None:
        """Accept what connects there."""
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener, transport))

    def _accept(self, listener: socket.socket, transport: str) -> Iterator[Block]:
        for _ in range(_ACCEPTS):
            try:
                made, (text, port, *_) = listener.accept()
            except OSError as error:
                # Nobody there, or gone again.
                if error.errno in _NONE_LEFT:
                    self._rest(listener, transport)
                return
            self._metrics.accepted.labels(transport).inc()
            address = address_of(text)
            refused = ""
            if self._allowed and address not in self._allowed:
                refused = "not_listed"
            elif (
                len(self._sessions) >= self._config.most_connections
                or self._of_address[address] >= self._config.most_connections_of_address
            ):
                refused = "no_room"
            if refused:
                made.close()
                self._metrics.closed.labels(transport, refused).inc()
            else:
                self._begin(made, address, port, transport)
        yield from ()

    def _rest(self, listener: socket.socket, transport: str) -> None:
        """No descriptor or memory is left: who waits there would be offered again and again."""
        self._metrics.exhausted.labels(transport).inc()
        self._selector.unregister(listener)
        self._resting.append((listener, transport, self._now_s() + _REST_S))

    def _begin(self, made: socket.socket, address: bytes, port: int, transport: str) -> None:
        context = self._certificates.context
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if transport == "tls" and context is not None:
                made = context.wrap_socket(made, server_side=True, do_handshake_on_connect=False)
        except OSError:
            made.close()
            self._metrics.closed.labels(transport, "error").inc()
            return
        session = _Session(made, address, port, transport, self._now_s())
        self._sessions.add(session)
        self._of_address[address] += 1
        self._metrics.now.labels(transport).inc()
        self._selector.register(made, selectors.EVENT_READ, lambda: self._read(session))

    def more(self) -> Iterator[Block]:
        """What those have who had more to give."""
        more, self._more = self._more, {}
        for session in more:
            yield from self._read(session)

    def _read(self, session: _Session) -> Iterator[Block]:
        """A turn of one session: its handshake, or messages."""
        self._more.pop(session, None)
        if session not in self._sessions:
            return
        octets: list[bytes] = []
        ended = self._shake(session) if not session.is_open else ""
        if session.is_open:
            ended = self._receive(session, octets)
        if octets:
            now = self._now_s()
            region, sizes = session.framer.feed(b"".join(octets))
            session.heard_s = now
            if sizes:
                session.message_s = now
                yield self._block(session, region, sizes)
            if session.framer.broken is not None:
                ended = "framing"
        if ended in ("peer", "error") and session.framer.unfinished:
            ended = "cut"
        if ended:
            self._close(session, ended)

    def _shake(self, session: _Session) -> str:
        try:
            session.socket.do_handshake()  # type: ignore[attr-defined]
            session.is_open = True
            self._want(session, selectors.EVENT_READ)
        except ssl.SSLWantReadError:
            self._want(session, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._want(session, selectors.EVENT_READ | selectors.EVENT_WRITE)
        except OSError:
            return "handshake"
        return ""

    def _receive(self, session: _Session, octets: list[bytes]) -> str:
        """Take what is there, in bounds; why the session ended, if it did."""
        if not session.framer.unfinished:
            session.message_s = self._now_s()
        try:
            for _ in range(_CHUNKS):
                chunk = session.socket.recv(_CHUNK)
                if not chunk:
                    return "peer"
                octets.append(chunk)
            self._more[session] = None
        except (BlockingIOError, ssl.SSLWantReadError):
            self._want(session, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._want(session, selectors.EVENT_READ | selectors.EVENT_WRITE)
        except ssl.SSLEOFError:
            # Ended without saying so in TLS: many do.
            return "peer"
        except OSError:
            return "error"
        return ""

    def _want(self, session: _Session, events: int) -> None:
        if events != session.events:
            session.events = events
            self._selector.modify(session.socket, events, lambda: self._read(session))

    def _block(self, session: _Session, region: bytes, sizes: list[int]) -> Block:
        size = np.array(sizes, np.int64)
        data = np.frombuffer(bytearray(region) + bytes(PADDING), np.uint8)
        n = size.size
        return Block(
            data, np.cumsum(size) - size, size, np.zeros(n, np.int64),
            np.full(n, self._now_ns(), np.int64), [session.address],
            np.full(n, STREAM | session.port, np.int64),
        )  # fmt: skip

    def sweep(self) -> None:
        """Close what takes too long, and listen again where we had no means to accept."""
        now = self._now_s()
        for resting in [one for one in self._resting if now >= one[2]]:
            self._resting.remove(resting)
            self.listen(resting[0], resting[1])
        for session in list(self._sessions):
            if late := session.late(self._config, now):
                self._close(session, late)

    def close(self) -> None:
        """Close all."""
        for session in list(self._sessions):
            self._close(session, "stopped")

    def _close(self, session: _Session, reason: str) -> None:
        self._sessions.discard(session)
        self._more.pop(session, None)
        self._of_address[session.address] -= 1
        if not self._of_address[session.address]:
            del self._of_address[session.address]
        self._selector.unregister(session.socket)
        session.socket.close()
        self._metrics.now.labels(session.transport).dec()
        self._metrics.closed.labels(session.transport, reason).inc()


def listening(address: str, port: int, *, reuse: bool = False) -> socket.socket:
    """A listening socket that does not block.  Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((address, port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made
