"""What every speaker has: ids, random hex, the forms of replies that most pools use."""

import json
import random
from typing import Any

ACCEPTED, REJECTED, STALE = "accepted", "rejected", "stale"
C, S = "c", "s"
Said = list[tuple[str, Any]]
ONE = 1 << 256


class Speaker:
    """One dialect.  ``hashes`` is about what a share is worth, ``in_job`` whether a job tells its own worth,
    ``in_reply`` whether what accepts a share tells it,
    ``dialect`` and ``algorithm`` what is to be found out; ``late_algorithm`` what can be found out by who
    joins in the middle.  ``blanks``: JSON as Python writes it, else without blanks.  ``in_lines``: each
    message is a line as it is, not a body of HTTP, a frame or packed.
    """

    name = ""
    dialect = ""
    algorithm: str | None = ""
    hashes = 4e9
    in_job = False
    in_reply = False
    tells_next = False  # an accepted share's reply tells what the next is worth
    blanks = False
    in_lines = True
    fates = (ACCEPTED, REJECTED, STALE)
    silent = False  # a late share is refused without a reason: who does not know the dialect yet cannot tell

    def __init__(self) -> None:
        self.random = random.Random(self.name or self.dialect)
        self.ids = 100

    @property
    def late_algorithm(self) -> str | None:
        return self.algorithm

    @property
    def late_dialect(self) -> str:
        return self.dialect

    def hex(self, digits: int) -> str:
        """So many random hex digits."""
        return f"{self.random.getrandbits(4 * digits):0{digits}x}" if digits else ""

    def next_id(self) -> int:
        """An id that was not used yet."""
        self.ids += 1
        return self.ids

    def dump(self, message: Any) -> bytes:
        """The line on the wire."""
        if type(message) is bytes:
            return message + b"\n"
        return json.dumps(message, separators=None if self.blanks else (",", ":")).encode() + b"\n"

    def messages(self, said: bytes) -> int:
        """How many messages of the dialect what one side says at once holds: none where it is of what carries
        them, or of no meaning to mining."""
        return 1 if said else 0

    # -- a dialect's own ---------------------------------------------------------------------------

    def open(self) -> Said:
        """Everything until the first job."""
        raise NotImplementedError

    def job(self, number: int, hashes: float, changed: bool) -> tuple[Said, float]:
        """The lines that hand out job ``number``, and what a share of it is worth exactly; ``changed`` when
        the worth is another than that of the job before."""
        raise NotImplementedError

    def share(self, number: int) -> Any:
        """A share of job ``number``."""
        raise NotImplementedError

    def close(self) -> Said:
        """What is said a while after the last share."""
        return []

    def bad(self, number: int) -> Any:
        """A share that does not count."""
        return self.share(number)

    def reply(self, request: Any, fate: str) -> Any:
        """The pool's reply."""
        return {"id": request["id"], **self.verdict(fate)}

    def verdict(self, fate: str) -> dict[str, Any]:
        """As node-stratum-pool says it."""
        if fate == ACCEPTED:
            return {"result": True, "error": None}
        code = [21, "job not found", None] if fate == STALE else [23, "low difficulty share", None]
        return {"result": None, "error": code}


def be(target: int, digits: int = 64) -> str:
    """A target, most significant digit first."""
    return f"{target:0{digits}x}"
