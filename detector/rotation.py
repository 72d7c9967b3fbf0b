"""A folder into which somebody rotates captures (tcpdump -G or -C, dumpcap -b), followed as it is written.

Files come in the order of their last change, which is that of their packets, as one writes them after the
other.  The newest is read as it grows, until there is a newer one or it is deleted.  What is deleted before
its turn is not missed; what is deleted, renamed or compressed after it, or while it is read, does no harm.
One that is written anew under its old name (tcpdump -W) is another file.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

from detector.errors import ConfigError, InputError

# tcpdump -C puts its numbers behind the suffix.
NAMES: Final = re.compile(r"\.(pcap|pcapng|cap|dmp)\d*(\.gz)?$")
LOOK_S: Final = 0.25
# Files that were read: what is remembered of them.
MOST_READ: Final = 10_000
# How often it is remembered how far a file was read.
KEEP_S: Final = 1.0


class Half(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that was being read: its name, the stamp of its first frame, by which it is told from another of
    that name, and how many of its frames were taken."""

    name: str = ""
    first_ns: int = 0
    frames: int = 0


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a folder was read: when the last file that was read to its end was changed, the names of those
    of that time, and of the one that was not how far."""

    changed_ns: int = 0
    names: tuple[str, ...] = ()
    half: Half = Half()


class Found(NamedTuple):
    """A file of the folder."""

    changed_ns: int
    order: tuple[int, str]
    name: str
    inode: int
    size: int


def mark_of(path: str) -> Mark:
    """What is remembered there; of nothing, the beginning.  Raises ConfigError."""
    if not path:
        return Mark()
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Mark)
    except FileNotFoundError:
        return Mark()
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"collectors.capture.follow_state: {path}: {error}") from None


class Growing:
    """The file that is being read: ``read`` waits at its end, until ``over`` says that no more will come."""

    def __init__(self, file: IO[bytes], over: Callable[[], bool], wait: Callable[[], None]) -> None:
        self._file = file
        self._over = over
        self._wait = wait
        self.ended = False
        self.overwritten = False

    def read(self, n: int) -> bytes:
        """Up to ``n`` octets, as soon as there are any; none at the end."""
        while True:
            piece = self._file.read(n)
            if piece or self.ended:
                return piece
            if os.fstat(self._file.fileno()).st_size < self._file.tell():
                self.overwritten = self.ended = True
                return b""
            # What was written before it was over is still to be read.
            self.ended = self._over()
            if not self.ended:
                self._wait()

    def ready(self) -> bool:
        """Whether there is more now."""
        return self._file.tell() < os.fstat(self._file.fileno()).st_size


class Rotation:
    """``files`` gives the captures of a folder for as long as it is not ``stopped``.

    ``idle`` is called while there is nothing to read.  ``state`` is the file that remembers over a restart
    which were read to their end, and how many frames of the one that was being read its reader ``took``.
    Frames and not octets: one number for any format, compressed or not.
    """

    def __init__(
        self, folder: str, state: str, stopped: Callable[[], bool], idle: Callable[[], None]
    ) -> None:
        """Raises InputError where there is no such folder, ConfigError where the state is of something
        else."""
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: no folder that could be followed")
        self._folder = folder
        self._state = state
        self._stopped = stopped
        self._idle = idle
        self._mark = mark_of(state)
        # By name, and what a renamed one is known by.
        self._read: dict[str, Found] = {}
        self._seen: set[tuple[int, int, int]] = set()
        self._opened: tuple[IO[bytes], Found] | None = None
        self._look_at = 0.0
        self._half = Half()
        self._keep_at = 0.0

    def files(self) -> Iterator[tuple[str, Growing, IO[bytes]]]:
        """Path, what is read of it, and the file itself; each is closed when the next is asked for."""
        while not self._stopped():
            found = self._next()
            if found is None:
                self._wait()
                continue
            path = str(Path(self._folder, found.name))
            try:
                file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed below
            except OSError:
                self._remember(found)  # deleted, or not ours to read: others come
                continue
            with file:
                self._opened, self._look_at = (file, found), 0.0
                growing = Growing(file, self._over, self._wait)
                yield path, growing, file
                # One that could not be read to its end may grow all the same.
                while not growing.ended and not self._over():
                    self._wait()
                if not self._stopped() and not growing.overwritten:
                    self._done(file, found)
                self._opened = None

    def begins(self, first_ns: int) -> int:
        """The file that was given last begins with a frame of that time: how many of its frames were taken
        before a restart."""
        name = self._opened[1].name.removesuffix(".gz") if self._opened else ""
        self._half = Half(name, first_ns)
        self._half = Half(name, first_ns, self._known())
        return self._half.frames

    def took(self, frames: int) -> None:
        """The reader took so many frames more of that file; remembered now and then."""
        self._half = msgspec.structs.replace(self._half, frames=self._half.frames + frames)
        if time.monotonic() >= self._keep_at:
            self.keep()

    def keep(self) -> None:
        """Remember how far the file was read that is being read."""
        self._keep_at = time.monotonic() + KEEP_S
        if self._half.frames and self._half.frames > self._known():
            self._mark = msgspec.structs.replace(self._mark, half=self._half)
            self._write()

    def _known(self) -> int:
        """How many frames of that file are remembered."""
        half = self._mark.half
        same = (half.name, half.first_ns) == (self._half.name, self._half.first_ns)
        return half.frames if same else 0

    def _wait(self) -> None:
        self._idle()
        time.sleep(LOOK_S)

    def _next(self) -> Found | None:
        """The oldest that is left to be read."""
        left = self._left()
        return left[0] if left else None

    def _over(self) -> bool:
        """Whether the file that is being read will not grow any more."""
        if self._stopped() or self._opened is None:
            return True
        file, found = self._opened
        if os.fstat(file.fileno()).st_nlink == 0:
            return True
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S
        changed = os.fstat(file.fileno()).st_mtime_ns
        return any(
            one.inode != found.inode and (one.changed_ns, one.order) > (changed, found.order)
            for one in self._left()
        )

    def _left(self) -> list[Found]:
        """What is there and was not read, in order."""
        out = []
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    # It may be gone by now.
                    with suppress(OSError):
                        if NAMES.search(entry.name) and entry.is_file():
                            told = entry.stat()
                            order = (len(entry.name), entry.name)
                            found = Found(told.st_mtime_ns, order, entry.name, told.st_ino, told.st_size)
                            if not self._was_read(found):
                                out.append(found)
        except OSError:  # the folder may come back
            return []
        return sorted(out)

    def _was_read(self, found: Found) -> bool:
        plain = found.name.removesuffix(".gz")
        before = self._read.get(plain)
        if (found.inode, found.size, found.changed_ns) in self._seen:
            return True
        if before is not None:
            compressed = found.name != plain and before.name == plain
            return compressed or found.changed_ns <= before.changed_ns
        at = self._mark.changed_ns
        return found.changed_ns < at or (found.changed_ns == at and plain in self._mark.names)

    def _done(self, file: IO[bytes], found: Found) -> None:
        """Remember that it was read to its end."""
        told = os.fstat(file.fileno())
        plain = found.name.removesuffix(".gz")
        self._remember(found._replace(changed_ns=told.st_mtime_ns, size=told.st_size))
        same = self._mark.names if self._mark.changed_ns == told.st_mtime_ns else ()
        half = Half() if self._mark.half.name == plain else self._mark.half
        self._mark, self._half = Mark(told.st_mtime_ns, (*same, plain)[-MOST_READ:], half), Half()
        self._write()

    def _write(self) -> None:
        if not self._state:
            return
        path = Path(self._state)
        fresh = path.with_name(path.name + ".new")
        try:
            fresh.write_bytes(msgspec.json.encode(self._mark))
            fresh.replace(path)
        except OSError as error:
            raise InputError(f"collectors.capture.follow_state: {error}") from None

    def _remember(self, found: Found) -> None:
        """It was read, or cannot be, as it is now."""
        plain = found.name.removesuffix(".gz")
        before = self._read.pop(plain, None)
        if before is not None:
            self._seen.discard((before.inode, before.size, before.changed_ns))
        self._read[plain] = found
        self._seen.add((found.inode, found.size, found.changed_ns))
        while len(self._read) > MOST_READ:
            old = self._read.pop(next(iter(self._read)))
            self._seen.discard((old.inode, old.size, old.changed_ns))
