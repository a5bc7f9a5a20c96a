"""The panels of a preview: one slice with outlines, letters and a scale bar in square millimetres, or a surface."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.geometry import AXIS_NAMES, VolumeGeometry, anatomical_axes
from SegmentAnythingMedLib.preview_surface import SurfaceImage
from SegmentAnythingMedLib.volume import Modality, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Color = tuple[float, float, float]
Masks = Mapping[str, tuple[np.ndarray, Color]]
BoxIjk = tuple[Sequence[float], Sequence[float]]

SIZE_INCHES = (15.0, 8.7)
INK, DIM, PAPER = "#f2f4f6", "#9aa4ad", "#14181c"
WORLD_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_PANEL, _ACCENT, _GOLD = "#000000", "#4fd1ff", "#ffd166"
_MARGIN_MM = 22.0
_CJK_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR",
    "Source Han Sans", "IPAexGothic", "IPAGothic", "TakaoGothic", "VL Gothic", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Yu Gothic",
    "Meiryo", "MS Gothic", "Microsoft YaHei", "SimHei", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip
_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))
# Rows and columns of each plane on the screen: whose depth axis they follow, and the sign of down or right in LPS.
_SCREEN = {
    "axial": (("coronal", 1), ("sagittal", 1)),
    "coronal": (("axial", -1), ("sagittal", 1)),
    "sagittal": (("axial", -1), ("coronal", 1)),
}


def scale_bar_mm(width_mm: float) -> float:
    """The longest of 1, 2, 5, 10, ... mm that takes at most a third of a view of this width."""
    power = 10.0 ** np.floor(np.log10(width_mm / 3))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width_mm / 3 * (1 + 1e-9)))


@dataclass(frozen=True, eq=False)
class SceneObject:
    """A mask with what the captions need; ``low`` and ``high`` are its inclusive IJK box, None if empty."""

    name: str
    mask: np.ndarray
    color: Color
    voxels: int
    low: np.ndarray | None
    high: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Scene:
    """What is drawn: one time point of a volume, its window, the masks, and each IJK axis' plane name."""

    volume: Volume
    time: int
    window: tuple[float, float]
    names: dict[int, str]
    objects: tuple[SceneObject, ...]

    @classmethod
    def of(cls, volume: Volume, masks: Masks, time: int, window: tuple[float, float] | None) -> Scene:
        names = {axis: name for name, axis in anatomical_axes(volume.geometry).items()}
        objects = []
        for name, (mask, color) in masks.items():
            found = [np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != 2 - axis))) for axis in range(3)]
            if found[0].size:
                low, high = np.array([f[0] for f in found]), np.array([f[-1] for f in found])
                objects.append(SceneObject(name, mask, tuple(color), int(np.count_nonzero(mask)), low, high))
            else:
                objects.append(SceneObject(name, mask, tuple(color), 0, None, None))
        return cls(volume, time, window or _percentiles(volume, time), names, tuple(objects))

    @property
    def geometry(self) -> VolumeGeometry:
        return self.volume.geometry

    @property
    def filled(self) -> list[SceneObject]:
        return [item for item in self.objects if item.voxels]

    @property
    def is_color(self) -> bool:
        return self.volume.channel_count == 3 and self.volume.modality is Modality.COLOR

    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Inclusive IJK box of everything that is segmented."""
        if not self.filled:
            return None
        return np.min([o.low for o in self.filled], axis=0), np.max([o.high for o in self.filled], axis=0)


def _percentiles(volume: Volume, time: int) -> tuple[float, float]:
    voxels = volume.voxels[time]
    stride = tuple(max(n // 96, 1) for n in voxels.shape[1:])
    sample = voxels[:, :: stride[0], :: stride[1], :: stride[2]].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, (1, 99)))
    if low == high:
        low, high = float(sample.min()), float(sample.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


class Orientation:
    """How slices along an IJK axis lie on the screen: axes, flips and letters of rows and columns."""

    def __init__(self, geometry: VolumeGeometry, axis: int) -> None:
        depths = anatomical_axes(geometry)
        self.name = next(name for name, depth in depths.items() if depth == axis)
        self.depth = axis
        sides = []
        for plane, sign in _SCREEN[self.name]:
            along, world = depths[plane], WORLD_AXES[plane]
            grid_sign = 1 if geometry.ijk_to_world[world, along] >= 0 else -1
            letters = _LETTERS[world][::sign]
            sides.append((along, grid_sign != sign, letters))
        (self.row, self.flip_rows, self.row_letters), (self.column, self.flip_columns, self.column_letters) = sides
        self.shape = geometry.size_ijk[self.row], geometry.size_ijk[self.column]
        self.pixel_mm = geometry.spacing_mm[self.row], geometry.spacing_mm[self.column]

    def picture(self, array: np.ndarray, index: int) -> np.ndarray:
        """Slice of a (K, J, I) array as displayed, (rows, columns)."""
        picture = array[(slice(None),) * (2 - self.depth) + (index,)]
        if self.row < self.column:
            picture = picture.T
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def position_mm(self, low_ijk: Sequence[float], high_ijk: Sequence[float]) -> tuple[float, float, float, float]:
        """Left, top, right, bottom on the screen, in mm, of an inclusive voxel box, at the voxels' outer faces."""
        spans = []
        for axis, flip, count, pixel in (
            (self.column, self.flip_columns, self.shape[1], self.pixel_mm[1]),
            (self.row, self.flip_rows, self.shape[0], self.pixel_mm[0]),
        ):
            first, last = sorted((float(low_ijk[axis]), float(high_ijk[axis])))
            span = (count - 1 - last, count - first) if flip else (first, last + 1)
            spans.append((span[0] * pixel, span[1] * pixel))
        return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def panel(figure: Figure, cell: tuple[int, int], grid: tuple[int, int] = (1, 4)) -> Axes:
    """Axes of a cell (row, column); ``grid`` (2, 2) gives two big cells over both rows."""
    big = grid[0] == 2
    columns, gap = grid[1] if big else 4, 0.006
    left, top, bottom = 0.012, 0.915, 0.085
    width = (1 - 2 * left - gap * (columns - 1)) / columns
    height = (top - bottom) if big else (top - bottom - 0.012) / 2
    y = bottom if big else top - (cell[0] + 1) * height - cell[0] * 0.012
    axes = figure.add_axes((left + cell[1] * (width + gap), y, width, height), facecolor=_PANEL)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#2a3138")
    return axes


def draw_slice(
    axes: Axes,
    scene: Scene,
    plane: tuple[int, int],
    name: str,
    *,
    outlined: bool = True,
    box: BoxIjk | None = None,
    zoom: tuple[np.ndarray, np.ndarray] | None = None,
    cross: np.ndarray | None = None,
) -> None:
    """One slice as a radiologist expects it, with outlines, letters, slice number and scale bar.

    Parameters
    ----------
    axes, scene, name
        Where, what, and the panel's title.
    plane
        Depth axis (0 = I, 1 = J, 2 = K) and slice index.
    outlined
        Whether the masks are drawn.
    box
        Two inclusive IJK corners of the prompt's box, or None.
    zoom
        Inclusive IJK box the view is fitted to with a margin; None shows the whole slice.
    cross
        IJK point where the other two planes cut this one, or None.
    """
    depth, index = plane
    screen = Orientation(scene.geometry, depth)
    rows, columns = screen.shape
    extent = (0.0, columns * screen.pixel_mm[1], rows * screen.pixel_mm[0], 0.0)
    low, high = scene.window
    if scene.is_color:
        channels = [screen.picture(scene.volume.array(scene.time, c), index) for c in range(3)]
        picture = np.clip((np.stack(channels, axis=-1).astype(np.float32) - low) / (high - low), 0, 1)
    else:
        picture = screen.picture(scene.volume.array(scene.time), index).astype(np.float32)
        picture = np.nan_to_num(picture, nan=low, posinf=high, neginf=low)
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear", aspect="auto")
    for item in scene.filled if outlined else ():
        _outline(axes, screen.picture(item.mask, index), screen.pixel_mm, item.color, extent)
    if box is not None:
        _draw_box(axes, screen.position_mm(*box))
    if cross is not None:
        left, top, right, bottom = screen.position_mm(cross, cross)
        axes.axvline((left + right) / 2, color=_ACCENT, lw=0.5, alpha=0.35)
        axes.axhline((top + bottom) / 2, color=_ACCENT, lw=0.5, alpha=0.35)
    _frame_view(axes, extent, screen.position_mm(*zoom) if zoom is not None else None)
    count = scene.geometry.size_ijk[depth] - 1
    where = f"{AXIS_NAMES[depth]} {index} of 0-{count}" if count else ""
    kind = f"{screen.name}  " if scene.volume.has_orientation and name.lower() != screen.name else ""
    _note(axes, 0.025, 0.968, name, weight="bold", va="top", size=10.5)
    if kind or where:
        _note(axes, 0.025, 0.905, f"{kind}{where}".strip(), va="top")
    if scene.volume.has_orientation and not scene.is_color:
        _edge_letters(axes, screen)
    if scene.volume.has_spacing:
        _scale_bar(axes)


def _outline(
    axes: Axes, mask: np.ndarray, pixel_mm: tuple[float, float], color: Color, extent: tuple[float, ...]
) -> None:
    if not mask.any():
        return
    fill = np.zeros((*mask.shape, 4))
    fill[mask] = (*color, 0.17)
    axes.imshow(fill, extent=extent, interpolation="nearest", aspect="auto")
    padded = np.pad(mask, 1).astype(np.float32)
    y = (np.arange(padded.shape[0]) - 0.5) * pixel_mm[0]
    x = (np.arange(padded.shape[1]) - 0.5) * pixel_mm[1]
    axes.contour(x, y, padded, levels=[0.5], colors=[color], linewidths=1.2)


def _draw_box(axes: Axes, position: tuple[float, float, float, float]) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = position
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, ec=_ACCENT, lw=1.3, ls=(0, (5, 3)), gid="box")
    )


def _frame_view(axes: Axes, extent: tuple[float, ...], focus: tuple[float, float, float, float] | None) -> None:
    """Limits in mm with square millimetres: the whole slice, or the focus with a margin."""
    left, top, right, bottom = (extent[0], extent[3], extent[1], extent[2]) if focus is None else focus
    margin = 0.0 if focus is None else max(_MARGIN_MM, 0.22 * max(right - left, bottom - top))
    if focus is not None:
        margin = min(margin, 2.5 * max(right - left, bottom - top, 4.0))
    box = axes.get_position()
    aspect = box.width * SIZE_INCHES[0] / (box.height * SIZE_INCHES[1])
    height = max(bottom - top + 2 * margin, (right - left + 2 * margin) / aspect)
    x, y = (left + right) / 2, (top + bottom) / 2
    axes.set_xlim(x - height * aspect / 2, x + height * aspect / 2)
    axes.set_ylim(y + height / 2, y - height / 2)


def _edge_letters(axes: Axes, screen: Orientation) -> None:
    left, right = screen.column_letters
    top, bottom = screen.row_letters
    places = ((0.022, 0.5, left, "left", "center"), (0.978, 0.5, right, "right", "center"),
              (0.5, 0.972, top, "center", "top"), (0.5, 0.028, bottom, "center", "bottom"))  # fmt: skip
    for x, y, letter, ha, va in places:
        _note(axes, x, y, letter, color=_GOLD, weight="bold", size=11, ha=ha, va=va).set_gid("letter")


def _scale_bar(axes: Axes) -> None:
    """A bar of a round length at the lower left, in data millimetres."""
    x0, x1 = axes.get_xlim()
    y0, y1 = axes.get_ylim()
    length = scale_bar_mm(abs(x1 - x0))
    x, y = x0 + 0.035 * (x1 - x0), y0 + 0.04 * (y1 - y0)
    axes.plot([x, x + length], [y, y], color="black", lw=5, solid_capstyle="projecting", alpha=0.7, zorder=5)
    axes.plot([x, x + length], [y, y], color=INK, lw=2.4, solid_capstyle="butt", gid="scale bar", zorder=6)
    text = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
    _note(axes, 0.035, 0.058, text, va="bottom", size=8.5).set_gid("scale text")


def draw_surface(axes: Axes, volume: Volume, surface: SurfaceImage) -> None:
    """The rendered surface with its scale bar and the directions left, anterior and superior, where they are known."""
    rows, columns = surface.rgba.shape[:2]
    extent = (0.0, columns * surface.pixel_mm, rows * surface.pixel_mm, 0.0)
    axes.imshow(surface.rgba, extent=extent, interpolation="bilinear", aspect="auto", zorder=2)
    _frame_view(axes, extent, None)
    _note(axes, 0.025, 0.968, "Surface", weight="bold", va="top", size=10.5)
    if volume.has_spacing:
        _scale_bar(axes)
    if not volume.has_orientation:
        return
    _note(axes, 0.025, 0.905, "seen from the front, left and above", va="top")
    box = axes.get_position()
    aspect = box.width * SIZE_INCHES[0] / (box.height * SIZE_INCHES[1])
    x, y = 0.86, 0.11
    for world, sign, letter in ((0, 1, "L"), (1, -1, "A"), (2, 1, "S")):
        right, down = sign * surface.camera[0, world] / aspect, sign * surface.camera[1, world]
        arrow = {"arrowstyle": "-|>", "color": _GOLD, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (x + 0.08 * right, y - 0.08 * down), (x, y), "axes fraction", arrowprops=arrow, zorder=6)
        place = {"ha": "center", "va": "center", "color": _GOLD, "weight": "bold"}
        _note(axes, x + 0.112 * right, y - 0.112 * down, letter, **place)


def message(axes: Axes, text: str) -> None:
    """A sentence instead of a picture."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, color=DIM, size=11, ha="center", va="center")


def _note(axes: Axes, x: float, y: float, text: str, **style: object) -> Text:
    """Text in axes fractions with a dark rim on a dark band, readable on any image, white and noisy ones too."""
    from matplotlib.patheffects import withStroke

    style = {"color": INK, "size": 9, **style}
    band = {"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 1.6}
    return axes.text(
        x, y, text, transform=axes.transAxes, path_effects=[withStroke(linewidth=2.5, foreground="black")], zorder=7,
        bbox=band, **style,
    )  # fmt: skip


def length_unit(volume: Volume) -> str:
    """What lengths are stated in: mm, or voxels (pixels of a picture) where the spacing is not known."""
    if volume.has_spacing:
        return "mm"
    return "pixels" if min(volume.geometry.size_ijk) == 1 else "voxels"


def amount_text(volume: Volume, voxels: int) -> str:
    """How much ``voxels`` voxels are: ml, cm2 of a picture whose thickness is not known, or just their number."""
    if not volume.has_spacing:
        return f"{voxels} {length_unit(volume)}"
    geometry = volume.geometry
    if not volume.has_orientation and geometry.size_ijk[2] == 1:
        return f"{voxels * geometry.spacing_mm[0] * geometry.spacing_mm[1] / 100:.4g} cm\u00b2"
    return f"{voxels * geometry.voxel_volume_mm3 / 1000:.4g} ml"


def clean_text(text: str) -> str:
    """One line of characters that a font can be asked for."""
    return "".join(c if c.isprintable() else " " for c in text.encode(errors="replace").decode())


@functools.cache
def font_families() -> tuple[str, ...]:
    """Fonts for what people write: matplotlib's own, then an installed one with Chinese, Japanese and Korean."""
    from matplotlib import font_manager, rcParams

    installed = set(font_manager.get_font_names())
    return (*rcParams["font.family"], *(name for name in _CJK_FONTS if name in installed))
