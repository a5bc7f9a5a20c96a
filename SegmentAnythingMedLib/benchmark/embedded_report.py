"""The run of the embedded model as JSON and as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from SegmentAnythingMedLib.benchmark.embedded_speed import Timing
from SegmentAnythingMedLib.benchmark.embedded_targets import (
    TARGETS,
    acceptance,
    over_runs,
    quality_correlation,
    results,
)
from SegmentAnythingMedLib.benchmark.report import Line, apart, headline_rows
from SegmentAnythingMedLib.benchmark.statistics import dataset_means, estimate

SHORT = {
    "slice_box": "box", "slice_ellipse": "ellipse", "middle_box": "middle box", "click_best": "click, best of 3",
    "click_first": "first", "slice_box_corrected": "box + 5", "click_corrected": "click + 5",
    "volume_box_extent": "3D: box, extent", "volume_box": "stops itself", "volume_box_copy": "copy",
    "volume_mask_extent": "3D: mask, extent", "volume_mask": "stops itself", "volume_mask_copy": "copy",
    "volume_fixed_extent": "3D: + 3 slices, extent", "volume_fixed": "stops itself",
}  # fmt: skip
"""Columns of the tables per dataset."""


def summary(rows: Sequence[dict[str, Any]], timings: Sequence[Timing], facts: dict[str, Any]) -> dict[str, Any]:
    """All figures as plain values."""
    compact = headline_rows(rows)
    names = list(dict.fromkeys(name for row in compact for name in row.get("scores", {})))
    return {
        **facts,
        "targets": [_target(one) for one in results(rows)],
        "mean_of_dataset_means": {name: asdict(estimate(compact, name)) for name in names},
        "datasets": {name: dataset_means(compact, name) for name in names},
        "pictures": {name: dataset_means(_pictures(rows), name) for name in names},
        "quality_correlation": {name: quality_correlation(own) for name, own in _by_dataset(rows).items()}
        | {"all": quality_correlation(compact)},
        "over_runs": {name: over_runs(own) for name, own in _by_dataset(compact).items()},
        "speed": [asdict(one) for one in timings],
        "acceptance": [asdict(line) for line in all_lines(rows, timings)],
        "errors": {row["id"]: row["error"] for row in rows if "error" in row},
    }


def all_lines(rows: Sequence[dict[str, Any]], timings: Sequence[Timing]) -> list[Line]:
    """What must hold, accuracy first."""
    return acceptance(rows) + [line for one in timings if (line := one.line) is not None]


def markdown(rows: Sequence[dict[str, Any]], timings: Sequence[Timing], facts: dict[str, Any]) -> str:
    """The whole report."""
    compact = headline_rows(rows)
    parts = [f"# What `{facts.get('model', '')}` reaches on the development data", ""]
    parts += [f"- {name}: {value}" for name, value in facts.items() if name != "model"]
    parts += ["", "## Targets (compact structures of volumes, mean of dataset means, 95 % by patient)"]
    parts += _target_table(rows)
    parts += ["", "Surface Dice: 2 mm, or one side of the finest voxel axis where that is more.", ""]
    parts += ["## What must hold", *(f"- {line}" for line in all_lines(rows, timings)), ""]
    parts += ["## Speed", *_speed_table(timings), ""] if timings else []
    parts += ["## Dice per dataset", *_dataset_table(compact, SHORT), ""]
    parts += ["## Rules without learning (Dice, mean of dataset means)", *_rule_table(compact), ""]
    parts += ["## Surface Dice per dataset", *_dataset_table(compact, {f"{n}_nsd": t for n, t in SHORT.items()}), ""]
    parts += ["## Ends and predicted quality", *_ends_table(rows), ""]
    for title, own in {**apart(rows), "Single slices and pictures": _pictures(rows)}.items():
        if any(row.get("scores") for row in own):
            parts += [f"## {title} (reported apart, Dice)", *_dataset_table(own, SHORT), ""]
    return "\n".join(parts)


def _target(one: Any) -> dict[str, Any]:
    return {
        "title": one.target.title, "score": one.target.score, "dice": asdict(one.ours), "nsd": asdict(one.surface),
        "rule": one.rule, "floor": one.floor, "must": one.must, "aim": one.target.aim, "holds": one.holds,
    }  # fmt: skip


def _target_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| | Dice | surface Dice | best rule | must | aim | |", "|---" * 7 + "|"]
    for one in results(rows):
        rule = f"{one.floor:.3f} {_rule_name(one.rule)}" if one.rule else "-"
        verdict = "" if np.isnan(one.must) else "ok" if one.holds else f"**short by {one.must - one.ours.mean:.3f}**"
        cells = (one.target.title, one.ours, f"{one.surface.mean:.3f}", rule, _two(one.must), _two(one.target.aim))
        lines.append("| " + " | ".join(str(cell) for cell in cells) + f" | {verdict} |")
    return lines


def _rule_name(score: str) -> str:
    name = score.partition("_")[2].removesuffix("_corrected").removesuffix("_extent").removeprefix("mask_")
    return {"overlap": "threshold + overlap", "walker": "random walker"}.get(name, name.replace("_", ", "))


def _two(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}".rstrip("0")


def _rule_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every rule of every target, best first."""
    lines = ["| | rules |", "|---|---|"]
    for target in TARGETS:
        found = {rule: estimate(rows, rule).mean for rule in target.rules if dataset_means(rows, rule)}
        if found:
            order = sorted(found, key=lambda rule: -found[rule])
            lines.append(f"| {target.title} | " + ", ".join(f"{_rule_name(r)} {found[r]:.3f}" for r in order) + " |")
    return lines


def _dataset_table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    columns = {score: title for score, title in columns.items() if dataset_means(rows, score)}
    lines = ["| dataset | n | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 2) + "|"]
    means = {score: dataset_means(rows, score) for score in columns}
    for dataset, own in _by_dataset(rows).items():
        cells = (f"{means[score][dataset]:.3f}" if dataset in means[score] else "-" for score in columns)
        lines.append(f"| {dataset} | {len(own)} | " + " | ".join(cells) + " |")
    overall = (estimate(rows, score) for score in columns)
    cells = (f"**{one.mean:.3f}** [{one.low:.2f}, {one.high:.2f}]" for one in overall)
    return [*lines, f"| **mean of dataset means** | {len(rows)} | " + " | ".join(cells) + " |"]


def _ends_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| dataset | open ends | over-run: median | 90th percentile | early: median | quality: rank correlation |"]
    lines.append("|---" * 6 + "|")
    for name, own in {**_by_dataset(rows), "**volumes, compact**": headline_rows(rows)}.items():
        over, early = over_runs(own), [slices for row in own for slices in row.get("early", [])]
        figures = [len(over), *(_cell(over, q) for q in (50, 90)), _cell(early, 50), f"{quality_correlation(own):.2f}"]
        lines.append(f"| {name} | " + " | ".join(str(figure) for figure in figures) + " |")
    return lines


def _cell(values: Sequence[float], percentile: float) -> str:
    return f"{np.percentile(values, percentile):.1f}" if len(values) else "-"


def _speed_table(timings: Sequence[Timing]) -> list[str]:
    lines = ["| | measured | at most | reference of the same moment |", "|---|---|---|---|"]
    for one in timings:
        limit = f"{one.limit:g} {one.unit}" if one.limit is not None else "-"
        lines.append(f"| {one.title} | {one.value:.3g} {one.unit} | {limit} | {one.reference} |")
    return lines


def _by_dataset(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["dataset"], []).append(row)
    return found


def _pictures(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["two_d"]]
