"""The table of states."""

from hypothesis import given
from hypothesis import strategies as st

from detector.incidents import NUMBER, OPEN, TRANSITIONS, Action, Signal, State, alert_id, incident_id, step

signals = st.lists(st.sampled_from(list(Signal)), max_size=50)


@given(signals)
def test_alerts_and_resolves_alternate_and_an_alert_comes_first(given_signals):
    state, told = State.QUIET, []
    for signal in given_signals:
        state, action = step(state, signal)
        if action in {Action.ALERT, Action.RESOLVE}:
            told.append(action)
    assert told[::2] == [Action.ALERT] * len(told[::2])
    assert told[1::2] == [Action.RESOLVE] * len(told[1::2])


@given(signals)
def test_at_most_one_alert_per_opening(given_signals):
    state, opening, alerts = State.QUIET, 0, {}
    for signal in given_signals:
        before = state
        state, action = step(state, signal)
        if before not in OPEN and state in OPEN:
            opening += 1
        if action is Action.ALERT:
            alerts[opening] = alerts.get(opening, 0) + 1
    assert all(n == 1 for n in alerts.values())


def test_a_pair_the_table_does_not_name_changes_nothing():
    for state in State:
        for signal in Signal:
            if signal not in TRANSITIONS[state]:
                assert step(state, signal) == (state, Action.NOTHING)


def test_every_state_can_be_left_and_every_change_says_what_to_do():
    assert set(TRANSITIONS) == set(State) == set(NUMBER)
    assert all(TRANSITIONS[s] for s in State)


@given(st.binary(min_size=16, max_size=16), st.integers(1, 10**6))
def test_ids_are_the_same_whoever_computes_them_and_differ_otherwise(subscriber, opening):
    one = incident_id(subscriber, opening)
    assert one == incident_id(subscriber, opening) != incident_id(subscriber, opening + 1)
    assert len({alert_id(one, s) for s in State}) == len(State)
