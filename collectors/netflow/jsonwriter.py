"""The compiled writer of JSON lines: a data set's octets and its template's program in, lines out.

``values`` says what each value looks like; ``readers`` and an encoder are the twin that tests hold this to.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.netflow.values import NTP_UNIX
from collectors.reading import big, little, put

(
    SKIPPED, UNSIGNED, SIGNED, IPV4, IPV6, MAC, BOOLEAN, SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS,
    HEX, TEXT, UNTYPED, TIME,
) = range(15)  # fmt: skip
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999
_TEN: Final = np.uint64(10)
_HUNDRED: Final = np.uint64(100)
_SIGN: Final = np.uint64(1 << 63)
_QUOTE, _BACKSLASH, _COLON, _COMMA, _MINUS = 0x22, 0x5C, 0x3A, 0x2C, 0x2D
_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
# 0 to 255 in decimal with a dot behind: eight octets as one number, and how many of them count.
_TEXTS: Final = [b"%d." % n for n in range(256)]
_OCTET: Final = np.frombuffer(b"".join(t.ljust(8, b"\0") for t in _TEXTS), "<u8")
_OCTET_SIZE: Final = np.array([len(t) for t in _TEXTS], np.int64)
_TRUE: Final = np.uint64(int.from_bytes(b"true", "little"))
_FALSE: Final = np.uint64(int.from_bytes(b"false", "little"))


@kernel
def _copy(source, at, size, out, to):
    """Eight octets at a time: up to seven more than ``size`` are read and written."""
    for i in range(0, size, 8):
        put(out, to + i, little(source, at + i))
    return to + size


@kernel
def _decimal(n, out, to):
    """``n`` u8 in decimal."""
    size, bound = 1, _TEN
    while size < 20 and n >= bound:
        size += 1
        bound *= _TEN
    at = to + size
    while n >= _HUNDRED:
        rest = n % _HUNDRED
        n //= _HUNDRED
        at -= 2
        out[at] = np.uint64(48) + rest // _TEN
        out[at + 1] = np.uint64(48) + rest % _TEN
    if n >= _TEN:
        out[to] = np.uint64(48) + n // _TEN
        out[to + 1] = np.uint64(48) + n % _TEN
    else:
        out[to] = np.uint64(48) + n
    return to + size


@kernel
def _digits(n, count, out, to):
    """``n`` i8 in ``count`` digits."""
    for i in range(count):
        out[to + count - 1 - i] = 48 + n % 10
        n //= 10
    return to + count


@kernel
def _hex(data, at, size, colons, out, to):
    for i in range(size):
        if colons and i:
            out[to] = _COLON
            to += 1
        octet = data[at + i]
        out[to] = _DIGITS[octet >> 4]
        out[to + 1] = _DIGITS[octet & 15]
        to += 2
    return to


@kernel
def _text(data, at, size, out, to):
    """ASCII, escaped; -1 where it is something else or has control characters."""
    for i in range(size):
        octet = data[at + i]
        if octet < 0x20 or octet > 0x7E:
            return np.int64(-1)
        if octet in (_QUOTE, _BACKSLASH):
            out[to] = _BACKSLASH
            to += 1
        out[to] = octet
        to += 1
    return to


@kernel
def _untyped(data, at, size, out, to):
    """Text where it is printable, else hex; -1 where that is not seen at once."""
    for i in range(size):
        octet = data[at + i]
        if octet < 0x20 or octet == 0x7F:
            return _hex(data, at, size, False, out, to)
    return _text(data, at, size, out, to)


@kernel
def _ipv6(data, at, out, to):
    """RFC 5952; -1 for IPv4-mapped addresses, of which there are two ways of writing."""
    run, run_at, best, best_at = 0, -1, 1, -1
    for k in range(8):
        if data[at + 2 * k] | data[at + 2 * k + 1]:
            run = 0
            continue
        if not run:
            run_at = k
        run += 1
        if run > best:
            best, best_at = run, run_at
    if best_at == 0 and best == 5 and data[at + 10] & data[at + 11] == 0xFF:
        return np.int64(-1)
    k, colon = 0, False
    while k < 8:
        if k == best_at:
            out[to] = _COLON
            out[to + 1] = _COLON
            to += 2
            k += best
            colon = False
            continue
        if colon:
            out[to] = _COLON
            to += 1
        group = np.int64(data[at + 2 * k]) << 8 | np.int64(data[at + 2 * k + 1])
        shift = 12 if group >> 12 else 8 if group >> 8 else 4 if group >> 4 else 0
        while shift >= 0:
            out[to] = _DIGITS[group >> shift & 15]
            to += 1
            shift -= 4
        colon = True
        k += 1
    return to


@kernel
def _time(seconds, fraction, digits, out, to):
    """RFC 3339 in UTC.  Of days to a date: 400 years of 146,097 days, counted from 1 March of the year 0."""
    days, rest = seconds // 86400, seconds % 86400
    days += 719_468
    era, day = days // 146_097, days % 146_097
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    month = month + 3 if month < 10 else month - 9
    year += 400 * era + (1 if month <= 2 else 0)
    to = _digits(year, 4, out, to)
    out[to] = _MINUS
    to = _digits(month, 2, out, to + 1)
    out[to] = _MINUS
    to = _digits(day + 1, 2, out, to + 1)
    out[to] = 0x54
    to = _digits(rest // 3600, 2, out, to + 1)
    out[to] = _COLON
    to = _digits(rest // 60 % 60, 2, out, to + 1)
    out[to] = _COLON
    to = _digits(rest % 60, 2, out, to + 1)
    if digits:
        out[to] = 0x2E
        to = _digits(fraction, digits, out, to + 1)
    out[to] = 0x5A
    return to + 1


@kernel
def _date(kind, word, out, to):
    """A dateTime as ``values`` reads it; -1 beyond the year 9999."""
    raw = np.int64(word)
    if raw < 0 and kind not in (MICROSECONDS, NANOSECONDS):
        return np.int64(-1)
    if kind == SECONDS:
        seconds, fraction, digits = raw, np.int64(0), 0
    elif kind == MILLISECONDS:
        seconds, fraction, digits = raw // 1000, raw % 1000, 3
    else:
        seconds = (raw >> 32 & 0xFFFFFFFF) - NTP_UNIX
        digits = 6 if kind == MICROSECONDS else 9
        unit = np.uint64(1_000_000 if kind == MICROSECONDS else 1_000_000_000)
        if seconds < 0:
            seconds, fraction = np.int64(word // unit), np.int64(word % unit)
        else:
            fraction = np.int64(np.uint64(raw & 0xFFFFFFFF) * np.uint64(1_000_000_000) >> np.uint64(32))
            fraction = fraction // 1000 if kind == MICROSECONDS else fraction
    if seconds > _LAST_SECOND:
        return np.int64(-1)
    return _time(seconds, fraction, digits, out, to)


@kernel
def _since(uptime, export_ms, uptime_ms, out, to):
    """The time that an uptime is, as ``messages.Clock`` reckons, and the quote behind it; -1 before 1970."""
    ahead = (np.int64(uptime) - uptime_ms) & 0xFFFFFFFF
    t_ms = export_ms + (ahead - 0x100000000 if ahead >> 31 else ahead)
    if t_ms < 0:
        return np.int64(-1)
    to = _time(t_ms // 1000, t_ms % 1000, 3, out, to)
    out[to] = _QUOTE
    return to + 1


@kernel
def _value(kind, data, at, width, out, to):
    """One value and the quote behind it; -1 where it cannot be said."""
    if kind in (UNSIGNED, SIGNED):
        word = big(data, at) >> np.uint64(64 - 8 * width)
        if kind == SIGNED:
            word = big(data, at)
            if word & _SIGN:
                out[to] = _MINUS
                to += 1
                word = np.uint64(-(np.int64(word) >> np.int64(64 - 8 * width)))
            else:
                word >>= np.uint64(64 - 8 * width)
        return _decimal(word, out, to)
    if kind == BOOLEAN:
        true = data[at] == 1
        put(out, to, _TRUE if true else _FALSE)
        return to + (4 if true else 5)
    if kind == IPV4:
        for i in range(4):
            octet = data[at + i]
            put(out, to, _OCTET[octet])
            to += _OCTET_SIZE[octet]
        to -= 1
    elif kind == IPV6:
        to = _ipv6(data, at, out, to)
    elif kind in (MAC, HEX):
        to = _hex(data, at, width, kind == MAC, out, to)
    elif kind == TEXT:
        while width and not data[at + width - 1]:
            width -= 1
        to = _text(data, at, width, out, to)
    elif kind == UNTYPED:
        to = _untyped(data, at, width, out, to)
    else:
        to = _date(kind, big(data, at) >> np.uint64(64 - 8 * width), out, to)
    if to < 0:
        return to
    out[to] = _QUOTE
    return to + 1


@kernel
def write(data, size, least, fields, names, head, head_size, export_ms, uptime_ms, out):
    """Write the records of ``data[:size]``, each of ``least`` octets at least; how many octets that is.

    ``head`` is what each line begins with, ``fields`` and ``names`` are ``jsonlines.Program``'s; ``data``,
    ``names``, ``head`` and ``out`` u1 with PADDING octets to spare; ``export_ms`` and ``uptime_ms`` (i8) are
    a ``messages.Clock``.  -1 where something cannot be said,
    or a record is cut short.
    """
    at, to = np.int64(0), np.int64(0)
    while size - at >= least:
        began = at
        to = _copy(head, 0, head_size, out, to)
        for f in range(fields.shape[0]):
            width = fields[f, 1]
            if fields[f, 0] == TIME:
                to = _copy(names, fields[f, 2], fields[f, 3], out, to)
                uptime = big(data, began + width) >> np.uint64(32)
                to = _since(uptime, export_ms, uptime_ms, out, to)
                if to < 0:
                    return to
                continue
            if width < 0:
                # RFC 7011 section 7: one octet of length, or 255 and two.
                if at >= size:
                    return np.int64(-1)
                width = np.int64(data[at])
                at += 1
                if width == 255:
                    width = np.int64(data[at]) << 8 | np.int64(data[at + 1])
                    at += 2
            if at + width > size:
                return np.int64(-1)
            if fields[f, 0] != SKIPPED:
                to = _copy(names, fields[f, 2], fields[f, 3], out, to)
                to = _value(fields[f, 0], data, at, width, out, to)
                if to < 0:
                    return to
            at += width
        out[to] = 0x7D
        out[to + 1] = 0x0A
        to += 2
    return to
