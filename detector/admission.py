"""Which new connections are listened to: a budget by the data's time, for floods of short ones.

A connection that is known is never turned away; of one that is not, each row asks anew.  So who floods with
connections of one packet, from one address or from many, costs no more than the budget, and a miner beside
them is heard from the next thing that is said on its connection: what goes on has a purse of its own, which
connections of one packet cannot spend.  Purses are carried over a restart: full ones are worth 33,000
connections to each engine, 3 to 6 CPU seconds, which a detector that dies under a flood would pay again and
again.
"""

from typing import Annotated

import msgspec

from detector.clock import SECOND_NS
from detector.tracks import Book, Chunk, Purses, is_sure

Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
OF_SUBSCRIBER, IN_ALL = "subscriber", "all"


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Connections that may begin: at once, and a second from then on; of one subscriber, and of all of one
    engine.  A connection of one packet takes a tenth to a fifth of a millisecond.

    Each holds twice: for the first of a connection that is seen, and for what goes on of one that was turned
    away.  Beyond ``in_all`` still those of subscribers with whom somebody mines: each side of one of their
    connections has acknowledged the other's words.
    """

    of_subscriber: Count = 1024
    of_subscriber_per_s: Count = 16
    in_all: Count = 32_768
    in_all_per_s: Count = 1024


class _Rate:
    """So many at once, and so many a second."""

    __slots__ = ("each_ns", "room_ns")

    def __init__(self, at_once: int, per_s: int) -> None:
        self.each_ns = max(1, SECOND_NS // per_s)
        self.room_ns = (at_once - 1) * self.each_ns

    def has(self, purses: Purses, way: int, t_ns: int) -> bool:
        """Whether there is room for one more."""
        purses.newest_ns = max(purses.newest_ns, t_ns)
        # No more is ever owed, but by purses of a state that was written with a larger budget.
        full_ns = min(purses.full_ns[way], purses.newest_ns + self.room_ns + self.each_ns)
        purses.full_ns[way] = full_ns
        return full_ns - purses.newest_ns <= self.room_ns

    def pay(self, purses: Purses, way: int) -> None:
        """For one."""
        purses.full_ns[way] = max(purses.full_ns[way], purses.newest_ns) + self.each_ns


class Stats(msgspec.Struct):
    """Rows of connections that were turned away, by whose purse was empty."""

    turned_away: dict[str, int] = msgspec.field(default_factory=lambda: {OF_SUBSCRIBER: 0, IN_ALL: 0})


class Admission:
    """Admits connections."""

    def __init__(self, budget: Budget) -> None:
        self._own = _Rate(budget.of_subscriber, budget.of_subscriber_per_s)
        self._all = _Rate(budget.in_all, budget.in_all_per_s)
        self._common = Purses()
        self.stats = Stats()

    def state(self) -> Purses | None:
        """What a state record of the whole carries; those of subscribers are with their books."""
        return self._common.spent()

    def restore(self, purses: Purses | None) -> None:
        """Go on with what was left."""
        self._common = purses or Purses()

    def admits(self, book: Book | None, chunk: Chunk) -> bool:
        """Whether a connection may begin with this row; ``book`` is its subscriber's, None for a new one."""
        way, t_ns = int(chunk.offset > 0), chunk.t_ns
        own: Purses | None = None
        if book is not None:  # a subscriber's first connection is free
            own = book.purses = book.purses or Purses()
            if not self._own.has(own, way, t_ns):
                self.stats.turned_away[OF_SUBSCRIBER] += 1
                return False
        if self._all.has(self._common, way, t_ns):
            self._all.pay(self._common, way)
        elif book is None or not any(is_sure(track) for track in book.tracks.values()):
            self.stats.turned_away[IN_ALL] += 1
            return False
        if own is not None:
            self._own.pay(own, way)
        return True
