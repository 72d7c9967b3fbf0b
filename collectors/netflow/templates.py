"""Templates: sets that describe records in, layouts out; and the bounded table that keeps them.

A template belongs to an exporter's address, protocol version, observation domain and id.  The UDP port is
left out: options and data of one exporter come from different ports (cloudflare/goflow #87, nfdump #237).
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from collectors.errors import DecodeError, Reason

VARIABLE: Final = 65535
MIN_DATA_ID: Final = 256
# Set ids (RFC 3954 section 5.2 and 6.1; RFC 7011 section 3.3.2).
TEMPLATE_SETS: Final = {9: 0, 10: 2}
OPTIONS_SETS: Final = {9: 1, 10: 3}
# What a record may at most be made of: 16 bits of length hold no more useful fields than this.
MAX_FIELDS: Final = 2048


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
    fields = []
    for _ in range(count):
        field, at = _field(version, body, at, number)
        fields.append(field)
    made = Template(version, number, tuple(fields), options, scopes, body[start:at])
    return made, at


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
    """A template in the table: when it was last heard or used (ns), and whether data came for it."""

    template: Template
    t_ns: int
    used: bool


class Bounds(NamedTuple):
    """How many templates may be kept, in all and of one exporter, and how long without a word.

    Octets are those of definitions: read, one of 2,048 fields takes twenty times its 8 KiB.
    """

    most: int = 65536
    most_of_exporter: int = 1024
    age_ns: int = 24 * 3600 * 1_000_000_000
    most_octets: int = 16 << 20
    most_octets_of_exporter: int = 1 << 20


class Templates:
    """The bounded table.  Who must go when it is full: the longest silent of those that no data used."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._kept: dict[bytes, dict[Key, Kept]] = {}
        self._count = 0
        self._octets = 0
        self._octets_of: dict[bytes, int] = {}
        self._unused: Counter[bytes] = Counter()
        self.evicted = 0
        self.aged = 0

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
            self._unused[key.exporter] -= not kept.used
            self._kept[key.exporter][key] = Kept(kept.template, max(kept.t_ns, t_ns), True)

    def refresh(self, key: Key, told: Template, t_ns: int) -> bool:
        """Note that a template was heard again; False where it is not the one that is kept."""
        kept = self._kept.get(key.exporter, {}).get(key)
        if kept is None or kept.template != told:
            return False
        self._kept[key.exporter][key] = Kept(kept.template, t_ns, kept.used)
        return True

    def hear(self, key: Key, template: Template, t_ns: int) -> tuple[bool, list[Key]]:
        """Enter or refresh one.  (whether it is new or changed, the keys that had to go for it)."""
        mine = self._kept.setdefault(key.exporter, {})
        before = mine.get(key)
        same = before is not None and before.template == template
        gone: list[Key] = []
        if not same:
            if before is not None:
                self.forget(key)
            gone = self._room(key, len(template.raw))
            mine = self._kept.setdefault(key.exporter, {})
            self._count += 1
            self._weigh(key.exporter, len(template.raw))
            self._unused[key.exporter] += 1
        mine[key] = Kept(template, t_ns, before.used if before is not None and same else False)
        return not same, gone

    def _room(self, key: Key, octets: int) -> list[Key]:
        """Make room for a template of so many octets; the keys that had to go."""
        bounds = self._bounds
        gone: list[Key] = []
        while True:
            mine = self._kept.get(key.exporter, {})
            ours = self._octets_of.get(key.exporter, 0) + octets
            if mine and (len(mine) >= bounds.most_of_exporter or ours > bounds.most_octets_of_exporter):
                least = self._least(mine)
            elif self._kept and (self._count >= bounds.most or self._octets + octets > bounds.most_octets):
                least = self._least_of_all()
            else:
                return gone
            for victim in least:
                self.forget(victim)
                self.evicted += 1
            gone += least

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

    def _least_of_all(self) -> list[Key]:
        """An eighth of all: those that no data used, of exporters that have most of them, so that a flood
        pays for itself; where data used all, those of exporters that have most."""
        found = [key for key, kept in self if not kept.used]
        share = self._unused.__getitem__
        if not found:
            found = [key for key, _ in self]
            share = lambda exporter: len(self._kept[exporter])  # noqa: E731
        found.sort(key=lambda k: (-share(k.exporter), self._kept[k.exporter][k].t_ns))
        return found[: max(1, self._count // 8)]

    @staticmethod
    def _least(kept: dict[Key, Kept]) -> list[Key]:
        """An eighth at once: to look for one among thousands at each new one would be a way to stop us."""
        order = sorted(kept, key=lambda k: (kept[k].used, kept[k].t_ns))
        return order[: max(1, len(order) // 8)]

    def forget(self, key: Key) -> bool:
        """Remove one; False where it was not known."""
        mine = self._kept.get(key.exporter, {})
        kept = mine.pop(key, None)
        if kept is None:
            return False
        self._count -= 1
        self._weigh(key.exporter, -len(kept.template.raw))
        self._unused[key.exporter] -= not kept.used
        if not mine:
            del self._kept[key.exporter]
            del self._unused[key.exporter]
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
