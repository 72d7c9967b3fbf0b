"""Full records, for people: a datagram and what is known of its exporter in; every field by its name out.

The slow path beside the compiled one, and the specification that its tests hold it to.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any, Final

from collectors.errors import DecodeError, Reason
from collectors.netflow import elements, ipfix, v1, v5, v7, v9
from collectors.netflow.elements import Element
from collectors.netflow.lists import Lists, ReadList
from collectors.netflow.messages import Clock, Message, u2
from collectors.netflow.readers import Reader, cut
from collectors.netflow.sflow import layout as sflow
from collectors.netflow.sflow.records import named
from collectors.netflow.sflow.rows import Frames, no_frames
from collectors.netflow.templates import (
    MIN_DATA_ID,
    OPTIONS_SETS,
    TEMPLATE_SETS,
    Key,
    Template,
    Templates,
    Withdrawal,
    read,
)
from collectors.netflow.values import rfc3339

__all__ = ["State", "cut", "decode", "records"]

DECODERS: Final = {1: v1.decode, 5: v5.decode, 7: v7.decode, 9: v9.decode, 10: ipfix.decode}
LAYOUTS: Final = {1: v1.LAYOUT, 5: v5.LAYOUT, 7: v7.LAYOUT}
_READERS: Final = 4096
_TYPES: Final = 8192
# What a data set that waits takes besides its octets, which may be none.
_WAITING: Final = 256
# RFC 5610 section 3.9: data types by the number that announces them.
_DATA_TYPES: Final = (
    "octetArray", "unsigned8", "unsigned16", "unsigned32", "unsigned64", "signed8", "signed16", "signed32",
    "signed64", "float32", "float64", "boolean", "macAddress", "string", "dateTimeSeconds",
    "dateTimeMilliseconds", "dateTimeMicroseconds", "dateTimeNanoseconds", "ipv4Address", "ipv6Address",
    "basicList", "subTemplateList", "subTemplateMultiList",
)  # fmt: skip
_TYPE_INFORMATION: Final = frozenset({303, 339, 341, 346})

# What reads a data set, its octets, the keys that come first and what uptimes count from: its records as
# octets, None: unwritten.
Written = Callable[[Reader, bytes, Mapping[str, Any], Clock | None], bytes | None]


@dataclass
class State:
    """What is known of all exporters: their templates, the types that they announce, and data sets that wait
    for a template (all bounded).  ``frames`` reads the headers that sFlow samples; ``lines``, where it is
    given, may write a data set as a whole."""

    templates: Templates = field(default_factory=Templates)
    waiting: dict[Key, list[tuple[Message, bytes]]] = field(default_factory=dict)
    waiting_bytes: int = 0
    most_waiting_bytes: int = 4 << 20
    dropped: int = 0
    refused: dict[Reason, int] = field(default_factory=dict)
    frames: Frames = no_frames
    lines: Written | None = None
    types: dict[tuple[bytes, int, int], Element] = field(default_factory=dict)
    types_dropped: int = 0
    withdrawals_ignored: int = 0
    readers: dict[Key, Reader] = field(default_factory=dict)

    def refuse(self, reason: Reason, count: int = 1) -> None:
        """Count something in a datagram that could not be read."""
        self.refused[reason] = self.refused.get(reason, 0) + count

    def element(self, exporter: bytes, enterprise: int, number: int) -> Element:
        """What an element is called: by the registry, else as the exporter itself announces it."""
        known = elements.element(enterprise, number)
        if enterprise and not known.type:
            told = self.types.get((exporter, enterprise, number))
            if told is not None:
                # A name that is published goes before the exporter's own.
                return told if known.name.startswith("enterprise") else Element(known.name, told.type)
        return known


def decode(datagram: bytes) -> Message:
    """Header and sets of a datagram of any version that is known.  Raises DecodeError, and nothing else."""
    if len(datagram) < 2:
        raise DecodeError(Reason.SHORT, f"{len(datagram)} bytes")
    decoder = DECODERS.get(u2(datagram, 0))
    if decoder is None:
        raise DecodeError(Reason.VERSION, f"version {u2(datagram, 0)}")
    return decoder(datagram)


def records(
    datagram: bytes, state: State, exporter: bytes, t_ns: int = 0, *, withdraws: bool = False
) -> list[Any]:
    """Every record of the datagram, options included, and those that waited for a template in it.

    ``exporter`` is 16 octets.  Keys are element names; first come those that say whose record it is.  A
    field that comes twice is a list.  Among them is what ``state.lines`` wrote, octets for the records of a
    data set.  ``withdraws``: it came over a stream, where templates may be withdrawn (RFC 7011 section 8.4).
    Raises DecodeError, and nothing else, on a bad header; a set that cannot be read is counted in
    ``state.refused``.
    """
    if sflow.is_sflow(datagram):
        samples, broken = named(datagram, state.frames, exporter, t_ns)
        if broken:
            state.refuse(Reason.LENGTH, broken)
        return samples
    message = decode(datagram)
    if message.broken is not None:
        state.refuse(message.broken)
    made: list[Any] = []
    for one in message.sets:
        if message.version in LAYOUTS:
            key = Key(exporter, message.version, message.domain, one.id)
            made += _named(message, LAYOUTS[message.version], one.body, key, state)
        elif one.id in (TEMPLATE_SETS[message.version], OPTIONS_SETS[message.version]):
            try:
                for told in read(message.version, one.id, one.body):
                    if isinstance(told, Withdrawal) and not withdraws:
                        state.withdrawals_ignored += 1
                        continue
                    made += _learn(told, message, state, exporter, t_ns)
            except DecodeError as error:
                state.refuse(error.reason)
        elif one.id >= MIN_DATA_ID:
            key = Key(exporter, message.version, message.domain, one.id)
            template = state.templates.find(key)
            if template is None:
                _wait(state, key, message, one.body)
            else:
                state.templates.touch(key, t_ns)
                made += _named(message, template, one.body, key, state)
    return made


def _learn(
    told: Template | Withdrawal, message: Message, state: State, exporter: bytes, t_ns: int
) -> list[Any]:
    if isinstance(told, Withdrawal):
        state.templates.withdraw(exporter, message.domain, told)
        return []
    key = Key(exporter, message.version, message.domain, told.id)
    state.templates.hear(key, told, t_ns)
    made = []
    for earlier, body in state.waiting.pop(key, ()):
        state.waiting_bytes -= len(body) + _WAITING
        made += _named(earlier, told, body, key, state)
    return made


def _wait(state: State, key: Key, message: Message, body: bytes) -> None:
    if state.waiting_bytes + len(body) + _WAITING > state.most_waiting_bytes:
        state.dropped += 1
        return
    state.waiting_bytes += len(body) + _WAITING
    state.waiting.setdefault(key, []).append((message._replace(sets=()), body))


@lru_cache(maxsize=4096)
def _address(exporter: bytes) -> tuple[str, str]:
    address = IPv6Address(exporter)
    name = "exporterIPv4Address" if address.ipv4_mapped else "exporterIPv6Address"
    return name, str(address.ipv4_mapped or address)


def _context(message: Message, template: Template, exporter: bytes) -> dict[str, Any]:
    name, address = _address(exporter)
    context = {
        "exportProtocolVersion": message.version,
        name: address,
        "observationDomainId": message.domain,
        "templateId": template.id,
        "exportTime": rfc3339(message.export_ns, 3),
    }
    if message.uptime_ms >= 0:
        # What a record's times count from.
        context["systemInitTimeMilliseconds"] = rfc3339(message.export_ns - message.uptime_ms * 1_000_000, 3)
    return context


def _named(message: Message, template: Template, body: bytes, key: Key, state: State) -> list[Any]:
    context = _context(message, template, key.exporter)
    if message.version == 5:
        context["samplingInterval"] = message.sampling
    reader = _reader(template, key, state)
    # Options are few, and some must be learned from.
    if state.lines is not None and not template.options:
        written = state.lines(reader, body, context, message.clock)
        if written is not None:
            return [written]
    before = reader.broken
    made = list(reader.read(body, context, message.clock))
    if reader.broken > before:
        state.refuse(Reason.LENGTH)
    if template.options and _TYPE_INFORMATION.issubset(f.number for f in template.fields if not f.enterprise):
        for row in made:
            _announced(row, key.exporter, state)
    return made


def _reader(template: Template, key: Key, state: State) -> Reader:
    """What reads records of the template; made once, until another comes under its id."""
    known = state.readers.get(key)
    if known is None or known.template != template:
        if len(state.readers) >= _READERS:
            state.readers.clear()
        named = [
            elements.scope(key.version, f.number)
            if i < template.scopes and not f.enterprise
            else state.element(key.exporter, f.enterprise, f.number)
            for i, f in enumerate(template.fields)
        ]
        known = state.readers[key] = Reader(template, named, _lists(key, state).read)
    return known


def _lists(key: Key, state: State) -> Lists:
    """What reads structured data of the domain: its records are of templates of the same domain."""

    def name(enterprise: int, number: int) -> Element:
        return state.element(key.exporter, enterprise, number)

    def inner(template: int, body: bytes, read_list: ReadList) -> Iterable[dict[str, Any]] | None:
        own = state.templates.find(key._replace(id=template))
        if own is None:
            return None
        named = [name(f.enterprise, f.number) for f in own.fields]
        return Reader(own, named, read_list).read(body)

    return Lists(name, inner)


def _announced(row: dict[str, Any], exporter: bytes, state: State) -> None:
    """Learn a vendor's element from a record of type information (RFC 5610)."""
    enterprise, number = row["privateEnterpriseNumber"], row["informationElementId"]
    kind, name = row["informationElementDataType"], row["informationElementName"]
    if not (isinstance(enterprise, int) and isinstance(number, int) and isinstance(kind, int)):
        return
    if not enterprise or kind >= len(_DATA_TYPES) or not isinstance(name, str) or not name.isprintable():
        return
    key = exporter, enterprise, number & 0x7FFF
    told = Element(name or f"enterprise{enterprise}_{number & 0x7FFF}", _DATA_TYPES[kind])
    if state.types.get(key) == told:
        return
    if key not in state.types and len(state.types) >= _TYPES:
        state.types_dropped += 1
        return
    state.types[key] = told
    # Readers were made by what was known before.
    state.readers.clear()
