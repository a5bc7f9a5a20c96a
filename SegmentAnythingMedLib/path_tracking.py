"""Follows one object along several paths at once, for the policy `multi_path` (SAM2Long, arXiv 2410.16268)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from SegmentAnythingMedLib.memory.policies.multi_path import Policy as PathPolicy
from SegmentAnythingMedLib.memory.policies.multi_path import Way
from SegmentAnythingMedLib.models.base import Prediction, Sized
from SegmentAnythingMedLib.tracking import Step, Tracker, TrackState


@dataclass(frozen=True, eq=False)
class _Footprint:
    """What a path found on a slice, and what it had found before: paths share their past."""

    index: int
    shape: tuple[int, int]
    bits: np.ndarray
    quality: float
    presence: float
    overlap: float
    before: _Footprint | None

    @classmethod
    def of(cls, index: int, found: Step, before: _Footprint | None) -> _Footprint:
        bits = np.packbits(found.mask)
        return cls(index, found.mask.shape, bits, found.quality, found.presence, found.overlap, before)

    def step(self) -> Step:
        mask = np.unpackbits(self.bits, count=self.shape[0] * self.shape[1]).reshape(self.shape).astype(bool)
        logits = np.where(mask, 10.0, -10.0).astype(np.float32)
        return Step(logits, mask, self.quality, self.presence, self.overlap)

    def backwards(self) -> Iterator[_Footprint]:
        one: _Footprint | None = self
        while one is not None:
            yield one
            one = one.before


@dataclass
class _Path:
    """One of the ways: its own tracking state, its score so far, and its trace."""

    state: TrackState
    score: float = 0.0
    trace: _Footprint | None = None
    stopped: bool = False


class PathTracker(Tracker):
    """A tracker whose state forks: on every slice the best of all masks of all paths go on.

    `step` answers with the path that is best so far; `conclude` says on which slices another one was better after all.
    """

    def __init__(self, model: object, policy: PathPolicy, *rest: object) -> None:
        super().__init__(model, policy, *rest)
        self._paths = [_Path(self._state)]
        self._shown: dict[int, _Footprint] = {}

    def step(self, index: int, features: Sized, features_before: Callable[[], Sized]) -> Step:
        """Predict a slice along every path and keep the best."""
        context = self._context(index, features)
        ways = [
            (path, prediction.preferring(candidate) if len(prediction.logits) > 1 else prediction)
            for path in self._paths
            for prediction in [self._predict(path.state.bank, context, features)]
            for candidate in range(len(prediction.logits))
        ]
        best: Step | None = None
        paths = []
        for place in self._chosen_ways(ways):
            path, prediction = ways[place]
            state = path.state.fork()
            found = self._settle(state, context, features, features_before, prediction)
            if found.revived is not None:  # the slice before was not empty after all, on this path
                path = replace(path, trace=_Footprint.of(path.trace.index, found.revived, path.trace.before))
            trace = _Footprint.of(index, found, path.trace)
            paths.append(_Path(state, _way(path, prediction).total, trace, self.stopped))
            best = best or found
        self._paths, self.stopped = paths, paths[0].stopped
        if best.revived is not None:
            self._shown[paths[0].trace.before.index] = paths[0].trace.before
        self._shown[index] = paths[0].trace
        return best

    def recall(self, index: int, features: Sized) -> None:
        """Every path looks back on its own."""
        return None

    def conclude(self) -> list[tuple[int, Step]]:
        """Slices on which the best path as a whole found something else than was shown, in order of travel."""
        if self._paths[0].trace is None:
            return []
        final = list(self._paths[0].trace.backwards())[::-1]
        return [(one.index, one.step()) for one in final if not np.array_equal(one.bits, self._shown[one.index].bits)]

    def _chosen_ways(self, ways: list[tuple[_Path, Prediction]]) -> list[int]:
        def overlap(a: int, b: int) -> float:
            first, second = ways[a][1].masks[0], ways[b][1].masks[0]
            union = np.count_nonzero(first | second)
            return np.count_nonzero(first & second) / union if union else 1.0

        return self._policy.go_on([_way(path, prediction) for path, prediction in ways], overlap)


def _way(path: _Path, prediction: Prediction) -> Way:
    return Way(path.score, float(prediction.quality[0]), prediction.presence)
