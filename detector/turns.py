"""The order of sending, found again: messages of one partition's topics, as they were fetched, in; one at a
time, in the order in which each collector sent them, out.

Kafka keeps the order within a topic's partition only.  A collector numbers what it sends to one partition
over all topics (``Header.turn``), so the streams of a connection are read as they were written, whatever was
fetched first, and a detector that starts again in the middle reads them as the one before it did.
"""

from collections import deque
from itertools import islice
from typing import Final

import msgspec

from collectors.wire import Header
from detector.intake import INPUTS, Arrival

Sender = tuple[str, str]
"""Life and run."""
# A head that is not due while others come is passed after so many times the patience.
LONG: Final = 5
# What may be waited in vain, in times the patience, and how much of it each second brings back: who invents
# turns costs a partition a twentieth of its time, not all of it.
PURSE: Final = 5
REFUND: Final = 0.05
# How far behind the heads a turn is looked for that must come first.
LOOK: Final = 256


class Counts(msgspec.Struct):
    """Turns that were waited for in vain, and senders that made room for others."""

    turns_missing: int = 0
    turns_forgotten: int = 0


class Turns:
    """Queues of one partition.  ``put`` what was fetched, in its topic's order; ``take`` what is due.

    A turn that is missing is waited for ``patience_s``: its message may have been lost or refused.  Waiting
    in vain has a bound (``PURSE``), beyond which nothing is waited for: turns are whatever a sender says.  At
    most ``senders`` are remembered; the one heard longest ago makes room.
    """

    def __init__(self, counts: Counts | None = None, patience_s: float = 2.0, senders: int = 1024) -> None:
        self.counts = counts or Counts()
        self._patience_s = patience_s
        self._most = senders
        self._queues: Final[dict[str, deque[Arrival]]] = {stream: deque() for stream in INPUTS}
        self._next: dict[Sender, int] = {}
        self._stuck_s: float | None = None
        self._since: dict[str, float] = {}
        self._purse_s = PURSE * patience_s
        self._filled_s: float | None = None

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
        self._since.pop(chosen.stream, None)
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
        for arrival in heads:
            self._since.setdefault(arrival.stream, now_s)
        if len(heads) == len(INPUTS):
            return self._passed(heads)
        patience_s = self._patience_left(now_s)
        over = heads
        if now_s - self._stuck_s < patience_s:
            over = [a for a in heads if now_s - self._since[a.stream] >= LONG * patience_s]
            if not over:
                return None
        chosen = self._passed(over)
        self._purse_s = max(0.0, self._purse_s - (now_s - self._since[chosen.stream]))
        return chosen

    def _patience_left(self, now_s: float) -> float:
        """How long to wait: as long as was said, or not at all where too much was waited in vain."""
        if self._filled_s is not None:
            gained_s = REFUND * max(0.0, now_s - self._filled_s)
            self._purse_s = min(PURSE * self._patience_s, self._purse_s + gained_s)
        self._filled_s = now_s
        return self._patience_s if self._purse_s >= self._patience_s else 0.0

    def _passed(self, heads: list[Arrival]) -> Arrival:
        """The first of the heads, of those that nothing of their own sender comes before."""
        chosen = min([a for a in heads if not self._is_behind(a)] or heads, key=_order)
        self.counts.turns_missing += (
            chosen.message is not None and _sender(chosen.message.header) in self._next
        )
        return chosen

    def _is_behind(self, arrival: Arrival) -> bool:
        """Whether an earlier turn of the same sender waits in another queue."""
        if arrival.message is None:
            return False
        header = arrival.message.header
        return any(
            other.message is not None
            and other.message.header.turn < header.turn
            and _sender(other.message.header) == _sender(header)
            for stream, queue in self._queues.items()
            if stream != arrival.stream
            for other in islice(queue, LOOK)
        )

    def _took(self, header: Header) -> None:
        if not header.life:
            return
        sender = _sender(header)
        wanted = self._next.pop(sender, 0)
        if header.ends and header.run:
            return
        self._next[sender] = max(wanted, header.turn + 1)
        if len(self._next) > self._most:
            del self._next[next(iter(self._next))]
            self.counts.turns_forgotten += 1

    def clear(self) -> None:
        """Forget what waits; it will be fetched again."""
        for queue in self._queues.values():
            queue.clear()
        self._since.clear()
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
