"""THE SCHEMA: every column of every stream, declared once, and the forms derived from it.

What goes in are columns (numpy arrays) or bytes from the bus; what comes out are Arrow record
batches, validated in full before anything touches a column.  ``docs/reference/schema.md`` is printed
from the same table.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from collectors.errors import DecodeError, Reason
from collectors.streams import STREAMS, Column, Stream

Batch: TypeAlias = pa.RecordBatch

_ADDRESS: Final = pa.binary(16)
_ARROW: Final = {
    "u1": pa.uint8(),
    "u2": pa.uint16(),
    "u4": pa.uint32(),
    "u8": pa.uint64(),
    "i8": pa.int64(),
    "address": _ADDRESS,
    "bytes": pa.binary(),
    "text": pa.utf8(),
    "list_u2": pa.list_(pa.uint16()),
    "list_u4": pa.list_(pa.uint32()),
    "list_i8": pa.list_(pa.int64()),
}
# A message larger than this is refused unread; topics carry the same limit (max.message.bytes).
MAX_MESSAGE_BYTES: Final = 8 << 20
MAX_ROWS: Final = 8192


def _schema(stream: Stream) -> pa.Schema:
    fields = [
        pa.field(c.name, _ARROW[c.type], nullable=c.nullable, metadata={"unit": c.unit})
        for c in stream.columns
    ]
    return pa.schema(fields, metadata={"stream": stream.name, "version": str(stream.version)})


SCHEMAS: Final = {s.name: _schema(s) for s in STREAMS.values() if s.format == "arrow"}
# What ``batch`` notes beside a batch and ``Encoder`` reads; it never travels.
_FILLED: Final = b"filled"
# What ends an Arrow IPC stream: a length of 0.
_OVER: Final = b"\xff\xff\xff\xff\0\0\0\0"


def _room(rows: int) -> int:
    """The next power of two, so that few lengths are ever made."""
    return 1 << max(rows - 1, 1).bit_length()


@lru_cache(maxsize=256)
def _nulls(kind: pa.DataType, rows: int) -> pa.Array:
    return pa.nulls(rows, kind)


@lru_cache(maxsize=64)
def _constant(kind: pa.DataType, text: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, kind), rows)


def _array(column: Column, given: Any, rows: int) -> pa.Array:
    """One column as Arrow.  ``given`` is whatever form is cheapest for its producer.

    None is all null; a str is a constant; a pair (values, valid) has nulls where valid is False; for
    ``bytes`` and ``list_*`` it is a pair (offsets of rows + 1 i4, values); a third of a list says where it is
    valid.
    """
    kind = _ARROW[column.type]
    if given is None:
        # Cut from one that is kept: to make half of forty columns anew took a fifth of a batch's time.
        return _nulls(kind, _room(rows)).slice(0, rows)
    if column.type == "text":
        if isinstance(given, str):
            return _constant(kind, given, _room(rows)).slice(0, rows)
        return pa.array(given, kind)
    if column.type == "bytes" or column.type.startswith("list_"):
        offsets, values, *valid = given
        offsets = np.ascontiguousarray(offsets, np.int32)
        if column.type == "bytes":
            return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(offsets), pa.py_buffer(values)])
        mask = pa.array(~valid[0]) if valid else None
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind.value_type), mask=mask)
    values, there = given if isinstance(given, tuple) else (given, None)
    mask = None if there is None else pa.array(np.ascontiguousarray(there, bool)).buffers()[1]
    if column.type == "address":
        values = np.ascontiguousarray(values, np.uint8)
    else:
        values = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, rows, [mask, pa.py_buffer(values)])


def batch(stream: str, rows: int, columns: Mapping[str, object]) -> Batch:
    """Build a record batch of ``rows`` rows; a nullable column that is not given is null.

    Raises KeyError on a column that the schema does not have or that is missing and not nullable:
    that is our own mistake, not a peer's.
    """
    declared = STREAMS[stream].columns
    unknown = columns.keys() - {c.name for c in declared}
    if unknown:
        raise KeyError(f"{stream} has no column {sorted(unknown)}")
    arrays = [_array(c, columns.get(c.name) if c.nullable else columns[c.name], rows) for c in declared]
    filled = tuple(i for i, array in enumerate(arrays) if array.null_count < rows)
    return pa.RecordBatch.from_arrays(arrays, schema=_noting(stream, filled))


@lru_cache(maxsize=256)
def _noting(stream: str, filled: tuple[int, ...]) -> pa.Schema:
    """The schema of a stream, with a note of the places of its columns that are not all null.

    Parts of a batch keep it, so that it is found out once and not for each partition.
    """
    schema = SCHEMAS[stream]
    return schema.with_metadata({**schema.metadata, _FILLED: ",".join(map(str, filled))})


@lru_cache(maxsize=256)
def _beginning(stream: bytes, filled: bytes) -> tuple[list[int], bytes]:
    """The places of the columns that a message has, and its schema as it begins: the same for thousands."""
    schema = SCHEMAS[stream.decode()]
    places = [int(place) for place in filled.split(b",") if place]
    part = pa.schema([schema.field(i) for i in places], metadata=schema.metadata)
    return places, part.serialize().to_pybytes()


def empty(stream: str) -> Batch:
    """A batch of no rows: what a collector sends to tell its time."""
    return pa.RecordBatch.from_pylist([], schema=SCHEMAS[stream])


class Encoder:
    """Writes batch after batch into the same memory.  For one thread."""

    def __init__(self) -> None:
        self._room = np.empty(0, np.uint8)

    def encode(self, rows: Batch) -> memoryview:
        """An Arrow IPC stream of one batch; buffers plain, for compression is Kafka's.  It is good until
        the next call.  ``rows`` are a batch as ``batch`` made it, or a part of one.

        Nullable columns without a value are left out: of a flow's forty columns an exporter fills twenty,
        and the others would be two thirds of the octets.  A stream writer of Arrow's would lay out the schema
        anew for each batch, and asking each column how many nulls it has costs as much as writing them.
        """
        told = rows.schema.metadata or {}
        if _FILLED in told and rows.num_rows:
            places, begins = _beginning(told[b"stream"], told[_FILLED])
        else:
            places = [i for i, c in enumerate(rows.columns) if c.null_count < rows.num_rows or not len(c)]
            begins = rows.select(places).schema.serialize().to_pybytes()
        if len(places) < rows.num_columns:
            rows = rows.select(places)
        body = rows.serialize()
        end = len(begins) + body.size
        if end + len(_OVER) > len(self._room):
            self._room = np.empty(1 << (end + len(_OVER) - 1).bit_length(), np.uint8)
        room = self._room.data
        room[: len(begins)] = begins
        room[len(begins) : end] = memoryview(body).cast("B")
        room[end : end + len(_OVER)] = _OVER
        return room[: end + len(_OVER)]


def encode(rows: Batch) -> bytes:
    """As ``Encoder``, in memory of its own, and whatever was done to the batch since it was made."""
    told = {k: v for k, v in (rows.schema.metadata or {}).items() if k != _FILLED}
    return bytes(Encoder().encode(rows.replace_schema_metadata(told)))


def decode(stream: str, message: bytes) -> Batch:
    """Read and validate one message; nullable columns that it does not have are null.

    Raises DecodeError, and nothing else, on bad bytes.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise DecodeError(Reason.SIZE, f"{len(message)} bytes, limit {MAX_MESSAGE_BYTES}")
    expected = SCHEMAS[stream]
    try:
        with pa.ipc.open_stream(message) as reader:
            _recognised(stream, reader.schema)
            rows = reader.read_next_batch()
            rows.validate(full=True)
    except DecodeError:
        raise
    except (pa.ArrowException, OSError, ValueError, StopIteration, EOFError) as error:
        raise DecodeError(Reason.CORRUPT, str(error)[:200]) from None
    if rows.num_rows > MAX_ROWS:
        raise DecodeError(Reason.SIZE, f"{rows.num_rows} rows, limit {MAX_ROWS}")
    given = dict(zip(rows.schema.names, rows.columns, strict=True))
    for column in STREAMS[stream].columns:
        if not column.nullable and (column.name not in given or given[column.name].null_count):
            raise DecodeError(Reason.SCHEMA, f"null in {column.name}")
    if len(given) == len(expected):
        return rows
    room = _room(rows.num_rows)
    arrays = [given.get(f.name, _nulls(f.type, room).slice(0, rows.num_rows)) for f in expected]
    return pa.RecordBatch.from_arrays(arrays, schema=expected)


def _recognised(stream: str, got: pa.Schema) -> None:
    """Raises DecodeError on another stream's or version's schema, and on columns that are not its own."""
    expected = SCHEMAS[stream]
    told = got.metadata or {}
    if told.get(b"version", b"?") != expected.metadata[b"version"]:
        raise DecodeError(Reason.VERSION, f"{stream} version {told.get(b'version', b'?')[:16]!r}")
    names = [name for name in expected.names if name in set(got.names)]
    if told.get(b"stream") != expected.metadata[b"stream"] or got.names != names:
        raise DecodeError(Reason.SCHEMA, f"columns differ from {stream}'s")
    if any(not expected.field(field.name).equals(field, check_metadata=False) for field in got):
        raise DecodeError(Reason.SCHEMA, f"columns differ from {stream}'s")


def values(rows: Batch, name: str) -> np.ndarray:
    """A fixed-width column as a numpy view: (n,) of its type, or (n, 16) u1 for addresses.

    Null cells hold no meaning here: ask ``valid`` for a nullable column.
    """
    array = rows.column(name)
    data = array.buffers()[1]
    if array.type == _ADDRESS:
        flat = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        return flat[array.offset * 16 : (array.offset + len(array)) * 16].reshape(-1, 16)
    dtype = np.dtype(array.type.to_pandas_dtype())
    if data is None:
        return np.zeros(0, dtype)
    return np.frombuffer(data, dtype)[array.offset : array.offset + len(array)]


def valid(rows: Batch, name: str) -> np.ndarray:
    """(n,) bool: where a nullable column holds a value."""
    array = rows.column(name)
    marks = array.buffers()[0]
    if marks is None:
        return np.ones(len(array), bool)
    # Bits, the lowest first. ``is_valid`` says the same and imports pyarrow.compute, which takes 0.03 s.
    bits = np.unpackbits(np.frombuffer(marks, np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].view(bool)


def lists(rows: Batch, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A ``bytes`` or ``list_*`` column as (offsets (n + 1,) i4, values): row i is values[o[i]:o[i+1]]."""
    array = rows.column(name)
    if not len(array):
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    if array.type == pa.binary():
        data = array.buffers()[2]
        return offsets, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return offsets, array.values.to_numpy(zero_copy_only=False)


def clamped(rows: Batch, name: str, latest: int, instead: int) -> tuple[Batch, int]:
    """The batch with every cell of an i8 column that is above ``latest`` set to ``instead``, and how many."""
    given = values(rows, name)
    above = given > latest
    count = int(np.count_nonzero(above))
    if not count:
        return rows, 0
    place = rows.schema.get_field_index(name)
    made = pa.array(np.where(above, instead, given), _ARROW["i8"])
    return rows.set_column(place, rows.schema.field(place), made), count


def chosen(rows: Batch, keep: np.ndarray) -> Batch:
    """The rows where ``keep`` (n,) bool is set, in their order."""
    return rows.filter(pa.array(keep))


def texts(rows: Batch, name: str) -> list[str | None]:
    """A text column as Python strings: for streams of few rows only."""
    return rows.column(name).to_pylist()


Ns = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Name = Annotated[str, msgspec.Meta(max_length=256)]


class Clock(msgspec.Struct, frozen=True):
    """How far one source of rows has come: its newest stamp, and how late its rows may be."""

    source: Name
    newest_ns: Ns
    delay_ns: Ns


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What travels beside a batch, so that a gap, a repeat or a disagreement is counted.

    ``number`` runs per (collector, stream, partition) from 0.  ``received_ns`` is receive time: the
    collector's clock on a live link, the data's own time in a replay.

    The rest is the road's.  ``life`` tells one start of a collector from the next; ``turn`` runs per (life,
    partition) over all streams, so that a reader of several topics finds the order of sending again.
    ``run`` names a replay, a run of data of its own; it is "" on a live link.  ``ends`` is set on the last
    message of a run.
    """

    version: Count
    collector: Name
    number: Count
    rows: Count
    t_first_ns: Ns
    t_last_ns: Ns
    received_ns: Ns
    home: Name
    clocks: Annotated[tuple[Clock, ...], msgspec.Meta(max_length=65536)] = ()
    life: Name = ""
    run: Name = ""
    turn: Count = 0
    ends: bool = False


def to_headers(header: Header) -> list[tuple[str, bytes]]:
    """A header as Kafka record headers: one a field, texts as they are and the rest as JSON, so that any
    Kafka tool shows them."""
    fields = msgspec.structs.asdict(header)
    return [(k, v.encode() if isinstance(v, str) else msgspec.json.encode(v)) for k, v in fields.items()]


def from_headers(headers: Iterable[tuple[str, bytes | None]]) -> Header:
    """The inverse; headers of other names are passed over.  Raises DecodeError, and nothing else."""
    given = dict(headers)
    tree: dict[str, Any] = {}
    try:
        for field in msgspec.structs.fields(Header):
            value = given.get(field.name)
            if value is not None:
                plain = field.type is Name
                tree[field.name] = value.decode() if plain else msgspec.json.decode(value, type=field.type)
        return msgspec.convert(tree, Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(Reason.HEADER, f"message header: {error}"[:200]) from None
