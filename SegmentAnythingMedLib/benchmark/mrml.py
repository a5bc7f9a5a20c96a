"""How long the MRML layer holds a host's main thread: a whole work under a watchdog, on 512x512x300 voxels."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from SegmentAnythingMedLib.benchmark.machine import core_count, load_average, matmul_gflops
from SegmentAnythingMedLib.benchmark.mrml_watchdog import AIM_MS, Phase
from SegmentAnythingMedLib.benchmark.report import Line
from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.geometry import Plane

SHOW_AIM_MS = 10.0

Found = dict[str, list[Phase]]


def run_mrml(model: str, shape_kji: tuple[int, int, int] = (300, 512, 512), only: Iterable[str] = ()) -> dict[str, Any]:
    """Every case, all its phases.

    Parameters
    ----------
    model
        Runs in the worker.
    shape_kji
        Of the volume.
    only
        Titles of cases; by default all.

    Returns
    -------
    dict
        ``cases``: by title, figures of each phase; ``machine``: by title, matmul peak and load average before it.

    Raises
    ------
    ModelUnavailableError
        If slicer-core is not installed.
    """
    try:
        from SegmentAnythingMedLib.benchmark.mrml_scene import MadeUpScene
        from SegmentAnythingMedLib.benchmark.mrml_workflow import Case, Workflow
    except ModuleNotFoundError as error:
        raise ModelUnavailableError("slicer-core is not installed: pip install slicer-core==5.11.0.6") from error
    made = MadeUpScene(shape_kji)
    chosen = set(only)
    found: Found = {}
    machine: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slices = min(100, shape_kji[0] // 3)
        axial = partial(Case, plane=Plane(2), slices=slices)
        oblique = Plane.from_normal([0.3, 0.2, 0.9], _geometry(made.volume))
        cases = [
            axial("axial", target=made.own_layer),
            Case("sagittal", Plane(0), made.own_layer, slices=slices),
            Case("coronal", Plane(1), made.own_layer, slices=slices),
            Case("oblique", oblique, made.own_layer, slices=slices),
            axial("five segments of a collapsed .seg.nrrd", target=partial(made.collapsed, folder)),
            axial("a segment shown in 3D", target=made.with_surface),
            axial("half grid", target=made.half_grid),
            axial("two volumes as channels", target=made.own_layer, channels=lambda: (made.add_volume("MR", 1),)),
        ]
        for case in cases:
            if not chosen or case.name in chosen:
                machine[case.name] = {"matmul_gflops": round(matmul_gflops()), "load": round(load_average(), 2)}
                found[case.name] = Workflow(made.scene, made.volume, case, folder, model).run()
                machine[case.name]["load_after"] = round(load_average(), 2)
    return {"machine": machine, "cases": {name: [p.figures() for p in phases] for name, phases in found.items()}}


def acceptance(result: dict[str, Any]) -> list[Line]:
    """A shown slice within 10 ms (median), no call that computes for 50 ms, none that takes 50 ms.

    How long a call takes is not judged where more processes want a core than there are: what the call waited for then
    is the machine's doing. How long it computes hardly depends on that.
    """
    lines = []
    for case, phases in result["cases"].items():
        shown = [phase["show_median_ms"] for phase in phases if phase["phase"].startswith(("propagate", "re-prop"))]
        shown = [value for value in shown if value >= 0]
        if shown:
            figures = f"{max(shown):.1f} ms"
            lines.append(Line(f"{case}: a slice is shown in {SHOW_AIM_MS:g} ms", max(shown) <= SHOW_AIM_MS, figures))
        for text, longest, over, is_judged in (
            (
                f"no call computes for {AIM_MS:g} ms on the main thread",
                "most_computing_ms",
                "computing_over_50_ms",
                True,
            ),
            (f"no call takes {AIM_MS:g} ms", "longest_ms", "over_50_ms", _is_calm(result["machine"][case])),
        ):
            worst = max(phases, key=lambda phase, key=longest: phase[key])
            count = sum(phase[over] for phase in phases)
            figures = f"{worst[longest]:.0f} ms in {worst['phase']!r}; {count} of {_calls(phases)} calls over"
            figures += "" if is_judged else f"; load average {result['machine'][case]['load']}"
            lines.append(Line(f"{case}: {text}", not count or not is_judged, figures, is_judged))
    return lines


def _calls(phases: list[dict[str, Any]]) -> int:
    return sum(phase["calls"] for phase in phases)


def _is_calm(machine: dict[str, float]) -> bool:
    """Whether a process that wants a core got one; the worker and this process are two."""
    return not max(machine["load"], machine["load_after"]) > core_count()


def markdown(result: dict[str, Any], facts: dict[str, Any]) -> str:
    """A table per case."""
    parts = ["# What the MRML layer costs on the host's main thread", ""]
    parts += [f"- {name}: {value}" for name, value in facts.items()]
    parts += ["", "## What must hold", *(f"- {line}" for line in acceptance(result)), ""]
    for case, phases in result["cases"].items():
        at = result["machine"][case]
        late = median(phase["timer_late_ms"] for phase in phases)
        parts += [
            f"## {case[0].upper()}{case[1:]}",
            f"Matmul peak {at['matmul_gflops']} GFLOP/s, load average {at['load']} to {at['load_after']}, "
            f"timer late by up to {max(phase['timer_late_ms'] for phase in phases):.0f} ms "
            f"(median of the phases' longest {late:.0f}).",
            "",
            "| phase | longest call, ms | most computing | calls > 50 ms | computing > 50 ms | calls | slices "
            "| show median | show max | late |",
            "|---" * 10 + "|",
            *(_row(phase) for phase in phases),
            "",
        ]
    return "\n".join(parts)


def _row(phase: dict[str, Any]) -> str:
    keys = (
        "phase", "longest_ms", "most_computing_ms", "over_50_ms", "computing_over_50_ms", "calls", "slices",
        "show_median_ms", "show_max_ms", "timer_late_ms",
    )  # fmt: skip
    values = [phase[key] for key in keys]
    return "| " + " | ".join("-" if value == -1 else str(value) for value in values) + " |"


def _geometry(node: Any) -> Any:
    from SegmentAnythingMedLib.mrml.frame import VolumeFrame

    return VolumeFrame.of(node).geometry
