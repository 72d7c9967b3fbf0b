"""Campaigns: one wallet, or one pattern of account names at one service, across many subscribers.

Documents in, campaigns out; pure.  That is how a botnet differs from a hobby: many that mine for one purse at
the same time.  Who only changes its address is one at a time, and no campaign.  Names are linked as the
documents tell them: a redacted one keeps its link and hides its text.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from detector.document import Incident
from detector.hashrate import DailyEnergy, HashRate, Power, added, kwh_per_day
from detector.incidents import OPEN, State

MOST_TOLD: Final = 32
MOST_SERVICES: Final = 4
GREW: Final = 1.05

Kind = Literal["wallet", "account"]
KINDS: Final[tuple[Kind, ...]] = ("wallet", "account")
Name = tuple[Kind, str, str]
"""Kind, name, and the service that an account is of ("" for a wallet: it is the same everywhere)."""
Count = Annotated[int, msgspec.Meta(ge=1, le=10**8)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``least_subscribers`` that mine for one name at the same time are a campaign.  A subscriber counts for
    ``age_s`` after it was last seen (of the data's time).  ``links`` of a subscriber with a name are kept."""

    least_subscribers: Annotated[int, msgspec.Meta(ge=2, le=10**6)] = 3
    age_s: Annotated[int, msgspec.Meta(ge=60, le=10**9)] = 86_400
    links: Count = 200_000


class Dropped(msgspec.Struct):
    """Links that made room for newer ones, and documents that could not be read."""

    room: int = 0
    unreadable: int = 0


class Where(msgspec.Struct, frozen=True):
    """How many of its subscribers are of a sector of a city; "" where not known."""

    sector: str
    city: str
    subscribers: int


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """One name across many.  ``at_once`` is the most that mined for it at the same time; ``coins`` are mined,
    rates and power those of the incidents that are open; ``members`` the first of its subscribers."""

    id: str
    kind: Kind
    name: str
    service: str
    subscribers: int
    at_once: int
    confirmed: int
    open: int
    first_seen: str
    last_seen: str
    coins: tuple[str, ...]
    algorithms: tuple[str, ...]
    hashrate: tuple[HashRate, ...]
    power_watts: Power | None
    kwh_per_day: DailyEnergy | None
    places: tuple[Where, ...]
    services: tuple[str, ...]
    members: tuple[str, ...]


class _Member:
    """A subscriber's latest document of those that name one purse, and when it was first and last seen."""

    __slots__ = ("document", "first_s", "last_s")

    def __init__(self, document: Incident, first_s: float, last_s: float) -> None:
        self.document = document
        self.first_s, self.last_s = first_s, last_s


def campaign_id(name: Name) -> str:
    """The same for the same name, in every process."""
    return hashlib.blake2b("\0".join(name).encode("utf-8", "replace"), digest_size=8).hexdigest()


def names_of(document: Incident) -> list[Name]:
    """What a document may be linked by.  A pool's wallets are its clients'."""
    if document.role == "pool":
        return []
    services = list(dict.fromkeys(s.operator or s.name or f"{s.address}:{s.port}" for s in document.services))
    out: list[Name] = []
    for account in document.wallets:
        if not account.link:
            continue
        if account.coins:
            out.append(("wallet", account.link, ""))
        else:
            out += [("account", account.link, service) for service in services[:MOST_SERVICES]]
    return list(dict.fromkeys(out))[:MOST_TOLD]


def at_once(spans: Iterable[tuple[float, float]]) -> int:
    """The most spans that hold one moment."""
    steps = sorted(step for first, last in spans for step in ((first, 0), (last, 1)))
    now = most = 0
    for _, ends in steps:
        now += -1 if ends else 1
        most = max(most, now)
    return most


class Campaigns:
    """Links names with subscribers.  ``take`` documents, ask for ``found``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.dropped = Dropped()
        self.newest_s = 0.0
        self._names: dict[Name, dict[str, _Member]] = {}
        # In the order in which they were last touched.
        self._links: dict[tuple[Name, str], None] = {}
        self._of: dict[str, list[Name]] = {}
        self._sizes: dict[Name, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._links)

    def take(self, document: Incident) -> None:
        """The latest document of an incident.  One that was withdrawn counts no more."""
        subscriber = document.subscriber
        if document.state is State.QUIET:
            self.forget(subscriber)
            return
        try:
            first_s, last_s = (
                datetime.fromisoformat(t).timestamp() for t in (document.first_seen, document.last_seen)
            )
        except ValueError:
            self.dropped.unreadable += 1
            return
        self.newest_s = max(self.newest_s, last_s)
        for name in names_of(document):
            members = self._names.setdefault(name, {})
            before = members.get(subscriber)
            if before is None:
                self._of.setdefault(subscriber, []).append(name)
            elif before.last_s > last_s:
                continue
            members[subscriber] = _Member(document, first_s, last_s)
            self._links.pop((name, subscriber), None)
            self._links[name, subscriber] = None
            if len(self._links) > self.config.links:
                self.dropped.room += 1
                self._cut(*next(iter(self._links)))
        self._age()

    def forget(self, subscriber: str) -> None:
        """Another tells of this subscriber, or it does not mine."""
        for name in list(self._of.get(subscriber, ())):
            self._cut(name, subscriber)

    def _age(self) -> None:
        """Let go of the links that were touched longest ago and are old."""
        oldest_s = self.newest_s - self.config.age_s
        while self._links:
            name, subscriber = next(iter(self._links))
            if self._names[name][subscriber].last_s >= oldest_s:
                return
            self._cut(name, subscriber)

    def _cut(self, name: Name, subscriber: str) -> None:
        del self._links[name, subscriber]
        members = self._names[name]
        del members[subscriber]
        if not members:
            del self._names[name]
            self._sizes.pop(name, None)
        names = self._of[subscriber]
        names.remove(name)
        if not names:
            del self._of[subscriber]

    def _in_time(self, name: Name) -> dict[str, _Member]:
        oldest_s = self.newest_s - self.config.age_s
        return {s: m for s, m in self._names[name].items() if m.last_s >= oldest_s}

    def _size(self, name: Name) -> int:
        """At once, as it was when it was last counted: again where it grew by a twentieth, or shrank."""
        held = len(self._names[name])
        of, size = self._sizes.get(name, (0, 0))
        if not of <= held < max(of + 1, of * GREW):
            size = at_once((m.first_s, m.last_s) for m in self._in_time(name).values())
            self._sizes[name] = held, size
        return size

    def words(self, document: Incident) -> str:
        """That the subscriber is one of many, for whoever reads of one of them; "" where it is not."""
        sizes = [
            (self._size(name), len(self._names[name]), name)
            for name in names_of(document)
            if len(self._names.get(name, ())) >= self.config.least_subscribers
        ]
        at_one_time, subscribers, name = max(sizes, default=(0, 0, ("wallet", "", "")))
        if at_one_time < self.config.least_subscribers:
            return ""
        what = "with this wallet" if name[0] == "wallet" else f"with such accounts at {name[2]}"
        return f"one of {subscribers} subscribers {what} (campaign {campaign_id(name)})"

    def found(self) -> list[Campaign]:
        """The campaigns, the largest first."""
        least = self.config.least_subscribers
        out = []
        for name, held in self._names.items():
            if len(held) < least:
                continue
            members = self._in_time(name)
            most = at_once((m.first_s, m.last_s) for m in members.values())
            if most >= least:
                out.append(_campaign(name, members, most))
        return sorted(out, key=lambda c: (-c.subscribers, c.id))


def _campaign(name: Name, members: dict[str, _Member], most: int) -> Campaign:
    documents = [m.document for m in members.values()]
    opened = [d for d in documents if d.state in OPEN]
    # A proxy's shares are its clients' own.
    measured = [d for d in opened if d.role == "miner"]
    by: dict[str, list[HashRate]] = {}
    for document in measured:
        for rate in document.hashrate:
            by.setdefault(rate.algorithm, []).append(rate)
    watts = [d.power_watts for d in measured if d.power_watts is not None]
    total = Power(*(sum(getattr(w, f) for w in watts) for f in Power.__struct_fields__)) if watts else None
    places = Counter(
        (d.place.sector if d.place else "", d.place.city if d.place else "") for d in documents
    ).most_common(MOST_TOLD)
    return Campaign(
        id=campaign_id(name), kind=name[0], name=name[1], service=name[2],
        subscribers=len(members), at_once=most,
        confirmed=sum(d.state is State.CONFIRMED for d in documents), open=len(opened),
        first_seen=min(d.first_seen for d in documents), last_seen=max(d.last_seen for d in documents),
        coins=_first(c for d in documents for c in d.coins),
        algorithms=_first(a for d in documents for a in d.algorithms),
        hashrate=tuple(added(algorithm, rates) for algorithm, rates in sorted(by.items())),
        power_watts=total, kwh_per_day=kwh_per_day(total),
        places=tuple(Where(sector, city, n) for (sector, city), n in places),
        services=_first(s.name or f"{s.address}:{s.port}" for d in documents for s in d.services),
        members=_first(members),
    )  # fmt: skip


def _first(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(items))[:MOST_TOLD])


def totals(found: Iterable[Campaign]) -> Iterator[tuple[Kind, int, int, int]]:
    """By kind: campaigns, their subscribers (one of two campaigns counts twice), the largest."""
    sizes: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    for one in found:
        sizes[one.kind].append(one.subscribers)
    for kind, some in sizes.items():
        yield kind, len(some), sum(some), max(some, default=0)
