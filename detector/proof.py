"""A share is proof: rebuild the block header, hash it, compare with the share's target.

A share that meets its target cannot be forged, and it decides the algorithm: a dialect that serves many
gives the same messages for all of them.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from detector import algorithms
from detector.checksums import sha256d
from detector.dialects.messages import Submit, Work, turned

DEFAULT_MASK: Final = 0x1FFFE000
"""Version bits that a miner may roll where no mask was seen (BIP 320)."""
BEYOND_CHANCE: Final = 1e6
"""The product of expected hashes of verified shares from which an algorithm is decided."""


def _scrypt(header: bytes) -> bytes:
    return hashlib.scrypt(header, salt=header, n=1024, r=1, p=1, dklen=32)


Log10 = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
HASHES: Final[dict[str, Callable[[bytes], bytes]]] = {"sha256d": sha256d, "scrypt": _scrypt}
"""Header to hash, by algorithm; each has a ``factor`` in algorithms.toml."""


def _version(work: Work, share: Submit) -> bytes:
    version = int(work.version, 16)
    if share.version:
        mask = DEFAULT_MASK if share.mask is None else share.mask
        version = (version & ~mask) | (int(share.version, 16) & mask)
    return version.to_bytes(4, "little")


def header(work: Work, share: Submit) -> bytes | None:
    """The 80 bytes that the miner hashed, None where a field is not hex (slush0's Stratum description)."""
    try:
        coinbase = bytes.fromhex(work.coinbase1 + work.extranonce1 + share.extranonce2 + work.coinbase2)
        root = sha256d(coinbase)
        for branch in work.branches:
            root = sha256d(root + bytes.fromhex(branch))
        built = (
            _version(work, share)
            + turned(bytes.fromhex(work.previous))
            + root
            + bytes.fromhex(share.ntime)[::-1]
            + bytes.fromhex(work.bits)[::-1]
            + bytes.fromhex(share.nonce)[::-1]
        )
    except ValueError:
        return None
    return built if len(built) == 80 else None


def sent_header(share: Submit) -> bytes | None:
    """The header that getwork hands in whole: each 4-byte word is reversed."""
    try:
        built = turned(bytes.fromhex(share.header))
    except ValueError:
        return None
    return built if len(built) == 80 else None


def verifies(algorithm: str, built: bytes, difficulty: float | None, hashes: float | None = None) -> bool:
    """Whether the header's hash, as a little-endian number, meets the share's target.

    The target is that of difficulty 1, 0xffff << 208, divided by ``difficulty``, and 65536 times that for
    scrypt: 2^32 / factor of the algorithm.  Where the job told the target, ``hashes`` is 2^256 over it.
    """
    if hashes is not None:
        target = 2**256 / hashes
    else:
        scale = 2**32 / (algorithms.factor(algorithm) or 2**32)
        target = (0xFFFF << 208) * scale / (difficulty or 1.0)
    return int.from_bytes(HASHES[algorithm](built), "little") <= target


class Proof(msgspec.Struct, array_like=True, gc=False):
    """What the checked shares of one session say.  ``log10`` holds, by algorithm, the logarithm of the
    product of expected hashes of the shares that verified; ``counts`` their number.
    """

    checked: int = 0
    decided: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(HASHES)})$")] | None = None
    log10: dict[str, Log10] = {}
    counts: dict[str, int] = {}
    first_ns: int = 0

    def wants(self, sample: int) -> bool:
        """Whether another share is to be checked; given up early where nothing ever verifies."""
        return self.checked < sample and (self.checked < 8 or bool(self.counts))

    def check(
        self,
        work: Work | None,
        share: Submit,
        difficulty: float | None,
        t_ns: int,
        hashes: float | None = None,
    ) -> str | None:
        """Check one share; the algorithm that it verifies for (the decided one only, once there is one).

        Without ``work`` the share holds its header; ``hashes`` is what a share of the job is worth, where
        the job tells, else ``difficulty`` does.
        """
        self.checked += 1
        built = sent_header(share) if work is None else header(work, share)
        if built is None:
            return None
        found = None
        for name in HASHES if self.decided is None else (self.decided,):
            if verifies(name, built, difficulty, hashes):
                found = name
                self.first_ns = self.first_ns or t_ns
                self.counts[name] = self.counts.get(name, 0) + 1
                worth = hashes or (difficulty or 0.0) * (algorithms.factor(name) or 1.0)
                gained = math.log10(max(1.0, worth))
                self.log10[name] = self.log10.get(name, 0.0) + gained
        if self.decided is None:
            self._decide()
            if self.decided is not None and verifies(self.decided, built, difficulty, hashes):
                return self.decided  # an easy share may do for another, too
        return found

    def _decide(self) -> None:
        sure = [name for name, sum10 in self.log10.items() if sum10 > math.log10(BEYOND_CHANCE)]
        if len(sure) == 1:
            self.decided = sure[0]

    @property
    def verified(self) -> int:
        """Shares that verified for the decided algorithm."""
        return 0 if self.decided is None else self.counts.get(self.decided, 0)
