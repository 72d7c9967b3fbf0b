"""The value of one field for people: its bytes and type in; a number, text, address or time out."""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
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


def rfc3339(t_ns: int, digits: int) -> str | int:
    """A time as text, UTC, with so many digits of the second; the number itself beyond the year 9999."""
    seconds, fraction = divmod(t_ns, 1_000_000_000)
    if not 0 <= seconds <= _MAX_SECONDS:
        return t_ns
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}"[: 20 + digits].rstrip(".") + "Z"


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _text(raw: bytes) -> Value:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _float(raw: bytes) -> Value:
    # RFC 7011 section 6.2: a float64 may be sent as a float32.
    return struct.unpack(">f" if len(raw) == 4 else ">d", raw)[0]


def _mac(raw: bytes) -> Value:
    return raw.hex(":")


_FORMS: Final[dict[str, tuple[tuple[int, ...], Callable[[bytes], Value]]]] = {
    # type: the widths it may have (none: any), and how it is read
    "ipv4Address": ((4,), lambda raw: str(IPv4Address(raw))),
    "ipv6Address": ((16,), lambda raw: str(IPv6Address(raw))),
    "macAddress": ((6,), _mac),
    "string": ((), _text),
    "float64": ((4, 8), _float),
    "float32": ((4,), _float),
    "boolean": ((1,), lambda raw: raw == b"\x01"),
    "dateTimeSeconds": ((4, 8), lambda raw: rfc3339(_number(raw) * 1_000_000_000, 0)),
    "dateTimeMilliseconds": ((8,), lambda raw: rfc3339(_number(raw) * 1_000_000, 3)),
    "dateTimeMicroseconds": ((8,), lambda raw: rfc3339(ntp_ns(_number(raw), 1000), 6)),
    "dateTimeNanoseconds": ((8,), lambda raw: rfc3339(ntp_ns(_number(raw), 1), 9)),
    "signed32": ((1, 2, 3, 4), lambda raw: int.from_bytes(raw, "big", signed=True)),
    "signed64": ((1, 2, 3, 4, 5, 6, 7, 8), lambda raw: int.from_bytes(raw, "big", signed=True)),
}
_LISTS: Final = frozenset({"basicList", "subTemplateList", "subTemplateMultiList"})


def value(kind: str, raw: bytes, variable: bool) -> Value:
    """Read ``raw`` as ``kind``; bytes that do not fit their type are a number up to 8 octets, else hex.

    ``variable``: sent with a length of its own; without a type, such a field is text where it is printable.
    """
    widths, form = _FORMS.get(kind, ((0,), _text))
    if not widths or len(raw) in widths:
        return form(raw)
    if kind == "octetArray" or kind in _LISTS or len(raw) > 8 or (variable and not kind):
        if not kind and variable:
            text = raw.decode("utf-8", "replace")
            if text.isprintable() and "\ufffd" not in text:
                return text
        return raw.hex()
    return _number(raw)
