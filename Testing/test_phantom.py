"""The synthetic patient: same seed, same voxels; same organs on every grid."""

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.phantom import Phantom, largest_slice_box, make_phantom, middle_box

SIZE, SPACING = (68, 56, 46), (4.6, 4.6, 4.8)
ORGANS = ("liver", "spleen", "right kidney", "left kidney", "stomach", "aorta", "spine")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom("CT", SIZE, SPACING, seed=3)


def _volume_ml(phantom: Phantom, name: str, time: int = 0) -> float:
    voxels = np.count_nonzero(phantom.structure(name).mask(time))
    return voxels * phantom.volume.geometry.voxel_volume_mm3 / 1000


def _center_mm(phantom: Phantom, name: str) -> np.ndarray:
    kji = np.argwhere(phantom.structure(name).mask())
    return phantom.volume.geometry.world_from_ijk(kji.mean(axis=0)[::-1])


@pytest.mark.parametrize("kind", ["CT", "US"])
def test_the_same_seed_gives_the_same_voxels(kind: str) -> None:
    first, second = (make_phantom(kind, (32, 28, 14), (9.0, 9.0, 16.0), seed=3) for _ in range(2))
    assert np.array_equal(first.volume.voxels, second.volume.voxels)
    assert np.array_equal(first.labelmap(), second.labelmap())


def test_another_seed_is_another_patient(phantom: Phantom) -> None:
    other = make_phantom("MR", geometry=phantom.volume.geometry, seed=4)
    assert not np.array_equal(phantom.structure("liver").mask(), other.structure("liver").mask())


def test_flipped_and_permuted_grids_hold_the_same_truth_voxel_by_voxel(phantom: Phantom) -> None:
    turned = make_phantom("CT", SIZE, SPACING, flip=(True, False, True), axes=(2, 0, 1), seed=3)
    assert turned.volume.geometry.size_ijk == (SIZE[2], SIZE[0], SIZE[1])
    for name in ORGANS:
        # Array axes are (J, I, K) of the first grid; I and K run backwards.
        back = turned.structure(name).mask().transpose(2, 0, 1)[::-1, :, ::-1]
        assert np.count_nonzero(back != phantom.structure(name).mask()) <= 2, name


def test_another_tilt_and_spacing_shows_the_same_organs_at_the_same_places(phantom: Phantom) -> None:
    other = make_phantom("CT", (80, 72, 54), (4.2, 4.2, 4.6), (-12.0, 9.0, 15.0), seed=3)
    for name in ORGANS[:5]:
        assert _volume_ml(other, name) == pytest.approx(_volume_ml(phantom, name), rel=0.03), name
        assert np.abs(_center_mm(other, name) - _center_mm(phantom, name)).max() < 1.5, name


def test_a_given_geometry_is_used_and_a_sheared_one_too() -> None:
    matrix = np.diag([5.0, 5.0, 6.0, 1.0])
    matrix[1, 2] = 1.5
    matrix[:3, 3] = -150, -130, -90
    geometry = VolumeGeometry(matrix, (60, 52, 30))
    found = make_phantom("CT", geometry=geometry, seed=3)
    assert found.volume.geometry is geometry
    straight = make_phantom("CT", (60, 52, 36), (5.0, 5.0, 5.0), (0, 0, 0), seed=3)
    assert _volume_ml(found, "right kidney") == pytest.approx(_volume_ml(straight, "right kidney"), rel=0.05)


@pytest.mark.parametrize(("kind", "dtype"), [("CT", "int16"), ("MR", "uint16"), ("PET", "float32"), ("US", "uint8")])
def test_every_kind_has_its_own_voxel_type_and_modality(kind: str, dtype: str) -> None:
    volume = make_phantom(kind, (64, 54, 20), (5.0, 5.0, 10.0)).volume
    assert volume.voxels.dtype == dtype
    assert volume.modality.value == kind
    assert volume.voxels.shape == (1, 1, 20, 54, 64)
    assert np.ptp(volume.array().astype(float)) > 5


def test_tissues_have_the_values_a_radiologist_expects(phantom: Phantom) -> None:
    from scipy import ndimage

    voxels = phantom.volume.array()
    means = {s.name: voxels[ndimage.binary_erosion(s.mask())].mean() for s in phantom.structures if s.name in ORGANS}
    assert 95 < means["liver"] < 120
    assert 105 < means["spleen"] < 135
    assert means["aorta"] > 180
    assert means["spine"] > 180
    assert voxels[0, 0, 0] < -900


def test_a_lesion_lies_in_the_liver_and_is_darker(phantom: Phantom) -> None:
    lesion, liver = phantom.structure("liver lesion").mask(), phantom.structure("liver").mask()
    assert lesion.any()
    assert not (lesion & ~liver).any()
    assert phantom.volume.array()[lesion].mean() < phantom.volume.array()[liver & ~lesion].mean() - 20


def test_solid_organs_do_not_overlap(phantom: Phantom) -> None:
    names = ("liver", "spleen", "right kidney", "left kidney", "stomach", "pancreas", "gallbladder", "aorta", "spine")
    total = sum(phantom.structure(name).mask().astype(int) for name in names)
    assert total.max() == 1


def test_a_wall_is_a_ring_around_its_lumen() -> None:
    fine = make_phantom("CT", (40, 40, 3), (1.0, 1.0, 4.0), (0, 0, 0), center_mm=(6.0, 14.0, 40.0))
    wall, whole = fine.structure("aorta wall").mask(), fine.structure("aorta").mask()
    assert not (wall & ~whole).any()
    lumen = whole & ~wall
    assert lumen[1].sum() > 100
    assert not lumen[1][0].any()


def test_the_heart_beats_and_the_liver_stays() -> None:
    phantom = make_phantom("CT", (56, 48, 30), (6.0, 6.0, 6.0), time_count=4)
    assert phantom.volume.times_s == pytest.approx((0, 0.225, 0.45, 0.675))
    pools = [_volume_ml(phantom, "left ventricle", time) for time in range(4)]
    assert pools[2] < 0.6 * pools[0]
    assert pools[1] == pytest.approx(pools[3])
    assert np.array_equal(phantom.structure("liver").mask(0), phantom.structure("liver").mask(2))
    heart = phantom.structure("myocardium").mask(0)
    images = phantom.volume.voxels[:, 0].astype(float)
    assert np.abs(images[0] - images[2])[heart].mean() > 2 * np.abs(images[0] - images[2]).mean()


def test_masks_have_the_volumes_shape_and_labels_name_them(phantom: Phantom) -> None:
    labels = phantom.labelmap()
    assert labels.shape == phantom.volume.geometry.shape_kji
    numbers = [structure.label for structure in phantom.structures]
    assert len(set(numbers)) == len(numbers)
    assert set(np.unique(labels)) <= {0, *numbers}
    lesion = phantom.structure("liver lesion")
    assert (labels[lesion.mask()] == lesion.label).mean() > 0.9
    for structure in phantom.structures:
        mask = structure.mask()
        assert mask.any(), structure.name
        assert mask.dtype == bool


def test_truth_does_not_depend_on_how_the_volume_is_cut_into_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = make_phantom("MR", (48, 40, 24), (6.4, 6.4, 9.0))
    expected = small.labelmap()
    monkeypatch.setattr("SegmentAnythingMedLib.phantom._CHUNK_VOXELS", 16_000)
    other = make_phantom("MR", (48, 40, 24), (6.4, 6.4, 9.0))
    assert np.array_equal(other.labelmap(), expected)
    cut = other.volume.array().astype(float)
    assert np.corrcoef(cut.ravel(), small.volume.array().astype(float).ravel())[0, 1] > 0.98


def test_one_slice_is_a_phantom_too() -> None:
    phantom = make_phantom("CT", (64, 54, 1), (5.0, 5.0, 5.0), center_mm=(0.0, 0.0, 40.0))
    assert phantom.structure("liver").mask().any()


def test_a_grid_outside_the_body_shows_air_and_no_structures() -> None:
    phantom = make_phantom("CT", (8, 8, 8), center_mm=(900.0, 0.0, 0.0))
    assert phantom.structures == ()
    assert phantom.volume.array().max() < -900
    with pytest.raises(VolumeError, match="shows no 'liver'"):
        phantom.structure("liver")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"kind": "XX"}, "'XX'"), ({"time_count": 0}, "not 0"), ({"axes": (0, 0, 1)}, "permutation")],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        make_phantom(**arguments)


def test_the_largest_slice_and_its_tight_box_are_found_along_every_axis() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = True
    mask[3, 1:4, 2:6] = True
    assert largest_slice_box(mask, 2) == (3, (2, 1, 5, 3))
    assert largest_slice_box(mask, 1) == (2, (2, 1, 5, 3))
    assert largest_slice_box(mask, 0) == (3, (1, 1, 3, 3))
    geometry = VolumeGeometry.from_spacing((7, 6, 5))
    assert middle_box(mask, geometry, 2) == (3, ((2, 1, 3), (5, 3, 3)))
    assert middle_box(mask, geometry, 0) == (3, ((3, 1, 1), (3, 3, 3)))
    with pytest.raises(VolumeError, match="empty"):
        largest_slice_box(np.zeros((2, 2, 2), bool), 0)
    with pytest.raises(VolumeError, match="does not fit"):
        middle_box(mask[1:], geometry, 0)
