from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import SimpleITK
from pydicom.uid import JPEG2000, UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from SegmentAnythingMedLib.errors import GeometryError, SeriesChoiceError, VolumeError
from SegmentAnythingMedLib.io import list_series, read_volume
from SegmentAnythingMedLib.volume import Modality

Writer = Callable[..., Path]


def folder_of(write_slice: Writer, depths: list[float], **tags: object) -> Path:
    return [write_slice((10, 20, z), **tags) for z in depths][0].parent


def test_slices_are_stacked_along_their_normal_whatever_their_order(write_slice: Writer) -> None:
    folder = folder_of(write_slice, [4.0, 0.0, 6.0, 2.0])
    volume = read_volume(folder)
    assert volume.array()[:, 0, 0].tolist() == [1, 3, 0, 2]
    assert volume.geometry.spacing_mm == (0.75, 0.5, 2.0) and volume.geometry.size_ijk == (6, 4, 4)
    assert volume.geometry.ijk_to_world[:3, 3].tolist() == [10, 20, 0]
    assert volume.modality is Modality.CT and volume.name == "made up"
    assert sorted(volume.source_files) == sorted(str(path) for path in folder.iterdir())


def test_a_tilted_series_lies_where_gdcm_puts_it(write_slice: Writer, tmp_path: Path) -> None:
    from scipy.spatial.transform import Rotation

    axes = Rotation.from_euler("xyz", (20, -12, 40), degrees=True).as_matrix()
    for k in range(3):
        write_slice(tuple(axes[:, 2] * 2.5 * k + [1, 2, 3]), ImageOrientationPatient=[*axes[:, 0], *axes[:, 1]])
    folder = tmp_path / "dicom"
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    matrix = read_volume(folder).geometry.ijk_to_world
    expected = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    np.testing.assert_allclose(matrix[:3, :3], expected, atol=1e-5)
    np.testing.assert_allclose(matrix[:3, 3], image.GetOrigin(), atol=1e-5)


def test_a_tilted_gantry_becomes_a_sheared_grid(write_slice: Writer) -> None:
    for k in range(4):
        write_slice((0, 0.8 * k, 3.0 * k))
    matrix = read_volume(write_slice((0, 3.2, 12.0)).parent).geometry.ijk_to_world
    np.testing.assert_allclose(matrix[:3, 2], [0, 0.8, 3.0], atol=1e-9)


def test_a_missing_slice_is_named(write_slice: Writer) -> None:
    folder = folder_of(write_slice, [0.0, 2.0, 4.0, 8.0, 10.0])
    with pytest.raises(VolumeError, match=r"gap of 4\.00 mm.*4\.0\) mm and .*8\.0\) mm.*2\.00 mm"):
        read_volume(folder)


def test_jitter_of_positions_is_tolerated(write_slice: Writer) -> None:
    folder = folder_of(write_slice, [0.0, 2.001, 3.998, 6.0])
    assert read_volume(folder).geometry.spacing_mm[2] == pytest.approx(2.0)


def test_slices_off_a_line_are_no_volume(write_slice: Writer) -> None:
    for k, x in enumerate((0.0, 3.0, 0.0)):
        write_slice((x, 0, 2.0 * k))
    with pytest.raises(VolumeError, match="straight line"):
        read_volume(write_slice((0, 0, 6.0)).parent)


def test_two_series_need_a_choice(write_slice: Writer) -> None:
    folder_of(write_slice, [0, 1], SeriesDescription="thin")
    folder = folder_of(write_slice, [0, 1, 2], SeriesInstanceUID="1.2.3", SeriesNumber=11, SeriesDescription="thick")
    with pytest.raises(
        SeriesChoiceError, match=r"2 volumes.*--series: 3 \(thin, CT, 6x4x2\); 11 \(thick, CT, 6x4x3\)"
    ) as caught:
        read_volume(folder)
    assert [identifier for identifier, _ in caught.value.choices] == ["3", "11"]
    for name in ("11", "1.2.3", "thick"):
        assert read_volume(folder, series=name).geometry.size_ijk[2] == 3
    with pytest.raises(SeriesChoiceError, match="no series '12'"):
        read_volume(folder, series="12")


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({"DiffusionBValue": 50.0}, {"DiffusionBValue": 800.0}, ["3:b=50", "3:b=800"]),
        ({"SequenceName": "*ep_b50t"}, {"SequenceName": "*ep_b1000#4"}, ["3:b=50", "3:b=1000"]),
        ({"EchoTime": 4.92}, {"EchoTime": 7.38}, ["3:echo=4.9", "3:echo=7.4"]),
        ({"ImageType": ["DERIVED", "M"]}, {"ImageType": ["DERIVED", "P"]}, ["3:type=M", "3:type=P"]),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, {}, ["3:plane=1", "3:plane=2"]),
        ({"PixelSpacing": [1, 1]}, {}, ["3:spacing=1", "3:spacing=2"]),
    ],
)
def test_images_of_different_kinds_at_one_position_are_never_mixed(
    first: dict, second: dict, names: list[str], write_slice: Writer
) -> None:
    for z in (0, 3, 6):
        write_slice((0, 0, z), np.full((4, 6), 1, np.int16), Modality="MR", **first)
        folder = write_slice((0, 0, z), np.full((4, 6), 2, np.int16), Modality="MR", **second).parent
    with pytest.raises(SeriesChoiceError):
        read_volume(folder)
    assert sorted(s.identifier for s in list_series(folder)) == sorted(names)
    if "plane" not in names[0]:  # the other plane's slices all lie at one depth
        for name in names:
            assert len(np.unique(read_volume(folder, series=name).voxels)) == 1


def test_a_private_b_value_of_siemens_is_found(write_slice: Writer) -> None:
    from pydicom import dcmread

    for value in (b"0 ", b"600 "):
        path = write_slice((0, 0, 0), Modality="MR", Manufacturer="SIEMENS")
        dataset = dcmread(path)
        dataset.add_new((0x0019, 0x0010), "LO", "SIEMENS MR HEADER")
        dataset.add_new((0x0019, 0x100C), "UN", value)
        dataset.save_as(path)
    assert [s.identifier for s in list_series(path.parent)] == ["3:b=0", "3:b=600"]


def test_time_points_of_one_series_become_a_time_axis(write_slice: Writer) -> None:
    for z in (2, 0):
        for time, clock in ((2, "120130.5"), (1, "120100")):
            pixels = np.full((4, 6), 10 * time + z, np.int16)
            path = write_slice((0, 0, z), pixels, TemporalPositionIdentifier=time, AcquisitionTime=clock)
    volume = read_volume(path.parent)
    assert volume.voxels[:, 0, :, 0, 0].tolist() == [[10, 12], [20, 22]]
    assert volume.times_s == (0.0, 30.5)
    assert len(volume.source_files) == 4
    second = read_volume(path.parent, time=1)
    assert second.array()[:, 0, 0].tolist() == [20, 22] and len(second.source_files) == 2
    with pytest.raises(GeometryError, match="0 to 1"):
        read_volume(path.parent, time=2)


def test_an_incomplete_time_point_is_refused(write_slice: Writer) -> None:
    for z, time in ((0, 1), (2, 1), (0, 2)):
        path = write_slice((0, 0, z), TemporalPositionIdentifier=time)
    with pytest.raises(VolumeError, match="incomplete"):
        read_volume(path.parent)


def test_copies_of_a_file_count_once(write_slice: Writer) -> None:
    folder = folder_of(write_slice, [0, 2, 4])
    shutil.copy(folder / "001", folder / "copy")
    (folder / "notes.txt").write_text("not DICOM")
    assert read_volume(folder).geometry.size_ijk[2] == 3


def test_slopes_of_each_slice_are_applied(write_slice: Writer) -> None:
    stored = np.full((4, 6), 1000, np.int16)
    for z, slope in ((0, 0.5), (2, 0.25)):
        path = write_slice((0, 0, z), stored, Modality="PT", RescaleSlope=slope, RescaleIntercept=0)
    volume = read_volume(path.parent)
    assert volume.voxels.dtype == np.float32 and volume.modality is Modality.PET
    assert volume.array()[:, 0, 0].tolist() == [500, 250]


def test_whole_slopes_keep_ct_in_16_bits(write_slice: Writer) -> None:
    stored = np.array([[0, 4000]], np.uint16)
    volume = read_volume(write_slice((0, 0, 0), stored, RescaleSlope=1, RescaleIntercept=-1024))
    assert volume.voxels.dtype == np.int16 and volume.voxels.ravel().tolist() == [-1024, 2976]
    wide = np.array([[0, 65535]], np.uint16)
    volume = read_volume(write_slice((0, 0, 0), wide, RescaleSlope=1, RescaleIntercept=-1024))
    assert volume.voxels.dtype == np.int32 and volume.voxels.ravel().tolist() == [-1024, 64511]


def test_monochrome1_is_inverted(write_slice: Writer) -> None:
    path = write_slice(
        (0, 0, 0), np.array([[0, 255]], np.uint8), PhotometricInterpretation="MONOCHROME1", Modality="DX"
    )
    volume = read_volume(path)
    assert volume.voxels.ravel().tolist() == [255, 0] and volume.modality is Modality.XRAY


def test_a_single_slice_takes_its_thickness(write_slice: Writer) -> None:
    assert read_volume(write_slice((0, 0, 5))).geometry.spacing_mm == (0.75, 0.5, 2.0)


def test_images_without_a_position_are_separate_volumes(write_slice: Writer) -> None:
    for _ in range(2):
        path = write_slice((0, 0, 0), Modality="US", ImagePositionPatient=None, ImageOrientationPatient=None)
    assert [s.identifier for s in list_series(path.parent)] == ["3:image=1", "3:image=2"]


def test_a_truncated_file_is_named(write_slice: Writer) -> None:
    folder = folder_of(write_slice, [0, 2, 4])
    path = folder / "001"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(VolumeError, match="001 is truncated"):
        read_volume(folder)


def test_a_header_that_claims_more_than_memory_is_refused(write_slice: Writer) -> None:
    path = write_slice((0, 0, 0), Rows=65535, Columns=65535, NumberOfFrames=1000)
    with pytest.raises(VolumeError, match="TiB"):
        read_volume(path)


def test_no_patient_name_reaches_the_volume(write_slice: Writer) -> None:
    volume = read_volume(write_slice((0, 0, 0)))
    assert "Doe" not in repr(volume.name) and all(
        "Doe" not in s.description for s in list_series(volume.source_files[0])
    )


def test_b_values_of_a_real_patient_are_told_apart(dev_data: Path) -> None:
    folder = dev_data / "prostatex_dicom" / "ProstateX-0000"
    with pytest.raises(SeriesChoiceError, match="6:b=50"):
        read_volume(folder)
    with pytest.raises(SeriesChoiceError, match="3 volumes.*6:b=50.*6:b=400.*6:b=800"):
        read_volume(folder, series="6")
    signal = [read_volume(folder, series=f"6:b={b}").voxels.mean() for b in (50, 400, 800)]
    assert signal[0] > signal[1] > signal[2]


def test_five_dynamic_series_are_five_choices(dev_data: Path) -> None:
    found = list_series(dev_data / "prostatex_dicom" / "ProstateX-0218")
    assert [s.identifier for s in found] == ["27", "28", "29", "30", "31"]


def test_jpeg_2000_slices_equal_those_of_gdcm(dev_data: Path) -> None:
    folder = dev_data / "totalseg" / "example_ct_dicom"
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array(), SimpleITK.GetArrayViewFromImage(image))
    np.testing.assert_allclose(volume.geometry.ijk_to_world[:3, 3], image.GetOrigin())


@pytest.mark.parametrize("name", ["CT", "MR_T1", "PET"])
def test_dicom_and_nifti_of_one_patient_agree(name: str, dev_data: Path) -> None:
    volume = read_volume(dev_data / "ibsi_sts_dicom" / "STS_001" / name / "image")
    same = read_volume(dev_data / "ibsi_sts" / "STS_001" / f"{name}_image.nii.gz")
    assert volume.geometry.matches(same.geometry)
    np.testing.assert_allclose(volume.array(), same.array(), atol=1e-4)


def test_an_echo_cine_has_colours_times_and_millimetres(dev_data: Path) -> None:
    volume = read_volume(dev_data / "us_dicom" / "echo_cine_30f_ybr.dcm")
    assert volume.voxels.shape == (30, 3, 1, 240, 320) and volume.modality is Modality.ULTRASOUND
    assert volume.times_s[1] == pytest.approx(0.0333, abs=1e-3)
    assert volume.geometry.spacing_mm[0] == pytest.approx(0.51, abs=0.01)


def test_an_enhanced_ct_uses_the_positions_of_its_frames(dev_data: Path) -> None:
    volume = read_volume(dev_data / "us_dicom" / "eCT_Supplemental.dcm")
    assert volume.geometry.size_ijk == (512, 512, 2) and volume.voxels.min() == -1024
    np.testing.assert_allclose(volume.geometry.ijk_to_world[:3, 2], [0, 0, -10])


@pytest.mark.parametrize("name", ["US1_UNCR", "gdcm-US-ALOKA-16", "RG3_J2KR", "JPGLosslessP14SV1_1s_1f_8b"])
def test_odd_files_are_read(name: str, dev_data: Path) -> None:
    assert read_volume(dev_data / "us_dicom" / f"{name}.dcm").voxels.std() > 1


def test_segmentations_are_no_images(dev_data: Path) -> None:
    with pytest.raises(VolumeError, match="holds no DICOM image"):
        read_volume(dev_data / "dicom_seg" / "dcmqi" / "liver.dcm")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000, DeflatedExplicitVRLittleEndian])
def test_a_file_that_claims_two_billion_frames_is_refused_at_once(syntax: UID, write_slice: Writer) -> None:
    from pydicom import dcmread
    from pydicom.encaps import encapsulate

    path = write_slice((0, 0, 0), ImagePositionPatient=None)
    good = write_slice((0, 0, 0), SeriesInstanceUID="1.2.3")
    dataset = dcmread(path)
    dataset.NumberOfFrames = 2_000_000_000
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == JPEG2000:
        dataset.PixelData = encapsulate([bytes(64)])
    dataset.save_as(path)
    start = monotonic()
    with pytest.raises(VolumeError, match="claims 2000000000 frames of 6x4 pixels"):
        read_volume(path)
    assert read_volume(path.parent).source_files == (str(good),)
    assert monotonic() - start < 5


def test_spacing_and_orientation_are_known_only_where_the_file_has_them(write_slice: Writer) -> None:
    nowhere = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    for tags, known in (
        ({}, (True, True)),
        ({"Modality": "DX", **nowhere}, (True, False)),
        ({"Modality": "DX", "PixelSpacing": None, **nowhere}, (False, False)),
        ({"PixelSpacing": None}, (False, True)),
    ):
        volume = read_volume(write_slice((0, 0, 0), **tags))
        assert (volume.has_spacing, volume.has_orientation) == known


def test_a_frame_stack_without_a_place_or_thickness_has_no_spacing(write_slice: Writer) -> None:
    pixels = np.zeros((3 * 4, 6), np.int16)
    tags = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "Rows": 4, "NumberOfFrames": 3}
    known = [read_volume(write_slice((0, 0, 0), pixels, SliceThickness=mm, **tags)) for mm in (2, None)]
    assert [v.geometry.size_ijk[2] for v in known] == [3, 3] and [v.has_spacing for v in known] == [True, False]


def test_an_echo_cine_has_spacing_but_no_orientation(dev_data: Path) -> None:
    volume = read_volume(dev_data / "us_dicom" / "echo_cine_30f_ybr.dcm", time=3)
    assert volume.has_spacing and not volume.has_orientation and not volume.at_time(0).has_orientation


def test_a_damaged_orientation_of_a_series_is_a_volume_error(write_slice: Writer) -> None:
    with pytest.raises(VolumeError, match="damaged orientation"):
        read_volume(write_slice((0, 0, 0), ImageOrientationPatient=[0, 0, 0, 0, 0, 0]))


def test_a_slope_beyond_float32_gives_infinite_values(write_slice: Writer) -> None:
    assert np.isposinf(
        read_volume(write_slice((0, 0, 0), np.ones((4, 6), np.int16), RescaleSlope="1e300")).voxels
    ).all()
