"""Prompts drawn as the channels that ScribblePrompt-UNet takes beside the image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from SegmentAnythingMedLib.models.preprocess import Placement
from SegmentAnythingMedLib.prompts import SlicePrompts
from SegmentAnythingMedLib.rasterize import curve_mask


def prompt_maps(prompts: SlicePrompts, placement: Placement) -> Tensor:
    """Draw prompts of one object: (1, 3, S, S) of 0 and 1, the inside of the box, positive and negative marks.

    A click marks one cell; of two on the same cell the later one counts. Scribbles are lines without gaps.
    """
    size = (placement.side, placement.side)
    box, marks = np.zeros(size, bool), np.zeros((2, *size), bool)
    if prompts.box_rc is not None:
        row0, column0, row1, column1 = prompts.box_rc
        (x0, y0), (x1, y1) = placement.model_xy(np.array([[row0 - 0.5, column0 - 0.5], [row1 + 0.5, column1 + 0.5]]))
        box[_held(y0, y1, placement.height), _held(x0, x1, placement.width)] = True
    last = np.array([placement.height, placement.width]) - 1
    cells = np.clip(np.rint(placement.model_xy(prompts.points_rc)[:, ::-1]), 0, last).astype(int)
    for (row, column), positive in zip(cells, prompts.positive, strict=True):
        marks[:, row, column] = positive, not positive
    for curve, positive in prompts.scribbles:
        marks[0 if positive else 1] |= curve_mask(placement.model_xy(curve)[:, ::-1], size)
    return torch.from_numpy(np.concatenate([box[None], marks]).astype(np.float32))[None]


def _held(low: float, high: float, count: int) -> slice:
    """Cells with their centre between two edges, at least one."""
    first = min(max(int(np.ceil(low)), 0), count - 1)
    return slice(first, max(first + 1, min(int(np.ceil(high)), count)))
