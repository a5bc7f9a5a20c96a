"""From a windowed slice to a network's square input, and from its masks back; one row of a table per published recipe.

How a slice is resized and normalised belongs to the weights (their card), not to the family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.base import SliceImage

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How weights want their input.

    Parameters
    ----------
    mean, std
        Per channel, on intensities from 0 to 1.
    stretch
        True: the slice fills the square, whatever its shape. False: square pixels in millimetres, the longer side
        fills the square, the rest is mean grey.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    stretch: bool = False

    @classmethod
    def named(cls, name: str) -> Preprocessing:
        """A row of the table, or a `ModelFileError` that lists the rows."""
        if name not in TABLE:
            raise ModelFileError(f"Preprocessing {name!r} is not known: a card may name {', '.join(TABLE)}.")
        return TABLE[name]


TABLE: Mapping[str, Preprocessing] = {
    "imagenet": Preprocessing(),
    "imagenet-stretch": Preprocessing(stretch=True),
}
"""``imagenet-stretch`` is SAM 2's and MedSAM2's own; ``imagenet`` keeps anatomy undistorted."""


@dataclass(frozen=True)
class Placement:
    """Where a slice lies in the square input: its top left corner, ``height`` x ``width`` of ``side`` pixels."""

    shape: tuple[int, int]
    height: int
    width: int
    side: int

    @classmethod
    def of(cls, image: SliceImage, side: int, stretch: bool) -> Placement:
        """Placement of a slice in a square of ``side`` pixels."""
        if stretch:
            return cls(image.shape, side, side, side)
        extent = np.multiply(image.shape, image.spacing_mm)
        height, width = (max(1, round(float(side * length / extent.max()))) for length in extent)
        return cls(image.shape, height, width, side)

    def model_xy(self, points_rc: np.ndarray) -> np.ndarray:
        """(N, 2) slice pixels (row, column) to (N, 2) model pixels (x, y), pixel centres at integers in both."""
        scale = np.array([self.height / self.shape[0], self.width / self.shape[1]])
        return ((np.asarray(points_rc, dtype=np.float64) + 0.5) * scale - 0.5)[:, ::-1]

    def enlarge(self, pixels: Tensor, side: int | None = None) -> Tensor:
        """(B, C, rows, columns) to (B, C, side, side); beyond the slice 0. ``side`` is by default the input's."""
        side = self.side if side is None else side
        size = (max(1, round(self.height * side / self.side)), max(1, round(self.width * side / self.side)))
        if pixels.shape[2:] != size:
            pixels = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
        return functional.pad(pixels, (0, side - size[1], 0, side - size[0]))

    def slice_logits(self, logits: Tensor) -> np.ndarray:
        """(M, h, h) logits over the square, of any resolution, to (M, rows, columns) float32 on the slice."""
        rows = _bilinear_weights(self.shape[0], self.height / self.side, logits.shape[1])
        columns = _bilinear_weights(self.shape[1], self.width / self.side, logits.shape[2])
        values = logits.detach().float().cpu().numpy()
        return np.matmul(np.matmul(rows, values), columns.T).astype(np.float32, copy=False)


def normalize(image: SliceImage, recipe: Preprocessing, placement: Placement) -> Tensor:
    """A slice as network input, (1, 3, side, side) float32."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.pixels))[None]
    pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
    mean = torch.tensor(recipe.mean).view(1, 3, 1, 1)
    std = torch.tensor(recipe.std).view(1, 3, 1, 1)
    return placement.enlarge((pixels - mean) / std)


def _bilinear_weights(count: int, share: float, source: int) -> np.ndarray:
    """(count, source) weights that sample ``source`` cells at ``count`` pixel centres spread over their first share."""
    at = np.clip((np.arange(count) + 0.5) * (share * source / count) - 0.5, 0, source - 1)
    low = np.minimum(np.floor(at).astype(int), max(source - 2, 0))
    weights = np.zeros((count, source), dtype=np.float32)
    weights[np.arange(count), low] = 1 - (at - low)
    if source > 1:
        weights[np.arange(count), low + 1] = at - low
    return weights
