from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io import DEFAULT_TERMINOLOGY, Labels, check_output, read_labels, read_volume, write_labels
from SegmentAnythingMedLib.volume import Volume

LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~"
    "SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)

READ_IN_SLICER = """
import json, sys, slicer, vtk
from vtk.util.numpy_support import vtk_to_numpy
scene, storage, node = slicer.vtkMRMLScene(), slicer.vtkMRMLSegmentationStorageNode(), slicer.vtkMRMLSegmentationNode()
scene.AddNode(node); scene.AddNode(storage); storage.SetFileName(sys.argv[1])
assert storage.ReadData(node)
segmentation, found = node.GetSegmentation(), []
for n in range(segmentation.GetNumberOfSegments()):
    segment, matrix, tag = segmentation.GetNthSegment(n), vtk.vtkMatrix4x4(), vtk.reference("")
    image = segment.GetRepresentation("Binary labelmap")
    image.GetImageToWorldMatrix(matrix)
    segment.GetTag("TerminologyEntry", tag)
    values = vtk_to_numpy(image.GetPointData().GetScalars())
    found.append({"name": segment.GetName(), "color": segment.GetColor(), "terminology": str(tag),
        "voxels": int((values == segment.GetLabelValue()).sum()),
        "matrix": [[matrix.GetElement(r, c) for c in range(4)] for r in range(4)]})
reference = segmentation.GetConversionParameter("Reference image geometry")
print("RESULT" + json.dumps({"segments": found, "layers": segmentation.GetNumberOfLayers(), "reference": reference}))
"""


def two_segments(geometry: VolumeGeometry, overlap: bool = False) -> Labels:
    first, second = np.zeros(geometry.shape_kji, bool), np.zeros(geometry.shape_kji, bool)
    first[1, 1:3, 2:5] = True
    second[1 if overlap else 2, 2, 2] = True
    labels = Labels.from_masks({"liver": first, "Läsion 1": second}, geometry)
    return Labels(geometry, (replace(labels.segments[0], terminology=LIVER, color=(0.2, 0.4, 1.0)), labels.segments[1]))


def assert_same(read: Labels, written: Labels) -> None:
    np.testing.assert_allclose(read.geometry.ijk_to_world, written.geometry.ijk_to_world, atol=1e-5)
    for a, b in zip(read.segments, written.segments, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha"])
def test_labels_come_back_from_every_format_and_lie_where_simpleitk_sees_them(
    suffix: str, a_grid: VolumeGeometry, tmp_path: Path
) -> None:
    labels, path = two_segments(a_grid), tmp_path / f"out{suffix}"
    write_labels(path, labels)
    assert_same(read_labels(path), labels)
    image = SimpleITK.ReadImage(str(path))
    expected = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    np.testing.assert_allclose(a_grid.ijk_to_world[:3, :3], expected, atol=1e-5)
    np.testing.assert_allclose(a_grid.ijk_to_world[:3, 3], image.GetOrigin(), atol=1e-5)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image) == 1, labels.segments[0].mask)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".nrrd"])
def test_a_sheared_grid_is_kept(suffix: str, a_sheared_grid: VolumeGeometry, tmp_path: Path) -> None:
    labels = two_segments(a_sheared_grid)
    write_labels(tmp_path / f"out{suffix}", labels)
    assert_same(read_labels(tmp_path / f"out{suffix}"), labels)


def test_metaimage_refuses_a_sheared_grid(a_sheared_grid: VolumeGeometry, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="sheared"):
        write_labels(tmp_path / "out.mha", two_segments(a_sheared_grid))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_label_map_refuses_overlapping_segments(suffix: str, a_grid: VolumeGeometry, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"'Läsion 1' overlaps.*write \.seg\.nrrd"):
        write_labels(tmp_path / f"out{suffix}", two_segments(a_grid, overlap=True))


def test_values_of_a_label_map_are_kept(a_grid: VolumeGeometry, tmp_path: Path) -> None:
    labels = two_segments(a_grid)
    layer = np.where(labels.segments[0].mask, 300, 0)
    labels = Labels(a_grid, (replace(labels.segments[0], layer=layer, value=300), labels.segments[1]))
    write_labels(tmp_path / "out.nii.gz", labels)
    assert [s.value for s in read_labels(tmp_path / "out.nii.gz").segments] == [2, 300]


def test_names_colours_and_terminology_survive_in_a_segmentation(a_grid: VolumeGeometry, tmp_path: Path) -> None:
    labels = two_segments(a_grid, overlap=True)
    write_labels(tmp_path / "out.seg.nrrd", labels)
    read = read_labels(tmp_path / "out.seg.nrrd")
    assert_same(read, labels)
    assert read.names == ("liver", "Läsion 1") and read.segments[0].color == (0.2, 0.4, 1.0)
    assert [s.terminology for s in read.segments] == [LIVER, DEFAULT_TERMINOLOGY]


def test_an_empty_segment_is_written_to_a_segmentation(a_grid: VolumeGeometry, tmp_path: Path) -> None:
    write_labels(tmp_path / "out.seg.nrrd", Labels.from_masks({"nothing": np.zeros(a_grid.shape_kji, bool)}, a_grid))
    assert not read_labels(tmp_path / "out.seg.nrrd").mask("nothing").any()


def test_slicer_opens_a_segmentation(a_grid: VolumeGeometry, tmp_path: Path) -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    volume = Volume.from_array(np.zeros(a_grid.shape_kji), a_grid)
    write_labels(tmp_path / "out.seg.nrrd", two_segments(a_grid, overlap=True), volume=volume)
    command = [sys.executable, "-c", READ_IN_SLICER, str(tmp_path / "out.seg.nrrd")]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    result = json.loads(output.partition("RESULT")[2])
    liver, lesion = result["segments"]
    assert (liver["name"], lesion["name"]) == ("liver", "Läsion 1") and result["layers"] == 2
    assert liver["color"] == pytest.approx([0.2, 0.4, 1.0]) and liver["terminology"] == LIVER
    assert (liver["voxels"], lesion["voxels"]) == (6, 1)
    in_ras = np.diag([-1, -1, 1, 1]) @ a_grid.ijk_to_world
    np.testing.assert_allclose(liver["matrix"], in_ras, atol=1e-5)
    numbers = [float(n) for n in result["reference"].strip(";").split(";")]
    np.testing.assert_allclose(numbers, [*in_ras.ravel(), 0, 5, 0, 4, 0, 3], atol=1e-5)


def a_dicom_volume(write_slice: Callable[..., Path], sheared: float = 0.0) -> Volume:
    tags = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}
    return read_volume([write_slice((0, sheared * k, 2.5 * k), **tags) for k in range(4)][0].parent)


@pytest.mark.parametrize("sheared", [0.0, 0.6])
def test_a_dicom_segmentation_refers_to_its_source(
    sheared: float, write_slice: Callable[..., Path], tmp_path: Path
) -> None:
    import highdicom
    from pydicom import dcmread

    from SegmentAnythingMedLib.io.dicom_frames import quiet_pydicom

    volume = a_dicom_volume(write_slice, sheared)
    labels = two_segments(volume.geometry, overlap=True)
    write_labels(tmp_path / "out.dcm", labels, volume=volume)
    read = read_labels(tmp_path / "out.dcm", volume)
    assert_same(read, labels)
    assert read.names == labels.names and read.segments[0].color == pytest.approx((0.2, 0.4, 1.0), abs=2e-3)
    assert read.segments[0].terminology.split("~")[1:] == LIVER.split("~")[1:]
    with quiet_pydicom():
        seg, source = highdicom.seg.segread(tmp_path / "out.dcm"), [dcmread(p) for p in volume.source_files]
    assert (
        str(seg.PatientName) == "Müller^Jörg"
        and seg.SegmentationType == "BINARY"
        and seg.PatientID == source[0].PatientID
    )
    assert seg.StudyInstanceUID == source[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == source[0].FrameOfReferenceUID
    referenced = seg.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source[0].SeriesInstanceUID
    assert {str(uid) for _, _, uid in seg.get_source_image_uids()} == {s.SOPInstanceUID for s in source}
    by_position = {tuple(s.ImagePositionPatient): s.SOPInstanceUID for s in source}
    for group in seg.PerFrameFunctionalGroupsSequence:
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert by_position[tuple(group.PlanePositionSequence[0].ImagePositionPatient)] == uid


def test_a_dicom_segmentation_of_a_multi_frame_ct_is_on_its_frames(dev_data: Path, tmp_path: Path) -> None:
    volume = read_volume(dev_data / "us_dicom" / "eCT_Supplemental.dcm")
    mask = np.zeros(volume.geometry.shape_kji, bool)
    mask[1, 200:220, 100:150] = True
    write_labels(tmp_path / "out.dcm", Labels.from_masks({"a": mask}, volume.geometry), volume=volume)
    np.testing.assert_array_equal(read_labels(tmp_path / "out.dcm", volume).mask("a"), mask)


def test_a_dicom_segmentation_of_real_series_comes_back(dev_data: Path, tmp_path: Path) -> None:
    for series in ("ibsi_sts_dicom/STS_001/PET/image", "dicom_seg/dcmqi/ct-3slice"):
        volume = read_volume(dev_data / series)
        mask = volume.array() > np.percentile(volume.array(), 95)
        write_labels(tmp_path / "out.dcm", Labels.from_masks({"hot": mask}, volume.geometry), volume=volume)
        np.testing.assert_array_equal(read_labels(tmp_path / "out.dcm", volume).mask("hot"), mask)


def test_dicom_segmentations_say_what_they_miss(
    a_grid: VolumeGeometry, write_slice: Callable[..., Path], tmp_path: Path, dev_data: Path
) -> None:
    labels, volume = two_segments(a_grid), a_dicom_volume(write_slice)
    with pytest.raises(OutputError, match="needs the DICOM files of the source series"):
        write_labels(tmp_path / "out.dcm", labels)
    with pytest.raises(OutputError, match="on the grid of the source series"):
        write_labels(tmp_path / "out.dcm", labels, volume=volume)
    with pytest.raises(OutputError, match="no segment with a voxel"):
        empty = Labels.from_masks({"a": np.zeros(volume.geometry.shape_kji, bool)}, volume.geometry)
        write_labels(tmp_path / "out.dcm", empty, volume=volume)
    anonymous = read_volume(dev_data / "totalseg" / "example_ct_dicom")
    with pytest.raises(OutputError, match="no StudyInstanceUID"):
        mask = np.ones(anonymous.geometry.shape_kji, bool)
        write_labels(tmp_path / "out.dcm", Labels.from_masks({"a": mask}, anonymous.geometry), volume=anonymous)
    Path(volume.source_files[0]).unlink()
    with pytest.raises(OutputError, match="cannot be read any more"):
        write_labels(tmp_path / "out.dcm", two_segments(volume.geometry), volume=volume)
    assert not list(tmp_path.glob("*.dcm"))


@pytest.fixture
def a_full_disk() -> object:
    """Writes beyond 4 KiB fail, as on a full disk."""
    resource = pytest.importorskip("resource", reason="POSIX only")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_full_disk_leaves_the_old_file(suffix: str, tmp_path: Path, a_full_disk: object) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    geometry = VolumeGeometry.from_spacing((64, 64, 64))
    noise = np.random.default_rng(0).random((64, 64, 64)) > 0.5
    with pytest.raises(OutputError, match="cannot be written"):
        write_labels(path, Labels.from_masks({"noise": noise}, geometry))
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_dicom_segmentation_on_a_full_disk_leaves_the_old_file(
    write_slice: Callable[..., Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pixels = np.zeros((256, 256), np.int16)
    volume = read_volume([write_slice((0, 0, k), pixels) for k in range(4)][0].parent)
    labels = Labels.from_masks({"a": np.ones(volume.geometry.shape_kji, bool)}, volume.geometry)
    (tmp_path / "out.dcm").write_bytes(b"old")
    request.getfixturevalue("a_full_disk")
    with pytest.raises(OutputError, match="cannot be written"):
        write_labels(tmp_path / "out.dcm", labels, volume=volume)
    assert (tmp_path / "out.dcm").read_bytes() == b"old"


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".mha"])
def test_a_folder_that_cannot_be_written_is_an_output_error(
    suffix: str, a_grid: VolumeGeometry, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / f"out{suffix}", tmp_path / "nowhere" / f"out{suffix}"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_labels(path, two_segments(a_grid))


def test_an_unknown_format_lists_those_there_are(a_grid: VolumeGeometry, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.seg\.nrrd, \.nii\.gz"):
        write_labels(tmp_path / "out.stl", two_segments(a_grid))


def test_writing_logs_no_path(a_grid: VolumeGeometry, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    write_labels(tmp_path / "out.seg.nrrd", two_segments(a_grid))
    assert str(tmp_path) not in caplog.text


def test_a_full_disk_prints_nothing(tmp_path: Path, a_full_disk: object, capfd: pytest.CaptureFixture) -> None:
    geometry = VolumeGeometry.from_spacing((64, 64, 64))
    noise = np.random.default_rng(0).random((64, 64, 64)) > 0.5
    with pytest.raises(OutputError, match="cannot be written"):
        write_labels(tmp_path / "out.mha", Labels.from_masks({"noise": noise}, geometry))
    assert capfd.readouterr().err == ""


def test_pydicom_is_silent_while_a_dicom_segmentation_is_written(
    write_slice: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = read_volume(write_slice((0, 0, 0), AccessionNumber="longer than sixteen", StudyID="1" * 18))
        caplog.clear()
        labels = Labels.from_masks({"a": np.ones(volume.geometry.shape_kji, bool)}, volume.geometry)
        level = logging.getLogger("pydicom").level
        write_labels(tmp_path / "out.dcm", labels, volume=volume)
    assert not caplog.records and logging.getLogger("pydicom").level == level


def test_a_dicom_segmentation_of_an_image_without_a_place_says_so(dev_data: Path, tmp_path: Path) -> None:
    volume = read_volume(dev_data / "us_dicom" / "US1_UNCR.dcm")
    labels = Labels.from_masks({"a": np.ones(volume.geometry.shape_kji, bool)}, volume.geometry)
    with pytest.raises(OutputError, match="do not say where the image lies in the patient"):
        check_output(tmp_path / "out.dcm", volume)
    with pytest.raises(OutputError, match="do not say where the image lies in the patient"):
        write_labels(tmp_path / "out.dcm", labels, volume=volume)


def test_a_name_that_is_no_text_is_written_all_the_same(a_grid: VolumeGeometry, tmp_path: Path) -> None:
    mask = np.ones(a_grid.shape_kji, bool)
    write_labels(tmp_path / "out.seg.nrrd", Labels.from_masks({"n\udcff": mask}, a_grid))
    assert read_labels(tmp_path / "out.seg.nrrd").names == ("n?",)
