"""Numbers about masks that policies read: boxes in millimetres, and how much other masks disagree."""

from __future__ import annotations

import numpy as np

Box = tuple[float, float, float, float]
"""(row0, column0, row1, column1): outer edges of a mask in millimetres along rows and columns."""


def box_mm(mask: np.ndarray, spacing_mm: tuple[float, float]) -> Box | None:
    """Box of a (rows, columns) mask; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    row_mm, column_mm = spacing_mm
    return (
        float(rows[0]) * row_mm,
        float(columns[0]) * column_mm,
        float(rows[-1] + 1) * row_mm,
        float(columns[-1] + 1) * column_mm,
    )


def box_overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    sides = [max(0.0, min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis])) for axis in (0, 1)]
    shared = sides[0] * sides[1]
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / total if total > 0 else 0.0


def rivals(masks: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[float, ...]:
    """How far each other mask reaches beyond the first (DAM4SAM, Videnovic et al. 2025, arXiv 2411.17576).

    Parameters
    ----------
    masks
        (M, rows, columns) bool, the one that is used first.

    Returns
    -------
    tuple[float, ...]
        For each other mask with pixels outside the first: overlap of the first one's box with the box of the first
        one joined with the largest connected piece of those pixels. Low where a distractor was found.
    """
    from scipy import ndimage

    chosen = box_mm(masks[0], spacing_mm)
    if chosen is None:
        return ()
    found = []
    for other in masks[1:]:
        labels, count = ndimage.label(other & ~masks[0], structure=np.ones((3, 3)))
        if count:
            largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
            found.append(box_overlap(chosen, _joined(chosen, box_mm(largest, spacing_mm))))
    return tuple(found)


def _joined(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
