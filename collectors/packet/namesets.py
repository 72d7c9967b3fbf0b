"""Wanted names as the compiled pass knows them: sets of hashes, and the addresses whose answers count.

Names in, arrays out; and the kernel that asks them.  A hash says yes wrongly once in ages, and never no: who
is let through is compared as text (``names.NameFilter``).
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


class Wanted(NamedTuple):
    """``on`` 0 or 1; ``exact`` and ``suffix``, u8 hash sets; ``resolvers`` (n, 2) u8; how many may leave in
    a second, of those that hold a wanted name and of those that may."""

    on: int
    exact: np.ndarray
    suffix: np.ndarray
    resolvers: np.ndarray
    sure: int
    unsure: int


def compile_wanted(
    exact: Iterable[str], suffixes: Iterable[str], resolvers: Iterable[str], a_second: int
) -> Wanted:
    """Compile names (lower case, no final dot) and addresses.  Raises ConfigError on what is no address."""
    exact, suffixes = sorted(exact), sorted(suffixes)
    return Wanted(
        int(bool(exact or suffixes)),
        _hashed(exact),
        _hashed(suffixes),
        _addresses(resolvers),
        a_second,
        max(1, a_second // 4),
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
