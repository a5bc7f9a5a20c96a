"""One structure, one model: what a simulated user would get from a box, from a click and from a painted slice."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from SegmentAnythingMedLib.benchmark.baselines import Box, copied, ellipse, ellipsoid
from SegmentAnythingMedLib.benchmark.datasets import Case, extent
from SegmentAnythingMedLib.benchmark.metrics import Ends, dice, ends, normalised_surface_dice
from SegmentAnythingMedLib.benchmark.simulated_user import click_inside, corrective_click, jittered_box, seed_of
from SegmentAnythingMedLib.geometry import SliceKey
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.session import SliceResult, VolumeSession

CORRECTIONS = 5
TOLERANCE_PIXELS = 2.0
"""Tolerance of the surface Dice in sides of the finest voxel axis: 2 mm on a volume of 1 mm, 6 mm on one of 3 mm."""

OBJECT = 1
"""Identifier of the object in every scenario."""


@dataclass
class Row:
    """Scores of one structure; names are explained in `SCORES`."""

    scores: dict[str, float] = field(default_factory=dict)
    over: list[int] = field(default_factory=list)
    early: list[int] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        scores = {name: round(float(score), 5) for name, score in self.scores.items()}
        return {**asdict(self), "scores": scores}


SCORES = {
    "slice_box": "box on the largest slice",
    "slice_box_nsd": "the same, surface Dice",
    "slice_ellipse": "ellipse in that box",
    "slice_ellipse_nsd": "the same, surface Dice",
    "slice_box_corrected": "box and 5 corrective clicks",
    "slice_click": "1 click, the model's first candidate",
    "slice_click_best": "1 click, the best candidate",
    "slice_click_corrected": "1 click and 5 corrective clicks",
    "volume_box": "box on the largest slice, stops itself",
    "volume_box_nsd": "the same, surface Dice",
    "volume_box_extent": "the same box, true extent given",
    "volume_box_extent_nsd": "the same, surface Dice",
    "volume_copy": "the model's key mask copied over the true extent",
    "volume_ellipse": "ellipse copied over the true extent",
    "volume_ellipsoid": "ellipsoid over the true extent",
    "middle_box": "box on the middle slice, that slice",
    "volume_middle": "box on the middle slice, stops itself",
    "volume_middle_extent": "the same, true extent given",
    "volume_middle_copy": "its key mask copied over the true extent",
    "volume_mask": "true mask on the largest slice, stops itself",
    "volume_mask_extent": "the same, true extent given",
    "volume_mask_copy": "the true mask copied over the true extent",
}


class Scorer:
    """Scores one case with one model; image features are shared by all scenarios.

    Parameters
    ----------
    case
        The opened structure.
    session
        A session on the case's volume; its objects are removed after each scenario.
    """

    def __init__(self, case: Case, session: VolumeSession) -> None:
        self._case, self._session, self._slices = case, session, case.slices
        self._plane = case.slices.plane
        self._counts = extent(case.truth, case.slices)
        filled = np.flatnonzero(self._counts)
        self._first, self._last = int(filled[0]), int(filled[-1])
        self._largest = int(np.argmax(self._counts))
        self._middle = int(filled[np.argmin(np.abs(filled - (self._first + self._last) / 2))])
        finest = min(case.volume.geometry.spacing_mm) if not case.structure.two_d else min(case.slices.spacing_mm)
        self._tolerance_mm = TOLERANCE_PIXELS * finest

    def score(self) -> Row:
        """Run all scenarios."""
        start = time.perf_counter()
        row = Row()
        self._score_slice(row.scores)
        if not self._case.structure.two_d:
            found = self._score_volume(row.scores)
            row.over, row.early = list(found.over), list(found.early)
        size = self._case.volume.geometry.size_ijk
        row.facts = {
            "axis": self._plane.axis, "key": self._largest, "first": self._first, "last": self._last,
            "voxels": int(self._counts.sum()), "size_ijk": list(size),
            "spacing_mm": [round(s, 4) for s in self._case.volume.geometry.spacing_mm],
            "window": self._session.features.window.name, "seconds": round(time.perf_counter() - start, 2),
        }  # fmt: skip
        return row

    # -- one slice -----------------------------------------------------------------------------------------------

    def _score_slice(self, scores: dict[str, float]) -> None:
        truth, box = self._truth_on(self._largest), self._box_on(self._largest)
        found = self._outline(self._largest, box).mask
        oval = ellipse(box, self._slices.shape)
        scores["slice_box"], scores["slice_ellipse"] = dice(found, truth), dice(oval, truth)
        scores["slice_box_nsd"] = self._slice_nsd(found, truth)
        scores["slice_ellipse_nsd"] = self._slice_nsd(oval, truth)
        scores["slice_box_corrected"] = dice(self._corrected(self._largest, found, truth), truth)
        self._forget()
        first = self._click(self._largest, click_inside(truth, self._slices.spacing_mm), True)
        answers = first.candidates if first.candidates is not None else first.mask[np.newaxis]
        scores["slice_click"] = dice(first.mask, truth)
        scores["slice_click_best"] = max(dice(answer, truth) for answer in answers)
        scores["slice_click_corrected"] = dice(self._corrected(self._largest, first.mask, truth), truth)
        self._forget()

    def _corrected(self, index: int, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The outline after up to `CORRECTIONS` clicks on its errors."""
        for _ in range(CORRECTIONS):
            click = corrective_click(found, truth, self._slices.spacing_mm)
            if click is None:
                break
            found = self._click(index, *click).mask
        return found

    def _slice_nsd(self, found: np.ndarray, truth: np.ndarray) -> float:
        tolerance = TOLERANCE_PIXELS * min(self._slices.spacing_mm)
        return normalised_surface_dice(found, truth, self._slices.spacing_mm, tolerance)

    # -- the volume ----------------------------------------------------------------------------------------------

    def _score_volume(self, scores: dict[str, float]) -> Ends:
        truth, box = self._case.truth, self._box_on(self._largest)
        key_mask = self._outline(self._largest, box).mask
        found = self._propagated(given=False)
        reached = ends(extent(found, self._slices), self._counts)
        scores["volume_box"], scores["volume_box_nsd"] = dice(found, truth), self._volume_nsd(found)
        self._forget()
        self._outline(self._largest, box)
        found = self._propagated(given=True)
        scores["volume_box_extent"], scores["volume_box_extent_nsd"] = dice(found, truth), self._volume_nsd(found)
        self._forget()
        scores["volume_copy"] = dice(self._copied(key_mask), truth)
        scores["volume_ellipse"] = dice(self._copied(ellipse(box, self._slices.shape)), truth)
        solid = ellipsoid(box, self._largest, self._slices, self._first, self._last)
        scores["volume_ellipsoid"] = dice(solid, truth)
        self._score_middle(scores)
        self._score_mask(scores)
        return reached

    def _score_middle(self, scores: dict[str, float]) -> None:
        box = self._box_on(self._middle)
        for name, given in (("volume_middle", False), ("volume_middle_extent", True)):
            key_mask = self._outline(self._middle, box).mask
            scores[name] = dice(self._propagated(given), self._case.truth)
            self._forget()
        scores["middle_box"] = dice(key_mask, self._truth_on(self._middle))
        scores["volume_middle_copy"] = dice(self._copied(key_mask), self._case.truth)

    def _score_mask(self, scores: dict[str, float]) -> None:
        true_mask = self._truth_on(self._largest)
        for name, given in (("volume_mask", False), ("volume_mask_extent", True)):
            self._session.confirm_slice(OBJECT, self._key(self._largest), true_mask)
            scores[name] = dice(self._propagated(given), self._case.truth)
            self._forget()
        scores["volume_mask_copy"] = dice(self._copied(true_mask), self._case.truth)

    def _propagated(self, given: bool) -> np.ndarray:
        """The object's voxels after propagation, within the true extent if it is ``given``; a copy."""
        if self._session.labelmap(OBJECT).any():
            limits = {"first": self._first, "last": self._last} if given else {}
            for _ in self._session.propagate([OBJECT], plane=self._plane, **limits):
                pass
        return self._session.labelmap(OBJECT).copy()

    def _copied(self, mask: np.ndarray) -> np.ndarray:
        return copied(mask, self._slices, self._first, self._last)

    def _volume_nsd(self, found: np.ndarray) -> float:
        spacing = self._case.volume.geometry.spacing_mm[::-1]
        return normalised_surface_dice(found, self._case.truth, spacing, self._tolerance_mm)

    # -- prompts -------------------------------------------------------------------------------------------------

    def _truth_on(self, index: int) -> np.ndarray:
        return self._slices.extract(self._case.truth, index)

    def _box_on(self, index: int) -> Box:
        return jittered_box(self._truth_on(index), seed_of(f"{self._case.structure.id} {index}"))

    def _key(self, index: int) -> SliceKey:
        return self._session.slice_key(self._plane, index)

    def _outline(self, index: int, box: Box) -> SliceResult:
        corners = self._slices.ijk_from_pixels(index, np.array([box[:2], box[2:]]))
        prompt = BoxPrompt((tuple(corners[0]), tuple(corners[1])), self._plane)
        return self._session.segment_slice(OBJECT, self._session.add_prompt(OBJECT, prompt))

    def _click(self, index: int, pixel: tuple[int, int], positive: bool) -> SliceResult:
        point = self._slices.ijk_from_pixels(index, np.array(pixel))
        key = self._session.add_prompt(OBJECT, PointPrompt(tuple(point), positive, self._plane))
        return self._session.segment_slice(OBJECT, key)

    def _forget(self) -> None:
        self._session.remove_object(OBJECT)


def score_session(case: Case, session: VolumeSession) -> Row:
    """All scores of one case in a session on its volume."""
    return Scorer(case, session).score()
