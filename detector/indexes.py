"""The endpoint indexes of a detector: one for the live links, one for each replay that comes by.

All partitions of one detector share them, and all detectors follow the stream ``endpoints``: an answer that
was seen in one partition makes the endpoint known in all.  What a replay finds out stays the replay's own.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from detector.endpoints import Endpoints, Entry
from detector.following import Following

LIVE: Final = ""
MOST_RUNS: Final = 64
MOST_WAITING: Final = 10_000


class Indexes:
    """Indexes by run.  ``make`` gives an index that knows the list, ``join`` what follows the bus into it."""

    def __init__(self, make: Callable[[], Endpoints], join: Callable[[Endpoints], Following]) -> None:
        self._make = make
        self._join = join
        self._indexes: dict[str, tuple[Endpoints, Following]] = {}
        self._waiting: dict[str, list[tuple[Entry, int]]] = {}
        self._gone: Counter[str] = Counter()
        self.of(LIVE)

    def of(self, run: str) -> Endpoints:
        """The index of a run, made on first use; it knows what the bus has told of the run before."""
        if run not in self._indexes:
            index = self._make()
            following = self._join(index)
            for entry, received_ns in self._waiting.pop(run, ()):
                following.follow(entry, received_ns)
            self._indexes[run] = index, following
        return self._indexes[run][0]

    def follow(self, run: str, entry: Entry, received_ns: int) -> None:
        """Take in an entry that some detector published.  What is told of a run that is not known here waits,
        within bounds, for it may come."""
        if run in self._indexes:
            self._indexes[run][1].follow(entry, received_ns)
            return
        waiting = self._waiting.setdefault(run, [])
        if len(waiting) < MOST_WAITING:
            waiting.append((entry, received_ns))
        if len(self._waiting) > MOST_RUNS:
            del self._waiting[next(iter(self._waiting))]

    def drop(self, run: str) -> None:
        """Forget a replay that is over."""
        gone = self._indexes.pop(run, None) if run != LIVE else None
        if gone is not None:
            self._gone.update(_told(gone[1]))
        self._waiting.pop(run, None)

    def counts(self) -> Counter[str]:
        """What became of what was followed, by outcome, of all runs so far."""
        out = Counter(self._gone)
        for _, following in self._indexes.values():
            out.update(_told(following))
        return out


def _told(following: Following) -> dict[str, int]:
    stats = following.stats
    refused = {f"refused_{reason}": n for reason, n in stats.refused.items()}
    plain = {"changed": stats.changed, "same": stats.same, "ahead": stats.ahead}
    return plain | {"shortened": stats.shortened} | refused
