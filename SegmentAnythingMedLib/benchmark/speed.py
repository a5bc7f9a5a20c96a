"""How fast propagation is beside the packages a user would run instead: same weights, slices and threads, by turns.

Every figure is a ratio within one run. Seconds are given by the clock and as computing time of the process: on a busy
machine only the second can be trusted, and with one thread it is what a quiet machine's clock would show.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch

from SegmentAnythingMedLib.benchmark.machine import load_average, processor
from SegmentAnythingMedLib.benchmark.report import Line
from SegmentAnythingMedLib.benchmark.speed_contenders import (
    MERGED,
    PRECISIONS,
    SETTLED,
    Ours,
    SliceTimes,
    Task,
    contenders,
    ours_in,
)
from SegmentAnythingMedLib.errors import SegmentAnythingMedError

MUST: dict[str, dict[str, float]] = {
    "tiny": {"bf16": 3.5, "fp32": 2.0, "second": 9.0, "three": 1.6, "floor": 0.70},
    "edgetam": {"bf16": 3.5, "fp32": 2.0, "second": 5.0, "three": 1.8, "floor": 0.65},
}
"""What must hold at 512 px, as ratios: ours in bf16 and in fp32 against the reference in fp32, a second propagation,
three objects against one (at most), and the share of the floor that the processor's matrix products allow."""
FEWEST = SETTLED + 3
"""Slices of a task: the prompted one, the first tracked one and those that fill the memory are not timed."""
EQUAL = 1e-5
"""Largest difference of fp32 logits, as a part of the largest reference logit."""


@dataclass(frozen=True)
class SpeedRow:
    """A contender's median seconds per tracked slice once the memory is full; ``computing`` and by the clock."""

    model: str
    side: int
    name: str
    part: str
    wall: float
    computing: float
    rounds: int


@dataclass(frozen=True)
class SpeedRun:
    """All rows of a model, and what they are held against.

    Parameters
    ----------
    rows
        By contender and part.
    peaks
        GFLOP/s of matrix products in fp32 and bf16, measured between the rounds; the best.
    gflops
        Operations of one tracked slice of ours by stage, in 10^9.
    difference
        Largest fp32 difference to the reference as a part of its largest logit, None if not compared.
    facts
        Processor, threads, load.
    """

    task: Task
    rows: tuple[SpeedRow, ...]
    peaks: dict[str, float]
    gflops: dict[str, float]
    difference: float | None
    facts: dict[str, Any]
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    """Seconds of computing of each stage of ours, by contender."""

    @property
    def gflop(self) -> float:
        """Operations of all stages."""
        return sum(self.gflops.values())

    def seconds(self, name: str, part: str = "first", clock: bool = False) -> float | None:
        """Seconds per slice of a contender, or None if it was not there."""
        found = [row for row in self.rows if (row.name, row.part) == (name, part)]
        return None if not found else (found[0].wall if clock else found[0].computing)

    def share(self, name: str, precision: str) -> float:
        """Which part of the floor a contender reaches: operations by the peak, as a part of its seconds."""
        return self.gflop / self.peaks[precision] / self.seconds(name)

    @property
    def reference(self) -> str:
        """Who is the measure: sam2, for EdgeTAM transformers."""
        return "transformers" if self.task.model == "edgetam" else "sam2"

    def as_json(self) -> dict[str, Any]:
        task = {"model": self.task.model, "side": self.task.side, "slices": self.task.count}
        found = {"rows": [asdict(row) for row in self.rows], "peaks": self.peaks, "gflops": self.gflops}
        return task | found | {"stages": self.stages, "difference": self.difference} | self.facts


def run_speed(
    task: Task,
    rounds: int,
    threads: int,
    backends: Sequence[str] = ("torch",),
    precisions: Sequence[str] = ("fp32", "bf16"),
) -> SpeedRun:
    """Everyone by turns, ``rounds`` times.

    Parameters
    ----------
    task
        What is done.
    rounds
        Medians are taken over the slices of all of them.
    threads
        Of torch, and of every other runtime.
    backends
        Ways to run our networks, of `speed_contenders.BACKENDS`.
    precisions
        Of everyone; fp32 alone where bf16 would take minutes.

    Raises
    ------
    SegmentAnythingMedError
        If the task has too few slices for the memory to be full.
    """
    if task.count < FEWEST:
        raise SegmentAnythingMedError(f"Times count once the memory is full: take at least {FEWEST} slices.")
    torch.set_num_threads(threads)
    started, load = time.perf_counter(), load_average()
    everyone = contenders(task, backends, precisions)
    seconds: defaultdict[tuple[str, str], list[SliceTimes]] = defaultdict(list)
    peaks = dict.fromkeys(precisions, 0.0)
    for one in everyone:
        one.warm_up()
    for _ in range(rounds):
        peaks = {name: max(peaks[name], value) for name, value in matmul_peaks(precisions).items()}
        for one in everyone:
            for part, times in one.run().items():
                seconds[one.name, part].append(times.settled)
    rows = [
        SpeedRow(task.model, task.side, name, part, _median(found, "wall"), _median(found, "computing"), rounds)
        for (name, part), found in seconds.items()
    ]
    stages = {one.name: one.stages for one in everyone if isinstance(one, Ours)}
    facts = {"processor": processor(), "threads": threads, "torch": torch.__version__, "load average before": load,
             "seconds": round(time.perf_counter() - started, 1)}  # fmt: skip
    gflops = ours_in(task, "torch", "fp32").operations()
    return SpeedRun(task, tuple(rows), peaks, gflops, difference_to_reference(task), facts, stages)


def matmul_peaks(
    precisions: Sequence[str] = ("fp32", "bf16"), size: int = 1536, seconds: float = 0.4
) -> dict[str, float]:
    """Best GFLOP/s of torch's square matrix products."""
    return {name: _peak(size, seconds, PRECISIONS[name]) for name in precisions}


def _peak(size: int, seconds: float, dtype: torch.dtype) -> float:
    a, best = torch.rand(size, size).to(dtype), 0.0
    a @ a
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.process_time()
        a @ a
        best = max(best, 2e-9 * size**3 / max(time.process_time() - start, 1e-9))
    return best


def difference_to_reference(task: Task, slices: int = 4) -> float:
    """Largest difference of our fp32 logits to the reference's on a short run, as a part of its largest logit."""
    short = task.shortened(slices)
    ours = ours_in(short, "torch", "fp32").logits()
    worst = 0.0
    for index, logits in short.published_slices():
        wanted = torch.nn.functional.interpolate(logits.float(), (task.side, task.side), mode="bilinear")[0, 0].numpy()
        worst = max(worst, float(np.abs(ours[index] - wanted).max() / np.abs(wanted).max()))
    return worst


def acceptance(run: SpeedRun) -> list[Line]:
    """The lines that must hold for a model; ratios of computing time."""
    must, who = MUST.get(run.task.model), run.reference
    if must is None or run.task.side != 512:
        return []
    slow, title, lines = run.seconds(f"{who} fp32"), f"{run.task.model} at {run.task.side} px", []
    if slow is None:
        return []  # everything is held against the reference in fp32
    for precision in reversed(run.peaks):
        name = _fastest(run, precision)
        lines += _lines_of(run, name, precision, slow / run.seconds(name), must, f"{title}: {name}")
    if "bf16" in run.peaks:
        lines += _more_lines(run, _fastest(run, "bf16"), slow, must, title)
        merged = f"ours, {MERGED} bf16"
        if run.seconds(merged):
            ratio, text = slow / run.seconds(merged), f"{title}: {merged}"
            lines.append(Line(f"{text} {must['bf16']}x as fast as {who} fp32", ratio >= must["bf16"], f"{ratio:.2f}x"))
            lines += _more_lines(run, merged, slow, must, text)
    if run.difference is not None:
        lines.append(Line(f"{title}: fp32 equal to {EQUAL}", run.difference <= EQUAL, f"{run.difference:.1e}"))
    return lines


def _more_lines(run: SpeedRun, name: str, slow: float, must: dict[str, float], title: str) -> list[Line]:
    """Of a second propagation, and of three objects."""
    again, three = slow / run.seconds(name, "second"), _three(run, name)
    text = f"{title}: second propagation {must['second']}x as fast as {run.reference} fp32 again"
    return [
        Line(text, again >= must["second"], f"{again:.1f}x"),
        Line(f"{title}: three objects at most {must['three']}x one", three <= must["three"], f"{three:.2f}x"),
    ]


def _lines_of(run: SpeedRun, name: str, precision: str, ratio: float, must: dict[str, float], title: str) -> list[Line]:
    share = run.share(name, precision)
    return [
        Line(f"{title} {must[precision]}x as fast as {run.reference} fp32", ratio >= must[precision], f"{ratio:.2f}x"),
        Line(f"{title} {must['floor']:.0%} of the floor", share >= must["floor"], f"{share:.0%}"),
    ]


def markdown(runs: Sequence[SpeedRun], facts: dict[str, Any]) -> str:
    """The report."""
    facts = facts | runs[0].facts
    parts = ["# Speed of propagation on a CPU", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    for run in runs:
        peaks = ", ".join(f"{value:.0f} GFLOP/s {name}" for name, value in run.peaks.items())
        parts += [f"## {run.task.model}, {run.task.side} px, {run.task.count} slices", ""]
        parts += [f"- matrix products: {peaks}; {run.gflop:.0f} GFLOP a tracked slice"]
        parts += [f"- {line}" for line in acceptance(run)]
        slow = run.seconds(f"{run.reference} fp32")
        parts += [
            "",
            f"| | | computing ms a slice | by the clock | {run.reference} fp32 takes | of the floor |",
            "|---|---|---|---|---|---|",
        ]
        for row in run.rows:
            ratio = f"{slow / row.computing:.2f}x" if slow else "-"
            counted = row.part == "first" and MERGED not in row.name  # whose operations are fewer
            share = f"{run.share(row.name, row.name[-4:]):.0%}" if counted else ""
            milliseconds = f"{1e3 * row.computing:.0f} | {1e3 * row.wall:.0f}"
            parts.append(f"| {row.name} | {row.part} | {milliseconds} | {ratio} | {share} |")
        parts += ["", *_stage_table(run), ""]
    return "\n".join(parts)


def _stage_table(run: SpeedRun) -> list[str]:
    """Computing of each stage of ours, and which part of the peak it reaches."""
    names = list(run.gflops)
    lines = [f"| first propagation, ms and part of the peak | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines.append(f"| GFLOP | {' | '.join(f'{value:.1f}' for value in run.gflops.values())} |")
    for name, stages in run.stages.items():
        peak = run.peaks[name[-4:]]
        shares = ["" if MERGED in name else f" ({run.gflops[one] / peak / stages[one]:.0%})" for one in names]
        cells = [f"{1e3 * stages[one]:.0f}{share}" for one, share in zip(names, shares, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _fastest(run: SpeedRun, precision: str) -> str:
    mine = [row for row in run.rows if row.name.startswith("ours") and row.name.endswith(precision)]
    ours = [row for row in mine if MERGED not in row.name]  # which is lossy, and asked for
    return min((row for row in ours if row.part == "first"), key=lambda row: row.computing).name


def _three(run: SpeedRun, name: str) -> float:
    """Three objects against one, both with the encoder: what is added is twice the second propagation's difference."""
    first, second, three = (run.seconds(name, part) for part in ("first", "second", "three again"))
    return (first - second + three) / first


def _median(found: Sequence[SliceTimes], kind: str) -> float:
    return median(value for times in found for value in getattr(times, kind))
