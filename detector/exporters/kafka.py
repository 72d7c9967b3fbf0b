"""Alerts, incidents and endpoints as records of their topics.  Nothing is decided here.

Keys are the ids of alerts and incidents, so that the compacted topic keeps the latest document, and a
consumer that counts distinct ids counts each alert once, however often a crash had it sent.  A replay's
records carry its name in the header ``run``; those of the live links have none.
"""

import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from detector import endpointdoc
from detector.document import Incident, Transition
from detector.endpoints import Entry

Send = Callable[[str, int, bytes, bytes | None, list[tuple[str, bytes]]], Any]
"""Stream, partition, key, value, headers: hands over a record; gives what tells when it has arrived."""


class Records:
    """Writes what one detector tells.  ``pending`` takes what tells when each record has arrived."""

    def __init__(self, send: Send, partitions: int) -> None:
        self._send = send
        self._partitions = partitions
        self._encode = msgspec.json.Encoder().encode
        self._pending: list[Any] = []

    def alert(self, run: str, partition: int, made: Transition) -> None:
        """Write one transition."""
        self._write("alerts", partition, made.id.encode(), self._encode(made), run)

    def incident(self, run: str, partition: int, document: Incident) -> None:
        """Write the latest document of an incident."""
        self._write("incidents", partition, document.id.encode(), self._encode(document), run)

    def endpoint(self, run: str, entry: Entry) -> None:
        """Write what is known of one endpoint."""
        name = endpointdoc.key(entry)
        self._write("endpoints", zlib.crc32(name) % self._partitions, name, endpointdoc.encode(entry), run)

    def pending(self) -> list[Any]:
        """What has been handed over since the last call."""
        out, self._pending = self._pending, []
        return out

    def _write(self, stream: str, partition: int, name: bytes, value: bytes, run: str) -> None:
        # A replay of the same capture has the same ids: its records must not take the place of others'.
        name = run.encode() + b"/" + name if run else name
        headers = [("run", run.encode())] if run else []
        self._pending.append(self._send(stream, partition, name, value, headers))
