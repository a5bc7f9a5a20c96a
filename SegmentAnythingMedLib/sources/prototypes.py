"""Class prototypes from the user's own cases: one feature vector a structure, found again on new slices.

The idea is SurgicalSAM's (Yue et al. 2024): a class is a vector, its cosine with the image's features is a map, and the
map becomes the prompt, so that the class is named instead of clicked. Ours is an approximation that learns in a
second and needs no network: a prototype is the mean of the features under the masks, after whitening by all cells of
the learned slices (Hariharan, Malik and Ramanan 2012: the cosine then discriminates against what is common, as linear
discriminant analysis does). SurgicalSAM trains the vectors, its prompt encoder and the mask decoder by gradient, and
prompts with tokens; we give a box, a click at the peak, and negative clicks at confusions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.memory.settings import setting
from SegmentAnythingMedLib.sources.descriptor import Describer
from SegmentAnythingMedLib.sources.learned import SLICES, Learned, LearnedSource, best_level, cells_to_learn
from SegmentAnythingMedLib.sources.source import Given

_SHRINKAGE = 0.01
"""Share of the identity in the covariance of the scaled features, so that it can be inverted and rare directions do
not rule."""


@dataclass(frozen=True, eq=False)
class Prototypes(Learned):
    """Prototypes of some structures; scores are cosines.

    Parameters
    ----------
    mean, scale
        (D,): features are ``(f - mean) / scale`` before
    levels
        (L,): the cosine above which most learned cells of a structure, and few others, lie.
    whitening
        (D, D).
    vectors
        (L, D): the prototypes, of length 1.
    """

    kind: ClassVar[str] = "prototypes"
    shapes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mean": ("D",),
        "scale": ("D",),
        "levels": ("L",),
        "whitening": ("D", "D"),
        "vectors": ("L", "D"),
    }

    whitening: np.ndarray
    vectors: np.ndarray

    def score(self, rows: np.ndarray) -> np.ndarray:
        """See `Learned.score`: cosines, and -1 where another of the structures is more alike."""
        white = _of_length_1(((rows - self.mean) / self.scale) @ self.whitening)
        cosines = self.vectors @ white.T
        return np.where(cosines == cosines.max(axis=0), cosines, -1.0)


def learn_prototypes(
    cases: Sequence[Given], names: Mapping[int, str], describer: Describer | None = None, slices: int = SLICES
) -> Prototypes:
    """Learn structures from the user's own cases; arguments and errors are those of `learned.cells_to_learn`."""
    cells, origin = cells_to_learn(cases, names, describer, slices)
    mean, scale = cells.rows.mean(axis=0, dtype=np.float64), cells.rows.std(axis=0, dtype=np.float64) + 1e-6
    scaled = (cells.rows - mean) / scale
    whitening = _whitening(scaled)
    white = scaled @ whitening
    vectors = _of_length_1(np.stack([white[inside].mean(axis=0) for inside in cells.inside.T]))
    levels = np.zeros(len(vectors))
    learned = Prototypes(origin, mean, scale, levels, whitening, vectors)
    for number, score in enumerate(learned.score(cells.rows)):
        levels[number] = best_level(score, cells.inside[:, number], cells.outside[:, number])
    return learned


def _whitening(scaled: np.ndarray) -> np.ndarray:
    """(D, D) symmetric: the inverse square root of the shrunk covariance of (N, D) features."""
    covariance = scaled.T @ scaled / len(scaled)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.eye(len(covariance))
    values, axes = np.linalg.eigh(covariance)
    return (axes / np.sqrt(values)) @ axes.T


def _of_length_1(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@dataclass(frozen=True)
class Source(LearnedSource):
    """Finds a structure by its prototype; see `LearnedSource`."""

    name: ClassVar[str] = "prototypes"
    sentence: ClassVar[str] = "Finds what looks like a structure of your own cases, and draws a box and clicks."

    negatives: int = setting(2, "most negative clicks on what looks alike beside it", 0, 9)
    knowledge: ClassVar[type[Learned]] = Prototypes
    learn: ClassVar[Callable[..., Learned]] = staticmethod(learn_prototypes)
