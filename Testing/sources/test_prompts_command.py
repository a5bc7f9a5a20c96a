"""The ``prompts`` verb: from a mask, a ruler or an image to a prompts file, and on to a segment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib import cli
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io import Labels, read_labels, write_labels, write_volume
from SegmentAnythingMedLib.models.registry import default_model
from SegmentAnythingMedLib.prompts_file import load_prompts
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.volume import Volume

DIRECTIONS = np.array([[-0.96, 0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
"""In LPS: turned by 16 degrees, and I runs from right to left."""


@pytest.fixture
def balls() -> np.ndarray:
    """(2, K, J, I) bool: two balls in a (14, 40, 48) volume."""
    k, j, i = np.ogrid[:14, :40, :48]
    return np.stack([((k - 7) * 1.6) ** 2 + (j - 19) ** 2 + (i - x) ** 2 <= 81 for x in (13, 35)])


@pytest.fixture
def volume(balls: np.ndarray) -> Volume:
    voxels = np.where(balls.any(axis=0), 120, -20) + np.random.default_rng(0).normal(0, 8, balls.shape[1:])
    geometry = VolumeGeometry.from_spacing((48, 40, 14), (1.0, 1.0, 1.6), DIRECTIONS, (12.0, -30.0, 55.0))
    return Volume.from_array(voxels.astype(np.int16), geometry)


@pytest.fixture
def files(tmp_path: Path, volume: Volume, balls: np.ndarray) -> Path:
    """A folder with ``ct.nrrd``, and ``rough.seg.nrrd`` with two segments a little off."""
    write_volume(tmp_path / "ct.nrrd", volume)
    rough = np.roll(balls, 2, axis=2)
    write_labels(tmp_path / "rough.seg.nrrd", Labels.from_masks({"Left": rough[0], "Right": rough[1]}, volume.geometry))
    return tmp_path


def prompts(folder: Path, source: str, *options: object) -> int:
    words = ["prompts", source, "--volume", folder / "ct.nrrd", "--output", folder / "p.json", *options]
    return cli.main([*map(str, words)])


def test_rough_masks_become_prompts_and_prompts_become_segments(
    files: Path, balls: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prompts(files, "rough_mask", "--mask", files / "rough.seg.nrrd") == 0
    assert capsys.readouterr().out.startswith("Left: 1 box, 1 point\nRight: 1 box, 1 point\nsaved ")
    words = ["segment", files / "ct.nrrd", "--prompts", files / "p.json", "--output", files / "out.seg.nrrd"]
    assert cli.main([*map(str, words)]) == 0
    found = read_labels(files / "out.seg.nrrd")
    assert found.names == ("Left", "Right")
    rough = read_labels(files / "rough.seg.nrrd")
    for before, after, truth in zip(rough.segments, found.segments, balls, strict=True):
        assert dice(after.mask, truth) > dice(before.mask, truth) + 0.02


def test_one_segment_can_be_chosen(files: Path) -> None:
    assert prompts(files, "rough_mask:box=no", "--mask", files / "rough.seg.nrrd", "--segment", "Right") == 0
    (item,) = load_prompts(files / "p.json").objects
    assert item.name == "Right" and item.prompts[0].kind == "point"
    assert abs(item.prompts[0].point_ijk[0] - 35) <= 2


@pytest.mark.parametrize("frame", ["ijk", "lps", "ras"])
def test_a_ruler_may_be_in_voxels_or_in_millimetres(files: Path, volume: Volume, frame: str) -> None:
    ends = np.array([[5.0, 19, 7], [21, 19, 7]])
    if frame != "ijk":
        ends = volume.geometry.world_from_ijk(ends) * (1 if frame == "lps" else (-1, -1, 1))
    text = ",".join(f"{x:.6f}" for x in ends.ravel())
    assert prompts(files, "ruler:box=no", f"--line={text}", "--frame", frame) == 0
    (item,) = load_prompts(files / "p.json").objects
    np.testing.assert_allclose(
        [one.point_ijk for one in item.prompts], [(9, 19, 7), (13, 19, 7), (17, 19, 7)], atol=1e-4
    )


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("RAS", -1)])
def test_a_pair_of_rulers_that_slicer_saved_is_read(files: Path, volume: Volume, system: str, sign: int) -> None:
    lines = [[[5, 19, 7], [21, 19, 7]], [[13, 12, 7], [13, 26, 7]]]
    ends = volume.geometry.world_from_ijk(np.array(lines, float)) * (sign, sign, 1)
    markups = [
        {"type": "Line", "coordinateSystem": system, "controlPoints": [{"position": point} for point in line.tolist()]}
        for line in ends
    ]
    (files / "pair.mrk.json").write_text(json.dumps({"markups": [{"type": "Fiducial"}, *markups]}))
    assert prompts(files, "ruler:points=0", "--line-file", files / "pair.mrk.json", "--segment-name", "Lesion") == 0
    (item,) = load_prompts(files / "p.json").objects
    assert item.name == "Lesion"
    np.testing.assert_allclose(item.prompts[0].corners_ijk, [(5, 12, 7), (21, 26, 7)], atol=1e-4)


def test_what_stands_out_needs_only_the_volume(files: Path, balls: np.ndarray) -> None:
    assert prompts(files, "saliency", "--slice", 7) == 0
    ((click,),) = (item.prompts for item in load_prompts(files / "p.json").objects)
    assert balls[:, 7, int(click.point_ijk[1]), int(click.point_ijk[0])].any()


def test_everything_asks_the_model_and_gives_masks(files: Path, balls: np.ndarray) -> None:
    settings = "everything:grid=5,quality=0.3,stability=0.3"
    assert prompts(files, settings, "--mask", files / "rough.seg.nrrd", "--slice", 7) == 0
    content = load_prompts(files / "p.json")
    rough = read_labels(files / "rough.seg.nrrd").segments
    assert content.model == default_model() and [item.name for item in content.objects] == ["Left", "Right"]
    for item, before, truth in zip(content.objects, rough, balls, strict=True):
        assert dice(item.prompts[0].mask, truth[7]) > dice(before.mask[7], truth[7]) + 0.02


def test_the_list_names_every_source_with_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prompts", "list"]) == 0
    shown = capsys.readouterr().out
    assert "rough_mask: Draws a box" in shown and "    points=3, 0 to 9: clicks on the long axis" in shown


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("magic", [], "use one of"),
        ("rough_mask", [], "(--mask)"),
        ("ruler", [], "(--line)"),
        ("ruler", ["--line", "1,2,3"], "six numbers"),
        ("ruler", ["--line", "5,19,7,90,19,7"], "outside the volume"),
        ("ruler", ["--line-file", "ct.nrrd"], "cannot be read"),
        ("saliency", [], "--slice"),
        ("saliency", ["--slice", "99"], "Slice 99 does not exist"),
        ("saliency", ["--slice", "7", "--time", "3"], "Time point 3"),
        ("saliency", ["--slice", "7", "--output", "ct.nrrd"], "choose another name"),
        ("rough_mask", ["--mask", "rough.seg.nrrd", "--segment", "Spleen"], "there are: Left, Right"),
        ("rough_mask", ["--mask", "rough.seg.nrrd", "--slice", "0"], "Left: Label 1 is not on slice 0"),
    ],
)
def test_wrong_input_ends_with_2_and_one_sentence(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    options: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(files)
    assert prompts(files, source, *options) == 2
    message = capsys.readouterr().err
    assert sentence in message and message.count("\n") == 1
    assert not (files / "p.json").exists()


def test_a_volume_and_an_output_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prompts", "ruler"]) == 2
    assert "needs --volume" in capsys.readouterr().err
