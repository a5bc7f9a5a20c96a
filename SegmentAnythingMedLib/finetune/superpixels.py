"""Pseudo-structures on unlabelled slices: regions that stay the same while a threshold moves.

These are maximally stable extremal regions (Matas et al., Image and Vision Computing 2004) in three dimensions: bones,
marrow, muscles, vessels, fat pads, bright or dark against all that surrounds them, followed through the slices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.finetune.real_stacks import RealStacks
from SegmentAnythingMedLib.finetune.stack import Stack

_LEAST, _MOST = 40, 0.35  # of its largest slice: pixels, share of the slice
_VARIATION = 0.9  # of its volume, between one threshold lower and one higher
_MANY = 40


class SuperpixelStacks:
    """Crops of the sarcoma patients' CT and MR with regions outside the tumours as structures.

    Parameters
    ----------
    folder, split
        As `RealStacks` takes them.
    """

    def __init__(self, folder: Path | None = None, split: str = "train", seed: int = 0) -> None:
        self._stacks = RealStacks(folder, split, ("sts",), seed)

    def draw(self, rng: np.random.Generator, depth: int = 12, size: int = 192) -> Stack:
        """A random crop with at least one region."""
        for _ in range(30):
            stack = self._stacks.draw(rng, depth, size)
            if stack.kind == "PET":
                continue
            labels = stable_regions(
                stack.pixels(), thresholds=int(rng.integers(12, 26)), opening=int(rng.integers(1, 4)),
                avoid=stack.labels > 0,
            )  # fmt: skip
            if labels.any():
                return Stack(stack.image, labels, stack.spacing_mm, stack.kind, "superpixel")
        raise SegmentAnythingMedError(f"No region was found in crops of {depth} slices of {size} pixels: enlarge them.")


def stable_regions(
    pixels: np.ndarray, thresholds: int = 18, opening: int = 1, avoid: np.ndarray | None = None
) -> np.ndarray:
    """Regions of a stack.

    Parameters
    ----------
    pixels
        (D, H, W) float32 from 0 to 1.
    thresholds
        Grey values tried; more of them finds fainter regions.
    opening
        Pixels by which bridges are cut.
    avoid
        (D, H, W) bool: regions that touch it with more than a twentieth of themselves are left out.

    Returns
    -------
    (D, H, W) uint8, 0 where there is no region.
    """
    smooth = ndimage.gaussian_filter(pixels, (0.4, 0.8, 0.8))
    # Half the thresholds evenly over the grey scale, half where most voxels are: bones, and muscles beside muscles.
    shares = np.linspace(5, 99, thresholds // 2)
    spread = np.linspace(*np.percentile(smooth, [2, 99.5]), thresholds - len(shares) + 2)[1:-1]
    levels = np.unique(np.concatenate([spread, np.percentile(smooth, shares)]))
    found: list[tuple[float, tuple[slice, ...], np.ndarray]] = []
    found += _stable(smooth, levels, opening)
    found += _stable(-smooth, -levels[::-1], opening)
    labels = np.zeros(pixels.shape, np.uint8)
    number = 0
    for _, where, region in sorted(found, key=lambda entry: entry[0]):
        voxels = region.sum()
        taken = (labels[where] > 0) & region
        if number >= _MANY or taken.sum() > 0.05 * voxels:
            continue
        if avoid is not None and (avoid[where] & region).sum() > 0.05 * voxels:
            continue
        number += 1
        labels[where][region & ~taken] = number
    return labels


def _stable(image: np.ndarray, levels: np.ndarray, opening: int) -> list[tuple[float, tuple[slice, ...], np.ndarray]]:
    """(variation, box, mask in it) of the regions brighter than their surroundings."""
    disc = np.hypot(*np.mgrid[-opening : opening + 1, -opening : opening + 1]) <= opening + 0.3
    maps, counts = [], []
    for level in levels:
        # An opening keeps the regions of a higher threshold inside those of a lower one.
        bright = ndimage.binary_opening(image > level, disc[np.newaxis])
        labelled, number = ndimage.label(bright)
        maps.append(labelled)
        counts.append(np.bincount(labelled.reshape(-1), minlength=number + 1))
    found = []
    for n in range(1, len(levels) - 1):
        outer = np.zeros(len(counts[n]), int)
        outer[maps[n].reshape(-1)] = maps[n - 1].reshape(-1)
        holder = np.zeros(len(counts[n + 1]), int)
        holder[maps[n + 1].reshape(-1)] = maps[n].reshape(-1)
        kernel = np.zeros(len(counts[n]), int)
        np.maximum.at(kernel, holder[1:], counts[n + 1][1:])
        variation = (counts[n - 1][outer] - kernel) / np.maximum(counts[n], 1)
        boxes = ndimage.find_objects(maps[n])
        for k in np.flatnonzero(variation < _VARIATION):
            if k and counts[n][k] >= _LEAST:
                region = maps[n][boxes[k - 1]] == k
                if _is_compact(region, boxes[k - 1], image.shape):
                    found.append((float(variation[k]), boxes[k - 1], region))
    return found


def _is_compact(region: np.ndarray, box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether the largest slice of a region is of a useful size, fills its box and mostly ends inside the picture."""
    areas = region.sum(axis=(1, 2))
    plane = region[int(areas.argmax())]
    area = areas.max()
    if not _LEAST <= area <= _MOST * shape[1] * shape[2] or area < 0.35 * plane.size:
        return False
    cut = 0
    for side, span, length in zip((0, 1), box[1:], shape[1:], strict=True):
        edges = plane if side == 0 else plane.T
        cut += edges[0].sum() * (span.start == 0) + edges[-1].sum() * (span.stop == length)
    return bool(cut < 0.7 * np.sqrt(area))
