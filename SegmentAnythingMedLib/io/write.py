"""`write_labels`: .seg.nrrd, .nii(.gz), .nrrd, .mha and DICOM SEG; `write_volume`; whole or not at all."""

from __future__ import annotations

import gzip
import os
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
    import SimpleITK

    directions = _orthonormal_directions(labels.geometry)
    image = SimpleITK.GetImageFromArray(_label_map(labels))
    image.SetSpacing(labels.geometry.spacing_mm)
    image.SetDirection(directions.ravel().tolist())
    image.SetOrigin(labels.geometry.ijk_to_world[:3, 3].tolist())
    try:
        SimpleITK.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError("no space left, or the folder is read-only") from error


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
