"""What is written when, with records that arrive in any order or never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import InputError
from detector.intake import INPUTS
from detector.parts import Record
from detector.writing import Writer


class Future:
    def __init__(self):
        self.is_done, self.exception, self.value = False, None, None

    def arrive(self, offset=0):
        self.is_done, self.value = True, type("Metadata", (), {"offset": offset})()

    def fail(self):
        self.is_done, self.exception = True, RuntimeError("no leader")


class Part:
    """As many records as it was told to have, with offsets that go on."""

    def __init__(self):
        self.taken, self.due = 0, []

    @property
    def offsets(self):
        return (self.taken, 0, self.taken)

    def move(self):
        self.taken += 1
        self.due = [Record(b"s", b"state"), Record(b"partition", b"whole"), Record(b"t", None)]

    def checkpoint(self, *, whole=True):
        due, self.due = self.due, []
        return due


class Bus:
    """Notes what is asked of it, in order."""

    def __init__(self, every_s=1.0):
        self.events, self.told, self.states, self.unheard, self.heard = [], [], [], [], []
        self.hears = True
        self.writer = Writer(self.send, self.pending, self.wait, self.commit, every_s)

    def tell(self):
        future = Future()
        self.told.append(future)
        self.unheard.append(future)
        return future

    def pending(self):
        out, self.unheard = self.unheard, []
        self.heard += out
        return out

    def send(self, partition, record):
        assert all(future.is_done for future in self.heard), "state before what it includes"
        future = Future()
        self.states.append((partition, record, future))
        self.events.append(("state", partition, record.key))
        return future

    def wait(self, futures, timeout_s):
        for n, future in enumerate(futures):
            if self.hears and not future.is_done:
                future.arrive(n)

    def commit(self, offsets):
        assert all(future.is_done for _, _, future in self.states), "offsets before their state"
        self.events.append(("commit", dict(offsets)))

    def commits(self):
        return [event[1] for event in self.events if event[0] == "commit"]


def offsets(partition, number):
    return {(s, partition): o for s, o in zip(INPUTS, (number, 0, number), strict=True)}


def test_outputs_arrive_before_state_is_sent_and_state_before_offsets_are_told():
    bus, part = Bus(), Part()
    part.move()
    told = bus.tell()
    bus.writer.turn({3: part}, 0.0)
    bus.writer.turn({3: part}, 0.1)
    assert bus.events == []
    told.arrive()
    bus.writer.turn({3: part}, 0.2)
    assert [e[2] for e in bus.events] == [b"s", b"partition", b"t"]
    for n, (_, _, future) in enumerate(bus.states):
        assert bus.commits() == []
        bus.writer.turn({3: part}, 0.3)
        future.arrive(40 + n)
    bus.writer.turn({3: part}, 0.4)
    assert bus.commits() == [offsets(3, 1)]
    assert bus.writer.ends == {3: 43}
    assert (bus.writer.records, bus.writer.bytes) == (3, 10)


def test_a_state_is_taken_as_often_as_was_said_and_one_at_a_time():
    bus, part = Bus(every_s=1.0), Part()
    for now_s in (0.0, 0.5, 0.9):
        part.move()
        bus.writer.turn({0: part}, now_s)
        for _, _, future in bus.states:
            future.arrive()
    bus.writer.turn({0: part}, 0.95)
    assert bus.commits() == [offsets(0, 1)], "what was taken, not where the part is by now"
    bus.writer.turn({0: part}, 1.0)
    bus.writer.turn({0: part}, 1.1)
    for _, _, future in bus.states:
        future.arrive()
    bus.writer.turn({0: part}, 1.2)
    assert bus.commits() == [offsets(0, 1), offsets(0, 3)]


STEPS = st.lists(
    st.sampled_from(["move0", "move1", "tell", "turn", "turn", "arrive", "arrive", "flush", "forget"]),
    max_size=60,
)


@given(STEPS, st.randoms(use_true_random=False))
def test_whatever_arrives_when_nothing_is_told_before_what_it_rests_on(steps, random):
    bus, parts = Bus(), {0: Part(), 1: Part()}
    for n, step in enumerate(steps):
        if step.startswith("move"):
            parts[int(step[-1])].move()
        elif step == "tell":
            bus.tell()
        elif step == "turn":
            bus.writer.turn(parts, n * 0.6)
        elif step == "arrive":
            left = [f for f in [*bus.told, *(f for _, _, f in bus.states)] if not f.is_done]
            if left:
                random.choice(left).arrive()
        elif step == "flush":
            bus.writer.flush(parts, commit=True)
            assert bus.writer.is_idle
        else:
            bus.writer.forget()
            bus.heard = []
            bus.states = [one for one in bus.states if one[2].is_done]
    bus.writer.flush(parts, commit=True)
    last = {}
    for commits in bus.commits():
        for place, offset in commits.items():
            assert offset >= last.get(place, 0)
            last[place] = offset


@pytest.mark.parametrize("which", ["output", "output without state", "state"])
def test_a_record_that_was_refused_ends_it(which):
    bus, part = Bus(), Part()
    told = bus.tell()
    if which != "output without state":
        part.move()
    bus.writer.turn({0: part}, 0.0)
    if which == "state":
        told.arrive()
        bus.writer.turn({0: part}, 0.1)
        bus.states[1][2].fail()
        bus.states[0][2].arrive()
    else:
        told.fail()
    with pytest.raises(InputError, match="no leader"):
        bus.writer.flush({0: part}, commit=True)
    assert bus.commits() == []


def test_flush_writes_all_that_moved_and_waits_for_it():
    bus, part = Bus(), Part()
    part.move()
    bus.tell()
    bus.writer.turn({0: part}, 0.0)
    part.move()
    told = bus.tell()
    bus.writer.flush({0: part}, commit=True)
    assert told.is_done
    assert bus.commits() == [offsets(0, 1), offsets(0, 2)]
    assert bus.writer.is_idle


def test_flush_without_commit_tells_the_group_nothing_later_either():
    bus, part = Bus(), Part()
    part.move()
    bus.writer.flush({0: part}, commit=False)
    bus.writer.flush({}, commit=True)
    assert bus.commits() == []
    assert bus.writer.ends == {0: 3}


def test_flush_that_nobody_answers_raises():
    bus, part = Bus(), Part()
    bus.hears = False
    part.move()
    with pytest.raises(InputError, match="not taken within"):
        bus.writer.flush({0: part}, commit=True)
    assert bus.commits() == []


def test_what_is_forgotten_is_neither_written_nor_told_to_the_group():
    bus, part = Bus(), Part()
    part.move()
    bus.writer.turn({0: part}, 0.0)
    bus.writer.turn({0: part}, 0.1)
    assert not bus.writer.is_idle
    bus.writer.forget()
    assert bus.writer.is_idle
    assert bus.writer.ends == {}
    for _, _, future in bus.states:
        future.fail()
    bus.tell().fail()
    bus.writer.forget()
    bus.writer.flush({}, commit=True)
    assert bus.commits() == []
