"""The family without a network: intensity statistics, shape priors and a random walker, on numpy and scipy alone.

It is the floor that every network must beat, the double of the tests, the second opinion of the embedded network, and
the default where onnxruntime is missing. Every prompt and every memory becomes a map of log-odds on a small crop
(`classic_prompts`, `classic_clicks`, `classic_propagation`); a random walker with priors (`classic_random_walk`) makes
a mask of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import ModelUnavailableError, PromptError
from SegmentAnythingMedLib.models.base import Prediction, Recall, SliceImage, stacked, united_reach
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.classic_candidate import Candidate, predicted_quality, settled
from SegmentAnythingMedLib.models.classic_clicks import MAX_CANDIDATES, Seeds, corrected, distinct, grow_regions
from SegmentAnythingMedLib.models.classic_crop import FAR, Crop, Frame, mask_box
from SegmentAnythingMedLib.models.classic_intensity import value_channels
from SegmentAnythingMedLib.models.classic_prompts import box_belief, lasso_belief, region_belief
from SegmentAnythingMedLib.models.classic_propagation import ClassicMemory, expect, presence, recalled_box
from SegmentAnythingMedLib.prompts import SlicePrompts


@dataclass(frozen=True, eq=False)
class ClassicFeatures:
    """A slice as the solver sees it.

    Parameters
    ----------
    channels
        (F, rows, columns) float32, 0 to 1: grey value, or mean and colour differences.
    spacing_mm
        Size of a pixel.
    """

    channels: np.ndarray
    spacing_mm: tuple[float, float]

    @property
    def nbytes(self) -> int:
        return self.channels.nbytes

    @property
    def shape(self) -> tuple[int, int]:
        return self.channels.shape[1:]

    def crop_round(self, box_rc: np.ndarray) -> Crop:
        """The slice round a box ``(row0, column0, row1, column1)``."""
        return Crop.of(self.channels, Frame.round_box(self.shape, self.spacing_mm, box_rc))


class ClassicModel:
    """Implements `SliceModel` without weights, state or randomness."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def encode_slices(self, images: Sequence[SliceImage]) -> list[ClassicFeatures]:
        """Channels of each slice; the pixels themselves where there is only one."""
        return [ClassicFeatures(value_channels(image.pixels), image.spacing_mm) for image in images]

    def predict(
        self,
        features: ClassicFeatures,
        prompts: SlicePrompts,
        recall: Recall = Recall(),  # noqa: B008 (a frozen value)
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """See `SliceModel.predict`. Without prompts and memories the answer is empty and absent."""
        return self.track_step(features, prompts, recall, previous=previous, multimask=multimask)

    def encode_memory(self, features: ClassicFeatures, prediction: Prediction, prompted: bool) -> ClassicMemory:
        """Mask, area and histograms, a few kilobytes; ``prompted`` makes no difference."""
        mask = prediction.masks[0]
        crop = features.crop_round(mask_box(mask)) if mask.any() else None
        return ClassicMemory.of(mask, crop)

    def track_step(
        self,
        features: ClassicFeatures,
        prompts: SlicePrompts,
        memories: Recall,
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """The pure function under `predict`.

        A mask prompt is the answer. Otherwise a first answer comes from the previous one, a box or lasso, the
        memories, or regions grown from clicks, whichever there is first in this order; clicks and scribbles that
        contradict it change it round them.

        Parameters
        ----------
        features
            Of the slice.
        prompts
            In slice pixels; may be empty.
        memories
            `ClassicMemory` of other slices; may be empty.
        previous
            Earlier answer on this slice; ignored if its prompts are not all among ``prompts``.
        multimask
            Up to three candidates for a single click, else one.
        """
        if prompts.mask is not None:
            return _confirmed(prompts.mask, features.shape, prompts)
        seeds = Seeds.of(prompts, features.shape)
        candidates = _first_answers(features, prompts, memories, previous, seeds)
        if not seeds.is_empty:
            candidates = [_corrected(candidate, seeds) for candidate in candidates]
        kept = MAX_CANDIDATES if multimask and prompts.is_single_click else 1
        return _prediction(features, candidates, seeds, prompts, kept)

    def similarity(self, a: ClassicMemory, b: ClassicMemory) -> float:
        """Mean of overlap of the boxes and likeness of the grey values, scaled to -1 to 1; -1 if one is empty."""
        if a.is_empty or b.is_empty:
            return 1.0 if a.is_empty and b.is_empty else -1.0
        return _box_overlap(a.box_rc, b.box_rc) + a.appearance.correlation(b.appearance) - 1.0


def load(card: ModelCard, weights_path: Path | None, device: str = "auto", **options: object) -> ClassicModel:
    """The model; it has no weights and no options and runs on the CPU, whatever ``device`` says.

    Raises
    ------
    ModelUnavailableError
        If an option is given.
    """
    unknown = sorted({**card.options, **options})
    if unknown:
        raise ModelUnavailableError(f"Model {card.name!r} has no option {', '.join(unknown)}: remove it.")
    return ClassicModel(card)


def _first_answers(
    features: ClassicFeatures, prompts: SlicePrompts, memories: Recall, previous: Prediction | None, seeds: Seeds
) -> list[Candidate]:
    """Answers before corrections, best first; none if nothing says where the object is."""
    refines = previous is not None and not seeds.is_empty and previous.masks[0].any()
    if refines and _extends(prompts, previous):
        crop = features.crop_round(_box_with(mask_box(previous.masks[0]), seeds))
        return [Candidate(crop, crop.frame.take(previous.logits[0]))]
    recalled = recalled_box(memories)
    if prompts.box_rc is not None or prompts.lasso_rc is not None:
        return [_enclosed(features, prompts, memories if recalled is not None else None, seeds)]
    if recalled is not None:
        return [_tracked(features, memories, _box_with(recalled, seeds))]
    if not len(seeds.positive):
        return []
    grown = grow_regions(features.channels, features.spacing_mm, seeds)
    crops = [(Crop.of(features.channels, frame), region) for frame, region in grown]
    return [Candidate(crop, settled(crop, region_belief(crop, region))) for crop, region in crops]


def _enclosed(features: ClassicFeatures, prompts: SlicePrompts, memories: Recall | None, seeds: Seeds) -> Candidate:
    """Answer to a box or lasso; a lasso is the closer description if there are both."""
    if prompts.lasso_rc is not None:
        drawn = np.concatenate([prompts.lasso_rc.min(axis=0), prompts.lasso_rc.max(axis=0)])
    else:
        drawn = np.asarray(prompts.box_rc, dtype=np.float64)
    crop = features.crop_round(_box_with(drawn, seeds))
    known = expect(crop, memories).appearance if memories is not None else None
    if prompts.lasso_rc is not None:
        belief = lasso_belief(crop, prompts.lasso_rc, known)
    else:
        belief = box_belief(crop, drawn, known)
    logits = settled(crop, belief)
    return Candidate(crop, logits if (logits > 0).any() else belief)


def _tracked(features: ClassicFeatures, memories: Recall, box_rc: np.ndarray) -> Candidate:
    """Answer from memories alone."""
    crop = features.crop_round(box_rc)
    expected = expect(crop, memories)
    logits = settled(crop, expected.belief(crop))
    return Candidate(crop, logits, presence(crop, expected, logits > 0))


def _corrected(candidate: Candidate, seeds: Seeds) -> Candidate:
    """The candidate with every seed obeyed."""
    crop = candidate.crop
    labels = seeds.on(crop.frame)
    logits = settled(crop, corrected(crop, candidate.logits, labels), labels)
    return Candidate(crop, logits, FAR if (logits > 0).any() else -FAR)


def _prediction(
    features: ClassicFeatures, candidates: list[Candidate], seeds: Seeds, prompts: SlicePrompts, kept: int
) -> Prediction:
    """The best candidates on the whole slice, best first."""
    if not candidates:
        return Prediction(np.full((1, *features.shape), -FAR, np.float32), np.zeros(1), -FAR, prompts)
    found = np.array([predicted_quality(candidate) for candidate in candidates])
    order = np.argsort(-found, kind="stable")[: 1 if kept == 1 else None]
    candidates, found = [candidates[row] for row in order], found[order]
    wholes = [candidate.crop.frame.give(candidate.logits) for candidate in candidates]
    several = len(wholes) > 1
    rows = [row for row, _ in islice(distinct(whole > 0 for whole in wholes), kept)] if several else [0]
    logits = stacked([wholes[row] for row in rows])
    for one in logits:
        seeds.write(one)
    frames = [candidates[row].crop.frame.reach for row in rows]
    reach = united_reach([*frames, *(() if seeds.is_empty else (seeds.reach,))])
    return Prediction(logits, found[rows], candidates[rows[0]].presence, prompts, reach=reach)


def _confirmed(mask: np.ndarray, shape: tuple[int, int], prompts: SlicePrompts) -> Prediction:
    if np.shape(mask) != shape:
        raise PromptError(f"The mask prompt has shape {np.shape(mask)}, but the slice is {shape}.")
    logits = np.where(mask, FAR, -FAR).astype(np.float32)[None]
    return Prediction(logits, np.ones(1), FAR if np.any(mask) else -FAR, prompts)


def _extends(prompts: SlicePrompts, previous: Prediction) -> bool:
    """Whether the prompts only add clicks and scribbles to those that gave the previous answer."""
    before = previous.state
    if not isinstance(before, SlicePrompts):
        return True
    return before.encloses_as(prompts) and before.marks <= prompts.marks and before.mask is None


def _box_with(box_rc: np.ndarray, seeds: Seeds) -> np.ndarray:
    """The box, grown to hold all seeds."""
    points = np.concatenate([seeds.positive, seeds.negative, box_rc.reshape(2, 2)])
    return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float64)


def _box_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes of pixels."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 1
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (float(np.prod(a[2:] - a[:2] + 1)) + float(np.prod(b[2:] - b[:2] + 1)) - shared)
