"""What carries lines without showing them: one look at the beginning of a segment, inside the compiled pass.

A token is not seen in the frames of a WebSocket's client, which are masked (RFC 6455 section 5.3): they are
unmasked for the search.  In compressed ones (RFC 7692) nothing is seen.  Stratum V2 has no tokens: its
messages show by their heads.  And what comes before the first token is wanted too: the head of a request
whose body has it, the words to a proxy, the upgrade to a WebSocket.  Connections that begin so, or go on so,
are *tentative*: they pass on so many octets a record.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.frames import be16
from collectors.packet.table import HAS_PAYLOAD, HAS_START, NO, PICKED, TENTATIVE
from collectors.packet.tokens import find

# So much of a masked frame is searched; a mining line shows what it is well before.
UNMASKED: Final = 512
# What the search takes of a connection's budget of near misses.
_COST: Final = 16
# An upgrade is looked for in so much of a request.
_MAX_HEAD: Final = 1024

_POST: Final = np.frombuffer(b"POST ", np.uint8)
_CONNECT: Final = np.frombuffer(b"CONNECT ", np.uint8)
_GET: Final = np.frombuffer(b"GET ", np.uint8)
_SWITCHED: Final = np.frombuffer(b"HTTP/1.1 101 ", np.uint8)
_CONNECTED: Final = np.frombuffer(b"HTTP/1.1 200 ", np.uint8)
_JSON: Final = np.frombuffer(b"json", np.uint8)
_UPGRADE: Final = np.frombuffer(b"upgrade:", np.uint8)
_SOCKET: Final = np.frombuffer(b"websocket", np.uint8)
_MINOR: Final = 7  # in HTTP/1.x any digit will do


@kernel
def _begins(data, at, end, word, but):
    """Does ``word`` stand at ``at``, in either case?  Its byte number ``but`` may be any."""
    if at + word.size > end:
        return False
    for k in range(word.size):
        byte = data[at + k]
        if byte != word[k] and byte | 32 != word[k] and k != but:
            return False
    return True


@kernel
def _upgrades(data, at, end):
    """Is there a field in the head that asks for a WebSocket?"""
    for i in range(at, min(end, at + _MAX_HEAD)):
        if data[i] == 10 and _begins(data, i + 1, end, _UPGRADE, -1):
            value = i + 1 + _UPGRADE.size
            while value < end and data[value] == 32:
                value += 1
            if _begins(data, value, end, _SOCKET, -1):
                return True
    return False


@kernel
def _head_alone(data, at, end):
    return end - at >= 4 and data[end - 1] == 10 and (data[end - 2] == 10 or data[end - 3] == 10)


@kernel
def _posts(data, at, end):
    """A head that is to be followed by JSON?  Where that is in the same segment it shows a token itself."""
    if not _begins(data, at, end, _POST, -1) or not _head_alone(data, at, end):
        return False
    for i in range(at, min(end, at + _MAX_HEAD)):
        if data[i] == ord("j") and _begins(data, i, end, _JSON, -1):
            return True
    return False


@kernel
def opens(data, at, end):
    """Does the first payload of a direction, data[at:end], begin what may carry lines?"""
    first = data[at]
    if first == ord("G"):
        return _begins(data, at, end, _GET, -1) and _upgrades(data, at, end)
    if first == ord("C"):
        return _begins(data, at, end, _CONNECT, -1)
    if first == ord("H"):
        # "Connection established", as proxies answer CONNECT.
        said = at + _CONNECTED.size
        connected = _begins(data, at, end, _CONNECTED, _MINOR) and said < end and data[said] | 32 == ord("c")
        return connected and _head_alone(data, at, end)
    if first == 5:
        # SOCKS 5: the methods that a client offers, or the one that a server takes.
        return end - at >= 2 and (end - at == 2 or (end - at == 2 + data[at + 1] and data[at + 1] <= 8))
    if first == 4:
        return end - at >= 9 and data[at + 1] == 1 and data[end - 1] == 0
    return False


@kernel
def speaks_stratum2(data, at, end):
    """Does the segment begin with a message of Stratum V2 without Noise: the setup of a connection for
    mining, or one of a channel whose length is fixed (sv2-spec 05-Mining-Protocol.md)?"""
    if end - at < 12 or data[at] != 0 or data[at + 5] != 0:
        return False
    kind = data[at + 2]
    size = np.int64(data[at + 3]) | np.int64(data[at + 4]) << 8
    if data[at + 1] == 0:
        if kind == 0:  # for mining, from version 2 on; Kafka's Produce begins alike, but for the second
            least = data[at + 6] == 0 and data[at + 7] == 2 and data[at + 8] == 0
            return size >= 16 and least and data[at + 9] >= 2 and data[at + 10] == 0
        return kind == 1 and size == 6 and data[at + 6] == 2 and data[at + 7] == 0
    if data[at + 1] != 0x80:
        return False
    if kind == 0x1B:  # a share with up to 32 octets of extranonce
        return 25 <= size <= 57
    if kind == 0x1A:
        return size == 24
    if kind == 0x1C:
        return size == 20
    if kind == 0x20:
        return size == 48
    return kind == 0x21 and size == 36


@kernel
def look_frame(data, at, end, tokens, scratch):
    """Judge a segment that may begin with a frame of a WebSocket: PICKED where a token is in a client's,
    TENTATIVE where one is compressed, else NO; and whether it was searched."""
    if end - at < 6:
        return NO, False
    packed = data[at] & 0x40 != 0
    size = np.int64(data[at + 1] & 127)
    masked = data[at + 1] & 0x80 != 0
    head = np.int64(2)
    if size == 126:
        size = np.int64(be16(data, at + 2))
        head = np.int64(4)
    elif size == 127:
        return NO, False
    if masked:
        head += 4
    if packed:
        return (TENTATIVE if head + size == end - at else NO), False
    begins = at + head
    if not masked or begins >= end:
        return NO, False
    count = min(size, end - begins, np.int64(UNMASKED))
    if count < 1 or (data[begins] ^ data[begins - 4]) not in (ord("{"), ord("["), 32, 9, 10, 13):
        return NO, False
    for k in range(count):
        scratch[k] = data[begins + k] ^ data[begins - 4 + (k & 3)]
    found, _ = find(scratch, 0, count, tokens, np.int64(UNMASKED))
    return (PICKED if found else NO), True


@kernel
def judge(data, f, r, d, limits, tokens, scratch):
    """What the segment makes of its connection, which is not picked: NO, TENTATIVE or PICKED."""
    at = f.payload_at
    end = at + f.payload
    first = data[at]
    now = r.candidate
    if now == TENTATIVE and f.payload >= 3 and first == 22 and data[at + 1] == 3:
        return np.uint8(NO)  # TLS: what it carries cannot be read
    if first in (0x81, 0x82, 0xC1, 0xC2):
        if r.attempts >= limits.attempts:
            return now
        got, searched = look_frame(data, at, end, tokens, scratch)
        if searched:
            r.attempts = np.uint16(min(np.int64(r.attempts) + _COST, np.int64(0xFFFF)))
        return np.uint8(max(np.int64(got), np.int64(now)))
    # One packet is no connection: a flood of them costs nothing here, and nobody else anything.
    if first == 0 and r.life_packets > 1 and speaks_stratum2(data, at, end):
        return np.uint8(PICKED)
    if now == TENTATIVE:
        return now
    if first == ord("H") and _begins(data, at, end, _SWITCHED, _MINOR):
        return np.uint8(TENTATIVE)
    if first == ord("P") and _posts(data, at, end):
        return np.uint8(TENTATIVE)
    if r.seen[d] & (HAS_START | HAS_PAYLOAD) == HAS_START and opens(data, at, end):
        return np.uint8(TENTATIVE)
    return now
