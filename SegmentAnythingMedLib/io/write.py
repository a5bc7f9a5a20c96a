"""`write_labels`: .seg.nrrd, .nii(.gz), .nrrd, .mha and DICOM SEG; `write_volume`; whole or not at all."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, OutputError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io.labels import Labels
from SegmentAnythingMedLib.io.nifti import nifti_bytes
from SegmentAnythingMedLib.io.nrrd import write_nrrd
from SegmentAnythingMedLib.io.seg_nrrd import segmentation_keys
from SegmentAnythingMedLib.replacing import replacing
from SegmentAnythingMedLib.volume import Volume

_ORTHONORMAL = 1e-4


def write_labels(path: str | os.PathLike[str], labels: Labels, *, volume: Volume | None = None) -> None:
    """Write segments in the format of the file name.

    Parameters
    ----------
    path
        ``.seg.nrrd`` keeps everything and opens in Slicer as a segmentation. ``.nii.gz``, ``.nii``, ``.nrrd`` and
        ``.mha`` are label maps: values only, no overlaps. ``.dcm`` is a DICOM SEG.
    labels
        World must be LPS.
    volume
        What was segmented. ``.dcm`` needs it with its source files; ``.seg.nrrd`` notes its grid as reference.

    Raises
    ------
    OutputError
        If the format cannot hold the labels or the file cannot be written; an older file at the path stays as it was.
    """
    suffix = _suffix(Path(path), _WRITERS)
    with replacing(path, suffix) as temporary:
        _WRITERS[suffix](temporary, labels, volume)


def check_output(path: str | os.PathLike[str], volume: Volume) -> None:
    """Refuse a place for labels before the work is done: wrong ending, missing or read-only folder, no DICOM source.

    Raises
    ------
    OutputError
        With what to choose instead.
    """
    path = Path(path)
    suffix = _suffix(path, _WRITERS)
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or path.is_dir():
        raise OutputError(f"{path} cannot be written: choose a name in a folder that exists and is not read-only.")
    if suffix == ".dcm":
        from SegmentAnythingMedLib.io.dicom_seg_writer import check_source

        check_source(volume)


def write_volume(path: str | os.PathLike[str], volume: Volume, time: int = 0) -> None:
    """Write one time point of a volume of one channel as ``.nii.gz``, ``.nii`` or ``.nrrd``; world must be LPS.

    Raises
    ------
    OutputError
        If the format cannot hold it or the file cannot be written; an older file at the path stays as it was.
    """
    suffix = _suffix(Path(path), (".nii.gz", ".nii", ".nrrd"))
    if volume.channel_count != 1:
        raise OutputError(f"{path} can hold one channel, the volume has {volume.channel_count}.")
    array = volume.array(time)
    if array.dtype.str[1:] in ("b1", "f2"):
        array = array.astype(np.uint8 if array.dtype == np.bool_ else np.float32)
    with replacing(path, suffix) as temporary:
        if suffix == ".nrrd":
            with open(temporary, "wb") as stream:
                write_nrrd(stream, array[np.newaxis], volume.geometry, {})
        else:
            _write_nifti_array(temporary, array, volume.geometry)


def _suffix(path: Path, known: Iterable[str]) -> str:
    suffix = next((s for s in known if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise OutputError(f"{path.name} has no format that can be written: end its name in {', '.join(known)}.")
    return suffix


def _write_segmentation(path: Path, labels: Labels, volume: Volume | None) -> None:
    layers, places = labels.layered()
    reference = labels.geometry if volume is None else volume.geometry
    with open(path, "wb") as stream:
        write_nrrd(stream, layers, labels.geometry, segmentation_keys(labels, layers, places, reference))


def _write_nrrd_map(path: Path, labels: Labels, volume: Volume | None) -> None:
    with open(path, "wb") as stream:
        write_nrrd(stream, _label_map(labels)[np.newaxis], labels.geometry, {})


def _write_nifti(path: Path, labels: Labels, volume: Volume | None) -> None:
    _write_nifti_array(path, _label_map(labels), labels.geometry)


def _write_nifti_array(path: Path, array: np.ndarray, geometry: VolumeGeometry) -> None:
    try:
        data = nifti_bytes(array, geometry)
    except GeometryError as error:
        raise OutputError(str(error)) from error
    with open(path, "wb") as stream:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=3, mtime=0) as packed:
                packed.write(data)
        else:
            stream.write(data)


def _write_mha(path: Path, labels: Labels, volume: Volume | None) -> None:
    """MetaImage written here: ITK's writer prints to the terminal when the disk is full."""
    geometry, array = labels.geometry, _label_map(labels)
    packer = zlib.compressobj(3)
    packed = [packer.compress(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<"))) for plane in array]
    packed.append(packer.flush())

    def numbers(values: np.ndarray) -> str:
        return " ".join(repr(float(value)) for value in values)

    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(sum(map(len, packed))),
        "TransformMatrix": numbers(_orthonormal_directions(geometry).T.ravel()),
        "Offset": numbers(geometry.ijk_to_world[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": numbers(geometry.spacing_mm),
        "DimSize": " ".join(str(n) for n in geometry.size_ijk),
        "ElementType": "MET_UCHAR" if array.itemsize == 1 else "MET_USHORT",
        "ElementDataFile": "LOCAL",
    }
    with open(path, "wb") as stream:
        stream.write("".join(f"{key} = {value}\n" for key, value in header.items()).encode())
        stream.writelines(packed)


def _write_dicom(path: Path, labels: Labels, volume: Volume | None) -> None:
    from SegmentAnythingMedLib.io.dicom_frames import quiet_pydicom
    from SegmentAnythingMedLib.io.dicom_seg_writer import dicom_seg

    segmentation = dicom_seg(labels, volume)
    with quiet_pydicom():
        segmentation.save_as(path)


_WRITERS: dict[str, Callable[[Path, Labels, Volume | None], None]] = {
    ".seg.nrrd": _write_segmentation,
    ".nii.gz": _write_nifti,
    ".nii": _write_nifti,
    ".nrrd": _write_nrrd_map,
    ".mha": _write_mha,
    ".dcm": _write_dicom,
}


def _label_map(labels: Labels) -> np.ndarray:
    """(K, J, I) uint8 or uint16 of all segments."""
    layers, places = labels.layered()
    if layers.shape[0] > 1:
        covered = [s.name for s, (layer, _) in zip(labels.segments, places, strict=True) if layer > 0]
        raise OutputError(
            f"The segment {covered[0]!r} overlaps another, which a label map cannot hold: write .seg.nrrd."
        )
    return layers[0]


def _orthonormal_directions(geometry: VolumeGeometry) -> np.ndarray:
    directions = geometry.ijk_to_world[:3, :3] / geometry.spacing_mm
    if np.abs(directions.T @ directions - np.eye(3)).max() > _ORTHONORMAL:
        raise OutputError("MetaImage cannot hold a sheared grid (tilted gantry): write .seg.nrrd, .nrrd or .nii.gz.")
    return directions
