"""Measures a network on held-out stacks the way it is used: through the model family and a session.

Held out are synthetic seeds that no run draws, and the shards of a folder the caller names (patients not trained on).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage, stats

from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedNetwork
from SegmentAnythingMedLib.finetune.stack import Stack, load_stacks
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.embedded import EmbeddedModel
from SegmentAnythingMedLib.models.embedded_crop import mask_box
from SegmentAnythingMedLib.models.embedded_runtime import Answer
from SegmentAnythingMedLib.prompts import SlicePrompts

FIRST_HELD_OUT_SEED = 900_000_000
"""No training shard is made from seeds this high."""
SYNTHETIC_STACKS = 14
LEAST_AREA = 40
CORRECTIONS = 5
"""Corrective clicks after a box."""
BEYOND = 2
"""Slices beyond a structure's ends on which presence is measured."""
_NOTHING = SlicePrompts()


class TorchRun:
    """A torch network in the place of the ONNX file."""

    def __init__(self, network: EmbeddedNetwork) -> None:
        self._network = network.eval()
        self._device = next(network.parameters()).device

    def __call__(self, maps: np.ndarray) -> Answer:
        with torch.inference_mode():
            output = self._network(torch.from_numpy(np.ascontiguousarray(maps)).to(self._device))
            return Answer(*(part.cpu().numpy() for part in output))


def measure(network: EmbeddedNetwork, held_out: Path | None = None) -> dict[str, Any]:
    """Mean Dice by kind of prompt for each group of stacks, beside the trivial rules; and how quality is predicted.

    Returns
    -------
    dict
        ``"<group> <what> dice"``: box, box + clicks, click (first), click (best of 3), 3D from mask, 3D from box;
        ``(ellipse)`` and ``(copy)`` are the trivial rules on the same structures. ``"quality rank correlation"``
        is Spearman's between predicted quality and true Dice, ``"quality calibration"`` two rows for the ONNX file;
        ``"presence offset"`` is what the network's presence logits are lowered by (for the ONNX file), and
        ``"presence right ..."`` how often they are right then where the structure is, and just beyond its ends.
    """
    card = ModelCard("embedded", "in training", "embedded", "none", ("slice", "memory", "candidates"))
    model = EmbeddedModel(card, TorchRun(network))
    sums: defaultdict[str, list[float]] = defaultdict(list)
    judged: list[tuple[float, float]] = []
    presence: list[tuple[bool, float]] = []
    for group, stack, label, key in _structures(held_out):
        for name, value in _score(model, stack, label, key, judged, presence).items():
            sums[f"{group} {name}"].append(value)
    figures: dict[str, Any] = {name: round(float(np.mean(values)), 4) for name, values in sorted(sums.items())}
    figures |= {
        f"{name.split()[0]} structures": len(values) for name, values in sums.items() if name.endswith("box dice")
    }
    predicted, dice = np.array(judged).T
    figures["quality rank correlation"] = round(float(stats.spearmanr(predicted, dice).statistic), 4)
    offset = figures["presence offset"] = _presence_offset(presence)
    for name, there in (("inside", True), ("beyond", False)):
        right = [(logit > offset) == there for true, logit in presence if true == there]
        figures[f"presence right {name}"] = round(float(np.mean(right)), 4) if right else None
    figures["quality calibration"] = _calibration(predicted, dice / (2 - dice))
    return figures


def _presence_offset(presence: list[tuple[bool, float]]) -> float:
    """The logit that tells slices with the structure from those beyond its ends best; a lost slice counts double."""
    inside = np.array([logit for there, logit in presence if there])
    beyond = np.array([logit for there, logit in presence if not there])
    if not len(inside) or not len(beyond):
        return 0.0
    offsets = np.linspace(-2.0, 4.0, 61)
    right = [2 * (inside > offset).mean() + (beyond <= offset).mean() for offset in offsets]
    return round(float(offsets[int(np.argmax(right))]), 2)


def _structures(held_out: Path | None) -> Iterator[tuple[str, Stack, int, int]]:
    """Group, stack, label and the slice where the structure is largest; one or two structures per stack."""
    stacks = [("synthetic", stack) for stack in _held_out_synthetic()]
    if held_out is not None:
        for path in sorted(held_out.glob("[!.]*.npz")):
            stacks += [(path.name.partition("_")[0], stack) for stack in load_stacks(path)]
    for number, (group, stack) in enumerate(stacks):
        random = np.random.default_rng(number)
        areas = {label: stack.mask(label).sum((1, 2)) for label in stack.structures()}
        useful = [n for n, area in areas.items() if LEAST_AREA <= area.max() < 0.4 * stack.labels[0].size]
        for label in random.permutation(useful)[:2]:
            yield group, stack, int(label), int(areas[label].argmax())


@cache
def _held_out_synthetic() -> tuple[Stack, ...]:
    from SegmentAnythingMedLib.finetune.synthetic import make_stack

    return tuple(make_stack(FIRST_HELD_OUT_SEED + n) for n in range(SYNTHETIC_STACKS))


def _score(
    model: EmbeddedModel,
    stack: Stack,
    label: int,
    key: int,
    judged: list[tuple[float, float]],
    presence: list[tuple[bool, float]],
) -> dict[str, float]:
    """Dice of one structure by kind of prompt.

    Adds (predicted quality, Dice) pairs to ``judged`` and (is there, presence logit) pairs to ``presence``.
    """
    random = np.random.default_rng(label)
    truth = stack.mask(label)
    truth = _connected(truth, key)
    spacing = stack.spacing_mm[1:]
    images = [SliceImage(pixels[None], spacing) for pixels in stack.pixels()]
    features = model.encode_slices(images)
    wanted = truth[key]
    box = _box(wanted, random)
    scores = {"box dice (ellipse)": _dice(_ellipse(box, wanted.shape), wanted)}
    prompts = SlicePrompts(box_rc=box)
    answer = first = model.predict(features[key], prompts, Recall())
    judged.append((float(answer.quality[0]), _dice(answer.masks[0], wanted)))
    scores["box dice"] = _dice(answer.masks[0], wanted)
    for _ in range(CORRECTIONS):
        prompts = _corrected(prompts, answer.masks[0], wanted)
        answer = model.predict(features[key], prompts, Recall(), answer)
    scores["box + clicks dice"] = _dice(answer.masks[0], wanted)
    click = SlicePrompts(np.array([_deepest(wanted)], dtype=float), np.array([True]))
    answer = model.predict(features[key], click, Recall(), None, True)
    found = [_dice(mask, wanted) for mask in answer.masks]
    judged += list(zip(answer.quality.tolist(), found, strict=True))
    scores |= {"click (first) dice": found[0], "click (best of 3) dice": max(found)}
    if len(truth) > 1:
        copied = np.broadcast_to(wanted, truth.shape) & truth.any((1, 2))[:, None, None]
        scores["3D from mask dice (copy)"] = _dice(copied, truth)
        sure = Prediction(np.where(wanted, 10.0, -10.0).astype(np.float32)[None], np.ones(1))
        scores["3D from mask dice"] = _dice(_propagated(model, features, sure, truth, key, judged, presence), truth)
        scores["3D from box dice"] = _dice(_propagated(model, features, first, truth, key, [], []), truth)
    return scores


def _propagated(
    model: EmbeddedModel,
    features: list,
    start: Prediction,
    truth: np.ndarray,
    key: int,
    judged: list[tuple[float, float]],
    presence: list[tuple[bool, float]],
) -> np.ndarray:
    """(D, H, W) bool: the first slice's mask carried both ways over the slices that hold the structure."""
    found = np.zeros_like(truth)
    found[key] = start.masks[0]
    there = np.flatnonzero(truth.any((1, 2)))
    prompted = model.encode_memory(features[key], start, True)
    for step, end in ((1, there[-1]), (-1, there[0])):
        tracked: list[tuple[int, object]] = []
        for index in range(key + step, end + (1 + BEYOND) * step, step):
            if not 0 <= index < len(truth):
                break
            newest = [Recalled(memory, abs(index - at), abs(index - at)) for at, memory in tracked[-2:]]
            recall = Recall((Recalled(prompted, 0, abs(index - key)), *newest))
            answer = model.predict(features[index], _NOTHING, recall)
            inside = (end - index) * step >= 0
            presence.append((bool(truth[index].any()), answer.presence))
            found[index] = answer.masks[0] & inside
            tracked.append((index, model.encode_memory(features[index], answer, False)))
            if index == key + 2 * step:
                judged.append((float(answer.quality[0]), _dice(answer.masks[0], truth[index])))
    return found


def _connected(truth: np.ndarray, key: int) -> np.ndarray:
    """The part of a structure that hangs together with its largest component on the key slice."""
    labels, _ = ndimage.label(truth)
    counts = np.bincount(labels[key][truth[key]].reshape(-1))
    return labels == counts.argmax()


def _box(mask: np.ndarray, random: np.random.Generator) -> tuple[float, float, float, float]:
    """A box whose sides are off by -5 to +10 % of its size."""
    row0, column0, row1, column1 = mask_box(mask)
    height, width = row1 - row0 + 1, column1 - column0 + 1
    top, left, bottom, right = random.uniform(-0.05, 0.10, 4)
    return row0 - top * height, column0 - left * width, row1 + bottom * height, column1 + right * width


def _ellipse(box: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    rows = (np.arange(shape[0]) - (box[0] + box[2]) / 2) / ((box[2] - box[0] + 1) / 2)
    columns = (np.arange(shape[1]) - (box[1] + box[3]) / 2) / ((box[3] - box[1] + 1) / 2)
    return rows[:, None] ** 2 + columns**2 <= 1


def _corrected(prompts: SlicePrompts, found: np.ndarray, truth: np.ndarray) -> SlicePrompts:
    """The prompts with a click in the middle of the largest error."""
    wrong = found != truth
    if not wrong.any():
        return prompts
    labels, _ = ndimage.label(wrong)
    at = _deepest(labels == np.bincount(labels[wrong]).argmax())
    points = np.concatenate([prompts.points_rc, [at]])
    return SlicePrompts(points, np.append(prompts.positive, truth[at]), prompts.box_rc)


def _deepest(mask: np.ndarray) -> tuple[int, int]:
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return int(row), int(column)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2.0 * np.count_nonzero(a & b) / total if total else 1.0


def _calibration(predicted: np.ndarray, overlap: np.ndarray, knots: int = 6) -> list[list[float]]:
    """Predicted against mean measured intersection over union in equally filled bins, made to rise."""
    order = np.argsort(predicted)
    bins = np.array_split(order, knots)
    x = [0.0, *(float(predicted[one].mean()) for one in bins), 1.0]
    y = np.maximum.accumulate([0.0, *(float(overlap[one].mean()) for one in bins)])
    return [[round(value, 4) for value in x], [round(float(value), 4) for value in (*y, max(float(y[-1]), 0.98))]]
