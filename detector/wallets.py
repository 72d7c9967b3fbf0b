"""Wallet addresses: text in, whose coins they may be, and how surely, out.  Pure; ``tables/wallets.toml``.

An address says where the money goes, not what is mined: pools that exchange pay in any coin.
"""

import re
from functools import cache, lru_cache
from typing import Annotated, Final, Literal

import msgspec

from detector import checksums, tables

MOST_TEXT: Final = 512
# Ends of an address in a login: worker, payment id, difficulty, reference (reference section 7).
_ENDS: Final = re.compile(r"[./+#~,;]")
# unMineable and others: the coin that is to be paid, a colon, its address.
_PAID: Final = re.compile(r"([A-Z][A-Z0-9]{1,9}):(.+)", re.DOTALL)

# What anybody calls itself, its digits left out: it links nobody.
_PLACEHOLDERS: Final = {
    "worker", "worker#", "miner", "miner#", "user", "user#", "username", "test", "test#", "default", "admin",
    "root", "rig#", "guest", "none", "anonymous", "anon", "null", "pass", "password", "login", "wallet",
    "account", "solo", "donate", "nobody", "xmrig", "asic",
}  # fmt: skip
_DIGITS: Final = re.compile(r"[0-9]+")
LEAST_PATTERN: Final = 4


class Format(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One form of address.  ``coins`` are all that use it; what the checksum covers begins with one of
    ``begins`` (hex) where there are any, and has ``size`` octets where it is given.

    ``status`` ok: an address that was published elsewhere verifies (it is in ``hits``), so that one that
    fails is none.  UNVERIFIED: from memory, so that one that fails may still be a wallet.
    """

    id: str
    coins: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    pattern: str
    checksum: str = ""
    begins: tuple[str, ...] = ()
    size: int | None = None
    assume: str = ""
    status: Literal["ok", "UNVERIFIED"]
    source: str
    hits: tuple[str, ...] = ()
    misses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.checksum and self.checksum not in checksums.KINDS:
            raise ValueError(f"{self.checksum!r} is no checksum")
        re.compile(self.pattern)
        for begin in self.begins:
            bytes.fromhex(begin)

    def verifies(self, text: str) -> bool:
        """Whether the checksum of a text of this form holds, and what it covers is of this form."""
        whole = text if ":" in text or not self.assume else f"{self.assume}:{text}"
        held = checksums.holds(self.checksum, whole)
        if held is None or (self.size is not None and len(held) != self.size):
            return False
        return not self.begins or any(held.startswith(bytes.fromhex(b)) for b in self.begins)


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """What an address may be: the ``coins`` of its forms, sorted, and whether its checksum was verified;
    where not, its form is all there is.  ``paid`` where the login names the coin that is to be paid: such a
    pool exchanges.  ``text`` is the address alone."""

    text: str
    coins: tuple[str, ...]
    verified: bool
    forms: tuple[str, ...]
    paid: str | None = None


@cache
def load() -> dict[str, Format]:
    """All forms by id."""
    return {f.id: f for f in tables.rows("wallets", "wallet", Format)}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Format], ...]:
    return tuple((re.compile(f.pattern), f) for f in load().values())


@lru_cache(1 << 15)
def read(text: str) -> Wallet | None:
    """The wallet that a login names, with or without a worker behind it; None where it is none."""
    if len(text) > MOST_TEXT:
        return None
    address = _ENDS.split(text, maxsplit=1)[0]
    # Conflux writes its type with a point within the address.
    for candidate in (address, text) if text.lower().startswith(("cfx:", "net")) else (address,):
        found = _read(candidate)
        if found is not None:
            return found
    paid = _PAID.fullmatch(address)
    found = _read(paid[2]) if paid else None
    return None if paid is None or found is None else msgspec.structs.replace(found, paid=paid[1])


def _read(text: str) -> Wallet | None:
    fits = [form for pattern, form in _patterns() if pattern.fullmatch(text)]
    good = [form for form in fits if form.checksum and form.verifies(text)]
    may_be = good or [form for form in fits if not form.checksum or form.status == "UNVERIFIED"]
    if not may_be:
        return None
    return Wallet(
        text=text,
        coins=tuple(sorted({coin for form in may_be for coin in form.coins})),
        verified=bool(good),
        forms=tuple(form.id for form in may_be),
    )


def pattern(account: str) -> str:
    """An account that is no address, each run of digits as ``#``: botnets number their miners.  "" for what
    anybody calls itself."""
    made = _DIGITS.sub("#", account.strip().lower())[:MOST_TEXT]
    return "" if len(made) < LEAST_PATTERN or made in _PLACEHOLDERS else made
