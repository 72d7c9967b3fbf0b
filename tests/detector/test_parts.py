"""A partition that dies anywhere, its records torn, goes on as if it had never stopped."""

import random
from functools import cache

import msgspec
import pytest
from crashes import CONFIG, SECOND, captured, knowledge, said, silence, visits

from collectors import wire
from detector import state as forms
from detector.endpoints import Endpoints
from detector.engine import Engine
from detector.intake import INPUTS, Arrival
from detector.parts import IDLE_CALLS, MOST_RUNS, VERSION, WHOLE, Held, Part, Whole, key

LIVE = ("pcaps/cpuminer-sha256d.pcap", "pcaps/xmrig-badlogin.pcap")
REPLAYS = ("pcaps/cpuminer-scrypt-dense.pcap", "pcaps/xmrig-plain.pcap", "pcaps/chat.pcap")


def over(last):
    """The last message of a run."""
    made = said("flows", wire.empty("flows"), last.header.received_ns)
    return made._replace(header=msgspec.structs.replace(made.header, collector="", clocks=(), ends=True))


def single(messages):
    for message in messages:
        rows = message.rows.num_rows
        for n in range(0, max(rows, 1), 4):
            yield message._replace(rows=message.rows.slice(n, 4))


@cache
def topics():
    """What collectors sent to one partition: captures and exports on live links, and replays that end;
    {stream: arrivals}."""
    seen = sorted((m for path in LIVE for m in captured(path)), key=lambda m: m.header.received_ns)
    start = seen[-1].header.received_ns
    exports = visits(start + 600 * SECOND, 3)
    late = exports[-1].header.received_ns
    sources = {
        ("live", ""): [*single(seen), *silence(start, start + 600 * SECOND, 30 * SECOND), *exports,
                       *silence(late, late + 3600 * SECOND, 300 * SECOND)],
        **{(path, f"{path}@1"): [*single(captured(path)), over(captured(path)[-1])] for path in REPLAYS},
    }  # fmt: skip
    rng, turns = random.Random(1), dict.fromkeys(sources, 0)
    left = {source: list(messages) for source, messages in sources.items()}
    out = {stream: [] for stream in INPUTS}
    while any(left.values()):
        (life, run), messages = rng.choice([item for item in left.items() if item[1]])
        message = messages.pop(0)
        turn = turns[life, run]
        turns[life, run] += 1
        header = msgspec.structs.replace(message.header, life=life, run=run, turn=turn)
        arrivals = out[message.stream]
        arrivals.append(Arrival(message.stream, len(arrivals), 1, message._replace(header=header)))
    return out


class World:
    """The state topic, what was told, and one detector after another."""

    def __init__(self, rng):
        self.rng = rng
        self.log, self.documents, self.alerts = [], {}, {}
        self.indexes = {}
        self.part = self.made()

    def make(self, run):
        index = self.indexes.setdefault(run, Endpoints(knowledge().pools.listed(), CONFIG.endpoints))
        return Engine(CONFIG, knowledge=knowledge(), index=index, durable=True)

    def made(self):
        return Part(self.make, lambda run, engine: None)

    def fetch(self):
        """All from where the part is, whichever topic comes first."""
        left = {s: list(topics()[s][o:]) for s, o in zip(INPUTS, self.part.offsets, strict=True)}
        while any(left.values()):
            stream = self.rng.choice([s for s in INPUTS if left[s]])
            yield left[stream].pop(0)

    def tell(self, run, engine, transitions, *, everything):
        for made in transitions:
            self.alerts[run, made.id] = made
        for document in engine.judge.changed(everything=everything):
            self.documents[run, document.id] = document

    def take(self, arrival, now_s=0.0):
        self.part.turns.put(arrival)
        while (due := self.part.turns.take(now_s)) is not None:
            step = self.part.step(due)
            if step is not None:
                self.tell(step.run, step.engine, step.told.transitions, everything=step.over)
                if step.over:
                    self.part.end(step.run)

    def finish(self):
        for run, engine in self.part.engines.items():
            self.tell(run, engine, [], everything=True)
        self.log += self.part.checkpoint(whole=True)
        return self.documents, self.alerts

    def die(self, torn=0):
        """With some of the records of the moment written; what was not."""
        records = self.part.checkpoint(whole=self.rng.random() < 0.5)
        written = records[: min(torn, len(records))]
        self.log += written
        self.part = self.made()
        self.part.restore(self.log)
        return records[len(written) :]


@cache
def undisturbed():
    world = World(random.Random(2))
    for arrival in world.fetch():
        world.take(arrival)
    return world.finish()


def live(world, deaths, late=0.0):
    """Until all is judged.  ``late`` is how often what a dead one did not write comes after all."""
    rng, unwritten = world.rng, []
    while True:
        until = rng.randint(1, 120) if deaths else 1 << 30
        for n, arrival in enumerate(world.fetch()):
            if n >= until:
                break
            world.take(arrival)
            if rng.random() < 0.1:
                world.log += world.part.checkpoint(whole=rng.random() < 0.3)
                if unwritten and rng.random() < 0.3:
                    world.log += unwritten.pop(0)
        else:
            return world.finish()
        deaths -= 1
        left = world.die(torn=rng.randint(0, 6))
        if left and rng.random() < late:
            unwritten.append(left)


def compact(log):
    """What compaction leaves of it, in its order."""
    last = {name: n for n, (name, _) in enumerate(log)}
    return [record for n, record in enumerate(log) if last[record[0]] == n]


def test_the_world_holds_all_that_is_to_survive():
    documents, alerts = undisturbed()
    assert {run for run, _ in documents} >= {"", *(f"{path}@1" for path in REPLAYS[:2])}
    assert {d.state for d in documents.values()} >= {"confirmed", "resolved"}
    assert len(alerts) > 4


@pytest.mark.parametrize("seed", range(12))
def test_deaths_with_records_torn_anywhere_change_nothing(seed):
    world = World(random.Random(seed))
    assert live(world, deaths=15) == undisturbed()


@pytest.mark.parametrize("seed", range(6))
def test_compaction_after_every_death_changes_nothing(seed):
    world = World(random.Random(100 + seed))
    die = world.die

    def died(torn):
        world.log = compact(world.log)
        return die(torn)

    world.die = died
    assert live(world, deaths=15) == undisturbed()


@pytest.mark.parametrize("seed", range(12))
def test_records_of_the_dead_that_come_late_change_nothing(seed):
    """They were halted, and write when another has gone on; both read in the same order."""
    world = World(random.Random(1000 + seed))
    fixed = [a for s in INPUTS for a in topics()[s]]
    random.Random(3).shuffle(fixed)
    order = {}
    # One order of all, each topic's own kept.
    places = {s: sorted(n for n, a in enumerate(fixed) if a.stream == s) for s in INPUTS}
    for stream, at in places.items():
        order |= {(stream, offset): n for offset, n in enumerate(at)}

    def fetch():
        left = [a for s, o in zip(INPUTS, world.part.offsets, strict=True) for a in topics()[s][o:]]
        return sorted(left, key=lambda a: order[a.stream, a.offset])

    world.fetch = fetch
    assert live(world, deaths=12, late=0.7) == undisturbed()


def left_of(log):
    held = {}
    for name, value in log:
        held.pop(name, None)
        if value is not None:
            held[name] = value
    return held


@pytest.mark.parametrize("seed", range(4))
def test_runs_that_end_leave_no_record_behind(seed):
    world = World(random.Random(500 + seed))
    live(world, deaths=6)
    assert set(world.part.engines) == {""}
    runs = {name.rpartition(b"/")[0] for name in left_of(world.log) if name != WHOLE}
    assert runs == {b""}
    whole = msgspec.msgpack.decode(left_of(world.log)[WHOLE], type=Whole)
    assert [run for run, _ in whole.runs] == [""]


def some(world, number=200):
    for n, arrival in enumerate(world.fetch()):
        if n >= number:
            break
        world.take(arrival)
    return world.part.checkpoint(whole=True)


def test_what_cannot_be_read_is_counted_and_the_rest_restored():
    world = World(random.Random(7))
    log = some(world)
    name, value = next(record for record in log if record.key != WHOLE)
    good = msgspec.msgpack.decode(value, type=Held)
    bad = [
        (None, b"x"), (b"unknown", b"\xc1"), (b"other", value), (name, b""), (name, value[: len(value) // 2]),
        (name, msgspec.msgpack.encode(msgspec.structs.replace(good, version=VERSION + 1))),
        (WHOLE, b"nonsense"), (WHOLE, msgspec.msgpack.encode([VERSION, [0, 0], [], []])),
        (WHOLE, msgspec.msgpack.encode([VERSION, [0, 0, -1], [], []])),
    ]  # fmt: skip
    part = world.made()
    part.restore([*log, *bad])
    assert part.counts.corrupt == len(bad)
    assert part.offsets == world.part.offsets
    assert part.counts.restored == sum(1 for r in log if r.key != WHOLE and r.value is not None)


def test_a_state_that_cannot_be_read_costs_that_subscriber_only():
    world = World(random.Random(8))
    log = some(world)
    name, value = next(record for record in log if record.key != WHOLE)
    good = msgspec.msgpack.decode(value, type=Held)
    broken = msgspec.msgpack.encode(msgspec.structs.replace(good, state=b"S\xff"))
    whole = msgspec.msgpack.decode(log[-1].value if log[-1].key == WHOLE else left_of(log)[WHOLE], type=Whole)
    without = msgspec.structs.replace(whole, runs=[(run, b"E\xff") for run, _ in whole.runs])
    part = world.made()
    part.restore([*log, (name, broken), (WHOLE, msgspec.msgpack.encode(without))])
    assert part.counts.corrupt == 1 + len(whole.runs)
    assert part.counts.restored == sum(1 for r in log if r.key != WHOLE and r.value is not None) - 1


def empty(run, offset, at_ns=10**18, **more):
    made = said("flows", wire.empty("flows"), at_ns)
    header = msgspec.structs.replace(made.header, run=run, **more)
    return Arrival("flows", offset, 1, made._replace(header=header))


def test_runs_are_bounded_and_the_live_one_stays():
    unmade = []
    world = World(random.Random(9))
    part = Part(world.make, lambda run, engine: unmade.append(run))
    part.step(empty("", 0))
    for n in range(3 * MOST_RUNS):
        part.step(empty(f"run {n}", n + 1))
    assert len(part.engines) == MOST_RUNS
    assert "" in part.engines
    assert part.counts.runs_dropped == len(unmade) == 2 * MOST_RUNS + 1
    assert part.step(empty(f"run {2 * MOST_RUNS}", 9999)) is None
    assert part.counts.late == 1
    whole = part.checkpoint()[-1]
    again = world.made()
    again.restore([whole])
    assert set(again.engines) == set(part.engines)


def test_a_live_run_is_never_over_whatever_a_header_says():
    part = World(random.Random(10)).part
    step = part.step(empty("", 0, ends=True))
    assert not step.over
    assert part.step(empty("", 1)) is not None


def test_a_partitions_record_fits_a_message_whatever_clocks_headers_name():
    part = World(random.Random(11)).part
    for n in range(4):
        clocks = tuple(wire.Clock(f"{i:05}" + "x" * 250, 1, 0) for i in range(20_000))
        part.step(empty("" if n == 3 else f"run {n}", n, clocks=clocks))
    (record,) = part.checkpoint()
    assert len(record.value) <= forms.MAX_STATE_BYTES + 600_000
    assert part.counts.cut > 0
    again = World(random.Random(11)).part
    again.restore([record])
    assert set(again.engines) == set(part.engines)
    assert again.counts.corrupt == 0
    assert len(again.engines[""].whole().heard.sources) == 20_000


def test_where_nobody_mines_time_is_written_seldom():
    part = World(random.Random(12)).part
    part.step(empty("", 0))
    written = []
    for n in range(3 * IDLE_CALLS):
        part.step(empty("", n + 1, at_ns=10**18 + n * SECOND))
        written.append(len(part.checkpoint(whole=False)))
    assert sum(written) == 3
    assert part.checkpoint(whole=False) == []


def test_a_late_tombstone_ends_nothing_newer():
    world = World(random.Random(13))
    log = some(world)
    name = next(r.key for r in log if r.key != WHOLE)
    old = Whole(VERSION, (1, 0, 0), [], [])
    late = [(WHOLE, msgspec.msgpack.encode(old)), (name, None)]
    part = world.made()
    part.restore([*log, *late])
    assert name in {key(run, who) for run, found in part._recorded.items() for who in found}
    part = world.made()
    part.restore([*log, (name, None)])
    assert part.counts.restored == sum(1 for r in log if r.key != WHOLE and r.value is not None) - 1


def test_refused_messages_move_the_offsets_and_nothing_else():
    part = World(random.Random(14)).part
    assert part.step(Arrival("names", 4, 9, None)) is None
    assert part.offsets == (0, 0, 5)
    assert part.engines == {}


def test_a_state_that_is_ahead_of_its_partition_says_so_when_it_is_written_again():
    world = World(random.Random(15))
    part = world.part
    seen = [m for m in visits(10**18, 2) if m.rows.num_rows]
    flows = [m for m in seen if m.stream == "flows"]
    names = [m for m in seen if m.stream == "names"]
    begun = part.checkpoint()
    for n, message in enumerate(flows):
        part.step(Arrival("flows", n, 1, message))
    torn = [record for record in part.checkpoint() if record.key != WHOLE]
    assert torn
    again = world.made()
    again.restore([*begun, *torn])
    assert again.offsets == (0, 0, 0)
    for n, message in enumerate(names):
        again.step(Arrival("names", n, 1, message))
    again.step(Arrival("flows", 0, 1, flows[0]))
    held = {r.key: msgspec.msgpack.decode(r.value, type=Held) for r in again.checkpoint()[:-1]}
    both = {r.key for r in torn} & held.keys()
    assert both
    assert {held[name].offsets for name in both} == {(len(flows), 0, len(names))}
    assert again.counts.passed_over == sum(
        key("", owner.tobytes()) in {r.key for r in torn}
        for owner in wire.values(flows[0].rows, "subscriber")
    )


def test_a_run_of_which_nothing_came_here_is_over_without_an_engine():
    part = World(random.Random(16)).part
    assert part.step(empty("elsewhere", 0, ends=True)) is None
    assert part.engines == {}
    assert part.offsets == (1, 0, 0)
    assert part.step(empty("elsewhere", 1)) is None
    assert part.counts.late == 1
