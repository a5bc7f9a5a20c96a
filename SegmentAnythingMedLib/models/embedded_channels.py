"""What the embedded network is shown: one map per kind of knowledge about a window on a slice.

Training and inference build the maps with the functions of this file. The two maps of log-likelihood ratios are
computed inside the network from these (`SegmentAnythingMedLib.finetune.embedded_likelihood`), so they are the same in
both, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.models.embedded_crop import Frame, mask_box
from SegmentAnythingMedLib.prompts import SlicePrompts
from SegmentAnythingMedLib.rasterize import curve_mask, polygon_mask

CHANNELS = (
    "image",
    "region",
    "positive",
    "negative",
    "previous",
    "key_image",
    "key_mask",
    "key_gap",
    "last_image",
    "last_mask",
    "last_gap",
)
"""Order of the network's input maps, all from 0 to 1.

``region``: 1 inside the box or lasso. ``positive``, ``negative``: bumps at clicks and along scribbles. ``previous``:
probabilities of the answer to refine. ``key_*`` and ``last_*``: two remembered slices seen through the same window,
their masks, and how far they are (`gap_value`, constant); all 0 without memories.
"""
CLICK_SIGMA = 2.5
"""Gaussian radius of a click, in network pixels."""
FARTHEST_GAP = 8
"""Slices beyond which a memory is just far."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True, eq=False)
class EmbeddedMemory:
    """The part of a slice round an object, at the slice's own resolution.

    Parameters
    ----------
    pixels
        (h, w) uint8 grey values of the part.
    mask
        (h, w) bool: the object; all False if it is not on the slice.
    start_rc
        Row and column of the part's first pixel on the slice.
    """

    pixels: np.ndarray
    mask: np.ndarray
    start_rc: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.mask.nbytes

    @property
    def is_empty(self) -> bool:
        return not self.mask.any()

    @property
    def box_rc(self) -> tuple[float, float, float, float]:
        """Box of the mask on the slice; the mask must not be empty."""
        row0, column0, row1, column1 = mask_box(self.mask)
        row, column = self.start_rc
        return row0 + row, column0 + column, row1 + row, column1 + column

    def seen_through(self, frame: Frame) -> np.ndarray:
        """(2, size, size) grey values and mask in the window of another slice of the stack."""
        center = (frame.center_rc[0] - self.start_rc[0], frame.center_rc[1] - self.start_rc[1])
        moved = Frame(center, frame.side_mm, frame.spacing_mm, frame.size)
        return moved.take(np.stack([self.pixels, self.mask])) * np.float32([[[1 / 255]], [[1]]])


def luminance(pixels: np.ndarray) -> np.ndarray:
    """(C, rows, columns) from 0 to 1 with C = 1 or 3, to (rows, columns) uint8."""
    grey = pixels[0] if len(pixels) == 1 else np.tensordot(_LUMINANCE, pixels[:3], axes=1)
    scaled = grey * 255
    return np.rint(scaled, out=scaled).astype(np.uint8)


def box_map(low_rc: np.ndarray, high_rc: np.ndarray, size: int) -> np.ndarray:
    """(size, size) float32 share of each pixel inside a rectangle given by its edges in continuous network pixels."""
    cells = np.arange(size)
    rows, columns = (
        np.clip(np.minimum(cells + 0.5, high_rc[axis]) - np.maximum(cells - 0.5, low_rc[axis]), 0, 1) for axis in (0, 1)
    )
    return np.outer(rows, columns).astype(np.float32)


def click_map(points: np.ndarray, size: int) -> np.ndarray:
    """(size, size) float32 with a bump of height 1 at each of (N, 2) network pixels."""
    bumps = np.exp(-((np.arange(size) - np.asarray(points, dtype=np.float64)[..., None]) ** 2) / (2 * CLICK_SIGMA**2))
    if not len(points):
        return np.zeros((size, size), dtype=np.float32)
    return np.einsum("ni,nj->nij", bumps[:, 0], bumps[:, 1]).max(axis=0).astype(np.float32)


def curve_map(curve: np.ndarray, size: int) -> np.ndarray:
    """(size, size) float32: a ridge of height 1 along an (N, 2) curve in network pixels."""
    from scipy import ndimage

    line = curve_mask(curve, (size, size))
    if not line.any():
        return np.zeros((size, size), dtype=np.float32)
    away = ndimage.distance_transform_edt(~line)
    return np.exp(-(away**2) / (2 * CLICK_SIGMA**2)).astype(np.float32)


def gap_value(distance: int) -> float:
    """How far a memory is, as the network is told; ``distance`` in slices, either way."""
    return min(max(abs(distance), 1), FARTHEST_GAP) / FARTHEST_GAP


def prompt_maps(prompts: SlicePrompts, frame: Frame) -> np.ndarray:
    """(3, size, size) float32: region, positive and negative maps of the prompts on a slice."""
    maps = np.zeros((3, frame.size, frame.size), dtype=np.float32)
    if prompts.lasso_rc is not None:
        maps[0] = polygon_mask(frame.to_crop(prompts.lasso_rc), (frame.size, frame.size))
    elif prompts.box_rc is not None:
        low, high = np.array(prompts.box_rc[:2]) - 0.5, np.array(prompts.box_rc[2:]) + 0.5
        maps[0] = box_map(frame.to_crop(low), frame.to_crop(high), frame.size)
    points = frame.to_crop(prompts.points_rc)
    for row, side in ((1, True), (2, False)):
        maps[row] = click_map(points[prompts.positive == side], frame.size)
    for curve, positive in prompts.scribbles:
        row = 1 if positive else 2
        maps[row] = np.maximum(maps[row], curve_map(frame.to_crop(curve), frame.size))
    return maps


def network_input(
    pixels: np.ndarray,
    frame: Frame,
    prompts: SlicePrompts,
    previous: np.ndarray | None = None,
    memories: tuple[tuple[EmbeddedMemory, int], ...] = (),
) -> np.ndarray:
    """All `CHANNELS` of one window.

    Parameters
    ----------
    pixels
        (rows, columns) uint8 slice.
    frame
        The window.
    prompts
        In slice pixels.
    previous
        (rows, columns) logits to refine, or None.
    memories
        Up to two remembered slices with their distance, the key slice first. A single one takes both places.

    Returns
    -------
    np.ndarray
        (11, size, size) float32.
    """
    maps = np.zeros((len(CHANNELS), frame.size, frame.size), dtype=np.float32)
    maps[0] = frame.take(pixels) / 255
    maps[1:4] = prompt_maps(prompts, frame)
    if previous is not None:
        maps[4] = frame.take(1 / (1 + np.exp(-np.clip(previous, -10, 10))))
    for place, (memory, distance) in enumerate((memories * 2)[:2]):
        first = 5 + 3 * place
        maps[first : first + 2] = memory.seen_through(frame)
        maps[first + 2] = gap_value(distance)
    return maps
