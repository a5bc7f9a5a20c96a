"""Which painted regions an eye could find in the picture: only these are fair targets."""

from __future__ import annotations

import numpy as np

from SegmentAnythingMedLib.finetune.synthetic_fields import blur

_STEP = 2  # pixels: far enough to look across a blurred edge, near enough for thin structures
_SHARE = 0.35  # of its border that must show


def visible_regions(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """(256,) bool: regions that differ from their neighbours along a third of their border or more.

    The contrast is measured across the border, so that shading does not matter. It must exceed 1 % of the window, and
    of the noise a part that falls with the region's size (Rose's criterion: a large object is seen at less contrast).

    Parameters
    ----------
    image
        (D, H, W) float32 from 0 to 1, with noise and all.
    regions
        (D, H, W) uint8.
    """
    counts = np.zeros(65536)
    rises = np.zeros(65536)
    for first, second in (
        (np.s_[:, _STEP:], np.s_[:, :-_STEP]),
        (np.s_[:, :, _STEP:], np.s_[:, :, :-_STEP]),
    ):
        index = np.flatnonzero(regions[first] != regions[second])
        a, b = regions[first].reshape(-1)[index], regions[second].reshape(-1)[index]
        rise = image[first].reshape(-1)[index] - image[second].reshape(-1)[index]
        pair = a.astype(np.int32) * 256 + b
        counts += np.bincount(pair, minlength=65536)
        rises += np.bincount(pair, weights=rise, minlength=65536)
    counts, rises = counts.reshape(256, 256), rises.reshape(256, 256)
    shared = counts + counts.T
    contrast = np.abs(rises - rises.T) / np.maximum(shared, 1)

    fine = (image - blur(image, 4.0))[:, ::2, ::2].reshape(-1)
    coarse_regions = regions[:, ::2, ::2].reshape(-1)
    inside = np.maximum(np.bincount(coarse_regions, minlength=256), 1)
    noise = np.sqrt(np.bincount(coarse_regions, weights=fine * fine, minlength=256) / inside)
    slices = np.maximum(sum(np.bincount(plane.reshape(-1), minlength=256) > 0 for plane in regions), 1)
    side = np.sqrt(4 * inside / slices)
    needed = 0.01 + np.minimum(noise[:, None], noise[None, :]) * np.minimum(1, 8 / side)[:, None]
    seen = (shared * (contrast > needed)).sum(axis=1)
    return seen >= _SHARE * np.maximum(shared.sum(axis=1), 1)
