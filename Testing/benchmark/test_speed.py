"""The speed run: everyone does the same, ratios are of one run, and a line can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.benchmark import small_sam2, speed, speed_children, speed_dice, speed_session  # noqa: E402
from SegmentAnythingMedLib.benchmark.speed import SpeedRow, SpeedRun  # noqa: E402
from SegmentAnythingMedLib.benchmark.speed_contenders import SliceTimes, Task  # noqa: E402
from SegmentAnythingMedLib.errors import SegmentAnythingMedError  # noqa: E402

SECONDS = {
    ("ours, torch fp32", "first"): 0.45,
    ("ours, torch fp32", "second"): 0.20,
    ("ours, torch bf16", "first"): 0.20,
    ("ours, torch bf16", "second"): 0.10,
    ("ours, torch bf16", "three again"): 0.20,
    ("sam2 fp32", "first"): 1.0,
    ("sam2 bf16", "first"): 0.5,
}
GFLOPS = {"image encoder": 60.0, "attention and mask": 28.0, "memory encoder": 2.0}
STAGES = {"ours, torch bf16": {"image encoder": 0.1, "attention and mask": 0.08, "memory encoder": 0.01}}


@pytest.fixture
def a_run() -> SpeedRun:
    rows = tuple(SpeedRow("tiny", 512, name, part, 2 * value, value, 1) for (name, part), value in SECONDS.items())
    return SpeedRun(Task("tiny", 512, 16), rows, {"fp32": 200.0, "bf16": 600.0}, GFLOPS, 2e-6, {"threads": 1}, STAGES)


def test_lines_are_ratios_of_computing_time(a_run: SpeedRun) -> None:
    found = {str(line).partition(": ")[2]: line for line in speed.acceptance(a_run)}
    values = [line.figures for line in found.values()]
    assert values == ["5.00x", "75%", "2.22x", "100%", "10.0x", "1.50x", "2.0e-06"]
    assert all(line.holds for line in found.values())


@pytest.mark.parametrize(
    ("name", "part", "seconds"),
    [
        ("ours, torch bf16", "first", 0.30),
        ("ours, torch fp32", "first", 0.55),
        ("ours, torch bf16", "second", 0.12),
        ("ours, torch bf16", "three again", 0.25),
    ],
)
def test_a_line_fails_where_a_figure_is_too_slow(a_run: SpeedRun, name: str, part: str, seconds: float) -> None:
    rows = [replace(row, computing=seconds) if (row.name, row.part) == (name, part) else row for row in a_run.rows]
    assert not all(line.holds for line in speed.acceptance(replace(a_run, rows=tuple(rows))))


def test_masks_that_differ_fail(a_run: SpeedRun) -> None:
    assert not all(line.holds for line in speed.acceptance(replace(a_run, difference=1e-4)))


def test_a_run_in_fp32_alone_has_its_lines(a_run: SpeedRun) -> None:
    rows = tuple(row for row in a_run.rows if row.name.endswith("fp32"))
    lines = speed.acceptance(replace(a_run, rows=rows, peaks={"fp32": 200.0}))
    assert [line.figures for line in lines] == ["2.22x", "100%", "2.0e-06"]


def test_what_is_lossy_has_lines_of_its_own_and_never_is_the_fastest(a_run: SpeedRun) -> None:
    name, before = "ours, openvino merged bf16", speed.acceptance(a_run)
    seconds = {"first": 0.1, "second": 0.05, "three again": 0.2}
    added = tuple(SpeedRow("tiny", 512, name, part, value, value, 1) for part, value in seconds.items())
    stages = STAGES | {name: STAGES["ours, torch bf16"]}
    run = replace(a_run, rows=a_run.rows + added, stages=stages)
    lines = speed.acceptance(run)
    own = [line for line in lines if name in str(line)]
    assert [line.figures for line in own] == ["10.00x", "20.0x", "2.50x"]
    assert [line for line in lines if line not in own] == before
    assert f"| {name} | 100 | 80 | 10 |" in speed.markdown([run], {}), "its operations were not counted"


def test_without_the_reference_nothing_is_judged(a_run: SpeedRun) -> None:
    rows = tuple(row for row in a_run.rows if row.name.endswith("bf16"))
    run = replace(a_run, rows=rows, peaks={"bf16": 600.0})
    assert speed.acceptance(run) == [] and "| - |" in speed.markdown([run], {})


def test_too_few_slices_are_refused() -> None:
    with pytest.raises(SegmentAnythingMedError, match="at least 10 slices"):
        speed.run_speed(Task("tiny", 64, 9), 1, 1)


def test_other_sizes_promise_nothing(a_run: SpeedRun) -> None:
    assert speed.acceptance(replace(a_run, task=Task("tiny", 256, 16))) == []


def test_the_report_and_the_picture_show_everyone(a_run: SpeedRun, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from SegmentAnythingMedLib.benchmark.speed_picture import draw_speed

    text = speed.markdown([a_run], {"date": "today"})
    assert all(row.name in text for row in a_run.rows)
    assert "1.00x" in text and "| sam2 bf16 | first | 500 | 1000 | 2.00x | 30% |" in text
    assert "| ours, torch bf16 | 100 (100%) | 80 (58%) | 10 (33%) |" in text
    draw_speed([a_run], tmp_path / "speed.png", "title")
    assert (tmp_path / "speed.png").stat().st_size > 5000


def test_everyone_carries_the_same_object_and_finds_the_same() -> None:
    pytest.importorskip("sam2")
    pytest.importorskip("transformers")
    found = speed.run_speed(Task("tiny", 64, 10), 1, torch.get_num_threads(), precisions=("fp32",))
    assert {row.name for row in found.rows} == {"ours, torch fp32", "sam2 fp32", "transformers fp32"}
    assert {row.part for row in found.rows} == {"first", "second", "three again"}
    assert min(row.computing for row in found.rows) > 0
    assert found.difference < 1e-4
    assert set(found.gflops) == set(found.stages["ours, torch fp32"]) and min(found.gflops.values()) > 0


def test_times_are_those_after_the_memory_is_full() -> None:
    times = SliceTimes(tuple(range(9)), tuple(range(9)))
    assert times.settled == SliceTimes((7, 8), (7, 8))


# -- processes of their own ----------------------------------------------------------------------------------------


def figures(**changes: object) -> dict:
    """Of a session as it should be."""
    mib = 1 << 20
    memory = {
        count: {"peak": peak * mib, "voxels": 1, "labelmap": 10 * mib, "slices": int(count) - 1}
        for count, peak in {"100": 900, "300": 950, "400": 990}.items()
    }
    outline = {"imports": 2.0, "loading": 3.0, "first outline": 0.4, "warm": 0.22, "encoder pass": 0.2}
    return {
        "model": "tiny", "side": 512, "precision": "auto", "memory": memory, "outline": outline | {"prefetched": 0.02},
        "busy": [
            {"alone": 0.2, "one core loaded": 0.21, "threads": 1}, {"alone": 0.1, "one core loaded": 0.2, "threads": 2},
        ],
        "sam2 memory": {"peak": 3000 * mib, "slices": 300}, "jpeg": {"writing": 1.0, "reading": 2.0, "slices": 300},
    } | changes  # fmt: skip


def test_a_session_as_it_should_be_holds() -> None:
    lines = speed_session.acceptance(figures())
    assert [line.holds for line in lines] == [True] * 4
    assert [line.figures for line in lines] == ["+8.8%", "32%", "20 ms", "1.05x"]
    assert "| sam2 in bf16 autocast, 300 slices | 3000 |" in speed_session.markdown(figures(), {})


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"sam2 memory": {"peak": 2000 << 20, "slices": 300}}, 1),
        ({"outline": {"warm": 0.3, "encoder pass": 0.2}}, 2),
        ({"busy": [{"alone": 0.2, "one core loaded": 0.4, "threads": 1}]}, 3),
    ],
)
def test_a_session_that_costs_more_fails(changes: dict, failing: int) -> None:
    assert [line.holds for line in speed_session.acceptance(figures(**changes))].index(False) == failing


def test_memory_that_grows_with_the_slices_fails() -> None:
    found = figures()
    found["memory"]["400"]["peak"] = 1100 << 20
    assert not speed_session.acceptance(found)[0].holds


@pytest.mark.parametrize("name", ["memory of ours", "first outline"])
def test_a_child_answers_with_figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_ENGINE", "torch")
    found = speed_session.child(
        name, model="tiny", side=64, count=16, precision="fp32", folder=str(tmp_path / "weights")
    )
    assert min(found.values()) > 0


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(speed_session.SegmentAnythingMedError, match="Measuring the jpeg pipeline failed"):
        speed_session.child("jpeg pipeline", model="none", side=64, count=2)


def test_weights_are_written_once(tmp_path: Path) -> None:
    path = speed_children.weights_file(tmp_path, "tiny", 64)
    before = path.stat().st_mtime_ns
    assert speed_children.weights_file(tmp_path, "tiny", 64).stat().st_mtime_ns == before


# -- what is lossy, by Dice ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_patient() -> small_sam2.Patient:
    return small_sam2.Patient.made()


def test_the_small_network_learns(a_patient: small_sam2.Patient) -> None:
    torch.manual_seed(0)
    told: list[str] = []
    network = small_sam2.train(small_sam2.new_network(), a_patient, minutes=0.12, tell=told.append, batch=2)
    assert not network.training
    ways = ("torch fp32", "torch bf16", "merged, torch fp32", speed_dice.CONTROL)
    found = speed_dice.run_dice(network, a_patient, ways, ("spleen",))
    assert found["torch fp32"]["spleen"]["plain"] == 1.0
    assert set(found) == set(ways)


def test_the_control_sees_memories_without_places() -> None:
    network = speed_dice.looking_back_by(small_sam2.new_network().eval(), speed_dice.CrossAttention.FULL)
    embedding, logits = torch.randn(1, 128, 8, 8), torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        plain = network.encode_memory(embedding, logits, torch.ones(1, 1), from_prompt=False)
        level = speed_dice._without_places(network.encode_memory)(embedding, logits, torch.ones(1, 1), False)
    assert plain.shape == level.shape and float(plain.float().std((2, 3)).max()) > 0
    torch.testing.assert_close(level, plain.mean((2, 3), keepdim=True).expand_as(plain))


def test_a_way_that_changes_a_mask_fails() -> None:
    scores = {
        "torch fp32": {"liver": {"truth": 0.95, "plain": 1.0}},
        "torch bf16": {"liver": {"truth": 0.95, "plain": 0.99}},
    }
    assert [line.holds for line in speed_dice.acceptance(scores)] == [True, False]
    assert "0.950 / 0.9900" in speed_dice.markdown(scores, {})


def test_an_organ_that_is_not_segmented_does_not_judge() -> None:
    plain = {"liver": {"truth": 0.95, "plain": 1.0}, "spleen": {"truth": 0.4, "plain": 1.0}}
    lossy = {"liver": {"truth": 0.95, "plain": 0.999}, "spleen": {"truth": 0.5, "plain": 0.6}}
    lines = speed_dice.acceptance({"torch fp32": plain, "torch bf16": lossy})
    assert [line.holds for line in lines] == [False, True], "the network itself is not good enough, and said so"


def test_examples_are_neighbouring_slices_with_their_box(a_patient: small_sam2.Patient) -> None:
    (example,) = small_sam2._examples(a_patient, np.random.default_rng(0), 1, length=3)
    side, cells = small_sam2.CONFIG.image_size, small_sam2.CONFIG.mask_size
    assert example.pixels.shape == (3, 3, side, side) and example.masks.shape == (3, 1, cells, cells)
    rows, columns = (example.masks[0, 0] > 0).nonzero(as_tuple=True)
    box = example.box / 4
    assert box[0, 0] - 1.5 <= columns.min() and columns.max() <= box[1, 0] + 1.5
    assert box[0, 1] - 1.5 <= rows.min() and rows.max() <= box[1, 1] + 1.5


def test_the_network_for_context_answers_for_every_voxel() -> None:
    found = speed_session.child("volume network", side=64)
    assert min(found.values()) > 0
