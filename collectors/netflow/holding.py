"""Data sets that came before their template: held within bounds, given back when it comes."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from collectors.netflow.templates import Key

DROPS: Final = ("bytes", "age", "budget")


@dataclass(frozen=True, slots=True)
class Held:
    """One data set with its header, and the cursor of the walk that met it."""

    body: bytes
    cursor: np.ndarray
    t_ns: int


class Holding:
    """At most ``most_bytes`` in all and a quarter of it of one exporter; the oldest is dropped by age."""

    def __init__(self, most_bytes: int, age_ns: int) -> None:
        self._most_bytes = most_bytes
        self._age_ns = age_ns
        self._sets: dict[Key, deque[Held]] = {}
        self._bytes: dict[bytes, int] = {}
        self.bytes = 0
        self.drops = dict.fromkeys(DROPS, 0)

    def hold(self, key: Key, held: Held) -> bool:
        """Keep a set; False, and counted, where there is no room."""
        size = len(held.body) + held.cursor.nbytes
        mine = self._bytes.get(key.exporter, 0)
        if self.bytes + size > self._most_bytes or mine + size > self._most_bytes // 4:
            self.drops["bytes"] += 1
            return False
        self._sets.setdefault(key, deque()).append(held)
        self._count(key, size)
        return True

    def room(self, exporter: bytes) -> tuple[int, int]:
        """Octets that may still be held of one exporter, and of all."""
        return self._most_bytes // 4 - self._bytes.get(exporter, 0), self._most_bytes - self.bytes

    def _count(self, key: Key, size: int) -> None:
        self.bytes += size
        left = self._bytes.get(key.exporter, 0) + size
        if left:
            self._bytes[key.exporter] = left
        else:
            del self._bytes[key.exporter]

    @property
    def oldest_ns(self) -> int:
        """When the set came that has waited longest; 0 where none waits."""
        return min((sets[0].t_ns for sets in self._sets.values()), default=0)

    def take(self, key: Key) -> list[Held]:
        """What waits for this template, in the order that it came; it is held no longer."""
        sets = self._sets.pop(key, None)
        if not sets:
            return []
        self._count(key, -sum(len(h.body) + h.cursor.nbytes for h in sets))
        return list(sets)

    def age(self, now_ns: int) -> list[Key]:
        """Drop what has waited for too long; the key of each."""
        gone: list[Key] = []
        for key, sets in list(self._sets.items()):
            while sets and now_ns - sets[0].t_ns > self._age_ns:
                old = sets.popleft()
                self._count(key, -(len(old.body) + old.cursor.nbytes))
                self.drops["age"] += 1
                gone.append(key)
            if not sets:
                del self._sets[key]
        return gone
