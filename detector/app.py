"""Composition root: configuration in, a role that has opened nothing out.

``runs`` wires one run of data; this module wires what all runs of a process share.
"""

import logging
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Lock, current_thread, main_thread
from weakref import WeakSet

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from collectors import app as collecting
from collectors import jit, masking, subscribers
from collectors.exporting.flowmessage import warm as warm_export
from collectors.exporting.laying import warm as warm_laying
from collectors.importing.collector import warm as warm_import
from collectors.netflow import batches
from collectors.netflow.collector import warm as warm_netflow
from collectors.packet import ring
from collectors.packet.collector import warm
from detector import networks, paging
from detector.attribution import Place, Places
from detector.config import Config
from detector.endpoints import Endpoints
from detector.engine import Engine, Knowledge
from detector.errors import ConfigError, InputError
from detector.exporters.campaigns import Linking
from detector.exporters.http import Http
from detector.exporters.jsonl import JsonLines
from detector.exporters.prometheus import Exporter
from detector.links import Links
from detector.links import check as check_links
from detector.loading import late
from detector.metrics import Complaints, Deliveries, Pace
from detector.notify import Notifier
from detector.reading import Held, captures, printable
from detector.redact import PLAIN, Names, Redactor
from detector.reload import Reloads
from detector.runs import Live, Replay
from detector.site import Site
from detector.totals import Totals

__all__ = [
    "Detector",
    "Held",
    "InputError",
    "Live",
    "Replay",
    "Service",
    "captures",
    "printable",
    "warm_kernels",
]


class Detector:
    """One process's detector: the parts that all its runs share."""

    def __init__(self, config: Config, registry: CollectorRegistry) -> None:
        self.config = config
        site = self.site = Site(config, registry)
        self.pools, self.packets, self.netflow = site.pools, site.packets, site.netflow
        self.knowledge = Knowledge(self.pools, networks.shipped(), site.is_home)
        # Whose answers the collector passes on, their answers teach.
        names = config.detector.names
        resolvers = tuple(dict.fromkeys((*names.resolvers, *config.collectors.packets.dns_resolvers)))
        self._engine = replace(config.detector, names=replace(names, resolvers=resolvers))
        self.totals = Totals()
        self._places = self._read_places()
        self._indexes: WeakSet[Endpoints] = WeakSet()
        self.relisted: list[Callable[[], None]] = []
        self._names = _names(config)
        self._registry = registry
        self.pace = Pace(registry)
        self.deliveries = Deliveries(registry)
        self.complaints = Complaints(logging.getLogger("poolwatch"))
        self.guard = Lock()
        registry.register(Exporter(self.totals, version("poolwatch"), self.guard))

    def endpoints(self) -> Endpoints:
        """A fresh index of endpoints, which knows the list."""
        made = Endpoints(self.pools.listed(), self.config.detector.endpoints)
        self._indexes.add(made)
        return made

    def engine(self, index: Endpoints | None = None) -> Engine:
        """A fresh engine: its own clock, its own state.  With an ``index`` that it shares, its state is to be
        written."""
        made = Engine(
            self._engine,
            place_of=self._place_of,
            names=self._names,
            prefix6=self.config.subscriber_prefix_ipv6,
            knowledge=self.knowledge,
            index=index,
            durable=index is not None,
        )
        self._indexes.add(made.index)
        return made

    def _place_of(self, address: bytes) -> Place | None:
        """By the list in force."""
        return self._places.find(address)

    # -- lists that are read again -----------------------------------------------------------------

    def reloads(self, reloads: Reloads) -> None:
        """Have the lists that collectors and engines go by reloaded."""
        self.site.reloads(reloads, self._relist)
        if self.config.lists.places:
            reloads.add("places", range(len(self._places)), self._read_places, self._take_places)

    def _relist(self) -> None:
        for index in list(self._indexes):
            index.relist(self.pools.listed())
        for told in self.relisted:
            told()

    def _read_places(self) -> Places:
        return Places(_lines(self.config.lists.places, "lists.places"))

    def _take_places(self, places: Places) -> None:
        self._places = places


def _lines(path: str, key: str) -> Iterable[str]:
    if not path:
        return ()
    try:
        return Path(path).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {path}: {getattr(error, 'strerror', None) or error}") from None


def _names(config: Config) -> Names:
    if not config.output.redact:
        return PLAIN
    path = config.output.redact_key_file
    key = "\n".join(_lines(path, "output.redact_key_file")).encode() if path else secrets.token_bytes(32)
    if not key.strip():
        raise ConfigError(f"output.redact_key_file: {path} is empty")
    return Redactor(key)


def warm_kernels(say: Callable[[str], None], *, load: bool = True) -> None:
    """Compile or load every kernel before the first packet, and import what would be imported later; not
    without ``load``: see ``jit.warm``."""
    if load:
        late()
    holds = partial(subscribers.holds, subscribers.home(), bytes(16))
    netflow = (warm_netflow, batches.warm, collecting.warm)
    others = (warm_import, warm_export, warm_laying, ring.warm, masking.warm, holds)
    with _signals_end():
        jit.warm((warm, *netflow, *others), say, load=load)


@contextmanager
def _signals_end() -> Iterator[None]:
    """Meanwhile Ctrl-C and SIGTERM end the process at once: it holds nothing
    yet, and compiling takes a minute."""
    if current_thread() is not main_thread():
        yield
        return
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    try:
        yield
    finally:
        for number, how in before.items():
            signal.signal(number, signal.SIG_DFL if how is None else how)


class Service:
    """What ``poolwatch run`` holds open while it works."""

    def __init__(self, config: Config) -> None:
        check_links(config)
        self.registry = CollectorRegistry()
        self.detector = Detector(config, self.registry)
        self.loop_turned = time.monotonic()
        self.is_ready = False
        self.http = Http(config.http.listen, self.registry, self._live, lambda: self.is_ready)
        self.notify = Notifier(self._live, lambda: self.is_ready)
        self.reloads = Reloads(self.registry, self.detector.guard, self.notify.reloading)
        self.detector.reloads(self.reloads)
        self.files = (
            JsonLines(Path(config.output.jsonl), self.detector.deliveries) if config.output.jsonl else None
        )
        self.campaigns = Linking(config.campaigns, self.registry)
        self.paging = paging.build(
            config, self.detector.deliveries, self.registry, self.reloads, self.campaigns.words
        )
        # Replays do not page unless told to.
        self.live_sink = paging.sinks(self.campaigns, self.files, self.paging)
        replays = config.alertmanager.replays
        self.sink = self.live_sink if replays else paging.sinks(self.campaigns, self.files)
        self.links: Links | None = None
        self._stack = ExitStack()

    def _live(self) -> bool:
        return time.monotonic() - self.loop_turned < 30

    def turn(self) -> None:
        """The loop goes on: lists are reloaded here, if somebody asked."""
        self.loop_turned = time.monotonic()
        self.reloads.turn()

    def __enter__(self) -> "Service":
        if self.files is not None:
            self._stack.enter_context(self.files)
        if self.links is not None:
            # Threads are started with what privileges are left.
            self._stack.enter_context(self.links)
            self.links.confine()
        if self.paging is not None:
            self._stack.enter_context(self.paging)
        self._stack.enter_context(self.http)
        self._stack.enter_context(self.notify)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
