"""Whose row it is: the subscriber and the partition, from the 5-tuple and ``home_networks`` only.

Columns in; for every row that has a home end, its subscriber, copy mark and partition out.  The same
function serves packets and flows, so the two directions of a connection, seen by whatever collector,
meet in one partition.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

import numpy as np

from collectors.errors import ConfigError
from collectors.jit import bare, kernel
from collectors.reading import big, swapped

DEFAULT_HOME: Final = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
    "127.0.0.0/8",
    "198.51.100.0/24",
    "2001:db8::/32",
)
_MAPPED: Final = bytes(10) + b"\xff\xff"
_MAPPED_WORD: Final = np.uint64(0xFFFF)
SOME: Final = 2


@dataclass(frozen=True, slots=True)
class Home:
    """Home networks as sorted, disjoint ranges of (high, low) 64-bit halves, both ends inclusive.

    ``pool_port`` is (65536,) u1, 1 for a listed pool port; it decides who is the client where no network
    is given.  ``prefix6`` is the length of an IPv6 subscriber.  ``four`` (65536,) u1 says of the first two
    octets of an IPv4 address whether all that begin so are home: 0 none, 1 all, 2 some.
    """

    first: np.ndarray
    last: np.ndarray
    pool_port: np.ndarray
    prefix6: int
    digest: str
    four: np.ndarray


def _bounds(text: str) -> tuple[int, int]:
    try:
        network: IPv4Network | IPv6Network = ip_network(text, strict=True)
    except ValueError as error:
        raise ConfigError(f"home_networks: {text!r}: {error}") from None
    first, last = int(network.network_address), int(network.broadcast_address)
    if isinstance(network, IPv4Network):
        base = int.from_bytes(_MAPPED + bytes(4), "big")
        return base + first, base + last
    return first, last


def home(
    networks: Sequence[str] = DEFAULT_HOME,
    pool_ports: Sequence[int] = (),
    prefix6: int = 64,
) -> Home:
    """Compile a list of prefixes.  Raises ConfigError on one that is not a network."""
    merged: list[list[int]] = []
    for first, last in sorted(_bounds(n) for n in networks):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    halves = np.array([[(v >> 64, v & (2**64 - 1)) for v in pair] for pair in merged], np.uint64).reshape(
        -1, 2, 2
    )
    listed = np.zeros(65536, np.uint8)
    listed[list(pool_ports)] = 1
    told = ",".join(sorted(networks)) + f"/{prefix6}"
    return Home(
        np.ascontiguousarray(halves[:, 0]),
        np.ascontiguousarray(halves[:, 1]),
        listed,
        prefix6,
        hashlib.sha256(told.encode()).hexdigest()[:16],
        _four(merged),
    )


def _four(merged: Sequence[Sequence[int]]) -> np.ndarray:
    table = np.zeros(65536, np.uint8)
    base = int.from_bytes(_MAPPED + bytes(4), "big")
    for first, last in merged:
        low, high = max(first - base, 0), min(last - base, (1 << 32) - 1)
        if low > high:
            continue
        table[low >> 16] = table[high >> 16] = SOME
        table[(low + 0xFFFF) >> 16 : (high + 1) >> 16] = 1
    return table


@kernel
def half(address, start):
    """Eight bytes of an address as a big-endian integer."""
    value = np.uint64(0)
    for i in range(start, start + 8):
        value = (value << np.uint64(8)) | np.uint64(address[i])
    return value


@bare
def is_home(high, low, first, last):
    """Whether the address, as two halves, lies in one of the sorted ranges (binary search)."""
    left = 0
    right = first.shape[0]
    while left < right:
        mid = (left + right) >> 1
        if first[mid, 0] < high or (first[mid, 0] == high and first[mid, 1] <= low):
            left = mid + 1
        else:
            right = mid
    if left == 0:
        return False
    i = left - 1
    return high < last[i, 0] or (high == last[i, 0] and low <= last[i, 1])


@bare
def _is_home(high, low, first, last, four):
    """As ``is_home``: most addresses are told by two octets of theirs."""
    if high == np.uint64(0) and low >> np.uint64(32) == _MAPPED_WORD:
        told = four[np.int64((low >> np.uint64(16)) & np.uint64(0xFFFF))]
        if told != SOME:
            return told == 1
    return is_home(high, low, first, last)


@bare
def src_is_client(src_port, dst_port, src_lower, pool_port):
    """The client: no listed pool port, else the higher port, else the lower address."""
    if pool_port[src_port] != pool_port[dst_port]:
        return pool_port[dst_port] == 1
    if src_port != dst_port:
        return src_port > dst_port
    return src_lower


@bare
def partition_of(high, low, partitions):
    """A stable spread of subscribers (splitmix64's finaliser over both halves)."""
    x = high * np.uint64(0x9E3779B97F4A7C15) ^ low
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    # A division takes longer than all the rest, and most topics have a power of two.
    if partitions & (partitions - 1) == 0:
        return np.int64(x & np.uint64(partitions - 1))
    return np.int64(x % np.uint64(partitions))


@bare
def give(src, dst, src_port, dst_port, first, last, four, pool_port, mask, partitions, transit, row, sub,
         copy, part):  # fmt: skip
    """``src`` and ``dst`` flat u1; ``mask`` (2,) u8, of an IPv6 subscriber; ``sub`` (2 n, 2) u8.

    Answers how many rows were made, and of how many inputs.  With ``transit`` one is made of each of the
    others too, which is nobody's, in partition number ``partitions``.  Addresses are halves in registers:
    byte by byte this took 370 ns a row, so it takes 20.
    """
    n = 0
    owned = 0
    for i in range(src_port.size):
        src_high = big(src, 16 * i)
        src_low = big(src, 16 * i + 8)
        dst_high = big(dst, 16 * i)
        dst_low = big(dst, 16 * i + 8)
        same = src_high == dst_high and src_low == dst_low
        if not same and (src_high ^ dst_high) & mask[0] == 0 and (src_low ^ dst_low) & mask[1] == 0:
            # Two hosts of one IPv6 prefix are one subscriber.
            same = src_high != np.uint64(0) or (
                src_low >> np.uint64(32) != _MAPPED_WORD and dst_low >> np.uint64(32) != _MAPPED_WORD
            )
        lower = src_high < dst_high or (src_high == dst_high and src_low <= dst_low)
        client = src_is_client(src_port[i], dst_port[i], lower, pool_port)
        if first.shape[0] == 0:
            src_home = client
            dst_home = not client
        else:
            src_home = _is_home(src_high, src_low, first, last, four)
            dst_home = (not same) and _is_home(dst_high, dst_low, first, last, four)
        before = n
        for turn in range(2):
            use_src = client if turn == 0 else not client
            if (use_src and src_home) or (not use_src and dst_home):
                high = src_high if use_src else dst_high
                low = src_low if use_src else dst_low
                if high != np.uint64(0) or low >> np.uint64(32) != _MAPPED_WORD:
                    high &= mask[0]
                    low &= mask[1]
                sub[n, 0] = swapped(high)
                sub[n, 1] = swapped(low)
                row[n] = i
                copy[n] = 1 if turn == 1 and src_home and dst_home else 0
                part[n] = partition_of(high, low, partitions)
                n += 1
        owned += n > before
        if transit and n == before:
            sub[n, 0] = sub[n, 1] = np.uint64(0)
            row[n], copy[n], part[n] = i, 0, partitions
            n += 1
    return n, owned


def mask_of(where: Home) -> np.ndarray:
    """(2,) u8: the bits of an IPv6 subscriber that are kept, as two halves."""
    bits = ((1 << 128) - 1) ^ ((1 << (128 - where.prefix6)) - 1)
    return np.array([bits >> 64, bits & (2**64 - 1)], np.uint64)


@dataclass(frozen=True, slots=True)
class Owned:
    """Rows with their owner: ``row`` (m,) i8 indexes the input; ``subscriber`` (m, 16) u1; ``copy`` (m,)
    u1; ``partition`` (m,) i8.  ``dropped`` rows had no home end."""

    row: np.ndarray
    subscriber: np.ndarray
    copy: np.ndarray
    partition: np.ndarray
    dropped: int


def assign(
    src: np.ndarray,
    dst: np.ndarray,
    src_port: np.ndarray,
    dst_port: np.ndarray,
    where: Home,
    partitions: int,
    *,
    transit: bool = False,
) -> Owned:
    """Give each row to its home ends.  ``src`` and ``dst`` are (n, 16) u1, ports (n,) u2.

    Both ends home: two copies, the client's first; the same subscriber at both ends: one.  With no networks
    at all the client is the subscriber.  With ``transit`` those that are dropped follow, as nobody's, in
    partition number ``partitions``.
    """
    n = src.shape[0]
    row = np.empty(2 * n, np.int64)
    sub = np.empty((2 * n, 2), np.uint64)
    copy = np.empty(2 * n, np.uint8)
    part = np.empty(2 * n, np.int64)
    m, owned = give(
        src.reshape(-1), dst.reshape(-1), src_port, dst_port, where.first, where.last, where.four,
        where.pool_port, mask_of(where), partitions, transit, row, sub, copy, part,
    )  # fmt: skip
    return Owned(row[:m], sub[:m].view(np.uint8), copy[:m], part[:m], n - owned)


def holds(where: Home, address: bytes) -> bool:
    """Whether a 16-byte address is home."""
    high, low = int.from_bytes(address[:8], "big"), int.from_bytes(address[8:], "big")
    return bool(is_home(np.uint64(high), np.uint64(low), where.first, where.last))
