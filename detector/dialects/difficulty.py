"""Targets and difficulties in, expected hashes per share out (reference section 2).

All give None for what cannot be meant: not positive, not finite, or beyond any network's difficulty.
"""

from typing import Final

MOST: Final = 1e30
"""No pool difficulty comes near; it keeps every sum of shares finite."""


def number(value: object) -> float | None:
    """A difficulty as sent by set_difficulty: a positive finite number below MOST."""
    if type(value) is not int and type(value) is not float:
        return None
    if not 0 < value < MOST:  # type: ignore[operator]  # false for NaN too
        return None
    got = float(value)  # type: ignore[arg-type]
    return got if got >= 1 / MOST else None


def boundary(text: object) -> float | None:
    """2^256 / b of a big-endian boundary in hex, leading zeros stripped or not, with or without 0x."""
    if type(text) is not str:
        return None
    digits = text.removeprefix("0x")
    if not 0 < len(digits) <= 64:
        return None
    try:
        value = int(digits, 16)
    except ValueError:
        return None
    return number(2**256 / value) if value > 0 else None


def target(value: object) -> float | None:
    """2^256 / t of a target sent as a number, which may have lost its last digits."""
    if type(value) is not int and type(value) is not float:
        return None
    if not 0 < value < 2**256:  # type: ignore[operator]  # false for NaN too
        return None
    return number(2**256 / value)  # type: ignore[operator]


def compact(bits: object) -> float | None:
    """2^256 / t of a target as Bitcoin's compact bits: 8 of exponent, 24 of mantissa."""
    if type(bits) is not int or not 0 <= bits < 33 << 24:
        return None
    return target((bits & 0xFFFFFF) * 2.0 ** (8 * ((bits >> 24) - 3)))


def cryptonote(text: object, *, big_endian: bool = False) -> float | None:
    """Difficulty of a CryptoNote target: 8 hex digits floor((2^32 - 1) / t), 16 digits 2^64 / t.

    Little-endian bytes; rx/yada alone writes a big-endian 64-bit number (xmrig Job.cpp).
    """
    if type(text) is not str or len(text) not in {8, 16}:
        return None
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return None
    value = int.from_bytes(raw, "big" if big_endian else "little")
    if len(raw) * 2 != len(text) or value == 0:
        return None
    if len(raw) == 8 or big_endian:
        return number(2**64 / value)
    return number((2**32 - 1) // value)


def boundary_decimal(text: object) -> float | None:
    """2^256 / b of a boundary written as a decimal number, as Ergo's pools do (reference 3.11)."""
    if type(text) is not str or not 0 < len(text) <= 78 or not (text.isascii() and text.isdigit()):
        return None
    value = int(text)
    return number(2**256 / value) if value > 0 else None


def product(value: float | None, factor: float | None) -> float | None:
    """``value`` times ``factor``, None where either is not known or the product cannot be meant."""
    return None if value is None or factor is None else number(value * factor)


def beam(packed: object) -> float | None:
    """Expected solutions of a share at Beam's packed difficulty: 24 bits of mantissa behind a leading one,
    8 bits of exponent (BeamMW core/difficulty.cpp)."""
    if type(packed) is not int or not 0 <= packed < 2**32:
        return None
    return number((2**24 + (packed & 0xFFFFFF)) * 2.0 ** ((packed >> 24) - 24))


GRAPHS: Final = 42.0
"""Graphs per 42-cycle: theory of Cuckoo cycles, not checked against a miner (reference 3.20)."""


def grin(told: object) -> float | None:
    """Expected graphs of a share: a share of difficulty d takes d cycles, a cycle 42 graphs."""
    return product(number(told), GRAPHS)


def autolykos(base: float | None, told: float | None) -> float | None:
    """Expected hashes of an Ergo share (errata A2).

    ``base`` is 2^256 / b of the job, ``told`` the set_difficulty in force.  It divides: a larger one is
    easier.  miningcore tells NiceHash's agents the scaled difficulty instead, where b is scaled already.
    """
    if base is None or told is None:
        return None
    if told == 1 or abs(told / base - 1) < 0.01:
        return base
    return number(base / told)


CHAINS: Final = 16.0
"""Chains of Alephium: a hash must also fall on the chain of its job (mining-pool jobManager.js)."""
ALEPHIUM: Final = 2.0**30
"""Hashes per unit of Alephium's set_difficulty, before CHAINS: its target of difficulty 1 is 2^226 - 1."""


def alephium(target: object, told: float | None) -> float | None:
    """Expected hashes of an Alephium share: by its target, leading zero bytes stripped or not (errata A5),
    else by the difficulty in force."""
    base = boundary(target) if target is not None else product(told, ALEPHIUM)
    return product(base, CHAINS)
