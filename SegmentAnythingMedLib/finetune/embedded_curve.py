"""Draws the learning curve of a run from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_log(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training records and measurements of a log, oldest first."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [one for one in records if "measured" not in one], [one for one in records if "measured" in one]


def draw_curve(log: Path, picture: Path) -> None:
    """Loss, Dice on training examples, and Dice on held-out structures beside the trivial rules, over examples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    training, measured = read_log(log)
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
    seen = [one["examples"] / 1000 for one in training]
    left.plot(seen, [one["loss"] for one in training], color="black", linewidth=1)
    left.set(title="training loss", xlabel="thousand examples")
    for kind in ("box", "click", "memory", "refined"):
        there = [(one["examples"] / 1000, one[kind]) for one in training if kind in one]
        if there:
            middle.plot(*zip(*there, strict=True), linewidth=1, label=kind)
    middle.set(title="Dice on training examples", xlabel="thousand examples", ylim=(0, 1))
    middle.legend()
    names = sorted({name for one in measured for name, value in one["measured"].items() if isinstance(value, float)})
    colors = {}
    for name in [name for name in names if " dice" in name]:
        points = [(one["examples"] / 1000, one["measured"][name]) for one in measured if name in one["measured"]]
        what = name.split(" dice")[0]
        trivial = name.endswith(("(ellipse)", "(copy)"))
        color = colors.setdefault(what, f"C{len(colors) % 10}")
        right.plot(*zip(*points, strict=True), "--" if trivial else "o-", color=color, label=name, markersize=3)
    right.set(title="Dice on held-out structures (dashed: trivial rule)", xlabel="thousand examples", ylim=(0, 1))
    if colors:
        right.legend(fontsize=6)
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=90)
    pyplot.close(figure)
