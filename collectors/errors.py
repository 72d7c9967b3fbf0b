"""The two families of error: the peer's mistake, which is counted, and the operator's, which stops us."""

from enum import StrEnum
from typing import final


class Reason(StrEnum):
    """One word per way an input can be unusable.  Also the value of the ``reason`` metric label."""

    SHORT = "short"
    VERSION = "version"
    FORMAT = "format"
    LENGTH = "length"
    LINK_TYPE = "link_type"
    INTERFACE = "interface"
    TRUNCATED = "truncated"
    NOT_IP = "not_ip"
    HEADER = "header"
    FRAGMENT = "fragment"
    TRANSPORT = "transport"
    NOT_HOME = "not_home"
    SCHEMA = "schema"
    CORRUPT = "corrupt"
    SIZE = "size"


@final
class DecodeError(ValueError):
    """A peer sent bytes we cannot read.  Never raised for our own mistakes."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@final
class ConfigError(ValueError):
    """The operator asked for something that cannot be.  Printed, and exit status 2."""


@final
class InputError(OSError):
    """An input that was named could not be opened or read at all.  Exit status 1."""
