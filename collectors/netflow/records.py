"""Full records, for people: a datagram and what is known of its exporter in; every field by its name out.

The slow path beside the compiled one, and the specification that its tests hold it to.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, Final

from collectors.errors import DecodeError, Reason
from collectors.netflow import elements, ipfix, v1, v5, v7, v9
from collectors.netflow.messages import Message, u2
from collectors.netflow.templates import (
    MIN_DATA_ID,
    OPTIONS_SETS,
    TEMPLATE_SETS,
    VARIABLE,
    Key,
    Template,
    Templates,
    Withdrawal,
    read,
)
from collectors.netflow.values import Value, rfc3339, value

DECODERS: Final = {1: v1.decode, 5: v5.decode, 7: v7.decode, 9: v9.decode, 10: ipfix.decode}
_LAYOUTS: Final = {1: v1.LAYOUT, 5: v5.LAYOUT, 7: v7.LAYOUT}
_PADDING: Final = 210


@dataclass
class State:
    """What is known of all exporters: their templates, and data sets that wait for one (bounded)."""

    templates: Templates = field(default_factory=Templates)
    waiting: dict[Key, list[tuple[Message, bytes]]] = field(default_factory=dict)
    waiting_bytes: int = 0
    most_waiting_bytes: int = 1 << 20
    dropped: int = 0
    refused: dict[Reason, int] = field(default_factory=dict)

    def refuse(self, reason: Reason) -> None:
        """Count something in a datagram that could not be read."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


def decode(datagram: bytes) -> Message:
    """Header and sets of a datagram of any version that is known.  Raises DecodeError, and nothing else."""
    if len(datagram) < 2:
        raise DecodeError(Reason.SHORT, f"{len(datagram)} bytes")
    decoder = DECODERS.get(u2(datagram, 0))
    if decoder is None:
        raise DecodeError(Reason.VERSION, f"version {u2(datagram, 0)}")
    return decoder(datagram)


def records(datagram: bytes, state: State, exporter: bytes, t_ns: int = 0) -> list[dict[str, Any]]:
    """Every record of the datagram, options included, and those that waited for a template in it.

    ``exporter`` is 16 octets.  Keys are element names; first come those that say whose record it is.  A
    field that comes twice is a list.  Raises DecodeError, and nothing else, on a bad header; a set that
    cannot be read is counted in ``state.refused``.
    """
    message = decode(datagram)
    if message.broken is not None:
        state.refuse(message.broken)
    made: list[dict[str, Any]] = []
    for one in message.sets:
        if message.version in _LAYOUTS:
            made += _named(message, _LAYOUTS[message.version], one.body, exporter)
        elif one.id in (TEMPLATE_SETS[message.version], OPTIONS_SETS[message.version]):
            try:
                for told in read(message.version, one.id, one.body):
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
                made += _named(message, template, one.body, exporter)
    return made


def _learn(
    told: Template | Withdrawal, message: Message, state: State, exporter: bytes, t_ns: int
) -> list[dict[str, Any]]:
    if isinstance(told, Withdrawal):
        state.templates.withdraw(exporter, message.domain, told)
        return []
    key = Key(exporter, message.version, message.domain, told.id)
    state.templates.hear(key, told, t_ns)
    made = []
    for earlier, body in state.waiting.pop(key, ()):
        state.waiting_bytes -= len(body)
        made += _named(earlier, told, body, exporter)
    return made


def _wait(state: State, key: Key, message: Message, body: bytes) -> None:
    if state.waiting_bytes + len(body) > state.most_waiting_bytes:
        state.dropped += 1
        return
    state.waiting_bytes += len(body)
    state.waiting.setdefault(key, []).append((message._replace(sets=()), body))


def cut(template: Template, body: bytes) -> Iterator[list[bytes]]:
    """The fields of each record in a data set's body.  What is left over at its end is padding."""
    at, least = 0, template.least
    while least and len(body) - at >= least:
        found = []
        for each in template.fields:
            width = each.width
            if width == VARIABLE:
                # RFC 7011 section 7: one octet of length, or 255 and two.
                if at >= len(body):
                    return
                width, at = body[at], at + 1
                if width == 255:
                    width, at = u2(body, at), at + 2
            if at + width > len(body):
                return
            found.append(body[at : at + width])
            at += width
        yield found


def _context(message: Message, template: Template, exporter: bytes) -> dict[str, Any]:
    address = IPv6Address(exporter)
    name = "exporterIPv4Address" if address.ipv4_mapped else "exporterIPv6Address"
    return {
        "exportProtocolVersion": message.version,
        name: str(address.ipv4_mapped or address),
        "observationDomainId": message.domain,
        "templateId": template.id,
        "exportTime": rfc3339(message.export_ns, 3),
    }


def _named(message: Message, template: Template, body: bytes, exporter: bytes) -> list[dict[str, Any]]:
    names = [
        elements.scope(message.version, f.number)
        if i < template.scopes and not f.enterprise
        else elements.element(f.enterprise, f.number)
        for i, f in enumerate(template.fields)
    ]
    context = _context(message, template, exporter)
    if message.version == 5:
        context["samplingInterval"] = message.sampling
    made = []
    for found in cut(template, body):
        row = dict(context)
        seen: set[str] = set()
        for (name, kind), raw, told in zip(names, found, template.fields, strict=True):
            if (told.number == _PADDING and not told.enterprise) or (told.width != VARIABLE and not raw):
                continue
            _enter(row, seen, name, value(kind, raw, told.width == VARIABLE))
        made.append(row)
    return made


def _enter(row: dict[str, Any], seen: set[str], name: str, given: Value) -> None:
    """Add a field; one that comes again makes a list."""
    if name in seen:
        before = row[name] if isinstance(row[name], list) else [row[name]]
        row[name] = [*before, given]
    else:
        row[name] = given
        seen.add(name)
