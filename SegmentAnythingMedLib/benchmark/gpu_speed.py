"""Frames per second on a GPU beside PyPI's sam2: ``python -m SegmentAnythingMedLib.benchmark.gpu_speed``.

Rows are measured one by one in a process of their own, most important first. It is ended when the time is over or a
row takes too long, and started again where it broke down; the report always holds what there is. docs/benchmarks/gpu.md
says how to read it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SegmentAnythingMedLib.benchmark.gpu_rows import MODELS, SIDES, Setting, plan

if TYPE_CHECKING:
    from SegmentAnythingMedLib.benchmark.gpu_report import Rows

RESERVE_SECONDS = 12.0
"""Kept for the last report and the picture."""
ROW_SECONDS = 400.0
"""A row that takes longer is left; compiling sam2 as it recommends takes minutes."""
SLICES, SETTLED = 49, 32
"""Slices of a propagation, and how many of its last ones are measured: the memory is full from the 17th on."""


@dataclass(frozen=True)
class Run:
    """What is asked for: rows in order, where, for how long, and where results go."""

    settings: Sequence[Setting]
    device: str
    seconds: float
    output: Path
    slices: int = SLICES
    settled: int = SETTLED
    row_seconds: float = ROW_SECONDS

    @property
    def planned(self) -> Path:
        """What the measuring process reads."""
        return self.output / "plan.json"

    @property
    def written(self) -> Path:
        """What it writes."""
        return self.output / "rows.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if every line that was measured holds."""
    parser = argparse.ArgumentParser(prog="python -m SegmentAnythingMedLib.benchmark.gpu_speed", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="all in all")
    parser.add_argument("--output", type=Path, default=Path("out/gpu-bench"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu only to try the run out")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=(*MODELS, "miniature"))
    parser.add_argument("--sides", nargs="+", type=int, default=list(SIDES))
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these words")
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--settled", type=int, default=SETTLED)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        from SegmentAnythingMedLib.benchmark.gpu_measure import measure_rows

        measure_rows(*chosen.child, chosen.device, chosen.slices, chosen.settled)
        return 0
    settings = [
        one
        for one in plan(chosen.models, chosen.sides)
        if not chosen.only or any(word in f"{one.name} {one.precision}" for word in chosen.only)
    ]
    seconds = 60 * chosen.minutes
    return run(Run(settings, chosen.device, seconds, chosen.output, chosen.slices, chosen.settled))


def run(asked: Run) -> int:
    """Measure until the time is over; 0 if every line that was measured holds."""
    from SegmentAnythingMedLib.benchmark import gpu_measure, gpu_report

    end = time.monotonic() + asked.seconds
    asked.output.mkdir(parents=True, exist_ok=True)
    asked.written.unlink(missing_ok=True)
    asked.planned.write_text(gpu_measure.setting_as_json(asked.settings), encoding="utf-8")
    try:
        facts = gpu_measure.facts(asked.device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA, or a driver that does not answer
        sys.stderr.write(f"No GPU can be used: {error}. Try the run out with --device cpu --models miniature.\n")
        return 2
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    rows: Rows = {}
    report = partial(gpu_report.write, asked.output, facts, asked.settings, rows)
    deadline = end - min(RESERVE_SECONDS, asked.seconds / 4)
    while len(rows) < len(asked.settings) and time.monotonic() < deadline:
        before = len(rows)
        _note_broken(asked, rows, _watch(asked, rows, deadline, report))
        if len(rows) == before:
            break  # starting again would not help
    lines = report()
    picture = gpu_report.draw(asked.output / "gpu.png", facts, rows)
    print((asked.output / "gpu.md").read_text(encoding="utf-8"), picture, *lines, sep="\n", flush=True)
    return 0 if all(line.holds for line in lines) else 1


def _watch(asked: Run, rows: Rows, deadline: float, report: Callable[[], object]) -> str:
    """Start the measuring process and take over its rows until it ends, or has to; says why it ended."""
    command = [sys.executable, "-m", "SegmentAnythingMedLib.benchmark.gpu_speed", "--device", asked.device]
    command += ["--slices", str(asked.slices), "--settled", str(asked.settled)]
    command += ["--child", str(asked.planned), str(asked.written)]
    with (asked.output / "log.txt").open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **_own_group())
        newest = time.monotonic()
        try:
            while True:
                ended = child.poll() is not None
                if _take_over(asked, rows):
                    newest = time.monotonic()
                    report()
                if ended:
                    return "ended" if child.returncode == 0 else f"the process ended with {child.returncode}"
                if time.monotonic() >= deadline:
                    return "the time was over"
                if time.monotonic() - newest > asked.row_seconds:
                    return f"took more than {asked.row_seconds:.0f} s"
                time.sleep(0.1)
        finally:
            _end(child)


def _take_over(asked: Run, rows: Rows) -> bool:
    """Read the rows that are new; whether there were any."""
    from SegmentAnythingMedLib.benchmark.gpu_measure import read_rows

    new = [one for one in read_rows(asked.written) if "index" in one and asked.settings[one["index"]] not in rows]
    for record in new:
        setting = asked.settings[record["index"]]
        rows[setting] = {name: value for name, value in record.items() if name != "index"}
        shown = f"{record['fps']:.1f} frames/s" if "fps" in record else record.get("error", "")
        what = f"{setting.model} {setting.side} {setting.precision}, {setting.objects} objects, {setting.name}"
        print(f"{what}: {shown} ({record['took']} s)", flush=True)
    return bool(new)


def _note_broken(asked: Run, rows: Rows, why: str) -> None:
    """A row that was begun and has no figures gets the reason, unless only the time was over."""
    from SegmentAnythingMedLib.benchmark.gpu_measure import read_rows

    if why == "the time was over":
        return
    for record in read_rows(asked.written):
        if "started" in record and asked.settings[record["started"]] not in rows:
            rows[asked.settings[record["started"]]] = {"error": f"{why}; log.txt has more"}


def _own_group() -> dict[str, Any]:
    """So that the processes that compile end with their parent."""
    return {"process_group": 0} if os.name == "posix" else {}


def _end(child: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()


if __name__ == "__main__":
    sys.exit(main())
