"""From a windowed slice to a network's square input, and from its masks back; one row of a table per published recipe.

How a slice is resized and normalised belongs to the weights (their card), not to the family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

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
        fills the square, the rest is 0 after normalising (mean grey).
    rescale
        True: the darkest pixel of the resized slice becomes 0 and the brightest 1, before ``mean`` and ``std``.
    resize
        How the slice is resized: ``bilinear`` or ``bicubic``, both smoothed where it shrinks, or ``nearest``.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    stretch: bool = False
    rescale: bool = False
    resize: Literal["bilinear", "bicubic", "nearest"] = "bilinear"

    @classmethod
    def named(cls, name: str) -> Preprocessing:
        """A row of the table, or a `ModelFileError` that lists the rows."""
        if name not in TABLE:
            raise ModelFileError(f"Preprocessing {name!r} is not known: a card may name {', '.join(TABLE)}.")
        return TABLE[name]


_PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

TABLE: Mapping[str, Preprocessing] = {
    "imagenet": Preprocessing(),
    "imagenet-stretch": Preprocessing(stretch=True),
    "minmax": Preprocessing(**_PLAIN, rescale=True),
    "minmax-stretch": Preprocessing(**_PLAIN, stretch=True, rescale=True, resize="bicubic"),
    "minmax-stretch-bilinear": Preprocessing(**_PLAIN, stretch=True, rescale=True),
    "half-stretch": Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), stretch=True),
    "imagenet-stretch-nearest": Preprocessing(stretch=True, resize="nearest"),
}
"""``imagenet-stretch`` is SAM 2's and MedSAM2's own; ``imagenet`` is SAM's (its means and deviations of 0 to 255 are
these) and keeps anatomy undistorted; ``minmax`` is LiteMedSAM's, but for the kernel of its resizing;
``minmax-stretch`` is MedSAM's, but for the kernel of its bicubic resizing; ``minmax-stretch-bilinear`` is
ScribblePrompt's, ``imagenet-stretch-nearest`` SAM-Med2D's, ``half-stretch`` SAM 3's."""


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
        return _padded(_resized(pixels, size), side)

    def enlarge_logits(self, logits: np.ndarray, side: int | None = None, limit: float = 10.0) -> Tensor:
        """(M, rows, columns) logits within ± ``limit`` as (1, M, side, side); beyond the slice is outside: - ``limit``.

        For masks from elsewhere, that a network is to refine. ``side`` is by default the input's.
        """
        lifted = torch.from_numpy(np.clip(logits, -limit, limit) + limit)[None]
        return self.enlarge(lifted, side) - limit

    def slice_logits(self, logits: Tensor) -> np.ndarray:
        """(M, h, h) logits over the square, of any resolution, to (M, rows, columns) float32 on the slice."""
        height, width = self.height / self.side, self.width / self.side
        down, across = (self.shape[0], height, logits.shape[1]), (self.shape[1], width, logits.shape[2])
        # numpy's products would start threads of their own beside torch's, 8 ms for 0.7 where a core is busy.
        rows, columns = (_weights_there(*one, logits.device) for one in (down, across))
        with torch.autocast(logits.device.type, enabled=False):
            return (rows @ logits.detach().float() @ columns.T).cpu().numpy()


def normalize(
    image: SliceImage, recipe: Preprocessing, placement: Placement, device: torch.device | str = "cpu"
) -> Tensor:
    """A slice as network input, (1, 3, side, side) float32, on the device that computes it."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.pixels))[None].to(device)
    pixels = _resized(pixels, (placement.height, placement.width), recipe.resize)
    if recipe.rescale:
        low, high = pixels.aminmax()
        # Less than a grey level is rounding, not contrast.
        pixels = (pixels - low) / (high - low).clamp(min=1 / 255)
    pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
    mean = torch.tensor(recipe.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(recipe.std, device=device).view(1, 3, 1, 1)
    return _padded((pixels - mean) / std, placement.side)


def _resized(pixels: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """(B, C, rows, columns) to (B, C, *size)."""
    if pixels.shape[2:] == size:
        return pixels
    if mode == "nearest":
        return functional.interpolate(pixels, size=size, mode=mode)
    resized = functional.interpolate(pixels, size=size, mode=mode, align_corners=False, antialias=True)
    return resized.clamp(0, 1) if mode == "bicubic" else resized  # a cubic overshoots at edges


def _padded(pixels: Tensor, side: int) -> Tensor:
    return functional.pad(pixels, (0, side - pixels.shape[3], 0, side - pixels.shape[2]))


def _bilinear_weights(count: int, share: float, source: int) -> np.ndarray:
    """(count, source) weights that sample ``source`` cells at ``count`` pixel centres spread over their first share."""
    at = np.clip((np.arange(count) + 0.5) * (share * source / count) - 0.5, 0, source - 1)
    low = np.minimum(np.floor(at).astype(int), max(source - 2, 0))
    weights = np.zeros((count, source), dtype=np.float32)
    weights[np.arange(count), low] = 1 - (at - low)
    if source > 1:
        weights[np.arange(count), low + 1] = at - low
    return weights


@lru_cache(maxsize=8)
def _weights_there(count: int, share: float, source: int, device: torch.device) -> Tensor:
    """`_bilinear_weights` on a device, sent there once."""
    return torch.from_numpy(_bilinear_weights(count, share, source)).to(device)
