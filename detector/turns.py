"""The order of sending, found again: messages of one partition's topics, as they were fetched, in; one at a
time, in the order in which each collector sent them, out.

Kafka keeps the order within a topic's partition only.  A collector numbers what it sends to one partition
over all topics (``Header.turn``), so the streams of a connection are read as they were written, whatever was
fetched first, and a detector that starts again in the middle reads them as the one before it did.
"""

from collections import deque
from typing import Final

import msgspec

from collectors.wire import Header
from detector.intake import INPUTS, Arrival

Sender = tuple[str, str]
"""Life and run."""


class Counts(msgspec.Struct):
    """Turns that were waited for in vain, and senders that made room for others."""

    turns_missing: int = 0
    turns_forgotten: int = 0


class Turns:
    """Queues of one partition.  ``put`` what was fetched, in its topic's order; ``take`` what is due.

    A turn that is missing is waited for ``patience_s``: its message may have been lost or refused.  At most
    ``senders`` are remembered; the one heard longest ago makes room.
    """

    def __init__(self, counts: Counts | None = None, patience_s: float = 2.0, senders: int = 1024) -> None:
        self.counts = counts or Counts()
        self._patience_s = patience_s
        self._most = senders
        self._queues: Final[dict[str, deque[Arrival]]] = {stream: deque() for stream in INPUTS}
        self._next: dict[Sender, int] = {}
        self._stuck_s: float | None = None

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, arrival: Arrival) -> None:
        """Append one arrival to its topic's queue."""
        self._queues[arrival.stream].append(arrival)

    def waiting(self, stream: str) -> int:
        """How many arrivals of one topic wait."""
        return len(self._queues[stream])

    def take(self, now_s: float) -> Arrival | None:
        """The next arrival, or None where there is none or one that comes before it is still on its way.
        ``now_s`` is any clock that goes on steadily."""
        heads = [queue[0] for queue in self._queues.values() if queue]
        chosen = next((a for a in heads if self._is_due(a)), None)
        if chosen is None and heads:
            chosen = self._overdue(heads, now_s)
            if chosen is None:
                return None
        self._stuck_s = None
        if chosen is None:
            return None
        self._queues[chosen.stream].popleft()
        if chosen.message is not None:
            self._took(chosen.message.header)
        return chosen

    def _is_due(self, arrival: Arrival) -> bool:
        if arrival.message is None or not arrival.message.header.life:
            return True
        header = arrival.message.header
        return header.turn <= self._next.get(_sender(header), 0)

    def _overdue(self, heads: list[Arrival], now_s: float) -> Arrival | None:
        """The head to go on with: at once where every topic has one, for nothing can come before them then;
        else when the wait is over."""
        if self._stuck_s is None:
            self._stuck_s = now_s
        if len(heads) < len(INPUTS) and now_s - self._stuck_s < self._patience_s:
            return None
        chosen = min(heads, key=_order)
        known = _sender(chosen.message.header) in self._next if chosen.message else False
        self.counts.turns_missing += known
        return chosen

    def _took(self, header: Header) -> None:
        if not header.life:
            return
        sender = _sender(header)
        wanted = self._next.pop(sender, 0)
        if header.ends:
            return
        self._next[sender] = max(wanted, header.turn + 1)
        if len(self._next) > self._most:
            del self._next[next(iter(self._next))]
            self.counts.turns_forgotten += 1

    def clear(self) -> None:
        """Forget what waits; it will be fetched again."""
        for queue in self._queues.values():
            queue.clear()
        self._stuck_s = None

    def state(self) -> list[tuple[Sender, int]]:
        """What the next turn of each sender is."""
        return list(self._next.items())

    def restore(self, state: list[tuple[Sender, int]]) -> None:
        """Take over a state."""
        self._next = dict(state)


def _sender(header: Header) -> Sender:
    return header.life, header.run


def _order(arrival: Arrival) -> tuple[int, int]:
    header = arrival.message.header if arrival.message else None
    return (header.received_ns, header.turn) if header else (0, 0)
