"""Seconds per slice of everyone as one picture: first propagation and the one after a correction, beside the floor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.benchmark.speed import SpeedRun
from SegmentAnythingMedLib.benchmark.speed_contenders import MERGED

_OURS, _THEIRS, _AGAIN, _LINE = "#1b6ca8", "#b9b9b9", "#8fc1e3", "#222222"


def draw_speed(runs: Sequence[SpeedRun], path: Path, title: str) -> None:
    """Write a PNG with a panel for each network."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [sum(row.part == "first" for row in run.rows) for run in runs]
    figure = Figure(figsize=(9, 1.6 + 0.36 * sum(heights)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    grid = figure.subplots(len(runs), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, run in zip(grid, runs, strict=True):
        _draw_panel(axes, run)
    figure.legend(handles=_keys(), loc="outside lower left", ncols=4, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_panel(axes: Any, run: SpeedRun) -> None:
    everyone = [row.name for row in run.rows if row.part == "first"]
    slow = run.seconds(f"{run.reference} fp32")
    for place, name in enumerate(everyone):
        first, again, ours = run.seconds(name), run.seconds(name, "second"), name.startswith("ours")
        axes.barh(place, 1e3 * first, 0.72, color=_OURS if ours else _THEIRS, zorder=2)
        if again is not None:
            axes.barh(place, 1e3 * again, 0.3, color=_AGAIN, zorder=3)
        if MERGED not in name:  # whose operations are fewer, and were not counted
            floor = 1e3 * run.gflop / run.peaks[name[-4:]]
            axes.plot([floor, floor], [place - 0.42, place + 0.42], color=_LINE, linewidth=1.2, zorder=4)
        text = f" {1e3 * first:.0f} ms" + (f", {slow / first:.1f}x" if slow and ours else "")
        axes.text(1e3 * first, place, text, va="center", fontsize=8)
    axes.set_yticks(range(len(everyone)), everyone, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    text = f"{run.task.model}, {run.task.side} px: ms of computing a slice; {run.reference} fp32 is 1x"
    axes.set_title(text, loc="left", fontsize=9)


def _keys() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(color=_OURS, label="ours"),
        Patch(color=_AGAIN, label="ours, after a correction"),
        Patch(color=_THEIRS, label="others"),
        Line2D([], [], color=_LINE, linewidth=1.2, label="our operations at the peak of matrix products"),
    ]
