"""Rows of a run as a summary, as Markdown tables and as lines that must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from SegmentAnythingMedLib.benchmark.datasets import SCALE_DATASET
from SegmentAnythingMedLib.benchmark.scoring import SCORES
from SegmentAnythingMedLib.benchmark.statistics import Estimate, dataset_means, estimate

VOLUME_COLUMNS = {
    "slice_box": "slice: box", "slice_ellipse": "ellipse", "slice_click": "1 click", "slice_box_corrected": "box + 5",
    "volume_box": "3D: box", "volume_box_extent": "with extent", "volume_copy": "copy",
    "volume_ellipsoid": "ellipsoid", "volume_mask_extent": "3D: true mask", "volume_mask_copy": "copy of it",
}  # fmt: skip
SLICE_COLUMNS = {
    "slice_box": "box", "slice_box_nsd": "box NSD", "slice_ellipse": "ellipse", "slice_click": "1 click",
    "slice_click_best": "best candidate", "slice_click_corrected": "1 click + 5", "slice_box_corrected": "box + 5",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """Something that must hold, with its figures; ``is_judged`` False where this run could not tell."""

    text: str
    holds: bool
    figures: str
    is_judged: bool = True

    def __str__(self) -> str:
        verdict = ("ok" if self.holds else "FAILS") if self.is_judged else "not judged"
        return f"{verdict}: {self.text} ({self.figures})"


def headline_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compact structures of volumes: what the mean of dataset means is taken over."""
    return [row for row in rows if row["kind"] == "compact" and not row["two_d"] and row["dataset"] != SCALE_DATASET]


def apart(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What is reported apart, by title."""
    volumes = [row for row in rows if not row["two_d"] and row["dataset"] != SCALE_DATASET]
    return {
        "Vessels": [row for row in volumes if row["kind"] == "vessel"],
        "Several components": [row for row in volumes if row["kind"] == "multi"],
        "One structure on 512x512x300 voxels": [row for row in rows if row["dataset"] == SCALE_DATASET],
    }


def acceptance(rows: Sequence[dict[str, Any]]) -> list[Line]:
    """The floor's lines: above copying its own mask in 3D (both know the extent), not below an ellipse on a slice."""
    failed = [row["id"] for row in rows if "error" in row]
    figures = f"{len(failed)} of {len(rows)} failed {failed[:3] or ''}".strip()
    lines = [Line("every structure was scored", not failed, figures)]
    compact = headline_rows(rows)
    if not any(row.get("scores") for row in compact):
        return lines
    for text, score, other, strict in (
        ("3D with the extent given: above the copy of its own key mask", "volume_box_extent", "volume_copy", True),
        ("slice: not below the ellipse", "slice_box", "slice_ellipse", False),
    ):
        ours, theirs, difference = estimate(compact, score), estimate(compact, other), estimate(compact, score, other)
        holds = difference.mean > 0 if strict else difference.mean >= 0
        lines.append(Line(text, holds, f"{ours.mean:.3f} against {theirs.mean:.3f}, difference {difference}"))
    return lines


def remarks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Differences worth knowing that nothing depends on."""
    compact = headline_rows(rows)
    return [
        f"{text}: difference {estimate(compact, score, other)}"
        for text, score, other in (
            ("3D without an extent, against the copy that knows it", "volume_box", "volume_copy"),
            ("3D from the middle slice, extent given, against its copy", "volume_middle_extent", "volume_middle_copy"),
            ("3D from the true mask with the extent, against its copy", "volume_mask_extent", "volume_mask_copy"),
            ("3D with the extent, against an ellipsoid in box and extent", "volume_box_extent", "volume_ellipsoid"),
        )
    ]


def summary(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything the tables show, as plain numbers."""
    compact = headline_rows(rows)
    return {
        **facts,
        "structures": len(rows),
        "errors": {row["id"]: row["error"] for row in rows if "error" in row},
        "mean_of_dataset_means": {
            score: asdict(estimate(compact, score)) for score in SCORES if dataset_means(compact, score)
        },
        "datasets": {score: dataset_means(compact, score) for score in SCORES},
        "apart": {
            title: {score: _mean(found, score) for score in SCORES if _has(found, score)}
            for title, found in apart(rows).items()
        },
        "pictures": {score: dataset_means([r for r in rows if r["two_d"]], score) for score in SLICE_COLUMNS},
        "ends": {dataset: _ends(own) for dataset, own in _by_dataset(compact).items()} | {"all": _ends(compact)},
        "acceptance": [asdict(line) for line in acceptance(rows)],
        "remarks": remarks(rows),
    }


def markdown(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The whole report."""
    compact = headline_rows(rows)
    parts = [f"# Accuracy of `{facts.get('model', '')}`", ""]
    parts += [f"- {name}: {value}" for name, value in facts.items() if name != "model"]
    parts += ["", "## What must hold", *(f"- {line}" for line in acceptance(rows)), ""]
    if any(row.get("scores") for row in compact):
        parts += ["For information:", "", *(f"- {remark}" for remark in remarks(rows)), ""]
        parts += ["## Compact structures of volumes (Dice)", *_table(compact, VOLUME_COLUMNS, mean=True), ""]
        parts += ["## All scores, mean of dataset means [95 % interval]", "| score | mean | what |", "|---|---|---|"]
        shown = [(score, estimate(compact, score)) for score in SCORES if _has(compact, score)]
        parts += [f"| {score} | {value} | {SCORES[score]} |" for score, value in shown] + [""]
        parts += ["## Where propagation from the box ends when no extent is given (slices)", *_ends_table(compact), ""]
    for title, found in apart(rows).items():
        if found:
            parts += [f"## {title} (reported apart)", *_table(found, VOLUME_COLUMNS), ""]
    pictures = [row for row in rows if row["two_d"]]
    if pictures:
        parts += ["## Single slices and pictures (Dice)", *_table(pictures, SLICE_COLUMNS, mean=True), ""]
    return "\n".join(parts)


def _table(rows: Sequence[dict[str, Any]], columns: dict[str, str], mean: bool = False) -> list[str]:
    lines = ["| dataset | n | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 2) + "|"]
    for dataset, own in _by_dataset(rows).items():
        lines.append(f"| {dataset} | {len(own)} | " + " | ".join(_cell(own, score) for score in columns) + " |")
    if mean:
        values = [_text(estimate(rows, score)) for score in columns]
        lines.append(f"| **mean of dataset means** | {len(rows)} | " + " | ".join(values) + " |")
    return lines


def _ends_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| dataset | open ends | over-run: median | mean | 90th percentile | early stop: median | mean |"]
    lines.append("|---" * 7 + "|")
    for dataset, own in {**_by_dataset(rows), "**all**": list(rows)}.items():
        e = _ends(own)
        names = ("over_median", "over_mean", "over_p90", "early_median", "early_mean")
        cells = ["-" if name.startswith("over") and not e["open"] else f"{e[name]:.1f}" for name in names]
        lines.append(f"| {dataset} | {e['open']} | " + " | ".join(cells) + " |")
    return lines


def _ends(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    over = [slices for row in rows for slices in row.get("over", [])] or [0]
    early = [slices for row in rows for slices in row.get("early", [])] or [0]
    return {
        "open": sum(len(row.get("over", [])) for row in rows),
        "over_median": float(median(over)), "over_mean": float(np.mean(over)),
        "over_p90": float(np.percentile(over, 90)),
        "early_median": float(median(early)), "early_mean": float(np.mean(early)),
    }  # fmt: skip


def _by_dataset(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["dataset"], []).append(row)
    return found


def _has(rows: Sequence[dict[str, Any]], score: str) -> bool:
    return any(score in row.get("scores", {}) for row in rows)


def _mean(rows: Sequence[dict[str, Any]], score: str) -> float:
    return float(np.mean([row["scores"][score] for row in rows if score in row.get("scores", {})]))


def _cell(rows: Sequence[dict[str, Any]], score: str) -> str:
    return f"{_mean(rows, score):.3f}" if _has(rows, score) else "-"


def _text(value: Estimate) -> str:
    return f"**{value.mean:.3f}** [{value.low:.2f}, {value.high:.2f}]"
