"""Does this message name something wanted?  One look at its bytes, inside the compiled pass.

Each look agrees with a reader in plain Python, which says what the bytes mean: DNS answers (``answers``), TLS
client hellos (``hellos``), server hellos and certificates (``flights``), HTTP requests (``requests``).  A
look never says no where the reader would find a wanted name.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.packet.answers import MAX_ALIASES, MAX_HOPS, MAX_NAME
from collectors.packet.frames import be16
from collectors.packet.hellos import MAX_OCTETS, MAX_RECORD
from collectors.packet.namesets import may_match
from collectors.packet.requests import MAX_HEAD, METHODS

# Answers of the looks.
NOT: Final = 0
SURE: Final = 1
UNSURE: Final = 2  # malformed or cut: Python says why, or waits for the rest

_DOT: Final = ord(".")
_HTTP: Final = np.frombuffer(b"http://", np.uint8)
_HOST: Final = np.frombuffer(b"host:", np.uint8)
_METHODS: Final = np.array(
    [list(f"{m} ".encode().ljust(8, b"\0")) for m in METHODS], np.uint8
)  # fmt: skip


@kernel
def _lower(byte):
    return np.uint8(byte + 32) if ord("A") <= byte <= ord("Z") else np.uint8(byte)


@kernel
def be24(data, i):
    """Three bytes, most significant first."""
    return np.int64(data[i]) << 16 | be16(data, i + 1)


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
    """Does the DNS answer data[base:end] name something wanted, as the name asked for, an alias or the
    target of a service?"""
    if end - base < 12:
        return UNSURE
    questions = be16(data, base + 4)
    if questions != 1:
        return UNSURE if questions > 1 else NOT
    at, size = unpack(data, base, base + 12, end, text)
    if at < 0:
        return UNSURE
    if may_match(text, size, wanted):
        return SURE
    at += 4
    aliases = 0
    for _ in range(be16(data, base + 6)):
        at = _skip(data, at, end)
        if at < 0 or at + 10 > end:
            return UNSURE
        kind = be16(data, at)
        if kind in (5, 64, 65):
            aliases += 1
            # A service (RFC 9460) has its priority before the target.
            after, size = unpack(data, base, at + (10 if kind == 5 else 12), end, text)
            if after < 0 or aliases > MAX_ALIASES:
                return UNSURE
            if may_match(text, size, wanted):
                return SURE
        at += 10 + be16(data, at + 8)
    return NOT


@kernel
def look_hello(data, at, end, wanted, text):
    """Does the client hello that begins at ``at`` name something wanted?

    Returns (answer, octets of the stream that it needs from ``at`` on: 0 where that is not known, or where
    it is no hello).
    """
    if end - at < 9:
        return UNSURE, np.int64(0)
    record = be16(data, at + 3)
    if record == 0 or record > MAX_RECORD or data[at + 6] != 0:
        return NOT, np.int64(0)  # chance
    stop = at + 9 + be16(data, at + 7)
    if stop > at + 5 + record:
        return UNSURE, np.int64(0)  # over several records: Python's
    need = stop - at
    last = min(stop, end)
    i = at + 9 + 34
    for width in (1, 2, 1):  # session, ciphers, compression
        if i + width > last:
            return UNSURE, need
        i += width + (be16(data, i) if width == 2 else np.int64(data[i]))
    if i == stop:
        return NOT, need
    i += 2
    while i + 4 <= last:
        size = be16(data, i + 2)
        if be16(data, i) == 0 and size > 0:
            # A list, of which the first is a host's: type 0 and its length (RFC 6066 section 3).
            length = be16(data, i + 7) if i + 9 <= last else np.int64(-1)
            if length < 0 or i + 9 + length > last or data[i + 6] != 0 or length > MAX_NAME:
                return UNSURE, need
            for k in range(length):
                text[k] = _lower(data[i + 9 + k])
            if length > 0 and text[length - 1] == _DOT:
                length -= 1
            return (SURE if length > 0 and may_match(text, length, wanted) else NOT), need
        i += 4 + size
    return (NOT if i == stop else UNSURE), need


@kernel
def hello_names(data, at, end):
    """Whether the client hello at ``at`` is whole in its segment and names a server: its server's
    certificate then tells nothing new."""
    stop = at + 9 + be16(data, at + 7) if end - at >= 9 else end + 1
    if stop > end:
        return False
    i = at + 9 + 34
    for width in (1, 2, 1):
        if i + width > stop:
            return False
        i += width + (be16(data, i) if width == 2 else np.int64(data[i]))
    i += 2
    while i + 4 <= stop:
        if be16(data, i) == 0 and be16(data, i + 2) > 5:
            return True
        i += 4 + be16(data, i + 2)
    return False


@kernel
def _modern(data, at, stop):
    """Does the server hello whose body is data[at:stop] choose TLS 1.3, which hides the certificate?"""
    i = at + 34
    if i >= stop:
        return False
    i += 1 + np.int64(data[i]) + 3  # session, cipher, compression
    i += 2
    while i + 4 <= stop:
        size = be16(data, i + 2)
        if be16(data, i) == 43 and size == 2 and i + 6 <= stop:
            return be16(data, i + 4) >= 0x0304
        i += 4 + size
    return False


@kernel
def look_flight(data, at, end, wanted, text):
    """May the server's flight that begins at ``at`` hold a certificate with a wanted name?  Returns (answer,
    octets of the stream up to the end of the server's own certificate: 0 where that is not known)."""
    if end - at < 9:
        return UNSURE, np.int64(0)
    record = be16(data, at + 3)
    if record == 0 or record > MAX_RECORD or data[at + 6] != 0:
        return NOT, np.int64(0)  # chance
    stop = at + 9 + be16(data, at + 7)
    if stop > at + 5 + record or stop + 5 > end:
        return UNSURE, np.int64(0)
    if _modern(data, at + 9, stop):
        return NOT, np.int64(0)
    i = stop
    own = stop == at + 5 + record  # the next message has a record of its own
    if own:
        if data[i] != 22:
            return NOT, np.int64(0)  # a session is resumed
        i += 5
    if i >= end:
        return UNSURE, np.int64(0)
    if data[i] != 11:
        return NOT, np.int64(0)
    if i + 10 > end:
        return UNSURE, np.int64(0)
    need = i + 10 + be24(data, i + 7) - at
    if need > MAX_OCTETS:
        return UNSURE, np.int64(0)
    # Where the message is cut into records their heads come between.
    last = i + be16(data, i - 2) if own else at + 5 + record
    if i + 4 + be24(data, i + 1) > last:
        return UNSURE, np.int64(0)
    if at + need <= end:
        return look_certificate(data, i + 10, at + need, wanted, text), need
    return UNSURE, need


@kernel
def look_certificate(data, at, end, wanted, text):
    """Does the certificate in data[at:end] hold a wanted name?  Looks for dNSName (RFC 5280 section 4.2.1.6)
    and common name by their tags, wherever they are."""
    for i in range(at, end - 2):
        start = 0
        if data[i] == 0x82:
            start = i + 1
        elif i + 4 < end and data[i] == 0x55 and data[i + 1] == 4 and data[i + 2] == 3:
            if data[i + 3] in (0x1C, 0x1E):
                return UNSURE  # two or four octets a character
            start = i + 4
        if start == 0:
            continue
        size = np.int64(data[start])
        start += 1
        if size == 0x81 and start < end:
            size = np.int64(data[start])
            start += 1
        elif size >= 0x80:
            if size == 0x82 and start + 2 <= end and be16(data, start) <= MAX_NAME:
                return UNSURE  # not DER
            continue
        if size == 0 or size > MAX_NAME or start + size > end:
            continue
        for k in range(size):
            text[k] = _lower(data[start + k])
        if text[size - 1] == _DOT:
            size -= 1
        if size > 0 and may_match(text, size, wanted):
            return SURE
    return NOT


@kernel
def is_request(data, at, end):
    """2 where data[at:end] begins as a request of HTTP/1 does, 1 where it ends before that is sure, or 0."""
    first = data[at]
    if first not in (ord("G"), ord("P"), ord("H"), ord("C"), ord("O"), ord("D")):
        return 0
    for m in range(_METHODS.shape[0]):
        k = 0
        while k < 8 and at + k < end and data[at + k] == _METHODS[m, k]:
            k += 1
        for n in range(k):
            if _METHODS[m, n] == 32:
                return 2
        if at + k == end:
            return 1
    return 0


@kernel
def _host(data, at, end, text):
    """A host at data[at:end], up to what cannot be in one: (index after, size in ``text``)."""
    size = np.int64(0)
    while at < end:
        byte = data[at]
        if byte <= 32 or byte in (ord(":"), ord("/"), ord("?"), ord("#")) or size >= MAX_NAME:
            break
        text[size] = _lower(byte)
        size += 1
        at += 1
    if size > 0 and text[size - 1] == _DOT:
        size -= 1
    return at, size


@kernel
def _is_word(data, at, end, word):
    if at + word.size > end:
        return False
    same = True
    for k in range(word.size):
        same = same and _lower(data[at + k]) == word[k]
    return same


@kernel
def _target(data, at, end, text):
    """The host of the request target at ``at``, if it is in absolute or authority form: its size."""
    if _is_word(data, at, end, _HTTP):
        at += _HTTP.size
    host = at
    while at < end and data[at] > 32 and data[at] not in (ord("/"), ord("?"), ord("#")):
        at += 1
        if data[at - 1] == ord("@"):
            host = at
    return _host(data, host, at, text)[1]


@kernel
def look_request(data, at, end, wanted, text):
    """Does the HTTP request that begins at ``at`` name something wanted, in its target or as its Host?"""
    stop = min(end, at + MAX_HEAD)
    i = at
    while i < stop and data[i] != 32:
        i += 1
    i += 1
    size = _target(data, i, stop, text) if i < stop else np.int64(0)
    if size > 0 and may_match(text, size, wanted):
        return SURE
    while True:
        while i < stop and data[i] != 10:
            i += 1
        i += 1
        if i + 1 >= stop:
            return UNSURE
        if data[i] == 10 or (data[i] == 13 and data[i + 1] == 10):
            return NOT  # the head is over
        if _is_word(data, i, stop, _HOST):
            i += _HOST.size
            while i < stop and data[i] in (9, 32):
                i += 1
            i, size = _host(data, i, stop, text)
            if i >= stop:
                return UNSURE
            return SURE if size > 0 and may_match(text, size, wanted) else NOT
