"""The whole run of `make bench-embedded`: rows of all structures, speed, report and picture."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.benchmark import embedded_report
from SegmentAnythingMedLib.benchmark.accuracy import Study, run_accuracy, run_header
from SegmentAnythingMedLib.benchmark.datasets import Structure
from SegmentAnythingMedLib.benchmark.embedded_picture import draw_embedded
from SegmentAnythingMedLib.benchmark.embedded_scoring import SOURCES, score_embedded
from SegmentAnythingMedLib.benchmark.embedded_speed import run_speed
from SegmentAnythingMedLib.benchmark.report import Line, headline_rows
from SegmentAnythingMedLib.errors import ModelFileError, SegmentAnythingMedError
from SegmentAnythingMedLib.models.registry import ModelRegistry

EMBEDDED = Study("embedded", score_embedded, SOURCES)


def use_weights(model: str, file: Path) -> None:
    """Let this process and those it starts take a model's weights from a file; its card lies beside it.

    Raises
    ------
    ModelFileError
        If there is no such file, or no card in its folder names both the model and the file.
    """
    if not file.is_file():
        raise ModelFileError(f"There are no weights at {file}: correct --weights.")
    cards = {card.name: card.file for card in ModelRegistry([file.parent], file.parent).cards}
    if cards.get(model) != file.name:
        raise ModelFileError(
            f"No card beside {file.name} says that it is the model {model!r}: put its JSON card there."
        )
    os.environ["SEGMENT_ANYTHING_MED_MODELS"] = str(file.parent.resolve())


def run_embedded(
    structures: list[Structure], data: Path, output: Path, model: str, facts: dict[str, Any], jobs: int, fresh: bool
) -> tuple[list[Line], str]:
    """Measure everything, write JSON, Markdown and the picture, and return what must hold and the report's text.

    Raises
    ------
    SegmentAnythingMedError
        If scikit-image is not installed, or the model cannot be loaded.
    """
    if importlib.util.find_spec("skimage") is None:
        raise SegmentAnythingMedError(
            "The rules beside the model need scikit-image: install segment-anything-med[bench]."
        )
    started = time.perf_counter()
    timings = run_speed(model)
    facts = {"model": model, **facts, **run_header(model, EMBEDDED)}
    rows = run_accuracy(structures, data, output, model, jobs=jobs, fresh=fresh, study=EMBEDDED)
    seconds = sum(row.get("facts", {}).get("seconds", 0.0) for row in rows)
    facts |= {
        "structures": len(rows), "this run": f"{(time.perf_counter() - started) / 60:.1f} min",
        "all rows, one process": f"{seconds / 60:.0f} min",
    }  # fmt: skip
    name = f"embedded-{model}"
    text = embedded_report.markdown(rows, timings, facts)
    if any(row.get("scores") for row in headline_rows(rows)):
        draw_embedded(rows, output / f"{name}.png", f"{model} on the development data, {facts.get('date', '')}")
        text += f"\n![Dice]({name}.png)\n"
    result = _without_nan(embedded_report.summary(rows, timings, facts))
    (output / f"{name}.json").write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
    (output / f"{name}.md").write_text(text, encoding="utf-8")
    return embedded_report.all_lines(rows, timings), text


def _without_nan(value: Any) -> Any:
    """The same with None where there is no number, as JSON has no nan."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
