from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from doubles import ThresholdModel

from SegmentAnythingMedLib.benchmark.accuracy import run_accuracy
from SegmentAnythingMedLib.benchmark.datasets import Structure
from SegmentAnythingMedLib.benchmark.picture import draw_accuracy
from SegmentAnythingMedLib.benchmark.report import acceptance, markdown, summary
from SegmentAnythingMedLib.benchmark.scoring import SCORES
from SegmentAnythingMedLib.models.base import SliceModel

TinyData = tuple[Path, list[Structure]]
OURS = [name for name in SCORES if not any(rule in name for rule in ("ellips", "copy"))]


def run(tiny_data: TinyData, model: SliceModel, structures: list[Structure] | None = None) -> list[dict]:
    data, listed = tiny_data
    return run_accuracy(structures or listed, data, data / "out", "double", jobs=1, make_model=lambda: model)


def test_a_perfect_model_scores_one_everywhere_and_stops_at_the_ends(
    tiny_data: TinyData, a_perfect_model: ThresholdModel
) -> None:
    for row in run(tiny_data, a_perfect_model):
        assert {name: row["scores"][name] for name in OURS} == dict.fromkeys(OURS, 1.0)
        assert row["scores"]["volume_copy"] < 1.0
        assert row["over"] == [0, 0] and row["early"] == [0, 0]


def test_an_empty_model_scores_zero_and_leaves_the_trivial_rules_alone(
    tiny_data: TinyData, an_empty_model: ThresholdModel
) -> None:
    rows = run(tiny_data, an_empty_model)
    for row in rows:
        zero = [name for name in OURS if not name.startswith("volume_mask")]
        assert {name: row["scores"][name] for name in zero} == dict.fromkeys(zero, 0.0)
        assert row["scores"]["slice_ellipse"] > 0.85 and row["scores"]["volume_ellipsoid"] > 0.8
        assert row["early"] == [9]
    assert [line.holds for line in acceptance(rows)] == [True, False, False]


def test_a_volume_and_its_permuted_twin_score_alike(tiny_data: TinyData, a_perfect_model: ThresholdModel) -> None:
    one, two = run(tiny_data, a_perfect_model)
    assert (one["facts"]["axis"], two["facts"]["axis"]) == (2, 1)
    assert one["scores"]["volume_mask_copy"] == two["scores"]["volume_mask_copy"]


def test_a_run_cut_short_goes_on_where_it_stopped(tiny_data: TinyData, a_perfect_model: ThresholdModel) -> None:
    data, structures = tiny_data
    run(tiny_data, a_perfect_model, structures[:1])
    path = data / "out" / "accuracy-double.jsonl"
    path.write_text(path.read_text() + '{"id": "tiny/two/ball", "scores": {"slice')  # killed while writing
    asked = a_perfect_model.encoded
    rows = run(tiny_data, a_perfect_model)
    assert [row["id"] for row in rows] == ["tiny/one/ball", "tiny/two/ball"]
    assert a_perfect_model.encoded > asked
    asked = a_perfect_model.encoded
    assert run(tiny_data, a_perfect_model) == rows
    assert a_perfect_model.encoded == asked


def test_rows_of_other_code_are_kept_aside_and_not_mixed_in(
    tiny_data: TinyData, a_perfect_model: ThresholdModel
) -> None:
    data, structures = tiny_data
    run(tiny_data, a_perfect_model, structures[:1])
    path = data / "out" / "accuracy-double.jsonl"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(header), "source": "other"}), *rows]) + "\n")
    asked = a_perfect_model.encoded
    run(tiny_data, a_perfect_model, structures[:1])
    assert a_perfect_model.encoded > asked
    assert path.with_suffix(".old.jsonl").exists()


def test_a_structure_that_fails_is_reported_and_the_run_goes_on(
    tiny_data: TinyData, a_perfect_model: ThresholdModel
) -> None:
    _, (first, second) = tiny_data
    rows = run(tiny_data, a_perfect_model, [replace(first, volume="missing.nrrd"), second])
    assert "missing.nrrd" in rows[0]["error"]
    assert rows[1]["scores"]["slice_box"] == 1.0
    assert not acceptance(rows)[0].holds


def test_a_picture_needs_only_its_slice(tiny_data: TinyData, a_perfect_model: ThresholdModel) -> None:
    (row,) = run(tiny_data, a_perfect_model, [replace(tiny_data[1][0], two_d=True)])
    assert "slice_box" in row["scores"] and "volume_box" not in row["scores"]


def test_the_report_shows_every_dataset_and_the_picture_is_drawn(
    tiny_data: TinyData, a_perfect_model: ThresholdModel
) -> None:
    data, (first, second) = tiny_data
    vessel = replace(second, id="tiny/two/vessel", kind="vessel")
    rows = run(tiny_data, a_perfect_model, [first, second, vessel])
    text = markdown(rows, {"model": "double", "command": "make bench"})
    assert "| tiny | 2 | 1.000 |" in text and "## Vessels (reported apart)" in text and "make bench" in text
    assert all(line.holds for line in acceptance(rows))
    assert summary(rows, {})["mean_of_dataset_means"]["slice_box"]["mean"] == 1.0
    draw_accuracy(rows, data / "accuracy.png", "double")
    assert (data / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_several_processes_give_the_rows_of_one(tiny_data: TinyData) -> None:
    data, structures = tiny_data
    parallel = run_accuracy(structures, data, data / "parallel", "classic", jobs=2)
    single = run_accuracy(structures, data, data / "single", "classic", jobs=1)
    assert [row["scores"] for row in parallel] == [row["scores"] for row in single]
