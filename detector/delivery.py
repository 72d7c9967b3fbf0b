"""Incidents to Alertmanager, on threads of their own: what judges never waits for what pages.

Documents in; deliveries out.  Who judges puts the latest document on the board and goes on.  One courier for
each server takes what is due there, in batches, tries again where that fails, and resends what fires.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Gauge

from detector.board import Alert, Board
from detector.config import Alertmanager
from detector.document import Incident, Transition
from detector.exporters.alertmanager import DeliveryError, Known, Server, alert, servers
from detector.metrics import LOG_EVERY_S, Deliveries
from detector.quiet import BY, Quiet

IDLE_S: Final = 1.0
PARTING_S: Final = 3.0
SINK: Final = "alertmanager"


class Metrics:
    """What moves here; deliveries are counted with those of other sinks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "poolwatch_alert_queue", "Alerts that wait to be told.", ["sink", "server"], registry=registry
        )
        self.success = Gauge(
            "poolwatch_alert_delivery_last_success_timestamp_seconds",
            "When alerts were last taken, Unix time; 0 before the first.",
            ["sink", "server"],
            registry=registry,
        )
        self.quieted = Gauge(
            "poolwatch_alerts_quieted",
            "Open incidents that do not page, by what keeps them quiet.",
            ["by"],
            registry=registry,
        )
        for by in BY:
            self.quieted.labels(by)


class Client(Protocol):
    """What a courier needs of a server."""

    name: str

    def post(self, alerts: list[dict]) -> None:
        """Hand over alerts.  Raises DeliveryError."""

    def find(self, subscribers: list[str]) -> list[Known]:
        """What fires there of these subscribers.  Raises DeliveryError."""


class Delivery:
    """A sink.  Enter it to start its couriers; to leave it, they tell what waits, for three seconds at most.

    It ends no alert when it is left: a detector that is started again goes on where this one stopped, and
    where none is, Alertmanager's own timeout speaks.
    """

    def __init__(
        self,
        config: Alertmanager,
        deliveries: Deliveries,
        metrics: Metrics,
        *,
        clients: list[Client] | list[Server] | None = None,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
        campaign: Callable[[Incident], str] = lambda _: "",
    ) -> None:
        """``campaign`` says what an incident is part of.  Raises ConfigError on servers that cannot be."""
        self.campaign = campaign
        made = servers(config) if clients is None else clients
        self.replays = config.replays
        self.metrics = metrics
        self.board = Board(len(made), config.resend_s, config.most_incidents, site=config.site)
        self.news = threading.Condition()
        self.now_s, self.now_ns = now_s, now_ns
        self._deliveries = deliveries
        self._dropped = 0
        self._quiet_from_ns = self._quiet_until_ns = 0
        self._stopping = False
        self.couriers = [Courier(self, number, client, config) for number, client in enumerate(made)]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Delivery":
        for courier in self.couriers:
            thread = threading.Thread(target=self._run, args=(courier,), name=SINK, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self.news:
            self._stopping = True
            self.news.notify_all()
        ends_s = time.monotonic() + PARTING_S
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))

    def _run(self, courier: "Courier") -> None:
        while not self._stopping:
            wait_s = courier.turn()
            with self.news:
                if wait_s > 0 and not self._stopping and not courier.has_news():
                    self.news.wait(min(wait_s, IDLE_S))
        while courier.has_news() and courier.turn() <= 0:
            pass

    # -- what comes --------------------------------------------------------------------------------

    def alert(self, made: Transition) -> None:
        """Nothing: the document that comes with a transition says it all."""

    def incident(self, document: Incident, owner: Hashable = None) -> None:
        """Take the latest document of an incident; ``owner`` is whoever may forget it again."""
        with self.news:
            self.board.put(document, owner, self.now_ns())
            self._count()
            if any(courier.has_news() for courier in self.couriers):
                self.news.notify_all()

    def forget(self, owner: Hashable) -> None:
        """Another detector tells of these incidents from now on."""
        with self.news:
            self.board.forget(owner)
            self._count()

    def hush(self, quiet: Quiet) -> None:
        """Take other lists.  What they cover ends, what they cover no longer is told."""
        with self.news:
            self.board.quiet = quiet
            self._quiet_until_ns = 0
        self.look_at_lists()

    def look_at_lists(self) -> None:
        """Ask the lists once more about every open incident, if a row began or ended since the last time."""
        with self.news:
            now_ns = self.now_ns()
            # A clock that was set back begins anew.
            if self._quiet_from_ns <= now_ns < self._quiet_until_ns:
                return
            self._quiet_from_ns = now_ns
            self._quiet_until_ns = self.board.quiet.changes_ns(now_ns)
            documents = self.board.documents()
        for document in documents:  # one at a time: whoever judges may come between
            with self.news:
                self.board.judge_again(document, now_ns)
        with self.news:
            self._count()
            self.news.notify_all()

    def _count(self) -> None:
        for by in BY:
            self.metrics.quieted.labels(by).set(self.board.quieted[by])
        for _ in range(self.board.dropped - self._dropped):
            self._deliveries.count(SINK, "dropped")
        self._dropped = self.board.dropped

    def became(self, outcome: str, count: int) -> None:
        """So many alerts came to this."""
        for _ in range(count):
            self._deliveries.count(SINK, outcome)


class Courier:
    """Tells one server.  ``turn`` is its verb."""

    def __init__(
        self, delivery: Delivery, number: int, client: Client | Server, config: Alertmanager
    ) -> None:
        self._delivery = delivery
        self._number = number
        self._client = client
        self._config = config
        self._log = logging.getLogger("poolwatch")
        self._logged_s = -LOG_EVERY_S
        self._failures = 0
        self._not_before_s = 0.0
        self._waiting = delivery.metrics.waiting.labels(SINK, client.name)
        self._success = delivery.metrics.success.labels(SINK, client.name)

    def has_news(self) -> bool:
        """Whether something is to be told and may be tried now."""
        board, now_s = self._delivery.board, self._delivery.now_s()
        return board.waiting(self._number) > 0 and now_s >= self._not_before_s

    def turn(self) -> float:
        """Tell one batch of what is due; seconds until there may be more to do."""
        delivery, config = self._delivery, self._config
        delivery.look_at_lists()
        now_s = delivery.now_s()
        if now_s < self._not_before_s:
            return self._not_before_s - now_s
        with delivery.news:
            batch = delivery.board.due(self._number, now_s, config.batch)
            self._waiting.set(delivery.board.waiting(self._number))
            unknown = [one.document.subscriber for one in batch if one.known is None]
        if not batch:
            return IDLE_S
        found: list[Known] = []
        try:
            if unknown:
                found = self._client.find(list(dict.fromkeys(unknown)))
            with delivery.news:
                batch = delivery.board.adopt(batch, found, delivery.now_ns())
                told = [(one, one.version, one.document, one.known, one.ends) for one in batch]
            body = [
                alert(document, one.key[1], known, ends, config, delivery.campaign(document))
                for one, _, document, known, ends in told
                if known is not None
            ]
            if body:
                self._client.post(body)
        except DeliveryError as error:
            return self._failed(batch, error)
        except Exception as error:  # noqa: BLE001 - a courier that dies says nothing, and no page ever comes
            ours = DeliveryError(f"{type(error).__name__}: {error}", again=False)
            ours.__cause__ = error
            return self._failed(batch, ours)
        self._failures = 0
        with delivery.news:
            for one, version, *_ in told:
                delivery.board.told(self._number, one, version, delivery.now_s())
            self._waiting.set(delivery.board.waiting(self._number))
        if body:
            self._success.set(delivery.now_ns() / 1e9)
            delivery.became("delivered", len(body))
        return 0.0

    def _failed(self, batch: list[Alert], error: DeliveryError) -> float:
        delivery, config = self._delivery, self._config
        now_s, now_ns = delivery.now_s(), delivery.now_ns()
        most = config.retries if error.again else 0
        with delivery.news:
            left = [
                delivery.board.failed(self._number, one, most=most, now_s=now_s, now_ns=now_ns)
                for one in batch
            ]
            self._waiting.set(delivery.board.waiting(self._number))
        delivery.became("retried", sum(left))
        delivery.became("failed", len(left) - sum(left))
        if now_s - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now_s
            self._log.warning(
                "alerts not taken server=%s alerts=%d again=%d reason=%s",
                self._client.name, len(batch), sum(left), error, exc_info=error.__cause__,
            )  # fmt: skip
        wait_s = 0.0
        if error.again:
            wait_s = min(config.retry_first_s * 2 ** min(self._failures, 20), config.retry_most_s)
            self._failures += 1
        self._not_before_s = now_s + wait_s
        return wait_s
