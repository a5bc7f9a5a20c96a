"""A picture of a result for a report: the prompt's slices, three orthogonal planes, the surface, and the numbers."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, OutputError
from SegmentAnythingMedLib.geometry import AXIS_NAMES, VolumeGeometry, anatomical_axes
from SegmentAnythingMedLib.preview_panels import (
    DIM,
    INK,
    PAPER,
    SIZE_INCHES,
    WORLD_AXES,
    BoxIjk,
    Masks,
    Scene,
    SceneObject,
    amount_text,
    clean_text,
    draw_slice,
    draw_surface,
    font_families,
    length_unit,
    message,
    panel,
)
from SegmentAnythingMedLib.preview_surface import oblique_anterior_camera, render_surfaces
from SegmentAnythingMedLib.replacing import replacing
from SegmentAnythingMedLib.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 120
_SURFACE_PIXELS = 380


def check_preview_path(path: str | os.PathLike[str]) -> None:
    """Refuse a place for a picture before the work is done: wrong ending, missing or read-only folder.

    Raises
    ------
    OutputError
        With what to choose instead.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path.name} has no format that can be written: end its name in .png.")
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or path.is_dir():
        raise OutputError(f"{path} cannot be written: choose a name in a folder that exists and is not read-only.")


def render_preview(
    volume: Volume,
    masks: Masks,
    path: str | os.PathLike[str],
    *,
    time: int = 0,
    window: tuple[float, float] | None = None,
    plane_axis: int = 2,
    key_index: int = 0,
    title: str = "",
    box_ijk: BoxIjk | None = None,
) -> None:
    """Write `preview_figure` as a PNG of 1800 x 1044 pixels.

    Parameters
    ----------
    volume, masks, time, window, plane_axis, key_index, title, box_ijk
        See `preview_figure`.
    path
        File to write, see `check_preview_path`. It is replaced only when the new picture is complete.

    Raises
    ------
    OutputError
        If the name does not end in .png or the file cannot be written; what was there before is still there.
    GeometryError
        As `preview_figure`.
    """
    if Path(path).suffix.lower() != ".png":
        check_preview_path(path)
    figure = preview_figure(
        volume, masks, time=time, window=window, plane_axis=plane_axis, key_index=key_index, title=title,
        box_ijk=box_ijk,
    )  # fmt: skip
    with replacing(path) as beside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font")  # a box stands for it
        figure.savefig(beside, format="png", dpi=_DPI, facecolor=figure.get_facecolor())


def preview_figure(
    volume: Volume,
    masks: Masks,
    *,
    time: int = 0,
    window: tuple[float, float] | None = None,
    plane_axis: int = 2,
    key_index: int = 0,
    title: str = "",
    box_ijk: BoxIjk | None = None,
) -> Figure:
    """Compose the picture; radiological convention, voxels square in millimetres, nothing resampled but the surface.

    What the volume does not know is not stated: without orientation there are no letters and planes are named by
    their axis, without spacing lengths are in voxels.

    Parameters
    ----------
    volume
        World must be LPS. 2D images and RGB are fine; a tilted volume is shown along its own grid.
    masks
        Name to a (K, J, I) bool mask and its colour (r, g, b) in 0 to 1. May be empty, overlap and touch the border.
    time
        Time point that is shown.
    window
        Lowest and highest displayed value; None for the 1st to the 99th percentile of finite voxels.
    plane_axis, key_index
        The prompt's plane (0 = I, 1 = J, 2 = K) and slice.
    title
        Headline; nothing else is written about the patient.
    box_ijk
        Two inclusive corners (I, J, K) of the prompt's box, drawn on the key slice.

    Returns
    -------
    matplotlib.figure.Figure
        With an Agg canvas; no global state of matplotlib is touched.

    Raises
    ------
    GeometryError
        If the time, axis or slice does not exist or a mask has another shape than the volume.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    volume.check_time(time)
    geometry = volume.geometry
    if plane_axis not in (0, 1, 2) or not 0 <= key_index < geometry.size_ijk[plane_axis]:
        raise GeometryError(f"The volume of size {geometry.size_ijk} has no slice {key_index} along axis {plane_axis}.")
    for name, (mask, _) in masks.items():
        if mask.shape != geometry.shape_kji:
            raise GeometryError(f"The mask {name!r} is {mask.shape}, the volume is {geometry.shape_kji}.")
    scene = Scene.of(volume, masks, time, window)
    figure = Figure(figsize=SIZE_INCHES, facecolor=PAPER)
    FigureCanvasAgg(figure)
    _headline(figure, scene, title)
    _captions(figure, scene)
    if geometry.size_ijk[plane_axis] == 1:
        for column, (name, outlined) in enumerate((("Result", True), ("Image", False))):
            axes = panel(figure, (0, column), (2, 2))
            draw_slice(axes, scene, (plane_axis, 0), name, outlined=outlined, box=box_ijk)
    else:
        _slices_row(figure, scene, plane_axis, key_index, box_ijk)
        _planes_row(figure, scene, plane_axis, key_index, box_ijk)
    return figure


def _slices_row(figure: Figure, scene: Scene, axis: int, key: int, box: BoxIjk | None) -> None:
    """The prompt's plane: key slice, first, middle and last slice of the object, zoomed to it."""
    bounds = scene.bounds()
    zoom = bounds
    if bounds is None and box is not None:
        zoom = np.min(box, axis=0), np.max(box, axis=0)
    elif bounds is not None and box is not None:
        zoom = np.minimum(bounds[0], np.min(box, axis=0)), np.maximum(bounds[1], np.max(box, axis=0))
    last = scene.geometry.size_ijk[axis] - 1
    if bounds is None or bounds[0][axis] == bounds[1][axis]:
        rows = [
            ("Key slice", key),
            ("One slice below", key - 1),
            ("One slice above", key + 1),
            ("Key slice, image", key),
        ]
    else:
        first, end = int(bounds[0][axis]), int(bounds[1][axis])
        rows = [("Key slice", key), ("First slice", first), ("Middle slice", (first + end) // 2), ("Last slice", end)]
    for column, (name, index) in enumerate(rows):
        axes = panel(figure, (0, column))
        if not 0 <= index <= last:
            message(axes, f"{name}: outside the volume")
            continue
        plain = name.endswith("image")
        shown_box = box if column == 0 else None
        draw_slice(axes, scene, (axis, index), name, outlined=not plain, box=shown_box, zoom=zoom)


def _planes_row(figure: Figure, scene: Scene, axis: int, key: int, box: BoxIjk | None) -> None:
    """Axial, coronal and sagittal through the object, and its surface."""
    center = np.array([(n - 1) / 2 for n in scene.geometry.size_ijk])
    if scene.filled:
        largest = max(scene.filled, key=lambda item: item.voxels)
        center = _centroid(largest)
    elif box is not None:
        center = np.mean(np.asarray(box, float), axis=0)
        center[axis] = key
    point = np.clip(np.rint(center), 0, np.array(scene.geometry.size_ijk) - 1).astype(int)
    for column, plane in enumerate(("axial", "coronal", "sagittal")):
        depth = anatomical_axes(scene.geometry)[plane]
        name = plane.capitalize() if scene.volume.has_orientation else f"Along {AXIS_NAMES[depth]}"
        axes = panel(figure, (1, column))
        draw_slice(axes, scene, (depth, int(point[depth])), name, cross=point)
    axes = panel(figure, (1, 3))
    surface = render_surfaces(
        [(item.mask, item.color) for item in scene.filled], scene.geometry, oblique_anterior_camera(), _SURFACE_PIXELS
    )
    if surface is None:
        message(axes, "nothing segmented")
    else:
        draw_surface(axes, scene.volume, surface)


def _centroid(item: SceneObject) -> np.ndarray:
    """The object's voxel (I, J, K) nearest to its centre of mass, so that a ring is met, not its hole."""
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(item.low[::-1], item.high[::-1], strict=True))
    block = item.mask[box]
    sums = [block.sum(axis=tuple(n for n in range(3) if n != axis), dtype=np.int64) for axis in range(3)]
    middle = np.array([np.average(np.arange(s.size), weights=s) for s in sums])
    if block[tuple(np.rint(middle).astype(int))]:
        return middle[::-1] + item.low
    slices = block[int(np.rint(middle[0]))]
    if not slices.any():
        return np.argwhere(block)[0][::-1] + item.low
    inside = np.argwhere(slices)
    nearest = inside[np.argmin(((inside - middle[1:]) ** 2).sum(axis=1))]
    return np.array([nearest[1], nearest[0], np.rint(middle[0])]) + item.low


def _headline(figure: Figure, scene: Scene, title: str) -> None:
    geometry, volume = scene.geometry, scene.volume
    size = " x ".join(str(n) for n in geometry.size_ijk)
    is_flat = not volume.has_orientation and geometry.size_ijk[2] == 1
    spacing = " x ".join(f"{s:.3g}" for s in geometry.spacing_mm[: 2 if is_flat else 3])
    spacing = f"   {spacing} mm" if volume.has_spacing else "   spacing not known"
    low, high = scene.window
    size = f"{size.removesuffix(' x 1')} pixels" if is_flat else f"{size} voxels"
    parts = [f"{volume.modality.value or 'image'}   {size}{spacing}"]
    if not scene.is_color:
        parts.append(f"window {low:.4g} to {high:.4g}   (W {high - low:.4g}  L {(low + high) / 2:.4g})")
    if volume.time_count > 1:
        seconds = f"  ({volume.times_s[scene.time]:.2f} s)" if volume.times_s else ""
        parts.append(f"time {scene.time} of 0-{volume.time_count - 1}{seconds}")
    tilt = _tilt_deg(geometry)
    if tilt > 1 and volume.has_orientation:
        parts.append(f"grid tilted {tilt:.0f}°, planes follow the grid")
    figure.text(
        0.012, 0.957, _shortened(title or "Segmentation", 80), color=INK, size=15, weight="bold", va="center",
        parse_math=False, family=font_families(),
    )  # fmt: skip
    figure.text(0.988, 0.957, "     ".join(parts), color=DIM, size=9, va="center", ha="right")


def _captions(figure: Figure, scene: Scene) -> None:
    """Under the pictures: colour, name, volume, extents and slices of up to four objects."""
    if not scene.filled:
        figure.text(0.012, 0.045, "nothing segmented", color="#ff8a8a", size=12, weight="bold", va="center")
        return
    shown = scene.objects[:4]
    for n, item in enumerate(shown):
        x = 0.012 + n * 0.2455
        figure.text(x, 0.057, "\u25a0", color=item.color, size=13, va="center")
        more = f"   (+ {len(scene.objects) - 4} more)" if n == 3 and len(scene.objects) > 4 else ""
        amount = amount_text(scene.volume, item.voxels) if item.voxels else "nothing segmented"
        figure.text(
            x + 0.014, 0.058, f"{_shortened(item.name, 24)}   {amount}{more}", color=INK, size=11, weight="bold",
            va="center", parse_math=False, family=font_families(),
        )  # fmt: skip
        if item.voxels:
            figure.text(x + 0.014, 0.028, _extents(item, scene), color=DIM, size=9, va="center")


def _extents(item: SceneObject, scene: Scene) -> str:
    counts = item.high - item.low + 1
    lengths = counts * scene.geometry.spacing_mm if scene.volume.has_spacing else counts
    unit = length_unit(scene.volume)
    if not scene.volume.has_orientation:
        shown = [f"{length:.4g}" for length, size in zip(lengths, scene.geometry.size_ijk, strict=True) if size > 1]
        return f"{' x '.join(shown) or '1'} {unit}"
    depths = anatomical_axes(scene.geometry)
    sides = [
        f"{letters} {lengths[depths[name]]:.3g}"
        for name, letters in (("sagittal", "RL"), ("coronal", "AP"), ("axial", "SI"))
    ]
    slices = int(item.high[depths["axial"]] - item.low[depths["axial"]] + 1)
    return f"{'  '.join(sides)} {unit}   {slices} axial slice{'s' if slices > 1 else ''}"


def _tilt_deg(geometry: VolumeGeometry) -> float:
    """The largest angle between an IJK axis and the world axis it stands for."""
    depths = anatomical_axes(geometry)
    cosines = [abs(geometry.slice_normal_world(depths[name])[world]) for name, world in WORLD_AXES.items()]
    return float(np.degrees(np.arccos(np.clip(min(cosines), -1, 1))))


def _shortened(text: str, length: int) -> str:
    text = clean_text(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "\u2026"
