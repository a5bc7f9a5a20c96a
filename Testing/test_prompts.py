from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from SegmentAnythingMedLib.errors import GeometryError, OutputError, PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.prompts import (
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    Prompt,
    ScribblePrompt,
    on_slice,
    slice_index,
)
from SegmentAnythingMedLib.prompts_file import ObjectPrompts, PromptsFile, encode_prompt, load_prompts, save_prompts
from SegmentAnythingMedLib.rasterize import curve_mask, polygon_mask
from SegmentAnythingMedLib.volume import Volume

K, J = Plane(2), Plane(1)


@pytest.fixture
def grid() -> VolumeGeometry:
    directions = Rotation.from_euler("xyz", (20, -15, 7), degrees=True).as_matrix()
    return VolumeGeometry.from_spacing((20, 16, 10), (0.8, 0.9, 4.0), directions)


@pytest.fixture
def axial(grid: VolumeGeometry) -> SliceGeometry:
    return SliceGeometry(grid, K)


@pytest.fixture
def one_of_each(grid: VolumeGeometry) -> tuple[Prompt, ...]:
    oblique = Plane.from_normal((0.4, 0.2, 1.0), grid)
    curve = tuple(map(tuple, SliceGeometry(grid, oblique).ijk_from_pixels(6, np.array([[8.0, 8], [9, 12], [12, 9]]))))
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 3:9] = True
    return (
        PointPrompt((3.5, 4.25, 2.0)),
        PointPrompt((3, 4, 2), positive=False),
        BoxPrompt.on_slice((2, 1, 9, 6), 5, J),
        ScribblePrompt(((1, 1, 3), (4, 5, 3), (6, 5, 3)), False),
        LassoPrompt(curve, oblique),
        MaskPrompt(mask, 7, J),
    )


def test_points_are_row_and_column_of_their_slice(axial: SliceGeometry) -> None:
    on = on_slice([PointPrompt((3, 5, 2)), PointPrompt((7, 1, 2), positive=False), PointPrompt((0, 0, 4))], axial, 2)
    np.testing.assert_allclose(on.points_rc, [[5, 3], [1, 7]], atol=1e-9)
    assert on.positive.tolist() == [True, False]


@pytest.mark.parametrize(("plane", "corners"), [(0, (5, 2, 1)), (1, (2, 5, 1)), (2, (2, 1, 5))])
def test_box_corners_come_without_the_depth_axis(plane: int, corners: tuple[int, int, int]) -> None:
    assert BoxPrompt.on_slice((2, 1, 9, 6), 5, Plane(plane)).corners_ijk[0] == corners


def test_a_box_may_be_drawn_from_any_corner(axial: SliceGeometry) -> None:
    box = on_slice([BoxPrompt(((9, 2, 3), (4, 8, 3)))], axial, 3).box_rc
    assert box == pytest.approx((2, 4, 8, 9))


def test_the_last_box_wins(axial: SliceGeometry) -> None:
    boxes = [BoxPrompt.on_slice((0, 0, 5, 5), 3, K), BoxPrompt.on_slice((1, 2, 7, 8), 3, K)]
    assert on_slice(boxes, axial, 3).box_rc == pytest.approx((2, 1, 8, 7))


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (PointPrompt((20, 3, 3)), r"point at \(20, 3, 3\) is outside the volume .* I 0 to 19, J 0 to 15, K 0 to 9"),
        (PointPrompt((0, 0, float("nan"))), "finite"),
        (BoxPrompt(((2, 2, 3), (2, 9, 3))), r"box \(2, 2, 3\) to \(2, 9, 3\) is empty"),
        (BoxPrompt(((2, 2, 3), (6, 9, 5))), "not on one slice: it spans 3.0 to 5.0"),
        (BoxPrompt.on_slice((2, 2, 9, 9), 12, K), "outside the volume"),
        (BoxPrompt(((2, 3, 2), (6, 3, 5)), J), "drawn on slices along J, not on slices along K"),
        (ScribblePrompt(((1, 1, 1),)), "at least 2 points"),
        (LassoPrompt(((1, 1, 1), (2, 2, 1))), "at least 3 points"),
        (PointPrompt(("a", 1, 2)), "positions"),
        (MaskPrompt(np.ones((3, 3), bool), 2), r"shape \(3, 3\), but slices here are \(16, 20\)"),
        (MaskPrompt(np.ones((16, 20), bool), 10), "run from 0 to 9"),
    ],
)
def test_a_wrong_prompt_is_named_with_the_valid_range(axial: SliceGeometry, prompt: Prompt, sentence: str) -> None:
    with pytest.raises(PromptError, match=sentence):
        slice_index(prompt, axial)


def test_an_oblique_prompt_lies_on_its_own_slice(grid: VolumeGeometry) -> None:
    slices = SliceGeometry(grid, Plane.from_normal((0.4, 0.2, 1.0), grid))
    depth, pixels = slices.pixels_from_ijk(np.array([10.0, 8.0, 5.0]))
    middle = int(np.rint(depth))
    point = slices.ijk_from_pixels(middle + 0.3, pixels)
    assert slice_index(PointPrompt(tuple(point), plane=slices.plane), slices) == middle


def test_prompts_survive_a_file(tmp_path: Path, grid: VolumeGeometry, one_of_each: tuple[Prompt, ...]) -> None:
    volume = Volume.from_array(np.zeros(grid.shape_kji, np.int16), grid)
    saved = PromptsFile((ObjectPrompts(3, one_of_each, "Liver"),), 0, "classic", "liver")
    save_prompts(tmp_path / "prompts.json", saved, volume)
    loaded = load_prompts(tmp_path / "prompts.json")
    assert (loaded.model, loaded.window, loaded.time) == ("classic", "liver", 0)
    assert loaded.objects[0].object_id == 3 and loaded.objects[0].name == "Liver"
    assert [encode_prompt(p) for p in loaded.objects[0].prompts] == [encode_prompt(p) for p in one_of_each]
    np.testing.assert_array_equal(loaded.objects[0].prompts[-1].mask, one_of_each[-1].mask)
    assert loaded.on_volume(volume).objects[0].prompts[0] == loaded.objects[0].prompts[0]


def test_prompts_of_another_volume_are_refused(tmp_path: Path, grid: VolumeGeometry) -> None:
    save_prompts(tmp_path / "p.json", PromptsFile(()), Volume.from_array(np.zeros(grid.shape_kji), grid))
    with pytest.raises(GeometryError, match="20 x 16 x 10 voxels, this one has 4 x 4 x 4"):
        load_prompts(tmp_path / "p.json").on_volume(Volume.from_array(np.zeros((4, 4, 4))))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "other"}, "not a prompts file"),
        ({"version": 2}, "version 2; this program reads version 1"),
        ({"objects": 3}, 'needs a list "objects"'),
        ({"time": -1}, "whole number from 0"),
        ({"objects": [{"id": 0, "prompts": []}]}, '"id" must be a whole number'),
        ({"objects": [{"prompts": [{"kind": "blob"}]}]}, 'Object 1, prompt 1: "kind" must be point'),
        ({"objects": [{"prompts": [{"kind": "point", "point_ijk": [1, 2]}]}]}, "three finite numbers"),
        ({"objects": [{"prompts": [{"kind": "point", "point_ijk": [1, 2, True]}]}]}, "three finite numbers"),
        ({"objects": [{"prompts": [{"kind": "box", "corners_ijk": [[1, 2, 3]]}]}]}, "needs two corners"),
        ({"objects": [{"prompts": [{"kind": "point", "plane": {"axis": "X"}}]}]}, '"plane" must be'),
        ({"objects": [{"prompts": [{"kind": "mask", "index": 1, "shape": [9, 9], "bits": "eJw="}]}]}, "bits"),
        ({"objects": [{"prompts": [{"kind": "mask", "index": 1, "shape": [1e9, 9], "bits": ""}]}]}, "rows, columns"),
        ({"objects": [{"prompts": [{"kind": "point", "positive": "yes"}]}]}, "true or false"),
        ({"objects": [{"id": 2, "prompts": []}, {"id": 2, "prompts": []}]}, '"id" 2 stands twice'),
        ({"objects": [{"prompts": [{"kind": "point", "point_ijk": [10**400, 1, 1]}]}]}, "three finite numbers"),
        ({"objects": [{"prompts": [{"kind": "point", "plane": {"normal_ijk": [1e11, 0, 0]}}]}]}, "finite normal"),
    ],
)
def test_a_wrong_prompts_file_says_where(tmp_path: Path, change: dict, sentence: str) -> None:
    document = {"format": "segment-anything-med-prompts", "version": 1, "objects": []} | change
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(PromptError, match=sentence):
        load_prompts(tmp_path / "p.json")


def test_prompts_of_other_voxels_are_refused(grid: VolumeGeometry) -> None:
    volume = Volume.from_array(np.zeros(grid.shape_kji), grid)
    with pytest.raises(GeometryError, match="voxels of 1 x 1 x 4 mm"):
        PromptsFile((), volume={"spacing_mm": [1, 1, 4]}).on_volume(volume)
    with pytest.raises(GeometryError, match="volume of 5 voxels"):
        PromptsFile((), volume={"size_ijk": 5}).on_volume(volume)


def test_nested_and_marked_files_are_read_or_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(PromptError, match="cannot be read"):
        load_prompts(tmp_path / "deep.json")
    document = {"format": "segment-anything-med-prompts", "version": 1, "objects": [{"name": "a\n\ud800b"}]}
    (tmp_path / "bom.json").write_text("\ufeff" + json.dumps(document), encoding="utf-8")
    assert load_prompts(tmp_path / "bom.json").objects[0].name == "a ?b"


def test_an_unreadable_prompts_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(PromptError, match=r"p\.json cannot be read"):
        load_prompts(tmp_path / "p.json")
    with pytest.raises(PromptError, match=r"missing\.json cannot be read"):
        load_prompts(tmp_path / "missing.json")


def test_a_prompts_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_prompts(tmp_path / "file" / "p.json", PromptsFile(()))


def test_a_polygon_holds_the_pixel_centres_inside_it() -> None:
    square = np.array([[0.5, 0.5], [0.5, 4.5], [3.5, 4.5], [3.5, 0.5]])
    expected = np.zeros((6, 7), dtype=bool)
    expected[1:4, 1:5] = True
    np.testing.assert_array_equal(polygon_mask(square, (6, 7)), expected)
    np.testing.assert_array_equal(polygon_mask(square[::-1], (6, 7)), expected)


def test_a_polygon_beyond_the_slice_is_cut_off() -> None:
    huge = np.array([[-9.0, -9.0], [-9.0, 99.0], [99.0, 99.0], [99.0, -9.0]])
    assert polygon_mask(huge, (5, 4)).all()


def test_a_curve_has_no_gaps() -> None:
    mask = curve_mask(np.array([[0.0, 0.0], [6.0, 3.0], [6.0, 99.0]]), (8, 8))
    assert mask.any(axis=1)[:7].all() and mask[6, 3:].all()
