"""The metrics of the import of records from another collector's topic."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors.errors import Reason

_PREFIX: Final = "poolwatch_collector_import"


class Metrics:
    """Everything that moves in the import."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", told, labels, registry=registry)

        self.messages = counter("messages", "Messages read from the other collector's topic.")
        self.bytes = counter("bytes", "Octets of their values.")
        self.records = counter("records", "Flow records read from them.")
        self.refused = counter("refused", "Messages or records refused, by reason.", "reason")
        self.corrupt = counter("corrupt_batches", "Places of the topic that Kafka's client could not read.")
        self.not_home = counter("not_home", "Records dropped: no home end.")
        self.rows = counter("rows", "Rows published.")
        self.batches = counter("batches", "Batches published.")
        self.lag = Gauge(
            f"{_PREFIX}_lag_messages", "Messages of the topic that wait to be read.", registry=registry
        )
        for reason in Reason:  # a series exists, at zero, before its first event
            self.refused.labels(reason)
