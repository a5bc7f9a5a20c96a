from __future__ import annotations

import time

import pytest

from SegmentAnythingMedLib.benchmark.mrml import acceptance, markdown
from SegmentAnythingMedLib.benchmark.mrml_watchdog import Phase, Watchdog
from SegmentAnythingMedLib.errors import WorkerError


def a_result(*phases: Phase, load: float = 0.1) -> dict[str, object]:
    machine = {"matmul_gflops": 90, "load": load, "load_after": load}
    return {"cases": {"axial": [phase.figures() for phase in phases]}, "machine": {"axial": machine}}


def test_a_call_that_holds_the_thread_and_a_slow_slice_fail_their_lines() -> None:
    quick = Phase("propagate 100 slices", [(12.0, 11.0), (49.0, 30.0)], [0.2, 9.0, 30.0], [1.5, 0.2])
    assert [line.holds for line in acceptance(a_result(quick))] == [True, True, True]
    slow = Phase("accept", [(80.0, 70.0), (90.0, 10.0)])
    late = Phase("re-propagate", [(3.0, 3.0)], [11.0, 12.0])
    lines = acceptance(a_result(quick, slow, late))
    assert [line.holds for line in lines] == [False, False, False]
    assert "11.5 ms" in lines[0].figures and "70 ms in 'accept'; 1 of 5" in lines[1].figures
    assert "90 ms in 'accept'; 2 of 5" in lines[2].figures


def test_waiting_is_not_judged_on_a_machine_that_is_too_busy_but_computing_is() -> None:
    waited = Phase("accept", [(400.0, 10.0)])
    assert [line.holds for line in acceptance(a_result(waited, load=500.0))] == [True, True]
    computed = Phase("accept", [(400.0, 60.0)])
    lines = acceptance(a_result(computed, load=500.0))
    assert [line.holds for line in lines] == [False, True]
    assert "load average 500.0" in lines[1].figures
    assert str(lines[1]).startswith("not judged: ")


def test_the_table_has_a_row_per_phase_and_no_figure_where_nothing_was_shown() -> None:
    text = markdown(a_result(Phase("undo", [(5.0, 4.0)])), {"date": "today"})
    assert "| undo | 5.0 | 4.0 | 0 | 0 | 1 | 0 | - | - | 0.0 |" in text and "- date: today" in text


def test_the_watchdog_times_calls_and_tells_computing_from_waiting() -> None:
    watchdog = Watchdog()
    phase = watchdog.begin("waiting")
    count = []
    watchdog.run(lambda: count.append(time.sleep(0.02)), lambda: len(count) == 3)
    assert len(phase.calls) == len(phase.late) == 3
    assert all(wall >= 19 and own < wall / 2 for wall, own in phase.calls)
    with pytest.raises(ZeroDivisionError):
        watchdog.timed(lambda: 1 / 0)
    assert len(phase.calls) == 4


def test_the_watchdog_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("SegmentAnythingMedLib.benchmark.mrml_watchdog._PATIENCE_S", 0.05)
    watchdog = Watchdog()
    watchdog.begin("for ever")
    with pytest.raises(WorkerError, match="'for ever' was not done"):
        watchdog.run(lambda: None, lambda: False)


def test_a_small_work_goes_through_all_its_phases() -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.11.0.6")
    from SegmentAnythingMedLib.benchmark.mrml import run_mrml

    result = run_mrml("classic", (24, 48, 48), ["five segments of a collapsed .seg.nrrd", "a segment shown in 3D"])
    assert len(result["cases"]) == 2
    for phases in result["cases"].values():
        shown = {phase["phase"]: phase["slices"] for phase in phases}
        assert list(shown)[-1] == "close" and shown["first outline"] == 1 and shown["propagate 8 slices"] >= 4
        assert {"accept", "undo", "redo", "re-propagate", "re-propagate what was painted"} <= set(shown)
    assert "## A segment shown in 3D" in markdown(result, {})
