"""``poolwatch dissect``: what we read in a capture, and what tshark reads in it, side by side."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from itertools import zip_longest
from typing import Final

from rich.table import Table
from rich.text import Text

from collectors.packet import dissect, pcapfile
from collectors.packet.dissect import Connection, End, Found
from detector import opinion
from detector.errors import ConfigError, DecodeError, InputError
from detector.exporters.paper import Paper
from detector.observers.words import clean
from detector.wording import counted

# More make no filter that anybody would read; then tshark is asked of all, and what is not ours is left out.
MOST_FILTERED: Final = 50
_END: Final = re.compile(r"\[?([0-9A-Fa-f:.]+?)\]?:(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Line:
    """One field of one message, as read here and there; "" where it was not read."""

    connection: str
    message: str
    number: int
    field: str
    ours: str
    theirs: str
    same: bool | None  # None: only one of the two tells it


def connection_of(text: str) -> tuple[End, End]:
    """``a:p-b:q``, an IPv6 address in brackets.  Raises ConfigError."""
    ends = []
    for part in text.split("-"):
        found = _END.fullmatch(part.strip())
        try:
            if found is None or int(found[2]) > 65535:
                raise ValueError
            ends.append(End(str(ip_address(found[1])), int(found[2])))
        except ValueError:
            raise ConfigError(
                f"--connection: {text[:80]!r} is not A:P-B:Q: {part[:80]!r} is no address:port"
            ) from None
    if len(ends) != 2:
        raise ConfigError(f"--connection: {text[:80]!r} is not A:P-B:Q, two times address:port")
    return min(ends), max(ends)


def wanted(connections: Iterable[str], subscribers: Iterable[str]) -> Callable[[Connection], bool]:
    """Who asks for nothing gets all.  Raises ConfigError."""
    pairs = {connection_of(text) for text in connections}
    addresses = set()
    for text in subscribers:
        try:
            addresses.add(str(ip_address(text)))
        except ValueError:
            raise ConfigError(f"--subscriber: {text[:80]!r} is not an address") from None

    def keep(connection: Connection) -> bool:
        if not pairs and not addresses:
            return True
        ends = connection.low.address, connection.high.address
        return (connection.low, connection.high) in pairs or not addresses.isdisjoint(ends)

    return keep


def compare(path: str, keep: Callable[[Connection], bool]) -> tuple[dissect.Reading, list[Line], str]:
    """Our reading, both beside each other, and why tshark stopped early ("" where it did not).

    Raises InputError on a file that cannot be read, or without tshark.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a name that is no UTF-8 is a name
            ours = dissect.read(pcapfile.blocks(file), keep)
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    of = list(ours.packets)
    theirs, why = opinion.read(path, of if len(of) <= MOST_FILTERED else None) if of else ([], "")
    beside = lines(ours.found, [found for found in theirs if found.connection in ours.packets])
    return ours, list(beside), why


def lines(ours: list[Found], theirs: list[Found]) -> Iterator[Line]:
    """The n-th message of a kind on a connection beside the other's n-th."""
    certificates: dict[Connection, list[str]] = {}
    for found in theirs:
        if found.what in ("certificates", "server_hello"):
            certificates.setdefault(found.connection, []).extend(found.fields["certificate_names"])
    keys = dict.fromkeys((f.connection, f.what) for f in (*ours, *theirs) if f.what != "certificates")
    for connection, what in keys:
        pair = [[f for f in side if (f.connection, f.what) == (connection, what)] for side in (ours, theirs)]
        for number, (mine, other) in enumerate(zip_longest(*pair)):
            if mine is not None and mine.refused:
                yield Line(str(connection), what, number, "refused", mine.refused, "", None)
            given = (mine.fields if mine else {}), (other.fields if other else {})
            for name in dict.fromkeys((*given[0], *given[1])):
                a, b = (side.get(name, []) for side in given)
                if name == "certificate_names":
                    b = list(dict.fromkeys(certificates.get(connection, b)))
                if a or b:
                    yield Line(
                        str(connection), what, number, name, ", ".join(a), ", ".join(b), _same(name, a, b)
                    )


def _same(name: str, ours: list[str], theirs: list[str]) -> bool | None:
    if not ours or not theirs:
        return None
    # Theirs are the names of all certificates, issuers and all.
    return set(ours) <= set(theirs) if name == "certificate_names" else ours == theirs


def show_json(path: str, reading: dissect.Reading, found: list[Line], why: str) -> None:
    """One document on standard output."""
    document = {
        "file": path,
        "connections": [{"connection": str(c), "packets": n} for c, n in reading.packets.items()],
        "left_out": reading.left_out,
        "tshark_gave_up": why or None,
        "fields": [asdict(line) for line in found],
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def show_table(reading: dissect.Reading, found: list[Line], *, chosen: bool = False) -> None:
    """A table for people; ``chosen``: only of connections that were asked for."""
    console = Paper()
    packets = counted(sum(reading.packets.values()), "packet")
    console.print(f"{counted(len(reading.packets), 'connection')}, {packets}")
    if reading.left_out:
        left = counted(reading.left_out, "packet")
        console.print(f"{left} left out: a connection too long, or too many of them")
    if chosen and not reading.packets:
        console.print("nothing in it is as asked: without --connection and --subscriber all is shown")
        return
    if not found:
        console.print("no DNS answer, TLS or QUIC hello, or HTTP request in them")
        return
    table = Table("connection", "message", "field", "poolwatch", "tshark", "")
    last = ("", "", -1)
    for line in found:
        key = line.connection, line.message, line.number
        mark = {True: "same", False: "DIFFERS", None: ""}[line.same]
        shown = ("", "") if key == last else (line.connection, line.message)
        table.add_row(*(Text(clean(t)) for t in (*shown, line.field, line.ours, line.theirs)), mark)
        last = key
    console.print(table)
    differing = sum(line.same is False for line in found)
    console.print(f"{counted(len(found), 'field')}, {differing} differ")
