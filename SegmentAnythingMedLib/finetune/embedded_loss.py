"""What the embedded network is trained to: masks, how good they are, and whether the object is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedOutput


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts.

    Parameters
    ----------
    cross_entropy, dice
        Of a mask.
    quality
        Squared error of the predicted intersection over union.
    presence
        Cross entropy of whether the object is there.
    absence
        Factor of that on slices without the object, which are few: a propagation must learn to stop.
    others
        Share of the mean over all candidates beside the best one, where a single click leaves several answers: keeps
        every candidate alive.
    boundary
        Additional weight of pixels within two of the true border in the cross entropy.
    """

    cross_entropy: float = 2.0
    dice: float = 1.0
    quality: float = 0.3
    presence: float = 0.15
    absence: float = 3.0
    others: float = 0.1
    boundary: float = 0.0


class LossParts(NamedTuple):
    """The loss, and for each example which candidate counted, its Dice and its intersection over union."""

    total: Tensor
    chosen: Tensor
    dice: Tensor
    overlap: Tensor


_SMOOTH = 20.0
"""Pixels added to both sides of the Dice ratio: small and absent objects do not dominate."""


def embedded_loss(output: EmbeddedOutput, target: Tensor, single: Tensor, weights: LossWeights) -> LossParts:
    """Loss of B answers.

    Parameters
    ----------
    output
        Of the network.
    target
        (B, h, w) float32, 0 or 1.
    single
        (B,) bool: one positive click and nothing else, so the best candidate counts (as in SAM, Kirillov et al.
        2023); otherwise the first.
    weights
        Of the parts.
    """
    logits = output.logits.float()
    truth = target[:, None].expand_as(logits)
    masks = _mask_loss(logits, truth, weights)
    best = torch.where(single, masks.detach().argmin(1), 0)
    rows = torch.arange(len(best), device=best.device)
    wanted = masks[rows, best]
    mixed = (1 - weights.others) * wanted + weights.others * masks.mean(1)
    wanted = torch.where(single, mixed, wanted)
    overlap, dice = _overlaps(logits, truth)
    missed = (output.quality.float().sigmoid() - overlap) ** 2
    judged = torch.where(single, missed.mean(1), missed[:, 0])
    there = (target.flatten(1).amax(1) > 0).float()
    presence = functional.binary_cross_entropy_with_logits(output.presence.float(), there, reduction="none")
    presence = presence * torch.where(there > 0, 1.0, weights.absence)
    total = wanted + weights.quality * judged + weights.presence * presence
    return LossParts(total.mean(), best, dice[rows, best], overlap[rows, best])


def _mask_loss(logits: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    """(B, M) loss of every candidate."""
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    if weights.boundary:
        blurred = functional.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
        entropy = entropy * (1 + weights.boundary * ((blurred > 0.02) & (blurred < 0.98)))
    inside = logits.sigmoid()
    shared, size = (inside * truth).sum((2, 3)), inside.sum((2, 3)) + truth.sum((2, 3))
    dice = 1 - (2 * shared + _SMOOTH) / (size + _SMOOTH)
    return weights.cross_entropy * entropy.mean((2, 3)) + weights.dice * dice


@torch.no_grad()
def _overlaps(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(B, M) intersection over union and Dice of every candidate; 1 where both are empty."""
    found, true = logits > 0, truth > 0.5
    shared = (found & true).sum((2, 3)).float()
    size = found.sum((2, 3)).float() + true.sum((2, 3)).float()
    empty = size == 0
    overlap = torch.where(empty, 1.0, shared / (size - shared).clamp(min=1))
    return overlap, torch.where(empty, 1.0, 2 * shared / size.clamp(min=1))
