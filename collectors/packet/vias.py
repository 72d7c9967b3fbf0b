"""How packets of a connection came: VLAN and outermost tunnel, as one number of two octets in its row.

0 is neither; up to VLANS the VLAN's number plus one; above that a place in a bounded table of tunnels with
their ends.  Where the table is full the tunnel is not told, and that is counted.
"""

from typing import Final, NamedTuple

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.frames import NO_VLAN
from collectors.packet.table import FREE, hash_of
from collectors.packet.tunnels import ERSPAN

VLANS: Final = 4096
MAX_TUNNELS: Final = 1 << 14
_FIRST: Final = VLANS + 1
VIA: Final = np.dtype(
    [
        ("src_high", "u8"), ("src_low", "u8"), ("dst_high", "u8"), ("dst_low", "u8"),
        ("tunnel", "u1"), ("vlan", "u2"),
    ]
)  # fmt: skip

# Places in ``state``.
USED: Final = 0
UNTOLD: Final = 1  # connections whose tunnel found no room


class Vias(NamedTuple):
    """``entries`` (n,) VIA, ``hashed`` (2n,) u4 open-addressed, place plus one; ``state`` (2,) i8."""

    entries: np.ndarray
    hashed: np.ndarray
    state: np.ndarray


def vias(tunnels: int = MAX_TUNNELS) -> Vias:
    """No tunnels yet; room for so many, a power of two."""
    return Vias(np.zeros(tunnels, VIA), np.zeros(2 * tunnels, np.uint32), np.zeros(2, np.int64))


@kernel
def _place(e, index, seed):
    ports = (np.uint64(e.tunnel) << np.uint64(16)) | np.uint64(e.vlan)
    h = hash_of(e.src_high, e.src_low, e.dst_high, e.dst_low, ports, seed)
    return np.int64((h >> np.uint64(32)) & np.uint64(index.size - 1))


@kernel
def _matches(a, b):
    return (
        a.src_low == b.src_low
        and a.dst_low == b.dst_low
        and a.src_high == b.src_high
        and a.dst_high == b.dst_high
        and a.tunnel == b.tunnel
        and a.vlan == b.vlan
    )


@kernel
def via_of(f, v, seed):
    """The number for how frame ``f`` (frames.FRAME) came."""
    plain = np.uint16(0 if f.vlan == NO_VLAN else f.vlan + 1)
    if f.tunnel == 0:
        return plain
    n = v.state[USED]
    e = v.entries[n]  # the last place is never taken: it is there to ask with
    e.src_high, e.src_low = f.tunnel_src_high, f.tunnel_src_low
    e.dst_high, e.dst_low = f.tunnel_dst_high, f.tunnel_dst_low
    e.tunnel, e.vlan = f.tunnel, f.vlan
    i = _place(e, v.hashed, seed)
    while v.hashed[i] != 0:
        known = np.int64(v.hashed[i]) - 1
        if _matches(v.entries[known], e):
            return np.uint16(_FIRST + known)
        i = (i + 1) & (v.hashed.size - 1)
    if n == v.entries.size - 1:
        v.state[UNTOLD] += 1
        return plain
    v.hashed[i] = np.uint32(n + 1)
    v.state[USED] += 1
    return np.uint16(_FIRST + n)


@kernel
def _reindex(v, seed):
    for i in range(v.hashed.size):
        v.hashed[i] = np.uint32(0)
    for n in range(v.state[USED]):
        i = _place(v.entries[n], v.hashed, seed)
        while v.hashed[i] != 0:
            i = (i + 1) & (v.hashed.size - 1)
        v.hashed[i] = np.uint32(n + 1)


def sweep(v: Vias, rows: np.ndarray, high: int, seed: np.uint64) -> None:
    """Forget tunnels of no row any more, once half the table is used.  ``rows`` (table.ROW) up to ``high``
    are renumbered: no copy of a row may be waiting for ``columns``."""
    if v.state[USED] * 2 < v.entries.size:
        return
    via = rows["via"][:high]
    live = (rows["phase"][:high] != FREE) & (via >= _FIRST)
    kept, place = np.unique(via[live], return_inverse=True)
    via[live] = (_FIRST + place).astype(np.uint16)
    v.entries[: kept.size] = v.entries[kept.astype(np.int64) - _FIRST]
    v.state[USED] = kept.size
    _reindex(v, seed)


class Columns(NamedTuple):
    """Columns of ``flows``: ``vlan`` u2, NO_VLAN for none; ``tunnel`` u1, 0 for none; its ends (n, 16) u1."""

    vlan: np.ndarray
    tunnel: np.ndarray
    src: np.ndarray
    dst: np.ndarray


def _ends(entries: np.ndarray, side: str) -> np.ndarray:
    halves = np.stack([entries[f"{side}_high"], entries[f"{side}_low"]], axis=1)
    return halves.astype(">u8").view(np.uint8).reshape(-1, 16)


def columns(v: Vias, numbers: np.ndarray, sender: np.ndarray, forward: np.ndarray) -> Columns:
    """What the ``numbers`` of exported rows say; ``sender`` is the direction of their first packets, all
    (n,).  Ends are turned as the record is: a tunnel leads back the way it came, except one that only
    mirrors."""
    via = numbers.astype(np.int64)
    inside = via >= _FIRST
    if not inside.any():
        vlan = np.where(via > 0, via - 1, NO_VLAN).astype(np.uint16)
        ends = np.zeros((via.size, 16), np.uint8)
        return Columns(vlan, np.zeros(via.size, np.uint8), ends, ends)
    entries = v.entries[np.where(inside, via - _FIRST, 0)]
    vlan = np.where(inside, entries["vlan"], np.where(via > 0, via - 1, NO_VLAN)).astype(np.uint16)
    back = ((forward != sender) & (entries["tunnel"] != ERSPAN))[:, None]
    src, dst = _ends(entries, "src"), _ends(entries, "dst")
    tunnel = np.where(inside, entries["tunnel"], 0).astype(np.uint8)
    return Columns(vlan, tunnel, np.where(back, dst, src), np.where(back, src, dst))
