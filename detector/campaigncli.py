"""``poolwatch campaigns``: what links incidents, for people and programs.

It reads documents where those of all detectors meet: on the compacted topic of incidents, or in files.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from collectors.kafka import clients, topics
from collectors.kafka.reader import Fetched, TopicReader
from detector.campaigns import Campaign, Campaigns
from detector.config import Config
from detector.document import Incident
from detector.errors import ConfigError, InputError
from detector.explain import quantity
from detector.wording import counted

MOST_SHOWN = 5


class _Scan(msgspec.Struct):
    """What ``scan --json`` prints."""

    incidents: tuple[Incident, ...]


def run(config: Config, options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Print the campaigns; the exit status, 1 where no document could be read of those there are.

    Raises InputError on a file or a topic that cannot be read, ConfigError where neither is named.
    """
    settings = config.campaigns
    if options.least is not None:
        if options.least < 2:
            raise ConfigError("--least must be at least 2")
        settings = msgspec.structs.replace(settings, least_subscribers=options.least)
    if not options.files and config.bus != "kafka":
        raise ConfigError('name files of incidents, or set bus = "kafka" to read the topic')
    campaigns = Campaigns(settings)
    taken = refused = 0
    for document in _files(options.files) if options.files else _topic(config):
        if document is None:
            refused += 1
        else:
            campaigns.take(document)
            taken += 1
    if refused:
        sys.stderr.write(f"poolwatch: {counted(refused, 'document')} could not be read\n")
    found = campaigns.found()
    for one in found:
        say(msgspec.json.encode(one).decode() if options.json else _words(one))
    if not found and not options.json:
        say("no campaign")
    return 1 if refused and not taken else 0


def _files(paths: Iterable[str]) -> Iterator[Incident | None]:
    for path in paths:
        try:
            data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
        yield from documents(data)


def documents(data: bytes) -> Iterator[Incident | None]:
    """The incidents of a file, one JSON object a line or one document of ``scan --json``; None for what is
    none."""
    try:
        yield from msgspec.json.decode(data, type=_Scan).incidents
    except (msgspec.DecodeError, RecursionError):
        for line in data.splitlines():
            if line.strip():
                yield read(line)


def is_live(fetched: Fetched) -> bool:
    """Whether a record of the topic holds a document of live links."""
    return fetched.value is not None and not any(name == "run" for name, _ in fetched.headers)


def read(data: bytes) -> Incident | None:
    """A document, None for what is none."""
    try:
        return msgspec.json.decode(data, type=Incident)
    except (msgspec.DecodeError, RecursionError):
        return None


def _topic(config: Config) -> Iterator[Incident | None]:
    """The latest document of every incident, of live links."""
    kafka = config.kafka
    with clients.admin(kafka, "poolwatch-campaigns") as admin:
        partitions = topics.check(admin, kafka)
    reader = TopicReader(
        clients.consumer(kafka, "poolwatch-campaigns"), "incidents", topics.topic(kafka, "incidents")
    )
    latest: dict[bytes, Incident | None] = {}
    try:
        for fetched in reader.whole(range(partitions)):
            if is_live(fetched):
                latest[fetched.key or b""] = read(fetched.value or b"")
    finally:
        reader.close()
    yield from latest.values()


def _words(one: Campaign) -> str:
    """A campaign for people, a few lines."""
    at = f" at {one.service}" if one.service else ""
    lines = [
        f"{one.id}  {one.kind} {_clean(one.name)}{at}: {one.subscribers} subscribers, {one.at_once} at once, "
        f"{one.confirmed} confirmed, {one.open} open"
    ]
    mined = ", ".join(one.coins or one.algorithms) or "unknown"
    rates = "; ".join(
        f"{quantity(r.value, r.unit)} {r.algorithm}" for r in one.hashrate if r.value is not None
    )
    lines.append(f"  {mined}{f'; {rates}' if rates else ''}; {one.first_seen} to {one.last_seen}")
    watts, energy = one.power_watts, one.kwh_per_day
    if watts is not None and energy is not None:
        lines.append(
            f"  {quantity(watts.typical, 'W')} ({quantity(watts.low, 'W')} to {quantity(watts.high, 'W')}), "
            f"{energy.typical:.3g} kWh a day ({energy.low:.3g} to {energy.high:.3g})"
        )
    places = [f"{p.sector or 'unknown'}, {p.city or 'unknown'}: {p.subscribers}" for p in one.places]
    lines.append(f"  {'; '.join(_clean(p) for p in places[:MOST_SHOWN])}")
    return "\n".join(lines)


def _clean(text: str) -> str:
    """Names are the wire's own."""
    return "".join(c if c.isprintable() else "?" for c in text)[:128]
