"""A batch of PAYLOADS in, what the observer goes through row by row out: plain values, and the form of each
row that has one (``collectors.masking``).

A row that is one message of HTTP, or of gzip, is taken apart: its form is that of its body, behind what
stands for its head.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from collectors import masking, wire
from detector.tracks import Ends
from detector.transports.apart import Apart, Message

_STARTS: Final = np.isin(np.arange(256), list(b"HP\x1f"))
"""First octets of what may be a message of HTTP with a body, or of gzip."""


class Route:
    """Who says something to whom: of all rows of a batch with the same names.  ``way`` is 0 from the low end;
    ``step`` is the observer's to note what it keeps for the connection, as of ``change``."""

    __slots__ = ("change", "ends", "step", "subscriber", "way")

    def __init__(self, subscriber: bytes, ends: Ends, way: int) -> None:
        self.subscriber, self.ends, self.way = subscriber, ends, way
        self.step: Any = None
        self.change = 0


class Given:
    """A batch of PAYLOADS to be gone through.  ``rows`` gives of each row time, offset, sequence number,
    acknowledgement, flags, where its data begins and ends in ``told``, where its form does in ``forms``,
    where its slots do in ``slots``, and its name, a key of ``routes``.  ``shown`` is what the values of its
    slots are to be read from: ``told``, frames unmasked, and behind it bodies.  ``bodies`` is by where the
    form of a row begins that was taken apart."""

    __slots__ = ("_apart", "_looks", "bodies", "forms", "routes", "rows", "shown", "slots", "told")

    def __init__(self, rows: wire.Batch, apart: Apart) -> None:
        column: Callable[[str], list[int]] = lambda name: wire.values(rows, name).tolist()  # noqa: E731
        starts, data = wire.lists(rows, "data")
        self.told = data.tobytes()
        edges = starts.tolist()
        self.bodies: dict[int, tuple[int, int]] = {}
        self._apart = apart
        self._looks, found = _messages(starts, edges, data, self.told, apart)
        if found:
            starts, data = _behind(starts, data, found)
        masked = masking.forms(starts, data)
        self.shown, self.forms, self.slots = masked.told, masked.octets, masked.slots
        begins, firsts = masked.starts, masked.firsts
        ends, lasts = begins[1:], firsts[1:]
        if found:
            self._place(found, starts.tolist(), (begins, ends, firsts, lasts))
        self.routes: dict[bytes, Route] = {}
        self.rows: Iterator[Any] = zip(
            column("t"), column("offset"), column("seq"), column("ack"), column("flags"), edges, edges[1:],
            begins, ends, firsts, lasts, _names(rows), strict=False,
        )  # fmt: skip

    def _place(self, found: dict[int, Message], edges: list[int], lists: tuple[list[int], ...]) -> None:
        """Give rows that were taken apart the forms of their bodies, which stand behind all others."""
        begins, ends, firsts, lasts = lists
        to, forms = len(self.forms), [self.forms]
        for at, (row, message) in enumerate(found.items(), len(edges) - 1 - len(found)):
            form = self.forms[begins[at] : ends[at]]
            if form:
                forms += message.head, form
                firsts[row], lasts[row] = firsts[at], lasts[at]
                begins[row], ends[row] = to, to + len(message.head) + len(form)
                self.bodies[to] = edges[at], edges[at + 1]
                to = ends[row]
        self.forms = b"".join(forms)

    def line(self, begins: int, start: int, end: int) -> tuple[int, int]:
        """Where in ``shown`` the line stands of the row whose form begins there: its data, from ``start`` to
        ``end``, or the body in it."""
        return self.bodies.get(begins, (start, end))

    def over(self, read: int) -> None:
        """All rows are gone through; so many that were taken apart had to be read all the same."""
        self._apart.looked(self._looks, len(self.bodies) - read)

    def route(self, name: bytes) -> Route:
        """The route of rows of that name, which is not in ``routes`` yet."""
        route = self.routes[name] = _route(name)
        return route


_NAME_BYTES = 54


def _messages(
    starts: np.ndarray, edges: list[int], data: np.ndarray, told: bytes, apart: Apart
) -> tuple[int, dict[int, Message]]:
    """How many rows were looked at, and those that are one message of HTTP or of gzip each, by number."""
    out: dict[int, Message] = {}
    if not data.size:
        return 0, out
    first = data[np.minimum(starts[:-1], data.size - 1)]
    rows = np.flatnonzero(_STARTS[first])[: apart.looks(starts.size - 1)].tolist()
    for row in rows:
        message = apart.take(told, edges[row], edges[row + 1])
        if message is not None:
            out[row] = message
    return len(rows), out


def _behind(starts: np.ndarray, data: np.ndarray, found: dict[int, Message]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and data with bodies behind them; what is between is no row of anybody's."""
    lines = [message.line for message in found.values()]
    more = data.size + np.cumsum([0, *map(len, lines)])
    text = np.frombuffer(b"".join(lines), np.uint8)
    return np.concatenate([starts, more.astype(starts.dtype)]), np.concatenate([data, text])


def _names(rows: wire.Batch) -> list[bytes]:
    """What names the connection and direction of each row: subscriber, source, destination, ports
    (big-endian), protocol, copy."""
    out = np.empty((rows.num_rows, _NAME_BYTES), np.uint8)
    for n, name in enumerate(("subscriber", "src", "dst")):
        out[:, n * 16 : n * 16 + 16] = wire.values(rows, name)
    for at, name in ((48, "src_port"), (50, "dst_port")):
        port = wire.values(rows, name)
        out[:, at], out[:, at + 1] = port >> 8, port & 255
    out[:, 52], out[:, 53] = wire.values(rows, "protocol"), wire.values(rows, "copy")
    told = out.tobytes()
    return [told[at : at + _NAME_BYTES] for at in range(0, len(told), _NAME_BYTES)]


def _route(name: bytes) -> Route:
    src = name[16:32], int.from_bytes(name[48:50], "big")
    dst = name[32:48], int.from_bytes(name[50:52], "big")
    way = 0 if src <= dst else 1
    low, high = (dst, src) if way else (src, dst)
    return Route(name[:16], (low, high, name[52], name[53]), way)
