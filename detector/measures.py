"""Bytes of mining connections, by minute of the data and by direction.

Flow columns in; per connection and minute the bytes that count out.  Only rows that may matter are kept:
those that the collector marked as candidates (later also those of known endpoints).  Both copies of a row
whose both ends are home are kept, each under its subscriber: only the miner's is summed up.  Per connection,
minute and direction one source counts: a tap, else the lowest sampling rate, else the lowest exporter
address; so a tap and a router on one link do not count twice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Final

import msgspec
import numpy as np

from collectors import wire
from detector.clock import MINUTE_NS
from detector.evidence import End

MOST_BYTES: Final = 1 << 54
"""Of one connection, direction, source and minute: more is no traffic, and a state record holds 64 bits."""

MOST_FOLDED: Final = 1 << 62

Ends = tuple[End, End, int]
Both = Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)]
SourceKey = tuple[int, str]


def ends_of(a: tuple[bytes, int], b: tuple[bytes, int], protocol: int) -> Ends:
    """The two ends in order, so that both directions name the same connection."""
    return (a, b, protocol) if a <= b else (b, a, protocol)


class Link(msgspec.Struct, array_like=True, gc=False):
    """Bytes of one connection: per minute, per source, [low to high, high to low].

    Minutes older than the retention are folded into ``folded``; ``told`` is what was already published;
    ``estimated`` says that a sampling rate scaled some of it; ``low`` is the lower end.
    """

    minutes: dict[int, dict[SourceKey, Both]] = msgspec.field(default_factory=dict)
    folded: Both = msgspec.field(default_factory=lambda: [0, 0])
    told: Both = msgspec.field(default_factory=lambda: [0, 0])
    first_ns: int = 1 << 62
    last_ns: int = -(1 << 62)
    estimated: bool = False
    low: tuple[bytes, int] | None = None

    def add(self, source: SourceKey, span: tuple[int, int], amount: tuple[int, int]) -> None:
        """Spread ``amount`` evenly over ``span`` (first, last, Unix ns); no byte is lost by rounding."""
        self.first_ns = min(self.first_ns, span[0])
        self.last_ns = max(self.last_ns, span[1])
        for minute, part in spread(span, amount):
            counts = self.minutes.setdefault(minute, {}).setdefault(source, [0, 0])
            counts[0] = min(counts[0] + part[0], MOST_BYTES)
            counts[1] = min(counts[1] + part[1], MOST_BYTES)

    def of_minute(self, minute: int) -> tuple[int, int]:
        """What counts in one minute: per direction, of the first source that saw any."""
        sources = self.minutes.get(minute)
        if not sources:
            return 0, 0
        ranked = sorted(sources.items())
        first = [next((c[d] for _, c in ranked if c[d]), 0) for d in (0, 1)]
        return first[0], first[1]

    def up_down(self, client: tuple[bytes, int], until_ns: int | None = None) -> tuple[int, int]:
        """``total`` from and to the end ``client``."""
        low, high = self.total(until_ns)
        return (low, high) if self.low == client else (high, low)

    def total(self, until_ns: int | None = None) -> tuple[int, int]:
        """All that counts so far, or up to the end of the minute of ``until_ns``."""
        low, high = self.folded
        for minute in self.minutes:
            if until_ns is not None and minute > until_ns // MINUTE_NS:
                continue
            up, down = self.of_minute(minute)
            low, high = low + up, high + down
        return low, high

    def fold(self, before: int) -> bool:
        """Fold minutes before ``before``: their sources can no longer be told apart.  Whether any was."""
        old = [m for m in self.minutes if m < before]
        for minute in old:
            up, down = self.of_minute(minute)
            self.folded[0] = min(self.folded[0] + up, MOST_FOLDED)
            self.folded[1] = min(self.folded[1] + down, MOST_FOLDED)
            del self.minutes[minute]
        return bool(old)


def spread(span: tuple[int, int], amount: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Cut ``amount`` by the minutes that ``span`` touches, in proportion to the time in each."""
    first, last = span
    length = max(1, last - first)
    done = (0, 0)
    for minute in range(first // MINUTE_NS, last // MINUTE_NS + 1):
        upto = min(last, (minute + 1) * MINUTE_NS) - first
        goal = amount if minute == last // MINUTE_NS else (
            amount[0] * upto // length,
            amount[1] * upto // length,
        )  # fmt: skip
        yield minute, (goal[0] - done[0], goal[1] - done[1])
        done = goal


class Counts(msgspec.Struct):
    """What the meter of mining bytes met; the shell shows them as metrics."""

    rows: int = 0
    kept: int = 0
    copies: int = 0
    clamped: int = 0
    cut_short: int = 0
    dropped: int = 0


class Meter:
    """Keeps the bytes of connections that may be mining, bounded in number and age.

    At most ``most`` connections; the one touched longest ago is dropped and counted.  A record longer than
    ``longest_ns`` is cut to its end (and counted), so that one hostile record cannot make a million minutes;
    beyond ``most_minutes`` a connection's older minutes are folded.  ``moved`` takes the subscribers of whom
    what is kept changed.
    """

    def __init__(
        self,
        most: int = 200_000,
        retain_ns: int = 60 * MINUTE_NS,
        longest_ns: int = 120 * MINUTE_NS,
        most_minutes: int = 256,
        moved: set[bytes] | None = None,
    ) -> None:
        self.links: dict[tuple[bytes, Ends], Link] = {}
        self.moved: set[bytes] = set() if moved is None else moved
        self._of: dict[bytes, dict[Ends, None]] = {}
        self.counts = Counts()
        self._most = most
        self._retain_ns = retain_ns
        self._longest_ns = longest_ns
        self._most_minutes = most_minutes

    def step(self, rows: wire.Batch, known: Sequence[int] = ()) -> None:
        """Take in one ``flows`` batch; ``known`` are its rows at known endpoints."""
        self.counts.rows += rows.num_rows
        wanted = wire.values(rows, "candidate") != 0
        wanted[list(known)] = True
        copies = wire.values(rows, "copy") != 0
        self.counts.copies += int(np.count_nonzero(wanted & copies))
        chosen = np.flatnonzero(wanted)
        if chosen.size:
            self._keep(rows, chosen)

    def _keep(self, rows: wire.Batch, chosen: np.ndarray) -> None:
        names = ("subscriber", "src", "dst", "src_port", "dst_port", "protocol", "t_first", "t_last",
                 "t_received", "bytes", "reverse_bytes", "sampling_rate", "source", "exporter")  # fmt: skip
        column = {n: wire.values(rows, n)[chosen] for n in names}
        has_reverse = wire.valid(rows, "reverse_bytes")[chosen]
        has_rate = wire.valid(rows, "sampling_rate")[chosen]
        collectors = wire.texts(rows, "collector")
        for i in range(chosen.size):
            src = (column["src"][i].tobytes(), int(column["src_port"][i]))
            dst = (column["dst"][i].tobytes(), int(column["dst_port"][i]))
            ends = ends_of(src, dst, int(column["protocol"][i]))
            rate = int(column["sampling_rate"][i]) if has_rate[i] else 1
            if column["source"][i] == 0:
                source = (0, collectors[chosen[i]] or "")
            else:
                source = (max(1, rate), column["exporter"][i].tobytes().hex())
            there = int(column["bytes"][i]) * max(1, rate)
            back = int(column["reverse_bytes"][i]) * max(1, rate) if has_reverse[i] else 0
            link = self._link((column["subscriber"][i].tobytes(), ends))
            span = self._span(
                int(column["t_first"][i]), int(column["t_last"][i]), int(column["t_received"][i])
            )
            link.add(source, span, (there, back) if ends[0] == src else (back, there))
            link.estimated = link.estimated or rate > 1
            if len(link.minutes) > self._most_minutes:
                link.fold(sorted(link.minutes)[-self._most_minutes // 2])
        self.counts.kept += int(chosen.size)

    def _span(self, first: int, last: int, received: int) -> tuple[int, int]:
        """Stamps more than 60 s ahead of receive time are clamped to it; both are counted."""
        if last > received + MINUTE_NS:
            last = received
            self.counts.clamped += 1
        first = min(first, last)
        if last - first > self._longest_ns:
            first = last - self._longest_ns
            self.counts.cut_short += 1
        return first, last

    def _link(self, key: tuple[bytes, Ends]) -> Link:
        link = self.links.pop(key, None) or Link(low=key[1][0])
        self._put(key, link)
        return link

    def _put(self, key: tuple[bytes, Ends], link: Link) -> None:
        self.links[key] = link
        of = self._of.setdefault(key[0], {})
        of.pop(key[1], None)
        of[key[1]] = None
        self.moved.add(key[0])
        while len(self.links) > self._most:
            self._forget(next(iter(self.links)))
            self.counts.dropped += 1

    def _forget(self, key: tuple[bytes, Ends]) -> None:
        del self.links[key]
        of = self._of[key[0]]
        del of[key[1]]
        if not of:
            del self._of[key[0]]
        self.moved.add(key[0])

    def close(self, watermark_ns: int, mining: Callable[[tuple[bytes, Ends]], bool]) -> None:
        """Fold what is older than the retention, and forget what turned out not to be mining."""
        before = watermark_ns - self._retain_ns
        gone = []
        for key, link in self.links.items():
            if link.last_ns < before and not mining(key):
                gone.append(key)
            elif link.fold(before // MINUTE_NS):
                self.moved.add(key[0])
        for key in gone:
            self._forget(key)

    def state(self, subscriber: bytes) -> list[tuple[Ends, Link]]:
        """What a state record of the subscriber carries, the one touched longest ago first.  It shares its
        values with the meter."""
        return [(ends, self.links[subscriber, ends]) for ends in self._of.get(subscriber, ())]

    def restore(self, subscriber: bytes, links: Iterable[tuple[Ends, Link]]) -> None:
        """Take a subscriber's connections, in place of what is known of them."""
        for ends, link in links:
            if len(link.minutes) > self._most_minutes:
                link.fold(sorted(link.minutes)[-self._most_minutes // 2])
            self.links.pop((subscriber, ends), None)
            self._put((subscriber, ends), link)
