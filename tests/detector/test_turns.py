"""The order of sending, whatever was fetched first."""

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.bus import Message
from collectors.wire import Header
from detector.intake import INPUTS, Arrival
from detector.turns import LONG, PURSE, REFUND, Counts, Turns

PATIENCE_S = 2.0


def arrival(stream, offset, life, turn, received_ns=0, **more):
    header = Header(
        version=1, collector="tap1", number=0, rows=0, t_first_ns=0, t_last_ns=0, received_ns=received_ns,
        home="home", life=life, turn=turn, **more,
    )  # fmt: skip
    return Arrival(stream, offset, 1, Message(stream, 0, None, header))


def said(taken):
    header = taken.message.header
    return header.life, header.turn


def orders(taken):
    """Turns of each sender, as they were taken."""
    out = {}
    for one in taken:
        out.setdefault(one.message.header.life, []).append(one.message.header.turn)
    return out


@st.composite
def sendings(draw, lost=False):
    """What several senders sent, in the order in which the brokers got it: {stream: arrivals}, how many of
    them are not there, and choices of what is fetched first."""
    turns, offsets = [0] * draw(st.integers(1, 4)), dict.fromkeys(INPUTS, 0)
    topics, gone = {stream: [] for stream in INPUTS}, 0
    choices = st.tuples(st.integers(0, len(turns) - 1), st.sampled_from(INPUTS), st.booleans())
    for n, (sender, stream, is_lost) in enumerate(draw(st.lists(choices, max_size=40))):
        turn, turns[sender] = turns[sender], turns[sender] + 1
        if lost and is_lost:
            gone += 1
            continue
        topics[stream].append(arrival(stream, offsets[stream], f"life{sender}", turn, received_ns=n))
        offsets[stream] += 1
    return topics, gone, draw(st.lists(st.sampled_from(INPUTS), max_size=60))


def fetched(topics, choices):
    """All of the topics, each in its own order."""
    left = {stream: list(arrivals) for stream, arrivals in topics.items()}
    for stream in choices:
        if left[stream]:
            yield left[stream].pop(0)
    for arrivals in left.values():
        yield from arrivals


def drained(turns, now_s):
    out = []
    while (one := turns.take(now_s)) is not None:
        out.append(one)
    return out


def waited(turns, from_s=0.0):
    """All that is left, with as much time as that takes."""
    out = []
    for tick in count(1):
        out += drained(turns, from_s + tick * 0.25)
        if not len(turns):
            return out
    return out


@given(sendings())
def test_any_order_of_fetching_gives_each_senders_order(sent):
    topics, _, choices = sent
    turns, taken = Turns(patience_s=PATIENCE_S), []
    for one in fetched(topics, choices):
        turns.put(one)
        taken += drained(turns, 0.0)
    assert len(turns) == 0
    assert all(order == sorted(order) for order in orders(taken).values())
    assert len(taken) == sum(map(len, topics.values()))
    assert turns.counts.turns_missing == 0


@given(sendings(lost=True))
def test_what_is_lost_is_passed_and_the_rest_keeps_its_order(sent):
    topics, lost, choices = sent
    turns, taken = Turns(patience_s=PATIENCE_S), []
    for one in fetched(topics, choices):
        turns.put(one)
    taken = waited(turns)
    assert all(order == sorted(order) for order in orders(taken).values())
    assert len(taken) == sum(map(len, topics.values()))
    assert turns.counts.turns_missing <= lost


@given(sendings(lost=True))
def test_a_topic_keeps_its_own_order_whatever_comes(sent):
    topics, _, choices = sent
    turns, taken = Turns(patience_s=PATIENCE_S), []
    for n, one in enumerate(fetched(topics, choices)):
        turns.put(one)
        taken += drained(turns, n * 0.5)
    taken += waited(turns, 100.0)
    for stream in INPUTS:
        assert [a for a in taken if a.stream == stream] == topics[stream]


@given(sendings(), st.integers(0, 40), st.lists(st.sampled_from(INPUTS), max_size=40))
@settings(max_examples=200)
def test_who_begins_in_the_middle_goes_on_in_order(sent, cut, other):
    topics, _, choices = sent
    turns, taken = Turns(patience_s=PATIENCE_S), []
    for one in list(fetched(topics, choices))[:cut]:
        turns.put(one)
        taken += drained(turns, 0.0)
    again = Turns(patience_s=PATIENCE_S)
    again.restore(turns.state())
    done = {stream: sum(a.stream == stream for a in taken) for stream in INPUTS}
    for one in fetched({stream: arrivals[done[stream] :] for stream, arrivals in topics.items()}, other):
        again.put(one)
        taken += drained(again, 0.0)
    assert all(order == list(range(len(order))) for order in orders(taken).values())
    assert len(taken) == sum(map(len, topics.values()))


def test_a_missing_turn_is_waited_for_and_then_passed_and_counted():
    turns = Turns(patience_s=PATIENCE_S)
    turns.put(arrival("flows", 0, "a", 0))
    turns.put(arrival("flows", 1, "a", 2))
    assert said(turns.take(0.0)) == ("a", 0)
    assert turns.take(0.0) is None
    assert turns.take(PATIENCE_S - 0.1) is None
    turns.put(arrival("payloads", 0, "b", 0))
    assert said(turns.take(PATIENCE_S)) == ("b", 0)
    assert turns.take(PATIENCE_S) is None, "something came meanwhile: the wait begins anew"
    assert said(turns.take(2 * PATIENCE_S)) == ("a", 2)
    assert turns.counts == Counts(turns_missing=1)


def test_a_turn_that_comes_while_it_is_waited_for_comes_first():
    turns = Turns(patience_s=PATIENCE_S)
    turns.put(arrival("flows", 0, "a", 1))
    assert turns.take(0.0) is None
    turns.put(arrival("payloads", 0, "a", 0))
    assert [said(a) for a in drained(turns, 1.0)] == [("a", 0), ("a", 1)]
    assert turns.counts == Counts()


def test_with_a_head_in_every_topic_nothing_is_waited_for():
    turns = Turns(patience_s=PATIENCE_S)
    for place, stream in enumerate(INPUTS):
        turns.put(arrival(stream, 0, "a", 7 - place))
    assert [said(a)[1] for a in drained(turns, 0.0)] == [5, 6, 7]


def test_of_two_that_wait_for_each_other_none_is_put_before_its_own_earlier_turn():
    turns = Turns(patience_s=PATIENCE_S)
    turns.put(arrival("flows", 0, "a", 1, received_ns=1))
    turns.put(arrival("names", 0, "b", 5, received_ns=9))
    turns.put(arrival("names", 1, "a", 0, received_ns=0))
    assert turns.take(0.0) is None
    assert [said(a) for a in drained(turns, PATIENCE_S)] == [("b", 5), ("a", 0), ("a", 1)]


def test_what_was_refused_passes_in_its_place():
    turns = Turns(patience_s=PATIENCE_S)
    turns.put(arrival("flows", 0, "a", 0))
    turns.put(Arrival("flows", 1, 9, None))
    turns.put(arrival("flows", 2, "a", 1))
    assert [a.offset for a in drained(turns, 0.0)] == [0, 1, 2]


def test_repeats_and_senders_without_a_life_do_not_wait():
    turns = Turns(patience_s=PATIENCE_S)
    for offset, (life, turn) in enumerate([("a", 0), ("a", 1), ("a", 0), ("", 99), ("a", 2)]):
        turns.put(arrival("flows", offset, life, turn))
    assert [a.offset for a in drained(turns, 0.0)] == [0, 1, 2, 3, 4]
    assert turns.state() == [(("a", ""), 3)]


def test_the_sender_heard_longest_ago_makes_room():
    turns = Turns(patience_s=PATIENCE_S, senders=2)
    for offset, life in enumerate("abac"):
        turns.put(arrival("flows", offset, life, 0))
    drained(turns, 0.0)
    assert [sender[0] for sender, _ in turns.state()] == ["a", "c"]
    assert turns.counts.turns_forgotten == 1


def test_a_run_that_is_over_needs_no_memory_and_a_live_one_is_never_over():
    turns = Turns(patience_s=PATIENCE_S)
    turns.put(arrival("flows", 0, "a", 0, run="file", ends=True))
    turns.put(arrival("flows", 1, "b", 0, ends=True))
    turns.put(arrival("flows", 2, "b", 1))
    assert len(drained(turns, 0.0)) == 3
    assert turns.state() == [(("b", ""), 2)]


def test_invented_turns_cost_a_bounded_time():
    """A hundred messages, each of an unknown sender and a turn that never comes, before a true one."""
    turns = Turns(patience_s=PATIENCE_S)
    for n in range(100):
        turns.put(arrival("flows", n, f"evil{n}", 1 << 62))
    turns.put(arrival("flows", 100, "a", 0))
    now_s = 0.0
    while len(turns):
        drained(turns, now_s)
        now_s += 0.1
    assert now_s <= PURSE * PATIENCE_S + 1
    # And in the long run: one message as soon as the one before it was passed.
    began_s, waiting_s = now_s, 0.0
    for n in range(101, 20_000):
        turns.put(arrival("flows", n, f"evil{n}", 1 << 62))
        while turns.take(now_s) is None:
            now_s, waiting_s = now_s + 0.1, waiting_s + 0.1
        now_s += 0.01
    assert waiting_s <= REFUND * (now_s - began_s) + PATIENCE_S + 1


def test_others_that_go_on_do_not_keep_an_invented_turn_waiting_for_ever():
    turns = Turns(patience_s=PATIENCE_S)
    turns.put(arrival("flows", 0, "evil", 1 << 62))
    turns.put(arrival("flows", 1, "a", 0))
    for n in range(20 * LONG):
        turns.put(arrival("payloads", n, "b", n))
        taken = drained(turns, n * 0.5)
        if any(said(one) == ("a", 0) for one in taken):
            break
    assert n * 0.5 <= LONG * PATIENCE_S + 0.5


def test_forgetting_what_waits_keeps_what_was_taken():
    turns = Turns(patience_s=PATIENCE_S)
    turns.put(arrival("flows", 0, "a", 0))
    drained(turns, 0.0)
    turns.put(arrival("flows", 1, "a", 2))
    assert turns.waiting("flows") == len(turns) == 1
    turns.clear()
    assert len(turns) == 0
    turns.put(arrival("payloads", 0, "a", 1))
    turns.put(arrival("flows", 1, "a", 2))
    assert [said(a) for a in drained(turns, 9.0)] == [("a", 1), ("a", 2)]
