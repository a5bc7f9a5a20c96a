"""The accuracy of a run as one picture: per dataset the model beside the trivial rules, and every structure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from SegmentAnythingMedLib.benchmark.report import headline_rows
from SegmentAnythingMedLib.benchmark.statistics import dataset_means, estimate

_PANELS = (
    ("Box on one slice", (("slice_box", "model"), ("slice_ellipse", "ellipse"))),
    (
        "Box carried through the volume",
        (("volume_box_extent", "extent given"), ("volume_box", "stops itself"), ("volume_copy", "copy, extent given")),
    ),
)
_COLORS = ("#1b6ca8", "#58a6d6", "#b9b9b9")
_RULE_COLOR = "#b9b9b9"
_RULES = ("slice_ellipse", "volume_copy")


def draw_accuracy(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write a PNG of two panels: bars per dataset with the structures as dots, the mean of dataset means last."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    compact = [row for row in headline_rows(rows) if row.get("scores")]
    names = list(dataset_means(compact, "slice_box"))
    figure = Figure(figsize=(11, 6.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    for axes, (name, series) in zip(figure.subplots(2, 1, sharex=True), _PANELS, strict=True):
        _draw_panel(axes, compact, names, series)
        axes.set_title(name, loc="left", fontsize=10)
    counts = {name: sum(row["dataset"] == name for row in compact) for name in names}
    axes.set_xticks(range(len(names) + 1), [*(_label(n, counts[n]) for n in names), "mean of\ndatasets"], fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_panel(axes: Any, rows: list[dict[str, Any]], names: list[str], series: Sequence[tuple[str, str]]) -> None:
    width = 0.8 / len(series)
    shades = iter(_COLORS)
    random = np.random.default_rng(0)
    for number, (score, label) in enumerate(series):
        means, overall = dataset_means(rows, score), estimate(rows, score)
        places = np.arange(len(names) + 1) + (number - (len(series) - 1) / 2) * width
        heights = [*(means[name] for name in names), overall.mean]
        color = _RULE_COLOR if score in _RULES else next(shades)
        axes.bar(places, heights, width * 0.94, color=color, label=label, zorder=2)
        for place, name in zip(places, names, strict=False):
            values = [row["scores"][score] for row in rows if row["dataset"] == name]
            jitter = random.uniform(-0.3, 0.3, len(values)) * width
            axes.plot(place + jitter, values, ".", color="#222222", alpha=0.35, markersize=2.5, zorder=3)
        error = [[overall.mean - overall.low], [overall.high - overall.mean]]
        axes.errorbar(places[-1:], [overall.mean], yerr=error, color="#222222", linewidth=1, capsize=3, zorder=4)
        axes.text(places[-1], overall.high + 0.03, f"{overall.mean:.2f}", ha="center", fontsize=7.5, zorder=5)
    axes.set_ylim(0, 1)
    axes.set_ylabel("Dice")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
    axes.axvline(len(names) - 0.5, color="#999999", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", ncols=len(series), fontsize=8, frameon=False, bbox_to_anchor=(1.0, 1.16))


def _label(dataset: str, count: int) -> str:
    return dataset.replace("_", "\n", 1) + f"\nn={count}"
