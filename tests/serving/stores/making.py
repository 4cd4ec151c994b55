"""Events, records and changes of states, in few words."""

from __future__ import annotations

import numpy as np

from foretaste.serving.stores import Event, StateChange

WIDTH = 6  # bytes of a record


def records(*values: int, width: int = WIDTH) -> np.ndarray:
    """One record for each value, filled with it."""
    return np.repeat(np.array(values, np.uint8)[:, None], width, axis=1)


def events(user: str, *items: str, first: int = 0) -> list[Event]:
    """One event a millisecond."""
    return [Event(user, item, first + at) for at, item in enumerate(items)]


def change(
    user: str,
    expected: int,
    consumed: int,
    made: np.ndarray,
    window: int = 4,
    model: str = "model",
    fresh: bool = False,
    birth: int | None = None,
) -> StateChange:
    """A change of the state of ``model``."""
    return StateChange(user, model, expected, consumed, made, window, fresh, birth)
