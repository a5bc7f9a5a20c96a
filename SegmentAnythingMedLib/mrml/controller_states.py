"""What the controller is doing, and the one table of how that changes."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """What the panel shows as going on."""

    IDLE = "idle"
    """No volume is chosen."""
    INSTALLING = "installing"
    """The host installs what a model needs; prompts are kept, nothing is asked of the worker."""
    PROMPTING = "prompting"
    """The user can prompt; nothing runs."""
    SEGMENTING = "segmenting"
    """An outline is being made."""
    PROPAGATING = "propagating"
    """Outlines are being carried through the volume."""
    REVIEWING = "reviewing"
    """Carried slices wait to be corrected, accepted or discarded."""
    FAILED = "failed"
    """The model, the volume or the worker cannot be used; the status says what to do."""


class Signal(enum.Enum):
    """What makes the state change."""

    OPENED = "opened"
    """A volume was chosen, or is opened anew."""
    CLOSED = "closed"
    """There is no volume any more."""
    INSTALL = "install"
    INSTALLED = "installed"
    OUTLINE = "outline"
    """An outline was asked for."""
    PROPAGATE = "propagate"
    ENDED = "ended"
    """Nothing runs any more, and nothing was carried."""
    REVIEWABLE = "reviewable"
    """Nothing runs any more, and carried slices are shown."""
    SETTLED = "settled"
    """The last proposal was accepted or discarded."""
    FAILED = "failed"
    RECOVERED = "recovered"


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    **{(state, Signal.CLOSED): State.IDLE for state in State},
    **{(state, Signal.OPENED): State.PROMPTING for state in State if state is not State.INSTALLING},
    **{(state, Signal.FAILED): State.FAILED for state in State if state is not State.IDLE},
    (State.INSTALLING, Signal.OPENED): State.INSTALLING,
    (State.IDLE, Signal.INSTALL): State.INSTALLING,
    (State.PROMPTING, Signal.INSTALL): State.INSTALLING,
    (State.REVIEWING, Signal.INSTALL): State.INSTALLING,
    (State.FAILED, Signal.INSTALL): State.INSTALLING,
    (State.INSTALLING, Signal.INSTALLED): State.PROMPTING,
    (State.PROMPTING, Signal.OUTLINE): State.SEGMENTING,
    (State.REVIEWING, Signal.OUTLINE): State.SEGMENTING,
    (State.PROMPTING, Signal.PROPAGATE): State.PROPAGATING,
    (State.SEGMENTING, Signal.PROPAGATE): State.PROPAGATING,
    (State.REVIEWING, Signal.PROPAGATE): State.PROPAGATING,
    (State.SEGMENTING, Signal.ENDED): State.PROMPTING,
    (State.SEGMENTING, Signal.REVIEWABLE): State.REVIEWING,
    (State.PROPAGATING, Signal.ENDED): State.PROMPTING,
    (State.PROPAGATING, Signal.REVIEWABLE): State.REVIEWING,
    (State.PROMPTING, Signal.SETTLED): State.PROMPTING,
    (State.REVIEWING, Signal.SETTLED): State.PROMPTING,
    (State.FAILED, Signal.RECOVERED): State.PROMPTING,
}
"""State and signal to the next state. A pair that is not here does not change the state."""


def next_state(state: State, signal: Signal) -> State:
    """The state after a signal; the same state if the signal means nothing in it."""
    return TRANSITIONS.get((state, signal), state)
