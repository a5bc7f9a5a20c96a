"""`read_labels`: label maps, Slicer's .seg.nrrd, DICOM SEG and RTSTRUCT."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.io.images import file_stem, is_dicom, read_raster
from SegmentAnythingMedLib.io.labels import Labels, Segment, default_color, fitted
from SegmentAnythingMedLib.io.seg_nrrd import is_segmentation, segments_from
from SegmentAnythingMedLib.io.voxels import Raster
from SegmentAnythingMedLib.volume import Volume

_MAX_VALUES = 1000
"""A file with more distinct values is an image that was taken for a label map."""


def read_labels(path: str | os.PathLike[str], reference: Volume | None = None, *, time: int | None = None) -> Labels:
    """Read the segments of a file.

    Parameters
    ----------
    path
        A label map in any image format (one segment per value), a .seg.nrrd, a DICOM SEG or an RTSTRUCT.
    reference
        The volume that was labelled. Needed for RTSTRUCT, whose contours are filled on its grid. Other labels are
        placed on its grid where that needs no resampling (same voxels, flipped, permuted or cropped).
    time
        Time point of a 4D label map.

    Raises
    ------
    GeometryError
        If the labels' voxels are not those of the reference.
    VolumeError
        If the file cannot be read, is no label file, or needs a reference or a time point.
    """
    path = Path(path)
    if is_dicom(path):
        labels = _read_dicom_labels(path, reference)
    else:
        raster = read_raster(path)
        if is_segmentation(raster.keys):
            labels = Labels(raster.geometry, segments_from(raster))
        else:
            labels = _from_map(raster, path, time)
    return labels if reference is None else fitted(labels, reference.geometry)


def _read_dicom_labels(path: Path, reference: Volume | None) -> Labels:
    if path.is_dir():
        raise VolumeError(f"{path.name} is a folder: give the one file with the labels.")
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    from SegmentAnythingMedLib.io.dicom_frames import damage, quiet_pydicom
    from SegmentAnythingMedLib.io.dicom_seg import read_dicom_seg
    from SegmentAnythingMedLib.io.rtstruct import read_rtstruct

    try:
        with quiet_pydicom():
            dataset = dcmread(path)
            modality = dataset.get("Modality")
            if modality == "SEG":
                return read_dicom_seg(dataset, path, None if reference is None else reference.geometry)
            if modality == "RTSTRUCT" and reference is not None:
                return read_rtstruct(dataset, path, reference.geometry)
    except (InvalidDicomError, *damage()) as error:
        raise VolumeError(f"{path.name} is damaged or no DICOM file: copy or export it again.") from error
    if modality == "RTSTRUCT":
        raise VolumeError(f"{path.name} holds contours: give the volume they were drawn on as reference.")
    raise VolumeError(f"{path.name} holds {modality or 'no modality'}, not SEG or RTSTRUCT: it is no label file.")


def _from_map(raster: Raster, path: Path, time: int | None) -> Labels:
    voxels = raster.voxels
    if voxels.shape[0] > 1 and time is None:
        raise VolumeError(
            f"{path.name} has {voxels.shape[0]} time points: choose one with time=0 to {voxels.shape[0] - 1}."
        )
    if not 0 <= (time or 0) < voxels.shape[0]:
        raise VolumeError(f"{path.name} has no time point {time}: valid are 0 to {voxels.shape[0] - 1}.")
    point = voxels[time or 0]
    if not (point == point[:1]).all():  # NaN is caught here, too
        raise VolumeError(f"{path.name} has several differing values per voxel: it is an image, not a label map.")
    layer = point[0]
    if layer.dtype.kind == "f" and not (np.isfinite(layer).all() and (layer == np.rint(layer)).all()):
        raise VolumeError(
            f"{path.name} has values that are not whole: it is an image or a probability, threshold it first."
        )
    values = np.unique(layer)
    if len(values) > _MAX_VALUES or values[0] < 0 or values[-1] >= 1 << 31:
        raise VolumeError(
            f"{path.name} has {len(values)} values from {values[0]:g} to {values[-1]:g}: "
            "it is an image, not a label map."
        )
    layer = layer.astype(np.min_scalar_type(int(values[-1])), copy=False)
    found = [int(value) for value in values if value != 0]
    stem = file_stem(path)
    names = [stem] if len(found) == 1 else [f"{stem} {value}" for value in found]
    segments = [Segment(name, layer, value, default_color(value)) for name, value in zip(names, found, strict=True)]
    return Labels(raster.geometry, tuple(segments))
