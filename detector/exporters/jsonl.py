"""Alerts and incidents as JSON lines, one file each, appended and flushed line by line."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from detector.document import Incident, Transition
from detector.errors import ConfigError
from detector.metrics import Deliveries


class JsonLines:
    """A sink: ``alerts.jsonl`` gets transitions, ``incidents.jsonl`` the latest document of an incident.

    A line that cannot be written is counted and lost; the detector goes on.
    """

    def __init__(self, folder: Path, deliveries: Deliveries) -> None:
        self._folder = folder
        self._deliveries = deliveries
        self._files: dict[str, IO[bytes]] = {}
        self._encode = msgspec.json.Encoder().encode

    def __enter__(self) -> "JsonLines":
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in ("alerts", "incidents"):
                self._files[name] = (self._folder / f"{name}.jsonl").open("ab")
        except (OSError, ValueError) as error:
            raise ConfigError(f"output.jsonl: {error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with suppress(OSError):  # what a full disk did not take was counted
                file.close()

    def alert(self, made: Transition) -> None:
        """Write one transition."""
        self._write("alerts", made)

    def incident(self, document: Incident) -> None:
        """Write one document."""
        self._write("incidents", document)

    def _write(self, name: str, what: msgspec.Struct) -> None:
        try:
            self._files[name].write(self._encode(what) + b"\n")
            self._files[name].flush()
        except OSError:
            self._deliveries.count("jsonl", "failed")
        else:
            self._deliveries.count("jsonl", "delivered")
