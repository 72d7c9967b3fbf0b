"""Bytes of mining connections, by minute of the data and by direction.

Flow columns in; per connection and minute the bytes that count out.  Only rows that may matter are kept:
those that the collector marked as candidates (later also those of known endpoints).  Both copies of a row
whose both ends are home are kept, each under its subscriber: only the miner's is summed up.  What several
points saw is counted once: ``observation`` has the rule.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from collectors import wire
from detector.clock import MINUTE_NS
from detector.evidence import End
from detector.observation import (
    MOST_POINTS,
    NEVER,
    QUIET_MINUTES,
    Passed,
    Presence,
    Rule,
    Seen,
    SourceKey,
    copies_removed,
    group_of,
    tap,
)

MOST_BYTES: Final = 1 << 54
"""Of one connection, direction, source and minute: more is no traffic, and a state record holds 64 bits."""

MOST_FOLDED: Final = 1 << 62
# So many miners' connections are passed over, at once, for one that gives way.
_TURNS: Final = 8

Ends = tuple[End, End, int]
Both = Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)]
Mark = Annotated[list[int], msgspec.Meta(min_length=3, max_length=3)]
Picked = tuple[list[SourceKey], list[SourceKey]]


def ends_of(a: tuple[bytes, int], b: tuple[bytes, int], protocol: int) -> Ends:
    """The two ends in order, so that both directions name the same connection."""
    return (a, b, protocol) if a <= b else (b, a, protocol)


class Link(msgspec.Struct, array_like=True, gc=False):
    """Bytes of one connection: per minute, per source, [low to high, high to low].

    Minutes older than the retention are folded into ``folded``; ``told`` is what was already published;
    ``estimated`` says that a sampling rate scaled some of what is folded; ``low`` is the lower end.
    ``points`` are the groups that told of it: the lowest sampling rate, and by direction the newest minute
    that is folded.
    """

    minutes: dict[int, dict[SourceKey, Both]] = msgspec.field(default_factory=dict)
    folded: Both = msgspec.field(default_factory=lambda: [0, 0])
    told: Both = msgspec.field(default_factory=lambda: [0, 0])
    first_ns: int = 1 << 62
    last_ns: int = -(1 << 62)
    estimated: bool = False
    low: tuple[bytes, int] | None = None
    points: dict[str, Mark] = msgspec.field(default_factory=dict)

    def add(self, source: SourceKey, span: tuple[int, int], amount: tuple[int, int]) -> bool:
        """Spread ``amount`` evenly over ``span`` (first, last, Unix ns); no byte is lost by rounding.  False
        where a minute has too many sources already: what is left is not added."""
        if not self._note(source):
            return False
        self.first_ns = min(self.first_ns, span[0])
        self.last_ns = max(self.last_ns, span[1])
        for minute, part in spread(span, amount):
            told = self.minutes.setdefault(minute, {})
            if source not in told and len(told) >= MOST_POINTS:
                return False
            counts = told.setdefault(source, [0, 0])
            counts[0] = min(counts[0] + part[0], MOST_BYTES)
            counts[1] = min(counts[1] + part[1], MOST_BYTES)
        return True

    def _note(self, source: SourceKey) -> bool:
        group = group_of(source)
        mark = self.points.get(group)
        if mark is not None:
            mark[0] = min(mark[0], source[0])
        elif len(self.points) < MOST_POINTS:
            self.points[group] = [source[0], NEVER, NEVER]
        else:
            return False
        return True

    def mend(self) -> None:
        """Name the points of a state that was written before there were any."""
        for sources in self.minutes.values():
            for source in sources:
                self._note(source)

    # -- what counts -------------------------------------------------------------------------------

    def _presence(self) -> tuple[Presence, Presence]:
        ranked = sorted(self.points, key=lambda group: (self.points[group][0], group))
        found: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
        for minute in sorted(self.minutes):
            for source, counts in self.minutes[minute].items():
                group = group_of(source)
                for way in (0, 1):
                    told = found[way].setdefault(group, [])
                    if counts[way] and (not told or told[-1] != minute):
                        told.append(minute)
        low, high = (
            Presence(ranked, found[way], {g: mark[1 + way] for g, mark in self.points.items()})
            for way in (0, 1)
        )
        return low, high

    def _picked(self, minutes: Iterable[int]) -> Iterator[tuple[int, Picked]]:
        """Per minute and direction the sources that count."""
        presence = self._presence() if len(self.points) > 1 else None
        for minute in minutes:
            sources = self.minutes.get(minute, {})
            if presence is None:
                only = [*sources] if len(sources) < 2 else None
                yield minute, (only or _firsts(sources, 0), only or _firsts(sources, 1))
                continue
            groups = presence[0].speaker(minute), presence[1].speaker(minute)
            yield minute, (_firsts(sources, 0, groups[0]), _firsts(sources, 1, groups[1]))

    def _sum(self, minute: int, picked: Picked) -> tuple[int, int]:
        sources = self.minutes.get(minute, {})
        return sum(sources[s][0] for s in picked[0]), sum(sources[s][1] for s in picked[1])

    def of_minute(self, minute: int) -> tuple[int, int]:
        """What counts in one minute, by direction."""
        if minute not in self.minutes:
            return 0, 0
        ((_, picked),) = self._picked((minute,))
        return self._sum(minute, picked)

    def counts(self, source: SourceKey, minute: int) -> bool:
        """Whether what a source tells of a minute counts, as far as is known."""
        ((_, picked),) = self._picked((minute,))
        return source in picked[0] or source in picked[1]

    def is_estimated(self) -> bool:
        """Whether a sampling rate scaled some of what counts."""
        if self.estimated or all(rate < 2 for told in self.minutes.values() for rate, _ in told):
            return self.estimated
        return any(_scaled(picked) for _, picked in self._picked(self.minutes))

    def up_down(self, client: tuple[bytes, int], until_ns: int | None = None) -> tuple[int, int]:
        """``total`` from and to the end ``client``."""
        low, high = self.total(until_ns)
        return (low, high) if self.low == client else (high, low)

    def total(self, until_ns: int | None = None) -> tuple[int, int]:
        """All that counts so far, or up to the end of the minute of ``until_ns``."""
        low, high = self.folded
        last = None if until_ns is None else until_ns // MINUTE_NS
        for minute, picked in self._picked(m for m in self.minutes if last is None or m <= last):
            up, down = self._sum(minute, picked)
            low, high = low + up, high + down
        return low, high

    def fold(self, before: int) -> bool:
        """Fold minutes before ``before``: their sources can no longer be told apart.  Whether any was."""
        old = sorted(m for m in self.minutes if m < before)
        for minute, picked in list(self._picked(old)):
            up, down = self._sum(minute, picked)
            self.folded[0] = min(self.folded[0] + up, MOST_FOLDED)
            self.folded[1] = min(self.folded[1] + down, MOST_FOLDED)
            self.estimated = self.estimated or _scaled(picked)
        for minute in old:
            for source, counts in self.minutes.pop(minute).items():
                mark = self.points.setdefault(group_of(source), [source[0], NEVER, NEVER])
                for way in (0, 1):
                    if counts[way]:
                        mark[1 + way] = max(mark[1 + way], minute)
        if old:
            self._forget_points(before)
        return bool(old)

    def _forget_points(self, before: int) -> None:
        """Points that were folded so long ago that they say nothing any more."""
        there = {group_of(source) for sources in self.minutes.values() for source in sources}
        for group, mark in list(self.points.items()):
            if group not in there and max(mark[1:]) < before - QUIET_MINUTES - 1:
                del self.points[group]


def _firsts(sources: dict[SourceKey, Both], way: int, group: str | None = "") -> list[SourceKey]:
    """The sources of a minute that count in one direction: of a group, or of all ("") of the only one."""
    if group is None:
        return []
    told = (s for s, counts in sources.items() if counts[way] and (not group or group_of(s) == group))
    return copies_removed(told)


def _scaled(picked: Picked) -> bool:
    return any(rate > 1 for sources in picked for rate, _ in sources)


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
    passed_over: dict[str, int] = msgspec.field(default_factory=lambda: {str(r): 0 for r in Passed})


_FIXED: Final = (
    "subscriber", "src", "dst", "src_port", "dst_port", "protocol", "t_first", "t_last", "t_received",
    "bytes", "source",
)  # fmt: skip
_NULLABLE: Final = (
    "reverse_bytes", "sampling_rate", "exporter", "domain", "input_interface", "output_interface",
    "direction",
)  # fmt: skip


def _told(rows: wire.Batch, name: str, chosen: np.ndarray) -> list[Any]:
    """The chosen cells of a nullable column as plain values, None where they are null."""
    values = wire.values(rows, name)
    if not len(values):
        return [None] * chosen.size
    cells = values[chosen]
    plain = [c.tobytes() for c in cells] if cells.ndim == 2 else cells.tolist()
    return [c if ok else None for c, ok in zip(plain, wire.valid(rows, name)[chosen], strict=True)]


class Meter:
    """Keeps the bytes of connections that may be mining, bounded in number and age.

    At most ``most`` connections; of those that are nobody's mining yet the one touched longest ago is dropped
    and counted.  A record longer than
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
        rule: Rule | None = None,
    ) -> None:
        self._rule = rule or Rule()
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
        column = {n: wire.values(rows, n)[chosen] for n in _FIXED}
        told = {n: _told(rows, n, chosen) for n in _NULLABLE}
        collectors = rows.column("collector")
        for i in range(chosen.size):
            rate = told["sampling_rate"][i] or 1
            collector = collectors[int(chosen[i])].as_py() or ""
            source = self._source(int(column["source"][i]), {n: told[n][i] for n in _NULLABLE}, collector)
            if isinstance(source, Passed):
                self.counts.passed_over[source] += 1
                continue
            src = (column["src"][i].tobytes(), int(column["src_port"][i]))
            dst = (column["dst"][i].tobytes(), int(column["dst_port"][i]))
            ends = ends_of(src, dst, int(column["protocol"][i]))
            there = int(column["bytes"][i]) * rate
            back = (told["reverse_bytes"][i] or 0) * rate
            link = self._link((column["subscriber"][i].tobytes(), ends))
            span = self._span(
                int(column["t_first"][i]), int(column["t_last"][i]), int(column["t_received"][i])
            )
            self._add(link, source, span, (there, back) if ends[0] == src else (back, there))
            self.counts.kept += 1

    def _source(self, kind: int, told: dict[str, Any], collector: str) -> SourceKey | Passed:
        if kind == 0:
            return tap(collector)
        seen = Seen(
            told["sampling_rate"] or 1, told["exporter"], told["domain"], told["input_interface"],
            told["output_interface"], told["direction"], collector,
        )  # fmt: skip
        return self._rule.source(seen)

    def _add(self, link: Link, source: SourceKey, span: tuple[int, int], amount: tuple[int, int]) -> None:
        if not link.add(source, span, amount):
            self.counts.passed_over[Passed.POINTS] += 1
        elif any(amount) and not link.counts(source, span[1] // MINUTE_NS):
            self.counts.passed_over[Passed.SECOND] += 1
        if len(link.minutes) > self._most_minutes:
            link.fold(sorted(link.minutes)[-self._most_minutes // 2])

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
            self._forget(self._oldest())
            self.counts.dropped += 1

    def _oldest(self) -> tuple[bytes, Ends]:
        """The one touched longest ago.  A miner's, whose bytes were published, has another turn: one-packet
        connections by the million would take its place."""
        for _ in range(_TURNS):
            key = next(iter(self.links))
            if not any(self.links[key].told):
                return key
            self.links[key] = self.links.pop(key)
        return next(iter(self.links))

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
            link.mend()
            if len(link.minutes) > self._most_minutes:
                link.fold(sorted(link.minutes)[-self._most_minutes // 2])
            self.links.pop((subscriber, ends), None)
            self._put((subscriber, ends), link)
