"""Measures a network on held-out stacks the way it is used: through the model family and a session.

Held out are synthetic seeds that no run draws, and the shards of a folder the caller names (patients not trained on).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage, stats

from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedNetwork
from SegmentAnythingMedLib.finetune.embedded_weighing import Judgements
from SegmentAnythingMedLib.finetune.stack import Stack, load_stacks
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.classic import ClassicModel
from SegmentAnythingMedLib.models.embedded import EmbeddedModel
from SegmentAnythingMedLib.models.embedded_crop import mask_box
from SegmentAnythingMedLib.models.embedded_opinions import MOST_CANDIDATES, Pair, TwoOpinions, dice
from SegmentAnythingMedLib.models.embedded_runtime import Answer
from SegmentAnythingMedLib.prompts import SlicePrompts

FIRST_HELD_OUT_SEED = 900_000_000
"""No training shard is made from seeds this high."""
SYNTHETIC_STACKS = 14
LEAST_AREA = 40
CORRECTIONS = 5
"""Corrective clicks after a box."""
JUDGED_STEPS = (1, 2, 4)
"""Slices from the first one on which predicted quality is judged."""
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

    Everything is gone through twice: first to fit the `Weighing`, which is one of the figures and belongs into the
    file, then to measure with it.

    Returns
    -------
    dict
        ``"<group> <what> dice"``: box, box + clicks, click (first), click (best of 3), 3D from mask, 3D from box;
        ``(ellipse)`` and ``(copy)`` are the trivial rules on the same structures. ``"quality rank correlation"``
        is Spearman's between predicted quality and true Dice, ``"presence right ..."`` how often presence is right
        where the structure is, and just beyond its ends. ``"weighing"``: fields of `Weighing`.
    """
    card = ModelCard("embedded", "in training", "embedded", "none", ("slice", "memory", "candidates"))
    both = (EmbeddedModel(card, TorchRun(network)), ClassicModel(card))
    structures = list(_structures(held_out))
    _, judgements = _scores(TwoOpinions(*both), structures)
    weighing = judgements.weighing()
    sums, judgements = _scores(TwoOpinions(*both, weighing), structures)
    figures: dict[str, Any] = {name: round(float(np.mean(values)), 4) for name, values in sorted(sums.items())}
    figures |= {
        f"{name.split()[0]} structures": len(values) for name, values in sums.items() if name.endswith("box dice")
    }
    parts = ((judgements.joined, weighing.joined), (judgements.network, weighing.network))
    parts += ((judgements.solver, weighing.solver),)
    judged = [(clues @ np.array(weights), dice) for answers, weights in parts for clues, dice in answers]
    figures["quality rank correlation"] = round(float(stats.spearmanr(*np.array(judged).T).statistic), 4)
    for name, there in (("inside", True), ("beyond", False)):
        right = [(logit > weighing.presence_offset) == there for true, logit in judgements.presence if true == there]
        figures[f"presence right {name}"] = round(float(np.mean(right)), 4) if right else None
    figures["weighing"] = asdict(weighing)
    return figures


def _scores(
    model: TwoOpinions, structures: list[tuple[str, Stack, int, int]]
) -> tuple[dict[str, list[float]], Judgements]:
    sums: defaultdict[str, list[float]] = defaultdict(list)
    judgements = Judgements()
    for group, stack, label, key in structures:
        for name, value in _score(model, stack, label, key, judgements).items():
            sums[f"{group} {name}"].append(value)
    return sums, judgements


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


def _score(model: TwoOpinions, stack: Stack, label: int, key: int, judgements: Judgements) -> dict[str, float]:
    """Dice of one structure by kind of prompt; adds to ``judgements``."""
    random = np.random.default_rng(label)
    truth = _connected(stack.mask(label), key)
    images = [SliceImage(pixels[None], stack.spacing_mm[1:]) for pixels in stack.pixels()]
    features = model.encode_slices(images)
    wanted = truth[key]
    box = _box(wanted, random)
    scores = {"box dice (ellipse)": dice(_ellipse(box, wanted.shape), wanted)}
    prompts = SlicePrompts(box_rc=box)
    answer = first = _answer(model, features[key], prompts, None, wanted, judgements)
    scores["box dice"] = dice(answer.masks[0], wanted)
    for _ in range(CORRECTIONS):
        prompts = _corrected(prompts, answer.masks[0], wanted)
        answer = _answer(model, features[key], prompts, answer, wanted, judgements)
    scores["box + clicks dice"] = dice(answer.masks[0], wanted)
    click = SlicePrompts(np.array([_deepest(wanted)], dtype=float), np.array([True]))
    opinions = model.opinions(features[key], click, multimask=True)
    judgements.add_candidates(opinions, wanted)
    found = [dice(mask, wanted) for mask in model.choose(opinions, MOST_CANDIDATES).masks]
    scores |= {"click (first) dice": found[0], "click (best of 3) dice": max(found)}
    if len(truth) > 1:
        copied = np.broadcast_to(wanted, truth.shape) & truth.any((1, 2))[:, None, None]
        scores["3D from mask dice (copy)"] = dice(copied, truth)
        sure = Prediction(np.where(wanted, 10.0, -10.0).astype(np.float32)[None], np.ones(1))
        scores["3D from mask dice"] = dice(_propagated(model, features, sure, truth, key, judgements), truth)
        scores["3D from box dice"] = dice(_propagated(model, features, first, truth, key, Judgements()), truth)
    return scores


def _answer(
    model: TwoOpinions,
    features: Pair,
    prompts: SlicePrompts,
    previous: Prediction | None,
    truth: np.ndarray,
    judgements: Judgements,
) -> Prediction:
    opinions = model.opinions(features, prompts, previous=previous)
    answer = model.join(opinions, prompts)
    judgements.add_joined(opinions, answer, truth)
    return answer


def _propagated(
    model: TwoOpinions,
    features: list[Pair],
    start: Prediction,
    truth: np.ndarray,
    key: int,
    judgements: Judgements,
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
            opinions = model.opinions(features[index], _NOTHING, recall)
            answer = model.join(opinions, _NOTHING)
            judgements.add_presence(opinions, bool(truth[index].any()))
            found[index] = answer.masks[0] & ((end - index) * step >= 0)
            tracked.append((index, model.encode_memory(features[index], answer, False)))
            if abs(index - key) in JUDGED_STEPS and truth[index].any():
                judgements.add_joined(opinions, answer, truth[index])
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
