"""From sFlow datagrams to batches of ``flows``: one row for each sampled packet.

An exporter is who sent the datagram, as with every other protocol, and not the agent address in it: that is
what a device says of itself, is 0.0.0.0, a loopback or the same on all devices of some sites, and no list of
exporters could hold anybody to it.  The agent address and sub-agent tell sequences apart, so that several
agents behind one address (NAT, a relay) are no gaps to each other.
"""

from collections.abc import Callable, ItemsView, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from collectors import subscribers
from collectors.netflow.columns import Column, rows
from collectors.netflow.datagrams import Block
from collectors.netflow.decoding import X_HEARD, X_MOVED, X_NEWEST
from collectors.netflow.domains import D_NEXT, D_NEXT_OTHER, D_SEEN, D_UPTIME, DOMAIN
from collectors.netflow.overrides import Overrides
from collectors.netflow.rows import Rows
from collectors.netflow.sequences import N_FLOW, N_OTHER, expire
from collectors.netflow.sflow import walking
from collectors.netflow.sflow.layout import NO_VLAN
from collectors.netflow.sflow.walking import SAMPLE, UNKNOWN

# What ``flows`` says of where a row comes from.
SOURCE: Final = 1
_ROWS: Final = 1 << 17
_SOURCES: Final = 1 << 16
_IDLE_NS: Final = 3600 * 1_000_000_000
_RECLAIM_NS: Final = 60 * 1_000_000_000


class Headers(NamedTuple):
    """What sampled headers say: which were ``read`` (n,) bool, and of all n the ``columns`` of ``flows`` that
    frames tell, addresses, ports, ``protocol`` and ``bytes`` at least.

    ``bytes`` are the frame's, less its link layer, where the IP header says none (``without_length``) or more
    than the frame had (``too_long``), (n,) bool both.
    """

    read: np.ndarray
    columns: Mapping[str, Column]
    without_length: np.ndarray
    too_long: np.ndarray


# Sampled headers in: the octets and, for each, where it begins, how much of it there is, the octets it had
# on the wire, and sFlow's header_protocol.
Frames: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], Headers]


def no_frames(
    _data: np.ndarray, at: np.ndarray, _size: np.ndarray, _wire: np.ndarray, _protocol: np.ndarray
) -> Headers:
    """Reads no header: samples then count for what their other records say."""
    none = np.zeros(at.size, bool)
    return Headers(none, {}, none, none)


def parted(given: Block) -> tuple[Block, Block]:
    """The datagrams of other protocols, and those of sFlow."""
    sampled = np.empty(len(given), bool)
    walking.is_sflow(given.data, given.at, given.size, sampled)
    if not sampled.any():
        return given, given.part(0, 0)
    return given.chosen(~sampled), given.chosen(sampled)


@dataclass(frozen=True, slots=True)
class Agent:
    """Whose sequence of datagrams it is: the exporter's address, the agent's (mapped), the sub-agent."""

    exporter: bytes
    agent: bytes
    sub_agent: int


class Agents:
    """Sequences by agent, bounded: one that finds no room goes without, unless others were silent for an
    hour."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers: dict[Agent, int] = {}
        self._free: list[int] = []
        self._reclaimed_ns = 0
        self.domains = np.zeros((16, DOMAIN), np.int64)
        self.untracked = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def items(self) -> ItemsView[Agent, int]:
        """Agents and their rows of ``domains``."""
        return self._numbers.items()

    def number(self, agent: Agent, now_ns: int) -> int:
        """Its row of ``domains``; -1 where there is no room."""
        known = self._numbers.get(agent)
        if known is None:
            if len(self._numbers) >= self._most:
                self._reclaim(now_ns)
            if len(self._numbers) >= self._most:
                self.untracked += 1
                return -1
            known = self._free.pop() if self._free else len(self._numbers)
            if known == len(self.domains):
                self.domains = np.concatenate([self.domains, np.zeros_like(self.domains)])
            self.domains[known] = 0
            self.domains[known, [D_NEXT, D_NEXT_OTHER, D_UPTIME]] = -1
            self._numbers[agent] = known
        self.domains[known, D_SEEN] = now_ns
        return known

    def _reclaim(self, now_ns: int) -> None:
        if now_ns - self._reclaimed_ns < _RECLAIM_NS:
            return
        self._reclaimed_ns = now_ns
        seen = self.domains[:, D_SEEN]
        for agent, number in list(self._numbers.items()):
            if now_ns - int(seen[number]) > _IDLE_NS:
                self._free.append(self._numbers.pop(agent))


class Reader:
    """Reads blocks of sFlow datagrams for one collector.  ``counters`` are walking's; ``transit`` as for
    ``columns.rows``."""

    def __init__(
        self,
        home: subscribers.Home,
        partitions: int,
        collector: str,
        frames: Frames,
        most_agents: int,
        most_rate: int = 2**32 - 1,
        *,
        transit: bool = False,
        overrides: Overrides | None = None,
    ) -> None:
        self._home = home
        self._transit = transit
        self._partitions = partitions
        self._collector = collector
        self._frames = frames
        self.most_rate = most_rate
        self.overrides = overrides or Overrides()
        self.agents = Agents(most_agents)
        self.counters = np.zeros(walking.COUNTERS, np.int64)
        # Sources of samples: by key (agent << 34 | class << 32 | index, and the top bit), and what they told.
        self.keys = np.zeros(_SOURCES, np.uint64)
        self.sources = np.zeros((_SOURCES, walking.SOURCE), np.int64)
        self._used = np.zeros(2, np.int64)

        self._counted = self.counters.copy()
        self._untracked = 0
        # Samples whose rate is not believed.
        self.unlikely = 0

    def rehome(self, home: subscribers.Home) -> None:
        """Give rows to the ends that are home by these networks from now on."""
        self._home = home

    def expire(self, before_ns: int) -> None:
        """Gaps in sequence from before that time are lost: ``sequences.expire``."""
        expire(self.agents.domains, len(self.agents.domains), before_ns, self.counters)

    def moved(self) -> tuple[np.ndarray, int]:
        """What the counters have moved by since this was last asked, and datagrams of untracked agents."""
        by, untracked = self.counters - self._counted, self.agents.untracked - self._untracked
        self._counted[:] = self.counters
        self._untracked = self.agents.untracked
        return by, untracked

    def read(self, given: Block, addresses: np.ndarray, clocks: np.ndarray) -> Iterator[Rows]:
        """Batches of the packets that a block of sFlow datagrams samples; ``clocks`` move.

        ``given.exporter`` are rows of ``addresses`` (m, 16) u1 and ``clocks`` (decoding.CLOCK).
        """
        if not len(given):
            return
        heads = np.empty((len(given), walking.HEAD), np.int64)
        words = np.empty((len(given), 2), np.uint64)
        walking.heads(given.data, given.at, given.size, heads, words)
        agent = self._number(given, heads, words, addresses)
        np.maximum.at(clocks[:, X_NEWEST], given.exporter, given.t_ns)
        np.maximum.at(clocks[:, X_HEARD], given.exporter, given.t_ns)
        clocks[given.exporter, X_MOVED] = 1
        # A flood of large datagrams is read in parts: so many rows at once, and one datagram at least.
        room = np.cumsum(heads[:, walking.H_ROOM])
        first = 0
        while first < len(given):
            before = int(room[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(room, before + _ROWS, "right")))
            out = np.empty(int(room[last - 1]) - before + 1, SAMPLE)
            n = walking.walk(
                given.data, heads, first, last, agent, self.agents.domains, self.keys, self.sources,
                self._used, out, given.size, given.t_ns, self.counters,
            )  # fmt: skip
            if n:
                yield self._rows(given, heads, out[:n], addresses)
            first = last
        self.counters[walking.N_SOURCES_FORGOTTEN] = self._used[1]

    def _number(
        self, given: Block, heads: np.ndarray, words: np.ndarray, addresses: np.ndarray
    ) -> np.ndarray:
        """Each datagram's row of ``agents.domains``: looked up only where it is another than the last."""
        told = np.column_stack([given.exporter, words.view(np.int64), heads[:, walking.H_SUB]])
        changes = np.ones(len(given), bool)
        changes[1:] = (told[1:] != told[:-1]).any(axis=1)
        places = np.flatnonzero(changes)
        numbers = []
        for i in places.tolist():
            exporter, sub_agent = int(given.exporter[i]), int(heads[i, walking.H_SUB])
            agent = words[i].astype(">u8").tobytes()
            if heads[i, walking.H_REFUSED]:
                numbers.append(-1)
                continue
            one = Agent(addresses[exporter].tobytes(), agent, sub_agent)
            numbers.append(self.agents.number(one, int(given.t_ns[i])))
        return np.array(numbers, np.int64)[np.cumsum(changes) - 1]

    def _rows(self, given: Block, heads: np.ndarray, samples: np.ndarray, addresses: np.ndarray) -> Rows:
        headed = np.flatnonzero(samples["header"] >= 0)
        with_header = samples[headed]
        told = self._frames(
            given.data,
            with_header["header_at"].astype(np.int64),
            with_header["header"].astype(np.int64),
            with_header["header_wire"].astype(np.int64),
            with_header["header_protocol"].astype(np.int64),
        )
        datagram = samples["datagram"]
        exporter, agent = given.exporter[datagram], heads[datagram, walking.H_SUB]
        unlikely = samples["rate"] > self.most_rate
        samples["rate"][unlikely] = 0
        self.unlikely += int(np.count_nonzero(unlikely))
        if self.overrides.any:
            self._overrule(samples, np.column_stack([exporter, agent]), addresses)
        made = _columns(samples)
        read = told.read
        for name, column in told.columns.items():
            _put(made, name, column, headed, read)
        self.counters[walking.N_WITHOUT_LENGTH] += np.count_nonzero(told.without_length)
        self.counters[walking.N_TOO_LONG] += np.count_nonzero(told.too_long)
        known = samples["ip"] != 0
        known[headed[read]] = True
        self.counters[N_FLOW] += np.count_nonzero(known)
        self.counters[N_OTHER] += samples.size - np.count_nonzero(known)
        received = given.t_ns[datagram]
        made |= {
            "t_first": received, "t_last": received, "t_received": received,
            "exporter": addresses[exporter],
            "domain": agent.astype(np.uint32),
            "source": np.full(samples.size, SOURCE, np.uint8),
        }  # fmt: skip
        if not known.all():
            made = {name: _where(column, known) for name, column in made.items()}
        return rows(made, self._home, self._partitions, self._collector, transit=self._transit)

    def _overrule(self, samples: np.ndarray, whose: np.ndarray, addresses: np.ndarray) -> None:
        """Bring configured rates in; ``whose`` (n, 2) are exporter and sub-agent, which is the domain."""
        pairs, of = np.unique(whose, axis=0, return_inverse=True)
        order = np.argsort(of.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(of.ravel()))
        for (exporter, domain), begin, end in zip(pairs.tolist(), [0, *ends[:-1]], ends, strict=True):
            found = self.overrides.of(addresses[exporter].tobytes(), domain)
            if found.own or found.by_interface:
                mine = order[begin:end]
                samples["rate"][mine] = found.rates(samples["input"][mine], samples["rate"][mine])


def _pair(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    words = np.empty((high.size, 2), ">u8")
    words[:, 0], words[:, 1] = high, low
    return words.view(np.uint8).reshape(-1, 16)


def _columns(s: np.ndarray) -> dict[str, Column]:
    """What samples say, with the addresses of those that a record gives."""
    has_as, ip = s["has_as"] != 0, s["ip"] != 0
    return {
        "src": _pair(s["src_high"], s["src_low"]), "dst": _pair(s["dst_high"], s["dst_low"]),
        "src_port": s["src_port"].copy(), "dst_port": s["dst_port"].copy(),
        "protocol": s["protocol"].copy(), "bytes": s["octets"].copy(),
        "packets": np.ones(s.size, np.uint64),
        "tcp_flags": (s["tcp_flags"].copy(), ip & (s["protocol"] == 6)),
        "tos": (s["tos"].copy(), ip.copy()),
        "sampling_rate": (s["rate"], s["rate"] != 0),
        "input_interface": (s["input"], s["input"] != 0),
        "output_interface": (s["output"], s["output"] != 0),
        "vlan": (s["vlan"].copy(), s["vlan"] != NO_VLAN),
        "src_as": (s["src_as"], has_as), "dst_as": (s["dst_as"], has_as),
        "direction": (s["direction"], s["direction"] != UNKNOWN),
    }  # fmt: skip


def _put(made: dict[str, Column], name: str, column: Column, place: np.ndarray, read: np.ndarray) -> None:
    """Write what frames tell over what records told, for those that were read and where it is known."""
    values, valid = column if isinstance(column, tuple) else (column, None)
    keep = read if valid is None else read & valid
    into = made.get(name)
    if into is None:
        size = len(made["bytes"])
        into = np.zeros((size, *values.shape[1:]), values.dtype), np.zeros(size, bool)
        made[name] = into
    target = into[0] if isinstance(into, tuple) else into
    target[place[keep]] = values[keep]
    if isinstance(into, tuple):
        into[1][place[keep]] = True


def _where(column: Column, keep: np.ndarray) -> Column:
    return (column[0][keep], column[1][keep]) if isinstance(column, tuple) else column[keep]
