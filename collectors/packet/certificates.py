"""An X.509 certificate in DER in; the names that it was made out for out.

RFC 5280: the common name of the subject (section 4.1.2.6, X.520) and the dNSName of its alternative names
(section 4.2.1.6).  Nothing is verified: who offers a certificate in the open is believed no further than who
offers a server name.
"""

from collections.abc import Iterator
from typing import Final

from collectors.errors import DecodeError, Reason
from collectors.packet.answers import MAX_NAME, escaped

MAX_NAMES: Final = 256

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OID: Final = 0x06
_COMMON_NAME: Final = bytes.fromhex("550403")
_ALTERNATIVE_NAMES: Final = bytes.fromhex("551d11")
_DNS_NAME: Final = 0x82
_EXTENSIONS: Final = 0xA3
_VERSION: Final = 0xA0
# Of X.520's strings those of one octet a character, and what reads the others.
_PLAIN: Final = frozenset((0x0C, 0x13, 0x14, 0x16))
_WIDE: Final = {0x1E: "utf-16-be", 0x1C: "utf-32-be"}


def names(der: bytes) -> tuple[str, ...]:
    """The subject's common name, then the alternative names, each once: lower case, no final dot.

    Raises DecodeError on what is no certificate.
    """
    certificate = _only(der, _SEQUENCE)
    (tag, body), *_ = _parts(certificate) or [(0, b"")]
    if tag != _SEQUENCE:
        raise DecodeError(Reason.FORMAT, "no certificate")
    parts = _parts(body)
    if parts and parts[0][0] == _VERSION:
        del parts[0]
    # Serial number, algorithm, issuer, validity, subject, key; then what is optional.
    if len(parts) < 6 or parts[4][0] != _SEQUENCE:
        raise DecodeError(Reason.FORMAT, f"a certificate of {len(parts)} fields")
    found = [*_common(parts[4][1])]
    for tag, value in parts[6:]:
        if tag == _EXTENSIONS:
            found += _alternatives(_only(value, _SEQUENCE))
    if len(found) > MAX_NAMES:
        raise DecodeError(Reason.SIZE, f"{len(found)} names in a certificate")
    return tuple(dict.fromkeys(name for name in map(_name, found) if name))


def _common(subject: bytes) -> Iterator[bytes]:
    for tag, relative in _parts(subject):
        for inner, attribute in _parts(relative) if tag == _SET else ():
            pair = _parts(attribute) if inner == _SEQUENCE else []
            if len(pair) == 2 and pair[0] == (_OID, _COMMON_NAME):
                kind, value = pair[1]
                if kind in _PLAIN:
                    yield value
                elif kind in _WIDE:
                    yield value.decode(_WIDE[kind], "replace").encode()


def _alternatives(extensions: bytes) -> Iterator[bytes]:
    for tag, extension in _parts(extensions):
        fields = _parts(extension) if tag == _SEQUENCE else []
        # Number, whether it is critical (left out where not), and the value as an octet string.
        if len(fields) in (2, 3) and fields[0] == (_OID, _ALTERNATIVE_NAMES) and fields[-1][0] == 0x04:
            for kind, value in _parts(_only(fields[-1][1], _SEQUENCE)):
                if kind == _DNS_NAME:
                    yield value


def _name(value: bytes) -> str:
    if not value or len(value) > MAX_NAME:
        return ""
    return ".".join(escaped(label) for label in value.removesuffix(b".").split(b"."))


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """The values that follow each other in ``data``, as (tag, content) (X.690 section 8.1)."""
    out, at = [], 0
    while at < len(data):
        tag, start, end = _value(data, at)
        out.append((tag, data[start:end]))
        at = end
    return out


def _only(data: bytes, tag: int) -> bytes:
    """The content of the value that ``data`` begins with and ends with."""
    got, start, end = _value(data, 0)
    if got != tag or end != len(data):
        raise DecodeError(Reason.FORMAT, f"a value with tag {got:#04x} that ends at {end} of {len(data)}")
    return data[start:end]


def _value(data: bytes, at: int) -> tuple[int, int, int]:
    """Of the value at ``at``: its tag, and where its content begins and ends."""
    if at + 2 > len(data):
        raise DecodeError(Reason.SHORT, "a value without its length")
    tag, size, at = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise DecodeError(Reason.FORMAT, "a tag of several octets")
    if size >= 0x80:
        width = size & 0x7F
        if not 1 <= width <= 3:
            raise DecodeError(Reason.FORMAT, "a length that is not definite, or of many octets")
        if at + width > len(data):
            raise DecodeError(Reason.SHORT, "a value without its length")
        size, at = int.from_bytes(data[at : at + width], "big"), at + width
    if at + size > len(data):
        raise DecodeError(Reason.SHORT, f"a value of {size} octets at {at} of {len(data)}")
    return tag, at, at + size
