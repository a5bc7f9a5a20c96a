"""A self-prompting patch head: a light classifier says which patches show the structure, and they become prompts.

It stands in for ESP-MedSAM's self-patch prompt generator (Xu et al. 2024) and is an approximation of it. Theirs is a
small convolutional head on a network's 64 x 64 embedding that scores 32 x 32 patches, takes those of a sigmoid of 0.5
or more, and hands the patch map to the mask decoder as a dense prompt; it is trained with the decoder. Ours is a
logistic regression on the features of `descriptor`, trained on the user's own cases in seconds, without a network;
its patches are cells of a few millimetres, and the patch map becomes a box and clicks that the user can edit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.sources.descriptor import Describer
from SegmentAnythingMedLib.sources.learned import SLICES, Learned, LearnedSource, best_level, cells_to_learn
from SegmentAnythingMedLib.sources.source import Given

_WEIGHT_DECAY = 1e-3
_MOST_CELLS = 8000
"""Cells of each side that are trained on; more make training slower and change little."""
_STEPS = 200
_LEVEL = 0.5


@dataclass(frozen=True, eq=False)
class PatchHead(Learned):
    """One logistic regression a structure; scores are probabilities, and every level is 0.5.

    Parameters
    ----------
    mean, scale
        (D,): features are ``(f - mean) / scale`` before
    levels
        (L,).
    weights
        (L, D).
    biases
        (L,): set so that 0.5 is the level with the best Dice over the learned cells.
    """

    kind: ClassVar[str] = "patch heads"
    shapes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mean": ("D",),
        "scale": ("D",),
        "levels": ("L",),
        "weights": ("L", "D"),
        "biases": ("L",),
    }

    weights: np.ndarray
    biases: np.ndarray

    def score(self, rows: np.ndarray) -> np.ndarray:
        """See `Learned.score`: probabilities."""
        logits = self.weights @ ((rows - self.mean) / self.scale).T + self.biases[:, None]
        return _sigmoid(logits)


def learn_patch_head(
    cases: Sequence[Given], names: Mapping[int, str], describer: Describer | None = None, slices: int = SLICES
) -> PatchHead:
    """Learn structures from the user's own cases; arguments and errors are those of `learned.cells_to_learn`."""
    cells, origin = cells_to_learn(cases, names, describer, slices)
    mean, scale = cells.rows.mean(axis=0, dtype=np.float64), cells.rows.std(axis=0, dtype=np.float64) + 1e-6
    scaled = (cells.rows - mean) / scale
    weights, biases = [], []
    for inside, outside in zip(cells.inside.T, cells.outside.T, strict=True):
        weight, _ = _logistic_regression(scaled[_some(inside)], scaled[_some(outside)])
        weights.append(weight)
        biases.append(-best_level(scaled @ weight, inside, outside))
    levels = np.full(len(weights), _LEVEL)
    return PatchHead(origin, mean, scale, levels, np.stack(weights), np.array(biases))


def _some(chosen: np.ndarray) -> np.ndarray:
    """Indices of at most `_MOST_CELLS` of the (N,) bool, evenly spread."""
    found = np.flatnonzero(chosen)
    return found[:: -(-len(found) // _MOST_CELLS) or 1]


def _logistic_regression(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (D,) and bias that tell (N, D) rows of one side from those of the other; both sides weigh the same."""
    from scipy import optimize

    rows = np.concatenate([inside, outside])
    side = np.repeat([1.0, -1.0], [len(inside), len(outside)])
    share = np.repeat([0.5 / len(inside), 0.5 / max(len(outside), 1)], [len(inside), len(outside)])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight = parameters[:-1]
        margin = side * (rows @ weight + parameters[-1])
        pull = -side * share * _sigmoid(-margin)
        value = share @ np.logaddexp(0.0, -margin) + _WEIGHT_DECAY * weight @ weight
        return value, np.append(rows.T @ pull + 2 * _WEIGHT_DECAY * weight, pull.sum())

    start = np.zeros(rows.shape[1] + 1)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    return found[:-1], float(found[-1])


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


@dataclass(frozen=True)
class Source(LearnedSource):
    """Finds a structure by its patches; see `LearnedSource`."""

    name: ClassVar[str] = "patch_head"
    sentence: ClassVar[str] = "Asks a classifier trained on your own cases where a structure is, and boxes it."

    knowledge: ClassVar[type[Learned]] = PatchHead
    learn: ClassVar[Callable[..., Learned]] = staticmethod(learn_patch_head)
