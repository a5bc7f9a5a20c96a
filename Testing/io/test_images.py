from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from SegmentAnythingMedLib.errors import GeometryError, VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io import read_volume
from SegmentAnythingMedLib.io.nifti import nifti_bytes
from SegmentAnythingMedLib.io.nrrd import write_nrrd
from SegmentAnythingMedLib.volume import Modality


def an_itk_image(array: np.ndarray, geometry: VolumeGeometry, is_vector: bool = False) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(array, isVector=is_vector)
    image.SetSpacing(geometry.spacing_mm)
    image.SetDirection((geometry.ijk_to_world[:3, :3] / geometry.spacing_mm).ravel().tolist())
    image.SetOrigin(geometry.ijk_to_world[:3, 3].tolist())
    return image


def a_nifti_header(shape: tuple[int, ...], datatype: int = 4, bits: int = 16) -> bytearray:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *(shape + (1,) * 7)[:7])
    struct.pack_into("<2h", header, 70, datatype, bits)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return header


def test_importing_io_loads_nothing_heavy() -> None:
    code = (
        "import sys, SegmentAnythingMedLib.io as io; io.__all__; "
        "sys.exit(bool({'SimpleITK', 'pydicom', 'highdicom', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_a_volume_written_by_simpleitk_keeps_voxels_type_and_place(
    suffix: str, dtype: type, a_grid: VolumeGeometry, voxels: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / f"head{suffix}"
    SimpleITK.WriteImage(an_itk_image((voxels % 100).astype(dtype), a_grid), str(path))
    volume = read_volume(path)
    assert volume.name == "head" and volume.modality is Modality.UNKNOWN and volume.voxels.dtype == dtype
    np.testing.assert_array_equal(volume.array(), voxels % 100)
    np.testing.assert_allclose(volume.geometry.ijk_to_world, a_grid.ijk_to_world, atol=1e-5)


def test_a_sheared_nifti_that_simpleitk_refuses_keeps_its_matrix(
    a_sheared_grid: VolumeGeometry, voxels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tilted.nii"
    path.write_bytes(nifti_bytes(voxels, a_sheared_grid))
    with pytest.raises(RuntimeError):
        SimpleITK.ReadImage(str(path))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.geometry.ijk_to_world, a_sheared_grid.ijk_to_world, atol=1e-6)
    assert "sheared" in caplog.text


def test_a_sheared_nrrd_keeps_its_matrix(a_sheared_grid: VolumeGeometry, voxels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "tilted.nrrd"
    with open(path, "wb") as stream:
        write_nrrd(stream, voxels[np.newaxis], a_sheared_grid, {})
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.geometry.ijk_to_world, a_sheared_grid.ijk_to_world)
    np.testing.assert_array_equal(volume.array(), voxels)


def test_sform_and_qform_that_differ_are_resolved_as_simpleitk_does(tmp_path: Path) -> None:
    path = tmp_path / "both.nii"
    header = a_nifti_header((2, 2, 2))
    struct.pack_into("<6f", header, 256, 0, 0, 1, 5, 6, 7)
    struct.pack_into("<12f", header, 280, 1, 0, 0, 50, 0, 1, 0, 60, 0, 0, 1, 70)
    for codes in ((1, 1), (1, 2), (0, 2), (1, 0), (2, 4), (0, 0)):
        struct.pack_into("<2h", header, 252, *codes)
        path.write_bytes(bytes(header) + bytes(16))
        expected = SimpleITK.ReadImage(str(path))
        volume = read_volume(path)
        assert tuple(volume.geometry.ijk_to_world[:3, 3]) == pytest.approx(expected.GetOrigin()), codes


def test_nifti_rescaling_keeps_whole_numbers_whole(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    header = a_nifti_header((2, 1, 1))
    for slope, intercept, dtype, values in ((1, -1024, np.int16, [-1024, -24]), (0.5, 0, np.float32, [0, 500])):
        struct.pack_into("<2f", header, 112, slope, intercept)
        path.write_bytes(bytes(header) + np.array([0, 1000], "<i2").tobytes())
        volume = read_volume(path)
        assert volume.voxels.dtype == dtype and volume.voxels.ravel().tolist() == values


def test_a_big_endian_nifti_2_is_read(tmp_path: Path) -> None:
    header = bytearray(544)
    struct.pack_into(">i", header, 0, 540)
    header[4:8] = b"n+2\0"
    struct.pack_into(">2h", header, 12, 16, 32)
    struct.pack_into(">8q", header, 16, 3, 3, 1, 1, 1, 1, 1, 1)
    struct.pack_into(">8d", header, 104, 1, 2, 2, 2, 0, 0, 0, 0)
    struct.pack_into(">q", header, 168, 544)
    path = tmp_path / "two.nii"
    path.write_bytes(bytes(header) + np.array([1, 2, 3], ">f4").tobytes())
    volume = read_volume(path)
    assert volume.voxels.ravel().tolist() == [1, 2, 3] and volume.geometry.spacing_mm == (2, 2, 2)


def test_four_dimensional_files_become_time_points(tmp_path: Path) -> None:
    array = np.arange(3 * 4 * 5 * 6, dtype=np.int16).reshape(3, 4, 5, 6)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        path = tmp_path / f"cine{suffix}"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=False), str(path))
        volume = read_volume(path)
        assert volume.voxels.shape == (3, 1, 4, 5, 6)
        np.testing.assert_array_equal(volume.voxels[:, 0], array)
        np.testing.assert_array_equal(read_volume(path, time=2).array(), array[2])
        with pytest.raises(GeometryError, match="0 to 2"):
            read_volume(path, time=3)


@pytest.mark.parametrize("listed_first", [True, False])
def test_a_slicer_sequence_becomes_time_points_with_times(listed_first: bool, tmp_path: Path) -> None:
    array = np.arange(2 * 2 * 3 * 4, dtype=np.uint8).reshape(2, 2, 3, 4)
    sizes, kinds, axis = (
        ("2 4 3 2", "list domain domain domain", 0) if listed_first else ("4 3 2 2", "domain domain domain list", 3)
    )
    directions = ["(1,0,0)", "(0,1,0)", "(0,0,2)"]
    directions.insert(axis, "none")
    header = (
        f"NRRD0005\ntype: uchar\ndimension: 4\nspace: right-anterior-superior\nsizes: {sizes}\n"
        f"space directions: {' '.join(directions)}\nkinds: {kinds}\nencoding: raw\nspace origin: (1,2,3)\n"
        f"axis {axis} index type:=numeric\naxis {axis} index unit:=ms\naxis {axis} index values:=500 1500\n\n"
    )
    body = np.moveaxis(array, 0, -1) if listed_first else array
    path = tmp_path / "beat.seq.nrrd"
    path.write_bytes(header.encode() + body.tobytes())
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels[:, 0], array)
    assert volume.times_s == (0.0, 1.0) and volume.name == "beat"
    np.testing.assert_array_equal(volume.geometry.ijk_to_world[:3, 3], [-1, -2, 3])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".nrrd", ".mha", ".nii"])
def test_colour_images_become_three_channels(suffix: str, tmp_path: Path) -> None:
    array = np.zeros((2, 16, 24, 3) if suffix == ".nii" else (16, 24, 3), np.uint8)
    array[..., :16, 0] = 200
    array[..., 16:, 2] = 100
    path = tmp_path / f"photo{suffix}"
    if suffix == ".nii":
        path.write_bytes(bytes(a_nifti_header((24, 16, 2), 128, 24)) + array.tobytes())
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=True), str(path))
    volume = read_volume(path)
    assert volume.modality is Modality.COLOR and volume.channel_count == 3
    expected = np.moveaxis(array.reshape(-1, 16, 24, 3), -1, 0)
    assert np.abs(volume.voxels[0].astype(int) - expected).max() <= (30 if suffix == ".jpg" else 0)
    red = read_volume(path, component=0)
    assert red.channel_count == 1 and red.modality is Modality.UNKNOWN


def test_alpha_is_dropped(tmp_path: Path) -> None:
    array = np.full((4, 5, 4), 7, np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=True), str(tmp_path / "icon.png"))
    assert read_volume(tmp_path / "icon.png").channel_count == 3


def test_many_components_need_a_choice(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 4, 7), np.float32)
    array[..., 5] = 5
    path = tmp_path / "features.mha"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=True), str(path))
    with pytest.raises(VolumeError, match="7 values per voxel.*component=0 to 6"):
        read_volume(path)
    assert (read_volume(path, component=5).array() == 5).all()
    with pytest.raises(VolumeError, match="no component 7"):
        read_volume(path, component=7)


def test_a_detached_nrrd_is_read_but_not_from_another_folder(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((2, 3, 4), np.int16)), str(tmp_path / "a.nhdr"))
    assert read_volume(tmp_path / "a.nhdr").voxels.sum() == 24
    text = (tmp_path / "a.nhdr").read_text().replace("a.raw", "../a.raw")
    (tmp_path / "a.nhdr").write_text(text)
    with pytest.raises(VolumeError, match="save it as one"):
        read_volume(tmp_path / "a.nhdr")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".gipl", ".gipl.gz"])
def test_truncated_files_say_so(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1 if suffix == ".png" else 20, 64, 64)).astype(np.uint8)
    path = tmp_path / f"cut{suffix}"
    image = SimpleITK.GetImageFromArray(noise[0] if suffix == ".png" else noise)
    SimpleITK.WriteImage(image, str(path), suffix == ".mha")
    whole = path.read_bytes()
    for part in (0.97, 0.5, 0.001):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(VolumeError, match="copy|export"):
            read_volume(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".dcm", ".txt"])
@pytest.mark.parametrize("content", [b"", b"this is no image " * 100, b"\x1f\x8b\x08garbage" * 9])
def test_empty_and_foreign_files_are_volume_errors(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(VolumeError, match=r"x|holds no"):
        read_volume(tmp_path / f"x{suffix}")


def huge_files() -> dict[str, bytes]:
    nrrd = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 10000 10000 10000\nencoding: gzip\nendian: little\n\n"
    mha = (
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n"
        b"DimSize = 10000 10000 10000\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    return {
        "a.nii": bytes(a_nifti_header((10000, 10000, 10000))),
        "a.nii.gz": gzip.compress(bytes(a_nifti_header((10000, 10000, 10000))) + bytes(1000)),
        "a.nrrd": nrrd + gzip.compress(bytes(1000)),
        "a.mha": mha + gzip.compress(bytes(1000)),
    }


@pytest.mark.parametrize("name", huge_files())
def test_a_header_that_claims_a_terabyte_is_refused_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(huge_files()[name])
    resource = pytest.importorskip("resource", reason="POSIX only")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VolumeError, match=r"10000x10000x10000.*TiB"):
        read_volume(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_volume_larger_than_the_free_memory_is_refused(
    voxels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path))
    monkeypatch.setattr("SegmentAnythingMedLib.io.voxels.free_memory_bytes", lambda: 100)
    with pytest.raises(VolumeError, match="only 100 bytes of memory"):
        read_volume(path)


def test_a_damaged_orientation_is_a_volume_error(tmp_path: Path) -> None:
    header = a_nifti_header((1, 1, 1))
    struct.pack_into("<2h", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, float("nan"), 0)
    (tmp_path / "bad.nii").write_bytes(bytes(header) + bytes(2))
    with pytest.raises(VolumeError, match="bad.nii has a damaged orientation"):
        read_volume(tmp_path / "bad.nii")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="nothing.nii does not exist"):
        read_volume(tmp_path / "nothing.nii")
    with pytest.raises(VolumeError, match="holds no DICOM image"):
        read_volume(tmp_path)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 2, 2), np.uint8)), str(tmp_path / "a.nii"))
    with pytest.raises(VolumeError, match="no DICOM"):
        read_volume(tmp_path / "a.nii", series="3")


def test_nan_and_infinities_are_read(dev_data: Path) -> None:
    voxels = read_volume(dev_data / "itksnap" / "nan.mha").voxels
    assert not np.isfinite(voxels).all()


def test_real_nifti_and_nrrd_files_lie_where_simpleitk_puts_them(dev_data: Path) -> None:
    paths = [*dev_data.glob("sct_spine/*.nii.gz"), *dev_data.glob("pyradiomics/*"), *dev_data.glob("itksnap/*.nii.gz")]
    assert paths
    for path in paths:
        image, volume = SimpleITK.ReadImage(str(path)), read_volume(path)
        dimension = image.GetDimension()
        linear = np.reshape(image.GetDirection(), (dimension, dimension))[:3, :3] * image.GetSpacing()[:3]
        np.testing.assert_allclose(volume.geometry.ijk_to_world[:3, :3], linear, atol=1e-5)
        np.testing.assert_allclose(volume.geometry.ijk_to_world[:3, 3], image.GetOrigin()[:3], atol=1e-5)
        if image.GetNumberOfComponentsPerPixel() == 1:
            np.testing.assert_array_equal(volume.voxels.ravel(), SimpleITK.GetArrayViewFromImage(image).ravel())


def an_nrrd(*lines: str, axes: int = 3) -> bytes:
    header = ["NRRD0004", "type: uchar", f"dimension: {axes}", "sizes: " + "4 " * axes, "encoding: raw", *lines]
    return "\n".join([*header, "", ""]).encode() + bytes(4**axes)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("line skip: abc", "skips a part"),
        ("byte skip: -1", "skips a part"),
        ("spacings: 1", "damaged NRRD header"),
        ("spacings: 1 2 3 4", "damaged NRRD header"),
        ("spacings: 1e308 1 1", "damaged orientation"),
        ("space directions: (1e308,0,0) (0,1e308,0) (0,0,1e308)", "damaged orientation"),
        ("space directions: (1,0,0) (0,1,0) (0,0,nan)", "damaged orientation"),
        ("space origin: (1e400,0,0)", "damaged orientation"),
    ],
)
def test_nonsense_in_an_nrrd_header_is_a_volume_error(line: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.nrrd").write_bytes(an_nrrd(line))
    with pytest.raises(VolumeError, match=f"x.nrrd .*{sentence}"):
        read_volume(tmp_path / "x.nrrd")


@pytest.mark.parametrize(("slope", "stored", "expected"), [(1e38, 0, 0.0), (1e38, 1, 1e38), (1e38, 9, np.inf)])
def test_a_huge_slope_of_whole_numbers_is_no_error(slope: float, stored: int, expected: float, tmp_path: Path) -> None:
    header = a_nifti_header((2, 2, 2))
    struct.pack_into("<f", header, 112, slope)
    (tmp_path / "x.nii").write_bytes(bytes(header) + np.full(8, stored, "<i2").tobytes())
    np.testing.assert_allclose(read_volume(tmp_path / "x.nii").voxels, expected, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".mhd", ".mha"])
@pytest.mark.parametrize("data", ["{folder}/a.raw", "../a.raw", "sub/a.raw", "..\\a.raw", "a%03d.raw 1 10 1", "LIST"])
def test_a_metaimage_takes_no_voxels_from_another_folder(suffix: str, data: str, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(64))
    folder = tmp_path / "inner"
    folder.mkdir()
    path = folder / f"x{suffix}"
    header = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = "
    path.write_text(header + data.format(folder=tmp_path) + "\n")
    with pytest.raises(VolumeError, match="keeps its data in .*: save it as one .mha file"):
        read_volume(path)
    (folder / "a.raw").write_bytes(bytes(64))
    path.with_suffix(".mhd").write_text(header + "a.raw\n")
    assert read_volume(path.with_suffix(".mhd")).geometry.size_ijk == (4, 4, 4)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_a_picture_knows_neither_spacing_nor_orientation(suffix: str, tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((5, 6), np.uint8)), str(tmp_path / f"x{suffix}"))
    volume = read_volume(tmp_path / f"x{suffix}")
    assert not volume.has_spacing and not volume.has_orientation


def test_headers_without_directions_know_no_orientation(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(an_nrrd())
    (tmp_path / "b.nrrd").write_bytes(an_nrrd("spacings: 1 2 3"))
    (tmp_path / "c.nrrd").write_bytes(an_nrrd("space: LPS", "space directions: (1,0,0) (0,1,0) (0,0,2)"))
    (tmp_path / "d.nii").write_bytes(bytes(a_nifti_header((2, 2, 2))) + bytes(16))
    found = [read_volume(path) for path in sorted(tmp_path.iterdir())]
    assert [v.has_spacing for v in found] == [False, True, True, True]
    assert [v.has_orientation for v in found] == [False, False, True, False]
