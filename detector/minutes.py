"""Closed minutes: the bytes of mining connections by coin, operator and place, minute by minute.

The meter's connections and the store's sessions in; sums of a closed minute, and what is to be added to
the running totals, out.
"""

from collections import Counter

import msgspec

from detector import coins
from detector.attribution import Place
from detector.clock import MINUTE_NS
from detector.evidence import Contact, SessionFacts
from detector.measures import Ends, Link

UNKNOWN = "unknown"

Label = tuple[str, str, str, str]  # direction, coin, operator, basis
PlaceLabel = tuple[str, str, str, str]  # direction, sector, city, basis


class Minute(msgspec.Struct):
    """Bytes of one closed minute (its number since the epoch), and what the totals gain with it."""

    number: int
    bytes: Counter[Label]
    gained: Counter[Label]
    gained_by_place: Counter[PlaceLabel]


class Entry(msgspec.Struct, frozen=True):
    """What a connection's bytes are counted under; ``client_low`` tells which end is the subscriber's."""

    coin: str
    operator: str
    basis: str
    sector: str
    city: str
    client_low: bool


class Mining(msgspec.Struct, frozen=True):
    """A connection that counts as mining: by its payload, or by its endpoint alone (``facts`` is None)."""

    facts: SessionFacts | None
    contact: Contact | None
    place: Place | None

    @property
    def who(self) -> SessionFacts | Contact:
        """Whichever knows the ends; payload first."""
        return self.facts or self.contact  # type: ignore[return-value]


def entry(mining: Mining, link: Link, *, client_low: bool) -> Entry:
    """The label of one mining connection."""
    facts, contact, place = mining.facts, mining.contact, mining.place
    heard = "protocol" if facts is not None else "endpoint"
    return Entry(
        coins.of(facts, contact).coin or UNKNOWN,
        (contact.operator if contact is not None else None) or UNKNOWN,
        "estimate" if link.is_estimated() else heard,
        (place.sector if place else "") or UNKNOWN,
        (place.city if place else "") or UNKNOWN,
        client_low,
    )


class Minutes:
    """Closes minutes as the watermark passes them by ``lateness_ns``, the age of the latest flow record."""

    def __init__(self, lateness_ns: int, moved: set[bytes] | None = None) -> None:
        """``moved`` takes the subscribers whose bytes were told."""
        self.closed: int | None = None
        self.moved: set[bytes] = set() if moved is None else moved
        self._lateness_ns = lateness_ns

    def due(self, watermark_ns: int) -> int | None:
        """The newest minute that is over, or None where it was closed already."""
        minute = (watermark_ns - self._lateness_ns) // MINUTE_NS - 1
        return minute if self.closed is None or minute > self.closed else None

    def close(
        self,
        minute: int,
        mining: dict[tuple[bytes, Ends], Mining],
        links: dict[tuple[bytes, Ends], Link],
    ) -> Minute:
        """Sum up ``minute``, and all that older minutes have gained since they were closed."""
        out = Minute(minute, Counter(), Counter(), Counter())
        self.closed = minute
        for key, one in mining.items():
            link = links.get(key)
            # A pool's clients are counted, where they are home.
            if link is None or one.who.role == "pool":
                continue
            if self._add(out, entry(one, link, client_low=key[1][0] == one.who.client), link):
                self.moved.add(key[0])
        return out

    @staticmethod
    def _add(out: Minute, label: Entry, link: Link) -> bool:
        """Whether the totals gain by it."""
        gained = False
        upto = link.total(out.number * MINUTE_NS)
        now = link.of_minute(out.number)
        up = 0 if label.client_low else 1
        for direction, index in (("up", up), ("down", 1 - up)):
            key = (direction, label.coin, label.operator, label.basis)
            if now[index]:
                out.bytes[key] += now[index]
            new = upto[index] - link.told[index]
            if new > 0:
                out.gained[key] += new
                out.gained_by_place[(direction, label.sector, label.city, label.basis)] += new
                link.told[index] = upto[index]
                gained = True
        return gained
