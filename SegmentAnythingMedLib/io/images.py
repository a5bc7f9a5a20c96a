"""`read_volume`: NIfTI, NRRD, and through SimpleITK MetaImage, GIPL, PNG, JPEG, TIFF and more; DICOM elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io.nifti import is_nifti, read_nifti
from SegmentAnythingMedLib.io.nrrd import read_nrrd
from SegmentAnythingMedLib.io.voxels import Raster, check_claim, check_memory, grid, open_packed, peek, read_exactly
from SegmentAnythingMedLib.volume import Modality, Volume

if TYPE_CHECKING:
    import os

    import SimpleITK

_SUFFIXES = (".nii.gz", ".seg.nrrd", ".seq.nrrd", ".gipl.gz", ".img.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_MAX_META_HEADER = 1 << 20


def read_volume(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    time: int | None = None,
    component: int | None = None,
) -> Volume:
    """Read a volume from an image file, a DICOM file or a folder of DICOM files.

    Parameters
    ----------
    path
        NIfTI, NRRD, MetaImage, GIPL, a 2D picture, one DICOM file, or a folder that is searched with its subfolders.
    series
        DICOM only: identifier of a series as `list_series` gives it, its SeriesInstanceUID or its description.
    time
        Keep only this time point.
    component
        Keep only this value of each voxel of a file with several.

    Returns
    -------
    Volume
        World is LPS in millimetres. Directions are exactly the file's, tilted, flipped, permuted or sheared.

    Raises
    ------
    SeriesChoiceError
        If a folder holds several volumes and ``series`` does not choose one.
    VolumeError
        If there is nothing to read, the file is damaged, claims more than it can hold, or does not fit in memory.
    GeometryError
        If there is no such time point.
    """
    path = Path(path)
    if is_dicom(path):
        from SegmentAnythingMedLib.io.dicom import read_dicom

        return read_dicom(path, None if series is None else str(series), time, component)
    if series is not None:
        raise VolumeError(f"{path.name} is no DICOM file or folder: leave the series {series!r} out.")
    raster = read_raster(path)
    modality = Modality.COLOR if raster.is_color and component is None else Modality.UNKNOWN
    voxels = chosen_component(raster.voxels, component, path)
    volume = Volume(
        voxels,
        raster.geometry,
        modality,
        file_stem(path),
        raster.times_s,
        has_spacing=raster.has_spacing,
        has_orientation=raster.has_orientation,
    )
    return volume if time is None else volume.at_time(time)


def is_dicom(path: Path) -> bool:
    """Whether a path is a folder or starts like a DICOM file; `VolumeError` if there is nothing at the path."""
    if path.is_dir():
        return True
    if not path.exists():
        raise VolumeError(f"{path} does not exist: check the path.")
    return peek(path, 132)[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima")


def read_raster(path: Path) -> Raster:
    """Voxels and grid of an image file that is not DICOM."""
    head = peek(path, 400)
    if not head:
        raise VolumeError(f"{path.name} is empty or its compressed data is damaged: copy it again.")
    if is_nifti(head):
        return read_nifti(path)
    if head.startswith(b"NRRD"):
        return read_nrrd(path)
    return _read_with_simpleitk(path)


def chosen_component(voxels: np.ndarray, component: int | None, path: Path) -> np.ndarray:
    """(T, C, K, J, I) with the one chosen channel, or all if there are at most four."""
    count = voxels.shape[1]
    if component is None:
        if count > 4:
            raise VolumeError(f"{path.name} has {count} values per voxel: choose one with component=0 to {count - 1}.")
        return voxels
    if not 0 <= component < count:
        raise VolumeError(f"{path.name} has no component {component}: valid are 0 to {count - 1}.")
    return np.ascontiguousarray(voxels[:, component : component + 1])


def file_stem(path: Path) -> str:
    """File name without its (double) suffix."""
    name = path.name
    suffix = next((s for s in _SUFFIXES if name.lower().endswith(s)), path.suffix)
    return name[: len(name) - len(suffix)] or name


def _read_with_simpleitk(path: Path) -> Raster:
    import SimpleITK

    if path.suffix.lower() in (".mha", ".mhd"):
        _check_data_file(path)
    with quiet_itk():
        try:
            reader = SimpleITK.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise VolumeError(
                f"{path.name} is no image this library knows, or it is damaged: export it again."
            ) from error
        components = reader.GetNumberOfComponents()
        shape = (*reader.GetSize(), components)
        itemsize = _itemsize(reader.GetPixelID(), path)
        if ".gipl" in path.name.lower()[-8:]:
            _check_gipl(path, check_claim(path, shape, itemsize, packed=path.suffix.lower() == ".gz"))
        elif path.suffix.lower() == ".mha":
            check_claim(path, shape, itemsize, packed=b"CompressedData = True" in peek(path, 4096))
        else:
            check_memory(path, "x".join(map(str, shape)), itemsize * int(np.prod(shape, dtype=object)))
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise VolumeError(f"{path.name} is truncated or damaged: copy or export it again.") from error
    dimension = image.GetDimension()
    if dimension > 4:
        raise VolumeError(f"{path.name} has {dimension} axes: only space and time are read.")
    values = SimpleITK.GetArrayFromImage(image)
    if components == 1:
        values = values[..., np.newaxis]
    size = (*image.GetSize(), 1, 1)[:4]
    voxels = np.ascontiguousarray(np.moveaxis(values.reshape(*size[::-1], components), -1, 1))
    picture = path.suffix.lower() in _PICTURES
    is_color = components >= 3 and (picture or (components == 3 and values.dtype == np.uint8))
    if is_color or (picture and components == 2):  # without alpha
        voxels = voxels[:, : 3 if is_color else 1]
    # the resolution in a picture file is that of a print or of nothing, never that of the patient
    return Raster(
        voxels, _geometry(image, size[:3], path), is_color, has_spacing=not picture, has_orientation=not picture
    )


def _check_data_file(path: Path) -> None:
    """Refuse a MetaImage header that takes its voxels from anywhere but itself or a file beside it."""
    header = peek(path, _MAX_META_HEADER)
    found = re.search(rb"(?:^|[\r\n])\s*ElementDataFile\s*[=:]?([^\r\n]*)", header, re.IGNORECASE)
    if found is None:
        raise VolumeError(f"{path.name} names no data in its MetaImage header: it is damaged, export it again.")
    name = found[1].decode("utf-8", errors="replace").strip()
    if Path(name).name != name or set(name) & set("\\:%") or name.startswith("LIST"):
        raise VolumeError(f"{path.name} keeps its data in {name!r}: save it as one .mha file.")


def _check_gipl(path: Path, claimed: int) -> None:
    """ITK returns a truncated GIPL file as if it were whole, so its bytes are counted (after 256 of header)."""
    with open_packed(path) as stream:
        read_exactly(stream, 256 + claimed, path)


def _geometry(image: SimpleITK.Image, size_ijk: tuple[int, int, int], path: Path) -> VolumeGeometry:
    dimension = min(image.GetDimension(), 3)
    matrix = np.eye(4)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:dimension, :dimension]
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused
        matrix[:dimension, :dimension] = direction * image.GetSpacing()[:dimension]
    matrix[:dimension, 3] = image.GetOrigin()[:dimension]
    return grid(matrix, size_ijk, path)


def _itemsize(pixel_id: int, path: Path) -> int:
    import SimpleITK

    name = SimpleITK.GetPixelIDValueAsString(pixel_id)
    bits = next((b for b in (64, 32, 16, 8) if f"{b}-bit" in name), None)
    if bits is None or "complex" in name:
        raise VolumeError(f"{path.name} has voxels of type {name!r}: convert them to integers or floats.")
    return bits // 8


@contextmanager
def quiet_itk() -> Iterator[None]:
    """ITK prints warnings to the terminal; errors still come as exceptions."""
    import SimpleITK

    shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)
