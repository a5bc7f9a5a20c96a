"""A batch of examples on its way: first prompts, corrective clicks and steps to the next slice, all from the network's
own answers. Batched torch without loops over examples, so that it keeps up with a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from SegmentAnythingMedLib.finetune.embedded_examples import Example, Start
from SegmentAnythingMedLib.models.embedded_channels import CLICK_SIGMA, FARTHEST_GAP

CORRECTED_FIRST = 0.45
"""Share of first answers that get a corrective click; the others go on to the next slice."""
CORRECTED_LATER = 0.30
ANSWER_HIDDEN = 0.7
"""Share of corrections inside a box or lasso for which the answer is not shown, as at use: it holds on to errors."""
ANSWER_BOXED = 0.4
"""Share of other corrections for which the box of the answer is shown as a box, as at use after some clicks."""
TRUE_MEMORIES = 0.2
"""Share of slices remembered with the true mask in place of the network's own."""
LEAST_AREA = 12
"""Network pixels of a mask that is worth remembering."""
_DEPTHS = 10


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples as tensors, see `Example`; small types until they are on the device."""

    images: Tensor
    masks: Tensor
    prompt: Tensor
    given: Tensor
    start: Tensor
    single: Tensor
    count: Tensor
    stride: Tensor
    gap: Tensor

    @classmethod
    def of(cls, examples: list[Example]) -> Batch:
        """Stack examples of one size."""
        stacked = {name: np.stack([getattr(one, name) for one in examples]) for name in ("images", "masks")}
        prompt, given = (
            np.rint(np.stack([getattr(one, name) for one in examples]) * 255).astype(np.uint8)
            for name in ("prompt", "given")
        )
        numbers = [
            torch.tensor([int(getattr(one, name)) for one in examples])
            for name in ("start", "single", "count", "stride", "gap")
        ]
        arrays = (stacked["images"], stacked["masks"], prompt, given)
        return cls(*(torch.from_numpy(array) for array in arrays), *numbers)

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in self.__dataclass_fields__)

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


class Unroll:
    """The state of a batch. Call `maps`, `target` and `single`, train on them, then `advance` with the answer.

    Parameters
    ----------
    batch
        On the device.
    """

    def __init__(self, batch: Batch) -> None:
        self._images = batch.images.float() / 255
        self._masks = batch.masks.float()
        self._count, self._stride = batch.count, batch.stride.float()
        rows, device = len(batch.images), batch.images.device
        self._rows = torch.arange(rows, device=device)
        shape = self._images.shape[2:]
        empty = torch.zeros(rows, *shape, device=device)
        prompt = batch.prompt.float() / 255
        self._region, self._positive, self._negative = prompt[:, 0], prompt[:, 1], prompt[:, 2]
        given = batch.given.float() / 255
        self.is_first = batch.start != Start.MEMORY
        """(B,) whether no slice was passed yet."""
        remembers = ~self.is_first
        far = remembers & (batch.gap > batch.stride)
        # There the first slice is a key slice some way off, the second the newest tracked one.
        self._slice = remembers.long() + far.long()
        self._previous = torch.where((batch.start == Start.REFINE)[:, None, None], given, empty)
        kept = torch.where(remembers[:, None, None], given, empty)
        seen = torch.where(remembers[:, None, None], self._images[:, 0], empty)
        gap = torch.where(remembers, self._stride, torch.zeros_like(self._stride))
        self._key = (seen, kept, torch.where(far, batch.gap + self._stride, gap))
        newest = far & (self._masks[:, 1].flatten(1).sum(1) >= LEAST_AREA)
        self._last = _replaced((seen, kept, self._key[2]), (self._images[:, 1], self._masks[:, 1], gap), newest)
        self.single = batch.single.bool()
        """(B,) whether the prompt is one positive click and nothing else."""

    @property
    def target(self) -> Tensor:
        """(B, h, w) float32, 0 or 1."""
        return self._masks[self._rows, self._slice]

    @property
    def kind(self) -> Tensor:
        """(B,) what the next answer rests on: 0 box or lasso, 1 clicks, 2 memories, 3 an answer to refine."""
        boxed, tracked = self._region.flatten(1).amax(1) > 0, self._key[1].flatten(1).amax(1) > 0
        kind = torch.where(boxed, 0, torch.where(tracked, 2, 1))
        return torch.where(self._previous.flatten(1).amax(1) > 0, 3, kind)

    def maps(self) -> Tensor:
        """(B, 11, h, w) float32 input of the network."""
        image = self._images[self._rows, self._slice]
        shape = image.shape[1:]
        maps = [image, self._region, self._positive, self._negative, self._previous]
        for seen, mask, gap in (self._key, self._last):
            shown = (gap > 0) * gap.clamp(1, FARTHEST_GAP) / FARTHEST_GAP
            maps += [seen, mask, shown[:, None, None].expand(-1, *shape)]
        return torch.stack(maps, 1)

    @torch.no_grad()
    def advance(self, logits: Tensor) -> None:
        """Go on from (B, h, w) logits of the answers: a corrective click on this slice, or the next slice."""
        probability, target = logits.float().sigmoid(), self.target
        wrong = (probability > 0.5) != (target > 0.5)
        draw = self._draw()
        corrected = draw < torch.where(self.is_first, CORRECTED_FIRST, CORRECTED_LATER)
        corrected |= self._slice + 1 >= self._count
        corrected &= wrong.flatten(1).any(1)
        moves = ~corrected & (self._slice + 1 < self._count)
        self._click(wrong, target, probability, corrected)
        self._move(probability, target, moves)

    def _click(self, wrong: Tensor, target: Tensor, probability: Tensor, where: Tensor) -> None:
        row, column = _deepest(wrong)
        size = wrong.shape[-1]
        steps = torch.arange(size, device=wrong.device, dtype=torch.float32)
        rows = torch.exp(-((steps - row[:, None]) ** 2) / (2 * CLICK_SIGMA**2))
        columns = torch.exp(-((steps - column[:, None]) ** 2) / (2 * CLICK_SIGMA**2))
        bump = rows[:, :, None] * columns[:, None, :]
        missing = target[self._rows, row.long(), column.long()] > 0.5
        add, remove = (where & missing)[:, None, None], (where & ~missing)[:, None, None]
        self._positive = torch.where(add, torch.maximum(self._positive, bump), self._positive)
        self._negative = torch.where(remove, torch.maximum(self._negative, bump), self._negative)
        enclosed = self._region.flatten(1).amax(1) > 0
        hidden = enclosed & (self._draw() < ANSWER_HIDDEN)
        answer = probability * ~hidden[:, None, None]
        self._previous = torch.where(where[:, None, None], answer, self._previous)
        boxed = where & ~enclosed & (self._key[1].flatten(1).amax(1) == 0) & (self._draw() < ANSWER_BOXED)
        box = _boxes((probability > 0.5) | (self._positive > 0.8))
        self._region = torch.where(boxed[:, None, None], box, self._region)
        self.single = self.single & ~where

    def _move(self, probability: Tensor, target: Tensor, where: Tensor) -> None:
        own = (probability > 0.5).float()
        lost = own.flatten(1).sum(1) < LEAST_AREA
        # The user would have corrected a lost object on the slice of the prompts.
        truth = (self._draw() < TRUE_MEMORIES) | (lost & self.is_first)
        mask = torch.where(truth[:, None, None], target, own)
        image = self._images[self._rows, self._slice]
        worth = mask.flatten(1).sum(1) >= LEAST_AREA
        gap = self._stride
        self._last = _replaced(self._last, (image, mask, gap), where & worth, where, gap)
        self._key = _replaced(self._key, (image, mask, gap), where & worth & self.is_first, where, gap)
        keep = ~where[:, None, None]
        self._region, self._positive = self._region * keep, self._positive * keep
        self._negative, self._previous = self._negative * keep, self._previous * keep
        self.single = self.single & ~where
        self.is_first = self.is_first & ~where
        self._slice = self._slice + where.long()

    def _draw(self) -> Tensor:
        return torch.rand(len(self._rows), device=self._rows.device)


def _replaced(
    memory: tuple[Tensor, Tensor, Tensor],
    new: tuple[Tensor, Tensor, Tensor],
    where: Tensor,
    older: Tensor | None = None,
    by: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, mask and gap of a memory, replaced ``where``; the others get older ``by`` so many slices."""
    seen, mask, gap = memory
    if older is not None:
        gap = torch.where(older & (gap > 0), gap + by, gap)
    plane = where[:, None, None]
    return torch.where(plane, new[0], seen), torch.where(plane, new[1], mask), torch.where(where, new[2].float(), gap)


def _boxes(masks: Tensor) -> Tensor:
    """(B, h, w) float32: 1 in the smallest box round each of (B, h, w) masks; 0 everywhere for an empty one."""
    rows, columns = masks.any(2).float(), masks.any(1).float()
    filled = [side.cummax(1).values * side.flip(1).cummax(1).values.flip(1) for side in (rows, columns)]
    return filled[0][:, :, None] * filled[1][:, None, :]


def _deepest(wrong: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) row and column, float32, of about the deepest pixel of (B, h, w) errors, found at half resolution."""
    share = functional.avg_pool2d(wrong.float()[:, None], 2)
    depth = share + 1e-3 * torch.rand_like(share) * (share > 0)
    inner = (share > 0.5).float()
    for _ in range(_DEPTHS):
        inner = -functional.max_pool2d(-inner, 3, 1, 1)
        depth = depth + inner
    at = depth.flatten(1).argmax(1)
    width = share.shape[-1]
    row, column = 2 * (at // width), 2 * (at % width)
    # Of the four pixels of the cell, one that is wrong.
    rows = torch.arange(len(wrong), device=wrong.device)
    cell = torch.stack([wrong[rows, row + r, column + c] for r in (0, 1) for c in (0, 1)], 1)
    pick = cell.float().argmax(1)
    return (row + pick // 2).float(), (column + pick % 2).float()
