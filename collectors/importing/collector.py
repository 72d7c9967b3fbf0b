"""The import: values of another collector's topic in; batches of the stream ``flows`` out."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec
import numpy as np

from collectors import subscribers, wire
from collectors.bus import Publisher
from collectors.errors import Reason
from collectors.importing import flowmessage, jsonflows
from collectors.importing.metrics import Metrics
from collectors.importing.records import Columns, Stamps
from collectors.netflow import columns as netflow_columns
from collectors.netflow.rows import AHEAD_NS, Run, cut
from collectors.outlet import Outlet

Form = Literal["goflow2", "goflow2-json", "goflow", "pmacct"]
_SECOND: Final = 1_000_000_000
_WAITING_BYTES: Final = 16 << 20
_NOTHING: Final = wire.empty("flows")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A topic that goflow2 or pmacct writes; ``topic`` "" is none.

    ``brokers`` are where it is, if not at ``kafka.bootstrap_servers``; how they are spoken to is ``kafka``'s
    either way.  ``group`` shares its partitions among importers; a group that is new begins with what the
    topic holds (``earliest``) or with what comes (``latest``).  ``framing`` is of ``goflow2`` and ``goflow``:
    whether each message follows its length.  ``id`` is the same for all that import one topic.
    """

    topic: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]*$", max_length=249)] = ""
    form: Form = "goflow2"
    framing: flowmessage.Framing = "auto"
    brokers: tuple[str, ...] = ()
    group: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "poolwatch-import"
    start: Literal["latest", "earliest"] = "latest"
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "import"
    batch_linger_ms: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 200
    # A larger value is refused: of JSON it would become hundred times its size.
    most_value_bytes: Annotated[int, msgspec.Meta(ge=1024, le=8 << 20)] = 1 << 20
    # A record is not believed to be longer, when the watermark waits for it.
    longest_record_s: Annotated[int, msgspec.Meta(ge=1, le=7 * 86400)] = 3600


class Decoder(Protocol):
    """What a form's module has."""

    def decode(self, values: Sequence[bytes | None], stamps: Stamps) -> list[Columns]:
        """Records as columns."""

    def refused(self) -> dict[Reason, int]:
        """What was refused since the last call."""


def decoder(config: Config) -> Decoder:
    """The decoder of the configured form."""
    if config.form in jsonflows.KINDS:
        return jsonflows.Decoder(config.form, config.most_value_bytes)
    return flowmessage.Decoder(config.form, config.framing, config.most_value_bytes)


class Collector:
    """``feed`` values in the order of their topic, then ``finish``."""

    def __init__(
        self, config: Config, home: subscribers.Home, partitions: int, publish: Publisher, metrics: Metrics
    ) -> None:
        self._config = config
        self._home = home
        self._partitions = partitions
        self._outlet = Outlet(config.id, home.digest, publish)
        self._metrics = metrics
        self._decoder = decoder(config)
        self._values: list[bytes | None] = []
        self._stamps: list[int] = []
        self._bytes = 0
        self._first_ns = 0
        self._now_ns = 0
        self._told_ns = 0
        self._newest_ns = 0
        self._longest_ns = 0
        self._longest_before_ns = 0
        self._faded_ns = 0
        self._most_ns = config.longest_record_s * _SECOND

    def rehome(self, home: subscribers.Home) -> None:
        """Give rows to the ends that are home by these networks from now on."""
        self._home = home
        self._outlet.rehome(home.digest)

    def feed(self, values: Sequence[bytes | None], stamps: Sequence[int], now_ns: int) -> None:
        """Take values, or none; ``stamps`` is when Kafka had each, ``now_ns`` the time, both Unix ns."""
        if values and not self._values:
            self._first_ns = now_ns
        self._values += values
        self._stamps += stamps
        size = sum(len(value or b"") for value in values)
        self._bytes += size
        self._metrics.messages.inc(len(values))
        self._metrics.bytes.inc(size)
        self._now_ns = max(self._now_ns, now_ns)
        tells = self._now_ns // _SECOND > self._told_ns // _SECOND
        lingers = self._now_ns - self._first_ns >= self._config.batch_linger_ms * 1_000_000
        if tells or self._bytes >= _WAITING_BYTES or (self._values and lingers):
            self.flush(everywhere=tells)

    def finish(self) -> None:
        """The input is over: publish what waits, and the time."""
        self.flush(everywhere=True)

    def flush(self, *, everywhere: bool = False) -> None:
        """Read and publish what waits; ``everywhere``: each partition is told the time."""
        values, stamps = self._values, self._stamps
        self._values, self._stamps, self._bytes = [], [], 0
        if self._now_ns - self._faded_ns >= self._most_ns:
            # One odd record does not make everybody wait for ever.
            self._faded_ns = self._now_ns
            self._longest_before_ns, self._longest_ns = self._longest_ns, 0
        told: set[int] = set()
        for found in self._decoder.decode(values, np.array(stamps, np.int64)) if values else ():
            told |= self._publish(found)
        for reason, n in self._decoder.refused().items():
            self._metrics.refused.labels(reason).inc(n)
        if everywhere:
            self._told_ns = self._now_ns
            for partition in range(self._partitions):
                if partition not in told:
                    run = Run(partition, 0, 0, self._now_ns, self._now_ns)
                    self._hand_over(run, _NOTHING)

    def _publish(self, found: Columns) -> set[int]:
        first, last, received = (np.asarray(found[name]) for name in ("t_first", "t_last", "t_received"))
        self._metrics.records.inc(last.size)
        # A stamp ahead of its receipt is no news of how far the data have come.
        self._newest_ns = max(self._newest_ns, int(np.minimum(last, received).max()))
        longest = min(int((np.maximum(received, last) - first).max()), self._most_ns)
        self._longest_ns = max(self._longest_ns, longest)
        rows = netflow_columns.rows(found, self._home, self._partitions, self._config.id)
        self._metrics.not_home.inc(rows.dropped)
        told = set()
        for run, part in cut(rows):
            told.add(run.partition)
            self._hand_over(run, part)
        return told

    def _hand_over(self, run: Run, rows: wire.Batch) -> None:
        self._metrics.rows.inc(rows.num_rows)
        self._metrics.batches.inc()
        span = run.t_first_ns, run.t_last_ns
        self._outlet.send("flows", run.partition, rows, span, self._now_ns, self._clocks())

    def _clocks(self) -> tuple[wire.Clock, ...]:
        if not self._newest_ns:
            return ()
        longest = max(self._longest_ns, self._longest_before_ns)
        return (wire.Clock(self._config.id, self._newest_ns, longest + AHEAD_NS),)


def warm() -> None:
    """Compile the kernel."""
    flowmessage.Decoder().decode([b"\0"], np.zeros(1, np.int64))
