"""Stratum V2 inside of Noise, from sv2-spec 04-Protocol-Security.md: no code shared with the recogniser.

Nothing is encrypted here: keys in ElligatorSwift, ciphertexts and tags are random octets to who looks on, so
random octets of the right number are as good.
"""

import math

from speakers import stratum2
from speakers.speaking import C, S

MAC = 16
MOST = 65535 - MAC
"""Of plain octets in one block."""
KEY, SIGNATURE = 64, 74
"""An ElligatorSwift key; version, times and signature of the server's certificate."""


class Encrypted:
    """A speaker of Stratum V2, what it says encrypted: ephemeral key out; ephemeral key, static key and
    certificate with their tags back; then header and payload of each message with tags of their own."""

    dialect, algorithm = "sv2", "sha256d"

    def __init__(self, inner, name):
        self.inner, self.name = inner(), name
        self.hashes, self.in_job = self.inner.hashes, self.inner.in_job
        self.in_reply, self.fates = self.inner.in_reply, self.inner.fates
        self.job, self.share, self.bad, self.reply = (
            self.inner.job, self.inner.share, self.inner.bad, self.inner.reply,
        )  # fmt: skip

    def open(self):
        acts = [(C, KEY), (S, KEY + KEY + MAC + SIGNATURE + MAC)]
        return acts + self.inner.open()

    def dump(self, message):
        if type(message) is int:
            return self.inner.random.randbytes(message)
        size = len(message) - 6
        return self.inner.random.randbytes(6 + MAC + size + MAC * math.ceil(size / MOST))


class Standard(Encrypted):
    """A mining device."""

    name = "sv2 (standard)"

    def __init__(self):
        super().__init__(stratum2.Standard, self.name)


class Extended(Encrypted):
    """A proxy."""

    name = "sv2 (extended)"

    def __init__(self):
        super().__init__(stratum2.Extended, self.name)


SPEAKERS = (Standard, Extended)
