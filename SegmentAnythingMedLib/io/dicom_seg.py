"""DICOM SEG: binary, fractional and label-map segmentations, overlapping and sparse ones included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io.dicom_frames import damage, quiet_pydicom
from SegmentAnythingMedLib.io.labels import Labels, Segment, default_color
from SegmentAnythingMedLib.io.voxels import check_memory

if TYPE_CHECKING:
    from pydicom import Dataset

_CONTEXT = "Segmentation category and type - DICOM master list"
_ANATOMY = "Anatomic codes - DICOM master list"
_OFF_GRID = 0.1
_WHITE_D65 = np.array([0.950456, 1.0, 1.088754])
_RGB_FROM_XYZ = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560],
                          [0.0556434, -0.2040259, 1.0572252]])  # fmt: skip


def read_dicom_seg(dataset: Dataset, path: Path, reference: VolumeGeometry | None = None) -> Labels:
    """Segments on the reference (LPS) if all frames are slices of it, else on the smallest grid that holds all frames.

    A file leaves empty slices out, so the distance and the tilt of slices are certain only with the reference.
    Fractional segmentations are cut at half of MaximumFractionalValue.

    Raises
    ------
    VolumeError
        If frames are damaged, not parallel, have no position or no regular spacing.
    """
    try:
        with quiet_pydicom():
            geometry, slices = _on_reference(dataset, reference) or _grid(dataset, path)
            frames = _frames(dataset, path, len(slices))
            if dataset.SegmentationType == "LABELMAP":
                return Labels(geometry, _from_label_map(dataset, frames, slices, geometry, path))
            return Labels(geometry, _from_segment_frames(dataset, frames, slices, geometry, path))
    except damage() as error:
        raise VolumeError(f"{path.name} lacks what a DICOM SEG needs ({error}): export it again.") from error


def _frames(dataset: Dataset, path: Path, count: int) -> np.ndarray:
    from pydicom.pixels import pixel_array

    size = f"{dataset.Columns}x{dataset.Rows}x{count}"
    check_memory(path, size, count * int(dataset.Rows) * int(dataset.Columns) * (int(dataset.BitsAllocated) + 7) // 8)
    try:
        return pixel_array(dataset).reshape(count, dataset.Rows, dataset.Columns)
    except (*damage(), RuntimeError, ImportError) as error:
        raise VolumeError(f"{path.name} is truncated or its pixels cannot be decoded: export it again.") from error


def _on_reference(dataset: Dataset, reference: VolumeGeometry | None) -> tuple[VolumeGeometry, np.ndarray] | None:
    """The reference and the slice of each frame, None unless each frame is exactly one of its slices."""
    size = (int(dataset.Columns), int(dataset.Rows))
    if reference is None or reference.size_ijk[:2] != size:
        return None
    corners = np.array([[0, 0], [size[0] - 1, 0], [0, size[1] - 1]])
    slices = []
    for axes, spacing, position in _planes(dataset):
        along_i, along_j = axes[:3] * spacing[1], axes[3:] * spacing[0]
        ijk = reference.ijk_from_world(position + corners[:, :1] * along_i + corners[:, 1:] * along_j)
        index = int(np.rint(ijk[0, 2]))
        expected = np.column_stack([corners, [index] * 3])
        if np.abs(ijk - expected).max() > _OFF_GRID or not 0 <= index < reference.size_ijk[2]:
            return None
        slices.append(index)
    return reference, np.array(slices)


def _planes(dataset: Dataset) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Directions (6,), spacing between rows and columns (2,) and position (3,) of each frame, LPS mm."""
    shared = dataset.SharedFunctionalGroupsSequence[0]

    def get(group: Dataset, sequence: str, keyword: str) -> np.ndarray:
        return np.array((group if sequence in group else shared)[sequence][0][keyword].value, dtype=np.float64)

    return [
        (
            get(group, "PlaneOrientationSequence", "ImageOrientationPatient"),
            get(group, "PixelMeasuresSequence", "PixelSpacing"),
            get(group, "PlanePositionSequence", "ImagePositionPatient"),
        )
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]


def _grid(dataset: Dataset, path: Path) -> tuple[VolumeGeometry, np.ndarray]:
    """Grid in LPS, and the slice of each frame."""
    shared, groups = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence
    measures = (shared if "PixelMeasuresSequence" in shared else groups[0]).PixelMeasuresSequence[0]
    planes = _planes(dataset)
    axes, (row_spacing, column_spacing), _ = planes[0]
    if max(np.abs(other - axes).max() for other, _, _ in planes) > 1e-3:
        raise VolumeError(f"{path.name} has frames of several orientations, which is no volume.")
    positions = np.array([position for _, _, position in planes])
    normal = np.cross(axes[:3], axes[3:])
    depths = positions @ normal
    distinct = np.unique(np.round(depths, 2))
    step = abs(float(measures.get("SpacingBetweenSlices") or 0)) or float(np.diff(distinct).min(initial=np.inf))
    if not np.isfinite(step):
        step = float(measures.get("SliceThickness") or 1.0)
    slices = (depths - depths.min()) / step
    if np.abs(slices - np.rint(slices)).max() > _OFF_GRID:
        # some writers put the thickness where the distance belongs
        step = float(np.diff(distinct).min())
        slices = (depths - depths.min()) / step
        if np.abs(slices - np.rint(slices)).max() > _OFF_GRID:
            raise VolumeError(f"{path.name} has frames at uneven distances (about {step:.2f} mm): it is no volume.")
    slices = np.rint(slices).astype(int)
    first, last = int(np.argmin(slices)), int(np.argmax(slices))
    displacement = normal * step if slices[last] == 0 else (positions[last] - positions[first]) / slices[last]
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([axes[:3] * column_spacing, axes[3:] * row_spacing, displacement, positions[first]])
    return VolumeGeometry(matrix, (int(dataset.Columns), int(dataset.Rows), int(slices[last]) + 1)), slices


def _from_label_map(
    dataset: Dataset, frames: np.ndarray, slices: np.ndarray, geometry: VolumeGeometry, path: Path
) -> tuple[Segment, ...]:
    check_memory(path, "x".join(map(str, geometry.size_ijk)), int(np.prod(geometry.size_ijk)) * frames.dtype.itemsize)
    layer = np.zeros(geometry.shape_kji, frames.dtype)
    layer[slices] = frames
    palette = _palette(dataset)
    return tuple(
        _segment(item, layer, int(item.SegmentNumber), palette.get(int(item.SegmentNumber)))
        for item in dataset.SegmentSequence
        if int(item.SegmentNumber) != 0  # background
    )


def _from_segment_frames(
    dataset: Dataset, frames: np.ndarray, slices: np.ndarray, geometry: VolumeGeometry, path: Path
) -> tuple[Segment, ...]:
    shared, groups = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence
    identified = [g if "SegmentIdentificationSequence" in g else shared for g in groups]
    numbers = np.array([int(g.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for g in identified])
    threshold = 0.5 * float(dataset.get("MaximumFractionalValue") or 1)
    claimed = int(np.prod(geometry.size_ijk)) * len(dataset.SegmentSequence)
    check_memory(path, "x".join(map(str, geometry.size_ijk)), claimed)
    segments = []
    for item in dataset.SegmentSequence:
        layer = np.zeros(geometry.shape_kji, np.uint8)
        for frame in np.flatnonzero(numbers == int(item.SegmentNumber)):
            layer[slices[frame]] |= frames[frame] >= threshold
        segments.append(_segment(item, layer, 1, None))
    return tuple(segments)


def _segment(item: Dataset, layer: np.ndarray, value: int, palette: tuple[float, ...] | None) -> Segment:
    number = int(item.SegmentNumber)
    lab = item.get("RecommendedDisplayCIELabValue")
    color = rgb_from_dicom_lab(lab) if lab else palette or default_color(number)
    return Segment(str(item.get("SegmentLabel") or f"Segment {number}"), layer, value, color, _terminology(item))


def _palette(dataset: Dataset) -> dict[int, tuple[float, ...]]:
    """Colour of each value of a label map that has a palette."""
    if dataset.get("PhotometricInterpretation") != "PALETTE COLOR":
        return {}
    from pydicom.pixels import apply_color_lut

    values = np.array([int(item.SegmentNumber) for item in dataset.SegmentSequence], np.uint16)
    colors = apply_color_lut(values[np.newaxis], dataset)[0]
    return {
        int(v): tuple(float(c) / np.iinfo(colors.dtype).max for c in rgb) for v, rgb in zip(values, colors, strict=True)
    }


def _terminology(item: Dataset) -> str:
    """Slicer's terminology entry from the segment's codes."""

    def code(owner: Dataset | None, keyword: str) -> tuple[str, Dataset | None]:
        items = owner.get(keyword) if owner is not None else None
        if not items:
            return "^^", None
        first = items[0]
        value = first.get("CodeValue") or first.get("LongCodeValue") or first.get("URNCodeValue") or ""
        return f"{first.get('CodingSchemeDesignator', '')}^{value}^{first.get('CodeMeaning', '')}", first

    category, _ = code(item, "SegmentedPropertyCategoryCodeSequence")
    kind, kind_item = code(item, "SegmentedPropertyTypeCodeSequence")
    modifier, _ = code(kind_item, "SegmentedPropertyTypeModifierCodeSequence")
    region, region_item = code(item, "AnatomicRegionSequence")
    region_modifier, _ = code(region_item, "AnatomicRegionModifierSequence")
    return "~".join([_CONTEXT, category, kind, modifier, _ANATOMY, region, region_modifier])


def rgb_from_dicom_lab(lab: tuple[int, int, int]) -> tuple[float, float, float]:
    """RGB 0 to 1 from DICOM's CIELab in 16-bit integers (part 3, C.10.7.1.1), white D65 as dcmtk and Slicer use."""
    lightness, a, b = np.array(lab, dtype=float) / 65535 * [100, 255, 255] - [0, 128, 128]
    base = (lightness + 16) / 116 + np.array([a / 500, 0, -b / 200])
    xyz = _WHITE_D65 * np.where(base > 6 / 29, base**3, 3 * (6 / 29) ** 2 * (base - 4 / 29))
    linear = np.clip(_RGB_FROM_XYZ @ xyz, 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(round(float(c), 4) for c in rgb)


def dicom_lab_from_rgb(rgb: tuple[float, float, float]) -> tuple[int, int, int]:
    """The inverse of `rgb_from_dicom_lab`."""
    color = np.array(rgb, dtype=float)
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    ratio = np.linalg.solve(_RGB_FROM_XYZ, linear) / _WHITE_D65
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
    scaled = (lab + [0, 128, 128]) / [100, 255, 255] * 65535
    return tuple(int(v) for v in np.clip(np.rint(scaled), 0, 65535))
