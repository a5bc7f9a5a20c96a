"""A slider from part to whole: among a model's candidates by their area, the way UnSAMv2's granularity works.

UnSAMv2 (Yu et al. 2025) hands its network a granularity from 0.1 to 1 as a token, learned from areas in a hierarchy of
masks. Such weights are no family here and the token is not built; without it the three candidates of a click stand
in, an approximation. The value v from 0 (part) to 1 (whole) means the area ``A = Amin^(1-v) * Amax^v`` of the smallest
and the largest candidate: steps of the slider multiply the area, since anatomy nests by factors (UnSAMv2's own labels
are linear in the square root of the area). `pick` takes the candidate whose log area is nearest, the smaller one in
doubt; `between` morphs between the two candidates round that area by their signed distances, in millimetres. Nothing
is random, and where candidates nest the outline only grows with v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.memory.settings import setting
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.prompts import MaskPrompt, Prompt, SlicePrompts
from SegmentAnythingMedLib.sources import clicks
from SegmentAnythingMedLib.sources.source import Given, Need, PromptSource

_NESTED = 0.9
"""Share of the smaller candidate inside the larger from which on there is something between them."""


def pick(masks: np.ndarray, value: float) -> int:
    """The candidate at a value of the slider.

    Parameters
    ----------
    masks
        (M, rows, columns) bool: `Prediction.masks_in_model_order`, or `SliceResult.candidates`; the answer is then what
        `Prediction.preferring` and `VolumeSession.choose_candidate` take.
    value
        0 (part) to 1 (whole).

    Raises
    ------
    PromptError
        If the value is out of range or all candidates are empty.
    """
    order, logs = _by_area(masks, value)
    wanted = _wanted(logs, value)
    return order[int(np.argmin(np.round(np.abs(logs - wanted), 9)))]


def position(masks: np.ndarray, candidate: int) -> float:
    """Where the slider stands when a candidate is shown, 0 to 1: what `pick` takes back to it; 0 if all are alike."""
    _, logs = _by_area(masks, 0.0)
    span = float(logs[-1] - logs[0])
    area = np.count_nonzero(masks[candidate])
    return float(np.clip((np.log(area) - logs[0]) / span, 0, 1)) if span and area else 0.0


def between(masks: np.ndarray, value: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    """(rows, columns) bool: the outline at a value of the slider, morphed between two candidates that nest.

    Candidates that do not nest have nothing between them: `pick` decides.

    Parameters
    ----------
    masks, value
        As for `pick`.
    spacing_mm
        Size of a pixel.

    Raises
    ------
    PromptError
        As for `pick`.
    """
    order, logs = _by_area(masks, value)
    wanted = _wanted(logs, value)
    upper = int(np.clip(np.searchsorted(logs, wanted), 1, max(len(order) - 1, 1)))
    if len(order) == 1 or logs[upper] == logs[upper - 1]:
        return masks[order[0 if len(order) == 1 else upper - 1]]
    small, large = masks[order[upper - 1]], masks[order[upper]]
    if np.count_nonzero(small & large) < _NESTED * np.count_nonzero(small):
        return masks[pick(masks, value)]
    share = float(np.clip((wanted - logs[upper - 1]) / (logs[upper] - logs[upper - 1]), 0, 1))
    if share in (0.0, 1.0):
        return large if share else small
    first, second = _signed_mm(small, spacing_mm), _signed_mm(large, spacing_mm)
    return (1 - share) * first + share * second > 0


def mask_prompt(prediction: Prediction, value: float, slices: SliceGeometry, index: int) -> MaskPrompt:
    """The outline at a value of the slider as a prompt that is the answer on its slice; see `between`."""
    return MaskPrompt(between(prediction.masks_in_model_order, value, slices.spacing_mm), index, slices.plane)


def _by_area(masks: np.ndarray, value: float) -> tuple[list[int], np.ndarray]:
    """Candidates that are not empty, smallest first, and the logarithms of their areas."""
    if not 0 <= value <= 1:
        raise PromptError(f"The slider goes from 0 (part) to 1 (whole), not to {value!r}.")
    areas = np.count_nonzero(masks, axis=(1, 2))
    order = [int(row) for row in np.argsort(areas, kind="stable") if areas[row]]
    if not order:
        raise PromptError("All candidates are empty: click inside the object first.")
    return order, np.log(areas[order])


def _wanted(logs: np.ndarray, value: float) -> float:
    return float((1 - value) * logs[0] + value * logs[-1])


def _signed_mm(mask: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """(rows, columns): distance to the nearest pixel of the other side, positive inside; beyond the slice: outside."""
    from scipy import ndimage

    padded = np.pad(mask, 1)
    away = ndimage.distance_transform_edt(~padded, sampling=spacing_mm)
    return (ndimage.distance_transform_edt(padded, sampling=spacing_mm) - away)[1:-1, 1:-1]


@dataclass(frozen=True)
class Source(PromptSource):
    """One click in the middle of a rough mask, and of the model's candidates the one at a value of the slider."""

    name: ClassVar[str] = "part_whole"
    sentence: ClassVar[str] = "Clicks in a rough mask and takes the part, the whole, or what lies between."
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LABELS, Need.MODEL})

    value: float = setting(0.5, "0 is the smallest candidate (part), 1 the largest (whole)", 0, 1)
    morph: bool = setting(False, "also outlines between the candidates")

    def prompts(self, given: Given) -> tuple[Prompt, ...]:
        """The click, and the outline as a mask; see `PromptSource.prompts`."""
        given.check(self.needs, self.name)
        index = given.largest_slice()
        spacing = given.slices.spacing_mm
        deepest = next(clicks.deepest_points(given.mask_on(index), spacing, 1))
        asked = SlicePrompts(np.array([deepest], np.float64), np.ones(1, bool))
        masks = given.predict(index, asked, multimask=True).masks_in_model_order
        chosen = between(masks, self.value, spacing) if self.morph else masks[pick(masks, self.value)]
        return (*clicks.points(given.slices, index, [deepest]), MaskPrompt(chosen, index, given.slices.plane))
