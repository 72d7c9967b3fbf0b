"""Compression, and one large record of Kafka laid out for it: at once, in memory that is used again.

The client library copies a record three times before it is compressed, each time into fresh memory, and
compresses it when it is sent; until then a message of flows takes up six times what becomes of it.
"""

import threading
from collections.abc import Sequence
from typing import Any, Final, Literal

import lz4.frame
import zstandard

Kind = Literal["zstd", "lz4"]

# Level 3, the library's, costs half as much again and saves one octet in twenty.  Of level 1, for flows, a
# table that fits in the first cache and matches of 6 octets take a sixth off its time, and nothing is larger.
ZSTD: Final = zstandard.ZstdCompressionParameters.from_level(
    1, strategy=zstandard.STRATEGY_FAST, hash_log=12, min_match=6, write_content_size=True
)

_local = threading.local()


class Laid(list[tuple[str, bytes]]):
    """Given as the headers of a value, says that the value is ``records`` records as they lie in a batch
    before compression, numbered from 0, all of the batch's time; they have headers of their own, or none."""

    def __init__(self, records: int) -> None:
        super().__init__()
        self.records = records


def records(headers: Sequence[tuple[str, bytes]]) -> int:
    """How many records a value with these headers is."""
    return headers.records if isinstance(headers, Laid) else 1


def compressed(kind: Kind, data: memoryview) -> bytes:
    """One frame, its size told in it.  A compressor is kept by each thread."""
    if kind == "lz4":
        # Brokers read no linked blocks.
        return bytes(lz4.frame.compress(data, block_linked=False))
    made = getattr(_local, "zstd", None)
    if made is None:
        made = _local.zstd = zstandard.ZstdCompressor(compression_params=ZSTD)
    return bytes(made.compress(data))


def plain(kind: Kind | None, data: memoryview, most: int) -> bytes:
    """What was compressed, by us or by others.  Raises ValueError where it is of another kind or would be
    more than ``most`` octets, and what the decompressors raise."""
    made = None
    if kind == "zstd":
        reader = getattr(_local, "unzstd", None)
        if reader is None:
            reader = _local.unzstd = zstandard.ZstdDecompressor()
        size = zstandard.frame_content_size(data)
        if 0 <= size <= most:
            return bytes(reader.decompress(data))
        if size < 0:  # not told: other clients' way
            with reader.stream_reader(data) as stream:
                made = stream.read(most + 1)
    elif kind == "lz4":
        made = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=most + 1)
    else:
        raise ValueError("a compression that nobody here uses")
    if made is None or len(made) > most:
        raise ValueError(f"more than {most} bytes of records")
    return bytes(made)


def varint(value: int) -> bytes:
    """A length as Kafka writes it: zigzag, seven bits an octet, the lowest first."""
    value <<= 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(key: bytes | None, value: Any, headers: Sequence[tuple[str, bytes]]) -> memoryview:
    """The first record of a batch, of which it tells the time: as it lies there before compression.

    ``value`` is bytes-like, of octets.  The view is good until this thread makes the next one.
    """
    # Attributes, and the differences of time and offset to the batch's.
    head = b"\0\0\0" + (b"\1" if key is None else varint(len(key)) + key) + varint(len(value))
    tail = bytearray(varint(len(headers)))
    for name, content in headers:
        octets = name.encode()
        tail += varint(len(octets)) + octets + varint(len(content)) + content
    size = len(head) + len(value) + len(tail)
    head = varint(size) + head
    first, last = len(head), len(head) + len(value)
    end = last + len(tail)
    room = getattr(_local, "room", None)
    if room is None or len(room) < end:
        room = _local.room = memoryview(bytearray(1 << max(20, (end - 1).bit_length())))
    room[:first] = head
    room[first:last] = value
    room[last:end] = tail
    return room[:end]
