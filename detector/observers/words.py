"""How an observer says what it saw: ends, names, short sentences.  Text from the wire is cut, printable."""

from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from detector.tracks import Ends

MAX_NAME: Final = 80

_WHY: Final = {
    "mining_request": "asked {server} for mining",
    "job": "pool {server} sent {client} job {0}",
    "share": "{client} sent {server} a share",
    "mining_session": "pool {server} let {client} in and sent jobs",
    "share_accepted": "pool {server} accepted a share",
    "login_refused": "pool {server} refused the login of {0}: {1}",
    "unverified": "{client} and {server} speak as miner and pool, in a form that is not verified",
    "share_verified": "the proof of work of a share to {server} verifies as {1} at difficulty {2}",
}
_NAMED: Final = {"mining_request", "share", "mining_session", "share_accepted", "share_verified"}


def clean(text: str, most: int = MAX_NAME) -> str:
    """Printable, one line, at most ``most`` characters."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "�" for c in cut)


@lru_cache(maxsize=4096)
def end(given: tuple[bytes, int]) -> str:
    """An address and port, IPv4 where it is one."""
    address = IPv6Address(given[0])
    mapped = address.ipv4_mapped
    return f"{mapped}:{given[1]}" if mapped is not None else f"[{address}]:{given[1]}"


def ends(given: Ends, way: int) -> str:
    """Who sends to whom in direction ``way``."""
    return f"{end(given[:2][way])} to {end(given[:2][1 - way])}"


@lru_cache(maxsize=4096)
def why(
    kind: str, rule: str, dialect: str, given: Ends, client: int, details: tuple[str, ...], beyond: str = ""
) -> str:
    """One sentence for a first occurrence: the dialect, who, what; ``beyond`` whom a proxy was asked for."""
    parts = [clean(part) for part in details]
    said = _WHY[kind].format(*parts, "", "", client=end(given[:2][client]), server=end(given[:2][1 - client]))
    if kind == "mining_request":
        said = f"{end(given[:2][client])} {said} ({rule})"
        said += f", by way of a proxy to {clean(beyond)}" if beyond else ""
    if kind in _NAMED and parts[0]:
        said += f", {'as' if kind == 'mining_request' else 'of'} {parts[0]}"
    return f"{dialect}: {said}"


def role(subscriber: bytes, given: Ends, client: int) -> str:
    """The subscriber's role: ``miner`` where the client end is the subscriber's, else ``pool``.

    A subscriber may be a prefix: the end that shares more leading bits with it is its own.
    """
    own = int.from_bytes(subscriber, "big")
    near = int.from_bytes(given[:2][client][0], "big") ^ own
    far = int.from_bytes(given[:2][1 - client][0], "big") ^ own
    return "miner" if near <= far else "pool"
