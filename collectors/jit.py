"""Compiled kernels: the only importer of numba, and the place of its cache.

The cache is kept in ``$POOLWATCH_CACHE_DIR``, else ``$XDG_CACHE_HOME/poolwatch``, else
``~/.cache/poolwatch``, in a folder per version of our sources: numba reads an index that other sources
wrote before it checks whether it is stale, and fails on a type that is no longer there.  Where it cannot be
written (a read-only installation) what it holds is copied to a private temporary folder and used from
there.  Several processes that fill numba's cache at once can crash (numba #4807, #10128), so whatever is
compiled or loaded is so under a file lock: by ``warm`` all at once, kernel by kernel where a command needs
only some.  Who waited for the lock finds compiled what the other needed too.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
import numba.core.caching
import numba.extending
import numba.np.linalg

# For the few places that write LLVM themselves.
intrinsic: Any = numba.extending.intrinsic
types = numba.types

_STATE: dict[str, Path] = {}
_SAY: list[Callable[[str], None]] = []
# Whoever holds it holds the file lock too: a thread may take it again, for kernels call each other.
_LOCK = threading.RLock()
_HELD = [0]
KEPT_VERSIONS = 4


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


def _version() -> str:
    """What compiled code depends on: numba, Python, where the sources are and what they say."""
    root = Path(__file__).resolve().parent
    digest = hashlib.sha256(f"{root} {numba.__version__} {sys.hexversion}".encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


VERSION = _version()
numba.config.CACHE_DIR = str(cache_dir() / VERSION)  # type: ignore[attr-defined]


@contextmanager
def _guarded(_cache: object) -> Iterator[None]:
    """Around numba's reading and writing of its cache: where privileges were given up since the start it may
    be out of reach.  What was not loaded until then is compiled in memory."""
    try:
        yield
    except PermissionError:
        return


numba.core.caching.Cache._guard_against_spurious_io_errors = _guarded  # type: ignore[assignment]


def _no_blas() -> None:
    raise ImportError("no kernel multiplies matrices")


# Before the first kernel numba looks for BLAS in scipy, and importing that takes 0.17 s.
numba.np.linalg.ensure_blas = _no_blas  # type: ignore[assignment]


def _short(kind: Any) -> tuple[str, tuple[Any, ...]]:
    """What stands for a named tuple in the names of compiled functions, as for a plain one: spelt out, every
    field of every record in it, names are of 20,000 letters and reading them takes a fifth of compiling."""
    return kind.instance_class.__name__, tuple(kind)


types.BaseNamedTuple.mangling_args = property(_short)  # type: ignore[assignment, method-assign]

# Nobody calls a kernel from C.
_BARE: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False, "no_cfunc_wrapper": True}


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the file lock: no other process compiles or loads meanwhile."""
    with _LOCK, ExitStack() as stack:
        if not _HELD[0]:
            # Out of reach where privileges were given up: then nothing is written to the cache either.
            with suppress(OSError):
                lock = stack.enter_context((cache_dir() / "lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
        _HELD[0] += 1
        try:
            yield
        finally:
            _HELD[0] -= 1


def _guard(made: Any) -> Any:
    """Have a kernel compiled, or loaded, by one process at a time."""
    if not hasattr(made, "compile"):  # numba is switched off
        return made
    compiled = made.compile

    def alone(signature: Any) -> Any:
        with _alone():
            if _SAY and not kept(made):
                _announce()
            return compiled(signature)

    made.compile = alone
    return made


def _announce() -> None:
    say = _SAY.pop()
    say(f"compiling kernels into {cache_dir()} (once, up to a minute)")


def announce(say: Callable[[str], None]) -> None:
    """Have ``say`` told, once, when a kernel must be compiled: for commands that do not ``warm`` them all."""
    _SAY[:] = [say]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first use, keep in the cache, run without the GIL.  No fastmath: it changes answers."""
    return _guard(numba.njit(cache=True, nogil=True)(function))


def inline(function: Callable[..., Any]) -> Any:
    """A small function that kernels call; kept with them."""
    return _guard(numba.njit(cache=True, nogil=True, inline="never")(function))


def bare(function: Callable[..., Any]) -> Any:
    """As ``kernel``, without reference counts: for what allocates nothing and returns no array.

    An atomic count up and down at every touch of an array made the packet pass three times slower.
    """
    return _guard(numba.njit(**_BARE)(function))


def within(function: Callable[..., Any]) -> Any:
    """As ``bare``, and made part of whoever calls it: a call hands over seven numbers for every array, so
    some hundreds for a tuple of arrays, which costs more than a small function does."""
    return _guard(numba.njit(**_BARE, forceinline=True)(function))


def kept(function: Any) -> bool:
    """Whether the cache has the kernel, so that its first call need not compile it."""
    name = f"{function.py_func.__module__.rpartition('.')[2]}.{function.py_func.__qualname__}-*.nbi"
    return any(Path(function.stats.cache_path).glob(name))


def warm(calls: Iterable[Callable[[], object]], say: Callable[[str], None], *, load: bool = True) -> None:
    """Compile or load every kernel, one process at a time; ``say`` is told when it will take long.

    Without ``load`` those that were compiled before are loaded when they are called: a short run needs few.
    """
    folder = cache_dir()
    mark = folder / VERSION / "compiled"
    if not load and mark.is_file():
        announce(say)  # somebody may have emptied the folder
        return
    with _alone():
        fresh = mark.is_file()
        if not fresh:
            say(f"compiling kernels into {folder} (once, about a minute)")
        for call in calls:
            call()
        if not fresh:
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
            _prune(folder)


def _prune(folder: Path) -> None:
    """Keep the newest few versions: an older one may still be running."""
    marks = sorted(folder.glob("*/compiled"), key=lambda m: m.stat().st_mtime, reverse=True)
    for mark in marks[KEPT_VERSIONS:]:
        shutil.rmtree(mark.parent, ignore_errors=True)
