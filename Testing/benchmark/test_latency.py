from __future__ import annotations

from SegmentAnythingMedLib.benchmark.latency import acceptance, markdown


def test_a_slow_call_and_a_late_slice_fail_their_lines() -> None:
    fast = {"p50": 0.1, "p99": 0.9, "max": 2.0, "count": 100}
    figures = {"submit": fast, "poll": {**fast, "p99": 11.0}, "cancel_to_quiet_slices": {**fast, "max": 2}}
    assert [line.holds for line in acceptance(figures)] == [True, False, False]
    assert "| poll | 0.1 | 11.0 | 2.0 | 100 |" in markdown(figures, {"model": "classic"})
