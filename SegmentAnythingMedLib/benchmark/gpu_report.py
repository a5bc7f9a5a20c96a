"""The GPU run as JSON, a table and a picture, with whatever rows there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.benchmark.gpu_rows import Setting
from SegmentAnythingMedLib.benchmark.report import Line

TIMES_AS_FAST, FRAMES = 1.5, 68.0
"""What must hold for base+ at 512 px: against sam2 as it recommends to compile it, and in frames a second."""
Rows = dict[Setting, dict[str, Any]]
_HEAD = ("", "precision", "objects", "frames/s", "ms a slice", "tracked alone", "encoder alone", "GiB", "warm-up",
         "error", "Dice")  # fmt: skip


def write(folder: Path, facts: dict[str, Any], settings: Sequence[Setting], rows: Rows) -> list[Line]:
    """Write ``gpu.json`` and ``gpu.md``; returns the lines that must hold, as far as they were measured."""
    records = [{**vars(one), **rows[one]} for one in settings if one in rows]
    text = json.dumps({**facts, "rows": records}, indent=1) + "\n"
    (folder / "gpu.json").write_text(text, encoding="utf-8")
    (folder / "gpu.md").write_text(markdown(facts, settings, rows), encoding="utf-8")
    return acceptance(rows)


def acceptance(rows: Rows) -> list[Line]:
    """For base+ at 512 px, one object, bf16; the fastest of our rows counts, only with masks that are right."""
    ours = _best(rows, "ours")
    if ours is None:
        return []
    name, fps = ours
    lines = [Line(f"base_plus at 512 px: {FRAMES:.0f} frames a second ({name})", fps >= FRAMES, f"{fps:.1f}")]
    theirs = _best(rows, "sam2", "compiled")
    if theirs is not None:
        ratio = fps / theirs[1]
        text = f"base_plus at 512 px: {TIMES_AS_FAST}x as fast as sam2 compiled"
        lines.append(Line(text, ratio >= TIMES_AS_FAST, f"{ratio:.2f}x"))
    return lines


def _best(rows: Rows, who: str, mode: str | None = None) -> tuple[str, float] | None:
    wanted = Setting(who, "base_plus", 512)
    found = [
        (one.name, row["fps"])
        for one, row in rows.items()
        if (one.who, one.model, one.side, one.objects, one.precision)
        == (who, wanted.model, wanted.side, 1, wanted.precision)
        and mode in (None, one.mode)
        and "fps" in row
        and not row.get("failed")
    ]
    return max(found, key=lambda pair: pair[1], default=None)


def markdown(facts: dict[str, Any], settings: Sequence[Setting], rows: Rows) -> str:
    """The report; docs/benchmarks/gpu.md says what the columns are."""
    parts = ["# Speed on a GPU", "", *(f"- {name}: {value}" for name, value in facts.items())]
    parts += [f"- {line}" for line in acceptance(rows)]
    machine = rows.get(Setting("machine"), {})
    parts += [f"- {name}: {_number(value)}" for name, value in machine.items() if name != "took"]
    sizes = dict.fromkeys((one.model, one.side) for one in settings if one.model)
    for model, side in sizes:
        chosen = [one for one in settings if (one.model, one.side) == (model, side) and one in rows]
        if chosen:
            parts += ["", f"## {model}, {side} px", "", _line(_HEAD), _line(["---"] * len(_HEAD))]
            parts += [_line(_cells(one, rows[one])) for one in chosen]
    failed = [f"- {one.model} {one.side} px, {one.name}: {why}" for one in settings for why in _whys(rows.get(one, {}))]
    left = [one for one in settings if one not in rows]
    parts += ["", "## Did not work", "", *failed] if failed else []
    parts += ["", f"Not measured, the time was over: {len(left)} of {len(settings)} rows."] if left else []
    return "\n".join(parts) + "\n"


def _whys(row: dict[str, Any]) -> list[str]:
    return [*([row["error"]] if "error" in row else []), *row.get("failed", [])]


def _cells(setting: Setting, row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [setting.name, setting.precision, str(setting.objects), "-", *[""] * (len(_HEAD) - 4)]
    milliseconds = [f"{row[name]:.2f}" if name in row else "" for name in ("ms", "tracked_ms", "encoder_ms")]
    memory = f"{row['peak_mib'] / 1024:.2f}" if "peak_mib" in row else ""
    likeness = [f"{row['difference']:.0e}", f"{row['dice']:.4f}"] if "dice" in row else ["", ""]
    name = setting.name + " (not as it says)" * bool(row.get("failed"))
    figures = [f"{row['fps']:.1f}", *milliseconds, memory, f"{row['warm_up_s']:.0f} s", *likeness]
    return [name, setting.precision, str(setting.objects), *figures]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(path: Path, facts: dict[str, Any], rows: Rows) -> str:
    """Frames a second of each model and side, ours and sam2's; says why if there is no picture."""
    try:
        import matplotlib
    except ImportError:
        return "no picture: matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = {one: row["fps"] for one, row in rows.items() if "fps" in row and one.objects == 1}
    if not found:
        return "no picture: no row was measured"
    groups = list(dict.fromkeys((one.model, one.side) for one in found))
    kinds = list(dict.fromkeys(f"{one.name}, {one.precision}" for one in found))
    figure, axes = pyplot.subplots(figsize=(10, 0.5 + 0.28 * len(found) + 0.3 * len(groups)))
    colours = pyplot.get_cmap("tab20")
    place, ticks = 0.0, []
    for model, side in groups:
        chosen = [one for one in found if (one.model, one.side) == (model, side)]
        for one in chosen:
            kind = f"{one.name}, {one.precision}"
            axes.barh(place, found[one], color=colours(kinds.index(kind) % 20))
            axes.text(found[one], place, f" {found[one]:.0f}", va="center", fontsize=7)
            ticks.append((place, f"{model} {side}: {kind}"))
            place += 1
        place += 0.6
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("frames a second, end to end, one object")
    axes.set_title(str(facts["device"]), fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return f"picture: {path.name}"
