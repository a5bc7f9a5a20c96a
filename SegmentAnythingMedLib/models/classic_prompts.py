"""What a drawn region says about every pixel of a crop, as log-odds that it belongs to the object."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from SegmentAnythingMedLib.models.classic_crop import FAR, Crop, equivalent_radius_mm, signed_distance_mm
from SegmentAnythingMedLib.models.classic_intensity import Appearance
from SegmentAnythingMedLib.rasterize import polygon_mask

BOX_SHAPE_WEIGHT = 4.0
"""Log-odds in the middle of a box; 0 on the ellipse in it."""
BOX_EVIDENCE_WEIGHT = 1.0
"""Of a log-likelihood ratio, which assumes that pixels are independent; 0.4 to 1.4 differ by 0.01 Dice."""
BOX_ROUNDNESS = 2.2
"""Exponent of the superellipse: 2 is the ellipse, infinity the box."""
BOX_NEAR = 1.6
"""Surroundings that the object is compared with end at this multiple of the box."""
ROUNDS = 3
"""Times the statistics are measured again; more changed Dice by less than 0.001."""

_BEYOND_BOX = -2.0
_FALL_BEYOND_BOX = 40.0
"""A box may be drawn a little too tight: log-odds just outside it, and their fall per half side."""

_LASSO_BORDER = 0.5
"""Log-odds just inside a lasso: it follows the object more closely than a box."""
REGION_SHAPE_WEIGHT = 3.0
"""Log-odds one radius inside a region grown from a click."""
_REGION_REACH = 2.0
"""Distances beyond this many radii say no more."""


def box_belief(crop: Crop, box_rc: np.ndarray, known: Appearance | None = None) -> np.ndarray:
    """Log-odds from a box: a superellipse in it, and the values that are more frequent inside than round it.

    Parameters
    ----------
    crop
        Holds the box and its surroundings.
    box_rc
        (4,) first and last row and column, slice pixels.
    known
        Appearance from other slices, which counts half.
    """
    centre, half = (box_rc[:2] + box_rc[2:]) / 2, (box_rc[2:] - box_rc[:2]) / 2 + 0.5
    rows, columns = (np.abs(places - centre[axis]) / half[axis] for axis, places in enumerate(crop.frame.places))
    radius = np.add.outer(rows**BOX_ROUNDNESS, columns**BOX_ROUNDNESS) ** (1 / BOX_ROUNDNESS)
    shape = BOX_SHAPE_WEIGHT * (1 - radius)
    side = np.maximum.outer(rows, columns)
    outside = np.minimum(shape, _BEYOND_BOX) - _FALL_BEYOND_BOX * (side - 1.0)
    return _with_evidence(crop, np.where(side > 1.0, outside, shape), side < BOX_NEAR, known)


def lasso_belief(crop: Crop, curve_rc: np.ndarray, known: Appearance | None = None) -> np.ndarray:
    """Log-odds from a closed curve: as for a box, but the shape is the curve's."""
    region = crop.frame.take_mask(polygon_mask(curve_rc, crop.frame.shape))
    radius = equivalent_radius_mm(region, crop.frame.step_mm)
    distance = np.clip(signed_distance_mm(region, crop.frame.step_mm) / radius, -1.0, 1.0)
    inside = BOX_SHAPE_WEIGHT * distance + _LASSO_BORDER
    outside = _BEYOND_BOX + _FALL_BEYOND_BOX * distance
    near = distance > 1.0 - BOX_NEAR
    return _with_evidence(crop, np.where(region, inside, outside), near, known)


def region_belief(crop: Crop, region: np.ndarray, known: Appearance | None = None) -> np.ndarray:
    """Log-odds from a region that is about right: near its border the grey values decide."""
    radius = equivalent_radius_mm(region, crop.frame.step_mm)
    distance = np.clip(signed_distance_mm(region, crop.frame.step_mm) / radius, -_REGION_REACH, _REGION_REACH)
    return _with_evidence(crop, REGION_SHAPE_WEIGHT * distance, distance > 1.0 - BOX_NEAR, known)


def _with_evidence(crop: Crop, shape: np.ndarray, near: np.ndarray, known: Appearance | None) -> np.ndarray:
    """Shape plus likelihood ratio, measured again each round as in GrabCut (Rother, Kolmogorov and Blake 2004)."""
    logits = shape
    for _ in range(ROUNDS):
        inside = expit(logits)
        appearance = Appearance.measure(crop.bins, inside, near * (1 - inside))
        if known is not None:
            appearance = Appearance.blend([(1.0, appearance), (1.0, known)])
        logits = shape + BOX_EVIDENCE_WEIGHT * appearance.evidence(crop.bins)
    return np.clip(logits, -FAR, FAR)
