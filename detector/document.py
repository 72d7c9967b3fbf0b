"""The incident as it is told, everywhere the same: one record and its bytes in, one document out."""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from detector import coins, wallets
from detector.attribution import Place, text
from detector.evidence import SessionFacts, Shares
from detector.fusion import PRIOR, WEIGHTS, log_odds, probability
from detector.hashrate import DailyEnergy, HashRate, Power, kwh_per_day, power, rates
from detector.incidents import NUMBER, Action, State, alert_id, incident_id
from detector.measures import Ends, Link, ends_of
from detector.redact import Names
from detector.store import Record

MOST_LISTED = 32


class Service(msgspec.Struct, frozen=True):
    """A server that the subscriber mines at; name and operator where the pool table knows them."""

    address: str
    port: int
    name: str | None = None
    operator: str | None = None


class CoinReason(msgspec.Struct, frozen=True):
    """Why a coin is named, or why none is (``coin`` is then "")."""

    coin: str
    basis: coins.Basis
    why: str


class Account(msgspec.Struct, frozen=True):
    """A wallet or an account that is mined for.  ``coins`` are those whose address it may be, none where
    it is no address; ``verified`` where its checksum says so.  What has the same ``link`` is mined for by one
    who planned it: the address, or the pattern of the account; "" for what anybody calls itself."""

    name: str
    coins: tuple[str, ...]
    verified: bool
    link: str = ""


class Bytes(msgspec.Struct, frozen=True):
    """IP-layer octets of mining connections, from and to the subscriber."""

    up: int
    down: int


class EvidenceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One kind and rule of evidence, over all connections.  ``strength`` is its weight in nats."""

    kind: str
    group: str
    rule: str
    first: str
    last: str
    count: int
    strength: float
    why: str


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """See INCIDENTS in ``collectors/streams.py`` for the meaning of each field."""

    id: str
    subscriber: str
    state: State
    belief: float
    first_seen: str
    last_seen: str
    role: str
    coins: tuple[str, ...]
    algorithms: tuple[str, ...]
    dialects: tuple[str, ...]
    services: tuple[Service, ...]
    workers: tuple[str, ...]
    agents: tuple[str, ...]
    shares: Shares
    hashrate: tuple[HashRate, ...]
    power_watts: Power | None
    bytes: Bytes
    place: Place | None
    evidence: tuple[EvidenceLine, ...]
    coin_reasons: tuple[CoinReason, ...] = ()
    paid_coins: tuple[str, ...] = ()
    wallets: tuple[Account, ...] = ()
    kwh_per_day: DailyEnergy | None = None


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One step in an incident's life, as the ``alerts`` stream carries it."""

    id: str
    incident: str
    transition: int
    from_: State = msgspec.field(name="from")
    to: State
    action: Action
    at: str
    subscriber: str
    belief: float
    summary: str
    evidence: tuple[EvidenceLine, ...]


def rfc3339(ns: int) -> str:
    """Unix nanoseconds as RFC 3339 in UTC, to the microsecond."""
    moment = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000 // 1000:06d}Z"


def subscriber_text(address: bytes, prefix6: int = 64) -> str:
    """A subscriber as people write it: an IPv4 address, or the prefix of an IPv6 one."""
    told = text(address)
    return f"{told}/{prefix6}" if ":" in told and prefix6 < 128 else told


def _distinct(items: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({i for i in items if i}))[:MOST_LISTED]


def role_of(sessions: Iterable[SessionFacts], traces: Iterable[str]) -> str:
    """``pool`` serves jobs, ``miner`` takes them, ``proxy`` does both."""
    roles = {s.role for s in sessions} or set(traces)
    if {"pool", "miner"} <= roles:
        return "proxy"
    return min(roles, default="miner")


def evidence_lines(record: Record, names: Names) -> tuple[EvidenceLine, ...]:
    """Traces of all connections, one line a kind and rule, the strongest first."""
    known = [n for s in record.all_sessions() for n in (*s.workers, *s.wallets)]
    by: dict[tuple[str, str], list] = {}
    for (kind, rule, _), trace in record.traces.seen.items():
        by.setdefault((kind, rule), []).append(trace)
    lines = [
        EvidenceLine(
            kind=kind,
            group=WEIGHTS[kind].group,
            rule=rule,
            first=rfc3339(min(t.first_ns for t in traces)),
            last=rfc3339(max(t.last_ns for t in traces)),
            count=sum(t.count for t in traces),
            strength=WEIGHTS[kind].log_odds,
            why=names.text(min(traces, key=lambda t: (t.first_ns, t.why)).why, known),
        )
        for (kind, rule), traces in by.items()
    ]
    return tuple(sorted(lines, key=lambda e: (-e.strength, e.kind, e.rule)))


def with_flows(
    record: Record, links: dict[tuple[bytes, Ends], Link], until_ns: int | None
) -> tuple[list[SessionFacts], Bytes]:
    """Sessions as long as their last flow record, within this opening; and the bytes of their connections,
    each counted once."""
    longer: list[SessionFacts] = list(record.folded.values())
    up, down = record.folded_bytes
    done: set[Ends] = set()
    for connection, facts in record.sessions.items():
        last_ns, first_job_ns = facts.last_ns, facts.first_job_ns
        if first_job_ns is not None and connection in record.told:
            first_job_ns = max(first_job_ns, record.first_ns)
        ends = ends_of(facts.client, facts.server, connection.protocol)
        link = links.get((facts.subscriber, ends))
        if link is not None and (until_ns is None or link.last_ns <= until_ns):
            last_ns = max(last_ns, link.last_ns)
        longer.append(msgspec.structs.replace(facts, last_ns=last_ns, first_job_ns=first_job_ns))
        if link is not None and ends not in done:
            done.add(ends)
            low, high = link.total(until_ns)
            told = record.told_bytes.get(ends, (0, 0))
            low, high = low - told[0], high - told[1]
            up, down = (up + low, down + high) if ends[0] == facts.client else (up + high, down + low)
    for ends, contact in record.contacts.items():
        link = links.get((contact.subscriber, ends))
        if link is not None and ends not in done and not contact.weak:
            there, back = link.up_down(contact.client, until_ns)
            up, down = up + there, down + back
    return longer, Bytes(up, down)


def _decided(record: Record, sessions: list[SessionFacts]) -> list[coins.Decided]:
    """The coin of each session; where they name none, that of the known endpoints."""
    contacts = {c.server: c for c in record.contacts.values()}
    decided = [coins.of(facts, contacts.get(facts.server)) for facts in sessions]
    if not any(d.coin for d in decided):
        told = {facts.server for facts in sessions}
        decided += [coins.of(None, c) for c in record.contacts.values() if c.server not in told]
    return list(dict.fromkeys(decided))


def _reasons(decided: list[coins.Decided]) -> tuple[CoinReason, ...]:
    """One for each coin, of the strongest basis; what names none speaks only where nothing does."""
    order = list(coins.Basis)
    best: dict[str, coins.Decided] = {}
    for one in sorted(decided, key=lambda d: (order.index(d.basis), d.why)):
        best.setdefault(one.coin or "", one)
    if len(best) > 1:
        best.pop("", None)
    return tuple(CoinReason(c, d.basis, d.why) for c, d in sorted(best.items()))[:MOST_LISTED]


def _accounts(sessions: list[SessionFacts], names: Names) -> tuple[Account, ...]:
    """Wallets and accounts, read before their text is hidden."""
    out = {}
    for account in sorted({w for s in sessions for w in s.wallets})[:MOST_LISTED]:
        read = wallets.read(account)
        name, link = names.name(account), read.text if read else wallets.pattern(account)
        link = names.name(link) if link else ""
        out[name] = Account(name, read.coins if read else (), read is not None and read.verified, link)
    return tuple(out[name] for name in sorted(out))


def _services(record: Record, sessions: list[SessionFacts]) -> tuple[Service, ...]:
    """Servers of sessions and of known endpoints, with the names that the pool table has for them."""
    found = {s.server: Service(text(s.server[0]), s.server[1]) for s in sessions}
    for contact in record.contacts.values():
        if contact.server in found or not contact.weak:
            address, port = contact.server
            found[contact.server] = Service(text(address), port, contact.name, contact.operator)
    return tuple(found[server] for server in sorted(found)[:MOST_LISTED])


def belief_of(record: Record, half_life_ns: int, prior: float = PRIOR) -> float:
    """Belief at the time of the last evidence."""
    seen = [(key[0], trace.last_ns) for key, trace in record.traces.seen.items()]
    return probability(log_odds(seen, now_ns=record.last_ns, half_life_ns=half_life_ns, prior=prior))


def incident(
    record: Record,
    links: dict[tuple[bytes, Ends], Link],
    *,
    belief: float,
    place: Place | None,
    prefix6: int,
    names: Names,
    until_ns: int | None = None,
) -> Incident:
    """Build the document of a record's present opening, its bytes up to ``until_ns`` where it is over.

    Pure: the same record, the same document.
    """
    sessions, counted = with_flows(record, links, until_ns)
    mine = [s for s in sessions if s.role != "pool"] or sessions
    hash_rates = rates(sessions)
    watts = power(hash_rates)
    decided = _decided(record, sessions)
    shares = Shares()
    for facts in mine:
        for field in shares.__struct_fields__:
            setattr(shares, field, getattr(shares, field) + getattr(facts.shares, field))
    return Incident(
        id=incident_id(record.subscriber, record.opening),
        subscriber=subscriber_text(record.subscriber, prefix6),
        state=record.state,
        belief=round(belief, 6),
        first_seen=rfc3339(record.first_ns),
        last_seen=rfc3339(record.last_ns),
        role=role_of(sessions, (t.role for t in record.traces.seen.values())),
        coins=_distinct(d.coin for d in decided),
        algorithms=_distinct(s.algorithm for s in sessions),
        dialects=_distinct(s.dialect for s in sessions),
        services=_services(record, sessions),
        workers=_distinct(names.name(w) for s in sessions for w in s.workers),
        agents=_distinct(a for s in sessions for a in s.agents),
        shares=shares,
        hashrate=hash_rates,
        power_watts=watts,
        bytes=counted,
        place=place,
        evidence=evidence_lines(record, names),
        coin_reasons=_reasons(decided),
        paid_coins=_distinct(coin for d in decided for coin in d.paid),
        wallets=_accounts(sessions, names),
        kwh_per_day=kwh_per_day(watts),
    )


def transition(document: Incident, *, before: State, action: Action, at_ns: int, summary: str) -> Transition:
    """The alert that goes with a step of an incident."""
    return Transition(
        id=alert_id(document.id, document.state),
        incident=document.id,
        transition=NUMBER[document.state],
        from_=before,
        to=document.state,
        action=action,
        at=rfc3339(at_ns),
        subscriber=document.subscriber,
        belief=document.belief,
        summary=summary,
        evidence=document.evidence,
    )


def latest(documents: Iterable[Incident]) -> list[Incident]:
    """The newest incident of each subscriber."""
    newest: dict[str, Incident] = {}
    for document in documents:
        known = newest.get(document.subscriber)
        if known is None or document.last_seen >= known.last_seen:
            newest[document.subscriber] = document
    return list(newest.values())
