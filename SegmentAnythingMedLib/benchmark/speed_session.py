"""What a user waits and pays for beside seconds per slice: memory, a first outline, and a busy machine.

Everything is measured in processes of its own, see `speed_children`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.benchmark.report import Line
from SegmentAnythingMedLib.errors import SegmentAnythingMedError

MOST_OF_SAM2, MOST_MORE, MOST_OVERHEAD_S, MOST_CONTENTION = 0.40, 0.10, 0.030, 1.25
"""Memory beside sam2 at 300 slices, growth from 100 to 400 slices, first outline beyond an encoder pass; and with one
thread and a free core for it, a slice beside a busy program as a part of one without (what the machine itself varies
by)."""


def run_session(
    model: str, side: int, precision: str, folder: Path, counts: tuple[int, ...] = (100, 300, 400), reference: int = 300
) -> dict[str, Any]:
    """All figures of a model.

    Parameters
    ----------
    model, side, precision
        As in `speed_contenders.Task`; ``precision`` fp32, bf16 or auto.
    folder
        For weights and what OpenVINO converts.
    counts
        Slices whose memory is compared; the first and the last must be alike.
    reference
        Slices that sam2 is run on, one of ``counts``; 0 leaves it out, and EdgeTAM is not in it.
    """
    ours = {"model": model, "side": side, "precision": precision, "folder": str(folder)}
    short, task = {**ours, "count": 20}, {"model": model, "side": side}
    child("first outline", **short)  # converts
    found: dict[str, Any] = {**task, "precision": precision, "outline": child("first outline", **short)}
    found["busy"] = [child("beside a busy program", **short, threads=threads) for threads in (1, 2)]
    found["memory"] = {str(count): child("memory of ours", **ours, count=count) for count in counts}
    if model != "edgetam" and reference:
        found["volume network"] = {one: child("volume network", precision=one) for one in ("fp32", "bf16")}
        found["jpeg"] = child("jpeg pipeline", **task, count=reference)
        found["sam2 memory"] = child("memory of sam2", **task, count=reference)
    return found


def child(name: str, **options: Any) -> dict[str, Any]:
    """What a fresh process of `speed_children` measures."""
    command = [sys.executable, "-m", "SegmentAnythingMedLib.benchmark.speed_children", name, json.dumps(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.get("threads", 1))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SegmentAnythingMedError(f"Measuring the {name} failed: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def acceptance(found: dict[str, Any]) -> list[Line]:
    """What must hold."""
    title, outline = f"{found['model']} at {found['side']} px, {found['precision']}", found["outline"]
    memory = list(found["memory"].values())
    least, most = memory[0]["peak"] + memory[-1]["labelmap"] + memory[-1]["voxels"], memory[-1]["peak"]
    growth = most / least - 1
    counts = " and ".join((list(found["memory"])[0], list(found["memory"])[-1]))
    beyond = outline["warm"] - outline["encoder pass"]
    single = found["busy"][0]
    slower = single["one core loaded"] / single["alone"]
    text = f"{title}: peak memory of {counts} slices alike but for voxels and labelmap"
    lines = [Line(text, growth <= MOST_MORE, f"{growth:+.1%}")]
    if "sam2 memory" in found:
        count = found["sam2 memory"]["slices"]
        nearest = min(found["memory"], key=lambda name: abs(int(name) - count))
        share = found["memory"][nearest]["peak"] / found["sam2 memory"]["peak"]
        text = f"{title}: below {MOST_OF_SAM2:.0%} of sam2's peak at {nearest} slices"
        lines.append(Line(text, share < MOST_OF_SAM2, f"{share:.0%}"))
    text = f"{title}: first outline of a warm worker an encoder pass and at most {1e3 * MOST_OVERHEAD_S:.0f} ms"
    lines.append(Line(text, beyond <= MOST_OVERHEAD_S, f"{1e3 * beyond:.0f} ms"))
    text = f"{title}: one thread loses no time beside a busy program"
    lines.append(Line(text, slower <= MOST_CONTENTION, f"{slower:.2f}x"))
    return lines


def markdown(found: dict[str, Any], facts: dict[str, Any]) -> str:
    """The report."""
    outline = found["outline"]
    title = f"# A session with {found['model']} at {found['side']} px in {found['precision']}"
    lines = [title, "", *(f"- {name}: {value}" for name, value in facts.items())]
    lines += [f"- {line}" for line in acceptance(found)]
    lines += ["", "| | seconds by the clock |", "|---|---|"]
    words = {
        "imports": "cold: from the process's start to imported libraries",
        "loading": "cold: loading the model, conversions in the cache",
        "first outline": "cold: first outline then",
        "encoder pass": "warm: encoder pass of a slice",
        "warm": "warm: box to outline, that pass included",
        "prefetched": "warm: box to outline on a prefetched slice",
    }
    lines += [f"| {text} | {outline[name]:.3f} |" for name, text in words.items()]
    for one in found["busy"]:
        for name in ("alone", "one core loaded"):
            lines.append(f"| a tracked slice, {one['threads']} threads, {name} | {one[name]:.3f} |")
    for name, one in found.get("volume network", {}).items():
        text = f"context: one interaction with a network as large as nnInteractive's, 192^3 voxels, random, {name}"
        lines.append(f"| {text} | {one['wall']:.1f} ({one['computing']:.1f} of computing) |")
    if "jpeg" in found:
        jpeg = found["jpeg"]
        text = f"sam2: {jpeg['slices']} slices written as JPEG, then read, before the first prompt"
        lines.append(f"| {text} | {jpeg['writing']:.3f} + {jpeg['reading']:.3f} |")
    lines += ["", "| peak memory of the process | MiB |", "|---|---|"]
    lines += [f"| ours, {count} slices | {one['peak'] / 2**20:.0f} |" for count, one in found["memory"].items()]
    if "sam2 memory" in found:
        one = found["sam2 memory"]
        lines.append(f"| sam2 in bf16 autocast, {one['slices']} slices | {one['peak'] / 2**20:.0f} |")
    return "\n".join(lines) + "\n"
