"""What the embedded model must reach, row by row, and the rules without learning it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from SegmentAnythingMedLib.benchmark.datasets import SCALE_DATASET
from SegmentAnythingMedLib.benchmark.report import Line, headline_rows
from SegmentAnythingMedLib.benchmark.statistics import Estimate, dataset_means, estimate

ABOVE_FLOOR = 0.05
MOST_OVER_RUN = 2.0
LEAST_QUALITY_CORRELATION = 0.6

_BOX = ("ellipse", "otsu", "watershed", "walker", "growcut")
_CLICK = ("grown", "watershed", "walker", "growcut")
_CORRECTED = ("watershed_corrected", "walker_corrected", "growcut_corrected")
_EXTENT_RULES = ("ellipse_copy", "watershed_copy", "ellipsoid", "overlap_extent")


@dataclass(frozen=True)
class Target:
    """One row of the table.

    Parameters
    ----------
    title, score
        What is measured, and its name in the rows.
    rules
        Scores of the rules that know as much; the best mean is the floor.
    column, aim
        The least that was asked for before the floor was known, and what is wished for; nan where only reported.
    """

    title: str
    score: str
    rules: tuple[str, ...]
    column: float
    aim: float


def _of(scene: str, rules: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{scene}_{rule}" for rule in rules)


TARGETS = (
    Target("box on the largest slice", "slice_box", _of("slice", _BOX), 0.84, 0.90),
    Target("box on the middle slice", "middle_box", _of("middle", _BOX), 0.84, 0.90),
    Target("1 click, best of 3", "click_best", _of("click", _CLICK), 0.75, 0.85),
    Target("1 click, first candidate", "click_first", _of("click", _CLICK), 0.68, 0.78),
    Target("box + 5 clicks", "slice_box_corrected", _of("slice", _CORRECTED), 0.91, 0.95),
    Target("click + 5 clicks", "click_corrected", _of("click", _CORRECTED), 0.91, 0.95),
    Target("3D from one box, extent given", "volume_box_extent", _of("volume", _EXTENT_RULES), 0.72, 0.82),
    Target("3D from one box, stops itself", "volume_box", ("volume_overlap",), 0.72, 0.82),
    Target("3D from a true mask, extent given", "volume_mask_extent",
           ("volume_mask_copy", "volume_mask_overlap_extent"), 0.82, 0.90),
    Target("3D from a true mask, stops itself", "volume_mask", ("volume_mask_overlap",), 0.82, 0.90),
    Target("3D from one box + 3 corrected slices, extent given", "volume_fixed_extent", (), 0.85, 0.92),
    Target("3D from one box + 3 corrected slices, stops itself", "volume_fixed", (), 0.85, 0.92),
    Target("3D from a box on the middle slice, extent given", "volume_middle_extent", (), np.nan, np.nan),
    Target("3D from a box on the middle slice, stops itself", "volume_middle", (), np.nan, np.nan),
)  # fmt: skip

NO_WORSE = (
    ("box: at least the ellipse", "slice_box", "slice_ellipse"),
    ("3D from a true mask, extent given: at least its copy", "volume_mask_extent", "volume_mask_copy"),
    ("3D from one box, extent given: at least the copy of its own outline", "volume_box_extent", "volume_box_copy"),
)


@dataclass(frozen=True)
class Result:
    """A target with its figures: ours, and the best rule's."""

    target: Target
    ours: Estimate
    surface: Estimate
    rule: str
    floor: float

    @property
    def must(self) -> float:
        """The column, or more where a rule without learning is better than was thought; nan where only reported."""
        above = self.floor + ABOVE_FLOOR
        return self.target.column if np.isnan(above) else max(self.target.column, round(above, 3))

    @property
    def holds(self) -> bool:
        return not self.ours.mean < self.must


def results(rows: Sequence[dict[str, Any]]) -> list[Result]:
    """Every target over the compact structures of volumes; those without rows are left out."""
    compact = headline_rows(rows)
    found = []
    for target in TARGETS:
        if not dataset_means(compact, target.score):
            continue
        floors = {rule: estimate(compact, rule).mean for rule in target.rules}
        best = max(floors, key=lambda rule: floors[rule]) if floors else ""
        ours, surface = estimate(compact, target.score), estimate(compact, f"{target.score}_nsd")
        found.append(Result(target, ours, surface, best, floors.get(best, float("nan"))))
    return found


def over_runs(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Slices past every open end of the compact structures, for the box whose outline stops itself."""
    return [slices for row in headline_rows(rows) for slices in row.get("over", [])]


def quality_correlation(rows: Sequence[dict[str, Any]]) -> float:
    """Spearman's rank correlation of predicted quality and true Dice over slices; nan for fewer than three."""
    from scipy import stats

    pairs = np.array([pair for row in rows for pair in row.get("quality", [])])
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return float("nan")
    return float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def acceptance(rows: Sequence[dict[str, Any]]) -> list[Line]:
    """What must hold of the accuracy."""
    failed = [row["id"] for row in rows if "error" in row]
    figures = f"{len(failed)} of {len(rows)} failed {failed[:3] or ''}".strip()
    lines = [Line("every structure was scored", not failed, figures)]
    for one in results(rows):
        if not np.isnan(one.must):
            text = f"{one.target.title}: at least {one.must:.3f}"
            beside = f", best rule {one.floor:.3f} {one.rule}" if one.rule else ""
            lines.append(Line(text, one.holds, f"{one.ours}{beside}"))
    lines += [_no_worse(rows, *names) for names in NO_WORSE]
    over = over_runs(rows)
    if over:
        middle = float(np.median(over))
        text = f"over-run past the ends: at most {MOST_OVER_RUN:g} slices in the median"
        lines.append(Line(text, middle <= MOST_OVER_RUN, f"{middle:g} of {len(over)} ends"))
    correlation = quality_correlation(headline_rows(rows))
    text = f"predicted quality follows the true Dice: rank correlation at least {LEAST_QUALITY_CORRELATION}"
    return [*lines, Line(text, correlation >= LEAST_QUALITY_CORRELATION, f"{correlation:.3f}")]


def _no_worse(rows: Sequence[dict[str, Any]], text: str, score: str, rule: str) -> Line:
    """Compact structures of every dataset, single slices and pictures included."""
    compact = [row for row in rows if row["kind"] == "compact" and row["dataset"] != SCALE_DATASET]
    ours, theirs = dataset_means(compact, score), dataset_means(compact, rule)
    worse = [f"{name} {ours[name]:.3f} < {theirs[name]:.3f}" for name in ours if ours[name] < theirs[name]]
    return Line(f"{text}, in every dataset", not worse, "; ".join(worse) or f"all {len(ours)} datasets")
