"""What the headers of messages tell about the road they came by: gaps, repeats, disagreements.

Headers in, counts out.  Batches of one (collector, stream, partition) are numbered from 0; a collector that
starts anew starts at 0.
"""

import msgspec

from collectors.wire import Header


class Counts(msgspec.Struct):
    """``lost`` batches never came, ``repeated`` came twice, ``disagreeing`` had other home networks."""

    lost: int = 0
    repeated: int = 0
    disagreeing: int = 0
    forgotten: int = 0
    clamped: int = 0


class Expected(msgspec.Struct, array_like=True):
    """The next number of each (collector, stream, partition), the one heard longest ago first, and whose
    ``home`` counts."""

    next: list[tuple[tuple[str, str, int], int]] = []
    home: str | None = None


class Arrivals:
    """Remembers the next number of at most ``most`` sequences; the one heard longest ago makes room."""

    def __init__(self, most: int = 65536) -> None:
        self.counts = Counts()
        self._most = most
        self._next: dict[tuple[str, str, int], int] = {}
        self._home: str | None = None

    def note(self, stream: str, partition: int, header: Header) -> None:
        """Hear one header."""
        key = (header.collector, stream, partition)
        wanted = self._next.pop(key, None)
        if wanted is not None and header.number:
            self.counts.lost += max(0, header.number - wanted)
            self.counts.repeated += header.number < wanted
        elif wanted is None and len(self._next) >= self._most:
            del self._next[next(iter(self._next))]
            self.counts.forgotten += 1
        self._next[key] = header.number + 1 if not header.number else max(header.number + 1, wanted or 0)
        if self._home is None:
            self._home = header.home
        self.counts.disagreeing += header.home != self._home

    def state(self) -> Expected:
        """What a state record carries."""
        return Expected(list(self._next.items()), self._home)

    def restore(self, expected: Expected) -> None:
        """Take a state, in place of what was heard."""
        self._next = dict(expected.next[-self._most :])
        self._home = expected.home
