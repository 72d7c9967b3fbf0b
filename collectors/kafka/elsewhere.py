"""What sends to a topic that somebody else made, for somebody else's consumers.

It has a producer and a bound of its own: brokers that refuse what is sent there, or a topic that went away,
must cost our own streams nothing.  (A refusal begins a new epoch of a producer, and fails all that it has in
flight.)
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from collectors.errors import ConfigError
from collectors.kafka import clients, topics
from collectors.kafka.config import Config
from collectors.kafka.packing import Laid
from collectors.kafka.sender import Metrics, Sender

# A record batch is no larger than this, whatever a topic would take: what waits is not copied once more.
MOST_BYTES: Final = 1 << 20
# Of a batch's own header, and what compression may add to what it cannot compress.
_AROUND_BYTES: Final = 4096


class Elsewhere(Sender):
    """Open it, then ``send_laid``.  ``stream`` is its name in ``metrics``, which a sender of ours shares."""

    def __init__(
        self,
        config: Config,
        topic: str,
        stream: str,
        metrics: Metrics,
        *,
        in_flight_bytes: int,
        stopped: Callable[[], bool] = lambda: False,
        producer: Callable[[Config, str], Any] = clients.producer,
    ) -> None:
        super().__init__(
            replace(config, in_flight_bytes=in_flight_bytes), CollectorRegistry(), streams=(stream,),
            stopped=stopped, producer=producer, metrics=metrics,
        )  # fmt: skip
        metrics.declare(stream)
        self._stream = stream
        self._topics = {stream: topic}
        self.most_bytes = MOST_BYTES

    def __enter__(self) -> "Elsewhere":
        """Look the topic up and connect.  Raises InputError where no broker answers, ConfigError where the
        topic is not there."""
        topic, name = self._topics[self._stream], f"poolwatch-{self._stream}"
        with clients.admin(self._config, name) as admin:
            try:
                self.partitions, most = topics.elsewhere(admin, topic)
            except ConfigError as error:
                servers = ", ".join(self._config.bootstrap_servers)
                raise ConfigError(f"{self._stream} at {servers}: {error}") from None
        self.most_bytes = min(most, MOST_BYTES) - _AROUND_BYTES
        self._connect(name, [topic])
        # A topic that goes away is looked for every few minutes, not at every message.
        self._producer.config["max_block_ms"] = 0
        return self

    def send_laid(
        self, partition: int, octets: memoryview, records: int, rows: int, *, blocking: bool
    ) -> clients.Future:
        """Send records of one partition that were laid out together: ``Sender.send``."""
        return self.send(self._stream, partition, None, octets, Laid(records), rows=rows, blocking=blocking)
