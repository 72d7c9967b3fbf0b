"""Who is told of incidents, wired: sinks made one, and Alertmanager with the lists that keep it quiet."""

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry

from detector import quiet
from detector.config import Config
from detector.delivery import Delivery, Metrics
from detector.document import Incident, Transition
from detector.incidents import OPEN
from detector.metrics import Deliveries
from detector.parts import Part
from detector.quiet import Allowed, Quiet, Window
from detector.reload import Reloads, text_of


class Sink(Protocol):
    """Takes what is told of one incident."""

    def alert(self, made: Transition) -> None:
        """One transition."""

    def incident(self, document: Incident) -> None:
        """The latest document, after its transition."""


class Both:
    """Several sinks, as one."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def alert(self, made: Transition) -> None:
        """One transition, to each."""
        for sink in self._sinks:
            sink.alert(made)

    def incident(self, document: Incident) -> None:
        """One document, to each."""
        for sink in self._sinks:
            sink.incident(document)


def sinks(*given: Sink | None) -> Sink | None:
    """What is there of these as one sink; None where nothing is."""
    there = [sink for sink in given if sink is not None]
    return Both(*there) if len(there) > 1 else next(iter(there), None)


def build(
    config: Config,
    deliveries: Deliveries,
    registry: CollectorRegistry,
    reloads: Reloads,
    campaign: Callable[[Incident], str] = lambda _: "",
) -> Delivery | None:
    """What pages, None where neither servers nor lists are named; ``campaign`` says what an incident is part
    of.  Raises ConfigError on broken lists."""
    lists = config.lists
    metrics = Metrics(registry)
    if not (config.alertmanager.urls or lists.allow or lists.maintenance):
        return None
    delivery = Delivery(config.alertmanager, deliveries, metrics, campaign=campaign)

    def read_allowed() -> tuple[Allowed, ...]:
        return quiet.allowed(text_of(lists.allow, "lists.allow"), lists.allow) if lists.allow else ()

    def read_windows() -> tuple[Window, ...]:
        path = lists.maintenance
        return quiet.windows(text_of(path, "lists.maintenance"), path) if path else ()

    def take(allowed: tuple[Allowed, ...], windows: tuple[Window, ...]) -> None:
        taken = Quiet(allowed, windows)
        for remark in quiet.over(taken, time.time_ns()):
            logging.getLogger("poolwatch").warning("list %s", remark)
        delivery.hush(taken)

    first = Quiet(read_allowed(), read_windows())
    take(first.allowed, first.windows)
    if lists.allow:
        reloads.add(
            "allow", first.allowed, read_allowed, lambda rows: take(rows, delivery.board.quiet.windows)
        )
    if lists.maintenance:
        reloads.add(
            "maintenance", first.windows, read_windows, lambda rows: take(delivery.board.quiet.allowed, rows)
        )
    return delivery


class Beside:
    """Who is told beside Kafka what one detector of the group tells: ``always`` of everything, ``paging`` of
    live links, and of replays only where it was told to.  Who judges a part of the bus owns its incidents."""

    def __init__(self, always: Sink | None, paging: Delivery | None) -> None:
        self._always = [always] if always is not None else []
        self._paging = paging

    def of(self, run: str, owner: Hashable) -> Sequence[Sink]:
        """The sinks of a run ("" is live)."""
        if self._paging is None or (run and not self._paging.replays):
            return self._always
        return [*self._always, _Owned(self._paging, owner)]

    def restored(self, part: Part) -> None:
        """The part is ours: what fires there is ours to tell again."""
        for run, engine in part.engines.items():
            if self._paging is not None and (not run or self._paging.replays):
                for document in engine.documents():
                    if document.state in OPEN:
                        self._paging.incident(document, part)

    def left(self, part: Part) -> None:
        """The part is another's: nothing of it is told any more, and nothing ended."""
        if self._paging is not None:
            self._paging.forget(part)


class _Owned:
    """The pager, told of one part's incidents."""

    def __init__(self, paging: Delivery, owner: Hashable) -> None:
        self._paging = paging
        self._owner = owner

    def alert(self, made: Transition) -> None:
        """Nothing: see ``Delivery.alert``."""

    def incident(self, document: Incident) -> None:
        """The latest document."""
        self._paging.incident(document, self._owner)
