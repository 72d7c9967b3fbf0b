"""Headers that sFlow sampled: as ``frames``, but of a packet's length the frame has the last word.

Who sends a packet writes its IP header, and the switch measures its frame.  A header that says no length
(captured before segmentation offload filled it in, as hosts that sample themselves do) or a longer one than
the frame had room for is not believed.
"""

from typing import Final

from collectors.jit import bare as kernel
from collectors.packet.frames import decode
from collectors.packet.links import be16, network_layer

# What became of a length.
AS_TOLD: Final = 0
WITHOUT: Final = 1  # the IP header says none
TOO_LONG: Final = 2  # it says more than the frame had
# Of an Ethernet frame, counted or not: agents differ, and so far they may be off.
_CHECK_SEQUENCE: Final = 4


@kernel
def decode_sampled(data, offset, captured, length, link, out, code, judged):
    """As ``frames.decode_all``, with ``octets`` of the outermost IP packet held to the frame's ``length``.

    ``offset`` to ``link`` (n,) i8; ``out`` (n,) FRAME of zeros, ``code`` (n,) i8 and ``judged`` (n,) u1 are
    filled: AS_TOLD, WITHOUT or TOO_LONG.
    """
    for i in range(offset.size):
        f = out[i]
        at = offset[i]
        here = network_layer(data, at, at + captured[i], link[i], f)
        code[i] = decode(data, at, captured[i], length[i], link[i], f)
        judged[i] = AS_TOLD
        if f.octets == 0:
            continue
        room = at + max(length[i], captured[i]) - here
        told = be16(data, here + (2 if data[here] >> 4 == 4 else 4))
        if told == 0 and f.octets == room:
            judged[i] = WITHOUT
        elif f.octets > room + _CHECK_SEQUENCE:
            f.octets = room
            judged[i] = TOO_LONG
