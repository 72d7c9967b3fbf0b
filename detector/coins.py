"""Which coin a connection mines, and why: from algorithm, job, wallet, endpoint and port, in that order.

Pure.  Several coins share most algorithms, and pools that exchange pay in any coin: where nothing decides,
or two things contradict each other, the coin is unknown.  What is paid is told apart from what is mined.
"""

from enum import StrEnum
from functools import cache, lru_cache

import msgspec

from detector import algorithms, tables, wallets
from detector.evidence import Contact, SessionFacts
from detector.wallets import Wallet


class Basis(StrEnum):
    """What decided, the strongest first."""

    ALGORITHM = "algorithm"
    JOB = "job"
    WALLET = "wallet"
    ENDPOINT = "endpoint"
    NOTHING = "nothing"


class Coin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A coin and the algorithms that it shares with others."""

    id: str
    algorithms: tuple[str, ...]


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An operator that pays in another coin than it mines; ``names`` are ends of its host names."""

    id: str
    names: tuple[str, ...]


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An operator of pools, as in ``pools.csv``, and the coins that it serves, by port."""

    id: str
    ports: dict[str, tuple[str, ...]]


class Decided(msgspec.Struct, frozen=True):
    """The coin that is mined, None where nothing decides; what that rests on, in a word and in words; the
    coins that are ``paid`` where they are another matter."""

    coin: str | None
    basis: Basis
    why: str
    paid: tuple[str, ...] = ()


NOT_KNOWN = Decided(None, Basis.NOTHING, "nothing names one coin")


@cache
def _mined_with() -> dict[str, frozenset[str]]:
    """Algorithms by coin."""
    out = {row.id: set(row.algorithms) for row in tables.rows("coins", "coin", Coin)}
    for row in algorithms.load().values():
        if row.coin is not None:
            out.setdefault(row.coin, set()).add(row.id)
    return {coin: frozenset(known) for coin, known in out.items()}


def can_mine(algorithm: str, coin: str) -> bool | None:
    """Whether the algorithm mines the coin; None where the tables do not know the coin."""
    known = _mined_with().get(coin)
    return None if known is None else algorithm in known


@cache
def _exchanges() -> tuple[frozenset[str], tuple[str, ...]]:
    rows = tables.rows("coins", "exchange", Exchange)
    return frozenset(r.id.lower() for r in rows), tuple(name for r in rows for name in r.names)


def exchanges(operator: str | None, name: str | None) -> bool:
    """Whether such a pool pays in any coin."""
    operators, names = _exchanges()
    host = (name or "").lower()
    return (operator or "").lower() in operators or any(
        host == end or host.endswith(f".{end}") for end in names
    )


@cache
def _served() -> dict[tuple[str, int], tuple[str, ...]]:
    rows = tables.rows("pool_ports", "operator", Operator)
    return {(row.id.lower(), int(port)): served for row in rows for port, served in row.ports.items()}


def served(operator: str | None, port: int) -> tuple[str, ...]:
    """The coins that an operator serves at a port, as the table has it; none where it has nothing."""
    return _served().get(((operator or "").lower(), port), ())


def of(facts: SessionFacts | None, contact: Contact | None) -> Decided:
    """The coin of one connection, by what it told and by the known endpoint that it is with."""
    known = contact if contact is not None and not contact.weak else None
    return decide(
        facts.algorithm if facts is not None else None,
        facts.coin if facts is not None else None,
        facts.wallets if facts is not None else (),
        known.coins if known is not None else (),
        known is not None and exchanges(known.operator, known.name),
        served(known.operator, known.server[1]) if known is not None else (),
    )


@lru_cache(1 << 15)
def decide(
    algorithm: str | None,
    told: str | None,
    accounts: tuple[str, ...],
    listed: tuple[str, ...],
    exchange: bool,
    at_port: tuple[str, ...] = (),
) -> Decided:
    """``told`` is what algorithm or job name; ``listed`` are the endpoint's coins, ``exchange`` says whether
    it pays in any, and ``at_port`` are the coins that its operator serves at its port."""
    read = {w.text: w for w in map(wallets.read, accounts) if w is not None}
    paid = _paid(algorithm, told, tuple(read.values()), exchange)
    if told is not None:
        if algorithm is not None and algorithms.coin(algorithm) == told:
            return Decided(told, Basis.ALGORITHM, f"the only coin of {algorithm}", paid)
        return Decided(told, Basis.JOB, "the job names it", paid)
    if exchange:
        return Decided(None, Basis.NOTHING, "its pool pays in any coin", paid)
    listed = tuple(coin for coin in listed if coin != "MULTI")
    found = _of_wallets(algorithm, tuple(read.values()), (*listed, *at_port))
    if found is None and not paid:
        found = _of_endpoint(algorithm, listed, at_port)
    if found is None:
        why = f"what is paid is no coin of {algorithm}" if paid else NOT_KNOWN.why
        found = Decided(None, Basis.NOTHING, why)
    return msgspec.structs.replace(found, paid=paid)


def _paid(
    algorithm: str | None, told: str | None, read: tuple[Wallet, ...], exchange: bool
) -> tuple[str, ...]:
    """Coins that are paid and are not known to be mined."""
    out: set[str] = set()
    for wallet in read:
        if wallet.paid is not None:
            out.add(wallet.paid)
        elif wallet.verified and len(wallet.coins) == 1:
            (coin,) = wallet.coins
            strange = algorithm is not None and can_mine(algorithm, coin) is False
            if exchange or strange or (told is not None and told != coin):
                out.add(coin)
    return tuple(sorted(out - {told}))


def _of_wallets(algorithm: str | None, read: tuple[Wallet, ...], listed: tuple[str, ...]) -> Decided | None:
    """The one coin that all wallets may be of and the algorithm mines.  Without an algorithm only where the
    endpoint is listed for it too: who exchanges is not always known."""
    named = [w for w in read if w.paid is None]
    if not named:
        return None
    fit = set.intersection(*(set(w.coins) for w in named))
    if algorithm is None:
        fit &= set(listed)
    else:
        fit = {coin for coin in fit if can_mine(algorithm, coin)}
    if len(fit) != 1:
        return None
    (coin,) = fit
    sure = "its checksum verified" if all(w.verified for w in named) else "by its form alone"
    other = f"{algorithm} mines it" if algorithm is not None else "its pool is listed for it"
    return Decided(coin, Basis.WALLET, f"the wallet, {sure}, and {other}")


def _of_endpoint(algorithm: str | None, listed: tuple[str, ...], at_port: tuple[str, ...]) -> Decided | None:
    """The one coin that the endpoint is listed for, among those that the algorithm mines.  Of one that is
    listed for several, or for none, the port tells."""
    why, where = "the pool is listed for it", ""
    if at_port and len(listed) != 1:
        listed = tuple(coin for coin in at_port if coin in listed) if listed else at_port
        why, where = "its pool serves it at that port", " at that port"
        if not listed:
            return Decided(None, Basis.NOTHING, "the pool is not listed for what it serves at that port")
    fit = [coin for coin in listed if algorithm is None or can_mine(algorithm, coin) is not False]
    if len(fit) == 1:
        return Decided(fit[0], Basis.ENDPOINT, why)
    if listed and not fit:
        return Decided(None, Basis.NOTHING, f"the pool is listed for no coin of {algorithm}{where}")
    return None
