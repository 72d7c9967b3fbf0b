"""The flow collector: export datagrams in; batches of the stream ``flows`` out.

It gathers datagrams for a moment, walks and reads them by compiled passes, and publishes per partition.  It
opens nothing and reads no clock: time is the newest receive stamp of the datagrams, or what it is told.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry

from collectors import subscribers, wire
from collectors.bus import Publisher
from collectors.netflow import walking
from collectors.netflow.budget import NEWS, Purses
from collectors.netflow.datagrams import STREAM, Block, Datagram, block, by_port, joined
from collectors.netflow.decoding import X_HEARD, X_LONGEST, X_LONGEST_BEFORE, X_MOVED, X_NEWEST
from collectors.netflow.domains import D_EXPORTER
from collectors.netflow.holding import Holding
from collectors.netflow.index import GONE
from collectors.netflow.knowledge import Knowledge
from collectors.netflow.metrics import Metrics, text
from collectors.netflow.overrides import Overrides
from collectors.netflow.rows import AHEAD_NS, Believed, Reader, Rows, Run, Spans, cut
from collectors.netflow.sequences import EVER, N_OPTIONS, PER_PROTOCOL, WAIT_NS, expire
from collectors.netflow.settings import Config, mapped
from collectors.netflow.sflow import rows as sflow
from collectors.netflow.sflow.telling import SampleTeller
from collectors.netflow.tables import Limits, Tables
from collectors.netflow.telling import Teller
from collectors.netflow.templates import Bounds, Template
from collectors.outlet import Outlet

_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND
_SPANS: Final = 8192
# So many slots of templates may wait for their release.
_LEFT: Final = 1024
# A third faster to Kafka than a quarter of it: a message then has thousands of rows.
_ROWS: Final = 1 << 18
# Room for any one data set: 65,536 octets of records of one field each.
_MARKS: Final = 1 << 18
_NOTHING: Final = wire.empty("flows")


class Collector:
    """``feed`` datagrams in the order of their receipt, then ``finish``.

    ``transit``, where it is given, is called with batches of the records that have no home end, which the
    stream does not carry; they are its to keep.
    """

    def __init__(
        self,
        config: Config,
        home: subscribers.Home,
        partitions: int,
        publish: Publisher,
        metrics: Metrics,
        frames: sflow.Frames = sflow.no_frames,
        transit: Callable[[wire.Batch], None] | None = None,
    ) -> None:
        self._config = config
        self._transit = transit
        self._partitions = partitions
        self._outlet = Outlet(config.id, home.digest, publish)
        self._metrics = metrics
        self._listed = frozenset(mapped(e) for e in config.exporters)
        limits = Limits(
            max(config.most_exporters, len(self._listed)),
            config.most_domains,
            config.most_domains_of_exporter,
            config.most_ports_of_address,
        )
        self._purses = Purses(config.budget, config.held_bytes)
        overrides = Overrides(config.sampling)
        self._tables = Tables(limits, config.hash_seed, overrides, self._listed, self._purses)
        believed = Believed(
            config.clock_skew_s * _SECOND, config.most_sampling_rate, config.fastest_gigabits_per_s,
            config.longest_record_s * _SECOND,
        )  # fmt: skip
        every = transit is not None
        self._reader = Reader(self._tables, home, partitions, config.id, believed, transit=every)
        self._samples = sflow.Reader(
            home, partitions, config.id, frames, config.most_domains, config.most_sampling_rate,
            transit=every, overrides=overrides,
        )  # fmt: skip
        bounds = Bounds(
            config.most_templates, config.most_templates_of_exporter, config.template_age_s * _SECOND,
            config.most_template_bytes, config.most_template_bytes_of_exporter,
        )  # fmt: skip
        holding = Holding(config.held_bytes, config.held_s * _SECOND)
        self._known = Knowledge(self._tables, bounds, holding, metrics, config.most_sampling_rate)
        self._teller = Teller(self._tables, metrics)
        self._sample_teller = SampleTeller(self._samples, metrics)
        self._cursor = np.zeros(walking.CURSOR, np.int64)
        self._spans = np.zeros((_SPANS, walking.SPAN), np.int64)
        self._marks = np.zeros(_MARKS, np.int64)
        self._counters = np.zeros(walking.COUNTERS, np.int64)
        self._counted = self._counters.copy()
        self._late_template: Template | None = None
        self._waiting: list[Block] = []
        self._clocks: tuple[wire.Clock, ...] = ()
        self._now_ns = 0
        self._first_ns = 0
        self._told_ns = 0
        self._aged_ns = 0
        self._longest_ns = 0

    def rehome(self, home: subscribers.Home) -> None:
        """Give rows to the ends that are home by these networks from now on."""
        self._outlet.rehome(home.digest)
        self._reader.rehome(home)
        self._samples.rehome(home)

    def feed(self, datagrams: Sequence[Datagram] | Block, now_ns: int | None = None) -> None:
        """Take datagrams, or none.  ``now_ns`` is the time on a live link; without it, the data's."""
        given = datagrams if isinstance(datagrams, Block) else block(datagrams)
        for first, last in self._cuts(given):
            part = given.part(first, last)
            if not self._waiting:
                self._first_ns = int(part.t_ns[0])
            self._waiting.append(part)
            self._now_ns = max(self._now_ns, int(part.t_ns.max()))
            self._send_due()
        if now_ns is not None:
            self._now_ns = max(self._now_ns, now_ns)
            self._send_due()

    def finish(self) -> None:
        """The input is over: publish what waits, and the time."""
        self._send(everywhere=True, ends=True)

    @property
    def revision(self) -> int:
        """Goes up when there is something new to be saved."""
        return self._known.revision

    def saved(self) -> bytes:
        """What was learned of exporters, for ``restore``."""
        return self._known.saved()

    def restore(self, saved: bytes) -> None:
        """Take over what a collector before this one had learned.  Raises DecodeError on bad bytes."""
        self._known.restore(saved)

    def _cuts(self, given: Block) -> Iterator[tuple[int, int]]:
        """Where the data's time enters another second, and no more than a batch at once."""
        if not len(given):
            return
        seconds = np.maximum.accumulate(given.t_ns) // _SECOND
        ends = [*(np.flatnonzero(np.diff(seconds)) + 1).tolist(), len(given)]
        first = 0
        most = self._config.batch_datagrams
        for end in ends:
            for at in range(first, end, most):
                yield at, min(at + most, end)
            first = end

    def _send_due(self) -> None:
        now = self._now_ns
        tell = now // _SECOND > self._told_ns // _SECOND
        many = sum(map(len, self._waiting)) >= self._config.batch_datagrams
        lingers = bool(self._waiting) and now - self._first_ns >= self._config.batch_linger_ms * 1_000_000
        if tell or many or lingers:
            self._send(everywhere=tell)

    def _send(self, *, everywhere: bool, ends: bool = False) -> None:
        """Read and publish what waits; ``everywhere``: each partition is told the time."""
        waiting, self._waiting = self._waiting, []
        told: set[int] = set()
        if waiting:
            told = self._read(self._let_in(joined(waiting)))
        if self._now_ns - self._aged_ns >= _MINUTE:
            self._aged_ns = self._now_ns
            self._known.age(self._now_ns)
        if self._now_ns - self._longest_ns >= self._config.longest_record_s * _SECOND:
            # One odd record does not make everybody wait for ever.
            self._longest_ns = self._now_ns
            clocks = self._tables.clocks
            clocks[:, X_LONGEST_BEFORE], clocks[:, X_LONGEST] = clocks[:, X_LONGEST].copy(), 0
        if everywhere:
            self._told_ns = self._now_ns
            self._clocks = self._clock()
            for part in set(range(self._partitions)) - told:
                self._hand_over(Run(part, 0, 0, self._now_ns, self._now_ns), _NOTHING)
            self._tables.clocks[:, X_MOVED] = 0
            names = {text(address): n for address, n in self._tables.exporters.items()}
            self._metrics.clocks.show(names, self._tables.clocks)
            before = EVER if ends else self._now_ns - WAIT_NS
            expire(self._tables.domains, len(self._tables.domains), before, self._counters)
            self._samples.expire(before)
            self._teller.tell()
            self._sample_teller.tell()
        self._count()

    def _let_in(self, given: Block) -> Block:
        """The datagrams of exporters that may speak and have room, with their numbers."""
        if self._config.port_is_identity:
            given = by_port(given)
        numbers = np.empty(len(given.addresses), np.int64)
        for i, address in enumerate(given.addresses):
            if self._listed and address[:16] not in self._listed:
                numbers[i] = GONE - 1
            else:
                numbers[i] = self._tables.exporter(address, self._now_ns)
        exporter = numbers[given.exporter]
        refused = exporter < 0
        if refused.any():
            for number, why in ((GONE, "no_room"), (GONE - 1, "not_listed")):
                self._metrics.strangers.labels(why).inc(int(np.count_nonzero(exporter == number)))
            keep = ~refused
            port = None if given.port is None else given.port[keep]
            return Block(
                given.data, given.at[keep], given.size[keep], exporter[keep], given.t_ns[keep],
                given.addresses, port,
            )  # fmt: skip
        return replace(given, exporter=exporter)

    def _read(self, given: Block) -> set[int]:
        """Walk the datagrams, read their records, publish; the partitions that were given rows."""
        self._purses.fill(self._now_ns, len(self._tables.exporters))
        given, sampled = sflow.parted(given)
        told = self._sampled(sampled)
        self._cursor[:] = 0
        told |= self._walk(given) | self._rows(given)
        while self._known.late:
            told |= self._late()
        self._tables.release()
        return told

    def _walk(self, given: Block) -> set[int]:
        """Go on from the cursor to the end of the datagrams."""
        told: set[int] = set()
        while True:
            index = self._tables.index
            code = walking.walk(
                given.data, given.at, given.size, given.exporter, given.t_ns, self._cursor, index.keys,
                index.values, index.seed, self._tables.domains, self._tables.slots, self._tables.gaps,
                self._spans, self._marks, _ROWS, self._counters, self._purses.each, self._purses.common,
            )  # fmt: skip
            if code == walking.DONE:
                return told
            told |= self._rows(given) if code == walking.FULL else self._answer(code, given)

    def _answer(self, code: int, given: Block) -> set[int]:
        """Do what the walk could not, and move the cursor past it."""
        c = self._cursor
        t_ns = int(given.t_ns[c[walking.C_DATAGRAM]])
        if code == walking.NEW_DOMAIN:
            exporter = self._tables.identities[int(given.exporter[c[walking.C_DATAGRAM]])]
            version, number = int(c[walking.C_VERSION]), int(c[walking.C_ID])
            if self._tables.domain(exporter, version, number, self._now_ns) == GONE:
                self._metrics.strangers.labels("no_room").inc()
                c[walking.C_DATAGRAM] += 1
            return set()
        told: set[int] = set()
        body = given.data[c[walking.C_BODY] : c[walking.C_BODY_END]].tobytes()
        if code == walking.TEMPLATES:
            stream = given.port is not None and int(given.port[c[walking.C_DATAGRAM]]) & STREAM
            self._known.templates_told(body, c, t_ns, withdraws=bool(stream))
            if self._tables.left > _LEFT:
                # A flood: what it leaves behind is used again before the batch is over.
                told = self._rows(given)
                self._tables.release({late.slot for late in self._known.late})
        elif code == walking.UNKNOWN:
            self._known.unknown(body, c, t_ns)
        else:
            told = self._options(body, given)
        c[walking.C_AT] = c[walking.C_BODY_END]
        return told

    def _options(self, body: bytes, given: Block) -> set[int]:
        """Take options over.  Records before them are read first: they came under the rates before."""
        c, told = self._cursor, set[int]()
        count, options = self._known.options_of(body, c, self._late_template)
        protocol = int(c[walking.C_VERSION]) - 8
        self._counters[protocol * PER_PROTOCOL + N_OPTIONS] += count
        c[walking.C_RECORDS] += count
        domain = int(c[walking.C_DOMAIN])
        if c[walking.C_SPANS] and any(self._known.is_news(domain, said) for said in options):
            told = self._rows(given)
            self._purses.spend(int(self._tables.domains[domain, D_EXPORTER]), NEWS)
        for said in options:
            self._known.options_told(domain, said, self._now_ns)
        return told

    def _late(self) -> set[int]:
        """Read the data sets whose templates have come: the walk goes on where it stopped at each."""
        late, self._known.late = self._known.late, []
        octets = [(b"\0", 0), *((one.held.body, one.held.t_ns) for one in late)]
        # An octet before the first, because place 0 means a header to the walk.
        made = block(Datagram(b, bytes(16), 0, t) for b, t in octets)
        told: set[int] = set()
        for i, (held, template, slot, domain) in enumerate(late, 1):
            if domain not in self._tables.names:
                continue
            filled = self._cursor[walking.FILLED].copy()
            self._cursor[:] = held.cursor
            self._cursor[walking.FILLED] = filled
            self._cursor[walking.C_DATAGRAM] = 0
            self._cursor[walking.C_LATE] = slot + 1
            # Its domain may have been forgotten since, and known again.
            self._cursor[walking.C_DOMAIN] = domain
            self._late_template = template
            self._cursor[walking.C_AT] = made.at[i]
            self._cursor[walking.C_END] = made.at[i] + made.size[i]
            told |= self._walk(made.part(i, i + 1))
            self._late_template = None
            self._metrics.decoded_late.inc()
        return told | self._rows(made)

    def _rows(self, given: Block) -> set[int]:
        """Read and publish the spans that the walk has filled, and empty them."""
        n = int(self._cursor[walking.C_SPANS])
        self._cursor[walking.FILLED] = 0
        if not n:
            return set()
        return self._publish(self._reader.read(Spans(given.data, self._spans[:n], self._marks)))

    def _sampled(self, given: Block) -> set[int]:
        """Read and publish what sFlow datagrams sample."""
        read = self._samples.read(given, self._tables.addresses, self._tables.clocks)
        return {part for rows in read for part in self._publish(rows)}

    def _publish(self, rows: Rows) -> set[int]:
        self._metrics.read(rows.dropped, rows.corrected, rows.future)
        self._metrics.doubted(*rows.doubted)
        self._clocks = self._clock()
        for run, batch in cut(rows):
            if run.partition < self._partitions:
                self._hand_over(run, batch)
            elif self._transit is not None:
                self._transit(batch)
        return {run.partition for run in rows.runs}

    def _clock(self) -> tuple[wire.Clock, ...]:
        """The clocks of exporters that moved since each partition was last told.

        One whose records all ended long ago is believed to be so far behind as a record may be long: the
        watermark is everybody's.
        """
        clocks, most = self._tables.clocks, self._config.longest_record_s * _SECOND
        moved = np.flatnonzero(clocks[:, X_MOVED]).tolist()
        return tuple(
            wire.Clock(
                text(self._tables.identities[n]),
                max(int(clocks[n, X_NEWEST]), int(clocks[n, X_HEARD]) - most),
                min(int(clocks[n, [X_LONGEST, X_LONGEST_BEFORE]].max()), most) + AHEAD_NS,
            )
            for n in moved
        )

    def _hand_over(self, run: Run, rows: wire.Batch) -> None:
        self._metrics.rows.inc(rows.num_rows)
        self._metrics.batches.inc()
        span = run.t_first_ns, run.t_last_ns
        self._outlet.send("flows", run.partition, rows, span, self._now_ns, self._clocks)

    def _count(self) -> None:
        moved = self._counters - self._counted
        self._counted[:] = self._counters
        self._metrics.walked(moved)
        self._metrics.rates_implausible.labels("sflow").inc(self._samples.unlikely)
        self._samples.unlikely = 0
        self._metrics.passed_over(self._purses.refused())
        self._metrics.samples.walked(*self._samples.moved())
        self._known.gauges(self._now_ns)


def warm() -> None:
    """Call every kernel once with next to nothing, so that all are compiled."""
    where = subscribers.home(("127.0.0.0/8",))
    metrics = Metrics(CollectorRegistry())
    collector = Collector(Config(), where, 1, lambda *_: None, metrics)
    # A v9 template of addresses, a name of variable length and a time, and two records of it.
    fields = ((8, 4), (12, 4), (82, 65535), (22, 4))
    template = struct.pack(">HHHH", 0, 8 + 4 * len(fields), 256, len(fields))
    template += b"".join(struct.pack(">HH", *f) for f in fields)
    record = bytes((127, 0, 0, 1, 127, 0, 0, 2, 1, 65, 0, 0, 0, 0))
    data = struct.pack(">HH", 256, 4 + 2 * len(record)) + 2 * record
    header = struct.pack(">HHIIII", 9, 3, 0, 0, 0, 0)
    exporter = bytes(10) + b"\xff\xff\x7f\0\0\1"
    sampled = struct.pack(">7I", 5, 0, 0, 0, 0, 1, 1) + struct.pack(">I", 32) + bytes(32)
    for payload in (header + data, header + template, sampled):
        collector.feed([Datagram(payload, exporter, 0, _SECOND)])
    collector.finish()
