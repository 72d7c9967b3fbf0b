"""Sightings of known endpoints in, evidence of identity out: one per connection, kind and minute.

Identity says with whom a subscriber spoke, not what about: it never confirms by itself.
"""

import msgspec

from detector.endpoints import LEARNED, LISTED, RESOLVED
from detector.evidence import Evidence, Seen
from detector.observers import words
from detector.sightings import MINUTE_NS, Recent, Sighting

KINDS = {LISTED: "listed_endpoint", RESOLVED: "resolved_endpoint", LEARNED: "learned_endpoint"}
WEAK = "shared_endpoint"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the endpoint observer."""

    remembered: int = 65_536  # connection-minutes that were told


class Stats(msgspec.Struct):
    """What moved, for the shell to read."""

    sightings: int = 0
    told: int = 0
    repeated: int = 0
    no_data: int = 0


class EndpointObserver:
    """Sees with whom subscribers speak.  ``step`` is its verb."""

    def __init__(self, config: Config | None = None, moved: set[bytes] | None = None) -> None:
        """``moved`` takes the subscribers of whom what is kept changed."""
        self.config = config or Config()
        self.stats = Stats()
        self.told = Recent(self.config.remembered, moved)

    def step(self, sightings: list[Sighting]) -> Seen:
        """Take the sightings of one batch.  Several exporters tell of one connection: once counts."""
        fresh: dict[tuple, list[Sighting]] = {}
        for sight in sightings:
            self.stats.sightings += 1
            if not sight.carried:
                self.stats.no_data += 1
                continue
            key = (sight.subscriber, sight.connection, _kind(sight), sight.last_ns // MINUTE_NS)
            if key in fresh or self.told.is_new(key):
                fresh.setdefault(key, []).append(sight)
            else:
                self.stats.repeated += 1
        self.stats.told += len(fresh)
        return Seen(tuple(_evidence(key[2], sights) for key, sights in fresh.items()))


def _kind(sight: Sighting) -> str:
    return WEAK if sight.weak else KINDS[sight.entry.origin]


def _evidence(kind: str, sights: list[Sighting]) -> Evidence:
    first = sights[0]
    return Evidence(
        subscriber=first.subscriber,
        kind=kind,
        rule=first.entry.kind,
        connection=first.connection,
        first_ns=min(s.first_ns for s in sights),
        last_ns=max(s.last_ns for s in sights),
        count=len(sights),
        role=first.role,
        why=_why(first),
    )


def _why(sight: Sighting) -> str:
    entry = sight.entry
    packets, octets = (a + b for a, b in zip(sight.up, sight.down, strict=True))
    sampled = f", 1 packet in {sight.rate} looked at" if sight.rate > 1 else ""
    hint = ", which others may share" if sight.weak else ""
    return (
        f"flow records only: {packets} packets, {octets} bytes with {words.end(sight.endpoint)}, "
        f"{_known(entry.origin, entry.name, entry.operator)}{hint} ({sight.source}{sampled})"
    )


def _known(origin: str, name: str | None, operator: str | None) -> str:
    if origin == LEARNED:
        return "learned from sessions that mined there"
    said = words.clean(name or "an address")
    return f"{origin} as {said}" + (f" of {words.clean(operator)}" if operator and operator != name else "")
