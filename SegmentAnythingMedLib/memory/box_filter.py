"""A Kalman filter that follows a box from slice to slice at constant speed (Wojke et al. 2017, arXiv 1703.07402)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.memory.outlines import Box

_POSITION, _SPEED = 1 / 20, 1 / 160
"""Standard deviations as shares of the box's height."""
_MOVE = np.eye(8) + np.eye(8, k=4)


@dataclass(frozen=True, eq=False)
class BoxFilter:
    """Where a box is believed to be: a value; each step gives a new one.

    Parameters
    ----------
    mean
        (8,) centre column, centre row, width / height, height in mm, and how each changes per slice.
    covariance
        (8, 8).
    """

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def at(cls, box_mm: Box) -> BoxFilter:
        """Resting at a box that was seen."""
        seen = _measured(box_mm)
        spread = np.concatenate([_spread(seen[3], 2 * _POSITION, 1e-2), _spread(seen[3], 10 * _SPEED, 1e-5)])
        return cls(np.concatenate([seen, np.zeros(4)]), np.diag(spread**2))

    @property
    def box(self) -> Box:
        """Edges in mm."""
        column, row, aspect, height = self.mean[:4].tolist()
        wide = aspect * height
        return row - height / 2, column - wide / 2, row + height / 2, column + wide / 2

    def moved(self) -> BoxFilter:
        """One slice on."""
        height = self.mean[3]
        noise = np.concatenate([_spread(height, _POSITION, 1e-2), _spread(height, _SPEED, 1e-5)])
        return BoxFilter(_MOVE @ self.mean, _MOVE @ self.covariance @ _MOVE.T + np.diag(noise**2))

    def corrected(self, box_mm: Box) -> BoxFilter:
        """After the box was seen there."""
        noise = np.diag(_spread(self.mean[3], _POSITION, 1e-1) ** 2)
        believed = self.covariance[:4, :4] + noise
        gain = np.linalg.solve(believed, self.covariance[:4]).T
        mean = self.mean + gain @ (_measured(box_mm) - self.mean[:4])
        return BoxFilter(mean, self.covariance - gain @ believed @ gain.T)


def _measured(box_mm: Box) -> np.ndarray:
    row0, column0, row1, column1 = box_mm
    height = row1 - row0
    return np.array([(column0 + column1) / 2, (row0 + row1) / 2, (column1 - column0) / height, height])


def _spread(height: float, share: float, aspect: float) -> np.ndarray:
    return np.array([share * height, share * height, aspect, share * height])
