"""What the embedded model looks at: which remembered slices, which box, and whether an earlier answer still counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from SegmentAnythingMedLib.models.base import Prediction, Recall
from SegmentAnythingMedLib.models.embedded_channels import EmbeddedMemory
from SegmentAnythingMedLib.models.embedded_crop import mask_box
from SegmentAnythingMedLib.prompts import SlicePrompts

Box = tuple[float, float, float, float]
FEW_MARKS = 2
"""Clicks and scribbles without a box that the network knows what to do with; it was trained on little more."""


def chosen_memories(recall: Recall) -> tuple[tuple[EmbeddedMemory, int], ...]:
    """The nearest key slice and the newest tracked slice with the object, with their distance; one of them alone if
    there is no other.

    A second key slice in the place of a tracked one pulls the outline to where the object is there: the phantom's
    kidney beside a key slice, .96 without the other key slice 6 slices away, .06 with it.
    """
    filled = [one for one in recall.memories if not one.memory.is_empty]
    by_distance = sorted(filled, key=lambda one: abs(one.distance))
    keys = [one for one in by_distance if one.slot == 0] or by_distance[-1:]
    tracked = [one for one in by_distance if one.slot > 0 and one is not keys[0]] if keys else []
    return tuple((one.memory, one.distance) for one in keys[:1] + tracked[:1])


def drawn_points(prompts: SlicePrompts, positive_only: bool = False) -> np.ndarray:
    """(N, 2) all clicks and points of scribbles, in slice pixels."""
    clicks = prompts.points_rc[prompts.positive] if positive_only else prompts.points_rc
    curves = [curve for curve, positive in prompts.scribbles if positive or not positive_only]
    return np.concatenate([clicks.reshape(-1, 2), *(np.asarray(curve).reshape(-1, 2) for curve in curves)])


def known_box(
    prompts: SlicePrompts, previous: Prediction | None, memories: tuple[tuple[EmbeddedMemory, int], ...]
) -> Box | None:
    """Where the object is, as far as an answer, a box or a remembered mask says; clicks outside it enlarge it.

    None if only clicks say something.
    """
    boxes = []
    if previous is not None:
        boxes.append(mask_box(previous.masks[0]))
    if prompts.lasso_rc is not None:
        boxes.append((*prompts.lasso_rc.min(axis=0), *prompts.lasso_rc.max(axis=0)))
    elif prompts.box_rc is not None:
        boxes.append(prompts.box_rc)
    if not boxes and memories:
        boxes.append(min(memories, key=lambda one: abs(one[1]))[0].box_rc)
    if not boxes:
        return None
    return united(*boxes, *_point_boxes(drawn_points(prompts)))


def shown_prompts(
    prompts: SlicePrompts, previous: Prediction | None, memories: tuple[tuple[EmbeddedMemory, int], ...]
) -> SlicePrompts:
    """The prompts as the network is shown them: after more than `FEW_MARKS` the earlier answer's box is one, too.

    Without it more clicks made the answer worse. Held-out structures, one click and 5 corrections, Dice without and
    with it: synthetic .75 and .84, brain .58 and .66, sarcomas .65 and .80.
    """
    marks = len(prompts.points_rc) + len(prompts.scribbles)
    if previous is None or memories or _encloses(prompts) or marks <= FEW_MARKS:
        return prompts
    points = drawn_points(prompts, positive_only=True)
    return replace(prompts, box_rc=united(mask_box(previous.masks[0]), *_point_boxes(points)))


def shown_answer(prompts: SlicePrompts, previous: Prediction | None) -> np.ndarray | None:
    """(rows, columns) logits of the earlier answer as the network is shown them; None inside a drawn box or lasso.

    There it only places the window: shown to the network, it holds on to its errors. Box and 5 clicks on held-out
    structures, Dice with and without it: synthetic .85 and .89, brain .62 and .70, sarcomas .88 and .92.
    """
    return None if previous is None or _encloses(prompts) else previous.logits[0]


def united(*boxes: Box | np.ndarray) -> Box:
    """The smallest box that holds all boxes."""
    low = np.min([box[:2] for box in boxes], axis=0)
    high = np.max([box[2:] for box in boxes], axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def refined(prompts: SlicePrompts, previous: Prediction | None) -> Prediction | None:
    """The earlier answer if the prompts only add to those that gave it, else None."""
    if previous is None or not previous.masks[0].any():
        return None
    before = previous.state
    if not isinstance(before, SlicePrompts):
        return previous if not prompts.is_empty else None
    same = before.encloses_as(prompts) and before.mask is None
    return previous if same and before.marks < prompts.marks else None


def _encloses(prompts: SlicePrompts) -> bool:
    return prompts.box_rc is not None or prompts.lasso_rc is not None


def _point_boxes(points_rc: np.ndarray) -> list[Box]:
    return [(row, column, row, column) for row, column in points_rc.tolist()]
