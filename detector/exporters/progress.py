"""A progress bar on a terminal, for work that takes longer than a second."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PATIENCE_S = 1.0


class Progress:
    """Silent where standard error is no terminal; otherwise a bar over the bytes of all files."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._sizes = {p: Path(p).stat().st_size if Path(p).is_file() else 0 for p in paths}
        self._order = list(paths)
        self._bar: Bar | None = None
        self._began = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, path: str) -> Callable[[int], None]:
        """What to call with the bytes of ``path`` that were read."""
        before = sum(self._sizes[p] for p in self._order[: self._order.index(path)])

        def moved(position: int) -> None:
            if self._bar is None:
                if not sys.stderr.isatty() or time.monotonic() - self._began < PATIENCE_S:
                    return
                self._bar = _bar(sum(self._sizes.values()) or None)
            self._bar.update(self._bar.task_ids[0], completed=before + position)

        return moved


def _bar(total: int | None) -> "Bar":
    from rich.console import Console  # noqa: PLC0415  # most runs are shorter, or have no terminal
    from rich.progress import Progress as Bar  # noqa: PLC0415

    out = Bar(console=Console(stderr=True), transient=True)
    out.add_task("scanning", total=total)
    out.start()
    return out
