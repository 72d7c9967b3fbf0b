"""Which datagrams and segments leave for ``names``: picked inside the compiled pass, by the name they hold.

A DNS answer of a configured resolver leaves if the name asked for, or an alias in it, may be a wanted one;
the segment that begins a TLS client hello if its server name may be, or if its bytes end before they tell,
and then what follows it.  All else stays, at the cost of one look.  So many leave in a second of the data's
time and no more: not in a block, for where blocks are cut changes nothing.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.answers import MAX_ALIASES, MAX_HOPS, MAX_NAME
from collectors.packet.frames import SYN, be16
from collectors.packet.hellos import MAX_OCTETS, MAX_RECORD
from collectors.packet.namesets import may_match
from collectors.packet.table import CLOCK, HAS_PAYLOAD, HAS_START, NAME_SECOND, NAMES_SURE, NAMES_UNSURE

# What leaves.
DNS: Final = 0
BEGINS: Final = 1  # a client hello begins here
MORE: Final = 2  # what its direction sent next
AHEAD_OF: Final = 3  # first payload of a direction, but not its first byte
NAMED: Final = np.dtype(
    [
        ("kind", "u1"), ("direction", "u1"), ("conn", "u8"),
        ("src_high", "u8"), ("src_low", "u8"), ("dst_high", "u8"), ("dst_low", "u8"),
        ("src_port", "u2"), ("dst_port", "u2"),
        ("seq", "u4"), ("whole", "u1"),  # 0: the capture cut the payload
        ("t", "i8"), ("clock", "i8"),
        ("at", "i8"), ("size", "i8"),    # the payload in the block's data
    ]
)  # fmt: skip

# Places in the counter array.
SEEN_DNS: Final = 11
SEEN_TLS: Final = 12
WITHHELD_NAMES: Final = 13
STRANGERS: Final = 14

# Answers of the two looks.
_NOT: Final = 0
_SURE: Final = 1
_UNSURE: Final = 2  # malformed or cut: Python says why, or waits for the rest

# Of ROW.seen the two top bits count the segments that may still belong to a hello.
_MORE_ONE: Final = 64
_MORE_ALL: Final = 192
_MAX_AHEAD: Final = 8192
_TCP: Final = 6
_UDP: Final = 17
_DOT: Final = ord(".")
_SECOND: Final = 1_000_000_000


@kernel
def _lower(byte):
    return np.uint8(byte + 32) if ord("A") <= byte <= ord("Z") else np.uint8(byte)


@kernel
def unpack(data, base, at, end, text):
    """``answers.unpack`` of the message data[base:end]: (index after the name, its size in ``text``), or
    (-1, 0) where that raises."""
    after = np.int64(-1)
    floor = at
    size = np.int64(0)
    hops = 0
    while at < end:
        n = np.int64(data[at])
        if n == 0:
            return (at + 1 if after < 0 else after), max(np.int64(0), size - 1)
        if n >= 0xC0:
            if at + 2 > end:
                break
            target = base + ((n & 0x3F) << 8) + np.int64(data[at + 1])
            if after < 0:
                after = at + 2
            hops += 1
            if target < base + 12 or target >= floor or hops > MAX_HOPS:
                break
            floor = target
            at = target
            continue
        if n >= 0x40 or size + n + 2 > MAX_NAME or at + 1 + n > end:
            break
        for k in range(n):
            text[size + k] = _lower(data[at + 1 + k])
        text[size + n] = _DOT
        size += n + 1
        at += 1 + n
    return np.int64(-1), np.int64(0)


@kernel
def _skip(data, at, end):
    while at < end:
        n = np.int64(data[at])
        if n >= 0xC0:
            return at + 2
        if n >= 0x40:
            break
        at += 1 + n
        if n == 0:
            return at
    return np.int64(-1)


@kernel
def look_answer(data, base, end, wanted, text):
    """Does the DNS answer data[base:end] name something wanted, as the name asked for or as an alias?"""
    if end - base < 12:
        return _UNSURE
    questions = be16(data, base + 4)
    if questions != 1:
        return _UNSURE if questions > 1 else _NOT
    at, size = unpack(data, base, base + 12, end, text)
    if at < 0:
        return _UNSURE
    if may_match(text, size, wanted):
        return _SURE
    at += 4
    aliases = 0
    for _ in range(be16(data, base + 6)):
        at = _skip(data, at, end)
        if at < 0 or at + 10 > end:
            return _UNSURE
        if be16(data, at) == 5:
            aliases += 1
            after, size = unpack(data, base, at + 10, end, text)
            if after < 0 or aliases > MAX_ALIASES:
                return _UNSURE
            if may_match(text, size, wanted):
                return _SURE
        at += 10 + be16(data, at + 8)
    return _NOT


@kernel
def look_hello(data, at, end, wanted, text):
    """Does the client hello that begins at ``at`` name something wanted?  Returns (answer, all there)."""
    if end - at < 9:
        return _UNSURE, False
    record = be16(data, at + 3)
    if record == 0 or record > MAX_RECORD or data[at + 6] != 0:
        return _NOT, True  # chance
    stop = at + 9 + be16(data, at + 7)
    if stop > at + 5 + record:
        return _UNSURE, False  # over several records: Python's
    whole = stop <= end
    last = min(stop, end)
    i = at + 9 + 34
    for width in (1, 2, 1):  # session, ciphers, compression
        if i + width > last:
            return _UNSURE, whole
        i += width + (be16(data, i) if width == 2 else np.int64(data[i]))
    if i == stop:
        return _NOT, whole
    i += 2
    while i + 4 <= last:
        size = be16(data, i + 2)
        if be16(data, i) == 0 and size > 0:
            # A list, of which the first is a host's: type 0 and its length (RFC 6066 section 3).
            length = be16(data, i + 7) if i + 9 <= last else np.int64(-1)
            if length < 0 or i + 9 + length > last or data[i + 6] != 0 or length > MAX_NAME:
                return _UNSURE, whole
            for k in range(length):
                text[k] = _lower(data[i + 9 + k])
            if length > 0 and text[length - 1] == _DOT:
                length -= 1
            return (_SURE if length > 0 and may_match(text, length, wanted) else _NOT), whole
        i += 4 + size
    return (_NOT if i == stop else _UNSURE), whole


@kernel
def _send(kind, sure, f, r, d, t, first, state, wanted, out):
    """Write a NAMED event, if this second has room for one more of its sort."""
    second = state[CLOCK] // _SECOND
    if state[NAME_SECOND] != second:
        state[NAME_SECOND] = second
        state[NAMES_SURE] = 0
        state[NAMES_UNSURE] = 0
    place = NAMES_SURE if sure else NAMES_UNSURE
    if state[place] >= (wanted.sure if sure else wanted.unsure):
        out.counters[WITHHELD_NAMES] += 1
        return False
    state[place] += 1
    e = out.named[out.filled[2]]
    out.filled[2] += 1
    e.kind = np.uint8(kind)
    e.direction = np.uint8(d)
    e.conn = r.conn
    e.src_high = f.src_high
    e.src_low = f.src_low
    e.dst_high = f.dst_high
    e.dst_low = f.dst_low
    e.src_port = f.src_port
    e.dst_port = f.dst_port
    e.seq = first
    e.whole = np.uint8(f.payload == f.payload_wire)
    e.t = t
    e.clock = state[CLOCK]
    e.at = f.payload_at
    # What was sent together may be more than a hello.
    e.size = f.payload if kind == DNS else min(f.payload, np.int64(MAX_OCTETS))
    return True


@kernel
def _datagram(data, f, r, d, t, state, wanted, out):
    at = f.payload_at
    # Requests between resolvers come from this port too.
    if f.payload < 3 or data[at + 2] & 0x80 == 0:
        return
    known = False
    for k in range(wanted.resolvers.shape[0]):
        if wanted.resolvers[k, 1] == f.src_low and wanted.resolvers[k, 0] == f.src_high:
            known = True
    if not known:
        out.counters[STRANGERS] += 1
        return
    out.counters[SEEN_DNS] += 1
    answer = look_answer(data, at, at + f.payload, wanted, out.name)
    if answer != _NOT:
        _send(DNS, answer == _SURE, f, r, d, t, np.uint32(0), state, wanted, out)


@kernel
def _segment(data, f, r, d, t, state, wanted, out):
    first = f.seq
    if f.tcp_flags & SYN:
        first = np.uint32(f.seq + np.uint32(1))
    # A side that speaks has heard what the other had to say.
    r.seen[1 - d] &= np.uint8(_MORE_ONE - 1)
    at = f.payload_at
    if f.payload >= 6 and data[at] == 22 and data[at + 1] == 3 and data[at + 5] == 1:
        out.counters[SEEN_TLS] += 1
        r.seen[d] &= np.uint8(_MORE_ONE - 1)
        answer, whole = look_hello(data, at, at + f.payload, wanted, out.name)
        if (
            answer != _NOT
            and _send(BEGINS, answer == _SURE, f, r, d, t, first, state, wanted, out)
            and not whole
        ):
            r.seen[d] |= np.uint8(_MORE_ALL)
    elif r.seen[d] >= _MORE_ONE:
        r.seen[d] -= np.uint8(_MORE_ONE)
        _send(MORE, False, f, r, d, t, first, state, wanted, out)
    elif r.seen[d] & (HAS_START | HAS_PAYLOAD) == HAS_START and not r.seen[1 - d] & HAS_PAYLOAD:
        ahead = np.int64(np.uint32(first - r.start[d]))
        if 0 < ahead < _MAX_AHEAD:
            _send(AHEAD_OF, False, f, r, d, t, first, state, wanted, out)


@kernel
def name(data, f, r, d, t, state, wanted, out):
    """Look at one datagram or segment of row ``r``, and write its NAMED event if it holds a wanted name."""
    if f.protocol == _UDP:
        if f.src_port == 53:
            _datagram(data, f, r, d, t, state, wanted, out)
    elif f.tcp == 1 and f.payload > 0:
        _segment(data, f, r, d, t, state, wanted, out)
