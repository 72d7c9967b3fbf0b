"""NetFlow v5: one export datagram in, a Message out.  A fixed layout, told here as a template.

Layout: Cisco, "NetFlow Services Solutions Guide", export version 5.
"""

from typing import Final

from collectors.netflow.messages import Message, fixed, u2, u4
from collectors.netflow.templates import Field, Template

HEADER_BYTES: Final = 24
RECORD_BYTES: Final = 48
# 210 is paddingOctets.
LAYOUT: Final = Template(
    5,
    0,
    tuple(
        Field(number, width)
        for number, width in (
            (8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2),
            (210, 1), (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (9, 1), (13, 1), (210, 2),
        )
    ),
)  # fmt: skip


def decode(datagram: bytes) -> Message:
    """Decode one datagram.  Raises DecodeError, and nothing else, on bad bytes."""
    return fixed(datagram, 5, HEADER_BYTES, RECORD_BYTES)._replace(
        domain=u2(datagram, 20),
        sequence=u4(datagram, 16),
        sampling=u2(datagram, 22) & 0x3FFF,  # the two bits above are the mode
    )
