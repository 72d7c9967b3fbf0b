"""One record of a topic in, one message out, whole and checked, or a refusal.

The bus may be hostile: headers and every column are validated before anything is used.
"""

from collections.abc import Sequence
from typing import NamedTuple

from collectors import wire
from collectors.bus import Message
from collectors.streams import STREAMS
from detector.errors import DecodeError, Reason

INPUTS = ("flows", "payloads", "names")
_EMPTY = {stream: wire.empty(stream) for stream in INPUTS}


class Arrival(NamedTuple):
    """A record that has come: where it stood, and its message, None where it was refused."""

    stream: str
    offset: int
    size: int
    message: Message | None


def read(
    stream: str, partition: int, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> Message:
    """A record's message.  An empty value is a batch of no rows, if its header says so: a collector that
    tells its time.  Raises DecodeError, and nothing else."""
    header = wire.from_headers(headers)
    if header.version != STREAMS[stream].version:
        raise DecodeError(Reason.VERSION, f"{stream} version {header.version}")
    if value is None:
        raise DecodeError(Reason.SHORT, "no value")
    rows = wire.decode(stream, value) if value or header.rows else _EMPTY[stream]
    if rows.num_rows != header.rows:
        raise DecodeError(Reason.LENGTH, f"{rows.num_rows} rows, the header says {header.rows}")
    return Message(stream, partition, rows, header)
