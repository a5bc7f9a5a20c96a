"""What a slice gives without any learning: Otsu, watershed, random walker and GrowCut, from a box or from clicks.

Rules see a square window, resampled to `SIZE` pixels: 1.6 times the box, or for clicks without a box 2.2 times the
*true* box (they cannot find the object's size; models have to). Seeds: an ellipse of half the box's size and all
beyond the box; or a disc at every click and the window's border.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from SegmentAnythingMedLib.benchmark.baselines import Box, ellipse
from SegmentAnythingMedLib.benchmark.growcut import BACKGROUND, OBJECT, grow_cut
from SegmentAnythingMedLib.benchmark.simulated_user import largest_component
from SegmentAnythingMedLib.models.embedded_crop import Frame

SIZE = 96
BOX_WINDOW, CLICK_WINDOW = 1.6, 2.2
_CORE = 0.5
_DISC = 2.5
_WALKER_BETA = 130.0

Click = tuple[tuple[int, int], bool]


@dataclass(frozen=True, eq=False)
class Scene:
    """A window with its seeds.

    Parameters
    ----------
    image
        (size, size) float32 from 0 to 1.
    seeds
        (size, size) int: `OBJECT`, `BACKGROUND` or 0.
    """

    image: np.ndarray
    seeds: np.ndarray


@dataclass
class SliceTask:
    """A slice with a box, clicks, or both, as rules see it.

    Parameters
    ----------
    pixels
        (rows, columns) float32 from 0 to 1.
    spacing_mm
        Size of a pixel.
    box_rc
        The box drawn, or None.
    window_rc
        Box that the window is laid round; the true one for clicks alone.
    clicks
        Pixels and whether the object is there.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float]
    box_rc: Box | None
    window_rc: Box
    clicks: list[Click] = field(default_factory=list)

    @property
    def frame(self) -> Frame:
        scale = CLICK_WINDOW if self.box_rc is None else BOX_WINDOW
        return Frame.round_box(self.window_rc, self.spacing_mm, scale, SIZE)

    def scene(self) -> Scene:
        """The window; later clicks overrule earlier seeds."""
        frame = self.frame
        seeds = np.zeros((SIZE, SIZE), dtype=np.int32)
        if self.box_rc is None:
            seeds[:2], seeds[-2:], seeds[:, :2], seeds[:, -2:] = (BACKGROUND,) * 4
        else:
            low = frame.to_crop(np.array(self.box_rc[:2]) - 0.5)
            high = frame.to_crop(np.array(self.box_rc[2:]) + 0.5)
            inner = (low[0] + 0.5, low[1] + 0.5, high[0] - 0.5, high[1] - 0.5)
            cells = np.arange(SIZE)
            rows, columns = ((cells > low[axis]) & (cells < high[axis]) for axis in (0, 1))
            seeds[~np.outer(rows, columns)] = BACKGROUND
            seeds[ellipse(inner, seeds.shape, _CORE)] = OBJECT
        for pixel, positive in self.clicks:
            center = frame.to_crop(np.array(pixel, dtype=float))
            seeds[_disc(center)] = OBJECT if positive else BACKGROUND
        return Scene(frame.take(self.pixels.astype(np.float32)), seeds)

    def solve(self, rule: Callable[[Scene], np.ndarray]) -> np.ndarray:
        """(rows, columns) bool: a rule's answer on the slice."""
        found = np.where(rule(self.scene()), 1.0, -1.0).astype(np.float32)
        return self.frame.give(found, self.pixels.shape, outside=-1.0) > 0


def otsu(scene: Scene) -> np.ndarray:
    """Otsu's threshold of what is not sure background; the side of the object's seeds, largest part, filled."""
    from skimage.filters import threshold_otsu

    inside = scene.seeds != BACKGROUND
    values, core = scene.image[inside], scene.image[scene.seeds == OBJECT]
    if not values.size or not core.size or np.ptp(values) < 1e-6:
        return inside
    above = (scene.image > threshold_otsu(values)) == (np.median(core) > threshold_otsu(values))
    return _solid(above & inside)


def grown(scene: Scene) -> np.ndarray:
    """Region growing: the connected part of Otsu's side that the object's seeds touch."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    core = scene.seeds == OBJECT
    if not core.any() or np.ptp(scene.image) < 1e-6:
        return core
    level = threshold_otsu(scene.image)
    alike = (scene.image > level) == (np.median(scene.image[core]) > level)
    alike &= scene.seeds != BACKGROUND
    labels, _ = ndimage.label(alike | core)
    return ndimage.binary_fill_holes(np.isin(labels, np.unique(labels[core])))


def watershed(scene: Scene) -> np.ndarray:
    """SimpleITK's watershed of the gradient from the seeds."""
    import SimpleITK

    gradient = SimpleITK.GradientMagnitudeRecursiveGaussian(SimpleITK.GetImageFromArray(scene.image), 1.0)
    seeds = SimpleITK.GetImageFromArray(scene.seeds.astype(np.uint8))
    found = SimpleITK.MorphologicalWatershedFromMarkers(gradient, seeds, markWatershedLine=False)
    return SimpleITK.GetArrayFromImage(found) == OBJECT


def random_walker(scene: Scene) -> np.ndarray:
    """scikit-image's random walker (Grady 2006) from the seeds."""
    from skimage.segmentation import random_walker as walk

    if not (scene.seeds == OBJECT).any() or not (scene.seeds == BACKGROUND).any() or not (scene.seeds == 0).any():
        return scene.seeds == OBJECT
    if np.ptp(scene.image) < 1e-6:
        return scene.seeds == OBJECT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that its solver stopped near 0 or 1; the labels are the same
        return walk(scene.image.astype(np.float64), scene.seeds, beta=_WALKER_BETA, mode="cg_j") == OBJECT


def growcut(scene: Scene) -> np.ndarray:
    """`grow_cut` from the seeds."""
    return grow_cut(scene.image, scene.seeds)


BOX_RULES = {
    "otsu": otsu, "watershed": watershed, "walker": random_walker, "growcut": growcut,
}  # fmt: skip
CLICK_RULES = {"grown": grown, "watershed": watershed, "walker": random_walker, "growcut": growcut}
CORRECTED_RULES = {"watershed": watershed, "walker": random_walker, "growcut": growcut}
"""Rules that take further clicks."""


def _disc(center: np.ndarray) -> np.ndarray:
    cells = np.arange(SIZE)
    return (cells[:, None] - center[0]) ** 2 + (cells - center[1]) ** 2 <= _DISC**2


def _solid(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_fill_holes(largest_component(mask)[0])
