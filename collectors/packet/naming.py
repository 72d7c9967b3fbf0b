"""Which datagrams and segments leave for ``names``: picked inside the compiled pass, by the name they hold.

A DNS answer of a configured resolver leaves if a name in it may be a wanted one; the segment that begins a
TLS client hello or an HTTP request if its server name may be, or if its bytes end before they tell, and then
what follows it; that of a TLS server if it shows a certificate; the first datagrams of a QUIC client, whose
names nobody knows before they are decrypted.  All else stays, at the cost of one look.  So many leave in a
second of the data's time and no more, and of one client a share: not in a block, for where blocks are cut
changes nothing.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.jit import within
from collectors.packet.frames import SYN, be16, be32
from collectors.packet.hellos import MAX_OCTETS
from collectors.packet.looking import (
    NOT,
    SURE,
    UNSURE,
    hello_names,
    is_request,
    look_answer,
    look_flight,
    look_hello,
    look_request,
)
from collectors.packet.namesets import (
    FLIGHTS,
    SEALED,
    SEEN_CERTIFICATES,
    SEEN_DNS,
    SEEN_HTTP,
    SEEN_QUIC,
    SEEN_TLS,
    STRANGERS,
    allow,
    follow,
    known,
    place_of,
)
from collectors.packet.namesets import SURE as SURE_PURSE
from collectors.packet.namesets import UNSURE as UNSURE_PURSE
from collectors.packet.quic import MIN_DATAGRAM
from collectors.packet.requests import MAX_HEAD
from collectors.packet.table import CLOCK, HAS_PAYLOAD, HAS_START

# What leaves.
DNS: Final = 0
BEGINS: Final = 1  # a TLS hello or an HTTP request begins here
MORE: Final = 2  # what its direction sent next
AHEAD_OF: Final = 3  # first payload of a direction, but not its first byte
DNS_STREAM: Final = 4  # of a resolver, over TCP
DNS_AHEAD: Final = 5  # the same, but not its first byte
QUIC: Final = 6
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

# Bits of ROW.seen: more of this direction leaves; its client named a server that is not wanted.
_FOLLOWED: Final = 64
_TOLD: Final = 128
_ALL: Final = 255
# A direction is followed for so many segments, and octets beyond what its message needs.
_MORE: Final = 128
_SLACK: Final = 4096
_MAX_AHEAD: Final = 8192
# Packets of a QUIC connection among which the client's first flight is.
_FIRST_FLIGHT: Final = 12
_V1: Final = 1
_V2: Final = 0x6B3343CF
_TCP: Final = 6
_UDP: Final = 17
_SECOND: Final = 1_000_000_000


@kernel
def _send(kind, purse, f, r, d, t, first, state, wanted, out):
    """Write a NAMED event, if the purse has room for one more of its client's in this second."""
    opener = np.int64(r.initiator) - 1 if r.initiator > 0 else np.int64(r.sender)
    if kind in (DNS, DNS_STREAM, DNS_AHEAD):
        opener = 1 - d  # who asked, whether or not we saw the question
    if opener == d:
        high, low = f.src_high, f.src_low
    else:
        high, low = f.dst_high, f.dst_low
    if not allow(purse, state[CLOCK] // _SECOND, high, low, wanted):
        return False
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
    e.size = min(f.payload, np.int64(MAX_OCTETS)) if kind in (BEGINS, MORE, AHEAD_OF) else f.payload
    return True


@kernel
def _datagram(data, f, r, d, t, state, wanted, out):
    at = f.payload_at
    # Requests between resolvers come from this port too.
    if f.payload < 3 or data[at + 2] & 0x80 == 0:
        return
    if not known(f.src_high, f.src_low, wanted.resolvers):
        wanted.counts[STRANGERS] += 1
        return
    wanted.counts[SEEN_DNS] += 1
    answer = look_answer(data, at, at + f.payload, wanted, out.name)
    if answer != NOT:
        purse = SURE_PURSE if answer == SURE else UNSURE_PURSE
        _send(DNS, purse, f, r, d, t, np.uint32(0), state, wanted, out)


@kernel
def _initial(data, f, r, d, t, state, wanted, out):
    """The first flight of a QUIC client: the server is silent yet, or asked it to come again (Retry)."""
    at = f.payload_at
    if f.payload != f.payload_wire or d != np.int64(r.sender) or r.life_packets > _FIRST_FLIGHT:
        return
    version = be32(data, at + 1)
    kind = (data[at] >> 4) & 3
    if not ((version == _V1 and kind == 0) or (version == _V2 and kind == 1)):
        return
    # No token: those that Retry gives are long.  An id of eight octets at least (RFC 9000 section 7.2).
    size = np.int64(data[at + 5])
    if size > 20 or at + 8 + size >= at + f.payload or data[at + 6 + size] > 20:
        return
    token = at + 7 + size + np.int64(data[at + 6 + size])
    if r.packets[1 - d] > 0 and data[token] == 0:
        return
    wanted.counts[SEEN_QUIC] += 1
    _send(QUIC, SEALED, f, r, d, t, np.uint32(0), state, wanted, out)


@kernel
def _answers(data, f, r, d, t, first, state, wanted, out):
    """DNS over TCP (RFC 7766): mostly a message a segment, behind its length."""
    if not known(f.src_high, f.src_low, wanted.resolvers):
        if r.seen[d] & HAS_PAYLOAD == 0:
            wanted.counts[STRANGERS] += 1
        return
    wanted.counts[SEEN_DNS] += 1
    at = f.payload_at
    purse = UNSURE_PURSE
    # A length by chance, of a record's data for one, is no answer's.
    whole = f.payload == f.payload_wire and f.payload >= 14 and be16(data, at) == f.payload - 2
    if whole and data[at + 4] & 0x80:
        answer = look_answer(data, at + 2, at + f.payload, wanted, out.name)
        if answer == NOT:
            return
        purse = SURE_PURSE if answer == SURE else UNSURE_PURSE
    kind = DNS_STREAM
    if r.seen[d] & (HAS_START | HAS_PAYLOAD) == HAS_START and first != r.start[d]:
        kind = DNS_AHEAD
    _send(kind, purse, f, r, d, t, first, state, wanted, out)


@kernel
def _begin(purse, need, f, r, d, t, first, state, wanted, out):
    """A message begins here, of ``need`` octets: 0 where that is not known."""
    r.seen[d] &= np.uint8(_ALL - _FOLLOWED)
    if _send(BEGINS, purse, f, r, d, t, first, state, wanted, out) and (need == 0 or need > f.payload):
        octets = (need - f.payload if need > 0 else np.int64(MAX_OCTETS)) + _SLACK
        follow(r.conn, d, _MORE, octets, purse, wanted.followed)
        r.seen[d] |= np.uint8(_FOLLOWED)


@kernel
def _more(f, r, d, t, first, state, wanted, out):
    k = place_of(r.conn, d, wanted.followed)
    if k < 0:
        r.seen[d] &= np.uint8(_ALL - _FOLLOWED)
        return
    e = wanted.followed[k]
    e.segments -= np.int32(1)
    e.octets -= np.int32(min(f.payload, np.int64(0xFFFF)))
    sent = _send(MORE, np.int64(e.purse), f, r, d, t, first, state, wanted, out)
    if not sent or e.segments <= 0 or e.octets <= 0:
        e.segments = np.int32(0)
        r.seen[d] &= np.uint8(_ALL - _FOLLOWED)


@kernel
def _hello(data, f, r, d, t, first, state, wanted, out):
    wanted.counts[SEEN_TLS] += 1
    at = f.payload_at
    end = at + f.payload
    answer, need = look_hello(data, at, end, wanted, out.name)
    if answer == NOT:
        r.seen[d] &= np.uint8(_ALL - _FOLLOWED)
        if hello_names(data, at, end):
            r.seen[d] |= np.uint8(_TOLD)
        return
    purse = SURE_PURSE if answer == SURE else UNSURE_PURSE
    _begin(purse, need, f, r, d, t, first, state, wanted, out)


@kernel
def _flight(data, f, r, d, t, first, state, wanted, out):
    wanted.counts[SEEN_CERTIFICATES] += 1
    at = f.payload_at
    answer, need = look_flight(data, at, at + f.payload, wanted, out.name)
    if answer == NOT:
        r.seen[d] &= np.uint8(_ALL - _FOLLOWED)
        return
    # Whose client named another server is read as long as there is time for it.
    unsure = FLIGHTS if r.seen[1 - d] & _TOLD else UNSURE_PURSE
    _begin(SURE_PURSE if answer == SURE else unsure, need, f, r, d, t, first, state, wanted, out)


@kernel
def _segment(data, f, r, d, t, state, wanted, out):
    first = f.seq
    if f.tcp_flags & SYN:
        first = np.uint32(f.seq + np.uint32(1))
    if f.src_port == 53:
        _answers(data, f, r, d, t, first, state, wanted, out)
        return
    at = f.payload_at
    end = at + f.payload
    # Nothing was heard of this direction yet.
    fresh = r.seen[d] & HAS_PAYLOAD == 0
    request = is_request(data, at, end)
    if f.payload >= 6 and data[at] == 22 and data[at + 1] == 3 and data[at + 5] == 1:
        _hello(data, f, r, d, t, first, state, wanted, out)
    elif f.payload >= 6 and data[at] == 22 and data[at + 1] == 3 and data[at + 5] == 2:
        _flight(data, f, r, d, t, first, state, wanted, out)
    elif request == 2:
        wanted.counts[SEEN_HTTP] += 1
        r.seen[d] &= np.uint8(_ALL - _FOLLOWED)
        answer = look_request(data, at, end, wanted, out.name)
        if answer == SURE:
            _begin(SURE_PURSE, f.payload, f, r, d, t, first, state, wanted, out)
        elif answer == UNSURE and f.payload < MAX_HEAD:
            _begin(UNSURE_PURSE, np.int64(MAX_HEAD), f, r, d, t, first, state, wanted, out)
    elif r.seen[d] & _FOLLOWED:
        _more(f, r, d, t, first, state, wanted, out)
    elif fresh and (request == 1 or (f.payload < 6 and _may_be_record(data, at, end))):
        _begin(UNSURE_PURSE, np.int64(0), f, r, d, t, first, state, wanted, out)
    elif fresh and r.seen[d] & HAS_START and not r.seen[1 - d] & HAS_PAYLOAD:
        ahead = np.int64(np.uint32(first - r.start[d]))
        if 0 < ahead < _MAX_AHEAD:
            _send(AHEAD_OF, UNSURE_PURSE, f, r, d, t, first, state, wanted, out)


@kernel
def _may_be_record(data, at, end):
    """Does data[at:end], less than six octets, begin as a handshake record?"""
    return data[at] == 22 and (end - at < 2 or data[at + 1] == 3)


@within
def may_name(data, f, r, d):
    """Whether ``name`` has anything to look at: a few compares, for every packet."""
    if f.payload == 0:
        return False
    if f.protocol == _UDP:
        return f.src_port == 53 or (f.payload >= MIN_DATAGRAM and data[f.payload_at] & 0xC0 == 0xC0)
    if f.tcp != 1:
        return False
    first = data[f.payload_at]
    if first == 22 or f.src_port == 53 or r.seen[d] & _FOLLOWED or r.seen[d] & HAS_PAYLOAD == 0:
        return True
    return first in (ord("G"), ord("P"), ord("H"), ord("C"), ord("O"), ord("D"))


@kernel
def name(data, f, r, d, t, state, wanted, out):
    """Look at a datagram or segment of row ``r``, and write its NAMED event if it may hold a wanted name."""
    if f.protocol == _UDP:
        if f.src_port == 53:
            _datagram(data, f, r, d, t, state, wanted, out)
        elif f.payload >= MIN_DATAGRAM and data[f.payload_at] & 0xC0 == 0xC0:
            _initial(data, f, r, d, t, state, wanted, out)
    elif f.tcp == 1 and f.payload > 0:
        _segment(data, f, r, d, t, state, wanted, out)
