"""An answer on a crop: from log-odds to a clean mask, and how good it probably is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from SegmentAnythingMedLib.models.classic_clicks import border_values, region_clues
from SegmentAnythingMedLib.models.classic_crop import FAR, Crop
from SegmentAnythingMedLib.models.classic_random_walk import random_walk

TRUST = 0.15
"""Weight of the belief against a full-strength edge: smooths over about 1 / sqrt(TRUST) = 2.6 pixels."""
TRUST_FLOOR = 0.05
"""Share of the trust that a wholly uncertain pixel keeps: it follows its neighbours."""
KEPT_PART = 0.2
"""Parts of a mask smaller than this share of its largest part are dropped."""
_CERTAIN = 1e-4
_DECIDED = 0.1
"""Log-odds of pixels that cleaning moved to the other side."""
QUALITY_WEIGHTS = (-2.23, -0.07, 1.54, 0.6, -4.71, 4.08)
"""Logistic regression of the intersection over union on the tuning data: a constant, then `quality_clues`."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """An answer on a crop: (h, w) log-odds, and how certain the object is to be there."""

    crop: Crop
    logits: np.ndarray
    presence: float = FAR


def settled(crop: Crop, belief: np.ndarray, seeds: np.ndarray | None = None) -> np.ndarray:
    """(h, w) log-odds after the random walk, without crumbs and holes that no seed asked for."""
    probability = expit(belief)
    weight = TRUST * (TRUST_FLOOR + np.abs(2 * probability - 1))
    walked = random_walk(probability, weight, crop.edges, seeds)
    logits = logit(np.clip(walked, _CERTAIN, 1 - _CERTAIN))
    mask = _cleaned(logits > 0, np.zeros(logits.shape, np.int8) if seeds is None else seeds)
    return np.where(mask, np.maximum(logits, _DECIDED), np.minimum(logits, -_DECIDED))


def _cleaned(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        keep = sizes >= KEPT_PART * sizes.max()
        keep[labels[seeds > 0]] = True
        keep[0] = False
        mask = keep[labels]
    beyond, count = ndimage.label(~mask)
    fill = np.ones(count + 1, dtype=bool)
    fill[border_values(beyond)] = False
    fill[beyond[seeds < 0]] = False
    fill[0] = False
    return mask | fill[beyond] if fill.any() else mask


def predicted_quality(candidate: Candidate) -> float:
    """Predicted intersection over union."""
    if not (candidate.logits > 0).any():
        return 0.0
    return float(expit(QUALITY_WEIGHTS[0] + np.dot(QUALITY_WEIGHTS[1:], quality_clues(candidate))))


def quality_clues(candidate: Candidate) -> np.ndarray:
    """(5,) those of `region_clues`, and how sharp the mask's border is in probability."""
    inside = expit(candidate.logits)
    mask = candidate.logits > 0
    sharpness = np.minimum(inside, mask).sum() / np.maximum(inside, mask).sum()
    return np.append(region_clues(candidate.crop, mask), sharpness)
