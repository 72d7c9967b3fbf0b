"""NetFlow v5: one export datagram in, a Message out.  A fixed layout, told here as a template.

Layout: Cisco, "NetFlow Services Solutions Guide", export version 5.
"""

from typing import Final

from collectors.errors import DecodeError, Reason
from collectors.netflow.messages import SECOND_NS, Message, Set, header, u2, u4
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
    """Decode one datagram.  Raises DecodeError, and nothing else, on bad bytes.

    The count is trusted before the room: what follows the last record is ignored.  A count larger than the
    room is refused, for then it is not known where a record begins that matters.
    """
    header(datagram, 5, HEADER_BYTES)
    count = u2(datagram, 2)
    end = HEADER_BYTES + count * RECORD_BYTES
    if end > len(datagram):
        raise DecodeError(Reason.LENGTH, f"{count} records in {len(datagram)} bytes")
    return Message(
        version=5,
        domain=u2(datagram, 20),
        sequence=u4(datagram, 16),
        export_ns=u4(datagram, 8) * SECOND_NS + min(u4(datagram, 12), SECOND_NS - 1),
        uptime_ms=u4(datagram, 4),
        sampling=u2(datagram, 22) & 0x3FFF,  # the two bits above are the mode
        sets=(Set(0, datagram[HEADER_BYTES:end]),),
    )
