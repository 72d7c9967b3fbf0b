"""Composition root: configuration in, a role that has opened nothing out.

``runs`` wires one run of data; this module wires what all runs of a process share.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Lock

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from collectors import jit, subscribers
from collectors.netflow.collector import warm as warm_netflow
from collectors.packet.collector import warm
from detector import networks
from detector.attribution import Places
from detector.config import Config
from detector.endpoints import Endpoints
from detector.engine import Engine, Knowledge
from detector.errors import ConfigError, InputError
from detector.exporters.http import Http
from detector.exporters.jsonl import JsonLines
from detector.exporters.prometheus import Exporter
from detector.metrics import Complaints, Deliveries, Pace
from detector.notify import Notifier
from detector.reading import captures, printable
from detector.redact import PLAIN, Names, Redactor
from detector.runs import LiveFlows, Replay
from detector.site import Site
from detector.totals import Totals

__all__ = [
    "Detector",
    "InputError",
    "LiveFlows",
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
        site = Site(config, registry)
        self.pools, self.home, self.wanted = site.pools, site.home, site.wanted
        self.packets, self.netflow = site.packets, site.netflow
        self.knowledge = Knowledge(self.pools, networks.shipped(), partial(subscribers.holds, self.home))
        # Whose answers the collector passes on, their answers teach.
        names = config.detector.names
        resolvers = tuple(dict.fromkeys((*names.resolvers, *config.collectors.packets.dns_resolvers)))
        self._engine = replace(config.detector, names=replace(names, resolvers=resolvers))
        self.totals = Totals()
        self._places = Places(_lines(config.lists.places, "lists.places"))
        self._names = _names(config)
        self._registry = registry
        self.pace = Pace(registry)
        self.deliveries = Deliveries(registry)
        self.complaints = Complaints(logging.getLogger("poolwatch"))
        self.guard = Lock()
        registry.register(Exporter(self.totals, version("poolwatch"), self.guard))

    def endpoints(self) -> Endpoints:
        """A fresh index of endpoints, which knows the list."""
        return Endpoints(self.pools.listed(), self.config.detector.endpoints)

    def engine(self, index: Endpoints | None = None) -> Engine:
        """A fresh engine: its own clock, its own state.  With an ``index`` that it shares, its state is to be
        written."""
        return Engine(
            self._engine,
            place_of=self._places.find,
            names=self._names,
            prefix6=self.config.subscriber_prefix_ipv6,
            knowledge=self.knowledge,
            index=index,
            durable=index is not None,
        )


def _lines(path: str, key: str) -> Iterable[str]:
    if not path:
        return ()
    try:
        return Path(path).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from None


def _names(config: Config) -> Names:
    if not config.output.redact:
        return PLAIN
    path = config.output.redact_key_file
    key = "\n".join(_lines(path, "output.redact_key_file")).encode() if path else secrets.token_bytes(32)
    if not key.strip():
        raise ConfigError(f"output.redact_key_file: {path} is empty")
    return Redactor(key)


def warm_kernels(say: Callable[[str], None]) -> None:
    """Compile or load every kernel before the first packet."""
    jit.warm([warm, warm_netflow], say)


class Service:
    """What ``poolwatch run`` holds open while it works."""

    def __init__(self, config: Config) -> None:
        self.registry = CollectorRegistry()
        self.detector = Detector(config, self.registry)
        self.loop_turned = time.monotonic()
        self.is_ready = False
        self.http = Http(config.http.listen, self.registry, self._live, lambda: self.is_ready)
        self.notify = Notifier(self._live, lambda: self.is_ready)
        self.sink = (
            JsonLines(Path(config.output.jsonl), self.detector.deliveries) if config.output.jsonl else None
        )
        self._stack = ExitStack()

    def _live(self) -> bool:
        return time.monotonic() - self.loop_turned < 30

    def __enter__(self) -> "Service":
        if self.sink is not None:
            self._stack.enter_context(self.sink)
        self._stack.enter_context(self.http)
        self._stack.enter_context(self.notify)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
