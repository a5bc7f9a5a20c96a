from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doubles import ThresholdModel

from SegmentAnythingMedLib.benchmark import embedded_report, embedded_speed
from SegmentAnythingMedLib.benchmark.__main__ import main
from SegmentAnythingMedLib.benchmark.accuracy import run_accuracy
from SegmentAnythingMedLib.benchmark.datasets import CaseOpener, Structure
from SegmentAnythingMedLib.benchmark.embedded_picture import draw_embedded
from SegmentAnythingMedLib.benchmark.embedded_run import EMBEDDED, run_embedded, use_weights
from SegmentAnythingMedLib.benchmark.embedded_scoring import EmbeddedScorer
from SegmentAnythingMedLib.benchmark.embedded_targets import TARGETS, acceptance, quality_correlation, results
from SegmentAnythingMedLib.errors import ModelFileError, SegmentAnythingMedError
from SegmentAnythingMedLib.models.base import Prediction, SliceModel
from SegmentAnythingMedLib.session import VolumeSession

TinyData = tuple[Path, list[Structure]]


class RunsOn(ThresholdModel):
    """Right where it is prompted; carried, it shows the remembered mask on every slice, whatever is there."""

    def predict(
        self, features: object, prompts: object, recall: object, *more: object, **options: object
    ) -> Prediction:
        found = super().predict(features, prompts, recall, *more, **options)
        if not prompts.is_empty or not recall.memories:
            return found
        logits = np.where(recall.memories[-1].memory.mask, 8.0, -8.0).astype(np.float32)[None]
        return Prediction(logits, np.array([0.4], np.float32), 5.0)


def run(
    tiny_data: TinyData, model: SliceModel, structures: list[Structure] | None = None, fresh: bool = False
) -> list[dict]:
    data, listed = tiny_data
    return run_accuracy(
        structures or listed,
        data,
        data / "out",
        "double",
        jobs=1,
        make_model=lambda: model,
        fresh=fresh,
        study=EMBEDDED,
    )


def a_row(dataset: str, patient: str, **scores: float) -> dict:
    return {"id": dataset + patient, "dataset": dataset, "patient": patient, "kind": "compact", "two_d": False,
            "scores": scores}  # fmt: skip


def test_a_perfect_model_reaches_every_target_and_stops_at_the_ends(
    tiny_data: TinyData, a_perfect_model: ThresholdModel
) -> None:
    for row in run(tiny_data, a_perfect_model):
        ours = [target.score for target in TARGETS]
        assert {name: row["scores"][name] for name in ours} == dict.fromkeys(ours, 1.0)
        assert {row["scores"][f"{name}_nsd"] for name in ours} == {1.0}
        assert row["over"] == [0, 0] and row["early"] == [0, 0]
        assert all(dice == 1.0 for _, dice in row["quality"]) and len(row["quality"]) >= 9
        rules = [rule for target in TARGETS for rule in target.rules]
        assert all(0.3 < row["scores"][rule] <= 1.0 for rule in rules)


def test_an_empty_model_scores_zero_and_the_rules_are_as_good_as_ever(
    tiny_data: TinyData, an_empty_model: ThresholdModel, a_perfect_model: ThresholdModel
) -> None:
    data, structures = tiny_data
    empty = run(tiny_data, an_empty_model)
    full = run((data, structures), a_perfect_model, fresh=True)
    for one, other in zip(empty, full, strict=True):
        assert one["scores"]["slice_box"] == one["scores"]["volume_box"] == one["scores"]["click_best"] == 0.0
        assert one["quality"] == []
        for rule in (rule for target in TARGETS for rule in target.rules):
            assert one["scores"][rule] == other["scores"][rule]
    failing = [line.text for line in acceptance(empty) if not line.holds]
    assert any(text.startswith("box on the largest slice") for text in failing)
    assert any(text.startswith("predicted quality") for text in failing)


def test_a_user_who_corrects_three_slices_stops_a_model_that_runs_on(tiny_data: TinyData) -> None:
    data, structures = tiny_data
    case = CaseOpener(data).open(structures[0])
    scorer = EmbeddedScorer(case, VolumeSession(case.volume, RunsOn()))
    scores = scorer.score().scores
    assert scores["volume_fixed_extent"] > scores["volume_box_extent"] + 0.02
    assert scores["volume_fixed"] > scores["volume_box"] + 0.02


def test_a_picture_needs_only_its_slice(tiny_data: TinyData, a_perfect_model: ThresholdModel) -> None:
    (row,) = run(tiny_data, a_perfect_model, [replace(tiny_data[1][0], two_d=True)])
    assert row["scores"]["click_corrected"] == 1.0 and "volume_box" not in row["scores"]


def test_the_must_is_the_column_or_a_little_above_the_best_rule() -> None:
    rows = [a_row("a", "1", slice_box=0.9, slice_box_nsd=0.5, slice_ellipse=0.7, slice_otsu=0.5),
            a_row("b", "2", slice_box=0.9, slice_box_nsd=0.5, slice_ellipse=0.8, slice_otsu=0.95)]  # fmt: skip
    (one,) = results(rows)
    assert (one.rule, one.floor, one.must) == ("slice_ellipse", pytest.approx(0.75), 0.84)
    assert one.holds
    for row in rows:
        row["scores"]["slice_ellipse"] += 0.11
    (one,) = results(rows)
    assert one.must == pytest.approx(0.91) and not one.holds


def test_a_dataset_below_the_ellipse_is_named() -> None:
    rows = [a_row("good", "1", slice_box=0.9, slice_ellipse=0.8), a_row("bad", "2", slice_box=0.7, slice_ellipse=0.8)]
    (line,) = [line for line in acceptance(rows) if line.text.startswith("box: at least the ellipse")]
    assert not line.holds and line.figures == "bad 0.700 < 0.800"


def test_predicted_quality_is_judged_by_its_order_alone() -> None:
    assert quality_correlation([{"quality": [[0.1, 0.2], [0.2, 0.9]]}, {"quality": [[0.3, 0.95]]}]) == pytest.approx(1)
    assert quality_correlation([{"quality": [[0.9, 0.1], [0.5, 0.5], [0.1, 0.6]]}]) == pytest.approx(-1)
    assert np.isnan(quality_correlation([{"quality": [[0.9, 0.1]]}]))


def test_the_report_names_what_falls_short_and_the_picture_is_drawn(
    tiny_data: TinyData, an_empty_model: ThresholdModel
) -> None:
    data, structures = tiny_data
    rows = run(tiny_data, an_empty_model, [*structures, replace(structures[0], id="p", dataset="pictures", two_d=True)])
    slow = embedded_speed.Timing("a slice", 30.0, "ms", 20.0, "matmul 90 GFLOP/s")
    text = embedded_report.markdown(rows, [slow], {"model": "double", "command": "make bench-embedded"})
    assert "**short by 0.8" in text and "FAILS: a slice: at most 20 ms" in text
    assert "Single slices and pictures" in text and "| pictures | 1 |" in text
    json.dumps(embedded_report.summary(rows, [slow], {}))
    draw_embedded(rows, data / "embedded.png", "double")
    assert (data / "embedded.png").read_bytes().startswith(b"\x89PNG")


def test_the_whole_run_writes_its_report_and_fails_when_a_target_is_missed(
    tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, structures = tiny_data
    quick = [embedded_speed.Timing("a slice", 1.0, "ms", 20.0, "")]
    monkeypatch.setattr("SegmentAnythingMedLib.benchmark.embedded_run.run_speed", lambda _: quick)
    monkeypatch.setattr("SegmentAnythingMedLib.benchmark.__main__.load_structures", lambda **_: structures)
    out = data / "out"
    code = main(["embedded", "--data", str(data), "--output", str(out), "--model", "classic", "--jobs", "1"])
    report = json.loads((out / "embedded-classic.json").read_text())
    assert code == (0 if all(line["holds"] for line in report["acceptance"]) else 1)
    assert "ok: a slice: at most 20 ms" in capsys.readouterr().out
    assert (out / "embedded-classic.png").exists() and "## Targets" in (out / "embedded-classic.md").read_text()


def test_without_scikit_image_the_error_says_what_to_install(
    tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, structures = tiny_data
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SegmentAnythingMedError, match=r"segment-anything-med\[bench\]"):
        run_embedded(structures, data, data / "out", "classic", {}, jobs=1, fresh=True)
    assert not (data / "out").exists()


def test_weights_need_a_card_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_MODELS", "before")
    with pytest.raises(ModelFileError, match="correct --weights"):
        use_weights("embedded", tmp_path / "none.onnx")
    weights = tmp_path / "new.onnx"
    weights.write_bytes(b"x")
    with pytest.raises(ModelFileError, match="No card beside new.onnx"):
        use_weights("embedded", weights)
    card = {"name": "embedded", "title": "T", "family": "embedded", "licence": "Apache-2.0", "file": "new.onnx"}
    (tmp_path / "new.json").write_text(json.dumps(card))
    use_weights("embedded", weights)
    assert Path(os.environ["SEGMENT_ANYTHING_MED_MODELS"]) == tmp_path.resolve()


def test_slices_and_a_worker_are_timed() -> None:
    found = embedded_speed.measure_slices("classic", side=96, count=5, repeats=2)
    assert [one.unit for one in found] == ["ms", "s"] * 2 and all(one.value > 0 for one in found)
    found = embedded_speed.measure_worker("classic", (12, 64, 64), repeats=2)
    assert [one.unit for one in found][:3] == ["s", "ms", "ms"] and all(one.value > 0 for one in found)
    assert "matmul" in found[0].reference
