"""The client's latency as a table, and what of it must hold."""

from __future__ import annotations

from SegmentAnythingMedLib.benchmark.client_latency import measure_client_latency
from SegmentAnythingMedLib.benchmark.report import Line

AIM_MS = 10.0
MOST_LATE_SLICES = 1
CALLS = ("submit", "poll", "cancel", "open_volume")
"""Calls that the host makes on the thread of its user interface."""

Figures = dict[str, dict[str, float]]


def run_latency(model: str) -> Figures:
    """Percentiles in milliseconds (slices for ``cancel_to_quiet_slices``) at full load of the worker."""
    return measure_client_latency(model)


def acceptance(figures: Figures) -> list[Line]:
    """No call holds up a user interface, and a cancelled job is quiet after at most one slice."""
    lines = [
        Line(f"client's {call}: 99th percentile below {AIM_MS:g} ms", figures[call]["p99"] < AIM_MS,
             f"{figures[call]['p99']:.2f} ms of {figures[call]['count']} calls")
        for call in CALLS if call in figures
    ]  # fmt: skip
    late = figures.get("cancel_to_quiet_slices")
    if late is not None:
        text = f"after a cancel at most {MOST_LATE_SLICES} slice comes"
        lines.append(Line(text, late["max"] <= MOST_LATE_SLICES, f"{late['max']:g} slices"))
    return lines


def markdown(figures: Figures, facts: dict[str, object]) -> str:
    """A row per call."""
    lines = ["# Latency of the worker's client at full load", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- {line}" for line in acceptance(figures)]
    lines += ["", "| call (ms) | median | 99th percentile | longest | calls |", "|---" * 5 + "|"]
    lines += [f"| {name} | {f['p50']} | {f['p99']} | {f['max']} | {f['count']} |" for name, f in figures.items()]
    return "\n".join(lines) + "\n"
