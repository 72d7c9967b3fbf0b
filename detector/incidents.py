"""The life of an incident: a table of states and signals, and nothing else.

Signals in, the next state and what to do out.  What people decide about an incident (its disposition) is
kept apart from what the machine sees.
"""

import hashlib
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where the incident of one subscriber stands."""

    QUIET = "quiet"
    SUSPECTED = "suspected"
    CONFIRMED = "confirmed"
    RESOLVED = "resolved"


class Signal(StrEnum):
    """What can happen to an incident."""

    RISE = "rise"  # belief reached one half
    CONFIRM = "confirm"  # evidence that confirms
    FADE = "fade"  # belief of a suspicion faded away
    EXPIRE = "expire"  # nothing was seen for long
    REFUTE = "refute"  # what it rested on was withdrawn


class Action(StrEnum):
    """What the exporters are to do about it."""

    NOTHING = "nothing"
    TICKET = "ticket"
    ALERT = "alert"
    RESOLVE = "resolve"


TRANSITIONS: Final[dict[State, dict[Signal, tuple[State, Action]]]] = {
    State.QUIET: {
        Signal.RISE: (State.SUSPECTED, Action.TICKET),
        Signal.CONFIRM: (State.CONFIRMED, Action.ALERT),
    },
    State.SUSPECTED: {
        Signal.CONFIRM: (State.CONFIRMED, Action.ALERT),
        Signal.FADE: (State.QUIET, Action.NOTHING),
        Signal.REFUTE: (State.QUIET, Action.NOTHING),
    },
    State.CONFIRMED: {
        Signal.EXPIRE: (State.RESOLVED, Action.RESOLVE),
        Signal.REFUTE: (State.RESOLVED, Action.RESOLVE),
    },
    State.RESOLVED: {
        Signal.RISE: (State.SUSPECTED, Action.TICKET),
        Signal.CONFIRM: (State.CONFIRMED, Action.ALERT),
    },
}

OPEN: Final = (State.SUSPECTED, State.CONFIRMED)

# The number of a transition within its opening is the number of the state it leads to, so that the id of
# "confirmed" is the same whether or not a suspicion came before it.
NUMBER: Final = {State.SUSPECTED: 1, State.CONFIRMED: 2, State.RESOLVED: 3, State.QUIET: 4}


def step(state: State, signal: Signal) -> tuple[State, Action]:
    """Apply one signal.  A pair the table does not name changes nothing."""
    return TRANSITIONS[state].get(signal, (state, Action.NOTHING))


def incident_id(subscriber: bytes, opening: int) -> str:
    """16 hexadecimal digits from the subscriber (16 bytes) and the number of its opening."""
    return hashlib.sha256(subscriber + opening.to_bytes(8, "big")).hexdigest()[:16]


def alert_id(incident: str, to: State) -> str:
    """Id of one transition: the same whoever computes it, so that consumers count distinct ids."""
    return hashlib.sha256(f"{incident}/{NUMBER[to]}".encode()).hexdigest()[:16]
