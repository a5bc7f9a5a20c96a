"""The embedded model's run as one picture: per dataset the model beside the best rule without learning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from SegmentAnythingMedLib.benchmark.embedded_targets import Result, results
from SegmentAnythingMedLib.benchmark.report import headline_rows
from SegmentAnythingMedLib.benchmark.statistics import dataset_means

_PANELS = ("slice_box", "click_best", "slice_box_corrected", "volume_box_extent", "volume_mask_extent", "volume_fixed")
_OURS, _RULE, _MUST = "#1b6ca8", "#b9b9b9", "#c0392b"


def draw_embedded(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write a PNG: a panel per kind of prompt; bars per dataset, the mean of dataset means last, a line at the must."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    compact = [row for row in headline_rows(rows) if row.get("scores")]
    found = [one for one in results(rows) if one.target.score in _PANELS]
    names = list(dataset_means(compact, "slice_box"))
    figure = Figure(figsize=(11, 1.9 * len(found) + 1.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    panels = np.atleast_1d(figure.subplots(len(found), 1, sharex=True))
    for axes, one in zip(panels, found, strict=True):
        _draw_panel(axes, compact, names, one)
    counts = {name: sum(row["dataset"] == name for row in compact) for name in names}
    labels = [*(f"{name.replace('_', chr(10), 1)}\nn={counts[name]}" for name in names), "mean of\ndatasets"]
    panels[-1].set_xticks(range(len(labels)), labels, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_panel(axes: Any, rows: list[dict[str, Any]], names: list[str], one: Result) -> None:
    series = [(one.target.score, one.ours.mean, _OURS, "model")]
    series += [(one.rule, one.floor, _RULE, f"best rule: {one.rule.replace('_', ' ')}")] if one.rule else []
    width = 0.8 / len(series)
    for number, (score, overall, color, label) in enumerate(series):
        means = dataset_means(rows, score)
        places = np.arange(len(names) + 1) + (number - (len(series) - 1) / 2) * width
        heights = [*(means.get(name, 0.0) for name in names), overall]
        axes.bar(places, heights, width * 0.94, color=color, label=label, zorder=2)
        axes.text(places[-1], overall + 0.02, f"{overall:.2f}", ha="center", fontsize=7.5, zorder=5)
    error = [[one.ours.mean - one.ours.low], [one.ours.high - one.ours.mean]]
    place = len(names) - (len(series) - 1) / 2 * width
    axes.errorbar([place], [one.ours.mean], yerr=error, color="#222222", linewidth=1, capsize=3, zorder=4)
    axes.axhline(one.must, color=_MUST, linewidth=1, linestyle="--", zorder=3)
    axes.axvline(len(names) - 0.5, color="#999999", linewidth=0.8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("Dice", fontsize=8)
    axes.set_title(f"{one.target.title} (must {one.must:.2f})", loc="left", fontsize=9)
    axes.legend(loc="lower right", ncols=2, fontsize=7, frameon=False, bbox_to_anchor=(1.0, 1.0))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
