"""Datagrams of exports out of packets: columns of UDP payloads in, those that are exports out.

Whoever reads packets hands over columns; nothing here knows a capture file.
"""

from typing import Final

import numpy as np

from collectors.netflow.datagrams import Block
from collectors.netflow.messages import u2, u4

# NetFlow by habit 2055, 2056, 9995, 9996 and their neighbours; IPFIX 4739 and 4740 (RFC 7011 section 10);
# sFlow 6343.
PORTS: Final = frozenset({2055, 2056, 2100, 3055, 4432, 4739, 4740, 6007, 6343, 9025, 9555, 9995, 9996, 9997})
_YEAR_1990: Final = 631_152_000


def is_export(payload: bytes) -> bool:
    """Whether a UDP payload is NetFlow v1, v5, v7, v9, IPFIX or sFlow 5, by its first octets.

    For a capture of which nobody says what it holds; a datagram on a known port goes to the collector as it
    is, to be refused there by reason.
    """
    if len(payload) < 20:
        return False
    version = u2(payload, 0)
    if version == 0:
        return _is_sflow(payload)
    if version in (1, 7):
        count, head, record = u2(payload, 2), *((16, 48) if version == 1 else (24, 52))
        plausible = len(payload) == head + record * count and u4(payload, 12) < 1_000_000_000
        return 1 <= count <= 30 and plausible and u4(payload, 8) >= _YEAR_1990
    if version == 5:
        count = u2(payload, 2)
        return 1 <= count <= 30 and len(payload) >= 24 + 48 * count and u4(payload, 12) < 1_000_000_000
    if version == 9:
        first, length = (u2(payload, 20), u2(payload, 22)) if len(payload) >= 24 else (0, 0)
        known = first in (0, 1) or first >= 256
        return u2(payload, 2) >= 1 and known and 4 <= length <= len(payload) - 20
    if version == 10:
        first, length = u2(payload, 16), u2(payload, 18)
        known = first in (2, 3) or first >= 256
        return u2(payload, 2) <= len(payload) and known and 4 <= length <= u2(payload, 2) - 16
    return False


def _is_sflow(payload: bytes) -> bool:
    """Version 5, an agent address of a known kind, and a first sample that fits where any are promised."""
    kind = u4(payload, 4)
    if u4(payload, 0) != 5 or kind > 2:
        return False
    at = 8 + (0, 4, 16)[kind]
    if len(payload) < at + 16:
        return False
    count = u4(payload, at + 12)
    return count == 0 or u4(payload, at + 20) <= len(payload) - at - 24


def block(
    data: np.ndarray,
    at: np.ndarray,
    size: np.ndarray,
    src: np.ndarray,
    dst_port: np.ndarray,
    t_ns: np.ndarray,
    ports: frozenset[int] = PORTS,
) -> Block:
    """The payloads that were sent to one of ``ports``, as a block for ``Collector.feed``.

    ``data`` u1, readable for PADDING octets past the last payload; ``at``, ``size`` (n,) i8, octets; ``src``
    (n, 16) u1, IPv4 mapped; ``dst_port`` (n,) u2; ``t_ns`` (n,) i8, Unix time.
    """
    wanted = np.isin(dst_port, np.fromiter(ports, np.uint16))
    halves = np.ascontiguousarray(src[wanted]).view(np.uint64).reshape(-1, 2)
    # Exporters are few, and most rows repeat the one before: look only where it changes.
    changes = np.ones(len(halves), bool)
    changes[1:] = (halves[1:] != halves[:-1]).any(axis=1)
    numbers: dict[bytes, int] = {}
    runs = [numbers.setdefault(halves[i].tobytes(), len(numbers)) for i in np.flatnonzero(changes)]
    exporter = np.array(runs, np.int64)[np.cumsum(changes) - 1]
    return Block(
        data,
        at[wanted].astype(np.int64),
        size[wanted].astype(np.int64),
        exporter,
        t_ns[wanted].astype(np.int64),
        list(numbers),
    )
