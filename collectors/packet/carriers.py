"""What carries lines without showing them: one look at the beginning of a segment, inside the compiled pass.

A token is not seen in the frames of a WebSocket's client, which are masked (RFC 6455 section 5.3): they are
unmasked for the search.  In compressed ones (RFC 7692), in the chunks of a body (RFC 9112 section 7.1) and
in coded bodies nothing is seen.  Stratum V2 and nodes (``nodes``) have no tokens: their messages show by
their heads.  And what comes before the first token is wanted too: the head of a request (``heads``) whose
body has it, the words to a proxy, the upgrade to a WebSocket.  Connections that begin so, or go on so, are
*tentative*: they pass on so many octets.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.frames import be16
from collectors.packet.heads import (
    AMPLE,
    BEGIN,
    CODED,
    FRAMED,
    HEADING,
    JSON,
    OVER,
    POSTS,
    STATE,
    WANTED,
    read_on,
)
from collectors.packet.nodes import is_node
from collectors.packet.table import BRACE, DECIDED, HAS_PAYLOAD, HAS_START, NO, PICKED, TENTATIVE
from collectors.packet.tokens import find

# So much of a masked frame is searched; a mining line shows what it is well before.
UNMASKED: Final = 512
# What the search takes of a connection's budget of near misses.
_COST: Final = 16
# A head has so many octets free that are read one by one; beyond, so many are a near miss.
_READ: Final = 256
_READS: Final = 8
# So many frames of one segment are walked.
_FRAMES: Final = 16
# So many octets of a segment show that a head begins.
_WORD: Final = 8
# An escape is looked for in so much of a text.
_ESCAPES: Final = 512
# What of a direction's word outlasts a head.
_STAYS: Final = FRAMED | WANTED | AMPLE


@kernel
def _is_blank(byte):
    return byte in (32, 9, 10, 13)


@kernel
def opens(data, at, end):
    """Does the first payload of a direction, data[at:end], begin with words to a proxy, however few octets
    of them there are?"""
    first = data[at]
    size = end - at
    if first == 5:
        # SOCKS 5: the methods that a client offers, or the one that a server takes; then what follows them.
        if size < 2 or data[at + 1] > 8:
            return size == 1
        after = at + 2 + np.int64(data[at + 1])
        return size == 2 or after >= end or data[after] in (1, 5) or data[at + 2] in (1, 5)
    if first == 4:
        return size == 1 or data[at + 1] == 1
    # PROXY protocol, version 2.
    return size > 4 and first == 13 and data[at + 1] == 10 and data[at + 3] == 10 and data[at + 4] == 0


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
def _frame(data, at, end):
    """The head of a frame at ``at`` (RFC 6455 section 5.2): (its octets, those of its payload), (0, 0) where
    it is cut or none."""
    size = np.int64(data[at + 1] & 127) if at + 2 <= end else np.int64(0)
    head = np.int64(2)
    if size == 126:
        head = np.int64(4)
        size = np.int64(be16(data, at + 2)) if at + 4 <= end else np.int64(0)
    elif size == 127:
        head = np.int64(10)
        if at + 10 > end or be16(data, at + 2) | be16(data, at + 4) | data[at + 6]:
            return np.int64(0), np.int64(0)
        size = np.int64(be16(data, at + 8)) | np.int64(data[at + 7]) << 16
    if at + head <= end and data[at + 1] & 0x80:
        head += 4
    if at + head > end:
        return np.int64(0), np.int64(0)
    return head, size


@kernel
def _unmasked(data, at, end, size, masked, tokens, scratch):
    """Look into the payload of a text frame: (it may be JSON, a token is in it)."""
    mask = at - 4
    count = min(size, end - at, np.int64(UNMASKED))
    if count < 1:
        return False, False
    first = data[at] ^ data[mask] if masked else data[at]
    if first != ord("{") and first != ord("[") and not _is_blank(first):
        return False, False
    if not masked:
        return True, False  # its tokens show by themselves
    for k in range(count):
        scratch[k] = data[at + k] ^ data[mask + (k & 3)]
    found, _ = find(scratch, 0, count, tokens, np.int64(UNMASKED))
    return True, found


@kernel
def look_frames(data, at, end, room, tokens, scratch):
    """Judge a segment that may begin with frames of a WebSocket.

    Returns (PICKED where a token is in a client's; TENTATIVE where it is nothing but whole frames, of which
    one is compressed, or a message in fragments is; else NO; and whether one was searched).  Without ``room``
    none is.
    """
    count = 0
    packed = continued = text = searched = False
    while at < end and count < _FRAMES:
        byte = data[at]
        code = byte & 15
        head, size = _frame(data, at, end)
        if head == 0 or byte & 0x30 or not (code <= 2 or 8 <= code <= 10):
            return NO, searched
        if code >= 8:
            if size > 125 or byte & 0xC0 != 0x80:
                return NO, searched
        elif code == 0:
            if not text and not packed:
                return NO, searched
            continued = True
        elif byte & 0x40:
            packed = True
        elif not text:
            masked = data[at + 1] & 0x80 != 0
            if masked and not room:
                return NO, searched
            text, found = _unmasked(data, at + head, end, size, masked, tokens, scratch)
            searched = text and masked
            if found:
                return PICKED, True
            if not text:
                return NO, searched
        at += head + size
        count += 1
    whole = at == end or count == _FRAMES
    return (TENTATIVE if whole and (packed or continued) else NO), searched


@kernel
def _escapes(data, at, end):
    """Is there an escape in a text of JSON, behind which a token may hide?"""
    found = False
    for i in range(at, min(end, at + _ESCAPES)):
        found = found or data[i] == ord("\\")
    return found


@kernel
def _hides(data, at, end, word):
    """Does the body of JSON that begins at ``at``, behind its head, show no token where it has one?  WANTED
    where it is cut, AMPLE too where it is written so."""
    if word & CODED or _escapes(data, at, end):
        return WANTED | AMPLE
    last = end
    while last > at and _is_blank(data[last - 1]):
        last -= 1
    return 0 if last > at and data[last - 1] in (ord("}"), ord("]")) else WANTED


@kernel
def _read_head(data, at, end, r, d, limits):
    """Read heads of HTTP/1 from ``at`` on, one behind another: the direction's word moves on."""
    word = np.int64(r.carried[d])
    while at < end:
        if r.attempts >= limits.attempts:
            # What there is no budget to read is passed on.
            _, word, _ = read_on(data, at, min(end, at + _WORD), word)
            word = (word | WANTED) & ~HEADING if word & HEADING else word
            break
        at, word, steps = read_on(data, at, end, word)
        spent = max(np.int64(0), np.int64(steps) - _READ) // _READS
        if word & HEADING:
            spent += _COST
        r.attempts = np.uint16(min(np.int64(r.attempts) + spent, np.int64(0xFFFF)))
        if word & HEADING or word & STATE != OVER:
            break
        posts = word & POSTS and word & JSON
        if posts:
            word |= _hides(data, at, end, word)
        if posts or at >= end or not ord("A") <= data[at] <= ord("Z"):
            break
        # The next request, behind one that has no body.
        word = (word & _STAYS) | BEGIN
    r.carried[d] = np.uint16(word if word & HEADING else word & _STAYS)


@kernel
def _heads(data, f, r, d, follows, limits):
    """Is a head in the segment, or a part of one?  Reads it."""
    at = f.payload_at
    end = at + f.payload
    if r.carried[d] & HEADING:
        if follows:
            _read_head(data, at, end, r, d, limits)
        else:
            # What came before will come again, or is lost.
            r.carried[d] = np.uint16((r.carried[d] & _STAYS) | WANTED)
        return
    while at < end and (data[at] == 13 or data[at] == 10):
        at += 1
    if at < end and data[at] in (ord("G"), ord("P"), ord("H"), ord("C"), ord("O"), ord("D"), ord("T")):
        r.carried[d] |= np.uint16(BEGIN)
        _read_head(data, at, end, r, d, limits)


@kernel
def carries(r):
    """The flags of what a connection carries, of both directions together."""
    return np.int64(r.carried[0]) | np.int64(r.carried[1])


@kernel
def _is_braced(r, d):
    """Is the connection tentative for the first bytes of its lines?"""
    undecided = r.seen[d] & (HAS_START | DECIDED) == HAS_START
    return undecided or (r.seen[0] | r.seen[1]) & BRACE != 0


@kernel
def judge(data, f, r, d, follows, limits, tokens, scratch):
    """What the segment makes of its connection, which is not picked: NO, TENTATIVE or PICKED.

    ``follows``: it goes on where the direction's last one ended.
    """
    at = f.payload_at
    end = at + f.payload
    first = data[at]
    now = r.candidate
    known = carries(r)
    if f.payload >= 3 and first == 22 and data[at + 1] == 3 and (now == TENTATIVE or known & WANTED):
        # TLS: what it carries cannot be read.
        r.carried[0] = np.uint16(0)
        r.carried[1] = np.uint16(0)
        return np.uint8(NO)
    # One packet is no connection: a flood of them costs nothing here, and nobody else anything.
    if first <= 3 and r.life_packets > 1 and (is_node(data, at, end) or speaks_stratum2(data, at, end)):
        return np.uint8(PICKED)
    if first & 0x30 == 0 and 0 < first & 15 <= 10:
        got, searched = look_frames(data, at, end, r.attempts < limits.attempts, tokens, scratch)
        if searched:
            r.attempts = np.uint16(min(np.int64(r.attempts) + _COST, np.int64(0xFFFF)))
        if got == PICKED:
            return np.uint8(PICKED)
        if got == TENTATIVE:
            r.carried[d] |= np.uint16(WANTED | AMPLE if known & FRAMED else FRAMED)
    if not known & AMPLE:
        _heads(data, f, r, d, follows, limits)
    if r.seen[d] & (HAS_START | HAS_PAYLOAD) == HAS_START and opens(data, at, end):
        r.carried[d] |= np.uint16(WANTED | AMPLE)
    known = carries(r)
    if known & (WANTED | HEADING):
        return np.uint8(TENTATIVE)
    if _is_braced(r, d):
        if now == TENTATIVE and not known & AMPLE and _escapes(data, at, end):
            r.carried[d] |= np.uint16(AMPLE)
        return now
    return np.uint8(NO)  # nothing came of a head
