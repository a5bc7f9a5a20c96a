"""Predicted quality for networks that predict none: what their own probabilities let expect."""

from __future__ import annotations

import torch
from torch import Tensor


def expected_iou(logits: Tensor) -> Tensor:
    """Intersection over union to be expected of the masks ``logits > 0`` if the logits are true.

    The ratio of the expected intersection to the expected union, an approximation of the expected ratio; a network that
    is too sure of itself is believed.

    Parameters
    ----------
    logits : (..., H, W)

    Returns
    -------
    (...) float32, 0 to 1; 0 where a mask is empty
    """
    chance, inside = torch.sigmoid(logits.float()), logits > 0
    shared = (chance * inside).sum(dim=(-2, -1))
    union = torch.where(inside, 1.0, chance).sum(dim=(-2, -1))
    return shared / union.clamp(min=1e-6)
