"""What remembered slices say about the next one: where the object should be, how it looks, and whether it has ended."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.models.base import Recall, Recalled
from SegmentAnythingMedLib.models.classic_crop import FAR, Crop, mask_box, signed_distance_mm
from SegmentAnythingMedLib.models.classic_intensity import Appearance

SHAPE_WEIGHT = 12.0
"""Log-odds one object radius inside the remembered border, on the next slice."""
SPREAD = 0.5
"""The border is trusted less with distance: half as much over two slices more."""
EVIDENCE_WEIGHT = 0.6
KEY_WEIGHT = 6.0
"""Trust in how the key slices look, relative to the newest slice: errors must not teach themselves."""
ANCHOR = 0.1
"""Share of the nearest key slice's shape in the expected shape: 0 drifts, 0.3 clings."""
_REACH = 2.0
"""Distances beyond this many radii say no more."""


@dataclass(frozen=True, eq=False)
class ClassicMemory:
    """A remembered slice in a few kilobytes.

    Parameters
    ----------
    box_rc
        (4,) int first and last row and column of the mask, or None if the mask is empty.
    packed
        The bits of the mask in that box.
    appearance
        Histograms of the object and of what is near it.
    area_mm2
        Area of the mask.
    evidence
        Mean log-likelihood ratio inside the mask: how well the object stands out.
    """

    box_rc: np.ndarray | None
    packed: np.ndarray
    appearance: Appearance
    area_mm2: float
    evidence: float

    @classmethod
    def of(cls, mask: np.ndarray, crop: Crop | None) -> ClassicMemory:
        """From a (rows, columns) mask and a crop of the slice round it, None if the mask is empty."""
        if crop is None:
            nothing = np.empty((0, 0), dtype=np.float32)
            return cls(None, np.empty(0, dtype=np.uint8), Appearance(nothing, nothing), 0.0, 0.0)
        box = mask_box(mask).astype(int)
        inside = crop.frame.take(mask)
        appearance = Appearance.measure(crop.bins, inside, 1 - inside)
        evidence = float((appearance.evidence(crop.bins) * inside).sum() / inside.sum())
        area_mm2 = float(mask.sum()) * crop.frame.spacing_mm[0] * crop.frame.spacing_mm[1]
        block = mask[box[0] : box[2] + 1, box[1] : box[3] + 1]
        return cls(box, np.packbits(block), appearance, area_mm2, evidence)

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.appearance.nbytes + (0 if self.is_empty else self.box_rc.nbytes)

    @property
    def is_empty(self) -> bool:
        return self.box_rc is None

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """(rows, columns) bool on the whole slice."""
        whole = np.zeros(shape, dtype=bool)
        if not self.is_empty:
            row0, column0, row1, column1 = self.box_rc
            size = (row1 - row0 + 1, column1 - column0 + 1)
            block = np.unpackbits(self.packed, count=size[0] * size[1]).reshape(size)
            whole[row0 : row1 + 1, column0 : column1 + 1] = block
        return whole


@dataclass(frozen=True, eq=False)
class Expectation:
    """What memories say about a crop.

    Parameters
    ----------
    shape
        (h, w) log-odds from the remembered masks.
    appearance
        Of the object and its surroundings.
    newest, key
        The nearest memory, and the nearest key slice.
    """

    shape: np.ndarray
    appearance: Appearance
    newest: ClassicMemory
    key: ClassicMemory

    def belief(self, crop: Crop) -> np.ndarray:
        """(h, w) log-odds from shape and appearance."""
        return np.clip(self.shape + EVIDENCE_WEIGHT * self.appearance.evidence(crop.bins), -FAR, FAR)


def recalled_box(recall: Recall) -> np.ndarray | None:
    """Box round the masks the next one is expected from, or None if the object is on none of them."""
    boxes = [m.memory.box_rc for m in _neighbours(recall) if not m.memory.is_empty]
    if not boxes:
        return None
    return np.concatenate([np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]]).astype(np.float64)


def expect(crop: Crop, recall: Recall) -> Expectation:
    """Expected shape and look, from memories of which one at least is not empty.

    Between two slices the shape is interpolated by signed distance (Raya and Udupa, "Shape-based interpolation of
    multidimensional objects", 1990); beyond them it is the last one's.
    """
    near = _neighbours(recall)
    filled = [m for m in near if not m.memory.is_empty]
    keys = [m for m in recall.memories if m.slot == 0 and not m.memory.is_empty] or filled
    newest = min(filled, key=_gap).memory
    key = min(keys, key=_gap).memory
    radius = math.sqrt(max(m.memory.area_mm2 for m in filled) / math.pi)
    weights = np.array([1.0 / _gap(m) for m in near])
    distances = [_remembered_distance(crop, m.memory, radius) for m in near]
    distance = (1 - ANCHOR) * np.average(distances, axis=0, weights=weights)
    distance += ANCHOR * np.clip(_remembered_distance(crop, key, radius), -radius, radius)
    trust = SHAPE_WEIGHT / (1 + SPREAD * (min(map(_gap, near)) - 1))
    looks = [(KEY_WEIGHT / len(keys), m.memory.appearance) for m in keys]
    looks += [(1.0 / len(filled), m.memory.appearance) for m in filled]
    return Expectation(trust * distance / radius, Appearance.blend(looks), newest, key)


PRESENCE_WEIGHTS = (1.18, -1.91, 0.91, -1.1, 0.15, 0.83, -0.34)
"""Logistic regression on the tuning data: a constant, then the order of `presence_clues`."""


def presence(crop: Crop, expected: Expectation, mask: np.ndarray) -> float:
    """Logit that the object is still there, given the (h, w) mask found; below 0 it has ended."""
    if not mask.any():
        return -FAR
    clues = presence_clues(crop, expected, mask)
    return float(np.clip(PRESENCE_WEIGHTS[0] + np.dot(PRESENCE_WEIGHTS[1:], clues), -FAR, FAR))


def presence_clues(crop: Crop, expected: Expectation, mask: np.ndarray) -> np.ndarray:
    """(6,) log area ratio to the newest and to the key slice, overlap with the expected region, mean evidence in the
    expected and in the found region, and in the key slice."""
    pixel_mm2 = crop.frame.step_mm[0] * crop.frame.step_mm[1]
    area_mm2 = float(mask.sum()) * pixel_mm2
    evidence = expected.appearance.evidence(crop.bins)
    before = expected.shape > 0
    overlap = float((mask & before).sum()) / float((mask | before).sum())
    core = float(evidence[before].mean()) if before.any() else 0.0
    return np.array(
        [
            math.log(area_mm2 / expected.newest.area_mm2),
            math.log(area_mm2 / expected.key.area_mm2),
            overlap,
            core,
            float(evidence[mask].mean()),
            expected.key.evidence,
        ]
    )


def _neighbours(recall: Recall) -> list[Recalled]:
    """The nearest remembered slice on each side."""
    sides = ([m for m in recall.memories if m.distance >= 0], [m for m in recall.memories if m.distance < 0])
    return [min(side, key=_gap) for side in sides if side]


def _gap(recalled: Recalled) -> int:
    return max(abs(recalled.distance), 1)


def _remembered_distance(crop: Crop, memory: ClassicMemory, radius: float) -> np.ndarray:
    """(h, w) signed distance to a remembered border in mm, limited to where it says something."""
    mask = crop.frame.take_mask(memory.mask(crop.frame.shape))
    return np.clip(signed_distance_mm(mask, crop.frame.step_mm), -_REACH * radius, _REACH * radius)
