"""Files of pools: the operator's own list beside the one that ships, and the import of a list into it."""

import csv
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from detector.errors import ConfigError
from detector.poolnames import COLUMNS, Pool
from detector.pools import Pools, read, shipped


class Imported(msgspec.Struct, frozen=True):
    """What an import did: rows read, rows new, and rows in the operator's file now."""

    read: int
    added: int
    total: int


def load(paths: Sequence[str | Path] = (), *, with_shipped: bool = True) -> Pools:
    """The operator's files, in order, over the shipped table.  Raises ConfigError with file and line."""
    rows: list[Pool] = []
    for path in paths:
        rows += read(_lines(Path(path)), str(path))
    return Pools([*rows, *(shipped() if with_shipped else ())])


def import_file(source: str | Path, target: str | Path) -> Imported:
    """Merge the rows of ``source`` into the operator's file ``target``, made where it is not there.

    The whole of ``source`` is checked first; ``target`` is replaced at once or not at all.  Raises
    ConfigError with file and line, and on a file that cannot be read or written.
    """
    target = Path(target)
    new = read(_lines(Path(source)), str(source))
    old = read(_lines(target), str(target)) if target.exists() else []
    rows = tuple(dict.fromkeys([*old, *new]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.line() for row in rows)
    try:
        _replace(target, out.getvalue())
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror or error}") from None
    return Imported(len(new), len(rows) - len(set(old)), len(rows))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None


def _replace(target: Path, text: str) -> None:
    """Write beside, flush to the disk, rename: a crash leaves the old file or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
