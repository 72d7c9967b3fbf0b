"""NetFlow v9 (RFC 3954): one export datagram in, a Message out.

The header's count is not used: exporters disagree on whether it counts records, templates or sets.
"""

from typing import Final

from collectors.netflow.messages import SECOND_NS, Message, header, sets, u4

HEADER_BYTES: Final = 20


def decode(datagram: bytes) -> Message:
    """Decode one datagram.  Raises DecodeError, and nothing else, on bad bytes."""
    header(datagram, 9, HEADER_BYTES)
    found, broken = sets(datagram, HEADER_BYTES, len(datagram))
    return Message(
        version=9,
        domain=u4(datagram, 16),
        sequence=u4(datagram, 12),
        export_ns=u4(datagram, 8) * SECOND_NS,
        uptime_ms=u4(datagram, 4),
        sampling=0,
        sets=found,
        broken=broken,
    )
