"""The GPU run on the CPU: every kind of row can be measured, and a run out of time ends with what it has."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from SegmentAnythingMedLib.benchmark import gpu_measure, gpu_report, gpu_speed
from SegmentAnythingMedLib.benchmark.gpu_measure import measure, measure_rows, read_rows, setting_as_json
from SegmentAnythingMedLib.benchmark.gpu_rows import Setting, plan
from SegmentAnythingMedLib.benchmark.gpu_task import GpuTask, Ours, Times
from SegmentAnythingMedLib.models.base import Prediction, Recall, Sized, SliceImage

CPU = torch.device("cpu")
COUNT, SETTLED = 8, 3


@pytest.fixture(autouse=True)
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_measure, "ROUNDS", 1)


def ours(mode: str = "eager", batch: int = 1, objects: int = 1, precision: str = "bf16") -> Setting:
    return Setting("ours", "miniature", 64, precision, mode, batch, objects)


@pytest.mark.parametrize(
    "setting",
    [ours(), ours(precision="fp32"), ours("graphs", 4), ours("graphs", 4, objects=3), ours(precision="fp16", batch=8)],
    ids=lambda setting: f"{setting.name}, {setting.precision}, {setting.objects}",
)
def test_each_kind_of_our_rows_runs(setting: Setting) -> None:
    row = measure(setting, CPU, COUNT, SETTLED)
    assert "error" not in row
    assert "failed" not in row
    assert min(row["fps"], row["tracked_ms"], row["encoder_ms"]) > 0
    if setting.objects == 1:
        assert row["difference"] < (1e-5 if setting.precision == "fp32" else 0.2)


def test_a_row_of_sam2_runs_with_our_weights_and_finds_the_same() -> None:
    pytest.importorskip("sam2")
    row = measure(Setting("sam2", "tiny", 64, "fp32"), CPU, 5, 2)
    assert "error" not in row
    assert row["fps"] > 0
    assert row["difference"] < 1e-3


def test_a_package_that_is_missing_is_a_line_of_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sam2", None)
    setting = Setting("sam2", "tiny", 64)
    row = measure(setting, CPU, COUNT, SETTLED)
    assert "ModuleNotFoundError" in row["error"]
    gpu_report.write(tmp_path, {"device": "cpu"}, [setting], {setting: row})
    assert "ModuleNotFoundError" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_encoding_in_batches_gives_the_masks_of_encoding_one_at_a_time() -> None:
    task = GpuTask("miniature", 64, COUNT)
    alone, together = (Ours(task, ours(batch=batch, precision="fp32"), CPU).logits() for batch in (1, 4))
    assert sorted(alone) == list(range(1, COUNT))
    for index, logits in alone.items():
        assert abs(logits - together[index]).max() <= 1e-5 * abs(logits).max()


@pytest.mark.parametrize("mode", ["eager", "graphs"])
def test_objects_tracked_together_have_the_masks_they_have_alone(mode: str) -> None:
    task = GpuTask("miniature", 64, COUNT)

    def labelmaps(object_batch: int) -> list:
        runner = Ours(task, ours(mode, 4, objects=3, precision="fp32"), CPU)
        runner.model.card.options["object_batch"] = object_batch
        session = runner.session()
        for _ in runner.slices(session):
            pass
        return [session.labelmap(number).copy() for number in (1, 2, 3)]

    for alone, together in zip(labelmaps(1), labelmaps(8), strict=True):
        assert alone[1:].any()
        assert (alone != together).mean() < 1e-4


def test_batches_are_encoded_and_objects_predicted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Ours(GpuTask("miniature", 64, COUNT), ours(batch=4, objects=3), CPU)
    encoded, predicted = [], []
    encode, predict = runner.model.encode_slices, runner.model.predict_together

    def noting_encode(images: Sequence[SliceImage]) -> list[Sized]:
        encoded.append(len(images))
        return encode(images)

    def noting_predict(features: Sized, recalls: Sequence[Recall]) -> list[Prediction]:
        predicted.append(len(recalls))
        return predict(features, recalls)

    monkeypatch.setattr(runner.model, "encode_slices", noting_encode)
    monkeypatch.setattr(runner.model, "predict_together", noting_predict)
    for _ in runner.slices(runner.session()):
        pass
    assert encoded == [1, 4, 3]
    assert predicted == [3] * (COUNT - 1)


def test_the_first_rows_answer_what_must_hold() -> None:
    settings = plan()
    first = [(one.who, one.mode) for one in settings[:5] if one.who != "machine"]
    assert {("ours", "graphs"), ("sam2", "eager"), ("ours", "compiled+graphs"), ("sam2", "compiled")} == set(first)
    assert {(one.model, one.side, one.precision) for one in settings[:2]} == {("base_plus", 512, "bf16")}
    assert len(settings) == len(set(settings))
    both = {(one.model, one.side) for one in settings if one.who == "ours"}
    assert both == {(one.model, one.side) for one in settings if one.who == "sam2" and one.mode == "compiled"}


def test_a_process_that_broke_down_is_gone_on_from(tmp_path: Path) -> None:
    planned, written = tmp_path / "plan.json", tmp_path / "rows.jsonl"
    planned.write_text(setting_as_json([ours(), Setting("machine")]), encoding="utf-8")
    written.write_text(json.dumps({"started": 0}) + '\n{"index": 0, "fp', encoding="utf-8")
    assert read_rows(written) == [{"started": 0}]
    written.write_text(json.dumps({"started": 0}) + "\n", encoding="utf-8")
    measure_rows(planned, written, "cpu", COUNT, SETTLED)
    assert [record["index"] for record in read_rows(written) if "index" in record] == [1]


def test_a_run_out_of_time_ends_with_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = [ours(batch=batch) for batch in range(1, 400)]
    assert gpu_speed.run(gpu_speed.Run(many, "cpu", 4.0, tmp_path, COUNT, SETTLED)) == 0
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert len(report["rows"]) < len(many)
    assert f"of {len(many)} rows" in capsys.readouterr().out
    assert "the time was over" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_what_must_hold_is_judged_by_rows_that_are_what_they_say() -> None:
    fast = Setting("ours", "base_plus", 512, "bf16", "graphs", 8)
    theirs = Setting("sam2", "base_plus", 512, mode="compiled")

    def holds(**figures: object) -> list[bool]:
        return [line.holds for line in gpu_report.acceptance({fast: figures, theirs: {"fps": 90.0}})]

    assert holds(fps=150.0) == [True, True]
    assert holds(fps=60.0) == [False, False]
    assert holds(fps=100.0) == [True, False]
    assert holds(fps=150.0, failed=["track: no"]) == []


def test_encoding_in_batches_is_counted_in_the_time_of_a_slice() -> None:
    assert Times((1.0, 2.0, 2.5, 3.0, 3.5, 6.0)).settled(4) == 1.0
