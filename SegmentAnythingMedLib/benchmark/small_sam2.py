"""A small SAM 2, trained on the phantom for some minutes: weights that mean something, to judge what is lossy by Dice.

With random weights a mask is noise, and flips wherever a logit moves a little. The training unrolls
`Sam2Model.track_step` from a box through a few slices, as SAM 2's does (Ravi et al. 2024), without its augmentations:
it is a judge of precisions, not a model for anyone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from SegmentAnythingMedLib.models.base import SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.networks.hiera import HieraConfig
from SegmentAnythingMedLib.models.networks.sam2_network import DecodedMasks, ImageFeatures, Sam2Config, Sam2Network
from SegmentAnythingMedLib.models.preprocess import Placement, Preprocessing, normalize
from SegmentAnythingMedLib.models.sam2 import Sam2Model, Sam2Prompts, Sam2Recall
from SegmentAnythingMedLib.phantom import make_phantom
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.windowing import choose_window

ORGANS = ("liver", "left kidney", "right kidney", "spleen")
CONFIG = Sam2Config(
    HieraConfig(dim=32, heads=1, blocks=(1, 1, 3, 1), global_blocks=(3,), background=(4, 4)),
    image_size=128,
    dim=128,
    memory_layers=2,
    mlp_dim=256,
    dynamic_multimask=False,  # the three candidates of a box are not trained
)
CARD = ModelCard(
    "small-sam2", "small", "sam2", "none", ("slice", "memory"), ("point", "box", "mask"), (), "imagenet-stretch",
    CONFIG.image_size,
)  # fmt: skip
_LEARNING_RATE, _WARM_UP = 1e-3, 30
_SMOOTH = 10.0
_FEWEST_PIXELS = 30


@dataclass(frozen=True, eq=False)
class Patient:
    """The phantom's CT, and its organs."""

    volume: Volume
    truths: dict[str, np.ndarray]

    @classmethod
    def made(cls) -> Patient:
        phantom = make_phantom("CT")
        return cls(phantom.volume, {name: phantom.structure(name).mask() for name in ORGANS})

    @cached_property
    def pixels(self) -> Tensor:
        """(K, 3, S, S) float32 as the network takes them."""
        window, recipe = choose_window(self.volume), Preprocessing.named(CARD.preprocessing)
        images = [SliceImage(window.apply(one[None])) for one in self.volume.array()]
        side = CONFIG.image_size
        return torch.cat([normalize(one, recipe, Placement.of(one, side, stretch=True)) for one in images])

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """(K, 1, S/4, S/4) float32 shares of each cell that an organ fills, by its name."""
        size = (CONFIG.mask_size, CONFIG.mask_size)
        return {
            name: functional.interpolate(torch.from_numpy(mask[:, None]).float(), size, mode="area")
            for name, mask in self.truths.items()
        }


def new_network(seed: int = 0) -> Sam2Network:
    """One that knows nothing."""
    torch.manual_seed(seed)
    network = Sam2Network(CONFIG)
    with torch.no_grad():
        for parameter in (network.maskmem_tpos_enc, network.no_mem_embed, network.no_obj_ptr):
            parameter.normal_(std=0.02)
    return network


def train(
    network: Sam2Network,
    patient: Patient,
    minutes: float,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    batch: int = 4,
) -> Sam2Network:
    """Train a network some minutes; it is handed back in evaluation."""
    torch.manual_seed(seed)
    network.requires_grad_(True).train()
    model, random = Sam2Model(CARD, network), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=0.01)
    started, step, dices = time.perf_counter(), 0, []
    while (share := (time.perf_counter() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * min(1, (step + 1) / _WARM_UP, 2 * (1 - share))
        loss, dice = _loss_of(model, _examples(patient, random, batch, length=2 + min(2, step // 400)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        dices.append(dice)
        step += 1
        if step % 25 == 0:
            tell(f"{step} steps, {60 * minutes * share:.0f} s, loss {loss:.3f}, Dice {np.mean(dices[-25:]):.3f}")
    return network.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class _Example:
    """An organ through a few slices: pixels (N, 3, S, S), masks (N, 1, S/4, S/4), box (2, 2) in model pixels (x, y)."""

    pixels: Tensor
    masks: Tensor
    box: Tensor


def _examples(patient: Patient, random: np.random.Generator, count: int, length: int) -> list[_Example]:
    found = []
    while len(found) < count:
        name = ORGANS[random.integers(len(ORGANS))]
        truth, step = patient.truths[name], int(random.choice([-2, -1, 1, 2]))
        there = np.flatnonzero(truth.sum((1, 2)) >= _FEWEST_PIXELS)
        order = int(random.choice(there)) + step * np.arange(length)
        if order.min() >= 0 and order.max() < len(truth):
            noise = float(random.normal(scale=0.1)) + 0.05 * torch.randn(length, 3, 1, 1)
            pixels = patient.pixels[order] + noise
            found.append(_Example(pixels, patient.masks[name][order], _box(truth[order[0]], random)))
    return found


def _box(truth: np.ndarray, random: np.random.Generator) -> Tensor:
    rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    corners = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], float)
    corners *= CONFIG.image_size / np.array(truth.shape[::-1])
    return torch.from_numpy(corners + random.normal(scale=1.0, size=(2, 2))).float()


def _loss_of(model: Sam2Model, examples: Sequence[_Example]) -> tuple[Tensor, float]:
    """Mean loss of the slices, and mean Dice."""
    network, boxes = model.network, torch.stack([one.box for one in examples])
    pixels, masks = (torch.stack([getattr(one, kind) for one in examples], dim=1) for kind in ("pixels", "masks"))
    encoded = network.encode_image(pixels.flatten(0, 1))
    maps: list[Tensor] = []
    pointers: list[Tensor] = []
    losses, dices = [], []
    for index, target in enumerate(masks):
        rows = slice(index * len(examples), (index + 1) * len(examples))
        features = ImageFeatures(encoded.stride4[rows], encoded.stride8[rows], encoded.embedding[rows])
        if index == 0:
            prompts, recall = Sam2Prompts(boxes, torch.tensor([[2, 3]]).expand(len(boxes), -1)), Sam2Recall()
        else:
            # Slot 0 is the prompted slice, the others count back from this one.
            slots = [0, *range(index - 1, 0, -1)]
            distances = [float(index - place) for place in range(index)]
            prompts = Sam2Prompts()
            recall = Sam2Recall(
                tuple(zip(maps, slots, strict=True)), tuple(zip(pointers, distances, strict=True)), pointer_span=15
            )
        decoded = model.track_step(features, prompts, recall)
        loss, best, dice = _slice_loss(decoded, target)
        losses.append(loss)
        dices.append(dice)
        chosen = decoded.mask_logits[torch.arange(len(best)), best][:, None]
        maps.append(network.encode_memory(features.embedding, chosen, decoded.object_logits, False, dtype=None))
        pointers.append(decoded.pointers[torch.arange(len(best)), best])
    return torch.stack(losses).mean(), float(np.mean(dices))


def _slice_loss(decoded: DecodedMasks, target: Tensor) -> tuple[Tensor, Tensor, float]:
    """Loss, best candidate of each object, mean Dice where the object is."""
    logits, wanted = decoded.mask_logits, target.expand_as(decoded.mask_logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((2, 3))
    inside = logits.sigmoid()
    soft = 1 - (2 * (inside * wanted).sum((2, 3)) + _SMOOTH) / (inside.sum((2, 3)) + wanted.sum((2, 3)) + _SMOOTH)
    each = 5 * entropy + soft
    best = decoded.iou.argmax(dim=1)  # as a session chooses; the loss of the best would let each organ have its own
    with torch.no_grad():
        mask, truth = logits > 0, wanted >= 0.5
        both, either = (mask & truth).sum((2, 3)).float(), (mask | truth).sum((2, 3)).float()
        overlap = (both + 1) / (either + 1)
    there = (target.flatten(1).amax(1, keepdim=True) >= 0.5).float()
    presence = functional.binary_cross_entropy_with_logits(decoded.object_logits, there)
    quality = functional.mse_loss(decoded.iou, overlap)
    loss = each.mean() + quality + 0.2 * presence
    overlap = overlap[torch.arange(len(best)), best]
    return loss, best, float((2 * overlap / (1 + overlap)).mean())
