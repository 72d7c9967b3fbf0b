"""Flow rows of a tap in, evidence of encrypted Stratum V2 out: by the sizes of the first payloads.

``noise_session``: the sizes are those of its handshake, setup and opening of a channel (``dialects.noise``).
``noise_shares``: and then the client sends records that all are of the size of a share; how many is told as
the evidence's count, by the octets of the record.  What a share is worth is encrypted: there is no hash rate.
Sizes can be imitated and can come by chance, so neither confirms by itself.
"""

from functools import cache
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np

from collectors import wire
from detector.clock import MINUTE_NS, SECOND_NS
from detector.dialects import noise
from detector.dialects.noise import Found
from detector.evidence import Connection, Evidence, Seen, SessionFacts
from detector.observers import words
from detector.sightings import Recent
from detector.tracks import TCP, Ends

DIALECT: Final = "sv2"
_CELLS: Final = ("src_port", "dst_port", "t_first", "t_last", "initiator", "t_open", "copy")
_SESSION: Final = (
    "payload sizes of {} and {} are those of handshake, setup and opening of a channel "
    "of encrypted Stratum V2 ({}); what they say is not seen"
)
_SHARES: Final = (
    "{} sent {} records of {} octets, a share's size, in {} s inside of encrypted Stratum V2; "
    "what one is worth is not seen, so there is no hash rate"
)
_NULLABLE: Final = ("initiator", "t_open", "payload_bytes", "reverse_payload_bytes")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``shares``: so many records of the size of a share, among the first eight payloads, are shares."""

    shares: Annotated[int, msgspec.Meta(ge=1, le=8)] = 3


class Stats(msgspec.Struct):
    """What moved, for the shell to read."""

    found: int = 0


class Handshake(NamedTuple):
    """A row of a batch that is such a connection.  ``client`` and ``server`` are (address, port); ``octets``
    what the client sent in this record, ``opening`` whether the record holds the connection's beginning."""

    row: int
    subscriber: bytes
    copy: bool
    client: tuple[bytes, int]
    server: tuple[bytes, int]
    first_ns: int
    last_ns: int
    found: Found
    octets: int | None
    opening: bool

    @property
    def ends(self) -> Ends:
        """As ``words`` wants them."""
        low, high = sorted((self.client, self.server))
        return low, high, TCP, int(self.copy)

    @property
    def connection(self) -> Connection:
        """As evidence names it."""
        low, high, protocol, _ = self.ends
        return Connection(low, high, protocol)

    @property
    def role(self) -> str:
        """The subscriber's."""
        return words.role(self.subscriber, self.ends, int(self.ends[0] != self.client))


class NoiseObserver:
    """Sees encrypted Stratum V2 in flow rows.  ``find`` and ``step`` are its verbs."""

    def __init__(self, told: Recent, config: Config | None = None) -> None:
        """``told`` keeps what was said already; it may be another observer's."""
        self.config = config or Config()
        self.stats = Stats()
        self._told = told

    def find(self, rows: wire.Batch) -> list[Handshake]:
        """The rows of one ``flows`` batch that are such connections."""
        if not rows.num_rows or rows.column("first_sizes").null_count == rows.num_rows:
            return []
        sizes = (wire.lists(rows, "first_sizes"), wire.lists(rows, "reverse_first_sizes"))
        begins = [_begins(offsets, values) for offsets, values in sizes]
        wanted = begins[0] & begins[1] & (wire.values(rows, "protocol") == TCP)
        out = []
        for row in np.flatnonzero(wanted).tolist():
            each = [values[offsets[row] : offsets[row + 1]].tolist() for offsets, values in sizes]
            found = _handshake(rows, row, each)
            if found is not None:
                out.append(found)
        self.stats.found += len(out)
        return out

    def step(self, found: list[Handshake]) -> Seen:
        """Evidence and facts of what ``find`` gave."""
        evidence = [e for one in found for e in self._say(one)]
        return Seen(tuple(evidence), sessions=tuple(map(_facts, found)))

    def _say(self, one: Handshake) -> list[Evidence]:
        era, connection = one.found.era, one.connection
        kind = "noise_session" if era.status == "sourced" else "unverified"
        said = [(kind, 1, _SESSION.format(words.end(one.client), words.end(one.server), era.id))]
        shares = self._shares(one)
        if shares:
            seconds = max(1, (one.last_ns - one.first_ns) // SECOND_NS)
            why = _SHARES.format(words.end(one.client), shares, one.found.share, seconds)
            said.append(("noise_shares", shares, why))
        return [
            Evidence(
                subscriber=one.subscriber, kind=kind, rule=f"sv2 {era.id}", connection=connection,
                first_ns=one.first_ns, last_ns=one.last_ns, why=why, count=count, role=one.role,
            )
            for kind, count, why in said
            if self._told.is_new((one.subscriber, connection, kind, one.first_ns // MINUTE_NS))
        ]  # fmt: skip

    def _shares(self, one: Handshake) -> int:
        """How many shares the record holds: by its octets where they are told, else among the first sizes."""
        found = one.found
        if found.share is None or found.shares < self.config.shares:
            return 0
        if one.octets is None:
            return found.shares if one.opening else 0
        return max(0, one.octets - (found.spent if one.opening else 0)) // found.share


@cache
def _openings() -> np.ndarray:
    """(65536,) bool: the sizes with which either side of a handshake begins."""
    out = np.zeros(1 << 16, bool)
    out[[size for both in noise.openings() for size in both]] = True
    return out


def _begins(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) whether the first value of each row is one of those sizes."""
    if not len(values):
        return np.zeros(len(offsets) - 1, bool)
    at = np.minimum(offsets[:-1], len(values) - 1)
    found: np.ndarray = _openings()[values[at]] & (offsets[1:] > offsets[:-1])
    return found


def _handshake(rows: wire.Batch, row: int, sizes: list[list[int]]) -> Handshake | None:
    """The connection of a row, whichever end opened it; of an opener that is not known either may have."""
    cell: dict[str, Any] = {name: rows.column(name)[row].as_py() for name in {*_CELLS, *_NULLABLE}}
    ways = {1: (0,), 2: (1,)}.get(cell["initiator"] or 0, (0, 1))
    for way in ways:
        found = noise.recognise(sizes[way], sizes[1 - way])
        if found is not None:
            break
    else:
        return None
    subscriber, src, dst = (wire.values(rows, name)[row].tobytes() for name in ("subscriber", "src", "dst"))
    ends = [(src, cell["src_port"]), (dst, cell["dst_port"])]
    return Handshake(
        row=row, subscriber=subscriber, copy=bool(cell["copy"]), client=ends[way], server=ends[1 - way],
        first_ns=cell["t_first"], last_ns=max(cell["t_first"], cell["t_last"]), found=found,
        octets=cell["reverse_payload_bytes" if way else "payload_bytes"],
        opening=cell["t_open"] is None or cell["t_open"] == cell["t_first"],
    )  # fmt: skip


def _facts(one: Handshake) -> SessionFacts:
    """The session, as far as sizes tell: shares are not counted, for whether one was accepted is not seen."""
    return SessionFacts(
        subscriber=one.subscriber, connection=one.connection, copy=one.copy, client=one.client,
        server=one.server, dialect=DIALECT, algorithm="sha256d", role=one.role, first_ns=one.first_ns,
        last_ns=one.last_ns,
    )  # fmt: skip
