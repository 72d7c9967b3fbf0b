"""What exporters may have answered in Python: templates, options that tell rates, sets that must be held.

Data records are read by compiled passes, everything else costs a thousand times as much an octet; so an
exporter has a purse, and the walk stops for it only where the purse pays.  The unit is a word: four octets of
what was told, about one field of a template; time is that of the data.  Each exporter has its own purse, and
there is one for all together; where that is empty, each still has a small sure part of what comes in.  So who
sends too much pays first, and nobody can spend what is another's.
"""

from typing import Annotated, Final

import msgspec
import numpy as np

from collectors.jit import bare as kernel

Words = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]

# An exporter's purse (i8): its words; its sure ones; octets of sets that may still be held for it; and how
# many sets were refused since this was last told.
P_OWN, P_SURE, P_ROOM, P_REFUSED = range(4)
PURSE: Final = 4
# What all have together (i8): words, octets of sets that may still be held; then what was refused, by kind,
# and sets without a template that were dropped for want of room.
A_WORDS, A_ROOM, A_TEMPLATES, A_OPTIONS, A_UNKNOWN, A_DOMAINS, A_DROPPED = range(7)
ALL: Final = 7
REFUSED: Final = ("templates", "options", "unknown", "domains")
# Words that an answer costs besides those told: for itself, for a template that is new, for a set that is
# held, a domain that is new, a rate that is news when records wait (they are read first).  An options record
# is so many at least.
EACH: Final = 4
RECORD: Final = 2
TEMPLATE: Final = 8
HELD: Final = 16
DOMAIN: Final = 8
NEWS: Final = 128
# A set that is held takes as many octets more: its header and the cursor of the walk.
HELD_BYTES: Final = 256
# Sure words are saved up to so many: a datagram of 1,500 octets full of templates.
_SURE: Final = 512
_SECOND: Final = 1_000_000_000


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What exporters may tell of themselves, in words of four octets: templates, options that tell sampling
    rates, new observation domains, and data without a template.  A word takes two to six microseconds.

    ``of_exporter`` at once and ``of_exporter_per_s`` from then on; ``in_all`` and ``in_all_per_s`` of all
    together, of each worker.  A router with a thousand templates of 33 fields needs 45,000 at its start.
    """

    of_exporter: Words = 65536
    of_exporter_per_s: Words = 8192
    in_all: Words = 262_144
    in_all_per_s: Words = 32768


@kernel
def paid(purses, common, who, cost, kind):
    """Whether ``who`` (a number) pays ``cost`` words; else it is counted as refused, of this ``kind``."""
    purse = purses[who]
    if purse[P_OWN] >= cost:
        if common[A_WORDS] >= cost:
            common[A_WORDS] -= cost
            purse[P_OWN] -= cost
            return True
        if purse[P_SURE] >= cost:
            purse[P_SURE] -= cost
            purse[P_OWN] -= cost
            return True
    common[kind] += 1
    purse[P_REFUSED] += 1
    return False


class Purses:
    """``each`` (n, PURSE) i8 by number of exporter, and ``common`` (ALL,) i8, for the walk."""

    def __init__(self, budget: Budget, held_bytes: int = 0) -> None:
        self._budget = budget
        self._held_bytes = held_bytes
        self.each = np.zeros((16, PURSE), np.int64)
        self.common = np.zeros(ALL, np.int64)
        self.common[[A_WORDS, A_ROOM]] = budget.in_all, held_bytes
        self._filled_s = 0

    def enter(self, number: int) -> None:
        """An exporter is new."""
        if number >= len(self.each):
            self.each = np.concatenate([self.each, np.zeros_like(self.each)])
        self.each[number] = self._budget.of_exporter, 0, self._held_bytes // 4, 0

    def fill(self, now_ns: int, exporters: int) -> None:
        """Once a second of the data's time: what came in since, ``exporters`` sharing it."""
        second = now_ns // _SECOND
        passed = min(second - self._filled_s, 1 << 20)
        if passed <= 0:
            return
        self._filled_s = second
        budget, own, sure = self._budget, self.each[:, P_OWN], self.each[:, P_SURE]
        np.minimum(own + passed * budget.of_exporter_per_s, budget.of_exporter, out=own)
        share = max(1, budget.in_all_per_s // max(1, exporters))
        np.minimum(sure + passed * share, _SURE, out=sure)
        told = int(self.common[A_WORDS]) + passed * budget.in_all_per_s
        self.common[A_WORDS] = min(told, budget.in_all)

    def spend(self, number: int, words: int) -> None:
        """Take words for what was only known when it was done, or give them back; it may leave a debt."""
        self.each[number, P_OWN] -= words
        self.common[A_WORDS] -= words

    def refused(self) -> dict[str, int]:
        """Sets refused since this was last asked, by kind, and under "dropped" data sets that found no
        room."""
        told = dict(zip((*REFUSED, "dropped"), self.common[A_TEMPLATES:].tolist(), strict=True))
        self.common[A_TEMPLATES:] = 0
        return told

    def refused_of(self) -> dict[int, int]:
        """The same by exporter, in all."""
        column = self.each[:, P_REFUSED]
        told = {n: int(column[n]) for n in np.flatnonzero(column).tolist()}
        column[:] = 0
        return told
