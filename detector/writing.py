"""What is written when: alerts and documents first, then the state that includes them, then offsets.

A crash between any two of these loses nothing: what the state does not include is read again, and told again
under the same ids.  The records of one state partition go out in one order and arrive in it, so only the
first step is waited for; while that goes on the detector works on.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from detector.errors import InputError
from detector.intake import INPUTS
from detector.parts import Offsets, Part, Record

PATIENCE_S: Final = 30.0


class Future(Protocol):
    """What tells when a record has arrived."""

    is_done: bool
    exception: BaseException | None
    value: Any


class _Snapshot(NamedTuple):
    """A state that waits for what it includes to have arrived."""

    told: list[Future]
    records: dict[int, list[Record]]
    offsets: dict[int, Offsets]


class Writer:
    """Writes the states of a detector's partitions.  ``turn`` is its verb, ``flush`` does all of it at once.

    ``send`` hands over a record of the state topic; ``pending`` gives what was handed over to other topics;
    ``wait`` waits for records to arrive; ``commit`` tells the group where we are.
    """

    def __init__(
        self,
        send: Callable[[int, Record], Future],
        pending: Callable[[], list[Future]],
        wait: Callable[[list[Future], float], None],
        commit: Callable[[Mapping[tuple[str, int], int]], None],
        every_s: float,
    ) -> None:
        self._send = send
        self._pending = pending
        self._wait = wait
        self._commit = commit
        self._every_s = every_s
        self._told: list[Future] = []
        self._snapshot: _Snapshot | None = None
        self._written: list[tuple[int, Future]] = []
        self._offsets: dict[int, Offsets] = {}
        self._taken_s = -every_s
        self.ends: dict[int, int] = {}
        self.records = 0
        self.bytes = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written."""
        return self._snapshot is None and not self._written

    def turn(self, parts: Mapping[int, Part], now_s: float) -> None:
        """Go on as far as can be without waiting.  Raises InputError where a record did not arrive."""
        if self._snapshot is not None and _done(self._snapshot.told):
            self._put()
        if self._written and _done([future for _, future in self._written]):
            self._close()
        if self.is_idle and now_s - self._taken_s >= self._every_s:
            self._taken_s = now_s
            self._take(parts, everything=False)

    def flush(self, parts: Mapping[int, Part], *, commit: bool) -> None:
        """Write all, and wait for it.  Raises InputError where it does not arrive in time."""
        self._finish(commit=commit)
        self._take(parts, everything=True)
        self._finish(commit=commit)

    def _finish(self, *, commit: bool) -> None:
        if self._snapshot is not None:
            self._await(self._snapshot.told)
            self._put()
        self._await(self._told)
        self._await([future for _, future in self._written])
        self._close(commit=commit)

    def forget(self) -> None:
        """Partitions were taken from us: what was not written is the business of another."""
        self._snapshot, self._written, self._told, self._offsets = None, [], [], {}
        self._pending()
        self.ends.clear()

    def _take(self, parts: Mapping[int, Part], *, everything: bool) -> None:
        records = {p: found for p, part in parts.items() if (found := part.checkpoint(whole=everything))}
        told = self._told + self._pending()
        if records:
            self._told = []
            self._snapshot = _Snapshot(told, records, {p: parts[p].offsets for p in records})
        else:
            # Nothing to remember, but a failure must still be seen.
            self._told = [future for future in told if not _done([future])]

    def _put(self) -> None:
        if self._snapshot is None:
            return
        for partition, records in self._snapshot.records.items():
            for record in records:
                self._written.append((partition, self._send(partition, record)))
                self.records += 1
                self.bytes += len(record.value or b"")
        self._offsets = self._snapshot.offsets
        self._snapshot = None

    def _close(self, *, commit: bool = True) -> None:
        for partition, future in self._written:
            self.ends[partition] = future.value.offset + 1
        self._written = []
        offsets = {
            (stream, p): offset
            for p, known in self._offsets.items()
            for stream, offset in zip(INPUTS, known, strict=True)
        }
        self._offsets = {}
        if offsets and commit:
            self._commit(offsets)

    def _await(self, futures: list[Future]) -> None:
        self._wait(futures, PATIENCE_S)
        if not _done(futures):
            raise InputError(f"kafka: records were not taken within {PATIENCE_S:.0f} s")


def _done(futures: list[Future]) -> bool:
    """Whether all have arrived.  Raises InputError where one was refused: going on would lose it."""
    for future in futures:
        if not future.is_done:
            return False
        if future.exception is not None:
            raise InputError(f"kafka: a record was not taken: {future.exception}")
    return True
