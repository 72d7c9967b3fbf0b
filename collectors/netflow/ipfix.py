"""IPFIX (RFC 7011): one message in, a Message out."""

from typing import Final

from collectors.errors import DecodeError, Reason
from collectors.netflow.messages import SECOND_NS, Message, header, sets, u2, u4

HEADER_BYTES: Final = 16


def decode(datagram: bytes) -> Message:
    """Decode one message.  Raises DecodeError, and nothing else, on bad bytes.

    What follows the length that the header tells is ignored; a length beyond the datagram is refused.
    """
    header(datagram, 10, HEADER_BYTES)
    length = u2(datagram, 2)
    if length < HEADER_BYTES or length > len(datagram):
        raise DecodeError(Reason.LENGTH, f"length {length} in a datagram of {len(datagram)}")
    found, broken = sets(datagram, HEADER_BYTES, length)
    return Message(
        version=10,
        domain=u4(datagram, 12),
        sequence=u4(datagram, 8),
        export_ns=u4(datagram, 4) * SECOND_NS,
        uptime_ms=-1,
        sampling=0,
        sets=found,
        broken=broken,
    )
