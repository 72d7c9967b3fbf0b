"""What tables for people are printed on."""

import sys

from rich.console import Console

# Where no terminal says how wide it is: nothing is folded in a file.
WIDTH = 200


class Paper(Console):
    """Standard output as it comes: no markup, for names are the wire's own."""

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else WIDTH
        super().__init__(width=width, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Who reads no further (``| head``) has had enough; that is no mistake.  Raises BrokenPipeError."""
        raise  # noqa: PLE0704 - called where it is being handled
