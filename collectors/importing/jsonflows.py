"""Records as JSON: pmacct's, of its Kafka and print plugins, and goflow2's of ``-format=json``.

Values of a topic in, columns of ``flows`` out.  A value is one object, several on lines of their own, or an
array of them.  Keys that are not known are passed over; a record without addresses, or with a number that
fits no flow, is refused, and the others of its value stand.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from collectors.errors import DecodeError, Reason
from collectors.importing.records import IMPORTED, MOST_NS, Columns, Stamps

U1 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U2 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
U4 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
U8 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Stamp = int | float | str
# IP protocol numbers by the names of /etc/protocols, which pmacct prints; goflow2 prints some in capitals.
PROTOCOLS: Final = {
    "icmp": 1, "igmp": 2, "ipip": 4, "ipencap": 4, "tcp": 6, "egp": 8, "igp": 9, "udp": 17, "dccp": 33,
    "ipv6": 41, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmp6": 58, "icmpv6": 58,
    "eigrp": 88, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115, "sctp": 132, "udplite": 136,
}  # fmt: skip
FLAGS: Final = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}
_RECORDS: Final = 8192
_SECOND: Final = 1_000_000_000
_PMACCT: Final = len("2026-11-22 10:00:00.000000")
_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", re.ASCII)


class PmacctRecord(msgspec.Struct, gc=False):
    """What is read of pmacct's keys (its CONFIG-KEYS and the JSON of its print plugin); -1 is null."""

    ip_src: str = ""
    ip_dst: str = ""
    peer_ip_src: str = ""
    port_src: U2 = 0
    port_dst: U2 = 0
    ip_proto: int | str = 0
    bytes: U8 = 0
    packets: U8 = 0
    iface_in: U4 = -1
    iface_out: U4 = -1
    as_src: U4 = -1
    as_dst: U4 = -1
    tos: U1 = -1
    vlan: U2 = -1
    tcp_flags: int | str | list[str] = 0
    sampling_rate: U4 = -1
    export_proto_sysid: U4 = -1
    timestamp_start: Stamp = 0
    timestamp_end: Stamp = 0
    timestamp_min: Stamp = 0
    timestamp_max: Stamp = 0
    timestamp_arrival: Stamp = 0
    stamp_inserted: Stamp = 0
    stamp_updated: Stamp = 0
    event_type: str = "purge"


class Goflow2Record(msgspec.Struct, gc=False):
    """What is read of goflow2's: keys are the names of FlowMessage's fields.  Zero says nothing, as there."""

    src_addr: str = ""
    dst_addr: str = ""
    sampler_address: str = ""
    src_port: U2 = 0
    dst_port: U2 = 0
    proto: int | str = 0
    bytes: U8 = 0
    packets: U8 = 0
    in_if: U4 = 0
    out_if: U4 = 0
    src_as: U4 = 0
    dst_as: U4 = 0
    ip_tos: U1 = 0
    vlan_id: U2 = 0
    tcp_flags: U2 = 0
    sampling_rate: U4 = 0
    observation_domain_id: U4 = -1
    flow_direction: Annotated[int, msgspec.Meta(ge=0, le=1)] = -1
    time_flow_start_ns: U8 = 0
    time_flow_end_ns: U8 = 0
    time_received_ns: U8 = 0


@lru_cache(maxsize=1 << 16)
def address(text: str) -> bytes:
    """16 octets, IPv4 mapped.  Raises DecodeError."""
    try:
        made = ip_address(text)
    except ValueError:
        raise DecodeError(Reason.NOT_IP, text[:50]) from None
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


def exporter(text: str) -> bytes:
    """As ``address``; zeros where the record does not say."""
    return address(text) if text else bytes(16)


@lru_cache(maxsize=4096)
def _instant(text: str) -> int:
    """Unix nanoseconds of the whole seconds of a date; one without a zone is UTC."""
    made = datetime.fromisoformat(text)
    return int((made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()) * _SECOND


def instant(told: Stamp) -> int:
    """Unix nanoseconds of a stamp, 0 where there is none: epoch seconds with a fraction, RFC 3339, or
    pmacct's ``2026-11-22 10:00:00.000000``.  Raises DecodeError."""
    if not told:
        return 0
    try:
        if isinstance(told, str) and len(told) == _PMACCT and told[4] == "-" and told[20:].isdigit():
            return _instant(told[:19]) + int(told[20:]) * 1000
        return _any_instant(told if isinstance(told, str) else repr(told))
    except (ValueError, OverflowError):
        raise DecodeError(Reason.FORMAT, f"stamp {str(told)[:40]}") from None


def _any_instant(text: str) -> int:
    if "-" not in text.strip("-"):
        whole, _, rest = text.partition(".")
        made = int(whole) * _SECOND + int((rest + "000000000")[:9])
    else:
        match = _RFC3339.fullmatch(text)
        if match is None:
            raise ValueError
        whole, rest, zone = match.groups(default="")
        made = _instant(whole + zone.replace("Z", "+00:00")) + int((rest + "000000000")[:9])
    if not 0 <= made < MOST_NS:
        raise ValueError
    return made


def _protocol(told: int | str) -> int:
    if isinstance(told, str) and not told[:1].isdecimal():
        return PROTOCOLS.get(told.lower(), 0)
    return _number(told, 0xFF, "protocol")


def _number(told: int | str, most: int, what: str) -> int:
    try:
        made = int(told or 0)
    except ValueError:
        raise DecodeError(Reason.FORMAT, what) from None
    if not 0 <= made <= most:
        raise DecodeError(Reason.FORMAT, what)
    return made


def _flags(told: int | str | list[str]) -> int:
    """Zero is null: a TCP packet has a flag, and of other protocols there is nothing to tell."""
    if isinstance(told, list):
        return sum(FLAGS.get(name.upper(), 0) for name in set(told)) or -1
    return _number(told, 0xFFFF, "flags") or -1


Cells = tuple[bytes, bytes, bytes, int, int, int, int, int]
"""Source, destination, exporter; protocol, TCP flags; first, last and receipt in Unix ns."""


def _span(first: int, last: int, received: int) -> tuple[int, int, int]:
    last = last or received
    return min(first or last, last), last, received


def pmacct_cells(r: PmacctRecord, stamp: int) -> Cells:
    """What of a record takes more than a look; ``stamp`` is when Kafka had it.  Raises DecodeError."""
    first = instant(r.timestamp_start or r.timestamp_min or r.stamp_inserted)
    last = instant(r.timestamp_end or r.timestamp_max or r.stamp_updated)
    return (
        address(r.ip_src), address(r.ip_dst), exporter(r.peer_ip_src), _protocol(r.ip_proto),
        _flags(r.tcp_flags), *_span(first, last, instant(r.timestamp_arrival) or stamp),
    )  # fmt: skip


def goflow2_cells(r: Goflow2Record, stamp: int) -> Cells:
    """The same of goflow2's."""
    received = min(r.time_received_ns, MOST_NS) or stamp
    first, last = min(r.time_flow_start_ns, MOST_NS), min(r.time_flow_end_ns, MOST_NS)
    return (
        address(r.src_addr), address(r.dst_addr), exporter(r.sampler_address), _protocol(r.proto),
        r.tcp_flags or -1, *_span(first, last, received),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """A form of records: its struct, what makes cells of one, and which field becomes which column.  Of
    ``positive`` columns zero is null, of ``nullable`` ones -1."""

    record: type[Any]
    cells: Callable[[Any, int], Cells]
    fixed: Mapping[str, str]
    nullable: Mapping[str, str]
    positive: Mapping[str, str]


KINDS: Final[dict[str, Kind]] = {
    "pmacct": Kind(
        PmacctRecord, pmacct_cells,
        {"src_port": "port_src", "dst_port": "port_dst", "bytes": "bytes", "packets": "packets"},
        {"src_as": "as_src", "dst_as": "as_dst", "tos": "tos", "domain": "export_proto_sysid",
         "input_interface": "iface_in", "output_interface": "iface_out"},
        {"vlan": "vlan", "sampling_rate": "sampling_rate"},
    ),
    "goflow2-json": Kind(
        Goflow2Record, goflow2_cells,
        {"src_port": "src_port", "dst_port": "dst_port", "bytes": "bytes", "packets": "packets"},
        {"domain": "observation_domain_id", "direction": "flow_direction"},
        {"src_as": "src_as", "dst_as": "dst_as", "tos": "ip_tos", "vlan": "vlan_id",
         "input_interface": "in_if", "output_interface": "out_if", "sampling_rate": "sampling_rate"},
    ),
}  # fmt: skip
_TYPES: Final = {
    "src_port": np.uint16, "dst_port": np.uint16, "bytes": np.uint64, "packets": np.uint64,
    "src_as": np.uint32, "dst_as": np.uint32, "tos": np.uint8, "domain": np.uint32, "vlan": np.uint16,
    "input_interface": np.uint32, "output_interface": np.uint32, "sampling_rate": np.uint32,
    "direction": np.uint8,
}  # fmt: skip


def _columns(kind: Kind, records: list[Any], cells: list[Cells]) -> Columns:
    n = len(records)
    src, dst, told, protocol, flags, first, last, received = zip(*cells, strict=True)

    def addresses(given: tuple[bytes, ...]) -> np.ndarray:
        return np.frombuffer(b"".join(given), np.uint8).reshape(n, 16)

    def numbers(field: str, of: type) -> np.ndarray:
        return np.fromiter(map(attrgetter(field), records), of, n)

    who = addresses(told)
    tcp = np.fromiter(flags, np.int32, n)
    made: Columns = {
        "src": addresses(src), "dst": addresses(dst), "protocol": np.fromiter(protocol, np.uint8, n),
        "t_first": np.fromiter(first, np.int64, n), "t_last": np.fromiter(last, np.int64, n),
        "t_received": np.fromiter(received, np.int64, n), "source": np.full(n, IMPORTED, np.uint8),
        "exporter": (who, np.asarray(who.any(axis=1))),
        "tcp_flags": (np.maximum(tcp, 0).astype(np.uint16), tcp > 0),
    }  # fmt: skip
    made |= {name: numbers(field, _TYPES[name]) for name, field in kind.fixed.items()}
    for fields, least in ((kind.nullable, 0), (kind.positive, 1)):
        for name, field in fields.items():
            values = numbers(field, np.int64)
            made[name] = (np.maximum(values, 0).astype(_TYPES[name]), values >= least)
    return made


class Decoder:
    """Decodes values of one topic.  ``decode`` is its verb."""

    def __init__(self, kind: str = "pmacct", most_bytes: int = 1 << 20) -> None:
        """``kind`` is a key of KINDS; a value larger than ``most_bytes`` is refused."""
        self._kind = KINDS[kind]
        record = self._kind.record
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(record, strict=False)
        self._many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[record], strict=False)  # type: ignore[valid-type]
        self._any: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[msgspec.Raw])
        self._most = most_bytes
        self._refused: dict[Reason, int] = {}

    def decode(self, values: Sequence[bytes | None], stamps: Stamps) -> list[Columns]:
        """As ``flowmessage.Decoder.decode``."""
        out: list[Columns] = []
        records: list[Any] = []
        cells: list[Cells] = []
        make = self._kind.cells
        for value, stamp in zip(values, stamps.tolist(), strict=True):
            for record in self._records(value or b""):
                if getattr(record, "event_type", "purge") != "purge":
                    continue  # begin and end of a purge, of a log
                try:
                    cells.append(make(record, stamp))
                except DecodeError as error:
                    self._refuse(error.reason)
                else:
                    records.append(record)
            if len(records) >= _RECORDS:
                out.append(_columns(self._kind, records, cells))
                records, cells = [], []
        return [*out, _columns(self._kind, records, cells)] if records else out

    def refused(self) -> dict[Reason, int]:
        """What was refused since the last call, by reason."""
        told, self._refused = self._refused, {}
        return told

    def _refuse(self, reason: Reason) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def _records(self, value: bytes) -> Sequence[Any]:
        if not value or value.isspace():
            self._refuse(Reason.SHORT)
            return ()
        if len(value) > self._most:
            self._refuse(Reason.SIZE)
            return ()
        try:
            return (self._one.decode(value),)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return list(self._several(value))

    def _several(self, value: bytes) -> Iterator[Any]:
        """Records of a value that is not one of them, each for itself where they cannot be read at once."""
        try:
            if value.lstrip()[:1] == b"[":
                yield from self._many.decode(value)
            else:
                yield from self._one.decode_lines(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return
        for part in self._parts(value):
            try:
                yield self._one.decode(part)
            except (msgspec.ValidationError, UnicodeDecodeError):
                self._refuse(Reason.SCHEMA)
            except (msgspec.DecodeError, RecursionError):
                self._refuse(Reason.FORMAT)

    def _parts(self, value: bytes) -> Sequence[Any]:
        if value.lstrip()[:1] == b"[":
            try:
                made: list[msgspec.Raw] = self._any.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return (value,)
            return made
        return [line for line in value.split(b"\n") if line.strip()]
