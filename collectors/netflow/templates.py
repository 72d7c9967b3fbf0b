"""Templates: sets that describe records in, layouts out; and the bounded table that keeps them.

A template belongs to an exporter's address, protocol version, observation domain and id.  The UDP port is
left out: options and data of one exporter come from different ports (cloudflare/goflow #87, nfdump #237).
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from collectors.errors import DecodeError, Reason

VARIABLE: Final = 65535
MIN_DATA_ID: Final = 256
# Set ids (RFC 3954 section 5.2 and 6.1; RFC 7011 section 3.3.2).
TEMPLATE_SETS: Final = {9: 0, 10: 2}
OPTIONS_SETS: Final = {9: 1, 10: 3}
# What a record may at most be made of: 16 bits of length hold no more useful fields than this.
MAX_FIELDS: Final = 2048
# What was used so lately does not give way to what is new, whoever sends it.
KEEP_NS: Final = 1800 * 1_000_000_000
# Where all were used lately, it is looked again after so long who may go.
_AGAIN_NS: Final = 1_000_000_000


class Field(NamedTuple):
    """One field of a record: element number, octets (VARIABLE: told in the record), enterprise (0: IANA)."""

    number: int
    width: int
    enterprise: int = 0


class Template(NamedTuple):
    """A record's layout.  The first ``scopes`` fields say what an options record speaks of.

    ``raw`` is its definition as it came, to tell a repeat from a change.
    """

    version: int
    id: int
    fields: tuple[Field, ...]
    options: bool = False
    scopes: int = 0
    raw: bytes = b""

    def __hash__(self) -> int:
        # Of thousands of fields each would be hashed, at every look-up.
        return hash((self.version, self.id, self.raw))

    @property
    def least(self) -> int:
        """Octets of the shortest record: a field of variable length takes one at least."""
        return sum(1 if f.width == VARIABLE else f.width for f in self.fields)


class Withdrawal(NamedTuple):
    """RFC 7011 section 8.1: ``id`` is withdrawn; 2 is every template, 3 every options template."""

    id: int


def read(version: int, set_id: int, body: bytes) -> Iterator[Template | Withdrawal]:
    """The definitions in the body of a template or options template set.

    Raises DecodeError(Reason.FORMAT) at the first that is cut short or cannot be; those before it stand.
    """
    options = set_id == OPTIONS_SETS[version]
    at = 0
    # What is too short for a definition, or begins with zeros, is padding.
    while at + 4 <= len(body) and body[at : at + 2] != b"\0\0":
        made, at = _one(version, options, body, at)
        yield made


def _one(version: int, options: bool, body: bytes, at: int) -> tuple[Template | Withdrawal, int]:
    start = at
    number, count = _u2(body, at), _u2(body, at + 2)
    at += 4
    scopes = 0
    if version == 10 and count == 0:
        if number < MIN_DATA_ID and number not in (2, 3):
            raise DecodeError(Reason.FORMAT, f"withdrawal of template {number}")
        return Withdrawal(number), at
    if number < MIN_DATA_ID:
        raise DecodeError(Reason.FORMAT, f"template id {number}")
    if options:
        if at + 2 > len(body):
            raise DecodeError(Reason.FORMAT, f"options template {number} is cut short")
        scopes, at = _u2(body, at), at + 2
        if version == 9:
            # There the two numbers are octets, of scope fields and of option fields.
            if count % 4 or scopes % 4:
                raise DecodeError(Reason.FORMAT, f"options template {number}: lengths {count}, {scopes}")
            count, scopes = (count + scopes) // 4, count // 4
    if count > MAX_FIELDS or scopes > count:
        raise DecodeError(Reason.FORMAT, f"template {number}: {count} fields, {scopes} of them scopes")
    fields, at = _fields(version, body, at, number, count)
    made = Template(version, number, fields, options, scopes, body[start:at])
    return made, at


def _fields(version: int, body: bytes, at: int, number: int, count: int) -> tuple[tuple[Field, ...], int]:
    end = at + 4 * count
    if end <= len(body):
        told = struct.unpack_from(f">{2 * count}H", body, at)
        # Without enterprise numbers, as most are, all fields are four octets.
        if version == 9 or max(told[::2], default=0) < 0x8000:
            return tuple(map(Field, told[::2], told[1::2])), end
    fields = []
    for _ in range(count):
        field, at = _field(version, body, at, number)
        fields.append(field)
    return tuple(fields), at


def _field(version: int, body: bytes, at: int, number: int) -> tuple[Field, int]:
    if at + 4 > len(body):
        raise DecodeError(Reason.FORMAT, f"template {number} is cut short")
    element, width = _u2(body, at), _u2(body, at + 2)
    at += 4
    if version == 10 and element & 0x8000:
        if at + 4 > len(body):
            raise DecodeError(Reason.FORMAT, f"template {number} is cut short")
        return Field(element & 0x7FFF, width, int.from_bytes(body[at : at + 4], "big")), at + 4
    return Field(element, width), at


def _u2(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 2], "big")


class Key(NamedTuple):
    """Whose template: ``exporter`` is 16 octets."""

    exporter: bytes
    version: int
    domain: int
    id: int


class Kept(NamedTuple):
    """A template in the table: when it was last heard or used (ns), and when data last came for it."""

    template: Template
    t_ns: int
    used_ns: int  # 0: none did

    @property
    def used(self) -> bool:
        """Whether data came for it."""
        return self.used_ns > 0


class Bounds(NamedTuple):
    """How many templates may be kept, in all and of one exporter, and how long without a word.

    Octets are those of definitions: read, one of 2,048 fields takes twenty times its 8 KiB.  One for which
    data came in the last ``keep_ns`` is never removed for another.
    """

    most: int = 65536
    most_of_exporter: int = 1024
    age_ns: int = 24 * 3600 * 1_000_000_000
    most_octets: int = 16 << 20
    most_octets_of_exporter: int = 1 << 20
    keep_ns: int = KEEP_NS


class Templates:
    """The bounded table.  Who must go when it is full: the longest silent of those that no data used lately;
    where data used all of them, the newcomer is refused."""

    def __init__(self, bounds: Bounds | None = None, touch: Callable[[], None] = lambda: None) -> None:
        """``touch`` is called before somebody must go: it notes which templates data used."""
        self._bounds = bounds or Bounds()
        self._touch = touch
        self._kept: dict[bytes, dict[Key, Kept]] = {}
        self._count = 0
        self._octets = 0
        self._octets_of: dict[bytes, int] = {}
        self._unused: Counter[bytes] = Counter()
        # When it was last found that nobody may go: of an exporter's, and (b"") of all.
        self._none_ns: dict[bytes, int] = {}
        self.evicted = 0
        self.aged = 0
        self.refused = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Key, Kept]]:
        for kept in self._kept.values():
            yield from kept.items()

    def find(self, key: Key) -> Template | None:
        """The template, if it is known."""
        kept = self._kept.get(key.exporter, {}).get(key)
        return kept.template if kept else None

    def touch(self, key: Key, t_ns: int) -> None:
        """Data used it."""
        kept = self._kept.get(key.exporter, {}).get(key)
        if kept:
            self._unused[key.exporter] -= not kept.used_ns
            used = max(kept.used_ns, t_ns, 1)
            self._kept[key.exporter][key] = Kept(kept.template, max(kept.t_ns, t_ns), used)

    def refresh(self, key: Key, told: Template, t_ns: int) -> bool:
        """Note that a template was heard again; False where it is not the one that is kept."""
        kept = self._kept.get(key.exporter, {}).get(key)
        if kept is None or kept.template != told:
            return False
        self._kept[key.exporter][key] = Kept(kept.template, t_ns, kept.used_ns)
        return True

    def hear(self, key: Key, template: Template, t_ns: int) -> tuple[bool, list[Key]]:
        """Enter or refresh one.  (whether it is new or changed, the keys that had to go for it); where it
        finds no room it is not entered, and what it would have replaced is gone."""
        if self.refresh(key, template, t_ns):
            return False, []
        changed = self.forget(key)
        gone = self._room(key, len(template.raw), t_ns)
        if self.is_full(key.exporter, len(template.raw)):
            self.refused += 1
            return False, [*gone, key] if changed else gone
        self._kept.setdefault(key.exporter, {})[key] = Kept(template, t_ns, 0)
        self._count += 1
        self._weigh(key.exporter, len(template.raw))
        self._unused[key.exporter] += 1
        return True, gone

    def _room(self, key: Key, octets: int, t_ns: int) -> list[Key]:
        """Make room for a template of so many octets, where there are others that may go: their keys."""
        bounds = self._bounds
        gone: list[Key] = []
        while True:
            mine = self._kept.get(key.exporter, {})
            ours = self._octets_of.get(key.exporter, 0) + octets
            if mine and (len(mine) >= bounds.most_of_exporter or ours > bounds.most_octets_of_exporter):
                least = self._least(key.exporter, t_ns, mine.items(), len(mine))
            elif self._kept and (self._count >= bounds.most or self._octets + octets > bounds.most_octets):
                least = self._least(b"", t_ns, self, self._count)
            else:
                return gone
            if not least:
                return gone
            for victim in least:
                self.forget(victim)
                self.evicted += 1
            gone += least

    def _least(self, whose: bytes, t_ns: int, these: Iterable[tuple[Key, Kept]], count: int) -> list[Key]:
        """An eighth at once of those that data did not use lately: to look for one among thousands at each
        new one would be a way to stop us.  First those that none used, of exporters that have most of them,
        so that a flood pays for itself."""
        if 0 <= t_ns - self._none_ns.get(whose, -_AGAIN_NS) < _AGAIN_NS:
            return []
        self._touch()
        old = t_ns - self._bounds.keep_ns
        found = [(k, kept) for k, kept in these if not kept.used_ns or kept.used_ns < old]
        if not found:
            self._none_ns[whose] = t_ns
        found.sort(key=lambda one: (one[1].used_ns > 0, -self._unused[one[0].exporter], one[1].t_ns))
        return [k for k, _ in found[: max(1, count // 8)]]

    def _weigh(self, exporter: bytes, octets: int) -> None:
        self._octets += octets
        left = self._octets_of.get(exporter, 0) + octets
        if left:
            self._octets_of[exporter] = left
        else:
            self._octets_of.pop(exporter, None)

    def is_full(self, exporter: bytes, octets: int) -> bool:
        """Whether a template of so many octets would make others go."""
        bounds = self._bounds
        return (
            self._count >= bounds.most
            or self._octets + octets > bounds.most_octets
            or len(self._kept.get(exporter, ())) >= bounds.most_of_exporter
            or self._octets_of.get(exporter, 0) + octets > bounds.most_octets_of_exporter
        )

    def forget(self, key: Key) -> bool:
        """Remove one; False where it was not known."""
        mine = self._kept.get(key.exporter, {})
        kept = mine.pop(key, None)
        if kept is None:
            return False
        self._count -= 1
        self._weigh(key.exporter, -len(kept.template.raw))
        self._unused[key.exporter] -= not kept.used_ns
        if not mine:
            del self._kept[key.exporter]
            del self._unused[key.exporter]
            self._none_ns.pop(key.exporter, None)
        return True

    def withdraw(self, exporter: bytes, domain: int, what: Withdrawal) -> list[Key]:
        """Apply an IPFIX withdrawal; the keys that are gone."""
        mine = self._kept.get(exporter, {})
        if what.id in (2, 3):
            ours = [k for k in mine if k.version == 10 and k.domain == domain]
            gone = [k for k in ours if mine[k].template.options == (what.id == 3)]
        else:
            one = Key(exporter, 10, domain, what.id)
            gone = [one] if one in mine else []
        for key in gone:
            self.forget(key)
        return gone

    def age(self, now_ns: int) -> list[Key]:
        """Forget what was neither heard nor used for too long; the keys that are gone."""
        gone = [k for k, kept in self if now_ns - kept.t_ns > self._bounds.age_ns]
        for key in gone:
            self.forget(key)
        self.aged += len(gone)
        return gone
