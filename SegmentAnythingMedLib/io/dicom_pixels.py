"""Pixels of DICOM files: GDCM (in SimpleITK) for compressed ones, pydicom for the rest and where GDCM cannot."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.io.dicom_frames import Frame, damage, quiet_pydicom
from SegmentAnythingMedLib.io.images import quiet_itk
from SegmentAnythingMedLib.io.voxels import check_memory, integer_type

logger = logging.getLogger(__name__)


def read_voxels(points: list[list[Frame]]) -> np.ndarray:
    """(T, C, K, J, I) of the frames [time point][slice], rescaled: integers where all slopes are whole, else float32.

    Raises
    ------
    VolumeError
        If a file is truncated, cannot be decoded, or the volume does not fit in memory.
    """
    first = points[0][0]
    dtype = _dtype([frame for point in points for frame in point])
    shape = (len(points), first.samples, len(points[0]), first.rows, first.columns)
    check_memory(Path(first.path), "x".join(map(str, shape)), int(np.prod(shape, dtype=object)) * dtype.itemsize)
    if first.inverted:
        logger.info("%s: MONOCHROME1, values are inverted so that bright is high", first.description)
    # 16 bits with an intercept may need 32, but most CT does not: widen when a plane really does
    voxels = np.empty(shape, np.int16 if dtype == np.int32 else dtype)
    places: dict[str, list[tuple[int, int, Frame]]] = {}
    for t, point in enumerate(points):
        for k, frame in enumerate(point):
            places.setdefault(frame.path, []).append((t, k, frame))
    for path, wanted in places.items():
        planes, is_rescaled = _decode(Path(path), [frame for _, _, frame in wanted])
        for t, k, frame in wanted:
            plane = _values(planes[frame.index], frame, is_rescaled, dtype)
            if voxels.dtype != dtype and integer_type(int(plane.min()), int(plane.max())) not in (np.uint8, np.int16):
                voxels = voxels.astype(dtype)
            voxels[t, :, k] = np.moveaxis(plane, -1, 0)
    return voxels


def _dtype(frames: list[Frame]) -> np.dtype:
    whole = all(float(f.slope).is_integer() and float(f.intercept).is_integer() for f in frames)
    if not whole or any(f.stored_range is None for f in frames):
        return np.dtype(np.float32)
    if frames[0].samples == 3:
        return np.dtype(np.uint8)
    ends = [end * int(f.slope) + int(f.intercept) for f in frames for end in f.stored_range]
    return integer_type(min(ends), max(ends)) or np.dtype(np.float32)


def _values(plane: np.ndarray, frame: Frame, is_rescaled: bool, dtype: np.dtype) -> np.ndarray:
    if frame.samples == 3:
        return plane if plane.dtype == np.uint8 else (plane >> 8 if plane.max() > 255 else plane).astype(np.uint8)
    if not is_rescaled and (frame.slope, frame.intercept) != (1, 0):
        # float64, so that neither 32-bit integers nor slopes such as those of PET lose digits before the final type
        plane = plane.astype(np.float64) * frame.slope + frame.intercept
    if frame.inverted and frame.stored_range is not None:
        plane = sum(end * frame.slope + frame.intercept for end in frame.stored_range) - plane.astype(np.float64)
    with np.errstate(over="ignore"):  # a value that float32 does not hold becomes infinite
        return np.rint(plane).astype(dtype) if dtype.kind in "iu" and plane.dtype.kind == "f" else plane.astype(dtype)


def _decode(path: Path, frames: list[Frame]) -> tuple[np.ndarray, bool]:
    """(F, rows, columns, samples), and whether slope and intercept are already applied."""
    from pydicom import dcmread

    try:
        with quiet_pydicom():
            dataset = dcmread(path, force=True)
    except damage() as error:
        raise VolumeError(f"{path.name} is truncated or no DICOM file: copy it again.") from error
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    one_scale = len({(f.slope, f.intercept) for f in frames}) == 1
    reasons: list[Exception] = []
    if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed and one_scale:
        try:
            return _with_gdcm(path, frames[0]), True
        except (RuntimeError, ValueError) as error:
            reasons.append(error)
    try:
        return _with_pydicom(dataset, frames[0]), False
    except (*damage(), RuntimeError, ImportError) as error:
        reasons.append(error)
    name = getattr(syntax, "name", None) or "no transfer syntax"
    raise VolumeError(
        f"{path.name} is truncated or its pixels ({name}) cannot be decoded: export it again."
    ) from reasons[-1]


def _with_gdcm(path: Path, frame: Frame) -> np.ndarray:
    import SimpleITK

    with quiet_itk():
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        values = SimpleITK.GetArrayFromImage(reader.Execute())
        samples = reader.GetNumberOfComponents()
    if samples != frame.samples:
        raise RuntimeError(f"GDCM gives {samples} samples per pixel instead of {frame.samples}")
    return values.reshape(-1, frame.rows, frame.columns, samples)


def _with_pydicom(dataset: object, frame: Frame) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, pixel_array

    with quiet_pydicom():
        values = pixel_array(dataset)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            values = apply_color_lut(values, dataset)
    return values.reshape(-1, frame.rows, frame.columns, frame.samples)
