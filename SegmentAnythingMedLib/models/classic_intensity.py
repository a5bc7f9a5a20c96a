"""What an object and its surroundings look like: histograms of grey value, colour and texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

BINS = 48
_SMOOTHING = np.exp(-0.5 * np.arange(-4, 5) ** 2)
_SMOOTHING /= _SMOOTHING.sum()
"""Gaussian of sigma 1 bin."""
_PSEUDO_COUNT = 0.02
"""Share of a flat histogram mixed in: a value never seen on one side is no proof, only a log-odds of about 4."""
_MAX_EVIDENCE = 4.0


def value_channels(pixels: np.ndarray) -> np.ndarray:
    """(C, rows, columns) windowed pixels to channels that are nearly independent, 0 to 1.

    Three channels become the mean and the two differences of Ohta, Kanade and Sakai 1980.
    """
    if len(pixels) != 3:
        return pixels
    red, green, blue = pixels
    return np.stack([(red + green + blue) / 3, (red - blue) / 2 + 0.5, (2 * green - red - blue) / 4 + 0.5])


def to_bins(channels: np.ndarray) -> np.ndarray:
    """Histogram bin of every value, int."""
    return np.clip(channels * BINS, 0, BINS - 1).astype(np.intp)


@dataclass(frozen=True, eq=False)
class Appearance:
    """Histograms of an object and of its surroundings.

    Parameters
    ----------
    inside, outside
        (F, BINS) float32, each row sums to 1.
    """

    inside: np.ndarray
    outside: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.inside.nbytes + self.outside.nbytes

    @classmethod
    def measure(cls, bins: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> Appearance:
        """From (F, h, w) bins and the (h, w) weights with which pixels belong to either side."""
        return cls(_histograms(bins, inside), _histograms(bins, outside))

    @classmethod
    def blend(cls, parts: list[tuple[float, Appearance]]) -> Appearance:
        """Weighted mean of appearances."""
        total = sum(weight for weight, _ in parts)
        return cls(
            sum(weight / total * part.inside for weight, part in parts),
            sum(weight / total * part.outside for weight, part in parts),
        )

    @property
    def separability(self) -> float:
        """Total variation between object and surroundings in the best channel, 0 (alike) to 1."""
        return float(0.5 * np.abs(self.inside - self.outside).sum(axis=1).max())

    def evidence(self, bins: np.ndarray) -> np.ndarray:
        """(h, w) log-likelihood ratio of object to surroundings, clipped; channels count as independent."""
        flat = _PSEUDO_COUNT / BINS
        ratio = np.log((self.inside + flat) / (self.outside + flat))
        total = sum(row[index] for row, index in zip(ratio, bins, strict=True))
        return np.clip(total, -_MAX_EVIDENCE, _MAX_EVIDENCE)

    def correlation(self, other: Appearance) -> float:
        """Cosine between the object histograms, 0 to 1; 0 where the channels differ."""
        if self.inside.shape != other.inside.shape:
            return 0.0
        norm = float(np.linalg.norm(self.inside) * np.linalg.norm(other.inside))
        return float((self.inside * other.inside).sum()) / max(norm, 1e-12)


def _histograms(bins: np.ndarray, weight: np.ndarray) -> np.ndarray:
    flat = np.ravel(weight)
    counts = np.stack([np.bincount(channel.ravel(), flat, BINS) for channel in bins])
    smooth = ndimage.correlate1d(counts, _SMOOTHING, axis=1, mode="nearest")
    total = smooth.sum(axis=1, keepdims=True)
    return np.where(total > 0, smooth / np.maximum(total, 1e-12), 1.0 / BINS).astype(np.float32)
