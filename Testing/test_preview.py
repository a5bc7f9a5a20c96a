"""The report picture: right letters, right lengths, any volume, and a file that is written whole or not at all."""

from __future__ import annotations

import os
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import GeometryError, OutputError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.preview import check_preview_path, preview_figure, render_preview
from SegmentAnythingMedLib.preview_panels import font_families, scale_bar_mm
from SegmentAnythingMedLib.preview_surface import oblique_anterior_camera, render_surfaces
from SegmentAnythingMedLib.volume import Modality, Volume

RED = (0.9, 0.2, 0.2)


@pytest.fixture(autouse=True)
def small_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("SegmentAnythingMedLib.preview._SURFACE_PIXELS", 40)


def _ball(shape_kji: tuple[int, int, int], center_kji: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape_kji).astype(float)
    return sum((axis - c) ** 2 for axis, c in zip(grid, center_kji, strict=True)) <= radius**2


@pytest.fixture
def a_volume() -> Volume:
    ramp = np.indices((12, 20, 24)).sum(axis=0).astype(np.int16)
    return Volume.from_array(ramp, VolumeGeometry.from_spacing((24, 20, 12), (2.0, 2.0, 4.0)), modality=Modality.CT)


@pytest.fixture
def a_mask() -> np.ndarray:
    return _ball((12, 20, 24), (6, 9, 8), 4)


def _letters(axes: object) -> list[str]:
    """Left, right, top, bottom."""
    return [text.get_text() for text in axes.texts if text.get_gid() == "letter"]


def _texts(figure: object) -> str:
    return "\n".join(text.get_text() for part in (figure, *figure.axes) for text in part.texts)


def test_a_png_is_written_and_nothing_is_left_behind(a_volume: Volume, a_mask: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "preview.png"
    render_preview(a_volume, {"ball": (a_mask, RED)}, path, key_index=6, title="Ball", box_ijk=((4, 5, 6), (12, 13, 6)))
    head = path.read_bytes()[:24]
    assert head[1:4] == b"PNG"
    assert struct.unpack(">II", head[16:]) == (1800, 1044)
    assert os.listdir(tmp_path) == ["preview.png"]


def test_letters_follow_the_radiological_convention(a_volume: Volume, a_mask: np.ndarray) -> None:
    axes = preview_figure(a_volume, {"ball": (a_mask, RED)}, key_index=6).axes
    assert _letters(axes[4]) == ["R", "L", "A", "P"]
    assert _letters(axes[5]) == ["R", "L", "S", "I"]
    assert _letters(axes[6]) == ["A", "P", "S", "I"]


@pytest.mark.parametrize(
    ("flip", "axes_order"), [((-1, 1, -1), (0, 1, 2)), ((1, -1, 1), (2, 0, 1)), ((-1, -1, -1), (1, 0, 2))]
)
def test_flipped_and_permuted_volumes_look_like_the_plain_one(
    flip: tuple[int, int, int], axes_order: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(0)
    plain = rng.random((5, 7, 9)).astype(np.float32)
    reference = preview_figure(Volume.from_array(plain), {}, key_index=3)
    order_kji = [2 - axis for axis in axes_order[::-1]]
    steps = tuple(slice(None, None, sign) for sign in flip[::-1])
    turned = plain[steps].transpose(order_kji)
    directions = np.diag(np.array(flip, float))[:, list(axes_order)]
    origin = tuple(0.0 if sign > 0 else n - 1.0 for sign, n in zip(flip, (9, 7, 5), strict=True))
    geometry = VolumeGeometry.from_spacing(turned.shape[::-1], directions=directions, origin_mm=origin)
    depth = axes_order.index(2)
    key = 3 if flip[2] > 0 else 1
    figure = preview_figure(Volume.from_array(turned, geometry), {}, plane_axis=depth, key_index=key)
    for n in (0, 4, 5, 6):
        assert np.array_equal(figure.axes[n].images[0].get_array(), reference.axes[n].images[0].get_array()), n
        assert _letters(figure.axes[n]) == _letters(reference.axes[n])


def test_the_scale_bar_is_as_long_as_it_says(a_volume: Volume, a_mask: np.ndarray) -> None:
    for axes in preview_figure(a_volume, {"ball": (a_mask, RED)}, key_index=6).axes:
        bar = next(line for line in axes.lines if line.get_gid() == "scale bar")
        text = next(text.get_text() for text in axes.texts if text.get_gid() == "scale text")
        number, unit = text.split()
        assert np.ptp(bar.get_xdata()) == pytest.approx(float(number) * {"mm": 1, "cm": 10}[unit])


def test_millimetres_are_square_on_paper(a_volume: Volume, a_mask: np.ndarray) -> None:
    figure = preview_figure(a_volume, {"ball": (a_mask, RED)}, key_index=6)
    for axes in figure.axes:
        box = axes.get_position()
        width, height = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
        assert np.ptp(axes.get_xlim()) / width == pytest.approx(np.ptp(axes.get_ylim()) / height)
    assert figure.axes[5].images[0].get_extent() == [0.0, 48.0, 48.0, 0.0]


@pytest.mark.parametrize(("width", "bar"), [(300, 100), (299, 50), (45, 10), (7, 2), (0.5, 0.1)])
def test_scale_bars_are_round(width: float, bar: float) -> None:
    assert scale_bar_mm(width) == pytest.approx(bar)


def test_the_box_encloses_its_voxels_on_a_flipped_axis() -> None:
    geometry = VolumeGeometry.from_spacing((10, 8, 6), (2.0, 1.0, 1.0), np.diag([-1.0, 1.0, 1.0]))
    volume = Volume.from_array(np.zeros((6, 8, 10), np.int16), geometry)
    axes = preview_figure(volume, {}, key_index=2, box_ijk=((1, 3, 2), (4, 5, 2))).axes[0]
    box = next(patch for patch in axes.patches if patch.get_gid() == "box")
    assert box.get_xy() == (10.0, 3.0)
    assert (box.get_width(), box.get_height()) == (8.0, 3.0)


def test_the_caption_states_volume_extents_and_slices(a_volume: Volume, a_mask: np.ndarray) -> None:
    texts = _texts(preview_figure(a_volume, {"ball": (a_mask, RED)}, key_index=6, window=(-100, 300), title="My title"))
    assert "My title" in texts
    assert f"ball   {a_mask.sum() * 16 / 1000:.4g} ml" in texts
    assert "RL 18  AP 18  SI 36 mm   9 axial slices" in texts
    assert "window -100 to 300   (W 400  L 100)" in texts


def test_an_empty_mask_says_nothing_segmented(a_volume: Volume) -> None:
    empty = np.zeros(a_volume.geometry.shape_kji, bool)
    assert _texts(preview_figure(a_volume, {"none": (empty, RED)}, key_index=0)).count("nothing segmented") == 2
    assert "nothing segmented" in _texts(preview_figure(a_volume, {}, key_index=11))


def test_an_empty_mask_beside_a_filled_one_is_said_so(a_volume: Volume, a_mask: np.ndarray) -> None:
    masks = {"ball": (a_mask, RED), "none": (np.zeros_like(a_mask), RED)}
    assert "none   nothing segmented" in _texts(preview_figure(a_volume, masks, key_index=6))


def test_a_two_dimensional_image_gets_two_big_panels(tmp_path: Path) -> None:
    image = Volume.from_array(np.arange(600, dtype=np.uint8).reshape(20, 30) % 251)
    mask = np.zeros((1, 20, 30), bool)
    mask[0, 5:9, 10:20] = True
    assert len(preview_figure(image, {"a": (mask, RED)}).axes) == 2
    render_preview(image, {"a": (mask, RED)}, tmp_path / "p.png", box_ijk=((10, 5, 0), (19, 8, 0)))


def test_a_colour_photograph_keeps_its_colours_and_has_no_letters() -> None:
    voxels = np.zeros((1, 3, 1, 8, 8), np.uint8)
    voxels[0, 0] = 255
    volume = Volume(voxels, VolumeGeometry.from_spacing((8, 8, 1)), Modality.COLOR)
    axes = preview_figure(volume, {}, window=(0, 255)).axes[0]
    assert np.array_equal(axes.images[0].get_array()[0, 0], (1, 0, 0))
    assert _letters(axes) == []


@pytest.mark.parametrize("voxel", [(0, 0, 0), (11, 19, 23), (6, 9, 8)])
def test_a_single_voxel_is_drawn(a_volume: Volume, voxel: tuple[int, int, int], tmp_path: Path) -> None:
    mask = np.zeros(a_volume.geometry.shape_kji, bool)
    mask[voxel] = True
    render_preview(a_volume, {"dot": (mask, RED)}, tmp_path / "p.png", key_index=voxel[0])


def test_a_tilted_volume_with_nan_and_time_points_is_drawn_and_its_tilt_is_stated() -> None:
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    voxels = np.random.default_rng(0).random((2, 1, 9, 12, 14)).astype(np.float32)
    voxels[1, 0, 4] = np.nan
    geometry = VolumeGeometry.from_spacing((14, 12, 9), (1.5, 1.5, 3.0), turn)
    volume = Volume(voxels, geometry, Modality.PET, times_s=(0.0, 1.5))
    texts = _texts(preview_figure(volume, {"a": (_ball((9, 12, 14), (4, 6, 6), 3), RED)}, time=1, key_index=4))
    assert "grid tilted 20°" in texts
    assert "time 1 of 0-1  (1.50 s)" in texts


def test_an_unwritable_path_is_an_output_error_and_the_old_file_stays(
    a_volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        render_preview(a_volume, {}, tmp_path / "no folder" / "p.png")
    path = tmp_path / "p.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        render_preview(a_volume, {}, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["p.png"]


@pytest.mark.parametrize("arguments", [{"key_index": 12}, {"key_index": -1}, {"plane_axis": 3}, {"time": 1}])
def test_slices_that_do_not_exist_are_refused(a_volume: Volume, arguments: dict[str, int]) -> None:
    with pytest.raises(GeometryError):
        preview_figure(a_volume, {}, **arguments)


def test_a_mask_on_another_grid_is_refused(a_volume: Volume) -> None:
    with pytest.raises(GeometryError, match="'a'"):
        preview_figure(a_volume, {"a": (np.zeros((1, 2, 3), bool), RED)})


def test_no_global_state_of_matplotlib_is_used(a_volume: Volume) -> None:
    before = "matplotlib.pyplot" in sys.modules
    preview_figure(a_volume, {})
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_the_rendered_ball_is_round_and_centred() -> None:
    mask = np.zeros((15, 30, 30), bool)
    grid = np.indices((15, 30, 30)).astype(float)
    mask |= ((grid[0] - 7) * 2) ** 2 + (grid[1] - 14.5) ** 2 + (grid[2] - 14.5) ** 2 <= 12**2
    geometry = VolumeGeometry.from_spacing((30, 30, 15), (1.0, 1.0, 2.0))
    surface = render_surfaces([(mask, RED)], geometry, oblique_anterior_camera(), 120)
    rows, columns = np.nonzero(surface.rgba[..., 3] > 0.5)
    assert rows.mean() == pytest.approx(59.5, abs=1.5)
    assert np.ptp(rows) * surface.pixel_mm == pytest.approx(24, abs=2)
    assert np.ptp(columns) * surface.pixel_mm == pytest.approx(24, abs=2)


def test_a_core_shines_through_its_shell() -> None:
    shell, core = _ball((24, 24, 24), (12, 12, 12), 10), _ball((24, 24, 24), (12, 12, 12), 5)
    geometry = VolumeGeometry.from_spacing((24, 24, 24))
    both = [(shell & ~core, (1.0, 0.0, 0.0)), (core, (0.0, 0.0, 1.0))]
    center = render_surfaces(both, geometry, oblique_anterior_camera(), 60).rgba[30, 30]
    assert center[2] > 0.1
    assert center[0] > 0.1


def test_the_camera_sees_the_patients_left_on_the_right() -> None:
    right, down, depth = oblique_anterior_camera()
    assert right[0] > 0.8
    assert down[2] < -0.8
    assert depth[1] > 0.8
    assert np.allclose(oblique_anterior_camera() @ oblique_anterior_camera().T, np.eye(3))


def _unplaced(shape_kji: tuple[int, int, int], **known: bool) -> tuple[Volume, np.ndarray]:
    volume = Volume.from_array(np.random.default_rng(0).random(shape_kji).astype(np.float32), **known)
    mask = np.zeros(shape_kji, bool)
    mask[shape_kji[0] // 2, 3:7, 4:10] = True
    return volume, mask


def _lines(figure: object) -> list[str]:
    return [line.get_gid() for axes in figure.axes for line in axes.lines]


def test_a_picture_without_spacing_and_orientation_is_counted_in_pixels_and_has_no_letters() -> None:
    volume, mask = _unplaced((1, 12, 20), has_spacing=False, has_orientation=False)
    figure = preview_figure(volume, {"mole": (mask, RED)})
    texts = _texts(figure)
    assert "mole   24 pixels" in texts and "6 x 4 pixels" in texts and "20 x 12 pixels   spacing not known" in texts
    assert " ml" not in texts and " mm" not in texts and " cm" not in texts and "axial" not in texts.lower()
    assert "scale bar" not in _lines(figure) and not any(map(_letters, figure.axes))


def test_a_picture_with_spacing_but_without_a_place_states_an_area_not_a_volume() -> None:
    volume, mask = _unplaced((1, 12, 20), has_orientation=False)
    figure = preview_figure(volume, {"heart": (mask, RED)})
    assert "heart   0.24 cm\u00b2" in _texts(figure) and "6 x 4 mm" in _texts(figure)
    assert "scale bar" in _lines(figure) and not any(map(_letters, figure.axes))


def test_a_stack_without_a_place_names_its_planes_by_axis() -> None:
    volume, mask = _unplaced((8, 12, 20), has_spacing=False, has_orientation=False)
    figure = preview_figure(volume, {"a": (mask, RED)}, key_index=4)
    texts = _texts(figure)
    assert "Along K" in texts and "Along I" in texts and "24 voxels" in texts and "seen from" not in texts
    assert not any(name in texts.lower() for name in ("axial", "coronal", "sagittal"))
    assert "scale bar" not in _lines(figure) and not any(map(_letters, figure.axes))


def test_notes_lie_on_a_dark_band(a_volume: Volume) -> None:
    for text in preview_figure(a_volume, {}).axes[0].texts:
        assert text.get_path_effects() and text.get_bbox_patch().get_facecolor()[:3] == (0, 0, 0)


def test_names_of_any_script_and_with_dollars_are_drawn_silently(
    a_volume: Volume, a_mask: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    name = "\u809d\u81d3 $x_^$ \udcff\n"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        render_preview(a_volume, {name: (a_mask, RED)}, tmp_path / "p.png", title=f"{name} of $a")
    assert not caught and capfd.readouterr().err == ""


def test_an_installed_font_for_chinese_and_japanese_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans", "IPAGothic"])
    font_families.cache_clear()
    assert font_families()[-1] == "IPAGothic"
    font_families.cache_clear()


@pytest.mark.parametrize("name", ["x.jpg", "x.seg.nrrd", "x", "x.png.gz"])
def test_a_picture_that_is_not_called_png_is_refused(a_volume: Volume, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"end its name in \.png"):
        check_preview_path(tmp_path / name)
    with pytest.raises(OutputError, match=r"end its name in \.png"):
        render_preview(a_volume, {}, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_place_for_a_picture_is_checked_before_the_work(tmp_path: Path) -> None:
    check_preview_path(tmp_path / "X.PNG")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "nowhere" / "x.png", tmp_path / "folder.png"):
        with pytest.raises(OutputError, match="cannot be written: choose a name in a folder"):
            check_preview_path(path)
