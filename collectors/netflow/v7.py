"""NetFlow v7 (Catalyst switches): one export datagram in, a Message out.  A fixed layout, as v5's.

Layout: Cisco, "Catalyst 6500 Series Switch Software Configuration Guide", NDE version 7.  Octet 36 is the
flow mask in use: by a mask that leaves a field out, the switch writes zeros.  The last field of a record is
the router whose work the switch took over: a shortcut.
"""

from typing import Final

from collectors.netflow.messages import Message, fixed, u4
from collectors.netflow.templates import Field, Template

HEADER_BYTES: Final = 24
RECORD_BYTES: Final = 52
# 210 is paddingOctets, 43 ipv4RouterSc.
LAYOUT: Final = Template(
    7,
    0,
    tuple(
        Field(number, width)
        for number, width in (
            (8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2),
            (210, 1), (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (9, 1), (13, 1), (210, 2), (43, 4),
        )
    ),
)  # fmt: skip


def decode(datagram: bytes) -> Message:
    """Decode one datagram.  Raises DecodeError, and nothing else, on bad bytes."""
    return fixed(datagram, 7, HEADER_BYTES, RECORD_BYTES)._replace(sequence=u4(datagram, 16))
