"""Prompts in the words a network knows: scribbles become clicks, a lasso becomes a box and clicks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.prompts import SlicePrompts
from SegmentAnythingMedLib.rasterize import polygon_mask, resample_curve

CLICKS_PER_SCRIBBLE = 5


def convert(prompts: SlicePrompts, kinds: Collection[str], shape: tuple[int, int]) -> SlicePrompts:
    """Replace prompts of kinds the network does not take.

    A scribble becomes `CLICKS_PER_SCRIBBLE` clicks, evenly spread along it. A lasso becomes its bounding box, if
    there is no box already, and a click at the point deepest inside it. Masks are left: a mask is the answer.

    Parameters
    ----------
    prompts
        Any prompts.
    kinds
        Kinds the network takes, of `SegmentAnythingMedLib.models.card.PROMPT_KINDS`.
    shape
        Rows and columns of the slice.
    """
    if prompts.scribbles and "scribble" not in kinds:
        for curve, positive in prompts.scribbles:
            spread = resample_curve(curve, 0.5)
            clicks = spread[np.linspace(0, len(spread) - 1, CLICKS_PER_SCRIBBLE).round().astype(int)]
            prompts = _with_clicks(prompts, clicks, positive)
        prompts = replace(prompts, scribbles=())
    if prompts.lasso_rc is not None and "lasso" not in kinds:
        lasso = prompts.lasso_rc
        inside = polygon_mask(lasso, shape)
        if inside.any():
            depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
            prompts = _with_clicks(prompts, np.array([np.unravel_index(np.argmax(depth), shape)]), True)
        low, high = lasso.min(axis=0), lasso.max(axis=0)
        box = prompts.box_rc or (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        prompts = replace(prompts, lasso_rc=None, box_rc=box)
    return prompts


def as_box(prompts: SlicePrompts, answer: np.ndarray | None) -> SlicePrompts:
    """Prompts for a network that was trained with boxes alone: a box, and the negative clicks.

    The box is the one drawn, else that of the earlier answer, be it a single row or pixel; positive clicks outside
    enlarge it, and without a box two of them must differ in row and column. Negative clicks stay
    clicks: such networks know them from what they were made of, how well they obey is not known.

    Parameters
    ----------
    prompts
        After `convert`; a mask is left as it is.
    answer
        (rows, columns) bool: the earlier answer on this slice, or None.

    Raises
    ------
    PromptError
        If neither a box nor an answer nor two clicks say how large the object is.
    """
    corners = [np.array(prompts.box_rc).reshape(2, 2)] if prompts.box_rc is not None else []
    if not corners and answer is not None and answer.any():
        found = np.argwhere(answer)
        corners = [np.stack([found.min(axis=0), found.max(axis=0)])]
    points = np.concatenate([*corners, prompts.points_rc[prompts.positive]])
    low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
    if not corners and not (high > low).all():
        raise PromptError("This model is asked by a box: draw one round the object, then correct with clicks.")
    return replace(
        prompts,
        points_rc=prompts.points_rc[~prompts.positive],
        positive=prompts.positive[~prompts.positive],
        box_rc=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
    )


def _with_clicks(prompts: SlicePrompts, clicks_rc: np.ndarray, positive: bool) -> SlicePrompts:
    return replace(
        prompts,
        points_rc=np.concatenate([prompts.points_rc, clicks_rc]),
        positive=np.concatenate([prompts.positive, np.full(len(clicks_rc), positive)]),
    )
