"""Datagrams of exports out of packets: columns of UDP payloads in, those that are exports out.

Whoever reads packets hands over columns; nothing here knows a capture file.
"""

from typing import Final

import numpy as np

from collectors.netflow.datagrams import Block

# NetFlow by habit 2055, 2056, 9995, 9996 and their neighbours; IPFIX 4739 and 4740 (RFC 7011 section 10);
# sFlow 6343.
PORTS: Final = frozenset({2055, 2056, 2100, 3055, 4432, 4739, 4740, 6007, 6343, 9025, 9555, 9995, 9996, 9997})


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
    heads = halves[changes].view("V16").ravel().tolist()
    runs = [numbers.setdefault(head, len(numbers)) for head in heads]
    exporter = np.array(runs, np.int64)[np.cumsum(changes) - 1]
    return Block(
        data,
        at[wanted].astype(np.int64),
        size[wanted].astype(np.int64),
        exporter,
        t_ns[wanted].astype(np.int64),
        list(numbers),
    )
