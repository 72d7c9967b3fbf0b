"""Senders of WebSocket frames and of HTTP messages, from the RFCs; they share no code with the readers."""

import zlib

TEXT, BINARY, MORE = 1, 2, 0


def frame(data, opcode=TEXT, *, final=True, masked=False, packed=False, room=None):
    """One frame as RFC 6455 section 5.2 draws it; ``room`` makes the length longer than need be."""
    first = (0x80 if final else 0) | (0x40 if packed else 0) | opcode
    size = len(data)
    room = room or (1 if size < 126 else 2 if size < 65536 else 8)
    length = bytes([size]) if room == 1 else bytes([126 if room == 2 else 127]) + size.to_bytes(room, "big")
    if not masked:
        return bytes([first]) + length + data
    key = b"\x9a\x01\xf0\x3c"
    length = bytes([length[0] | 0x80]) + length[1:]
    return bytes([first]) + length + key + bytes(b ^ key[i & 3] for i, b in enumerate(data))


class Deflater:
    """permessage-deflate, with its window kept or not."""

    def __init__(self, *, takeover=True):
        self.takeover, self.deflate = takeover, zlib.compressobj(9, zlib.DEFLATED, -15)

    def __call__(self, data):
        made = self.deflate.compress(data) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        if not self.takeover:
            self.deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        assert made.endswith(b"\0\0\xff\xff")
        return made[:-4]


def cut(stream, places):
    ends = sorted({p % (len(stream) + 1) for p in places})
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]


LINE = b'{"id":1,"method":"getwork","params":[]}'
JSON = b"Content-Type: application/json\r\n"


def post(body=LINE, extra=JSON, first=b"POST / HTTP/1.1"):
    return first + b"\r\nHost: x\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def reply(body=LINE, extra=JSON, first=b"HTTP/1.1 200 OK"):
    return first + b"\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(first, pieces, trailer=b""):
    out = first + b"\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    for piece in pieces:
        out += b"%x;a=b\r\n" % len(piece) + piece + b"\r\n"
    return out + b"0\r\n" + trailer + b"\r\n"
