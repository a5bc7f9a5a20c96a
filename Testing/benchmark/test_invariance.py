from __future__ import annotations

import numpy as np
import pytest
from doubles import ThresholdModel

from SegmentAnythingMedLib.benchmark.invariance import EXACT, Scene, acceptance, compare, markdown
from SegmentAnythingMedLib.benchmark.reorienting import (
    on_grid,
    reoriented_array,
    reoriented_geometry,
    resampled,
    turned_geometry,
)
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.volume import Volume


@pytest.fixture
def a_tilted_scene(a_ball: np.ndarray) -> Scene:
    tilt = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, -1.0]])
    geometry = VolumeGeometry.from_spacing(a_ball.shape[::-1], (1.0, 1.2, 3.0), tilt, (5.0, -7.0, 11.0))
    return Scene(Volume.from_array(a_ball * np.uint8(200), geometry), a_ball, 2)


@pytest.mark.parametrize("change", EXACT)
def test_reoriented_voxels_stay_where_they_are(a_tilted_scene: Scene, change: str) -> None:
    axes, flip = EXACT[change]
    geometry = reoriented_geometry(a_tilted_scene.volume.geometry, axes, flip)
    moved = reoriented_array(a_tilted_scene.volume.array(), axes, flip)
    assert moved.shape == geometry.shape_kji
    ijk = np.argwhere(moved)[:, ::-1]
    back = np.rint(a_tilted_scene.volume.geometry.ijk_from_world(geometry.world_from_ijk(ijk))).astype(int)
    assert a_tilted_scene.truth[tuple(back[:, ::-1].T)].all()


def test_a_turned_grid_holds_the_whole_volume_and_keeps_the_slices_planes(a_tilted_scene: Scene) -> None:
    first = a_tilted_scene.volume.geometry
    turned = turned_geometry(first, 2, 15.0)
    assert turned.spacing_mm == pytest.approx(first.spacing_mm)
    assert abs(turned.slice_normal_world(2) @ first.slice_normal_world(2)) == pytest.approx(1.0)
    corners = np.array([(i, j, k) for i in (0, 23) for j in (0, 19) for k in (0, 13)], dtype=float)
    assert turned.contains(turned.ijk_from_world(first.world_from_ijk(corners))).all()


def test_there_and_back_on_a_turned_grid_keeps_a_mask_but_for_its_rim(a_tilted_scene: Scene) -> None:
    first = a_tilted_scene.volume.geometry
    turned = turned_geometry(first, 2, 15.0)
    there = resampled(a_tilted_scene.truth.astype(np.uint8), first, turned, 0)
    back = resampled(there, turned, first, 0).astype(bool)
    assert 2 * (back & a_tilted_scene.truth).sum() / (back.sum() + a_tilted_scene.truth.sum()) > 0.95


def test_a_model_that_knows_no_direction_is_invariant(a_tilted_scene: Scene) -> None:
    def rescan(geometry: VolumeGeometry) -> Scene:
        first = a_tilted_scene.volume.geometry
        truth = resampled(a_tilted_scene.truth.astype(np.float32), first, geometry, 1) >= 0.5
        return Scene(on_grid(a_tilted_scene.volume, geometry), truth, 2)

    found = list(compare("ball", a_tilted_scene, ThresholdModel(), rescan))
    assert [c.agreement for c in found if c.is_exact] == [1.0] * 4 * len(EXACT)
    assert all(line.holds for line in acceptance(found))
    text = markdown(found, {"model": "threshold"})
    assert "| ball | flip I | stops itself | 1.000 | 1.000 | +0.000 | 1.000 |" in text
