"""Clicks on a vessel tree: where it forks, half way along its branches, and on request at its ends.

VesSAM (2025) feeds a network with the skeleton, the bifurcations and the mid-points of a rough mask. Its clicks work
without its network: plain positive points on the skeleton, up to 16 of each kind. The rough mask is the user's, or else
what looks like tubes on the slice: Frangi's vesselness (Frangi et al. 1998) in two dimensions, the best of several
widths, above a share of its largest value. VesSAM's distances are in pixels of its own images (spurs of 20 or 50,
forks 10 and mid-points 16 apart); ours are in millimetres.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.memory.settings import setting
from SegmentAnythingMedLib.models.base import SliceImage
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.sources import clicks
from SegmentAnythingMedLib.sources.skeleton import Skeleton
from SegmentAnythingMedLib.sources.source import Given, Need, PromptSource

_WIDTHS = 4
_BLOB = 0.5
"""Frangi's beta: how far a shape may be from a line."""
_FLAT = 1e-3
"""Second derivatives below this are rounding errors of a slice that shows nothing (grey values are 0 to 1)."""


@dataclass(frozen=True)
class Source(PromptSource):
    """Forks, mid-points and ends of vessels."""

    name: ClassVar[str] = "vessel"
    sentence: ClassVar[str] = (
        "Clicks where vessels fork and half way between, on a rough mask or on what looks tubular."
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGE})

    forks: int = setting(16, "most clicks on forks", 0, 64)
    middles: int = setting(16, "most clicks half way along branches, the longest first", 0, 64)
    ends: int = setting(0, "most clicks on free ends", 0, 64)
    apart_mm: float = setting(5.0, "least distance between two clicks", 0, 100)
    spur_mm: float = setting(3.0, "free branches up to this length, plus the vessel's half width, are ignored", 0, 100)
    narrowest_mm: float = setting(1.0, "radius of the thinnest vessels, where there is no mask", 0.1, 20)
    threshold: float = setting(0.25, "share of the largest vesselness that counts, where there is no mask", 0.01, 0.99)
    dark: bool = setting(False, "vessels are darker than what is round them, where there is no mask")

    def prompts(self, given: Given) -> tuple[Prompt, ...]:
        """See `PromptSource.prompts`; with ``labels`` they are the rough mask."""
        given.check(self.needs, self.name)
        index = given.slice_to_look_at()
        spacing = given.slices.spacing_mm
        mask = given.mask_on(index) if given.labels is not None else self.tubes(given.image(index))
        if not mask.any():
            raise PromptError(f"Slice {index} shows no vessels: choose another slice or give a rough mask of them.")
        chosen = self._chosen(Skeleton.of_mask(mask, spacing, self.spur_mm), spacing)
        return clicks.points(given.slices, index, chosen)

    def tubes(self, image: SliceImage) -> np.ndarray:
        """(rows, columns) bool: what is bright (or dark) and long on a slice."""
        grey = image.pixels.mean(axis=0, dtype=np.float64) * (-1.0 if self.dark else 1.0)
        likely = np.max([vesselness(grey, self.narrowest_mm * 2**n, image.spacing_mm) for n in range(_WIDTHS)], axis=0)
        return likely >= self.threshold * likely.max() if likely.max() > 0 else np.zeros(grey.shape, bool)

    def _chosen(self, skeleton: Skeleton, spacing_mm: tuple[float, float]) -> list[tuple[int, int]]:
        """Forks, then mid-points, then ends, none too close to an earlier one; at least one."""
        branches = sorted(skeleton.branches, key=lambda branch: -branch.length_mm)
        kept: list[tuple[int, int]] = []
        middles = [branch.middle for branch in branches]
        for wanted, pixels in ((self.forks, skeleton.forks), (self.middles, middles), (self.ends, skeleton.ends)):
            kept += _spread(pixels, kept, wanted, self.apart_mm, spacing_mm)
        return kept or middles[:1] or [tuple(map(int, np.argwhere(skeleton.lines)[0]))]


def vesselness(grey: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    """(rows, columns) float64, from 0: how much a slice looks like a bright line of a radius at each pixel.

    Frangi's measure, 0 to 1, times the strongest curvature of the slice at this radius, so that radii can be compared.

    Parameters
    ----------
    grey
        (rows, columns) float64.
    radius_mm
        Sigma of the Gaussian whose second derivatives are taken.
    spacing_mm
        Size of a pixel along a row step and along a column step.
    """
    from scipy import ndimage

    step, grey = np.asarray(spacing_mm), grey - grey.mean()
    sigma = radius_mm / step
    rr, rc, cc = (
        ndimage.gaussian_filter(grey, sigma, order=order, mode="nearest")
        * radius_mm**2
        / np.prod(step ** np.array(order))
        for order in ((2, 0), (1, 1), (0, 2))
    )
    mean, spread = (rr + cc) / 2, np.hypot((rr - cc) / 2, rc)
    across, along = mean - spread, mean + spread
    swap = np.abs(along) > np.abs(across)
    across, along = np.where(swap, along, across), np.where(swap, across, along)
    strength = np.hypot(across, along)
    if strength.max() < _FLAT:
        return np.zeros(grey.shape)
    ratio = along / np.where(across == 0, 1.0, across)
    likely = np.exp(-(ratio**2) / (2 * _BLOB**2)) * (1 - np.exp(-2 * (strength / strength.max()) ** 2))
    return np.where(across < 0, likely, 0.0) * strength.max()


def _spread(
    pixels: Iterable[tuple[int, int]],
    taken: list[tuple[int, int]],
    most: int,
    apart_mm: float,
    spacing_mm: tuple[float, float],
) -> list[tuple[int, int]]:
    """The first ``most`` pixels that are no closer than ``apart_mm`` to each other and to those taken."""
    found: list[tuple[int, int]] = []
    for pixel in pixels:
        others = np.array([*taken, *found], dtype=np.float64).reshape(-1, 2)
        away = np.hypot(*((others - pixel) * np.asarray(spacing_mm)).T)
        if len(found) < most and (away >= apart_mm).all():
            found.append(pixel)
    return found
