"""Simulated users, on the network's pixels: boxes that are off, lassos, clicks, scribbles, and masks that are wrong."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.models.embedded_channels import box_map, click_map, curve_map
from SegmentAnythingMedLib.models.embedded_crop import mask_box

LASSO_SHARE = 0.12
SCRIBBLE_SHARE = 0.12
_BOX_JITTER = (-0.05, 0.10)
_SLOPPY_JITTER = (-0.10, 0.20)


def enclosing_prompt(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(3, h, w) maps of a box or lasso round a (h, w) mask, sometimes with a click."""
    prompt = np.zeros((3, *mask.shape), dtype=np.float32)
    if random.random() < LASSO_SHARE:
        prompt[0] = _lasso(mask, random)
    else:
        low, high = _jittered_box(mask, random)
        prompt[0] = box_map(low, high, len(mask))
    if random.random() < 0.12:
        prompt[1] = click_map(np.array([_inside(mask, random)]), len(mask))
    return prompt


def clicking_prompt(mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, bool]:
    """(3, h, w) maps of clicks or scribbles for a (h, w) mask, and whether it is one positive click alone."""
    size = len(mask)
    prompt = np.zeros((3, size, size), dtype=np.float32)
    if random.random() < SCRIBBLE_SHARE:
        ends = np.array([_inside(mask, random) for _ in range(int(random.integers(2, 4)))])
        prompt[1] = curve_map(ends, size)
        if random.random() < 0.4:
            near = _surroundings(mask, random)
            if near.any():
                prompt[2] = curve_map(np.array([_inside(near, random) for _ in range(2)]), size)
        return prompt, False
    clicks = 1 if random.random() < 0.75 else 2
    prompt[1] = click_map(np.array([_inside(mask, random) for _ in range(clicks)]), size)
    negative = random.random() < 0.2
    if negative:
        near = _surroundings(mask, random)
        if near.any():
            prompt[2] = click_map(np.array([_inside(near, random)]), size)
    return prompt, clicks == 1 and not negative


def remembered_mask(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(h, w) float32: the true mask, in a third of cases a little wrong."""
    wrong = mask if random.random() < 0.67 else _resized(mask, random, 2)
    if random.random() < 0.15:
        wrong = np.roll(wrong, random.integers(-2, 3, 2), axis=(0, 1))
    return (wrong if wrong.any() else mask).astype(np.float32)


def wrong_mask(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(h, w) float32: a mask with parts missing, parts too much, or the wrong size."""
    wrong = _resized(mask, random, 6)
    row0, column0, row1, column1 = (int(value) for value in mask_box(mask))
    height, width = max(row1 - row0, 4), max(column1 - column0, 4)
    for _ in range(int(random.integers(0, 3))):
        center = row0 + random.uniform(0, height), column0 + random.uniform(0, width)
        radius = random.uniform(0.1, 0.4) * np.array([height, width])
        rows, columns = np.ogrid[: len(mask), : len(mask)]
        blob = ((rows - center[0]) / radius[0]) ** 2 + ((columns - center[1]) / radius[1]) ** 2 < 1
        wrong = wrong & ~blob if random.random() < 0.5 else wrong | blob
    return (wrong if wrong.any() else mask).astype(np.float32)


def _jittered_box(mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Edges of a box whose sides are off by a share of its size and up to a pixel."""
    row0, column0, row1, column1 = mask_box(mask)
    size = np.array([row1 - row0 + 1, column1 - column0 + 1])
    jitter = _SLOPPY_JITTER if random.random() < 0.15 else _BOX_JITTER
    low = np.array([row0, column0]) - 0.5 - random.uniform(*jitter, 2) * size - random.uniform(-0.7, 0.7, 2)
    high = np.array([row1, column1]) + 0.5 + random.uniform(*jitter, 2) * size + random.uniform(-0.7, 0.7, 2)
    return low, np.maximum(high, low + 1)


def _lasso(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A smooth region a little larger than the mask."""
    area = np.count_nonzero(mask)
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), random.uniform(0.06, 0.2) * np.sqrt(area) + 0.5)
    return (blurred > random.uniform(0.15, 0.45)).astype(np.float32)


def _inside(mask: np.ndarray, random: np.random.Generator) -> tuple[int, int]:
    """A pixel of a mask: mostly deep in its largest parts, sometimes near the border."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    least = 0.92 if random.random() < 0.55 else random.uniform(0.1, 0.9)
    deep = np.argwhere(depth >= least * depth.max())
    return tuple(int(value) for value in deep[random.integers(len(deep))])


def _surroundings(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    away = ndimage.distance_transform_edt(~mask)
    return (away > 1) & (away < random.uniform(4, 16))


def _resized(mask: np.ndarray, random: np.random.Generator, most: int) -> np.ndarray:
    """The mask grown or shrunk by up to ``most`` pixels, but not to nothing."""
    by = int(random.integers(1, most + 1))
    if random.random() < 0.5:
        return ndimage.binary_dilation(mask, iterations=by)
    smaller = ndimage.binary_erosion(mask, iterations=by)
    return smaller if smaller.any() else mask
