"""The watermark: how far the data's time has surely come, over all live sources.

Clocks of sources in (newest stamp, delay, receive time); one time out.  Evidence does not wait for it;
only fading, resolving and closed minutes do.
"""

from typing import Final

import msgspec

MINUTE_NS: Final = 60_000_000_000
SECOND_NS: Final = 1_000_000_000


class Source(msgspec.Struct, array_like=True, gc=False):
    """The last that was heard of one source of rows."""

    newest_ns: int
    delay_ns: int
    received_ns: int


class Heard(msgspec.Struct, array_like=True, gc=False):
    """All that a watermark has heard, in plain values; the source heard longest ago first."""

    value_ns: int
    received_ns: int
    sources: list[tuple[str, Source]] = []


class Watermark:
    """The smallest of (newest stamp minus delay) over live sources; it never goes back.

    A source that was silent for ``silent_ns`` of receive time no longer holds it back.  At most
    ``sources`` are kept; the one heard longest ago is dropped and counted.
    """

    def __init__(self, silent_ns: int = 120 * SECOND_NS, sources: int = 65536) -> None:
        self._silent_ns = silent_ns
        self._most = sources
        self._sources: dict[str, Source] = {}
        self._received_ns = -(1 << 62)
        self.value_ns = -(1 << 62)
        self.dropped = 0

    def observe(self, source: str, newest_ns: int, delay_ns: int, received_ns: int) -> None:
        """Hear one source's clock.  A stamp more than 60 s ahead of its receive time is not believed."""
        newest_ns = min(newest_ns, received_ns + MINUTE_NS)
        self._received_ns = max(self._received_ns, received_ns)
        known = self._sources.pop(source, None)
        if known is not None:
            newest_ns = max(newest_ns, known.newest_ns)
            received_ns = max(received_ns, known.received_ns)
        self._sources[source] = Source(newest_ns, delay_ns, received_ns)
        while len(self._sources) > self._most:
            del self._sources[next(iter(self._sources))]
            self.dropped += 1

    def advance(self) -> int:
        """The watermark now, in Unix nanoseconds (a very small number before any clock was heard)."""
        horizon = self._received_ns - self._silent_ns
        live = [s.newest_ns - s.delay_ns for s in self._sources.values() if s.received_ns >= horizon]
        if live:
            self.value_ns = max(self.value_ns, min(live))
        return self.value_ns

    def state(self) -> Heard:
        """What a state record carries.  It shares its values with the watermark."""
        return Heard(self.value_ns, self._received_ns, list(self._sources.items()))

    def restore(self, heard: Heard) -> None:
        """Take a state, in place of what was heard."""
        self.value_ns, self._received_ns = heard.value_ns, heard.received_ns
        self._sources = dict(heard.sources[-self._most :])
