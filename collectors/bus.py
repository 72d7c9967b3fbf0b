"""The verbs of the bus, and the embedded one that carries them inside one process.

A publisher is called with a stream, a partition, a batch and its header; a subscriber polls messages.
Kafka speaks the same verbs.  The embedded bus is for one machine: it is bounded, keeps the order within
a partition, and refuses (counted) what does not fit rather than grow.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from collectors.wire import Batch, Header


class Message(NamedTuple):
    """One batch of one partition of one stream."""

    stream: str
    partition: int
    rows: Batch
    header: Header


Publisher = Callable[[str, int, Batch, Header], None]
"""What a collector is given to speak with: stream, partition, batch, header.  The receiver owns the batch."""


class MemoryBus:
    """A bounded queue: the order of publishing is the order of polling.

    ``spill`` is called when the queue is full, to let the consumer catch up; a message that still finds
    no room is refused and counted in ``refused``.
    """

    def __init__(self, capacity: int = 4096, spill: Callable[[], None] | None = None) -> None:
        self._queue: deque[Message] = deque()
        self._capacity = capacity
        self.spill = spill
        self.refused = 0

    def publish(self, stream: str, partition: int, rows: Batch, header: Header) -> None:
        """Append one message; see the class for what happens when there is no room."""
        if len(self._queue) >= self._capacity and self.spill is not None:
            self.spill()
        if len(self._queue) >= self._capacity:
            self.refused += 1
            return
        self._queue.append(Message(stream, partition, rows, header))

    def poll(self, most: int = 1 << 30) -> list[Message]:
        """Take up to ``most`` messages; an empty list where there are none."""
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
