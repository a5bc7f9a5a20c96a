"""Everything that is asked of the embedded model on one structure, and of the rules without learning beside it.

The user is `simulated_user`. "Corrected slices": up to three times the user goes to the slice with most wrong pixels
(not one already corrected) and clicks there until it is right, at most `CORRECTIONS` times; where the object runs past
its end, the user says on the first slice beyond it that it is not there. After each such slice the outline is carried
again, as far as the neighbouring key slices.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from SegmentAnythingMedLib.benchmark.baselines import ellipse, ellipsoid
from SegmentAnythingMedLib.benchmark.datasets import Case, extent
from SegmentAnythingMedLib.benchmark.metrics import dice, ends, normalised_surface_dice
from SegmentAnythingMedLib.benchmark.scoring import CORRECTIONS, OBJECT, Row, Scorer
from SegmentAnythingMedLib.benchmark.simulated_user import click_inside, corrective_click, tight_box
from SegmentAnythingMedLib.benchmark.slice_rules import BOX_RULES, CLICK_RULES, CORRECTED_RULES, SliceTask
from SegmentAnythingMedLib.benchmark.volume_rules import overlapping
from SegmentAnythingMedLib.session import VolumeSession

TOLERANCE_MM = 2.0
"""Of the surface Dice, but at least one side of the finest voxel axis."""
CORRECTED_SLICES = 3
QUALITIES = 12
"""Slices of a propagation whose predicted quality is compared, evenly spread, so that long objects do not outvote."""

SOURCES = ("embedded_scoring", "slice_rules", "volume_rules", "growcut")


@dataclass
class EmbeddedRow(Row):
    """Adds (predicted quality, true Dice) of slices with an outline, prompted and carried."""

    quality: list[tuple[float, float]] = field(default_factory=list)


class EmbeddedScorer(Scorer):
    """Scores one case; every score has a twin ``<name>_nsd``."""

    def __init__(self, case: Case, session: VolumeSession) -> None:
        super().__init__(case, session)
        spacing = self._slices.spacing_mm if case.structure.two_d else case.volume.geometry.spacing_mm
        self._tolerance_mm = max(TOLERANCE_MM, min(spacing))
        self._row = EmbeddedRow()
        self._images: dict[int, np.ndarray] = {}

    def score(self) -> EmbeddedRow:
        """Run all scenarios."""
        start, two_d = time.perf_counter(), self._case.structure.two_d
        self._score_box(self._largest, "slice")
        self._score_click()
        rules = time.perf_counter()
        self._score_box_rules(self._largest, "slice")
        self._score_click_rules()
        rules = time.perf_counter() - rules
        if not two_d:
            self._score_volumes()
        self._row.facts = {
            "key": self._largest, "middle": self._middle, "first": self._first, "last": self._last,
            "voxels": int(self._counts.sum()), "size_ijk": list(self._case.volume.geometry.size_ijk),
            "window": self._session.features.window.name, "tolerance_mm": round(self._tolerance_mm, 3),
            "seconds": round(time.perf_counter() - start, 2), "rules_seconds": round(rules, 2),
        }  # fmt: skip
        return self._row

    # -- one slice -------------------------------------------------------------------------------------------------

    def _score_box(self, index: int, name: str) -> None:
        truth = self._truth_on(index)
        found = self._outline(index, self._box_on(index))
        self._judge(found.quality, found.mask, truth)
        self._put(f"{name}_box", found.mask, truth)
        if name == "slice":
            self._put("slice_box_corrected", self._corrected(index, found.mask, truth), truth)
        self._forget()

    def _score_click(self) -> None:
        truth = self._truth_on(self._largest)
        first = self._click(self._largest, click_inside(truth, self._slices.spacing_mm), True)
        answers = first.candidates if first.candidates is not None else first.mask[np.newaxis]
        self._judge(first.quality, first.mask, truth)
        self._put("click_first", first.mask, truth)
        self._put("click_best", max(answers, key=lambda answer: dice(answer, truth)), truth)
        self._put("click_corrected", self._corrected(self._largest, first.mask, truth), truth)
        self._forget()

    def _score_box_rules(self, index: int, name: str) -> None:
        truth, box = self._truth_on(index), self._box_on(index)
        self._put(f"{name}_ellipse", ellipse(box, truth.shape), truth)
        for rule, function in BOX_RULES.items():
            task = SliceTask(self._image(index), self._slices.spacing_mm, box, box)
            found = task.solve(function)
            self._put(f"{name}_{rule}", found, truth)
            if name == "slice" and rule in CORRECTED_RULES:
                self._put(f"slice_{rule}_corrected", self._rule_corrected(task, rule, found, truth), truth)

    def _score_click_rules(self) -> None:
        truth = self._truth_on(self._largest)
        click = (click_inside(truth, self._slices.spacing_mm), True)
        for rule, function in CLICK_RULES.items():
            image = self._image(self._largest)
            task = SliceTask(image, self._slices.spacing_mm, None, tight_box(truth), [click])
            found = task.solve(function)
            self._put(f"click_{rule}", found, truth)
            if rule in CORRECTED_RULES:
                self._put(f"click_{rule}_corrected", self._rule_corrected(task, rule, found, truth), truth)

    def _rule_corrected(self, task: SliceTask, rule: str, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        for _ in range(CORRECTIONS):
            click = corrective_click(found, truth, self._slices.spacing_mm)
            if click is None:
                break
            task.clicks.append(click)
            found = task.solve(CORRECTED_RULES[rule])
        return found

    # -- the volume --------------------------------------------------------------------------------------------------

    def _score_volumes(self) -> None:
        self._score_box(self._middle, "middle")
        self._score_box_rules(self._middle, "middle")
        truth = self._case.truth
        for suffix, given in (("", False), ("_extent", True)):
            key_mask = self._outline(self._largest, self._box_on(self._largest)).mask
            found = self._carried(given, judged=not given)
            if not given:
                reached = ends(extent(found, self._slices), self._counts)
                self._row.over, self._row.early = list(reached.over), list(reached.early)
            self._put(f"volume_box{suffix}", found, truth)
            self._put(f"volume_fixed{suffix}", self._fixed(given), truth)
            self._forget()
            self._outline(self._middle, self._box_on(self._middle))
            self._put(f"volume_middle{suffix}", self._carried(given), truth)
            self._forget()
            self._session.confirm_slice(OBJECT, self._key(self._largest), self._truth_on(self._largest))
            self._put(f"volume_mask{suffix}", self._carried(given), truth)
            self._forget()
        self._put("volume_box_copy", self._copied(key_mask), truth)
        self._score_volume_rules()

    def _score_volume_rules(self) -> None:
        truth, box, true_mask = self._case.truth, self._box_on(self._largest), self._truth_on(self._largest)
        oval = ellipse(box, self._slices.shape)
        task = SliceTask(self._image(self._largest), self._slices.spacing_mm, box, box)
        basin = task.solve(BOX_RULES["watershed"])
        self._put("volume_ellipse_copy", self._copied(oval), truth)
        self._put("volume_watershed_copy", self._copied(basin), truth)
        solid = ellipsoid(box, self._largest, self._slices, self._first, self._last)
        self._put("volume_ellipsoid", solid, truth)
        self._put("volume_mask_copy", self._copied(true_mask), truth)
        limits = {"": (0, self._slices.count - 1), "_extent": (self._first, self._last)}
        for suffix, (first, last) in limits.items():
            for name, mask in (("volume_overlap", basin), ("volume_mask_overlap", true_mask)):
                found = overlapping(self._image, self._largest, mask, self._slices, first, last)
                self._put(f"{name}{suffix}", found, truth)

    def _carried(self, given: bool, judged: bool = False) -> np.ndarray:
        """The object's voxels after propagation, within the true extent if it is ``given``; a copy."""
        qualities: dict[int, float] = {}
        if self._session.is_outlined(OBJECT, self._plane):
            limits = {"first": self._first, "last": self._last} if given else {}
            for result in self._session.propagate([OBJECT], plane=self._plane, **limits):
                qualities[result.key.index] = result.quality
        found = self._session.labelmap(OBJECT).copy()
        if judged:
            for index in sorted(qualities)[:: max(1, len(qualities) // QUALITIES)]:
                self._judge(qualities[index], self._slices.extract(found, index), self._truth_on(index))
        return found

    def _fixed(self, given: bool) -> np.ndarray:
        """The object's voxels after `CORRECTED_SLICES` slices were corrected and the outline was carried again."""
        corrected: set[int] = set()
        for _ in range(CORRECTED_SLICES):
            index = self._worst_slice(corrected)
            if index is None:
                break
            corrected.add(index)
            truth, key = self._truth_on(index), self._key(index)
            if truth.any():
                self._corrected(index, self._session.mask_on(OBJECT, key), truth)
            else:
                self._session.confirm_slice(OBJECT, key, truth)
            if self._session.is_outlined(OBJECT, self._plane):
                self._carry_again(index, given)
        return self._session.labelmap(OBJECT).copy()

    def _worst_slice(self, corrected: set[int]) -> int | None:
        """Where most pixels are wrong; past an end the first slice beyond it. None if all others are right."""
        wrong = extent(self._session.labelmap(OBJECT) ^ self._case.truth, self._slices)
        wrong[list(corrected)] = 0
        index = int(np.argmax(wrong))
        if not wrong[index]:
            return None
        if index > self._last:
            index = self._last + 1
        elif index < self._first:
            index = self._first - 1
        return None if index in corrected else index

    def _carry_again(self, index: int, given: bool) -> None:
        key = self._key(index)
        if not given:
            for _ in self._session.repropagate(OBJECT, key):
                pass
            return
        low, high = self._session.affected_range(OBJECT, key)
        first, last = max(low, self._first), min(high, self._last)
        for _ in self._session.propagate([OBJECT], plane=self._plane, first=first, last=last):
            pass

    # -- inside ------------------------------------------------------------------------------------------------------

    def _put(self, name: str, found: np.ndarray, truth: np.ndarray) -> None:
        """Dice and surface Dice of a slice's or a volume's mask."""
        self._row.scores[name] = dice(found, truth)
        geometry = self._case.volume.geometry
        spacing = self._slices.spacing_mm if found.ndim == 2 else geometry.spacing_mm[::-1]
        self._row.scores[f"{name}_nsd"] = normalised_surface_dice(found, truth, spacing, self._tolerance_mm)

    def _judge(self, quality: float, found: np.ndarray, truth: np.ndarray) -> None:
        if found.any():
            self._row.quality.append((round(float(quality), 4), round(dice(found, truth), 4)))

    def _image(self, index: int) -> np.ndarray:
        """(rows, columns) float32 windowed slice as the model sees it; colour becomes its mean."""
        if index not in self._images:
            pixels = self._session.features.image(self._slices, index).pixels.mean(axis=0)
            self._images[index] = pixels.astype(np.float16)
        return self._images[index].astype(np.float32)


def score_embedded(case: Case, session: VolumeSession) -> EmbeddedRow:
    """All scores of one case in a session on its volume."""
    return EmbeddedScorer(case, session).score()
