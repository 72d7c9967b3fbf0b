"""What workers share: the sockets of exports, or the rings of interfaces; opened by who looks after them.

Which worker something comes to is the kernel's choice: exporters by their address
(``collectors.netflow.steering``), packets by the addresses of their connection
(``collectors.packet.steering``).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec.structs import replace

from collectors import privileges
from collectors.packet.afpacket import Rings
from detector.channel import Orders
from detector.config import Config
from detector.errors import InputError
from detector.links import Inputs, opened

MOST_ID = 60


class Shares(Protocol):
    """Opened on entering.  ``workers`` is how many there can be, its text where they listen."""

    workers: int

    def __enter__(self) -> "Shares": ...

    def __exit__(self, *error: object) -> None: ...

    def orders(self, number: int) -> Orders:
        """What a worker is to do."""

    def confine(self) -> None:
        """Give up the privileges that opening and starting took.  Raises InputError or ConfigError."""


def made(config: Config, wanted: Inputs, workers: int, say: Callable[[str], None]) -> Shares:
    """Nothing is opened yet.  Raises ConfigError."""
    return (
        Captures(config, wanted, workers)
        if wanted.capture.interface
        else Exports(config, wanted, workers, say)
    )


class Exports(AbstractContextManager["Exports"]):
    """Sockets of exports."""

    def __init__(self, config: Config, wanted: Inputs, workers: int, say: Callable[[str], None]) -> None:
        self._config, self._wanted, self._say = config, wanted, say
        self._ports = opened(wanted, workers)
        self.workers = workers

    def __enter__(self) -> "Exports":
        self._ports.__enter__()
        if self._ports.workers < self.workers:
            self._say("the kernel cannot steer exporters: one worker")
        self.workers = self._ports.workers
        return self

    def __exit__(self, *error: object) -> None:
        self._ports.__exit__(*error)

    def __str__(self) -> str:
        return str(self._wanted._replace(ports=self._ports.ports))

    def orders(self, number: int) -> Orders:
        """Its sockets; each has an id and a file of templates of its own."""
        netflow = self._config.collectors.netflow
        netflow = replace(netflow, id=f"{netflow.id[:MOST_ID]}-{number}", workers=1)
        if path := netflow.templates_file:
            netflow = replace(netflow, templates_file=f"{path}-{number}")
        config = replace(self._config, collectors=replace(self._config.collectors, netflow=netflow))
        return Orders(config, self._ports.share(number).numbers(), self._wanted.address, self._ports.ports)

    def confine(self) -> None:
        """There are none."""


class Captures(AbstractContextManager["Captures"]):
    """Rings of interfaces."""

    def __init__(self, config: Config, wanted: Inputs, workers: int) -> None:
        self._config, self._wanted = config, wanted
        self._rings = Rings(wanted.capture, workers)
        self.workers = workers

    def __enter__(self) -> "Captures":
        self._rings.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._rings.__exit__(*error)

    def __str__(self) -> str:
        return str(self._wanted)

    def orders(self, number: int) -> Orders:
        """Its rings; each has an id of its own, by which ``observation`` knows them as parts of one tap."""
        collectors = self._config.collectors
        packets = replace(collectors.packets, id=f"{collectors.packets.id[:MOST_ID]}#{number}")
        collectors = replace(collectors, packets=packets, capture=self._rings.config)
        return Orders(replace(self._config, collectors=collectors), rings=self._rings.share(number))

    def confine(self) -> None:
        """Become who captures.  Who is started later begins with what is left, which is enough for a ring on
        an interface that comes back."""
        try:
            privileges.drop(self._wanted.capture.user)
            privileges.hand_down()
        except OSError as error:
            why = f"cannot give up privileges: {error.strerror}; collectors.capture.user names who to be"
            raise InputError(why) from None
