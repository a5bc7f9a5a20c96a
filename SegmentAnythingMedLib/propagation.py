"""How an outline travels: which slices each pass visits, when it stops, and how two passes meet."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.errors import SegmentAnythingMedError


class Direction(enum.Enum):
    """Which way an outline travels from the key slices."""

    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"

    @property
    def steps(self) -> tuple[int, ...]:
        """+1 and -1, in the order they are run."""
        return {"forward": (1,), "backward": (-1,), "both": (1, -1)}[self.value]

    @classmethod
    def parse(cls, name: str | Direction) -> Direction:
        """The direction of this name, or an error that lists the names."""
        try:
            return cls(name)
        except ValueError as error:
            raise SegmentAnythingMedError(f"Direction {name!r} is not known: use forward, backward or both.") from error


@dataclass(frozen=True)
class StopRule:
    """When a pass beyond the outermost key slice ends: the object is gone for some slices in a row.

    Parameters
    ----------
    absent_slices
        Slices in a row on which the object is gone.
    min_area
        Below this share of the key slice's area the object counts as gone.
    round_trip
        If above 0: tracking back from a slice to the one before it must give at least this Dice, or the object
        counts as gone. Costs a second prediction per slice.
    """

    absent_slices: int = 2
    min_area: float = 0.05
    round_trip: float = 0.0

    def is_gone(self, presence: float, area: int, key_area: int, round_trip_dice: float = 1.0) -> bool:
        """Whether the object is gone on a slice; areas in pixels."""
        return presence < 0 or area == 0 or area < self.min_area * key_area or round_trip_dice < self.round_trip


@dataclass(frozen=True)
class Pass:
    """One run over neighbouring slices, away from a key slice.

    Parameters
    ----------
    key
        Key slice it starts from.
    step
        +1 or -1.
    first, last
        Slices visited, inclusive, in order of travel.
    other_key
        The key slice at the far end, or None if there is none (then a stop rule ends the pass).
    """

    key: int
    step: int
    first: int
    last: int
    other_key: int | None = None

    @property
    def indices(self) -> range:
        return range(self.first, self.last + self.step, self.step)

    def weight(self, index: int) -> float:
        """Share of this pass where it meets the opposite one: falls with the distance from its own key slice."""
        if self.other_key is None:
            return 1.0
        return abs(self.other_key - index) / abs(self.other_key - self.key)


def plan_passes(
    keys: Iterable[int], empty_keys: Iterable[int], first: int, last: int, direction: Direction
) -> list[Pass]:
    """All passes that fill ``first`` to ``last`` from the key slices.

    Parameters
    ----------
    keys
        Key slices with the object.
    empty_keys
        Key slices the user said are empty: passes end before them and none starts there.
    first, last
        Range of slices, inclusive, ``first <= last``. A pass starts beside its key slice, also outside the range.
    direction
        Which ways to travel.
    """
    keys, walls = sorted(keys), sorted({*keys, *empty_keys})
    passes = []
    for step in direction.steps:
        for key in keys:
            ahead = [wall for wall in walls if (wall - key) * step > 0]
            wall = min(ahead, key=lambda index: abs(index - key)) if ahead else None
            limit = last if step > 0 else first
            end = limit if wall is None else min(limit * step, (wall - step) * step) * step
            reached = max(key + step, first) if step > 0 else min(key + step, last)
            if (end - reached) * step < 0:
                continue
            begin = key + step
            passes.append(Pass(key, step, begin, end, wall if wall in keys else None))
    return passes


def walled_off(
    keys: Iterable[int], empty_keys: Iterable[int], first: int, last: int, direction: Direction
) -> list[int]:
    """Slices from ``first`` to ``last`` that the user's empty slices cut off from every key slice with the object.

    An earlier propagation that ran over the object's end may have left outlines there; no pass of `plan_passes` goes
    there to take them away. Only what lies behind an empty slice in a direction of travel counts.
    """
    keys, walls = set(keys), sorted({*keys, *empty_keys})
    found = []
    for index in range(first, last + 1):
        below, above = [wall for wall in walls if wall < index][-1:], [wall for wall in walls if wall > index][:1]
        behind = (below if 1 in direction.steps else []) + (above if -1 in direction.steps else [])
        if index not in walls and behind and not keys & {*below, *above}:
            found.append(index)
    return found


class Meeting:
    """Masks of the first pass between two key slices, kept until the opposite pass arrives and both are fused.

    Kept as probabilities in the mask's surroundings, so that memory follows the object and not the slice.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[float, tuple[slice, slice], np.ndarray]] = {}

    def leave(self, index: int, logits: np.ndarray, weight: float) -> None:
        """Keep (rows, columns) logits of the first pass."""
        probability = _probability(logits)
        rows, columns = (np.flatnonzero((probability > 0.02).any(axis=axis)) for axis in (1, 0))
        if len(rows):
            box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            self._waiting[index] = weight, box, probability[box].astype(np.float16)
        else:
            self._waiting[index] = weight, (slice(0), slice(0)), np.empty((0, 0), np.float16)

    def fuse(self, index: int, logits: np.ndarray) -> np.ndarray | None:
        """Logits of both passes, weighted by distance to the key slices; None if no pass left any."""
        if index not in self._waiting:
            return None
        weight, box, waiting = self._waiting.pop(index)
        fused = (1.0 - weight) * _probability(logits)
        fused[box] += weight * waiting.astype(np.float32)
        fused = np.clip(fused, 1e-4, 1 - 1e-4)
        return np.log(fused / (1 - fused))


def _probability(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -10.0, 10.0)))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks; 1 if both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 1.0 if total == 0 else 2.0 * np.count_nonzero(a & b) / total
