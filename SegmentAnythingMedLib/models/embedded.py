"""The embedded model: a few megabytes of convolutions that outline at once, offline, without torch.

It sees a square window round the prompt (`embedded_crop`), everything that is known as maps beside the image
(`embedded_channels`), and answers three candidates, how good each is, and whether the object is there. The features
of a slice are its grey values; the network runs once per answer.

`load` joins it with the solver without a network (`embedded_opinions`).

Options of a card: ``threads`` (0 leaves one core free), ``alone`` (the network without the solver), ``memory_slots``,
``max_pointers``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import ModelUnavailableError, PromptError
from SegmentAnythingMedLib.models.base import Prediction, Recall, SliceImage, SliceModel, stacked
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.classic import ClassicModel
from SegmentAnythingMedLib.models.embedded_candidates import Candidate, click_frames, distinct, reached, whole_slice
from SegmentAnythingMedLib.models.embedded_channels import EmbeddedMemory, luminance, network_input
from SegmentAnythingMedLib.models.embedded_context import (
    Box,
    chosen_memories,
    drawn_points,
    known_box,
    refined,
    shown_answer,
    shown_prompts,
    united,
)
from SegmentAnythingMedLib.models.embedded_crop import FINE_SIZE, INPUT_SIZE, Frame, mask_box
from SegmentAnythingMedLib.models.embedded_opinions import FAR, TwoOpinions, Weighing
from SegmentAnythingMedLib.models.embedded_runtime import OnnxRun, Run
from SegmentAnythingMedLib.prompts import SlicePrompts

FINE_ABOVE = 3.0
"""Slice pixels per network pixel from which on the window is shown at `FINE_SIZE`.

The network is trained at 128 x 128. Below this the finer window cost twice the time and lost Dice on held-out
structures (box and 5 clicks .85, .62, .88 with 1.5; .86, .63, .89 with 3)."""
ZOOMS = 2
"""Times a window is enlarged at most because the mask reaches its border."""
MEMORY_MARGIN = 1.0
"""Surroundings kept of a remembered slice, as a share of the object's longer side, on each side."""
_OPTIONS = {"threads", "memory_slots", "max_pointers", "alone"}


@dataclass(frozen=True, eq=False)
class EmbeddedFeatures:
    """A slice: (rows, columns) uint8 grey values, and the size of a pixel."""

    pixels: np.ndarray
    spacing_mm: tuple[float, float]

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes

    @property
    def shape(self) -> tuple[int, int]:
        return self.pixels.shape


class EmbeddedModel:
    """Implements `SliceModel`.

    Parameters
    ----------
    card
        Name and options.
    run
        The network.
    """

    def __init__(self, card: ModelCard, run: Run) -> None:
        self.card = card
        self._run = run

    def encode_slices(self, images: Sequence[SliceImage]) -> list[EmbeddedFeatures]:
        """Grey values of each slice; colour becomes luminance."""
        return [EmbeddedFeatures(luminance(image.pixels), image.spacing_mm) for image in images]

    def predict(
        self,
        features: EmbeddedFeatures,
        prompts: SlicePrompts,
        recall: Recall = Recall(),  # noqa: B008 (a frozen value)
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """See `SliceModel.predict`. Without prompts and memories the answer is empty and absent."""
        return self.track_step(features, prompts, recall, previous=previous, multimask=multimask)

    def track_step(
        self,
        features: EmbeddedFeatures,
        prompts: SlicePrompts,
        memories: Recall,
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """The pure function under `predict`.

        A mask prompt is the answer. Otherwise the window lies round the answer to refine, the box or lasso, or the
        remembered mask; for clicks alone several windows of different size are tried.
        """
        if prompts.mask is not None:
            return _confirmed(prompts, features.shape)
        previous = refined(prompts, previous)
        # An outline to correct says more than a key slice some way off, which pulls it back to where the object was
        # there: the phantom's kidney, 7 slices from its key slice, .84; after a click .18 with the memory, .91 without.
        known = chosen_memories(memories) if previous is None else ()
        box = known_box(prompts, previous, known)
        if box is not None:
            candidates = [self._outline(features, prompts, previous, known, box)]
        elif len(drawn_points(prompts, positive_only=True)):
            candidates = self._outline_click(features, prompts, 3 if multimask and prompts.is_single_click else 1)
        else:
            candidates = []
        return self._prediction(features, candidates, prompts)

    def encode_memory(self, features: EmbeddedFeatures, prediction: Prediction, prompted: bool) -> EmbeddedMemory:
        """Grey values and mask round the object; ``prompted`` makes no difference."""
        mask = prediction.masks[0]
        if not mask.any():
            nothing = np.empty((0, 0), dtype=np.uint8)
            return EmbeddedMemory(nothing, nothing.astype(bool), (0, 0))
        row0, column0, row1, column1 = mask_box(mask)
        spacing = np.array(features.spacing_mm)
        margin = MEMORY_MARGIN * ((np.array([row1 - row0, column1 - column0]) + 1) * spacing).max() / spacing + 8
        low = np.maximum(np.floor(np.array([row0, column0]) - margin), 0).astype(int)
        high = np.minimum(np.ceil(np.array([row1, column1]) + margin) + 1, features.shape).astype(int)
        part = (slice(low[0], high[0]), slice(low[1], high[1]))
        return EmbeddedMemory(features.pixels[part].copy(), mask[part].copy(), (int(low[0]), int(low[1])))

    def similarity(self, a: EmbeddedMemory, b: EmbeddedMemory) -> float:
        """Overlap of the grey values' histograms inside the masks, scaled to -1 to 1; -1 if one is empty."""
        if a.is_empty or b.is_empty:
            return 1.0 if a.is_empty and b.is_empty else -1.0
        counts = [np.bincount(one.pixels[one.mask] >> 3, minlength=32) / one.mask.sum() for one in (a, b)]
        return float(2 * np.minimum(*counts).sum() - 1)

    def _outline(
        self,
        features: EmbeddedFeatures,
        prompts: SlicePrompts,
        previous: Prediction | None,
        memories: tuple[tuple[EmbeddedMemory, int], ...],
        box: Box,
    ) -> Candidate:
        """The first candidate in a window round a box, zoomed out while the mask reaches the window's border."""
        encloses = prompts.box_rc is not None or prompts.lasso_rc is not None
        shown, earlier = shown_prompts(prompts, previous, memories), shown_answer(prompts, previous)
        for zoom in range(ZOOMS + 1):
            frame = _fine(Frame.round_box(box, features.spacing_mm))
            answer = self._run(network_input(features.pixels, frame, shown, earlier, memories)[None])
            found = Candidate(frame, answer.logits[0, 0], float(answer.quality[0, 0]), float(answer.presence[0]))
            if encloses or zoom == ZOOMS or not found.touches_border or frame.covers(features.shape):
                break
            box = united(box, found.box_rc)
        return found if not prompts.is_empty else replace(found, tracked=True)

    def _outline_click(self, features: EmbeddedFeatures, prompts: SlicePrompts, count: int) -> list[Candidate]:
        """Up to ``count`` candidates from windows of different sizes, the best outlined again at its own scale."""
        points = drawn_points(prompts, positive_only=True)
        frames = click_frames(points, features.shape, features.spacing_mm)
        maps = np.stack([network_input(features.pixels, frame, prompts) for frame in frames])
        answer = self._run(maps)
        everyone = [
            Candidate(frame, answer.logits[row, k], float(answer.quality[row, k]), float(answer.presence[row]))
            for row, frame in enumerate(frames)
            for k in range(answer.logits.shape[1])
        ]
        best = distinct(everyone, count)
        if best and best[0].share < 0.25:
            earlier = Prediction(best[0].frame.give(best[0].logits, features.shape)[None], np.ones(1))
            if earlier.masks[0].any():
                box = united(mask_box(earlier.masks[0]), *(np.tile(point, 2) for point in points))
                best[0] = self._outline(features, prompts, earlier, (), box)
        return best

    def _prediction(self, features: EmbeddedFeatures, candidates: list[Candidate], prompts: SlicePrompts) -> Prediction:
        """Candidates on the whole slice, best first; clicked pixels get their label."""
        if not candidates:
            return Prediction(np.full((1, *features.shape), -FAR, np.float32), np.zeros(1), -FAR, prompts)
        logits = stacked([whole_slice(one, features.shape, prompts) for one in candidates])
        reach = reached([one.frame for one in candidates], features.shape, prompts)
        first, filled = candidates[0], (logits[:, *reach] > 0).any(axis=(1, 2))
        presence = first.presence if first.tracked else FAR
        presence = presence if filled[0] else min(presence, -1.0)
        quality = 1 / (1 + np.exp(-np.array([one.quality for one in candidates])))
        quality[~filled] = 0.0
        presence = float(np.clip(presence, -FAR, FAR))
        return Prediction(logits, quality.astype(np.float32), presence, prompts, reach=reach)


def load(card: ModelCard, weights: Path | None, device: str = "auto", **options: object) -> SliceModel:
    """The model with its weights, joined with the solver; it runs on the CPU, whatever ``device`` says.

    Raises
    ------
    ModelUnavailableError
        If onnxruntime or the weights are missing, or an option is not known.
    ModelFileError
        If the weights are damaged.
    """
    settings: Mapping[str, object] = {**card.options, **options}
    unknown = sorted(set(settings) - _OPTIONS)
    if unknown:
        raise ModelUnavailableError(f"Model {card.name!r} has no option {', '.join(unknown)}: remove it.")
    if weights is None:
        raise ModelUnavailableError(f"Model {card.name!r} needs its weights {card.file!r}.")
    threads, alone = settings.get("threads", 0), settings.get("alone", False)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0 or not isinstance(alone, bool):
        raise ModelUnavailableError(
            f"Model {card.name!r}: threads is a whole number from 0, alone true or false, not {threads!r}, {alone!r}."
        )
    run = OnnxRun(weights, threads, card.sha256)
    network = EmbeddedModel(replace(card, options=settings), run)
    if alone:
        return network
    return TwoOpinions(network, ClassicModel(card), Weighing.from_json(run.note("weighing")))


def _fine(frame: Frame) -> Frame:
    """The frame at the network's higher resolution if it would lose detail otherwise."""
    return replace(frame, size=FINE_SIZE if max(frame.pixels_per_cell) > FINE_ABOVE else INPUT_SIZE)


def _confirmed(prompts: SlicePrompts, shape: tuple[int, int]) -> Prediction:
    if np.shape(prompts.mask) != shape:
        raise PromptError(f"The mask prompt has shape {np.shape(prompts.mask)}, but the slice is {shape}.")
    logits = np.where(prompts.mask, FAR, -FAR).astype(np.float32)[None]
    return Prediction(logits, np.ones(1, np.float32), FAR if np.any(prompts.mask) else -FAR, prompts)
