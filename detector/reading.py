"""One file through the collectors: its frames to the one of packets, the exports they carry to the other.

A path in; calls of collectors that somebody else has wired out.
"""

import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, pairwise
from pathlib import Path
from typing import IO

import numpy as np

from collectors.app import exports
from collectors.errors import DecodeError, Reason
from collectors.netflow.collector import Collector as NetflowCollector
from collectors.packet import pcapfile
from collectors.packet.collector import Collector
from collectors.packet.gunzip import Reader
from collectors.packet.sources import nothing
from detector.errors import InputError
from detector.rotation import Rotation

STEP_S = 0.05
PACKETS, FLOWS = "packets", "flows"
BLANK_BLOCKS = 8
WAIT_S = 0.25
MOST_HELD = 256
# Of a silent live input what waits is sent; its time goes on so far and no further, for the next frame may
# only have been long on its way.
MOST_QUIET_NS = 2_000_000_000
CUT = {
    Reason.TRUNCATED: "it ends within a record: what was sent was cut short",
    Reason.LENGTH: "a record has a length that cannot be: what is behind it was not read",
}
CAPTURE_SUFFIXES = (".pcap", ".pcapng", ".cap", ".pcap.gz", ".pcapng.gz", ".cap.gz")


def captures(paths: Iterable[str]) -> list[str]:
    """Files as named; of a folder the captures in it, in order of name, itself where there is none.  ``-`` is
    standard input."""
    out: list[str] = []
    for given in paths:
        try:
            if given == "-" or not Path(given).is_dir():
                out.append(given)
                continue
            found = sorted(
                p for p in Path(given).iterdir() if p.name.endswith(CAPTURE_SUFFIXES) and p.is_file()
            )
            out += [str(p) for p in found] or [given]
        except OSError:  # whoever opens it will be told why
            out.append(given)
    return out


def printable(path: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are shown as the replacement character."""
    return os.fsencode(path).decode("utf-8", "replace")


class Tally:
    """What the frames of one file add up to."""

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0
        # Of frames, those of which a snap length cut something off.
        self.cut = 0
        self.first_ns: int | None = None
        self.last_ns = 0

    def add(self, block: pcapfile.Block) -> None:
        """Count one block."""
        if not block.t_ns.size:
            return
        self.frames += block.t_ns.size
        self.bytes += int(block.length.sum())
        self.cut += int((block.captured < block.length).sum())
        first, last = int(block.t_ns.min()), int(block.t_ns.max())
        self.last_ns = last if self.first_ns is None else max(self.last_ns, last)
        self.first_ns = first if self.first_ns is None else min(first, self.first_ns)


class Held:
    """Captures that are opened before they are read, while that is still allowed."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Those that cannot be opened now are told of when it is their turn."""
        self._files: dict[str, IO[bytes]] = {}
        self._found = {path: captures([path]) for path in paths}
        for path in list(dict.fromkeys(chain(*self._found.values())))[:MOST_HELD]:
            with suppress(InputError):
                self._files[path] = _open(path)

    def captures(self, path: str) -> list[str]:
        """What ``captures`` found there; the folder may be out of reach by now."""
        return self._found.get(path) or captures([path])

    def take(self, path: str) -> IO[bytes]:
        """The opened file.  Raises InputError where there is none."""
        return self._files.pop(path, None) or _open(path)

    def close(self) -> None:
        """Close what was not taken."""
        while self._files:
            self._files.popitem()[1].close()


class Reading:
    """One file, read once; or a folder of captures, as somebody rotates them, read in order of name as if it
    were one file.  Of a folder ``errors`` tells which files could not be read.

    ``kind`` says what is read of it: packets, flows (exports on any port), or whatever it holds: packets, and
    exports on the known ports, which are no longer looked for once ``BLANK_BLOCKS`` blocks had none.

    ``flow_collector`` makes the collector of exports when the first one is found: most captures have none.
    ``held`` may have the file open already.  With ``follow`` the folder is followed as somebody rotates it,
    without an end (``rotation``); it is the file that remembers how far, or "".
    """

    def __init__(
        self,
        path: str,
        kind: str,
        packets: Collector,
        flow_collector: Callable[[], NetflowCollector],
        held: Held | None = None,
        follow: str | None = None,
    ) -> None:
        self._path = path
        self._held = held
        self._follow = follow
        # What comes as it is captured: its time goes on by the clock while nothing comes.
        self._live = follow is not None or path == "-"
        self._idle: Callable[[], None] = lambda: None
        self._newest_ns = 0
        self._heard_s = 0.0
        self._kind = kind
        self._packets = packets
        self._flow_collector = flow_collector
        self._exports: NetflowCollector | None = None
        self._blank_blocks = 0
        self._file: IO[bytes] | None = None
        self._rotation: Rotation | None = None
        self._done = 0  # octets of files that were read before
        self.tally = Tally()
        self.errors: list[str] = []

    def run(
        self,
        stopped: Callable[[], bool],
        progress: Callable[[int], None],
        pace: float = 0,
        fed: Callable[[], None] = lambda: None,
    ) -> None:
        """Read to the end, or until ``stopped``, and finish the collectors.

        ``progress`` is told the octets read so far, ``fed`` is called after each block.  Raises InputError
        where nothing could be read.
        """

        def waiting() -> bool:
            progress(self._position())
            return stopped()

        def idle() -> None:
            self._go_on()
            fed()
            progress(self._position())

        self._idle = idle
        for block in _paced(self._blocks(stopped), pace, waiting):
            self.tally.add(block)
            self._feed(block)
            if self._rotation is not None:
                self._rotation.took(block.t_ns.size)
            fed()
            progress(self._position())
            if stopped():
                break
        if self._kind != FLOWS:
            self._packets.finish()
        if self._exports is not None:
            self._exports.finish()
        if self._rotation is not None:
            self._rotation.keep()

    def _blocks(self, stopped: Callable[[], bool]) -> Iterator[pcapfile.Block]:
        if self._follow is not None:
            yield from self._followed(self._follow, stopped)
            return
        files = self._held.captures(self._path) if self._held else captures([self._path])
        folder = files != [self._path]
        for path in files:
            try:
                with self._held.take(path) if self._held else _open(path) as self._file:
                    for block in _frames(path, _Interruptible(self._file, stopped, self._idle)):
                        if path == "-" and not stopped():
                            told = (f"{path}: {CUT[why]}" for why in CUT if why in block.refused)
                            self.errors += [one for one in told if one not in self.errors]
                        yield block
                    self._done += _position(self._file)
            except InputError as error:
                self.errors.append(str(error))
                if not folder or len(self.errors) == len(files):
                    raise

    def _followed(self, state: str, stopped: Callable[[], bool]) -> Iterator[pcapfile.Block]:
        self._rotation = rotation = Rotation(self._path, state, stopped, self._idle)
        log = logging.getLogger("poolwatch")
        for path, growing, self._file in rotation.files():
            log.info("reading file=%s", printable(path))
            try:
                yield from _rest(_frames(path, growing), rotation)
            except InputError as error:
                log.warning("%s", printable(str(error)))
            if growing.overwritten:
                log.warning("overwritten while it was read file=%s", printable(path))
            self._done += _position(self._file)

    def _position(self) -> int:
        """Octets read so far."""
        if self._file is None or self._file.closed:
            return self._done
        return self._done + _position(self._file)

    def _feed(self, block: pcapfile.Block) -> None:
        if self._kind != FLOWS:
            self._take(block)
        if self._kind == PACKETS or self._blank_blocks >= BLANK_BLOCKS:
            return
        found = exports(block, any_port=self._kind == FLOWS)
        self._blank_blocks = 0 if len(found) else self._blank_blocks + (self._kind != FLOWS)
        if len(found):
            if self._exports is None:
                self._exports = self._flow_collector()
            self._exports.feed(found)

    def _take(self, block: pcapfile.Block) -> None:
        """Give frames to the packet collector; live ones as received at their own time, second by second."""
        if not self._live:
            self._packets.feed(block)
            return
        self._heard_s = time.monotonic()
        newest = np.maximum(np.maximum.accumulate(block.t_ns), self._newest_ns)
        edges = np.flatnonzero(np.diff(newest // 1_000_000_000)) + 1
        for a, b in pairwise([0, *edges.tolist(), newest.size]):
            self._newest_ns = int(newest[b - 1]) if b else self._newest_ns
            self._packets.feed(block.part(a, b), self._newest_ns)

    def _go_on(self) -> None:
        """While nothing comes: have what waits sent."""
        if self._live and self._kind != FLOWS and self._newest_ns:
            quiet_ns = int((time.monotonic() - self._heard_s) * 1e9)
            self._packets.feed(nothing(), self._newest_ns + min(quiet_ns, MOST_QUIET_NS))


def _open(path: str) -> IO[bytes]:
    # What lies in a buffer does not wake who waits for a pipe.
    try:
        if path == "-":
            if sys.__stdin__ is None:
                raise ValueError("standard input is closed")
            return os.fdopen(os.dup(sys.__stdin__.fileno()), "rb", buffering=0)
        return open(path, "rb", buffering=0, opener=_at_once)
    except IsADirectoryError:
        suffixes = ", ".join(s for s in CAPTURE_SUFFIXES if not s.endswith(".gz"))
        raise InputError(f"{path}: a folder with no captures in it ({suffixes}, also with .gz)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _at_once(path: str, flags: int) -> int:
    """Open a named pipe without waiting for a writer: that is done while reading, where a signal ends it."""
    file = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(file, True)
    return file


def _frames(path: str, file: Reader) -> Iterator[pcapfile.Block]:
    try:
        yield from pcapfile.blocks(file)
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: {error}") from None


def _rest(blocks: Iterable[pcapfile.Block], rotation: Rotation) -> Iterator[pcapfile.Block]:
    """Of the blocks of the file that is being followed, what was not taken before a restart."""
    left: int | None = None
    for block in blocks:
        frames = block.t_ns.size
        if left is None and frames:
            left = rotation.begins(int(block.t_ns[0]))
        past = min(frames, left or 0)
        left = left and left - past
        if not past or past < frames:
            yield block.part(past, frames)


class _Interruptible:
    """A file that is read as far as it comes, and is at its end once ``stopped`` says so: a live pipe may be
    silent for long, and ``idle`` is called meanwhile."""

    def __init__(self, file: IO[bytes], stopped: Callable[[], bool], idle: Callable[[], None]) -> None:
        self._file = file
        self._stopped = stopped
        self._idle = idle
        self._waits = not file.seekable()

    def read(self, n: int) -> bytes:
        """Up to ``n`` octets, as soon as there are any; none at the end."""
        while self._waits and not self._stopped():
            if select.select([self._file], [], [], WAIT_S)[0]:
                break
            self._idle()
        return b"" if self._stopped() else self._file.read(n)

    def ready(self) -> bool:
        """Whether there is more now."""
        return not self._waits or bool(select.select([self._file], [], [], 0)[0])


def _position(file: IO[bytes]) -> int:
    try:
        return file.tell()
    except OSError:
        return 0


def _paced(
    blocks: Iterable[pcapfile.Block], pace: float, stopped: Callable[[], bool]
) -> Iterator[pcapfile.Block]:
    """Blocks no faster than ``pace`` seconds of the data in a second, cut into steps of ``STEP_S``."""
    began = time.monotonic()
    first: int | None = None
    for block in blocks:
        if not pace or not block.t_ns.size:
            yield block
            continue
        first = int(block.t_ns[0]) if first is None else first
        step = (block.t_ns - first) // max(1, int(STEP_S * 1e9 * pace))
        edges = [0, *(np.flatnonzero(np.diff(step)) + 1).tolist(), block.t_ns.size]
        for a, b in pairwise(edges):
            due = began + (int(block.t_ns[a]) - first) / 1e9 / pace
            while (left := due - time.monotonic()) > 0 and not stopped():
                time.sleep(min(left, STEP_S))
            yield block.part(a, b)
