"""The detector's words for what is wrong with an input, and the operator's error, shared with collectors."""

from collectors.errors import ConfigError, DecodeError, InputError, Reason

__all__ = ["ConfigError", "DecodeError", "InputError", "Reason"]
