"""Running totals over all runs of a process: what the metrics show.

What engines tell in; counters and the latest minute out.  Plain numbers, so that the exporter only
renders.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec

from detector.clock import MINUTE_NS
from detector.document import Incident
from detector.endpoints import Endpoints
from detector.engine import Engine, Told
from detector.minutes import Label, PlaceLabel

CountKey = tuple[str, str]  # name, reason ("" where there is none)


def counts_of(engine: Engine) -> Counter[CountKey]:
    """Every counter of the core, named as its metric; of an index that engines share, nothing."""
    parts: dict[str, msgspec.Struct] = {
        "arrivals": engine.arrivals.counts,
        "meter": engine.meter.counts,
        "payload": engine.payload.stats,
        "admission": engine.payload.admission.stats,
        "names": engine.names.stats,
        "sightings": engine.sightings.stats,
        "contacts": engine.endpoints.stats,
        "shape": engine.shape.stats,
        "noise": engine.noise.stats,
        "learner": engine.learner.stats,
        "store_dropped": engine.judge.store.dropped,
    }
    if engine.owns_index:
        parts["endpoints"] = engine.index.stats
    return _named(parts)


def _named(parts: Mapping[str, msgspec.Struct]) -> Counter[CountKey]:
    out: Counter[CountKey] = Counter()
    for part, counts in parts.items():
        for field in counts.__struct_fields__:
            value = getattr(counts, field)
            if isinstance(value, int):
                out[f"{part}_{field}", ""] = value
            else:
                out.update({(f"{part}_{field}", str(reason)): n for reason, n in value.items()})
    return out


class Run:
    """One engine while it runs; its documents and counts once it has ended."""

    def __init__(self, engine: Engine, name: str, *, live: bool = False) -> None:
        self.name = name
        self.live = live
        self.engine: Engine | None = engine
        self._documents: list[Incident] = []
        self.minute: Counter[Label] = Counter()
        self.minute_number: int | None = None
        self._counts: Counter[CountKey] = Counter()
        self._evidence: Counter[tuple[str, str]] = Counter()

    def end(self) -> None:
        """Keep what was found, let go of the machinery."""
        if self.engine is not None:
            self._documents = self.engine.documents()
            self._counts = counts_of(self.engine)
            self._evidence = self.engine.evidence
            self.engine = None

    def documents(self) -> list[Incident]:
        """The incidents of this run."""
        return self.engine.documents() if self.engine is not None else self._documents

    def counts(self) -> Counter[CountKey]:
        """Counters of the engine's parts, by metric name."""
        return counts_of(self.engine) if self.engine is not None else self._counts

    def evidence(self) -> Counter[tuple[str, str]]:
        """How often each kind and rule spoke."""
        return self.engine.evidence if self.engine is not None else self._evidence


class Totals:
    """Sums over runs."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.bytes: Counter[Label] = Counter()
        self.bytes_by_place: Counter[PlaceLabel] = Counter()
        self.transitions: Counter[str] = Counter()
        self._counts: Counter[CountKey] = Counter()
        self._evidence: Counter[tuple[str, str]] = Counter()
        self.shared_index: Endpoints | None = None

    def start(self, engine: Engine, name: str, *, live: bool = False) -> Run:
        """A new run begins: of a replay, or of live links."""
        run = Run(engine, name, live=live)
        self.runs.append(run)
        return run

    def drop(self, run: Run) -> None:
        """Forget a run: its partition was given to another, or its replay is over.  Its counts stay."""
        self.runs.remove(run)
        self._counts.update(run.counts())
        self._evidence.update(run.evidence())

    def counts(self) -> Counter[CountKey]:
        """Counters of all engines, by metric name."""
        out = Counter(self._counts)
        if self.shared_index is not None:
            out.update(_named({"endpoints": self.shared_index.stats}))
        for run in self.runs:
            out.update(run.counts())
        return out

    def evidence(self) -> Counter[tuple[str, str]]:
        """How often each kind and rule spoke."""
        out = Counter(self._evidence)
        for run in self.runs:
            out.update(run.evidence())
        return out

    def take(self, run: Run, told: Told) -> None:
        """Add what one step told."""
        for made in told.transitions:
            self.transitions[made.to] += 1
        for minute in told.minutes:
            self.bytes.update(minute.gained)
            self.bytes_by_place.update(minute.gained_by_place)
            run.minute = minute.bytes
            run.minute_number = minute.number

    def documents(self) -> list[Incident]:
        """The incidents of all runs."""
        return [d for run in self.runs for d in run.documents()]

    def watermark_ns(self) -> int | None:
        """The least advanced watermark of the engines that run; of those of live links where there are any
        that have heard a clock."""
        running = [(run.live, run.engine.watermark.value_ns) for run in self.runs if run.engine is not None]
        live = [at for is_live, at in running if is_live and at > 0]
        return min(live or [at for _, at in running], default=None)

    def minute(self) -> tuple[Counter[Label], float | None]:
        """Bytes of each run's latest closed minute, and when the newest of those ended (Unix s); None before
        the first data, of which there is a time."""
        total: Counter[Label] = Counter()
        # A link that was opened and has heard nothing yet closes a minute before all time.
        numbers = [run.minute_number for run in self.runs if (run.minute_number or 0) > 0]
        for run in self.runs:
            total.update(run.minute)
        return total, (max(n for n in numbers if n) + 1) * MINUTE_NS / 1e9 if numbers else None
