"""DICOM folders: which volumes they hold, and reading one of them."""

from __future__ import annotations

import os
from pathlib import Path

from SegmentAnythingMedLib.errors import GeometryError, SeriesChoiceError, VolumeError
from SegmentAnythingMedLib.io.dicom_frames import Frame, file_frames
from SegmentAnythingMedLib.io.dicom_pixels import read_voxels
from SegmentAnythingMedLib.io.dicom_series import Series, sorted_into_series, stacked, times_of
from SegmentAnythingMedLib.io.images import chosen_component, file_stem
from SegmentAnythingMedLib.volume import Modality, Volume

__all__ = ["Series", "list_series", "read_dicom"]

_MODALITIES = {
    "CT": Modality.CT,
    "MR": Modality.MR,
    "PT": Modality.PET,
    "US": Modality.ULTRASOUND,
    "IVUS": Modality.ULTRASOUND,
    **dict.fromkeys(("CR", "DX", "MG", "XA", "RF", "RG", "PX", "IO"), Modality.XRAY),
}
_LISTED = 12


def list_series(folder: str | os.PathLike[str]) -> tuple[Series, ...]:
    """Every volume in a folder and its subfolders (or in one file), by series number; () if there is none.

    Images of one series are split by size, orientation and pixel spacing, and where several lie at one position by
    b-value, echo time and image type. What is left at one position are time points.

    Raises
    ------
    VolumeError
        If there is nothing at the path.
    """
    folder = Path(folder)
    if not folder.exists():
        raise VolumeError(f"{folder} does not exist: check the path.")
    if folder.is_file():
        return sorted_into_series(file_frames(folder, force=True))
    frames: list[Frame] = []
    for directory, subfolders, names in os.walk(folder):
        subfolders.sort()
        for name in sorted(names):
            if name != "DICOMDIR" and (Path(directory) / name).is_file():
                frames += file_frames(Path(directory) / name)
    return sorted_into_series(frames)


def read_dicom(path: Path, series: str | None, time: int | None = None, component: int | None = None) -> Volume:
    """The only volume at a path, or the chosen one.

    Raises
    ------
    SeriesChoiceError
        If there are several and ``series`` names none or more than one of them.
    VolumeError
        If there is none, or it is incomplete or damaged.
    GeometryError
        If there is no such time point.
    """
    chosen = _chosen(list_series(path), series, path)
    first = chosen.frames[0]
    if "MOSAIC" in first.image_type:
        raise VolumeError(f"Series {chosen.identifier} is a Siemens mosaic: convert it to NIfTI with dcm2niix first.")
    try:
        geometry, points = stacked(chosen)
    except GeometryError as error:
        raise VolumeError(f"Series {chosen.identifier} has a damaged orientation, export it again: {error}") from error
    times_s = times_of(points)
    if time is not None:
        if not 0 <= time < len(points):
            raise GeometryError(f"Time point {time} does not exist: valid are 0 to {len(points) - 1}.")
        points, times_s = points[time : time + 1], times_s[time : time + 1]
    voxels = chosen_component(read_voxels(points), component, path)
    is_flat = geometry.size_ijk[2] == 1
    color = Modality.COLOR if voxels.shape[1] == 3 else Modality.UNKNOWN
    return Volume(
        voxels,
        geometry,
        _MODALITIES.get(chosen.modality, color),
        first.description
        or (f"{first.modality} {first.series_number}".strip() if first.series_number else file_stem(path)),
        times_s,
        tuple(dict.fromkeys(frame.path for point in points for frame in point)),
        has_spacing=first.has_spacing and (is_flat or bool(first.position) or first.has_thickness),
        has_orientation=bool(first.position),
    )


def _chosen(found: tuple[Series, ...], wanted: str | None, path: Path) -> Series:
    if not found:
        where = f"The folder {path.name}" if path.is_dir() else path.name
        raise VolumeError(f"{where} holds no DICOM image: give an image file, a DICOM file or a folder of DICOM files.")
    fitting = found
    if wanted is not None:
        fitting = [s for s in found if s.identifier == wanted] or [s for s in found if wanted in s.names]
    if len(fitting) == 1:
        return fitting[0]
    choices = tuple((s.identifier, s.description) for s in (fitting or found))
    listed = "; ".join(f"{identifier} ({description})" for identifier, description in choices[:_LISTED])
    more = f"; and {len(choices) - _LISTED} more" if len(choices) > _LISTED else ""
    start = f"There is no series {wanted!r}" if not fitting else f"{path.name} holds {len(choices)} volumes"
    raise SeriesChoiceError(f"{start}; choose one with --series: {listed}{more}.", choices)
