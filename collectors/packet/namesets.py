"""Wanted names as the compiled pass knows them: sets of hashes, and the addresses whose answers count.

Names in, arrays out; and the kernels that ask them.  A hash says yes wrongly once in ages, and never no: who
is let through is compared as text (``names.NameFilter``).  Beside them is what the pass remembers of its
looks: what it spent of this second's budgets and on whom, and which directions it follows until a message
ends.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final, NamedTuple

import numpy as np

from collectors.errors import ConfigError
from collectors.jit import bare as kernel

_DOT: Final = ord(".")
# FNV-1a, 64 bits.
_BASIS: Final = np.uint64(0xCBF29CE484222325)
_PRIME: Final = np.uint64(0x00000100000001B3)
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)


# Budgets of a second: what holds a wanted name; what may; server hellos, of which most certificates end in
# another segment; QUIC, of which nobody knows before it is decrypted.
SURE: Final = 0
UNSURE: Final = 1
FLIGHTS: Final = 2
SEALED: Final = 3
_SHARES: Final = (1, 4, 4, 4)

# What was looked at, by what it may tell, and what came of it: places in ``Wanted.counts``.
SEEN_DNS: Final = 0
SEEN_TLS: Final = 1
SEEN_CERTIFICATES: Final = 2
SEEN_HTTP: Final = 3
SEEN_QUIC: Final = 4
STRANGERS: Final = 5
WITHHELD: Final = 6  # and one place more for each of the other budgets
SHARES: Final = 10  # over a client's share of a budget
FORGOTTEN: Final = 11  # clients whose share was
COUNTS: Final = 12

# One direction of which the next segments leave too; sets of WAYS.
FOLLOWED: Final = np.dtype(
    [
        ("conn", "u8"), ("segments", "i4"), ("octets", "i4"),  # that may still leave
        ("direction", "u1"), ("purse", "u1"),
    ]
)  # fmt: skip
WAYS: Final = 4
_SETS: Final = 1024
# What one client has had of the second half of each budget in a second; sets of WAYS too.
CLIENT: Final = np.dtype([("high", "u8"), ("low", "u8"), ("second", "i8"), ("spent", "u4", (len(_SHARES),))])
_CLIENT_SETS: Final = 256
# Of the second half of a budget one client has at most so much, but this many at least.
_PART: Final = 32
_LEAST: Final = 4


class Wanted(NamedTuple):
    """``on`` 0 or 1; ``exact`` and ``suffix``, u8 hash sets; ``resolvers`` (n, 2) u8; ``purses`` (4,) i8,
    how many may leave in a second.  The pass writes: ``spent`` (5,) i8, of each purse, then the second;
    ``clients`` (m,) CLIENT; ``followed`` (n,) FOLLOWED; ``counts`` (COUNTS,) i8."""

    on: int
    exact: np.ndarray
    suffix: np.ndarray
    resolvers: np.ndarray
    purses: np.ndarray
    spent: np.ndarray
    clients: np.ndarray
    followed: np.ndarray
    counts: np.ndarray


def compile_wanted(
    exact: Iterable[str],
    suffixes: Iterable[str],
    resolvers: Iterable[str],
    a_second: int,
    before: Wanted | None = None,
) -> Wanted:
    """Compile names (lower case, no final dot) and addresses; what was remembered ``before`` is kept.

    Raises ConfigError on what is no address.
    """
    exact, suffixes = sorted(exact), sorted(suffixes)
    return Wanted(
        int(bool(exact or suffixes)),
        _hashed(exact),
        _hashed(suffixes),
        _addresses(resolvers),
        np.array([max(1, a_second // share) for share in _SHARES], np.int64),
        np.zeros(len(_SHARES) + 1, np.int64) if before is None else before.spent,
        np.zeros(_CLIENT_SETS * WAYS, CLIENT) if before is None else before.clients,
        np.zeros(_SETS * WAYS, FOLLOWED) if before is None else before.followed,
        np.zeros(COUNTS, np.int64) if before is None else before.counts,
    )


def _addresses(texts: Iterable[str]) -> np.ndarray:
    halves = []
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            raise ConfigError(f"dns_resolvers: {text!r} is not an address") from None
        packed = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
        halves.append((packed >> 64, packed & (2**64 - 1)))
    return np.array(halves, np.uint64).reshape(-1, 2)


def _hashed(names: list[str]) -> np.ndarray:
    """An open-addressed set of the names' hashes, at most a quarter full."""
    table = np.zeros(1 << max(4, (4 * len(names)).bit_length()), np.uint64)
    parts = [name.encode() for name in names]
    ends = np.cumsum([0] + [len(p) for p in parts])
    _enter(np.frombuffer(bytearray(b"".join(parts) or b"\0"), np.uint8), ends.astype(np.int64), table)
    return table


@kernel
def _slot(h, table):
    return np.int64(((h * _SPREAD) >> np.uint64(32)) & np.uint64(table.size - 1))


@kernel
def _enter(text, ends, table):
    for k in range(ends.size - 1):
        h = _BASIS
        i = ends[k + 1] - 1
        while i >= ends[k]:
            h = (h ^ np.uint64(text[i])) * _PRIME
            i -= 1
        h |= np.uint64(1)
        at = _slot(h, table)
        while table[at] != np.uint64(0) and table[at] != h:
            at = (at + 1) & (table.size - 1)
        table[at] = h


@kernel
def _holds(h, table):
    h |= np.uint64(1)
    at = _slot(h, table)
    while table[at] != np.uint64(0):
        if table[at] == h:
            return True
        at = (at + 1) & (table.size - 1)
    return False


@kernel
def may_match(text, size, wanted):
    """Whether text[:size], a name in lower case, is wanted; by hash (FNV-1a from its end), so rarely wrong
    and only in saying yes."""
    h = _BASIS
    if _holds(h, wanted.suffix):
        return True  # the empty suffix: every name
    i = size - 1
    while i >= 0:
        h = (h ^ np.uint64(text[i])) * _PRIME
        if i == 0:
            return _holds(h, wanted.suffix) or _holds(h, wanted.exact)
        if text[i - 1] == _DOT and _holds(h, wanted.suffix):
            return True
        i -= 1
    return False


@kernel
def known(high, low, resolvers):
    """Whether an address is a configured resolver's."""
    found = False
    for k in range(resolvers.shape[0]):
        found = found or (resolvers[k, 1] == low and resolvers[k, 0] == high)
    return found


@kernel
def place_of(conn, d, followed):
    """The place of a direction among those that are followed, or -1."""
    base = _set_of(conn, d, followed)
    for k in range(base, base + WAYS):
        if followed[k].conn == conn and followed[k].direction == d and followed[k].segments > 0:
            return k
    return np.int64(-1)


@kernel
def _set_of(conn, d, followed):
    h = ((conn << np.uint64(1)) | np.uint64(d)) * _SPREAD
    return np.int64((h >> np.uint64(32)) & np.uint64(followed.size // WAYS - 1)) * WAYS


@kernel
def follow(conn, d, segments, octets, purse, followed):
    """Follow a direction for so many segments and octets; of a full set the oldest connection goes."""
    at = place_of(conn, d, followed)
    if at < 0:
        at = _set_of(conn, d, followed)
        for k in range(at, at + WAYS):
            if followed[k].segments <= 0:
                at = k
                break
            if followed[k].conn < followed[at].conn:
                at = k
    e = followed[at]
    e.conn = conn
    e.direction = np.uint8(d)
    e.segments = np.int32(segments)
    e.octets = np.int32(octets)
    e.purse = np.uint8(purse)


@kernel
def allow(purse, second, high, low, wanted):
    """Take one of a purse for a client, an IPv4 address or the /64 of another, unless there is none left in
    this second, or in its half: whoever floods has the first half of a purse and a share of the second, which
    is thus left to others."""
    if wanted.spent[-1] != second:
        wanted.spent[:] = 0
        wanted.spent[-1] = second
    room = wanted.purses[purse]
    if wanted.spent[purse] >= room:
        wanted.counts[WITHHELD + purse] += 1
        return False
    if 2 * wanted.spent[purse] >= room:
        if high != np.uint64(0) or low >> np.uint64(32) != np.uint64(0xFFFF):
            low = np.uint64(0)
        e = wanted.clients[_client_of(high, low, second, wanted)]
        if e.spent[purse] >= max(np.int64(_LEAST), room // _PART):
            wanted.counts[SHARES] += 1
            return False
        e.spent[purse] += np.uint32(1)
    wanted.spent[purse] += 1
    return True


@kernel
def _client_of(high, low, second, wanted):
    """The client's place, made if need be: of a full set the one goes that has had the least."""
    clients = wanted.clients
    h = (high * _SPREAD) ^ low
    h = (h ^ (h >> np.uint64(32))) * _SPREAD
    base = np.int64((h >> np.uint64(32)) & np.uint64(clients.size // WAYS - 1)) * WAYS
    chosen = np.int64(base)
    least = np.int64(1) << 62
    for k in range(base, base + WAYS):
        e = clients[k]
        had = np.int64(-1)
        if e.second == second:
            if e.high == high and e.low == low:
                return k
            had = np.int64(0)
            for purse in range(e.spent.size):
                had += np.int64(e.spent[purse])
        if had < least:
            chosen = np.int64(k)
            least = had
    if least >= 0:
        wanted.counts[FORGOTTEN] += 1
    e = clients[chosen]
    e.high = high
    e.low = low
    e.second = second
    for k in range(e.spent.size):
        e.spent[k] = np.uint32(0)
    return chosen
