"""Compiled kernels: the only importer of numba, and the place of its cache.

The cache is kept in ``$POOLWATCH_CACHE_DIR``, else ``$XDG_CACHE_HOME/poolwatch``, else
``~/.cache/poolwatch``.  Where that cannot be written (a read-only installation) what it holds is copied
to a private temporary folder and used from there.  Several processes that fill numba's cache at once can
crash (numba #4807, #10128), so it is filled under a file lock, once, by ``warm``.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numba
import numba.extending

# For the few places that write LLVM themselves.
intrinsic: Any = numba.extending.intrinsic
types = numba.types

_STATE: dict[str, Path] = {}


def _wanted() -> Path:
    given = os.environ.get("POOLWATCH_CACHE_DIR")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "poolwatch"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_dir() -> Path:
    """Where compiled kernels are kept.  Decided once per process."""
    if "dir" not in _STATE:
        wanted = _wanted()
        if not _writable(wanted):
            private = Path(tempfile.gettempdir()) / f"poolwatch-{os.getuid()}"
            private.mkdir(mode=0o700, exist_ok=True)
            if private.stat().st_uid != os.getuid():
                private = Path(tempfile.mkdtemp(prefix="poolwatch-"))
            if wanted.is_dir():
                shutil.copytree(wanted, private, dirs_exist_ok=True)
            wanted = private
        _STATE["dir"] = wanted
    return _STATE["dir"]


numba.config.CACHE_DIR = str(cache_dir() / f"numba-{numba.__version__}-py{sys.hexversion >> 16:x}")  # type: ignore[attr-defined]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first use, keep in the cache, run without the GIL.  No fastmath: it changes answers."""
    return numba.njit(cache=True, nogil=True)(function)


def inline(function: Callable[..., Any]) -> Any:
    """A small function that kernels call; kept with them."""
    return numba.njit(cache=True, nogil=True, inline="never")(function)


def bare(function: Callable[..., Any]) -> Any:
    """As ``kernel``, without reference counts: for what allocates nothing and returns no array.

    An atomic count up and down at every touch of an array made the packet pass three times slower.
    """
    options: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
    return numba.njit(**options)(function)


def _stamp() -> str:
    """What compiled code depends on: numba, Python, and the sources of the two packages."""
    root = Path(__file__).parent
    newest = max(p.stat().st_mtime_ns for p in root.rglob("*.py"))
    return f"{numba.__version__} {sys.hexversion} {newest}"


def warm(calls: Iterable[Callable[[], object]], say: Callable[[str], None]) -> None:
    """Compile or load every kernel, one process at a time; ``say`` is told when it will take long."""
    folder = cache_dir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:12]
        stamp = folder / f"compiled-{place}"
        fresh = stamp.is_file() and stamp.read_text() == _stamp()
        if not fresh:
            say(f"compiling kernels into {folder} (once, about half a minute)")
        for call in calls:
            call()
        if not fresh:
            stamp.write_text(_stamp())
