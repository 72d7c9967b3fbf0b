"""TLS client hellos made by hand, and a reader's answer or refusal."""

import struct

from collectors.errors import DecodeError


def vector(width, data):
    return len(data).to_bytes(width, "big") + data


def pairs(values):
    return b"".join(struct.pack(">H", v) for v in values)


def extension(kind, data=b""):
    return struct.pack(">H", kind) + vector(2, data)


def server_name(name):
    return extension(0, vector(2, b"\0" + vector(2, name)))


def hello(*extensions, ciphers=(0x1301,), version=0x0303, record=None, session=b"s" * 32):
    """A client hello in records of at most ``record`` octets."""
    body = struct.pack(">H", version) + bytes(32) + vector(1, session) + vector(2, pairs(ciphers)) + b"\1\0"
    if extensions:
        body += vector(2, b"".join(extensions))
    message = b"\1" + vector(3, body)
    size = record or len(message)
    return b"".join(b"\x16\3\1" + vector(2, message[i : i + size]) for i in range(0, len(message), size))


PLAIN = hello(server_name(b"Pool.Example.org."), extension(16, vector(2, b"\x07stratum\x02h2")))


def attempted(read, *given, **options):
    """What ``read`` answers, and the reason of its refusal; one of them is None."""
    try:
        return read(*given, **options), None
    except DecodeError as error:
        return None, error.reason
