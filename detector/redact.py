"""Worker names and wallets as people may see them: as they are, or as a keyed hash that keeps the link."""

import hashlib
import re
from collections.abc import Iterable
from typing import Final, Protocol

from detector.observers.words import clean

# What a pool says when it refuses may quote part of a name: it is withheld whole.
_QUOTED = re.compile(r"(refused the login of (?:redacted:[0-9a-f]{16}|[^:]*)): .*", re.DOTALL)


class Names(Protocol):
    """How names that people chose are told."""

    def name(self, name: str) -> str:
        """One name."""

    def text(self, text: str, known: Iterable[str]) -> str:
        """A sentence in which the ``known`` names may stand."""


class Plain:
    """Names as they are on the wire."""

    def name(self, name: str) -> str:
        """The same."""
        return name

    def text(self, text: str, known: Iterable[str]) -> str:
        """The same."""
        return text


PLAIN: Final = Plain()


class Redactor:
    """One name, the same 16 digits under one key, and no way back without it (BLAKE2b, RFC 7693)."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=64).digest()

    def name(self, name: str) -> str:
        """A keyed hash of the name, marked as one."""
        return "redacted:" + hashlib.blake2b(name.encode(), key=self._key, digest_size=8).hexdigest()

    def text(self, text: str, known: Iterable[str]) -> str:
        """The sentence with every known name hashed, whole or cut as sentences cut it.

        One pass, the longest first, and whole words only: a worker called 1 changes no address.
        """
        shown = {form: name for name in known for form in (name, clean(name)) if form}
        if shown:
            longest_first = sorted(shown, key=lambda form: (-len(form), form))
            either = "|".join(re.escape(form) for form in longest_first)
            text = re.sub(
                rf"(?<![\w.:-])(?:{either})(?![\w.:-]*\w)", lambda found: self.name(shown[found[0]]), text
            )
        return _QUOTED.sub(r"\1 (its words are withheld)", text)
