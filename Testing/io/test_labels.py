from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from SegmentAnythingMedLib.errors import GeometryError, VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io import Labels, Segment, check_same_grid, labels_on_grid, read_labels, read_volume
from SegmentAnythingMedLib.io.dicom_seg import dicom_lab_from_rgb, rgb_from_dicom_lab
from SegmentAnythingMedLib.io.labels import fitted
from SegmentAnythingMedLib.io.nrrd import write_nrrd
from SegmentAnythingMedLib.io.rtstruct import fill_contours
from SegmentAnythingMedLib.volume import Volume


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def flipped(geometry: VolumeGeometry, axis: int) -> VolumeGeometry:
    matrix = np.eye(4)
    matrix[axis, axis] = -1
    matrix[axis, 3] = geometry.size_ijk[axis] - 1
    return VolumeGeometry(geometry.ijk_to_world @ matrix, geometry.size_ijk)


def test_a_label_map_gives_one_segment_per_value(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 4), np.float32)
    array[0], array[1, 0] = 7, 2
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(tmp_path / "organs.nii.gz"))
    labels = read_labels(tmp_path / "organs.nii.gz")
    assert [(s.name, s.value, s.mask.sum()) for s in labels.segments] == [("organs 2", 2, 4), ("organs 7", 7, 12)]
    assert labels.segments[0].color != labels.segments[1].color


@pytest.mark.parametrize(
    "array", [np.full((2, 2, 2), 0.5), np.full((2, 2, 2), -3), np.arange(2000).reshape(2, 10, 100)]
)
def test_an_image_is_no_label_map(array: np.ndarray, tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.astype(np.float32)), str(tmp_path / "image.nrrd"))
    with pytest.raises(VolumeError, match="is an image"):
        read_labels(tmp_path / "image.nrrd")


def test_a_time_point_of_a_4d_label_map_has_to_be_chosen(dev_data: Path) -> None:
    path = dev_data / "itksnap" / "seg4d_11f_label1.nii.gz"
    with pytest.raises(VolumeError, match="11 time points: choose one with time=0 to 10"):
        read_labels(path)
    with pytest.raises(VolumeError, match="no time point 11"):
        read_labels(path, time=11)
    reference = read_volume(dev_data / "itksnap" / "img4d_11f.nii.gz")
    assert read_labels(path, reference, time=3).segments[0].mask.any()


def test_layers_of_a_segmentation_may_overlap(dev_data: Path) -> None:
    labels = read_labels(dev_data / "slicerio" / "SegmentationOverlapping.seg.nrrd")
    assert labels.names[0] == "ribs" and labels.names[-1] == "overlapping sphere"
    assert (labels.mask("overlapping sphere") & labels.mask("tissue")).any()
    assert labels.segments[0].color == (0.992157, 0.909804, 0.619608)
    assert "SCT^113197003^Rib" in labels.segments[0].terminology
    image = SimpleITK.ReadImage(str(dev_data / "slicerio" / "Segmentation.seg.nrrd"))
    alone = read_labels(dev_data / "slicerio" / "Segmentation.seg.nrrd")
    expected = SimpleITK.GetArrayFromImage(image)
    for segment in alone.segments:
        np.testing.assert_array_equal(segment.mask, expected == segment.value)
    with pytest.raises(VolumeError, match="no segment 'rib'; there are: ribs"):
        labels.mask("rib")


def test_a_cropped_segmentation_is_placed_on_its_volume(a_grid: VolumeGeometry, tmp_path: Path) -> None:
    matrix = a_grid.ijk_to_world.copy()
    matrix[:3, 3] = a_grid.world_from_ijk(np.array([2, 1, 1]))
    crop = VolumeGeometry(matrix, (3, 2, 2))
    with open(tmp_path / "crop.seg.nrrd", "wb") as stream:
        write_nrrd(
            stream, np.ones((1, 2, 2, 3), np.uint8), crop, {"Segment0_Name": "liver", "Segment0_LabelValue": "1"}
        )
    volume = Volume.from_array(np.zeros(a_grid.shape_kji), a_grid)
    mask = read_labels(tmp_path / "crop.seg.nrrd", volume).mask("liver")
    expected = np.zeros(a_grid.shape_kji, bool)
    expected[1:3, 1:3, 2:5] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labels_stored_with_a_flipped_axis_fit_their_volume(axis: int, a_grid: VolumeGeometry) -> None:
    mask = np.zeros(a_grid.shape_kji, bool)
    mask[0, 1, 2:] = True
    moved = fitted(Labels.from_masks({"a": mask}, a_grid), flipped(a_grid, axis))
    np.testing.assert_array_equal(moved.mask("a"), np.flip(mask, 2 - axis))


def test_labels_of_another_grid_are_refused_with_both_sizes(a_grid: VolumeGeometry) -> None:
    other = VolumeGeometry(a_grid.ijk_to_world @ np.diag([1.5, 1, 1, 1]), (5, 5, 4))
    with pytest.raises(GeometryError, match=r"another grid: 6x5x4 voxels of .* mm, but the volume has 5x5x4"):
        check_same_grid(a_grid, other)
    with pytest.raises(GeometryError, match="another grid"):
        fitted(Labels.from_masks({"a": np.ones((4, 5, 6), bool)}, a_grid), other)
    with pytest.raises(GeometryError, match="another position"):
        shifted = a_grid.ijk_to_world.copy()
        shifted[0, 3] += 0.3
        check_same_grid(a_grid, VolumeGeometry(shifted, a_grid.size_ijk))


def test_labels_on_grid_takes_the_nearest_voxel(a_grid: VolumeGeometry) -> None:
    half = VolumeGeometry(a_grid.ijk_to_world @ np.diag([0.5, 1, 1, 1]), (12, 5, 4))
    mask = np.zeros(a_grid.shape_kji, bool)
    mask[1, 2, 3] = True
    found = np.argwhere(labels_on_grid(Labels.from_masks({"a": mask}, a_grid), half).mask("a"))
    assert found.tolist() == [[1, 2, 5], [1, 2, 6]]


def test_a_segment_must_fit_its_grid(a_grid: VolumeGeometry) -> None:
    with pytest.raises(VolumeError, match="does not fit"):
        Labels(a_grid, (Segment("a", np.zeros((1, 2, 3), np.uint8)),))


def test_segments_that_do_not_overlap_share_a_layer(a_grid: VolumeGeometry) -> None:
    masks = {name: np.zeros(a_grid.shape_kji, bool) for name in "abc"}
    masks["a"][0], masks["b"][1], masks["c"][:2] = True, True, True
    layers, places = Labels.from_masks(masks, a_grid).layered()
    assert layers.shape[0] == 2 and places == ((0, 1), (0, 2), (1, 3))


@pytest.mark.parametrize(
    ("name", "voxels"),
    [("binary", [638]), ("binary_fractional", [638]), ("true_fractional", [638]), ("binary_overlap", [64, 16])],
)
def test_segmentations_by_highdicom_are_read_as_highdicom_reads_them(
    name: str, voxels: list[int], dev_data: Path
) -> None:
    labels = read_labels(dev_data / "dicom_seg" / "highdicom" / f"seg_image_ct_{name}.dcm")
    assert [int(s.mask.sum()) for s in labels.segments] == voxels
    assert "SCT^272673000^Bone" in labels.segments[0].terminology


def test_a_fractional_segmentation_is_cut_at_half(dev_data: Path) -> None:
    import highdicom

    path = dev_data / "dicom_seg" / "highdicom" / "seg_image_ct_true_fractional.dcm"
    stored = highdicom.seg.segread(path).pixel_array
    assert len(np.unique(stored)) > 2
    np.testing.assert_array_equal(read_labels(path).segments[0].mask, stored >= 127.5)


def test_overlapping_and_sparse_segmentations_by_dcmqi_are_read(dev_data: Path) -> None:
    folder = dev_data / "dicom_seg" / "dcmqi"
    labels = read_labels(folder / "partial_overlaps.dcm", read_volume(folder / "ct-3slice"))
    assert labels.names == ("GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE")
    assert labels.segments[0].color == pytest.approx((128 / 255, 174 / 255, 128 / 255), abs=2e-3)
    liver = read_labels(folder / "sparse-labelmap-ppv5.dcm")
    assert liver.names == ("Liver",) and liver.geometry.size_ijk == (24, 38, 3)
    assert liver.mask("Liver").any(axis=(1, 2)).tolist() == [True, False, True]


def test_colours_survive_the_lab_space_of_dicom() -> None:
    for color in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.9, 0.1, 0.3), (0.02, 0.5, 0.98)):
        assert rgb_from_dicom_lab(dicom_lab_from_rgb(color)) == pytest.approx(color, abs=1e-3)


def test_a_contour_fills_the_pixels_whose_centre_it_holds(a_grid: VolumeGeometry) -> None:
    outer = np.array([[0.6, 0.6, 2], [4.4, 0.6, 2], [4.4, 3.4, 2], [0.6, 3.4, 2]])
    inner = np.array([[1.5, 1.5, 2], [3.5, 1.5, 2], [3.5, 2.5, 2], [1.5, 2.5, 2]])
    mask = fill_contours([a_grid.world_from_ijk(c) for c in (outer, inner)], a_grid, "x")
    expected = np.zeros(a_grid.shape_kji, bool)
    expected[2, 1:4, 1:5] = True
    expected[2, 2, 2:4] = False
    np.testing.assert_array_equal(mask, expected)


def test_contours_along_another_axis_are_filled_in_their_plane(a_grid: VolumeGeometry) -> None:
    contour = np.array([[3, 0.6, 0.6], [3, 3.4, 0.6], [3, 3.4, 2.4], [3, 0.6, 2.4]])
    mask = fill_contours([a_grid.world_from_ijk(contour)], a_grid, "x")
    assert np.argwhere(mask).min(axis=0).tolist() == [1, 1, 3] and mask.sum() == 6


def test_contours_outside_the_volume_are_an_error(a_grid: VolumeGeometry) -> None:
    with pytest.raises(VolumeError, match="outside the volume"):
        fill_contours([a_grid.world_from_ijk(np.array([[0, 0, 40], [3, 0, 40], [3, 3, 40]]))], a_grid, "the tumour")


@pytest.mark.parametrize("name", ["CT", "MR_T1", "PET"])
def test_filled_contours_equal_the_mask_of_the_same_patient(name: str, dev_data: Path) -> None:
    folder = dev_data / "ibsi_sts_dicom" / "STS_001" / name
    volume = read_volume(folder / "image")
    with pytest.raises(VolumeError, match="reference"):
        read_labels(folder / "mask" / "RS.dcm")
    filled = read_labels(folder / "mask" / "RS.dcm", volume)
    drawn = read_labels(dev_data / "ibsi_sts" / "STS_001" / f"{name}_mask.nii.gz", volume)
    assert filled.names == (f"GTV_Mass_{name}",)
    assert dice(filled.segments[0].mask, drawn.segments[0].mask) > 0.999


def test_a_flipped_label_map_lands_on_the_organs_of_the_dicom_ct(dev_data: Path) -> None:
    ct = read_volume(dev_data / "totalseg" / "example_ct_dicom")
    stored = read_labels(dev_data / "totalseg" / "example_ct_dicom_seg.nii.gz")
    labels = read_labels(dev_data / "totalseg" / "example_ct_dicom_seg.nii.gz", ct)
    np.testing.assert_array_equal(labels.segments[0].mask, stored.segments[0].mask[:, ::-1])
    outside_air = [(ct.array()[s.mask] > -900).mean() for s in labels.segments]
    assert np.median(outside_air) > 0.99


def test_what_is_no_label_file_says_so(dev_data: Path) -> None:
    with pytest.raises(VolumeError, match="CT, not SEG or RTSTRUCT"):
        read_labels(dev_data / "dicom_seg" / "highdicom" / "ct_image.dcm")
    with pytest.raises(VolumeError, match="is a folder"):
        read_labels(dev_data)


def test_thousands_of_damaged_segments_are_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {f"Segment{n}_Name": "x" for n in range(3000)} | {
        f"Segment{'9' * 5000}_Name": "x",
        "Segment1_Layer": "9" * 50,
    }
    with open(tmp_path / "x.seg.nrrd", "wb") as stream:
        write_nrrd(stream, np.zeros((1, 2, 2, 2), np.uint8), VolumeGeometry.from_spacing((2, 2, 2)), keys)
    assert read_labels(tmp_path / "x.seg.nrrd").names == ("x",)
    assert [r.getMessage() for r in caplog.records] == [
        "2999 segments are in layers that the file does not have (1, 2, 3, ...): left out"
    ]
