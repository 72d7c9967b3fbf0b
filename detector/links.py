"""The live inputs of one process: interfaces and the ports of exports, opened together and read in turn.

Configuration and a command line in; blocks of frames and blocks of datagrams out, to whoever takes them.
A shell: it opens the sockets, and gives up the privileges that they needed.
"""

import argparse
import importlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry

from collectors import privileges
from collectors.netflow.certificates import Certificates
from collectors.netflow.collector import Config as NetflowConfig
from collectors.netflow.collector import mapped
from collectors.netflow.datagrams import Block as Datagrams
from collectors.netflow.datagrams import Datagram
from collectors.netflow.ports import Ports, Share
from collectors.netflow.receiving import Metrics as ReceivingMetrics
from collectors.netflow.receiving import Receiving
from collectors.packet import bpf, tap
from collectors.packet.pcapfile import Block
from collectors.packet.sources import CaptureConfig, Handed
from detector.config import Config
from detector.errors import ConfigError, InputError
from detector.reload import Reloads

ANY: Final = "0.0.0.0"
WAIT_S: Final = 0.1
# With a tap beside them, ports are looked at so often.
BESIDE_S: Final = 0.02
# Blocks of a ring that are taken before the others have their turn.
MOST_TURNS: Final = 16
LOG_EVERY_S: Final = 10.0
LATE: Final = ("detector.exporters.report", "encodings.idna", "rich.console", "rich.table", "stringprep")


class Inputs(NamedTuple):
    """What to listen to: interfaces, and exports on UDP ports of an address ("" is none), over TCP and TLS
    where ``netflow`` has them.  With ``may_fail`` the work goes on without capture where there is none."""

    capture: CaptureConfig
    address: str = ""
    ports: tuple[int, ...] = ()
    may_fail: bool = False
    netflow: NetflowConfig = NetflowConfig()

    def __bool__(self) -> bool:
        return bool(self.capture.interface or self.address)

    def __str__(self) -> str:
        where = [", ".join(self.capture.interface)] if self.capture.interface else []
        if self.address:
            over = [f"UDP {', '.join(map(str, self.ports))}"] if self.ports else []
            over += [f"TCP {self.netflow.tcp.port}"] if self.netflow.tcp.port else []
            over += [f"TLS {self.netflow.tls.port}"] if self.netflow.tls.port else []
            where.append(f"{self.address} {', '.join(over)}")
        return " and ".join(where)


class Given(NamedTuple):
    """What somebody else has opened for this process: sockets of exports, rings of interfaces."""

    share: Share | None = None
    rings: tuple[Handed, ...] = ()


def inputs(config: Config, options: argparse.Namespace) -> Inputs:
    """What ``poolwatch run``, or a live ``poolwatch collect``, is to listen to.  Raises ConfigError."""
    kind = options.kind if options.command == "collect" else ""
    capture, may_fail = CaptureConfig(), False
    if kind != "flows":
        capture = _capture(config, options)
        if options.command == "run" and options.try_interface and not capture.interface:
            capture, may_fail = _with(capture, interface=[options.try_interface]), True
    if kind == "packets":
        if not capture.interface:
            raise ConfigError("name a FILE, an --interface, or collectors.capture.interface")
        return Inputs(capture)
    netflow = config.collectors.netflow
    ports = tuple(dict.fromkeys(ports_of(options.ports) if options.ports else netflow.ports))
    wanted = Inputs(capture, options.udp or (config.run.udp if not kind else ANY), ports, may_fail, netflow)
    if wanted.address and not (ports or netflow.tcp.port or netflow.tls.port):
        raise ConfigError("collectors.netflow.ports is empty: there is nowhere to receive exports")
    return wanted


def check(config: Config) -> None:
    """Raises ConfigError on a capture filter that nobody understands, on exporters that are no addresses, and
    on files of TLS, or for templates, that will not do."""
    _filters(config.collectors.capture)
    _allowed(config.collectors.netflow)
    _may_write(config.collectors.netflow.templates_file)
    Certificates(config.collectors.netflow.tls)


def _filters(capture: CaptureConfig) -> None:
    """Raises ConfigError where libpcap cannot make a program of the filter; scapy asks it later."""
    if capture.filter.strip() and capture.source != "scapy":
        # Where no interface is named, of a kind: none is called so.
        name = next(iter(capture.interface), "-")
        bpf.program(name, ethernet=True, expression=capture.filter, snap_length=capture.snap_length)


def _may_write(path: str) -> None:
    """Raises ConfigError where the file of templates could not be written."""
    folder, why = Path(path).parent, ""
    if path and (Path(path).is_dir() or path.endswith("/")):
        why = "is a folder; name a file in it"
    elif path and not folder.is_dir():
        why = f"cannot be written: there is no folder {folder}"
    elif path and not os.access(folder, os.W_OK | os.X_OK):
        why = f"cannot be written: no right to write in {folder}"
    if why:
        raise ConfigError(f"collectors.netflow.templates_file: {path} {why}")


def one_process(netflow: NetflowConfig) -> str:
    """What there is to say where one process does all and more are wanted; "" where all is well."""
    if netflow.workers == 1:
        return ""
    return (
        f"collectors.netflow.workers = {netflow.workers} counts for `collect flows` over Kafka only; "
        "with the embedded bus, and in `run`, one process does it all"
    )


def _allowed(netflow: NetflowConfig) -> frozenset[bytes]:
    return frozenset(mapped(e) for e in netflow.exporters)


def opened(wanted: Inputs, workers: int = 1) -> Ports:
    """The ports of exports, for so many workers; not yet open."""
    netflow = wanted.netflow
    return Ports(
        wanted.address,
        wanted.ports,
        tcp=netflow.tcp.port,
        tls=netflow.tls.port,
        workers=workers,
        each=netflow.sockets,
        buffer_bytes=netflow.receive_buffer_bytes,
    )


def _capture(config: Config, options: argparse.Namespace) -> CaptureConfig:
    """The section of the configuration under what the command line says."""
    names = [name.strip() for given in options.interface or () for name in given.split(",")]
    of_run = list(config.run.interfaces) if options.command == "run" else []
    said = {"source": options.source, "filter": options.filter, "interface": names or of_run}
    return _with(config.collectors.capture, **{k: v for k, v in said.items() if v})


def _with(capture: CaptureConfig, **said: Any) -> CaptureConfig:
    try:
        return msgspec.convert(msgspec.to_builtins(capture) | said, CaptureConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"capture: {error}".replace("`$.", "`").replace("`$", "`")) from None


def ports_of(text: str) -> tuple[int, ...]:
    """Port numbers between commas.  Raises ConfigError on anything else."""
    try:
        ports = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--ports: {text!r} is no list of port numbers") from None
    if not all(0 <= port <= 65535 for port in ports):
        raise ConfigError(f"--ports: {text!r}: a port is 0 to 65535")
    return ports


class Links(AbstractContextManager["Links"]):
    """The inputs, opened on entering.  ``turn`` is the verb, on one thread."""

    def __init__(
        self,
        wanted: Inputs,
        registry: CollectorRegistry,
        lost: Callable[[int], None],
        say: Callable[[str], None],
        given: Given | None = None,
    ) -> None:
        """``lost`` is told of datagrams that the kernel had no room for, ``say`` why there is no capture.
        What is ``given`` is not opened here.  Raises ConfigError."""
        given = given or Given()
        self._wanted = wanted
        self._say = say
        capture = wanted.capture
        self._tap = tap.Tap(capture, tap.Metrics(registry), handed=given.rings) if capture.interface else None
        self._lost = lost
        self._share = given.share
        self._allowed = _allowed(wanted.netflow)
        if wanted.address:
            _may_write(wanted.netflow.templates_file)
        self._certificates = Certificates(wanted.netflow.tls) if wanted.address else None
        self._metrics = ReceivingMetrics(registry) if wanted.address else None
        self._receiving: Receiving | None = None
        self._watched = {s.interface: _Watched() for s in self._tap.sources} if self._tap else {}
        self._watch_at = 0.0
        self._stack = ExitStack()
        self._capture = ExitStack()

    def __enter__(self) -> "Links":
        with ExitStack() as opening:
            if self._tap is not None:
                self._capture = opening.enter_context(ExitStack())
                try:
                    self._capture.enter_context(self._tap)
                except (InputError, ConfigError) as error:
                    self._without(error)
            if self._certificates is not None and self._metrics is not None:
                made = Receiving(
                    self._sockets(opening),
                    self._wanted.netflow.tcp,
                    self._certificates,
                    self._allowed,
                    self._metrics,
                    self._lost,
                    apart=True,
                    most_waiting_bytes=self._wanted.netflow.waiting_bytes,
                )
                self._receiving = opening.enter_context(made)
            self._stack = opening.pop_all()
        return self

    def _sockets(self, opening: ExitStack) -> Share:
        if self._share is not None:
            return self._share
        ports = opening.enter_context(opened(self._wanted))
        self._wanted = self._wanted._replace(ports=ports.ports)
        if not ports.steered and self._wanted.netflow.sockets > 1:
            self._say("the kernel cannot steer exporters: one socket a port, whose buffer they share")
        return ports.share(0)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __str__(self) -> str:
        capture = self._wanted.capture if self._tap is not None else CaptureConfig()
        return str(self._wanted._replace(capture=capture))

    def reloads(self, reloads: Reloads) -> None:
        """Have the certificates of TLS read again with the lists."""
        if self._certificates is not None and len(self._certificates):
            # A list of one.
            certificates = self._certificates
            reloads.add(
                "netflow_tls", (1,), lambda: [certificates.read()], lambda found: certificates.take(found[0])
            )

    @property
    def captures(self) -> bool:
        """Whether there is an interface among them."""
        return self._tap is not None

    @property
    def receives(self) -> bool:
        """Whether exports are received."""
        return self._certificates is not None

    def confine(self) -> None:
        """Give up every privilege but that of capture, where there is capture.

        Call it when all is open and read, and before threads are started.  Raises InputError or ConfigError
        where it cannot be done.
        """
        if self._tap is None:
            return
        _import_late()
        try:
            privileges.drop(self._wanted.capture.user)
        except OSError as error:
            why = f"cannot give up privileges: {error.strerror}; collectors.capture.user names who to be"
            self._without(InputError(why))
        except ConfigError as error:
            self._without(error)

    def _without(self, error: Exception) -> None:
        """Go on without capture, if that will do."""
        if not self._wanted.may_fail:
            self._stack.close()
            raise error
        self._capture.close()
        self._say(f"nothing is captured: {error}")
        self._tap = None

    def turn(
        self,
        frames: Callable[[Block], None],
        datagrams: Callable[[Sequence[Datagram] | Datagrams], None],
        wait_s: float,
    ) -> None:
        """Hand over what is there, waiting up to ``wait_s`` for it; also nothing, for the time goes on."""
        if self._tap is not None:
            wait = min(wait_s, BESIDE_S) if self._receiving else wait_s
            for _ in range(MOST_TURNS):
                block = self._tap.read(wait)
                frames(block)
                wait = 0.0
                if not block.offset.size:
                    break
            self._watch()
        if self._receiving is not None:
            something = False
            for found in self._receiving.turn(0.0 if self._tap is not None else wait_s):
                datagrams(found)
                something = True
            if not something:
                datagrams(())

    def _watch(self) -> None:
        """Log what befell an interface."""
        now = time.monotonic()
        if self._tap is None or now < self._watch_at:
            return
        self._watch_at = now + tap.COUNT_S
        for one in self._tap.sources:
            drops = one.statistics()
            self._watched[one.interface].look(
                one.interface, up=one.up, problem=one.problem, drops=drops.drops if drops else 0, now=now
            )


def _import_late() -> None:
    """Import what would be imported when it is needed: who we become may not be able to read it."""
    for name in LATE:
        importlib.import_module(name)


class _Watched:
    """What was logged of one interface: each change, and drops once in a while."""

    def __init__(self) -> None:
        self._up = True
        self._drops = 0
        self._logged_at = -LOG_EVERY_S
        self._log = logging.getLogger("poolwatch")

    def look(self, interface: str, *, up: bool, problem: str, drops: int, now: float) -> None:
        if up != self._up:
            self._up = up
            if up:
                self._log.warning("interface is back interface=%s", interface)
            else:
                self._log.warning("interface is silent interface=%s: %s", interface, problem)
        if drops > self._drops and now - self._logged_at >= LOG_EVERY_S:
            self._log.warning("kernel drops frames interface=%s count=%d", interface, drops - self._drops)
            self._drops, self._logged_at = drops, now
