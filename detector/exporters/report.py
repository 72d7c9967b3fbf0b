"""Incidents as a table for people, and as one JSON document for programs."""

from collections import Counter
from collections.abc import Sequence

import msgspec
from rich.table import Table
from rich.text import Text

from detector.document import Bytes, Incident, latest
from detector.explain import quantity
from detector.hashrate import DailyEnergy, HashRate, Power, added, covered_s, kwh_per_day, power
from detector.incidents import OPEN, State

MOST_ROWS = 200
COLUMNS = (
    ("subscriber", "left"), ("state", "left"), ("belief", "right"), ("dialect", "left"),
    ("algorithm", "left"), ("hash rate (95 %)", "left"), ("shares", "right"), ("bytes", "right"),
    ("service", "left"), ("worker", "left"),
)  # fmt: skip
# What a narrow terminal does without, in this order; and what is between columns.
NARROW = ("worker", "belief", "bytes", "dialect", "service", "shares", "algorithm")
GAP = 2
STYLE = {State.CONFIRMED: "bold red", State.SUSPECTED: "yellow", State.RESOLVED: "green"}


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one file held.  ``cut`` counts packets of which a snap length cut something off;
    ``mining_mbps`` is over the span of the stamps, ``first_ns`` to ``last_ns``."""

    path: str
    packets: int
    flows: int
    bytes: int
    refused: dict[str, int]
    cut: int = 0
    first_ns: int = 0
    last_ns: int = 0
    mining_mbps: float = 0.0
    error: str | None = None


class ScanIncident(msgspec.Struct, frozen=True):
    """An incident and the file it was seen in."""

    file: str
    incident: Incident


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over subscribers.  ``mbps`` is over the time that the files cover, counted once where they
    overlap; rates and watts are of open incidents, the newest of each subscriber."""

    confirmed: int
    suspected: int
    resolved: int
    bytes: Bytes
    mbps: float
    hashrate: tuple[HashRate, ...]
    power_watts: Power | None
    kwh_per_day: DailyEnergy | None


def summary(incidents: Sequence[Incident], files: Sequence[FileReport]) -> Summary:
    """Add up.  A proxy's hash rate is its clients' and is left out; pools are no miners."""
    miners = [d for d in incidents if d.role != "pool"]
    newest = latest(miners)
    counts = Counter(d.state for d in newest)
    measured = [d for d in newest if d.role == "miner" and d.state in OPEN]
    by: dict[str, list[HashRate]] = {}
    for document in measured:
        for rate in document.hashrate:
            by.setdefault(rate.algorithm, []).append(rate)
    watts = [d.power_watts for d in measured if d.power_watts is not None]
    counted = Bytes(sum(d.bytes.up for d in miners), sum(d.bytes.down for d in miners))
    seconds = covered_s((f.first_ns, f.last_ns) for f in files)
    total = Power(*(sum(getattr(w, f) for w in watts) for f in Power.__struct_fields__)) if watts else None
    return Summary(
        confirmed=counts[State.CONFIRMED],
        suspected=counts[State.SUSPECTED],
        resolved=counts[State.RESOLVED],
        bytes=counted,
        mbps=(counted.up + counted.down) * 8 / 1e6 / seconds if seconds else 0.0,
        hashrate=tuple(added(name, rates) for name, rates in sorted(by.items())),
        power_watts=total,
        kwh_per_day=kwh_per_day(total),
    )


def scan_json(files: Sequence[FileReport], found: Sequence[ScanIncident]) -> bytes:
    """The document of ``poolwatch scan --json``."""
    incidents = [{"file": f.file, **msgspec.to_builtins(f.incident)} for f in found]
    total = summary([f.incident for f in found], files)
    return msgspec.json.format(
        msgspec.json.encode({"files": files, "incidents": incidents, "summary": total}), indent=2
    )


def nothing(files: Sequence[FileReport]) -> str:
    """What to say where no incident is: what was not read cannot be known."""
    unread = sum(f.error is not None for f in files)
    if unread == len(files):
        return "nothing was read"
    return "no mining found" + (f"; {unread} of {len(files)} files could not be read" if unread else "")


def table(
    found: Sequence[ScanIncident], title: str | None = None, most: int = MOST_ROWS, width: int | None = None
) -> Table:
    """One row an incident, the surest first; in less than their ``width`` without the columns of NARROW, as
    many of them as need be."""
    # Names are the wire's and files' own: text, never markup.
    out = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    ordered = sorted(found, key=lambda f: (-f.incident.belief, f.incident.subscriber))
    rows = [[c if isinstance(c, Text) else Text(c) for c in _row(f.incident)] for f in ordered[:most]]
    widths = [max(len(name), *(len(row[i]) for row in rows), 0) for i, (name, _) in enumerate(COLUMNS)]
    shown = list(range(len(COLUMNS)))
    names = [name for name, _ in COLUMNS]
    left_out = []
    for name in NARROW:
        if width is None or sum(widths[i] + GAP for i in shown) - GAP <= width:
            break
        shown.remove(names.index(name))
        left_out.append(name)
    if left_out:
        out.caption = Text(f"not shown, the terminal is narrow: {', '.join(left_out)}")
    for i in shown:
        out.add_column(names[i], justify=COLUMNS[i][1], overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        out.add_row(*(row[i] for i in shown))
    return out


def _row(d: Incident) -> tuple[Text | str, ...]:
    rates = [
        f"{quantity(r.value, r.unit)} ({quantity(r.low, '').strip()}-{quantity(r.high, '').strip()})"
        if r.value is not None
        else f"< {quantity(r.high, r.unit)}"
        for r in d.hashrate
    ]
    shares = f"{d.shares.accepted}" + (f"+{d.shares.rejected}r" if d.shares.rejected else "")
    return (
        d.subscriber,
        Text(d.state.value, STYLE.get(d.state, "")),
        f"{d.belief:.4f}",
        ", ".join(d.dialects) or "-",
        ", ".join(d.algorithms) or "unknown",
        "; ".join(rates) or "-",
        shares + (f" ({d.shares.verified} verified)" if d.shares.verified else ""),
        str(d.bytes.up + d.bytes.down),
        ", ".join(f"{s.address}:{s.port}" for s in d.services[:2]) or "-",
        ", ".join(_printable(w) for w in d.workers[:2]) or "-",
    )


def _printable(text: str, most: int = 20) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def summary_lines(total: Summary) -> list[str]:
    """The figures of the report, in words."""
    lines = [
        f"{total.confirmed} confirmed, {total.suspected} suspected, {total.resolved} resolved; "
        f"mining traffic {total.mbps:.6f} Mbit/s, {total.bytes.up + total.bytes.down} bytes"
    ]
    lines += [
        f"  {rate.algorithm}: {quantity(rate.value, rate.unit)} "
        f"({quantity(rate.low, '').strip()} to {quantity(rate.high, rate.unit)})"
        for rate in total.hashrate
        if rate.value is not None
    ]
    if total.power_watts is not None and total.kwh_per_day is not None:
        p, e = total.power_watts, total.kwh_per_day
        lines.append(
            f"  power {quantity(p.typical, 'W')} ({quantity(p.low, 'W')} to {quantity(p.high, 'W')}), "
            f"{e.typical:.3g} kWh a day ({e.low:.3g} to {e.high:.3g})"
        )
    if without := [r.algorithm for r in total.hashrate if r.value is not None and power((r,)) is None]:
        lines.append(f"  power of {', '.join(without)} is not counted: no device is in the table")
    return lines
