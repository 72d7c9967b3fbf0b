"""Binary messages of a node for its miners: one look at the beginning of a segment, inside the compiled pass.

Alephium's (port 10973, which tells nothing by itself): a length, a version, a type, and some twelve octets
more that are the same in every message of a kind, so that a segment that begins with one is enough.  Nodes
push jobs every few seconds.  What they mean ``detector/transports/alephium.py`` says.
"""

from typing import Final

from collectors.jit import bare as kernel
from collectors.packet.frames import be16

_RESULT: Final = 47


@kernel
def _small(data, at, most):
    """Is the number of four octets at ``at`` less than ``most``?"""
    return data[at] == 0 and data[at + 1] == 0 and be16(data, at + 2) < most


@kernel
def is_node(data, at, end):
    """Does data[at:end] begin with jobs, a block or the result of one, as Alephium's nodes say them?"""
    if end - at < 36 or data[at] > 3 or data[at + 4] != 1 or data[at + 5] > 1:
        return False
    low = be16(data, at + 2)
    if data[at + 5] == 1:
        same = data[at] == 0 and data[at + 1] == 0 and low == 43 and end - at >= _RESULT
        return same and _small(data, at + 6, 16) and _small(data, at + 10, 16) and data[at + 46] <= 1
    if _small(data, at + 6, 65):
        groups = _small(data, at + 10, 16) and _small(data, at + 14, 16)
        return groups and _small(data, at + 18, 1025) and be16(data, at + 20) >= 78 and be16(data, at + 8) > 0
    high = be16(data, at)
    block = (be16(data, at + 6) << 16) | be16(data, at + 8)
    return block == ((high << 16) | low) - 6 and data[at + 34] == 0 and data[at + 35] == 7
