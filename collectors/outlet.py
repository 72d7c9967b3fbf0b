"""Where a collector hands over its batches: numbered, under headers, one (stream, partition) after another.

Batches in; calls of a publisher out.  The embedded bus and Kafka are published to alike.
"""

from collectors import wire
from collectors.bus import Publisher
from collectors.streams import STREAMS


class Outlet:
    """The numbering of one collector.  ``send`` is its verb."""

    def __init__(self, collector: str, home: str, publish: Publisher) -> None:
        self._collector = collector
        self._home = home
        self._publish = publish
        self._numbers: dict[tuple[str, int], int] = {}

    def rehome(self, home: str) -> None:
        """Tell another hash of the home networks from now on."""
        self._home = home

    def send(
        self,
        stream: str,
        partition: int,
        rows: wire.Batch,
        span: tuple[int, int],
        received_ns: int,
        clocks: tuple[wire.Clock, ...],
    ) -> None:
        """Hand over one batch.  ``span`` is (first, last) of its stamps, ``received_ns`` when it was
        received, both Unix ns."""
        number = self._numbers.get((stream, partition), 0)
        self._numbers[stream, partition] = number + 1
        header = wire.Header(
            version=STREAMS[stream].version,
            collector=self._collector,
            number=number,
            rows=rows.num_rows,
            t_first_ns=span[0],
            t_last_ns=span[1],
            received_ns=received_ns,
            home=self._home,
            clocks=clocks,
        )
        self._publish(stream, partition, rows, header)
