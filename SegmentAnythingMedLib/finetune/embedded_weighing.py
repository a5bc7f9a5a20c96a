"""Fits how good joined answers are (`models.embedded_opinions.Weighing`) to answers on held-out structures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize, special

from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.models.embedded_opinions import (
    Weighing,
    candidate_clues,
    dice,
    joined_clues,
    joined_presence,
)

SMALL = 1e-3
"""Penalty on squared coefficients: keeps them finite where clues say the same."""
_Judged = list[tuple[np.ndarray, float]]


@dataclass(frozen=True, eq=False)
class Judgements:
    """Clues of answers beside their true Dice, and presence logits beside whether the structure was there."""

    joined: _Judged = field(default_factory=list)
    network: _Judged = field(default_factory=list)
    solver: _Judged = field(default_factory=list)
    presence: list[tuple[bool, float]] = field(default_factory=list)

    def add_joined(self, opinions: tuple[Prediction, Prediction], answer: Prediction, truth: np.ndarray) -> None:
        """An answer of `TwoOpinions.join` that is not empty, and the (rows, columns) truth."""
        if answer.masks[0].any():
            self.joined.append((joined_clues(*opinions, answer.logits[0]), dice(answer.masks[0], truth)))

    def add_candidates(self, opinions: tuple[Prediction, Prediction], truth: np.ndarray) -> None:
        """Candidates of a click, and the (rows, columns) truth."""
        judged = (self.network, self.solver)
        for one, clues, store in zip(opinions, candidate_clues(*opinions), judged, strict=True):
            store += [(clue, dice(mask, truth)) for clue, mask in zip(clues, one.masks, strict=True) if mask.any()]

    def add_presence(self, opinions: tuple[Prediction, Prediction], there: bool) -> None:
        """A tracked slice."""
        self.presence.append((there, joined_presence(*opinions)))

    def weighing(self) -> Weighing:
        """What fits best; defaults where nothing was judged."""
        names = ("joined", "network", "solver")
        fitted = {name: _regression(getattr(self, name)) for name in names if getattr(self, name)}
        return Weighing(**fitted, presence_offset=presence_offset(self.presence))


def presence_offset(presence: Iterable[tuple[bool, float]]) -> float:
    """The logit that tells slices with the structure from those beyond its ends best; a lost slice counts double."""
    pairs = list(presence)
    inside = np.array([logit for there, logit in pairs if there])
    beyond = np.array([logit for there, logit in pairs if not there])
    if not len(inside) or not len(beyond):
        return 0.0
    offsets = np.linspace(-2.0, 4.0, 61)
    right = [2 * (inside > offset).mean() + (beyond <= offset).mean() for offset in offsets]
    return round(float(offsets[int(np.argmax(right))]), 2)


def _regression(judged: _Judged) -> tuple[float, ...]:
    """Logistic regression of the intersection over union."""
    clues = np.array([clue for clue, _ in judged])
    found = np.array([value for _, value in judged])
    wanted = found / (2 - found)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = clues @ weights
        value = np.mean(np.logaddexp(0, logits) - wanted * logits) + SMALL * (weights[1:] ** 2).sum()
        gradient = clues.T @ (special.expit(logits) - wanted) / len(wanted)
        return float(value), gradient + 2 * SMALL * np.append(0.0, weights[1:])

    best = optimize.minimize(loss, np.zeros(clues.shape[1]), jac=True, method="L-BFGS-B").x
    return tuple(round(float(weight), 4) for weight in best)
