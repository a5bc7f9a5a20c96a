"""What the neighbourhood of a place on a slice looks like, in numbers: made by hand here, or by a model's encoder.

A `FeatureMap` is a coarse grid of cells over a slice. `HandMade` needs neither weights nor torch: means, gradients,
spread and a histogram of grey values at several scales in millimetres. None of them changes when the slice is flipped
or turned by 90 degrees, so cases of any orientation can be learned from together. A model whose encoder has a dense
embedding gives a `FeatureMap` through `DenseModel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from SegmentAnythingMedLib.models.base import SliceImage, SliceModel

BINS = 8
_MEAN_SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)
_GRADIENT_SIGMAS = (1.0, 2.0, 4.0)
_SPREAD_SIGMAS = (2.0, 4.0, 8.0)
_HISTOGRAM_SIGMA = 4.0
_PER_CHANNEL = len(_MEAN_SIGMAS) + len(_GRADIENT_SIGMAS) + len(_SPREAD_SIGMAS) + BINS


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features of a slice on a grid of equal cells that covers it.

    Parameters
    ----------
    values
        (D, h, w) float32, finite.
    shape
        Rows and columns of the slice.
    """

    values: np.ndarray
    shape: tuple[int, int]

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.values.shape[1:]

    @property
    def rows(self) -> np.ndarray:
        """(h * w, D) one row a cell."""
        return self.values.reshape(len(self.values), -1).T

    def share(self, mask: np.ndarray) -> np.ndarray:
        """(h, w) float: how much of each cell a (rows, columns) bool mask fills, 0 to 1."""
        first, second = (area_weights(n, m) for n, m in zip(self.shape, self.cells, strict=True))
        return first @ mask.astype(np.float64) @ second.T

    def on_slice(self, cells: np.ndarray) -> np.ndarray:
        """(h, w) numbers of the cells at every pixel, (rows, columns) float32, linear between cell centres."""
        first, second = (linear_weights(m, n) for n, m in zip(self.shape, self.cells, strict=True))
        return (first @ cells @ second.T).astype(np.float32)


class Describer(Protocol):
    """Makes a `FeatureMap` of a slice; ``name`` says how, so that features of two kinds are never compared."""

    @property
    def name(self) -> str: ...

    def describe(self, image: SliceImage) -> FeatureMap: ...


@runtime_checkable
class DenseModel(Protocol):
    """A slice model that shows its image embedding: (D, h, w) float32 on cells that cover exactly the slice."""

    def dense(self, features: object) -> np.ndarray: ...


@dataclass(frozen=True)
class HandMade:
    """The descriptor without a network, 19 numbers a channel.

    Parameters
    ----------
    cell_mm
        Side of a cell. The finest scale is half of it, the coarsest eight times it.
    """

    cell_mm: float = 4.0

    @property
    def name(self) -> str:
        return f"hand-made, cells of {self.cell_mm:g} mm"

    def describe(self, image: SliceImage) -> FeatureMap:
        """Features of a windowed slice, of all its channels."""
        cells = [max(1, round(n * mm / self.cell_mm)) for n, mm in zip(image.shape, image.spacing_mm, strict=True)]
        first, second = (area_weights(n, 2 * m) for n, m in zip(image.shape, cells, strict=True))
        found = [self._of_channel(first @ channel @ second.T) for channel in image.pixels.astype(np.float64)]
        return FeatureMap(np.concatenate(found).astype(np.float32), image.shape)

    @staticmethod
    def _of_channel(pixels: np.ndarray) -> np.ndarray:
        """(19, h, w) of one channel on pixels of half a cell."""
        from scipy import ndimage

        def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
            return ndimage.gaussian_filter(values, sigma, mode="nearest")

        maps = [blurred(pixels, sigma) for sigma in _MEAN_SIGMAS]
        maps += [
            np.hypot(*np.gradient(blurred(pixels, sigma))) * sigma if min(pixels.shape) > 1 else np.zeros_like(pixels)
            for sigma in _GRADIENT_SIGMAS
        ]
        squares = pixels**2
        for sigma in _SPREAD_SIGMAS:
            maps.append(np.sqrt(np.maximum(blurred(squares, sigma) - blurred(pixels, sigma) ** 2, 0)))
        centers = np.linspace(0, 1, BINS)
        maps += [
            blurred(np.maximum(0, 1 - np.abs(pixels - center) * (BINS - 1)), _HISTOGRAM_SIGMA) for center in centers
        ]
        whole = np.stack(maps)
        h, w = pixels.shape[0] // 2, pixels.shape[1] // 2
        return whole.reshape(len(whole), h, 2, w, 2).mean(axis=(2, 4))


@dataclass(frozen=True, eq=False)
class OfModel:
    """A model's own embedding as features.

    Parameters
    ----------
    model
        Must have ``dense``, see `DenseModel`.
    """

    model: SliceModel

    @property
    def name(self) -> str:
        return f"embedding of {self.model.card.name}"

    def describe(self, image: SliceImage) -> FeatureMap:
        """The embedding of a windowed slice."""
        features = self.model.encode_slices([image])[0]
        return FeatureMap(np.asarray(self.model.dense(features), np.float32), image.shape)


def area_weights(count: int, cells: int) -> np.ndarray:
    """(cells, count) weights, rows that sum to 1: how much of each of ``cells`` equal parts of a line pixels cover."""
    edges = np.linspace(0, count, cells + 1)
    low, high = edges[:-1, None], edges[1:, None]
    at = np.arange(count)[None]
    covered = np.clip(np.minimum(at + 1, high) - np.maximum(at, low), 0, None)
    return covered / covered.sum(axis=1, keepdims=True)


def linear_weights(cells: int, count: int) -> np.ndarray:
    """(count, cells) weights: linear interpolation between the centres of ``cells`` equal parts at ``count`` pixels."""
    at = np.clip((np.arange(count) + 0.5) * cells / count - 0.5, 0, cells - 1)
    low = np.minimum(np.floor(at).astype(int), max(cells - 2, 0))
    weights = np.zeros((count, cells))
    weights[np.arange(count), low] = 1 - (at - low)
    if cells > 1:
        weights[np.arange(count), low + 1] += at - low
    return weights
