"""A progress bar on a terminal, for work that takes longer than a second."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich import progress
from rich.console import Console

PATIENCE_S = 1.0


class Progress:
    """Silent where standard error is no terminal; otherwise a bar over the bytes of all files."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._sizes = {p: Path(p).stat().st_size if Path(p).is_file() else 0 for p in paths}
        self._order = list(paths)
        self._console = Console(stderr=True)
        self._bar: progress.Progress | None = None
        self._task = progress.TaskID(0)
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
                if not self._console.is_terminal or time.monotonic() - self._began < PATIENCE_S:
                    return
                self._bar = progress.Progress(console=self._console, transient=True)
                self._task = self._bar.add_task("scanning", total=sum(self._sizes.values()) or None)
                self._bar.start()
            self._bar.update(self._task, completed=before + position)

        return moved
