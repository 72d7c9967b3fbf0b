"""NetFlow v1: one export datagram in, a Message out.  A fixed layout, told here as a template.

Layout: Cisco, "NetFlow Services Solutions Guide", export version 1.  It has no sequence number and no engine;
a record is 48 octets, as nfdump and Wireshark have it too (Cisco's table can be read as 49).
"""

from typing import Final

from collectors.netflow.messages import Message, fixed
from collectors.netflow.templates import Field, Template

HEADER_BYTES: Final = 16
RECORD_BYTES: Final = 48
# What the column ``source`` of the stream says of it: 1 there is sFlow.
SOURCE: Final = 3
# 210 is paddingOctets.
LAYOUT: Final = Template(
    SOURCE,
    0,
    tuple(
        Field(number, width)
        for number, width in (
            (8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2),
            (210, 2), (4, 1), (5, 1), (6, 1), (210, 7),
        )
    ),
)  # fmt: skip


def decode(datagram: bytes) -> Message:
    """Decode one datagram.  Raises DecodeError, and nothing else, on bad bytes."""
    return fixed(datagram, 1, HEADER_BYTES, RECORD_BYTES)
