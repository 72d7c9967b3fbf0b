"""One worker of ``poolwatch collect``: sockets and rings that were opened for it in, rows on Kafka out.

``python -m detector.worker FD`` is started by ``workers`` and by nobody else.  FD is a socket of packets to
it: the orders come first, then wishes (``RELOAD``, ``STOP``); what we tell goes back, a packet a second, with
all our metrics.  Where the other end is gone, we end.
"""

import argparse
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from collectors.netflow.ports import taken_over
from detector import links
from detector.channel import MOST_BYTES, RELOAD, STOP, News, Orders, families, packed
from detector.collect import Station
from detector.errors import ConfigError, InputError

TELL_S: Final = 1.0


class _Channel:
    """The worker's end.  ``turn`` once a turn of the loop."""

    def __init__(self, channel: socket.socket, station: Station, stop: Callable[[], None]) -> None:
        self._channel = channel
        self._station = station
        self._stop = stop
        self._tell_at = 0.0
        self._reloads = self._asked = 0

    def turn(self) -> None:
        """Take wishes; tell how it is, when it is time."""
        try:
            wish = self._channel.recv(64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            wish = None
        if wish in (b"", STOP):
            self._stop()
        # What was asked for in the turn before has been done by now.
        done = self._reloads != self._asked
        self._reloads = self._asked
        if wish == RELOAD:
            self._asked += 1
            self._station.reloads.ask()
        now = time.monotonic()
        if now >= self._tell_at or done:
            self._tell_at = now + TELL_S
            self.tell()

    def tell(self) -> None:
        """Say how it is.  Who does not listen misses it: the next second has all of it again."""
        station = self._station
        news = News(
            station.is_ready, station.status, self._reloads, station.sent, list(families(station.registry))
        )
        try:
            self._channel.send(packed(news), socket.MSG_DONTWAIT)
        except OSError:
            return


def _given(orders: Orders) -> tuple[links.Inputs, links.Given]:
    """What to listen to, and what was opened for that: of exports and packets one."""
    config = orders.config.collectors
    if orders.rings:
        return links.Inputs(config.capture), links.Given(rings=orders.rings)
    wanted = links.Inputs(type(config.capture)(), orders.address, orders.ports, netflow=config.netflow)
    return wanted, links.Given(taken_over(orders.sockets))


def main() -> int:
    """Entry point; the exit status is that of ``poolwatch collect``."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    orders = msgspec.msgpack.decode(channel.recv(MOST_BYTES), type=Orders)
    stops: list[Callable[[], None]] = []

    def stop(*_: object) -> None:
        for each in stops:
            each()

    # Ctrl-C reaches the whole group, and who started us tells us; a manager may end every process itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    try:
        station = Station(orders.config, argparse.Namespace(listen=None), lambda _: None, stops.append)
        heard = _Channel(channel, station, stop)
        wanted, given = _given(orders)
        status = station.live(wanted, None, given, heard.turn)
        heard.tell()
        return status
    except ConfigError as error:
        print(f"poolwatch: {error}", file=sys.stderr)  # noqa: T201 - a command of its own
        return 2
    except InputError as error:
        print(f"poolwatch: {error}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
