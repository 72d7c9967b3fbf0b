"""What the client library logs, told in our log, and seldom enough."""

import logging
import time
from typing import Final

SELDOM_S: Final = 10.0


class Complaints(logging.Handler):
    """What the client library logs, passed on: each kind of line at most once in ``SELDOM_S``.

    While we connect, nothing is: the exception says it all, with the cause that only the log tells.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.connecting = False
        self.cause = ""
        self._told: dict[str, float] = {}

    def begin(self) -> None:
        """We connect."""
        log = logging.getLogger("kafka")
        if self not in log.handlers:
            log.addHandler(self)
            log.propagate = False
            # A compiled pass holds the interpreter for a tenth of a second: no news.
            logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
        self.connecting, self.cause = True, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line."""
        kind = str(record.msg)
        if kind.startswith("Bootstrap connection") and isinstance(record.args, tuple):
            self.cause = str(record.args[1])
        now = time.monotonic()
        if self.connecting or now - self._told.get(kind, -SELDOM_S) < SELDOM_S or len(self._told) > 1000:
            return
        self._told[kind] = now
        logging.getLogger("poolwatch").log(record.levelno, "kafka client: %s", record.getMessage()[:300])
