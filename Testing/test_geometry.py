from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from SegmentAnythingMedLib.errors import GeometryError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry, anatomical_axes


def tilted(angles: tuple[float, float, float], permutation: tuple[int, ...], flips: tuple[int, ...]) -> VolumeGeometry:
    """A tilted, flipped, permuted grid with an anisotropy of 1:20."""
    directions = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(flips)
    return VolumeGeometry.from_spacing((11, 9, 7), (0.5, 0.8, 10.0), directions[:, permutation], (-31.0, 12.5, 400.0))


GRIDS = {
    "plain": tilted((0, 0, 0), (0, 1, 2), (1, 1, 1)),
    "tilted": tilted((20, -15, 7), (0, 1, 2), (1, 1, 1)),
    "flipped": tilted((3, 0, 0), (0, 1, 2), (-1, 1, -1)),
    "permuted": tilted((-8, 4, 12), (2, 0, 1), (1, -1, 1)),
    "sheared": VolumeGeometry(np.array([[1, 0, 0, 5], [0, 1, 0.3, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]]), (11, 9, 7)),
}
NORMALS = {"I": None, "J": None, "K": None, "slanted": (0.3, 0.5, 1.0), "steep": (1.0, -0.7, 0.2)}


@pytest.fixture(params=GRIDS)
def grid(request: pytest.FixtureRequest) -> VolumeGeometry:
    return GRIDS[request.param]


@pytest.fixture(params=NORMALS)
def slices(request: pytest.FixtureRequest, grid: VolumeGeometry) -> SliceGeometry:
    normal = NORMALS[request.param]
    plane = Plane.named(request.param, grid) if normal is None else Plane.from_normal(normal, grid)
    return SliceGeometry(grid, plane)


def test_pixels_to_ijk_to_world_and_back_is_exact(slices: SliceGeometry) -> None:
    grid = slices.volume
    pixels = np.random.default_rng(0).uniform(0, min(slices.shape), (20, 2))
    for index in (0, slices.count - 1):
        world = grid.world_from_ijk(slices.ijk_from_pixels(index, pixels))
        depth, back = slices.pixels_from_ijk(grid.ijk_from_world(world))
        np.testing.assert_allclose(depth, index, atol=1e-9)
        np.testing.assert_allclose(back, pixels, atol=1e-9)


def test_every_voxel_belongs_to_exactly_one_slice(slices: SliceGeometry) -> None:
    times_written = np.zeros(slices.volume.shape_kji, dtype=int)
    for index in range(slices.count):
        written = np.zeros(slices.volume.shape_kji, dtype=int)
        slices.paste(np.ones(slices.shape, dtype=int), index, written)
        times_written += written
    np.testing.assert_array_equal(times_written, 1)


def test_an_extracted_slice_holds_the_values_at_its_own_positions(slices: SliceGeometry) -> None:
    k, j, i = np.meshgrid(*map(np.arange, slices.volume.shape_kji), indexing="ij")
    array = 2.0 * i + 3.0 * j + 5.0 * k
    index = slices.count // 2
    pixels = np.stack(np.meshgrid(*map(np.arange, slices.shape), indexing="ij"), axis=-1)
    ijk = slices.ijk_from_pixels(index, pixels)
    inside = ((ijk >= 0) & (ijk <= np.array(slices.volume.size_ijk) - 1)).all(axis=-1)
    np.testing.assert_allclose(slices.extract(array, index)[inside], (ijk @ [2.0, 3.0, 5.0])[inside], rtol=1e-5)


def test_slices_along_an_axis_are_views_of_the_array(grid: VolumeGeometry) -> None:
    array = np.zeros(grid.shape_kji)
    for axis in range(3):
        SliceGeometry(grid, Plane(axis)).extract(array, 2)[...] += 1
    assert array[2, 2, 2] == 3


def test_pixel_and_slice_spacing_are_millimetres(grid: VolumeGeometry) -> None:
    slices = SliceGeometry(grid, Plane(1))
    assert slices.spacing_mm == pytest.approx((grid.spacing_mm[2], grid.spacing_mm[0]))


def test_sheared_slices_keep_their_distance_along_the_normal() -> None:
    slices = SliceGeometry(GRIDS["sheared"], Plane(2))
    assert slices.thickness_mm == pytest.approx(3.0)


def test_planes_have_their_name_in_patient_space_whatever_the_axis_order() -> None:
    assert anatomical_axes(GRIDS["plain"]) == {"sagittal": 0, "coronal": 1, "axial": 2}
    assert anatomical_axes(GRIDS["permuted"]) == {"sagittal": 1, "coronal": 2, "axial": 0}


def test_at_45_degrees_each_plane_still_has_an_axis_of_its_own() -> None:
    axes = anatomical_axes(tilted((45, 0, 0), (0, 1, 2), (1, 1, 1)))
    assert sorted(axes.values()) == [0, 1, 2] and axes["sagittal"] == 0


@pytest.mark.parametrize(("degrees", "oblique"), [(0.9, False), (1.1, True)])
def test_a_normal_within_one_degree_of_an_axis_is_a_slice_of_the_array(degrees: float, oblique: bool) -> None:
    grid = GRIDS["tilted"]
    tilt = Rotation.from_rotvec(np.radians(degrees) * grid.slice_normal_world(0))
    assert Plane.from_normal(-tilt.apply(grid.slice_normal_world(2)), grid).is_oblique is oblique


def test_planes_of_a_file_settle_to_one_length_and_sign() -> None:
    grid = GRIDS["tilted"]
    plane = Plane.from_normal((0.3, -0.5, 1.0), grid)
    longer = Plane(None, tuple(-7 * n for n in plane.normal_ijk))
    np.testing.assert_allclose(longer.settled(grid).normal_ijk, plane.normal_ijk, atol=1e-5)
    assert plane.settled(grid) is plane and Plane(1).settled(grid) == Plane(1)
    nearly_k = Plane(None, tuple(grid.world_to_ijk[:3, :3] @ grid.slice_normal_world(2)))
    assert nearly_k.settled(grid) == Plane(2)


def test_a_normal_and_its_opposite_are_the_same_plane() -> None:
    normal = np.array((0.3, -0.5, 1.0))
    assert Plane.from_normal(normal, GRIDS["tilted"]) == Plane.from_normal(-2 * normal, GRIDS["tilted"])


def test_large_oblique_slices_stay_within_a_thousand_pixels() -> None:
    grid = VolumeGeometry.from_spacing((1500, 1500, 3), (0.1, 0.1, 1.0))
    assert max(SliceGeometry(grid, Plane.from_normal((0.2, 0.1, 1), grid)).shape) <= 1027


def test_points_half_a_voxel_beyond_the_last_centre_are_inside() -> None:
    inside = GRIDS["plain"].contains(np.array([[-0.5, 0, 0], [10.5, 8.5, 6.5], [-0.6, 0, 0], [0, 0, 6.6]]))
    assert inside.tolist() == [True, True, False, False]


def test_geometries_match_within_tolerance_only() -> None:
    plain = GRIDS["plain"]
    moved = plain.ijk_to_world.copy()
    moved[0, 3] += 0.5
    assert plain.matches(VolumeGeometry(plain.ijk_to_world + 1e-6 * (np.arange(4) < 3)[:, None], plain.size_ijk))
    assert not plain.matches(VolumeGeometry(moved, plain.size_ijk))
    assert not plain.matches(VolumeGeometry(plain.ijk_to_world, (11, 9, 8)))


@pytest.mark.parametrize(
    ("matrix", "size"),
    [
        (np.zeros((4, 4)), (1, 1, 1)),
        (np.full((4, 4), np.nan), (1, 1, 1)),
        (np.eye(3), (1, 1, 1)),
        (np.eye(4), (0, 1, 1)),
    ],
)
def test_impossible_grids_are_refused(matrix: np.ndarray, size: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError):
        VolumeGeometry(matrix, size)


def test_wrong_planes_and_slices_name_what_is_valid() -> None:
    grid = GRIDS["plain"]
    with pytest.raises(GeometryError, match="axial, coronal, sagittal"):
        Plane.named("transverse", grid)
    with pytest.raises(GeometryError, match="finite direction"):
        Plane.from_normal((0, 0, 0), grid)
    with pytest.raises(GeometryError, match="0 to 6"):
        SliceGeometry(grid, Plane(2)).check_index(7)
    with pytest.raises(GeometryError, match="either an IJK axis or"):
        Plane(2, (1, 0, 0))


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    normal=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda n: np.linalg.norm(n) > 0.1),
    point=st.tuples(st.floats(0, 10), st.floats(0, 8), st.floats(0, 6)),
)
def test_any_point_in_any_volume_is_found_on_any_plane(angles: tuple, normal: tuple, point: tuple) -> None:
    grid = tilted(angles, (1, 2, 0), (1, -1, 1))
    slices = SliceGeometry(grid, Plane.from_normal(normal, grid))
    depth, pixels = slices.pixels_from_ijk(np.array(point))
    assert -0.5 <= depth <= slices.count - 0.5
    np.testing.assert_allclose(slices.ijk_from_pixels(float(depth), pixels), point, atol=1e-7)
