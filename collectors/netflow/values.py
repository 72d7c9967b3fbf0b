"""The value of one field for people: its bytes and type in; a number, text, address or time out.

``value`` says what a field's value is; ``reader`` answers the same as a function for one type and width.
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

Value = int | float | str | bool

# Seconds from 1900 (NTP, RFC 5905) to 1970.
NTP_UNIX: Final = 2_208_988_800
_MAX_SECONDS: Final = 253_402_300_799  # the last second of the year 9999


def ntp_ns(raw: int, unit_ns: int) -> int:
    """An NTP timestamp (64 bits) in Unix nanoseconds; below 1970 it is a plain count of ``unit_ns``.

    RFC 7011 section 6.1.9 asks for NTP; some exporters send Unix microseconds all the same, which as NTP
    would lie in 1900.
    """
    seconds = (raw >> 32) - NTP_UNIX
    if seconds < 0:
        return raw * unit_ns
    return seconds * 1_000_000_000 + ((raw & 0xFFFFFFFF) * 1_000_000_000 >> 32)


@lru_cache(maxsize=65536)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(t_ns: int, digits: int) -> str | int:
    """A time as text, UTC, with so many digits of the second; the number itself beyond the year 9999."""
    seconds, fraction = divmod(t_ns, 1_000_000_000)
    if not 0 <= seconds <= _MAX_SECONDS:
        return t_ns
    if not digits:
        return f"{_second(seconds)}Z"
    return f"{_second(seconds)}.{fraction:09d}"[: 20 + digits] + "Z"


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _signed(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _text(raw: bytes) -> Value:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _float(raw: bytes) -> Value:
    # RFC 7011 section 6.2: a float64 may be sent as a float32.
    return struct.unpack(">f" if len(raw) == 4 else ">d", raw)[0]


def _mac(raw: bytes) -> Value:
    return raw.hex(":")


@lru_cache(maxsize=65536)
def _ipv4(raw: bytes) -> str:
    a, b, c, d = raw
    return f"{a}.{b}.{c}.{d}"


@lru_cache(maxsize=65536)
def _ipv6(raw: bytes) -> str:
    return str(IPv6Address(raw))


_FORMS: Final[dict[str, tuple[tuple[int, ...], Callable[[bytes], Value]]]] = {
    # type: the widths it may have (none: any), and how it is read
    "ipv4Address": ((4,), _ipv4),
    "ipv6Address": ((16,), _ipv6),
    "macAddress": ((6,), _mac),
    "string": ((), _text),
    "float64": ((4, 8), _float),
    "float32": ((4,), _float),
    # RFC 7011 section 6.1.5: 1 is true and 2 is false.
    "boolean": ((1,), lambda raw: raw == b"\x01"),
    "dateTimeSeconds": ((4, 8), lambda raw: rfc3339(_number(raw) * 1_000_000_000, 0)),
    "dateTimeMilliseconds": ((8,), lambda raw: rfc3339(_number(raw) * 1_000_000, 3)),
    "dateTimeMicroseconds": ((8,), lambda raw: rfc3339(ntp_ns(_number(raw), 1000), 6)),
    "dateTimeNanoseconds": ((8,), lambda raw: rfc3339(ntp_ns(_number(raw), 1), 9)),
    # RFC 7011 section 6.2: any integer may be sent in fewer octets.
    "signed8": ((1,), _signed),
    "signed16": ((1, 2), _signed),
    "signed32": ((1, 2, 3, 4), _signed),
    "signed64": ((1, 2, 3, 4, 5, 6, 7, 8), _signed),
}
LISTS: Final = frozenset({"basicList", "subTemplateList", "subTemplateMultiList"})
# Widths that ``struct`` reads by itself.
_UNSIGNED: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _untyped(raw: bytes) -> Value:
    """A field of variable length of which nobody says what it is: text where it is printable, else hex."""
    text = raw.decode("utf-8", "replace")
    return text if text.isprintable() and "\ufffd" not in text else raw.hex()


def value(kind: str, raw: bytes, variable: bool) -> Value:
    """Read ``raw`` as ``kind``; bytes that do not fit their type are a number up to 8 octets, else hex.

    ``variable``: sent with a length of its own; without a type, such a field is text where it is printable.
    A list (RFC 6313) is hex here: ``lists`` reads it.
    """
    return reader(kind, len(raw), variable)(raw)


@lru_cache(maxsize=8192)
def reader(kind: str, width: int, variable: bool) -> Callable[[bytes], Value]:
    """``value`` for fields of one type and width."""
    widths, form = _FORMS.get(kind, ((0,), _text))
    if not widths or width in widths:
        return form
    if not kind and variable:
        return _untyped
    if kind == "octetArray" or kind in LISTS or width > 8:
        return bytes.hex
    return _number


def code(kind: str, width: int) -> str:
    """``struct``'s letter for fields that it reads as ``value`` does; "" for those that it does not."""
    if width not in _UNSIGNED or reader(kind, width, False) not in (_number, _signed):
        return ""
    letter = _UNSIGNED[width]
    return letter.lower() if reader(kind, width, False) is _signed else letter
